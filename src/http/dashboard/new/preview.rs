//! The preview of a message while it is written: the phones of some recipients, and what is left to do.
//!
//! Fillers and repairs go into a copy of the draft. Nothing is stored and nothing is sent.

use std::collections::{BTreeSet, HashMap};

use axum::response::Html;
use minijinja::{Value as Shown, context};
use serde_json::{Value, json};

use super::super::super::api::campaigns::check_job;
use super::super::super::problem::Problem;
use super::super::extract::Fields;
use super::super::phone::phone;
use super::super::render::part;
use super::super::{Dashboard, captions};
use super::draft::CampaignDraft;
use super::form::{ELLIPSIS, FormContext, FormValues, SOME_ADDRESS, complete, missing};
use super::kinds::kinds;
use super::message::{FIXED_TAGS, fill};
use super::obstacles::{MESSAGE, described, warned};
use super::page::DraftPage;
use crate::campaign::content::CONTENT;
use crate::views::check::{Checked, Rendered};

/// A sender number for previews of drafts without one; nothing is sent from it.
const SOME_NUMBER: &str = "+10000000000";

/// Returns the message that the unchanged form of a kind submits.
fn starter(kind: &str) -> Option<Value> {
    let kind = kinds().into_iter().find(|known| known.name == kind)?;
    let making = FormContext { errors: &HashMap::new(), add: "", fixed: &FIXED_TAGS };
    let values = making.form(&CONTENT, Some(&kind.message), MESSAGE).values();
    FormValues { values: &values, remove: "" }.value(&CONTENT, MESSAGE).or(Some(kind.message))
}

/// Maximum number of repairs before a preview is given up.
const REPAIRS: usize = 12;

/// Returns the preview of an unfinished message, for its template.
pub(super) async fn preview_of(
    dashboard: &Dashboard,
    draft: &CampaignDraft,
    kind: &str,
) -> Result<Shown, Problem> {
    let found = look_over(dashboard, draft, kind).await?;
    let to_do: Vec<String> = found.wrong.into_iter().map(|(_, detail)| detail).collect();
    Ok(context! { phones => found.phones, warnings => found.warnings, to_do })
}

/// The findings of a check of an unfinished message.
#[derive(Default)]
pub(super) struct Found {
    /// Error messages, each with its field.
    pub(super) wrong: Vec<(String, String)>,
    /// The message on the phones of some recipients, with fillers for what is not written yet.
    phones: Vec<Shown>,
    /// Likely mistakes that do not keep the message from being sent.
    warnings: Vec<String>,
}

/// Checks and renders an unfinished message, with fillers where it is wrong.
pub(super) async fn look_over(
    dashboard: &Dashboard,
    draft: &CampaignDraft,
    kind: &str,
) -> Result<Found, Problem> {
    let mut found = Found::default();
    let mut draft = draft.clone();
    let usable = dashboard.api.backing()?.context.accounts.usable();
    let account = usable.first().map(|(name, _)| Value::from(name.as_str()));
    if draft.text("/account").is_empty() {
        if usable.len() > 1 {
            found.wrong.push(("account".into(), missing("/account")));
        }
        draft.set("account", account);
    }
    if draft.text("/from").is_empty() {
        found.wrong.push(("from".into(), missing("/from")));
        draft.set("from", Some(SOME_NUMBER.into()));
    }
    let written = draft.job.get("message").cloned().or_else(|| starter(kind));
    if written.is_none() {
        found.wrong.push((MESSAGE.into(), missing(MESSAGE)));
        return Ok(found);
    }
    let mut empty = Vec::new();
    draft.set("message", Some(complete(&CONTENT, written.as_ref(), MESSAGE, &mut empty)));
    found.wrong.extend(empty.iter().map(|pointer| (pointer.clone(), missing(pointer))));
    let mut repaired = BTreeSet::new();
    for _ in 0..REPAIRS {
        let problem = match check_sample(dashboard, &draft).await {
            Ok(checked) => {
                found.warnings = checked
                    .warnings
                    .iter()
                    .filter(|one| one.pointer.starts_with(MESSAGE))
                    .map(warned)
                    .collect();
                found.phones = checked.messages.iter().map(shown).collect();
                break;
            }
            Err(problem) if problem.status().is_client_error() => problem,
            Err(problem) => return Err(problem),
        };
        let mut is_repaired = false;
        let mut described = described(&problem);
        if described.is_empty() {
            described.push((MESSAGE.into(), captions::as_sentence(&problem.to_text())));
        }
        for (pointer, detail) in described {
            if !repaired.insert(pointer.clone()) {
                continue;
            }
            if !empty.contains(&pointer) {
                let field = if pointer.starts_with(MESSAGE) {
                    pointer.as_str()
                } else {
                    pointer.trim_start_matches('/')
                };
                found.wrong.push((field.to_owned(), detail));
            }
            is_repaired |= repair(&mut draft.job, &pointer);
        }
        if !is_repaired {
            break;
        }
    }
    Ok(found)
}

/// Replaces a wrong value by a filler. Returns whether the value can be replaced.
fn repair(job: &mut Value, pointer: &str) -> bool {
    let Some((parent, name)) = pointer.rsplit_once('/') else { return false };
    let filler = match pointer {
        "/from" => json!(SOME_NUMBER),
        _ if !parent.starts_with(MESSAGE) => return false,
        _ if name == "flow_action_payload" => json!({ "screen": ELLIPSIS }),
        _ if job.pointer(pointer).and_then(Value::as_str).is_some_and(|text| text.contains("://")) => {
            json!(SOME_ADDRESS)
        }
        _ => json!(ELLIPSIS),
    };
    let Some(Value::Object(object)) = job.pointer_mut(parent) else { return false };
    object.insert(name.into(), filler);
    true
}

/// Checks the message with every sample row.
async fn check_sample(dashboard: &Dashboard, draft: &CampaignDraft) -> Result<Checked, Problem> {
    let count = draft.sample.len();
    let job = draft.to(&draft.sample, "preview", "preview")?;
    check_job(&dashboard.api, job, count).await
}

fn shown(message: &Rendered) -> Shown {
    let html = phone(&message.content).replace(SOME_ADDRESS, ELLIPSIS);
    context! { recipient => message.recipient.clone(), html }
}

/// Renders the preview of an unsaved form, for the page's script. Stores nothing.
pub(super) async fn preview(mut page: DraftPage, fields: Fields) -> Result<Html<String>, Problem> {
    let asked = fill(&mut page.draft, &fields);
    let preview = preview_of(&page.dashboard, &page.draft, &asked.kind).await?;
    Ok(Html(part("phones.html", preview)))
}
