//! A new campaign, step by step: audience, message, schedule, then a review, a test to one's own number, and the send.
//!
//! A draft is an unfinished job. Its fields are the job's fields and its errors are those of the job's checks: nothing here
//! defines what is valid. Nothing is sent before the last step, except a test.

mod audience;
mod begin;
mod draft;
mod form;
mod inspection;
mod kinds;
mod message;
mod obstacles;
mod page;
mod preview;
mod send;
mod when;

use axum::Router;
use axum::response::{IntoResponse, Redirect, Response};
use minijinja::{Value as Shown, context};

use super::super::problem::Problem;
use super::Dashboard;
use crate::campaign::CampaignId;
use crate::ledger::{CampaignDrafts, CampaignFilter, listing};
use crate::routing::{get, post};
pub(super) use begin::{begin, create, duplicate};
use draft::CampaignDraft;
use page::DraftPage;

/// Number of recent campaigns that are searched for sender numbers.
const LOOKED_AT: usize = 50;

pub(super) fn routes() -> Router<Dashboard> {
    Router::new()
        .route("/new/{draft}/audience", get(audience::show).merge(post(audience::save)))
        .route("/new/{draft}/message", get(message::show).merge(post(message::save)))
        .route("/new/{draft}/preview", post(preview::preview))
        .route("/new/{draft}/when", get(when::show).merge(post(when::save)))
        .route("/new/{draft}/check", get(send::check))
        .route("/new/{draft}/test", get(send::show_test).merge(post(send::test)))
        .route("/new/{draft}/send", get(send::confirm).merge(post(send::send)))
        .route("/new/{draft}/remove", post(remove))
}

/// A sender number of a recent campaign.
struct SenderNumber {
    account: String,
    number: String,
}

/// Returns the sender numbers of recent campaigns, the most recently used first.
async fn senders(dashboard: &Dashboard) -> Result<Vec<SenderNumber>, Problem> {
    let ledger = dashboard.api.ledger()?;
    let latest = listing::page(ledger, &CampaignFilter::default(), None, LOOKED_AT).await?;
    let mut senders: Vec<SenderNumber> = Vec::new();
    for campaign in &latest.campaigns {
        // A campaign that was just removed has no job; it is skipped, so that the page still works.
        let Ok(facts) = dashboard.facts.for_campaign(ledger, &campaign.id).await else { continue };
        let number = facts.from.clone();
        let account = &campaign.account;
        if !senders.iter().any(|known| known.number == number && known.account == *account) {
            senders.push(SenderNumber { account: account.clone(), number });
        }
    }
    Ok(senders)
}

/// Returns the audience paths of all drafts.
pub(super) async fn draft_paths(dashboard: &Dashboard) -> Result<Vec<String>, Problem> {
    let kept = dashboard.api.ledger()?.drafts().await?;
    let drafts = kept.iter().filter_map(|(id, json)| CampaignDraft::read(id, json));
    Ok(drafts.map(|draft| draft.text("/audience/csv/path").to_owned()).collect())
}

/// Returns the draft of a test, or the campaign that was sent from the draft.
pub(super) async fn of_test(dashboard: &Dashboard, test: &CampaignId) -> Result<Shown, Problem> {
    let Some(id) = test.tested() else { return Ok(context! {}) };
    let ledger = dashboard.api.ledger()?;
    let kept = ledger.drafts().await?;
    let mut drafts = kept.iter().filter_map(|(id, json)| CampaignDraft::read(id, json));
    if let Some(draft) = drafts.find(|draft| draft.text("/id") == id) {
        return Ok(context! { draft => draft.id });
    }
    let Ok(id) = id.parse::<CampaignId>() else { return Ok(context! {}) };
    let sent = listing::look_at(ledger, &id).await?;
    Ok(context! { campaign => sent.map(|campaign| campaign.id.to_string()) })
}

/// Returns all drafts for a template, the last changed first.
pub(super) async fn drafts(dashboard: &Dashboard) -> Result<Vec<Shown>, Problem> {
    let kept = dashboard.api.ledger()?.drafts().await?;
    let mut drafts: Vec<CampaignDraft> =
        kept.iter().filter_map(|(id, json)| CampaignDraft::read(id, json)).collect();
    drafts.sort_by_key(|draft| std::cmp::Reverse(draft.updated_at));
    let drafts = drafts.iter().map(|draft| {
        context! { id => draft.id.clone(), name => draft.name(), by => draft.by.clone(), at => draft.updated_at.to_string(),
            people => draft.people, step => draft.next_step() }
    });
    Ok(drafts.collect())
}

async fn remove(page: DraftPage) -> Result<Response, Problem> {
    page.dashboard.api.ledger()?.remove_draft(&page.draft.id).await?;
    Ok(Redirect::to("/new").into_response())
}
