//! The first step: the phone column, the country of numbers without a code, some rows, and the rows that are skipped.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use minijinja::context;
use serde_json::{Map, Value, json};

use super::super::super::access::Who;
use super::super::super::api::campaigns::with_prepared;
use super::super::super::problem::Problem;
use super::super::Dashboard;
use super::super::campaigns::{skip_meaning, skip_title};
use super::super::countries::{countries, country};
use super::super::extract::Fields;
use super::super::render::{Look, serialized};
use super::super::words::as_sentence;
use super::draft::{Draft, Suggestion};
use super::{address, errors, step_page};
use crate::audience::{self, Audience, Encoding, Line, Settings};
use crate::campaign::{Columns, Job, SkipReason, thousands};
use crate::views::check::{Note, check};

/// How many rows are shown.
const SAMPLE: usize = 5;
/// The longest value that is shown, in characters.
const SHOWN: usize = 60;

/// Why an audience can't be sent to.
pub(super) enum Wrong {
    /// No column is called as columns of numbers are, and none was chosen.
    NoPhoneColumn,
    /// Anything else, in a sentence.
    Other(String),
}

impl Wrong {
    fn plain(&self) -> &str {
        match self {
            Self::NoPhoneColumn => "We couldn’t find the phone column. Choose it below.",
            Self::Other(text) => text,
        }
    }
}

/// Reads a draft's audience from end to end. Returns what is wrong with it, if it can't be sent to.
pub(super) async fn inspect(dashboard: &Dashboard, draft: &mut Draft) -> Result<Option<Wrong>, Problem> {
    let context = &dashboard.api.backing()?.context;
    draft.is_read = false;
    let path = draft.text("/audience/csv/path").to_owned();
    let named = |pointer: &str| Some(draft.text(pointer).to_owned()).filter(|text| !text.is_empty());
    let settings = Settings {
        encoding: named("/audience/csv/encoding").as_deref().and_then(Encoding::named).unwrap_or_default(),
        sheet: named("/audience/csv/sheet"),
        ..Settings::default()
    };
    if draft.columns.is_empty() && context.audiences.root().is_some() {
        let audiences = context.audiences.clone();
        let scanned =
            tokio::task::spawn_blocking(move || audience::scan(&audiences.find_path(&path)?, &settings));
        match scanned.await.map_err(|fault| Problem::away(fault.to_string()))? {
            Ok(scan) => (draft.columns, draft.rows) = (scan.columns, scan.rows),
            Err(fault) if fault.is_outside_failure() => return Err(Problem::away(fault.to_string())),
            Err(fault) => return Ok(Some(Wrong::Other(as_sentence(&fault.to_string())))),
        }
    }
    let is_named = !draft.text("/audience/csv/phone").is_empty();
    let is_found =
        draft.columns.is_empty() || audience::has_phone_column(&Columns::new(draft.columns.clone()));
    if !is_named && !is_found {
        return Ok(Some(Wrong::NoPhoneColumn));
    }
    let Some((account, _)) = context.accounts.usable().into_iter().next() else {
        return Ok(Some(Wrong::Other("No account is available. See Accounts.".into())));
    };
    // Any message does to see whom it would go to.
    let job = json!({ "version": 1, "account": account, "from": "+10000000000", "audience": draft.job["audience"],
        "message": { "type": "text", "text": { "body": "x" } } });
    let job = match Job::read(job.to_string().as_bytes()) {
        Ok(job) => job,
        Err(problems) => {
            let first = problems.first();
            return Ok(first.map(|problem| Wrong::Other(as_sentence(&problem.message))));
        }
    };
    let read = with_prepared(&dashboard.api, job, |prepared, account| {
        let checked = check(&prepared, account, 0)?;
        let mut audience = Audience::open(&prepared.source, &prepared.settings)
            .map_err(|fault| Problem::away(fault.to_string()))?;
        let names = audience.columns().names().to_vec();
        let mut sample = Vec::new();
        while sample.len() < SAMPLE {
            let line = audience.next_line().map_err(|fault| Problem::away(fault.to_string()))?;
            match line {
                None => break,
                Some(Line::Skipped { .. }) => {}
                Some(Line::Recipient(row)) => {
                    let values =
                        names.iter().enumerate().map(|(nth, name)| (name.clone(), row.shown(nth).into()));
                    let mut values: Map<String, Value> = values.collect();
                    values.insert("phone".into(), row.phone.to_string().into());
                    sample.push(values);
                }
            }
        }
        Ok((checked, sample))
    });
    match read.await {
        Ok((checked, sample)) => {
            draft.rows = checked.rows;
            draft.people = checked.recipients;
            draft.phone_column = checked.phone_column;
            draft.skipped =
                checked.skipped.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
            let problems = checked.problems.into_iter();
            draft.problems = problems.map(|row| (row.row, row.reason.to_string(), row.detail)).collect();
            (draft.notes, draft.suggestion) = (Vec::new(), None);
            for note in checked.notes {
                match note {
                    Note::Audience(note) => draft.notes.push(note),
                    Note::Region { region, valid, tried, is_certain, .. } => {
                        draft.suggestion = Some(Suggestion { region, valid, tried, is_certain });
                    }
                }
            }
            draft.sample = sample;
            draft.is_read = true;
            Ok(None)
        }
        Err(problem) if problem.status().is_client_error() => {
            let first = problem.errors().next().map(|(_, detail)| detail.to_owned());
            let text = first.unwrap_or_else(|| problem.plain().into_owned());
            Ok(Some(Wrong::Other(as_sentence(&text))))
        }
        Err(problem) => Err(problem),
    }
}

