//! The numbers that must never be messaged: looked for, added, taken from a file, removed.

use axum::extract::{Multipart, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use minijinja::context;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use super::super::access::Who;
use super::super::api::extract::Params;
use super::super::api::suppressed::change;
use super::super::problem::Problem;
use super::Dashboard;
use super::extract::Fields;
use super::render::{Look, page_of};
use crate::audience::{self, Source};
use crate::campaign::{PhoneParser, counted};
use crate::ledger::{Audit, Suppress, on_ledger};

/// How many numbers a page has.
const LISTED: usize = 50;
/// The longest number, in digits (E.164).
const DIGITS: usize = 15;
/// How many acts are looked through for those of this list, and how many are shown.
const ACTS: (usize, usize) = (200, 10);
/// The largest list that is taken in at once, in bytes.
const LARGEST: usize = 256 << 20;

#[derive(Default, Deserialize)]
pub(super) struct ListParams {
    /// The first digits of a number.
    q: Option<String>,
    cursor: Option<u64>,
    done: Option<String>,
}

pub(super) async fn list(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Params(asked): Params<ListParams>,
) -> Result<Html<String>, Problem> {
    page(&dashboard, &who, &look, asked, &[], "").await
}

async fn page(
    dashboard: &Dashboard,
    who: &Who,
    look: &Look,
    asked: ListParams,
    errors: &[String],
    typed: &str,
) -> Result<Html<String>, Problem> {
    let backing = dashboard.api.backing()?;
    on_ledger!(&backing.ledger, ledger => backing.context.follow_suppressed(ledger).await?);
    let wanted: String =
        asked.q.as_deref().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    let list = |first, count| backing.context.suppressed_from(first, count);
    let mut numbers = if wanted.is_empty() {
        list(asked.cursor.unwrap_or_default(), LISTED + 1)
    } else {
        beginning_with(&wanted, list)
    };
    let next = if numbers.len() > LISTED && wanted.is_empty() { numbers.pop() } else { None };
    numbers.truncate(LISTED);
    let page = on_ledger!(&backing.ledger, ledger => ledger.acts(None, None, ACTS.0).await?);
    let acts: Vec<_> = page
        .acts
        .iter()
        .filter(|act| act.what == "suppress")
        .take(ACTS.1)
        .map(
            |act| context! { at => act.at.to_string(), who => act.who.clone(), detail => act.detail.clone() },
        )
        .collect();
    let own = context! {
        kind => "suppressed",
        numbers => numbers.iter().map(|digits| format!("+{digits}")).collect::<Vec<_>>(),
        next,
        q => asked.q,
        acts,
        errors => errors.iter().map(|detail| context! { field => "numbers", detail => detail.clone() }).collect::<Vec<_>>(),
        typed,
        done => asked.done.is_some().then(|| page.acts.iter().find(|act| act.what == "suppress").map(|act| act.detail.clone())).flatten(),
    };
    Ok(page_of(look, Some(who), "lists.html", "Suppressed numbers", own))
}

/// The numbers that begin with some digits, as far as a page goes.
fn beginning_with(digits: &str, list: impl Fn(u64, usize) -> Vec<u64>) -> Vec<u64> {
    let Ok(first) = digits.parse::<u64>() else { return Vec::new() };
    if digits.len() > DIGITS || first == 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    for more in 0..=DIGITS - digits.len() {
        let unit = 10_u64.pow(u32::try_from(more).unwrap_or_default());
        let (from, to) = (first * unit, (first + 1) * unit);
        found.extend(list(from, LISTED).into_iter().take_while(|number| *number < to));
    }
    found
}

pub(super) async fn add(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    fields: Fields,
) -> Result<Response, Problem> {
    let text = fields.get("numbers");
    let (mut numbers, mut errors) = (Vec::new(), Vec::new());
    for (nth, line) in
        text.split(['\n', ',', ';']).map(str::trim).enumerate().filter(|(_, line)| !line.is_empty())
    {
        match PhoneParser::international(line) {
            Ok(number) => numbers.push(number),
            Err(error) => errors.push(format!("Number {} is not one: {error}.", nth + 1)),
        }
    }
    if numbers.is_empty() && errors.is_empty() {
        errors.push("Enter at least one number.".into());
    }
    if !errors.is_empty() {
        let page = page(&dashboard, &who, &look, ListParams::default(), &errors, text).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    change(&dashboard.api, &who, numbers, Suppress::Add, "added").await?;
    Ok(Redirect::to("/suppressed?done=yes").into_response())
}

pub(super) async fn remove(
    State(dashboard): State<Dashboard>,
    who: Who,
    fields: Fields,
) -> Result<Response, Problem> {
    let number = PhoneParser::listed(fields.get("number"));
    let number = number
        .map_err(|_| Problem::not_found("that is no number in international form, as +919876543210"))?;
    change(&dashboard.api, &who, vec![number], Suppress::Remove, "removed").await?;
    Ok(Redirect::to("/suppressed?done=yes").into_response())
}

/// Adds the numbers of a file.
pub(super) async fn import(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    mut form: Multipart,
) -> Result<Response, Problem> {
    let wrong = |detail: String| Problem::bad_request(format!("the form: {detail}"));
    let failed = |fault: std::io::Error| Problem::away(format!("the file can't be written: {fault}"));
    let folder = tempfile::tempdir().map_err(failed)?;
    let mut kept = None;
    while let Some(mut field) = form.next_field().await.map_err(|fault| wrong(fault.body_text()))? {
        if field.name() != Some("file") {
            continue;
        }
        let ending =
            field.file_name().and_then(|name| name.rsplit_once('.')).map_or("csv", |(_, ending)| ending);
        let ending = if matches!(ending, "xlsx" | "gz" | "zst") { ending } else { "csv" };
        let path = folder.path().join(format!("numbers.{ending}"));
        let mut file = tokio::fs::File::create(&path).await.map_err(failed)?;
        let mut size = 0;
        while let Some(chunk) = field.chunk().await.map_err(|fault| wrong(fault.body_text()))? {
            size += chunk.len();
            if size > LARGEST {
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the file is too large; split it"));
            }
            file.write_all(&chunk).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        kept = Some((path, size));
    }
    let refuse = async |error: String| {
        let page = page(&dashboard, &who, &look, ListParams::default(), &[error], "").await?;
        Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
    };
    let Some((path, _)) = kept.filter(|(_, size)| *size > 0) else {
        return refuse("Choose a file with a column of numbers.".into()).await;
    };
    let read = tokio::task::spawn_blocking(move || audience::numbers(&Source::File(path), None, None));
    match read.await.map_err(|fault| Problem::away(fault.to_string()))? {
        Err(fault) => refuse(format!("{fault}.")).await,
        Ok((numbers, left_out)) if numbers.is_empty() => {
            refuse(format!("No number in it can be read ({} looked at).", counted(left_out, "row"))).await
        }
        Ok((numbers, _)) => {
            change(&dashboard.api, &who, numbers, Suppress::Add, "added").await?;
            Ok(Redirect::to("/suppressed?done=yes").into_response())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_first_digits() {
        let all = [4_915_112_345, 919_876_543_210, 919_876_543_211, 919_900_000_000];
        let list = |first: u64, count: usize| -> Vec<u64> {
            all.iter().copied().filter(|number| *number >= first).take(count).collect()
        };
        assert_eq!(beginning_with("9198", list), [919_876_543_210, 919_876_543_211]);
        assert_eq!(beginning_with("4915112345", list), [4_915_112_345]);
        assert_eq!(beginning_with("7", list), [0; 0]);
        assert_eq!(beginning_with("1234567890123456", list), [0; 0]);
    }
}
