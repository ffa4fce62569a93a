//! The log: what people did, from the audit entries. Writes none.

use axum::extract::State;
use axum::response::Html;
use minijinja::{Value, context};
use serde::Deserialize;

use super::super::access::Caller;
use super::super::api::extract::Params;
use super::super::problem::Problem;
use super::paging::next_page;
use super::render::{Viewer, page_of};
use super::{Dashboard, captions};
use crate::campaign::CampaignId;
use crate::ledger::{Audit, AuditEntry};

/// Number of audit entries on a page of the log.
const ALL_ACTS: usize = 100;

/// Returns audit entries for a template.
pub(super) fn entries(acts: &[AuditEntry]) -> Vec<Value> {
    let act = |act: &AuditEntry| {
        context! { at => act.at.to_string(), who => captions::without_markup(&act.who), what => act.what.clone(), detail => captions::without_markup(&act.detail),
        campaign => act.campaign.as_ref().map(CampaignId::as_str) }
    };
    acts.iter().map(act).collect()
}

#[derive(Deserialize)]
pub(super) struct LogParams {
    cursor: Option<String>,
}

/// Lists what people did, the newest first.
pub(super) async fn list(
    State(dashboard): State<Dashboard>,
    who: Caller,
    look: Viewer,
    Params(asked): Params<LogParams>,
) -> Result<Html<String>, Problem> {
    let from = asked.cursor.as_deref();
    let page = dashboard.api.ledger()?.acts(None, from, ALL_ACTS).await?;
    let next = page.next.map(|cursor| next_page("/log", &[], &cursor));
    let own = context! { kind => "log", acts => entries(&page.acts), next };
    Ok(page_of(&look, Some(&who), "lists.html", "Log", own))
}

/// Returns the person's most recent action with one of these codes.
///
/// It is a sentence: a page says with it what was just done.
pub(super) fn just_done(acts: &[AuditEntry], who: &Caller, codes: &[&str]) -> Option<String> {
    let latest = acts.iter().find(|act| codes.contains(&act.what.as_str()) && act.who == *who.name);
    latest.map(|act| captions::as_sentence(&act.detail))
}