/// Reads a new draft's audience. Where all its numbers begin with the calling code of one country and only lack the `+`, that is
/// the default country, and the page says so.
pub(super) async fn inspect_new(dashboard: &Dashboard, draft: &mut Draft) -> Result<(), Problem> {
    // What is wrong with it is said on its own page.
    let _ = inspect(dashboard, draft).await?;
    let certain = draft.suggestion.as_ref().filter(|suggestion| suggestion.is_certain && draft.people == 0);
    if let Some(region) = certain.map(|suggestion| suggestion.region.clone()) {
        draft.job["audience"]["csv"]["default_region"] = region.into();
        draft.is_assumed = true;
        let _ = inspect(dashboard, draft).await?;
    }
    Ok(())
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Path(id): Path<String>,
) -> Result<Html<String>, Problem> {
    let mut draft = Draft::find(&dashboard, &id).await?;
    let wrong = if draft.is_read { None } else { inspect(&dashboard, &mut draft).await? };
    Ok(page(&look, &who, &draft, wrong.as_ref()))
}

fn page(look: &Look, who: &Who, draft: &Draft, wrong: Option<&Wrong>) -> Html<String> {
    let cut = |value: &str| -> String { value.chars().take(SHOWN).collect() };
    let rows = draft.sample.iter().map(|row| {
        let value = |name: &String| cut(row.get(name).and_then(Value::as_str).unwrap_or_default());
        let number = row.get("phone").and_then(Value::as_str).unwrap_or_default();
        context! { number, values => draft.columns.iter().map(value).collect::<Vec<_>>() }
    });
    let skipped = draft.skipped.iter().map(|(reason, count)| {
        let known: Option<SkipReason> = reason.parse().ok();
        let rows = draft.problems.iter().filter(|(_, why, _)| why == reason);
        let rows: Vec<String> = rows.take(10).map(|(row, ..)| row.to_string()).collect();
        let title = known.map_or_else(|| reason.clone(), skip_title);
        context! { title, count, meaning => known.map(skip_meaning), rows => rows.join(", ") }
    });
    let suggestion = draft.suggestion.as_ref().and_then(|suggestion| {
        let country = country(&suggestion.region)?;
        Some(context! { valid => suggestion.valid, tried => suggestion.tried, code => country.code, name => country.name })
    });
    let nobody = (draft.is_read && draft.people == 0).then(|| {
        let rows = if draft.rows == 1 {
            "The row has no".into()
        } else {
            format!("None of the {} rows has a", thousands(draft.rows))
        };
        format!("{rows} valid number. If numbers lack the + and the country code, choose a default country.")
    });
    let detail = wrong.map(Wrong::plain).or(nobody.as_deref());
    let own = context! {
        path => draft.text("/audience/csv/path"),
        phone => draft.text("/audience/csv/phone"),
        region => draft.text("/audience/csv/default_region"),
        columns => draft.columns.clone(),
        row_count => draft.rows,
        people => draft.people,
        is_read => draft.is_read,
        countries => serialized(countries()),
        phone_column => draft.phone_column.clone(),
        suggestion,
        assumed => country(draft.text("/audience/csv/default_region")).filter(|_| draft.is_assumed).map(|country| country.name),
        rows => rows.collect::<Vec<_>>(),
        skipped => skipped.collect::<Vec<_>>(),
        notes => draft.notes.clone(),
        encoding => draft.text("/audience/csv/encoding"),
        sheet => draft.text("/audience/csv/sheet"),
        errors => errors(detail.map(|detail| ("phone", detail))),
    };
    step_page(look, who, draft, "audience", "new_audience.html", own)
}

pub(super) async fn save(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Problem> {
    let mut draft = Draft::find(&dashboard, &id).await?;
    let before = draft.job["audience"].clone();
    // The country that a note offers, or the one that is chosen.
    let offered = Some(fields.get("use")).filter(|code| !code.is_empty());
    let region = offered.unwrap_or_else(|| fields.get("region"));
    if !region.is_empty() && country(region).is_none() {
        let wrong = Wrong::Other("Choose a country from the list.".into());
        return Ok(
            (StatusCode::UNPROCESSABLE_ENTITY, page(&look, &who, &draft, Some(&wrong))).into_response()
        );
    }
    let fields_of =
        [("phone", "phone"), ("default_region", "region"), ("encoding", "encoding"), ("sheet", "sheet")];
    for (name, field) in fields_of {
        let value = if field == "region" { region } else { fields.get(field) };
        let Some(csv) = draft.job.pointer_mut("/audience/csv").and_then(Value::as_object_mut) else {
            continue;
        };
        if value.is_empty() {
            csv.shift_remove(name);
        } else {
            csv.insert(name.into(), value.into());
        }
    }
    draft.is_assumed = false;
    let has_changed = before != draft.job["audience"];
    let wrong = if has_changed || !draft.is_read { inspect(&dashboard, &mut draft).await? } else { None };
    draft.keep(&dashboard, &who).await?;
    let is_done = wrong.is_none() && draft.people > 0;
    if is_done && fields.get("do") == "next" {
        return Ok(address(&draft, "message").into_response());
    }
    let status = if is_done { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    Ok((status, page(&look, &who, &draft, wrong.as_ref())).into_response())
}
