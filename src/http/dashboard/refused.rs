//! Jobs that could not be taken: why, and what becomes of them.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::response::{Html, IntoResponse, Redirect, Response};
use minijinja::context;
use serde_json::Value;

use super::super::access::Who;
use super::super::api::extract::{Params, finish};
use super::super::problem::Problem;
use super::Dashboard;
use super::extract::Fields;
use super::render::{Look, page_of};
use crate::campaign::{counted, visible_lines};
use crate::dispatch::DispatchError;
use crate::ledger::{Act, Audit, on_ledger};
use crate::queue::rabbitmq::{Buried, DeadAction};

/// How many are listed.
const LISTED: usize = 100;
/// How much of a job is shown, in characters.
const SHOWN: usize = 4000;

#[derive(Default, serde::Deserialize)]
pub(super) struct ListParams {
    done: Option<String>,
}

pub(super) async fn list(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Params(asked): Params<ListParams>,
) -> Result<Html<String>, Problem> {
    let backing = dashboard.api.backing()?;
    let Some(broker) = backing.context.events.broker.clone() else {
        let own = context! { has_broker => false, jobs => Vec::<minijinja::Value>::new(), more => 0, done => false };
        return Ok(page_of(&look, Some(&who), "refused.html", "Refused jobs", own));
    };
    let (buried, more) = broker.buried(LISTED).await.map_err(DispatchError::from)?;
    let job = |job: &Buried| {
        let document: Option<Value> = serde_json::from_slice(&job.data).ok();
        let id = document.as_ref().and_then(|document| document["id"].as_str().map(str::to_owned));
        let text = document.as_ref().and_then(|document| serde_json::to_string_pretty(document).ok());
        let text = text.unwrap_or_else(|| String::from_utf8_lossy(&job.data).into_owned());
        let shown: String = visible_lines(&text).chars().take(SHOWN).collect();
        let problems: Vec<String> = visible_lines(&job.error).lines().map(str::to_owned).collect();
        context! { digest => job.digest(), id, bytes => job.data.len(), problems, is_cut => text.len() > shown.len(), job => shown }
    };
    let own = context! {
        has_broker => true,
        jobs => buried.iter().map(job).collect::<Vec<_>>(),
        more,
        done => asked.done.is_some(),
    };
    Ok(page_of(&look, Some(&who), "refused.html", "Refused jobs", own))
}

/// Puts a job back, or lets it go.
pub(super) async fn decide(
    State(dashboard): State<Dashboard>,
    who: Who,
    fields: Fields,
) -> Result<Response, Problem> {
    let backing = dashboard.api.backing()?;
    let none = || Problem::not_found("there is no broker, and so there are no refused jobs");
    let broker = backing.context.events.broker.clone().ok_or_else(none)?;
    let (what, logged, words) = match fields.get("do") {
        "requeue" => (DeadAction::Requeue, "requeue", "back"),
        "discard" => (DeadAction::Discard, "discard", "go"),
        _ => return Err(Problem::bad_request("a job is put back or let go")),
    };
    let (wanted, ledger) = (fields.get("job").to_owned(), backing.ledger.clone());
    let done = finish(async move {
        // Of several that are the same, one: each is listed.
        let is_found = AtomicBool::new(false);
        let is_wanted = |_, job: &Buried| job.digest() == wanted && !is_found.swap(true, Ordering::Relaxed);
        let done = broker.unbury(what, is_wanted).await.map_err(DispatchError::from)?;
        let verb = if logged == "requeue" { "put" } else { "let" };
        let detail = format!("{verb} {} {words}", counted(done, "refused job"));
        on_ledger!(&ledger, ledger => ledger.log(Act::new(&who.name, logged, None, &detail)).await?);
        Ok(done)
    });
    if done.await? == 0 {
        return Err(Problem::not_found("this job is not among the refused ones any more"));
    }
    Ok(Redirect::to("/refused?done=yes").into_response())
}
