//! The first step: the phone column, some rows, and the rows that are nobody.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use minijinja::context;
use serde_json::{Map, Value, json};

use super::super::super::access::Who;
use super::super::super::api::campaigns::with_prepared;
use super::super::super::problem::Problem;
use super::super::Dashboard;
use super::super::campaigns::skip_meaning;
use super::super::extract::Fields;
use super::super::render::Look;
use super::draft::Draft;
use super::{address, errors, step_page};
use crate::audience::{self, Audience, Encoding, Line, Settings};
use crate::campaign::{Job, SkipReason};
use crate::views::check::check;

/// How many rows are shown.
const SAMPLE: usize = 5;
/// The longest value that is shown, in characters.
const SHOWN: usize = 60;

/// Reads a draft's audience from end to end. Returns what is wrong with it, if it can't be sent to.
pub(super) async fn inspect(dashboard: &Dashboard, draft: &mut Draft) -> Result<Option<String>, Problem> {
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
            Err(fault) => return Ok(Some(fault.to_string())),
        }
    }
    let Some((account, _)) = context.accounts.usable().into_iter().next() else {
        return Ok(Some("no account can be used: look at Accounts".into()));
    };
    // Any message does to see whom it would go to.
    let job = json!({ "version": 1, "account": account, "from": "+10000000000", "audience": draft.job["audience"],
        "message": { "type": "text", "text": { "body": "x" } } });
    let job = match Job::read(job.to_string().as_bytes()) {
        Ok(job) => job,
        Err(problems) => return Ok(problems.first().map(|problem| problem.message.clone())),
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
            draft.skipped =
                checked.skipped.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
            let problems = checked.problems.into_iter();
            draft.problems = problems.map(|row| (row.row, row.reason.to_string(), row.detail)).collect();
            draft.notes = checked.notes;
            draft.sample = sample;
            draft.is_read = true;
            Ok(None)
        }
        Err(problem) if problem.status().is_client_error() => {
            let first = problem.errors().next().map(|(_, detail)| detail.to_owned());
            Ok(Some(first.unwrap_or_else(|| problem.plain().into_owned())))
        }
        Err(problem) => Err(problem),
    }
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Path(id): Path<String>,
) -> Result<Html<String>, Problem> {
    let mut draft = Draft::find(&dashboard, &id).await?;
    let wrong = if draft.is_read { None } else { inspect(&dashboard, &mut draft).await? };
    Ok(page(&look, &who, &draft, wrong.as_deref()))
}

fn page(look: &Look, who: &Who, draft: &Draft, wrong: Option<&str>) -> Html<String> {
    let cut = |value: &str| -> String { value.chars().take(SHOWN).collect() };
    let rows = draft.sample.iter().map(|row| {
        let value = |name: &String| cut(row.get(name).and_then(Value::as_str).unwrap_or_default());
        draft.columns.iter().map(value).collect::<Vec<_>>()
    });
    let skipped = draft.skipped.iter().map(|(reason, count)| {
        let known: Option<SkipReason> = reason.parse().ok();
        let rows = draft.problems.iter().filter(|(_, why, _)| why == reason);
        let rows: Vec<String> = rows.take(10).map(|(row, ..)| row.to_string()).collect();
        context! { reason, count, meaning => known.map(skip_meaning), rows => rows.join(", ") }
    });
    let nobody = "Nobody can be sent to: no row has a number that can be read.";
    let nobody = (draft.is_read && draft.people == 0).then_some(nobody);
    let own = context! {
        path => draft.text("/audience/csv/path"),
        phone => draft.text("/audience/csv/phone"),
        region => draft.text("/audience/csv/default_region"),
        columns => draft.columns.clone(),
        row_count => draft.rows,
        people => draft.people,
        is_read => draft.is_read,
        rows => rows.collect::<Vec<_>>(),
        skipped => skipped.collect::<Vec<_>>(),
        notes => draft.notes.clone(),
        encoding => draft.text("/audience/csv/encoding"),
        sheet => draft.text("/audience/csv/sheet"),
        errors => errors(wrong.or(nobody).map(|detail| ("phone", detail))),
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
    let fields_of =
        [("phone", "phone"), ("default_region", "region"), ("encoding", "encoding"), ("sheet", "sheet")];
    for (name, field) in fields_of {
        let value = fields.get(field);
        let value = if field == "region" { value.to_uppercase() } else { value.to_owned() };
        let Some(csv) = draft.job.pointer_mut("/audience/csv").and_then(Value::as_object_mut) else {
            continue;
        };
        if value.is_empty() {
            csv.shift_remove(name);
        } else {
            csv.insert(name.into(), value.into());
        }
    }
    let has_changed = before != draft.job["audience"];
    let wrong = if has_changed || !draft.is_read { inspect(&dashboard, &mut draft).await? } else { None };
    draft.keep(&dashboard, &who).await?;
    let is_done = wrong.is_none() && draft.people > 0;
    // Whoever changed how it is read looks at what came of it first.
    if is_done && (!has_changed || fields.get("do") == "next") {
        return Ok(address(&draft, "message").into_response());
    }
    let status = if is_done { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    Ok((status, page(&look, &who, &draft, wrong.as_deref())).into_response())
}
