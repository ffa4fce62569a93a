//! The opt-out list: phone numbers that never get a message. They are searched, added and removed here and imported from
//! a file; all changes go through the code behind the API.

mod history;
mod import;

use axum::extract::State;
use axum::response::{Html, IntoResponse, Redirect, Response};
use jiff::Timestamp;
use minijinja::{Value, context};
use serde::Deserialize;

use super::super::access::Caller;
use super::super::api::extract::Params;
use super::super::api::suppressed::change;
use super::super::problem::Problem;
use super::Dashboard;
use super::captions::without_markup;
use super::countries::countries;
use super::extract::Fields;
use super::log::just_done;
use super::paging::{cut, next_page};
use super::render::{Viewer, page_of, serialized, unprocessable};
use crate::campaign::{Phone, PhoneError, PhoneParser};
use crate::ledger::{AnyLedger, Audit, AuditEntry, LedgerError, OptOutSource, Suppress, Suppression};
use history::History;
pub(super) use import::import;

/// Number of phone numbers on a page of the list.
const PAGE_SIZE: usize = 50;
/// Number of audit entries that are searched for changes of this list, and maximum number that are shown.
const ACTS: (usize, usize) = (200, 10);
/// Maximum number of phone numbers that an entry of the history shows.
const NUMBERS_SHOWN: usize = 3;

#[derive(Default, Deserialize)]
pub(super) struct ListParams {
    /// Any consecutive digits of a number.
    q: Option<String>,
    /// First number of the page, as digits.
    cursor: Option<u64>,
    /// Whether numbers were just added.
    added: Option<String>,
    /// The digits of a number that was just removed.
    removed: Option<String>,
}

/// What the page shows besides the list.
#[derive(Default)]
struct Shown<'s> {
    /// Error messages, each with its field.
    errors: Vec<(&'static str, String)>,
    /// The submitted text of the field for numbers.
    typed: &'s str,
    /// The columns of a file without a recognised phone column.
    columns: Vec<String>,
    region: &'s str,
    /// The result of an import.
    imported: Option<Value>,
}

pub(super) async fn list(
    State(dashboard): State<Dashboard>,
    who: Caller,
    look: Viewer,
    Params(asked): Params<ListParams>,
) -> Result<Html<String>, Problem> {
    page(&dashboard, &who, &look, asked, Shown::default()).await
}

async fn page(
    dashboard: &Dashboard,
    who: &Caller,
    look: &Viewer,
    asked: ListParams,
    shown: Shown<'_>,
) -> Result<Html<String>, Problem> {
    let backing = dashboard.api.backing()?;
    let list = &backing.context;
    list.follow_suppressed(&backing.ledger).await?;
    let wanted: String =
        asked.q.as_deref().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    let mut numbers = if wanted.is_empty() {
        list.suppressed_from(asked.cursor.unwrap_or_default(), PAGE_SIZE + 1)
    } else {
        list.suppressed_with(wanted.clone(), PAGE_SIZE + 1).await
    };
    let next = cut(&mut numbers, PAGE_SIZE);
    let phones: Vec<Phone> = numbers.iter().filter_map(|digits| Phone::from_digits(*digits)).collect();
    let numbers = rows(&backing.ledger, &phones).await?;
    let page = backing.ledger.acts(None, None, ACTS.0).await?;
    let history = History::read(dashboard).await?;
    let gone: Vec<String> = history.removed.iter().take(ACTS.1).map(Phone::to_string).collect();
    // The address only says that numbers were added; the audit log says how many.
    let did = asked.added.and_then(|_| just_done(&page.acts, who, &["suppress"]));
    let removed = asked.removed.and_then(|digits| format!("+{digits}").parse::<Phone>().ok());
    let removed = removed.filter(|phone| !list.is_suppressed(*phone)).map(|phone| phone.to_string());
    let error =
        |(field, detail): &(&'static str, String)| context! { field => *field, detail => detail.clone() };
    let own = context! {
        kind => "suppressed",
        numbers,
        is_cut => next.is_some() && !wanted.is_empty(),
        next => next.filter(|_| wanted.is_empty()).map(|first| next_page("/suppressed", &[], &first.to_string())),
        q => asked.q,
        acts => entries(&page.acts, &history),
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

/// Returns the rows of the list: numbers, and when and by whom they were added.
async fn rows(ledger: &AnyLedger, phones: &[Phone]) -> Result<Vec<Value>, LedgerError> {
    let added = ledger.opt_outs(phones).await?;
    let rows = phones.iter().zip(&added).map(|(phone, added)| {
        let by = added.as_ref().map(|added| match &added.source {
            OptOutSource::Reply => "Replied with a stop word".to_owned(),
            OptOutSource::Operator(name) => without_markup(name),
        });
        let at = added.as_ref().and_then(|added| Timestamp::from_millisecond(added.at).ok());
        context! { number => phone.to_string(), by, at => at.map(|at| at.to_string()) }
    });
    Ok(rows.collect())
}

/// Returns the list's audit entries, each with the first numbers it added.
fn entries(acts: &[AuditEntry], history: &History) -> Vec<Value> {
    let acts: Vec<&AuditEntry> = acts.iter().filter(|act| act.what == "suppress").take(ACTS.1).collect();
    let mut added = history.added_by(&acts);
    let entry = |(nth, act): (usize, &&AuditEntry)| {
        let numbers = added.remove(&nth).unwrap_or_default();
        let shown: Vec<String> = numbers.iter().take(NUMBERS_SHOWN).map(Phone::to_string).collect();
        context! { at => act.at.to_string(), who => without_markup(&act.who), detail => without_markup(&act.detail), numbers => shown,
        has_more => numbers.len() > NUMBERS_SHOWN }
    };
    acts.iter().enumerate().map(entry).collect()
}

pub(super) async fn add(
    State(dashboard): State<Dashboard>,
    who: Caller,
    look: Viewer,
    fields: Fields,
) -> Result<Response, Problem> {
    let typed = fields.get("numbers");
    let (mut numbers, mut errors) = (Vec::new(), Vec::new());
    for line in typed.split(['\n', ',', ';']).map(str::trim).filter(|line| !line.is_empty()) {
        match PhoneParser::international(line) {
            Ok(number) => numbers.push(number),
            Err(PhoneError::NoRegion) => {
                let hint = match PhoneParser::international(&format!("+{line}")) {
                    Ok(number) => format!("did you mean {number}? Write it with the +."),
                    Err(_) => "add + and the country code.".into(),
                };
                errors.push(("numbers", format!("“{line}”: {hint}")));
            }
            Err(error) => errors.push(("numbers", format!("“{line}”: {error}."))),
        }
    }
    if numbers.is_empty() && errors.is_empty() {
        errors.push(("numbers", "Enter at least one number.".into()));
    }
    if !errors.is_empty() {
        let shown = Shown { errors, typed, ..Shown::default() };
        return Ok(unprocessable(page(&dashboard, &who, &look, ListParams::default(), shown).await?));
    }
    change(&dashboard.api, &who, numbers, Suppress::Add).await?;
    Ok(Redirect::to("/suppressed?added=yes").into_response())
}

pub(super) async fn remove(
    State(dashboard): State<Dashboard>,
    who: Caller,
    fields: Fields,
) -> Result<Response, Problem> {
    let number = PhoneParser::listed(fields.get("number"));
    let number =
        number.map_err(|_| Problem::not_found("a number has its country code, for example +919876543210"))?;
    change(&dashboard.api, &who, vec![number], Suppress::Remove).await?;
    Ok(Redirect::to(&format!("/suppressed?removed={}", number.digits())).into_response())
}
