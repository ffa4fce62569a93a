//! Refused jobs: the dead-letter queue of jobs, with the reason of each. An operator requeues or discards them; nothing here does
//! so automatically.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::response::{Html, IntoResponse, Redirect, Response};
use minijinja::context;
use serde_json::Value;

use super::super::access::Caller;
use super::super::api::extract::{Params, finish};
use super::super::problem::Problem;
use super::Dashboard;
use super::extract::Fields;
use super::log::just_done;
use super::render::{Viewer, page_of};
use crate::campaign::{counted, visible_lines};
use crate::dispatch::DispatchError;
use crate::ledger::{Audit, AuditEntry};
use crate::queue::{DeadLetter, DeadLetterAction};

/// Maximum number of jobs in the list.
const PAGE_SIZE: usize = 100;
/// Number of audit entries that are searched for the action that was just done.
const ACTS: usize = 50;
/// Maximum length of a job that is shown, in characters.
const MAX_JOB_CHARS: usize = 4000;

#[derive(Default, serde::Deserialize)]
pub(super) struct ListParams {
    done: Option<String>,
}

pub(super) async fn list(
    State(dashboard): State<Dashboard>,
    who: Caller,
    look: Viewer,
    Params(asked): Params<ListParams>,
) -> Result<Html<String>, Problem> {
    let backing = dashboard.api.backing()?;
    let Some(broker) = backing.context.events.broker.clone() else {
        let own = context! { has_broker => false, jobs => Vec::<minijinja::Value>::new(), more => 0 };
        return Ok(page_of(&look, Some(&who), "refused.html", "Refused jobs", own));
    };
    let (buried, more) = broker.buried(PAGE_SIZE).await.map_err(DispatchError::from)?;
    let job = |job: &DeadLetter| {
        let document: Option<Value> = serde_json::from_slice(&job.data).ok();
        let id = document.as_ref().and_then(|document| document["id"].as_str().map(str::to_owned));
        let text = document.as_ref().and_then(|document| serde_json::to_string_pretty(document).ok());
        let text = text.unwrap_or_else(|| String::from_utf8_lossy(&job.data).into_owned());
        let shown: String = visible_lines(&text).chars().take(MAX_JOB_CHARS).collect();
        let problems: Vec<String> = visible_lines(&job.error).lines().map(str::to_owned).collect();
        context! { digest => job.digest(), id, bytes => job.data.len(), problems, is_cut => text.len() > shown.len(), job => shown }
    };
    let page = backing.ledger.acts(None, None, ACTS).await?;
    let did = asked.done.and_then(|_| just_done(&page.acts, &who, &["requeue", "discard"]));
    let own = context! {
        has_broker => true,
        jobs => buried.iter().map(job).collect::<Vec<_>>(),
        more,
        did,
    };
    Ok(page_of(&look, Some(&who), "refused.html", "Refused jobs", own))
}

/// Requeues or discards a job.
pub(super) async fn decide(
    State(dashboard): State<Dashboard>,
    who: Caller,
    fields: Fields,
) -> Result<Response, Problem> {
    let backing = dashboard.api.backing()?;
    let none = || Problem::not_found("this installation has no job queue");
    let broker = backing.context.events.broker.clone().ok_or_else(none)?;
    let (what, logged, verb) = match fields.get("do") {
        "requeue" => (DeadLetterAction::Requeue, "requeue", "requeued"),
        "discard" => (DeadLetterAction::Discard, "discard", "deleted"),
        _ => return Err(Problem::bad_request("choose to retry or to delete the job")),
    };
    let (wanted, ledger) = (fields.get("job").to_owned(), backing.ledger.clone());
    let done = finish(async move {
        // Equal jobs are listed one by one, so only one of them is taken.
        let is_found = AtomicBool::new(false);
        let is_wanted =
            |_, job: &DeadLetter| job.digest() == wanted && !is_found.swap(true, Ordering::Relaxed);
        let done = broker.unbury(what, is_wanted).await.map_err(DispatchError::from)?;
        let detail = format!("{verb} {}", counted(done, "refused job"));
        ledger.log(AuditEntry::new(&who.name, logged, None, &detail)).await?;
        Ok(done)
    });
    if done.await? == 0 {
        return Err(Problem::not_found("this job was already retried or deleted"));
    }
    Ok(Redirect::to("/refused?done=yes").into_response())
}
