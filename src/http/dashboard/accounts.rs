//! The accounts page: limits and their current use, sender numbers, and what is on hold. An operator can resume it.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::response::{Html, IntoResponse, Redirect, Response};
use minijinja::context;

use super::super::access::Caller;
use super::super::api::accounts::all;
use super::super::api::extract::finish;
use super::super::problem::Problem;
use super::Dashboard;
use super::extract::Fields;
use super::render::{Viewer, page_of, serialized};
use crate::campaign::CampaignState;
use crate::ledger::listing;
use crate::ledger::{Audit, AuditEntry, Breaker, BreakerScope, Breakers, CampaignFilter};

/// Number of recent campaigns that are searched for sender numbers and for parts of accounts on hold.
const LOOKED_AT: usize = 100;

pub(super) async fn list(
    State(dashboard): State<Dashboard>,
    who: Caller,
    look: Viewer,
) -> Result<Html<String>, Problem> {
    let ledger = dashboard.api.ledger()?;
    let accounts = all(&dashboard.api).await?;
    let latest = listing::page(ledger, &CampaignFilter::default(), None, LOOKED_AT).await?;
    let held = CampaignFilter { state: Some(CampaignState::Held), ..CampaignFilter::default() };
    let held = listing::page(ledger, &held, None, LOOKED_AT).await?;
    let mut senders: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for campaign in &latest.campaigns {
        let facts = dashboard.facts.for_campaign(ledger, &campaign.id).await?;
        senders.entry(&campaign.account).or_default().insert(facts.from.clone());
    }
    // Parts of an account on hold, such as a sender number or a flow.
    let mut parts: BTreeMap<&Breaker, String> = BTreeMap::new();
    for campaign in &held.campaigns {
        if let Some(breaker) = campaign.suspended_by.as_ref().filter(|of| of.scope != BreakerScope::Account) {
            let reason = campaign.reason.as_ref().map(ToString::to_string).unwrap_or_default();
            parts.insert(breaker, reason);
        }
    }
    let parts = parts.into_iter().map(|(breaker, reason)| {
        let (account, word, name) = (&breaker.account, breaker.code(), breaker.to_string());
        context! { account, word, name, reason }
    });
    let own = context! {
        kind => "accounts",
        accounts => serialized(accounts),
        senders => serialized(senders),
        parts => parts.collect::<Vec<_>>(),
    };
    Ok(page_of(&look, Some(&who), "lists.html", "Accounts", own))
}

/// Resumes an account, or a part of it, that is on hold.
pub(super) async fn resume(
    State(dashboard): State<Dashboard>,
    who: Caller,
    fields: Fields,
) -> Result<Response, Problem> {
    let context = &dashboard.api.backing()?.context;
    let account = fields.get("account").to_owned();
    context.accounts.get(&account).map_err(Problem::not_found)?;
    let part = Some(fields.get("part")).filter(|part| !part.is_empty()).unwrap_or("account");
    let breaker =
        Breaker::read(&account, part).ok_or_else(|| Problem::not_found("this is no longer on hold"))?;
    let ledger = dashboard.api.ledger()?.clone();
    finish(async move {
        if ledger.close_breaker(&breaker).await? {
            let detail = format!("resumed the {breaker}");
            ledger.log(AuditEntry::new(&who.name, "resume", None, &detail)).await?;
        }
        Ok(())
    })
    .await?;
    Ok(Redirect::to("/accounts").into_response())
}
