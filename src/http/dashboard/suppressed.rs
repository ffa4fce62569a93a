//! The numbers that must never be messaged: searched, added, imported from a file, removed.

use std::collections::HashMap;

use axum::extract::{Multipart, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use jiff::Timestamp;
use minijinja::{Value, context};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::super::access::Who;
use super::super::api::extract::Params;
use super::super::api::suppressed::change;
use super::super::problem::Problem;
use super::Dashboard;
use super::countries::{countries, country};
use super::extract::Fields;
use super::render::{Look, page_of, serialized};
use super::words::{as_sentence, plain};
use crate::audience::{self, AudienceError, NumberList, Settings, Source, UnreadableRow};
use crate::campaign::{Phone, PhoneError, PhoneParser, counted, thousands};
use crate::ledger::{Act, Audit, OptOut, OptOutSource, Suppress, Suppression, SuppressionUpdate};
use crate::views::lines::cell;

/// How many numbers a page has.
const LISTED: usize = 50;
/// How many audit entries are searched for those of this list, and how many are shown.
const ACTS: (usize, usize) = (200, 10);
/// The largest file that is imported, in bytes.
const LARGEST: usize = 256 << 20;
/// How many unreadable rows can be downloaded, and how many are shown.
const UNREADABLE: (usize, usize) = (10_000, 20);
/// How many changes of the list are looked at for the numbers of its history, and how many numbers of an entry are shown.
const CHANGES: u64 = 200;
const NUMBERS_SHOWN: usize = 3;
/// How far apart a change and its audit entry are at the most, in milliseconds: one is written right behind the other.
const APART: u64 = 10_000;
/// How many row numbers a sentence names.
const NAMED: usize = 5;

#[derive(Default, Deserialize)]
pub(super) struct ListParams {
    /// Some digits of a number.
    q: Option<String>,
    cursor: Option<u64>,
    /// Whether numbers were just added.
    added: Option<String>,
    /// The digits of a number that was just removed.
    removed: Option<String>,
}

/// What the page shows besides the list.
#[derive(Default)]
struct Shown<'s> {
    /// What is wrong, each with its field.
    errors: Vec<(&'static str, String)>,
    /// What was typed as numbers.
    typed: &'s str,
    /// The columns of a file in which no phone column was found.
    columns: Vec<String>,
    region: &'s str,
    /// What an import did.
    imported: Option<Value>,
}

/// The latest changes of the list. The audit log says who made a change and when, and names no number: that is in the list's own
/// record, as long as a number is on it.
#[derive(Default)]
struct History {
    /// Numbers that were added and are on the list, each with when and by whom.
    added: Vec<(Phone, OptOut)>,
    /// Numbers that were removed and are not on the list, the latest first.
    removed: Vec<Phone>,
}

impl History {
    async fn read(dashboard: &Dashboard) -> Result<Self, Problem> {
        let backing = dashboard.api.backing()?;
        let (list, ledger) = (&backing.context, &backing.ledger);
        let version = list.suppressed_version();
        // From version 0 on it would be the whole list.
        let since = version.saturating_sub(CHANGES).max(1);
        let changes = match ledger.suppressed(since).await? {
            Some(SuppressionUpdate::Since { changes, .. }) => changes,
            Some(SuppressionUpdate::Whole(_)) | None => Vec::new(),
        };
        // The first change of all is in no such part.
        let first = if version <= CHANGES { list.suppressed_from(0, CHANGES as usize) } else { Vec::new() };
        let first = first.into_iter().filter_map(Phone::from_digits);
        let mut numbers: Vec<Phone> = Vec::new();
        let mut removed = Vec::new();
        for (phone, is_listed) in changes.into_iter().rev().chain(first.map(|phone| (phone, true))) {
            match list.is_suppressed(phone) {
                true if !numbers.contains(&phone) => numbers.push(phone),
                false if !is_listed && !removed.contains(&phone) => removed.push(phone),
                _ => {}
            }
        }
        let records = ledger.opt_outs(&numbers).await?;
        let added = numbers.into_iter().zip(records).filter_map(|(phone, record)| Some((phone, record?)));
        Ok(Self { added: added.collect(), removed })
    }

    /// The numbers that entries of the audit log added, by the place of the entry.
    fn added_by(&self, acts: &[&Act]) -> HashMap<usize, Vec<Phone>> {
        let mut numbers: HashMap<usize, Vec<Phone>> = HashMap::new();
        for (phone, record) in &self.added {
            let OptOutSource::Operator(who) = &record.source else { continue };
            // An entry is written behind the change. A clock that differs may say otherwise.
            let apart = |act: &Act| act.at.as_millisecond().abs_diff(record.at);
            let order = |act: &Act| (act.at.as_millisecond() < record.at, apart(act));
            let own = acts.iter().enumerate().filter(|(_, act)| act.who == *who && apart(act) <= APART);
            if let Some((nth, _)) = own.min_by_key(|(_, act)| order(act)) {
                numbers.entry(nth).or_default().push(*phone);
            }
        }
        numbers
    }
}

pub(super) async fn list(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Params(asked): Params<ListParams>,
) -> Result<Html<String>, Problem> {
    page(&dashboard, &who, &look, asked, Shown::default()).await
}

async fn page(
    dashboard: &Dashboard,
    who: &Who,
    look: &Look,
    asked: ListParams,
    shown: Shown<'_>,
) -> Result<Html<String>, Problem> {
    let backing = dashboard.api.backing()?;
    let list = &backing.context;
    list.follow_suppressed(&backing.ledger).await?;
    let wanted: String =
        asked.q.as_deref().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    let mut numbers = if wanted.is_empty() {
        list.suppressed_from(asked.cursor.unwrap_or_default(), LISTED + 1)
    } else {
        list.suppressed_with(wanted.clone(), LISTED + 1).await
    };
    let is_more = numbers.len() > LISTED;
    let next = if is_more { numbers.pop() } else { None };
    let phones: Vec<Phone> = numbers.iter().filter_map(|digits| Phone::from_digits(*digits)).collect();
    let added = backing.ledger.opt_outs(&phones).await?;
    let numbers = phones.iter().zip(&added).map(|(phone, added)| {
        let by = added.as_ref().map(|added| match &added.source {
            OptOutSource::Reply => "Replied with a stop word".to_owned(),
            OptOutSource::Operator(name) => plain(name),
        });
        let at = added.as_ref().and_then(|added| Timestamp::from_millisecond(added.at).ok());
        context! { number => phone.to_string(), by, at => at.map(|at| at.to_string()) }
    });
    let numbers: Vec<_> = numbers.collect();
    let page = backing.ledger.acts(None, None, ACTS.0).await?;
    let history = History::read(dashboard).await?;
    let acts: Vec<&Act> = page.acts.iter().filter(|act| act.what == "suppress").take(ACTS.1).collect();
    let mut added = history.added_by(&acts);
    let acts = acts.iter().enumerate().map(|(nth, act)| {
        let numbers = added.remove(&nth).unwrap_or_default();
        let shown: Vec<String> = numbers.iter().take(NUMBERS_SHOWN).map(Phone::to_string).collect();
        context! { at => act.at.to_string(), who => plain(&act.who), detail => plain(&act.detail), numbers => shown,
            has_more => numbers.len() > NUMBERS_SHOWN }
    });
    let acts: Vec<_> = acts.collect();
    let gone: Vec<String> = history.removed.iter().take(ACTS.1).map(Phone::to_string).collect();
    // The address says only that something was done; what it was, the audit log says.
    let latest = page.acts.iter().find(|act| act.what == "suppress" && act.who == *who.name);
    let did = latest.filter(|_| asked.added.is_some()).map(|act| as_sentence(&act.detail));
    let removed = asked.removed.and_then(|digits| format!("+{digits}").parse::<Phone>().ok());
    let removed = removed.filter(|phone| !list.is_suppressed(*phone)).map(|phone| phone.to_string());
    let error =
        |(field, detail): &(&'static str, String)| context! { field => *field, detail => detail.clone() };
    let own = context! {
        kind => "suppressed",
        numbers,
        next => next.filter(|_| wanted.is_empty()),
        is_cut => is_more && !wanted.is_empty(),
        q => asked.q,
        acts,
        gone,
        did,
        removed,
        errors => shown.errors.iter().map(error).collect::<Vec<_>>(),
        typed => shown.typed,
        columns => shown.columns,
        countries => serialized(countries()),
        region => shown.region,
        imported => shown.imported,
    };
    Ok(page_of(look, Some(who), "lists.html", "Opt-outs", own))
}

pub(super) async fn add(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    fields: Fields,
) -> Result<Response, Problem> {
    let typed = fields.get("numbers");
    let (mut numbers, mut errors) = (Vec::new(), Vec::new());
    for line in typed.split(['\n', ',', ';']).map(str::trim).filter(|line| !line.is_empty()) {
        match PhoneParser::international(line) {
            Ok(number) => numbers.push(number),
            Err(PhoneError::NoRegion) => {
                errors.push(("numbers", format!("“{line}”: add + and the country code.")));
            }
            Err(error) => errors.push(("numbers", format!("“{line}”: {error}."))),
        }
    }
    if numbers.is_empty() && errors.is_empty() {
        errors.push(("numbers", "Enter at least one number.".into()));
    }
    if !errors.is_empty() {
        let shown = Shown { errors, typed, ..Shown::default() };
        let page = page(&dashboard, &who, &look, ListParams::default(), shown).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    change(&dashboard.api, &who, numbers, Suppress::Add).await?;
    Ok(Redirect::to("/suppressed?added=yes").into_response())
}

pub(super) async fn remove(
    State(dashboard): State<Dashboard>,
    who: Who,
    fields: Fields,
) -> Result<Response, Problem> {
    let number = PhoneParser::listed(fields.get("number"));
    let number =
        number.map_err(|_| Problem::not_found("a number has its country code, for example +919876543210"))?;
    change(&dashboard.api, &who, vec![number], Suppress::Remove).await?;
    Ok(Redirect::to(&format!("/suppressed?removed={}", number.digits())).into_response())
}

/// A form with a file.
struct Upload {
    /// The folder that the file is in, removed with this.
    folder: TempDir,
    /// What the person calls the file; empty where none was chosen.
    name: String,
    path: std::path::PathBuf,
    bytes: usize,
    phone: String,
    region: String,
}

impl Upload {
    async fn read(mut form: Multipart) -> Result<Self, Problem> {
        let wrong = |detail: String| Problem::bad_request(format!("the form: {detail}"));
        let failed = |fault: std::io::Error| Problem::away(format!("the file can't be written: {fault}"));
        let folder = tempfile::tempdir().map_err(failed)?;
        let path = folder.path().join("numbers.csv");
        let mut upload =
            Self { folder, name: String::new(), path, bytes: 0, phone: String::new(), region: String::new() };
        while let Some(mut field) = form.next_field().await.map_err(|fault| wrong(fault.body_text()))? {
            match field.name() {
                Some("phone") => {
                    upload.phone = field.text().await.map_err(|fault| wrong(fault.body_text()))?;
                }
                Some("region") => {
                    upload.region = field.text().await.map_err(|fault| wrong(fault.body_text()))?;
                }
                Some("file") => {
                    upload.name = field.file_name().unwrap_or_default().to_owned();
                    let ending = upload.name.rsplit_once('.').map_or("csv", |(_, ending)| ending);
                    let ending = if matches!(ending, "xlsx" | "gz" | "zst") { ending } else { "csv" };
                    upload.path.set_extension(ending);
                    let mut file = tokio::fs::File::create(&upload.path).await.map_err(failed)?;
                    while let Some(chunk) = field.chunk().await.map_err(|fault| wrong(fault.body_text()))? {
                        upload.bytes += chunk.len();
                        if upload.bytes > LARGEST {
                            let detail = "the file is too large; split it";
                            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
                        }
                        file.write_all(&chunk).await.map_err(failed)?;
                    }
                    file.flush().await.map_err(failed)?;
                }
                _ => {}
            }
        }
        Ok(upload)
    }

    /// Reads the numbers; with the columns of the file where its phone column is not found.
    fn numbers(&self) -> Result<NumberList, (AudienceError, Vec<String>)> {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let source = Source::File(self.path.clone());
        audience::numbers(&source, given(&self.phone), given(&self.region), UNREADABLE.0).map_err(|fault| {
            let columns = match &fault {
                AudienceError::NoPhoneColumn { .. } => {
                    audience::scan(&source, &Settings::default()).map(|scan| scan.columns).unwrap_or_default()
                }
                _ => Vec::new(),
            };
            (fault, columns)
        })
    }
}

/// Adds the numbers of a file, and says of each row that has none why.
pub(super) async fn import(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    form: Multipart,
) -> Result<Response, Problem> {
    let upload = Upload::read(form).await?;
    let region = upload.region.clone();
    let refuse = async |field: &'static str, error: String, columns: Vec<String>| {
        let shown = Shown { errors: vec![(field, error)], columns, region: &region, ..Shown::default() };
        let page = page(&dashboard, &who, &look, ListParams::default(), shown).await?;
        Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
    };
    if upload.bytes == 0 {
        return refuse("file", "Choose a file with a column of numbers.".into(), Vec::new()).await;
    }
    if !region.is_empty() && country(&region).is_none() {
        return refuse("region", "Choose a country from the list.".into(), Vec::new()).await;
    }
    let read = tokio::task::spawn_blocking(move || (upload.numbers(), upload)).await;
    let (read, upload) = read.map_err(|fault| Problem::away(fault.to_string()))?;
    drop(upload.folder);
    let name = upload.name;
    let list = match read {
        Ok(list) => list,
        Err((_, columns)) if !columns.is_empty() => {
            let error =
                format!("We couldn’t find the phone column of {name}. Choose it, and the file again.");
            return refuse("column", error, columns).await;
        }
        Err((fault, _)) => {
            // What a person calls the file is not what it is called here.
            let fault = fault.to_string();
            let stored = upload.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            return refuse("file", as_sentence(&fault.replace(stored, &name)), Vec::new()).await;
        }
    };
    if list.numbers.is_empty() {
        let rows = counted(list.unreadable, "row");
        let error = format!(
            "No number was added: {name} has {rows} without a valid number. If numbers lack the + and the country code, choose their country."
        );
        return refuse("file", error, Vec::new()).await;
    }
    let count = list.numbers.len() as u64;
    let added = change(&dashboard.api, &who, list.numbers, Suppress::Add).await?;
    let mut parts = vec![format!("{} added", counted(added, "number"))];
    if count > added {
        parts.push(format!("{} already on the list", thousands(count - added)));
    }
    if list.duplicates > 0 {
        parts.push(format!("{} with a number of an earlier row", counted(list.duplicates, "row")));
    }
    if list.unreadable > 0 {
        let named: Vec<String> =
            list.unreadable_rows.iter().take(NAMED).map(|one| thousands(one.row)).collect();
        let more = if list.unreadable > NAMED as u64 { " …" } else { "" };
        let which = if list.unreadable == 1 { "row" } else { "rows" };
        let rows = counted(list.unreadable, "row");
        parts.push(format!("{rows} couldn’t be read ({which} {}{more})", named.join(", ")));
    }
    let unreadable = list.unreadable_rows.iter().take(UNREADABLE.1).map(|one| {
        context! { row => one.row, text => one.text.clone(), reason => as_sentence(&one.reason) }
    });
    let imported = context! {
        sentence => format!("{}: {}.", name, parts.join(", ")),
        unreadable => unreadable.collect::<Vec<_>>(),
        count => list.unreadable,
        download => (list.unreadable > 0).then(|| download(&list.unreadable_rows)),
        is_cut => list.unreadable > UNREADABLE.0 as u64,
    };
    let shown = Shown { region: &region, imported: Some(imported), ..Shown::default() };
    Ok(page(&dashboard, &who, &look, ListParams::default(), shown).await?.into_response())
}

/// The unreadable rows as a CSV file inside an address: nothing of them is kept here.
fn download(rows: &[UnreadableRow]) -> String {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let mut write = |row: [&str; 3]| drop(csv.write_record(row));
    write(["row", "text", "reason"]);
    for one in rows {
        write([&one.row.to_string(), &cell(&one.text), &one.reason]);
    }
    let bytes = csv.into_inner().unwrap_or_default();
    let text: String = url::form_urlencoded::byte_serialize(&bytes).collect();
    format!("data:text/csv;charset=utf-8,{}", text.replace('+', "%20"))
}
