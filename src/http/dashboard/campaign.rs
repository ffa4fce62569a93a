//! The page of a campaign: its state, plot, funnel, failures, messages in doubt, log and answers. Changes nothing: `actions`
//! does.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Html;
use jiff::tz::TimeZone;
use minijinja::{Value, context};
use serde::Deserialize;

use super::super::access::Caller;
use super::super::api::extract::{Params, campaign};
use super::super::api::live::may_change;
use super::super::problem::Problem;
use super::captions::CampaignContext;
use super::first_message;
use super::job_cache::JobFacts;
use super::log::entries;
use super::new::of_test;
use super::plot::plot;
use super::render::{Viewer, page_of, part, serialized};
use super::skipped::skipped_rows;
use super::{Dashboard, captions};
use crate::campaign::text::titled;
use crate::campaign::{CampaignState, codes};
use crate::dispatch::Accounts;
use crate::ledger::doubts;
use crate::ledger::{Audit, AuditEntry, Breakers, Campaign, OpenBreaker, Point, ReportLine, Series};
use crate::views::funnel::Funnel;

/// Number of audit entries on a campaign's page.
const ACTS: usize = 15;
/// Number of messages in doubt that are listed.
const DOUBTS: usize = 10;
/// Number of failure codes that are listed.
const CODES_SHOWN: usize = 20;

/// Returns what the row and all parts of a page show, for their templates.
pub(super) fn head(campaign: &Campaign, acts: &[AuditEntry], known: &CampaignContext<'_>) -> Value {
    let state = campaign.state;
    context! {
        id => campaign.id.as_str(),
        name => captions::name(campaign),
        state => state.as_str(),
        reason => campaign.reason.as_ref().map(|reason| captions::waits_for(reason, known.most)),
        sentence => captions::sentence(campaign, acts, known),
        progress => captions::progress(campaign),
        done => captions::percent(captions::progress(campaign), 1000),
        counts => serialized(campaign.counts),
        people => captions::people(campaign),
        rows => captions::rows(campaign),
        skipped_rows => captions::skipped(campaign),
        is_planned => campaign.planned,
        unsent => if state.is_over() { 0 } else { captions::unsent(campaign) },
        not_sent => captions::not_sent(campaign),
        is_test => campaign.id.is_test(),
        rehearsal => campaign.rehearsal,
        by => campaign.created_by.as_deref().map(captions::without_markup),
        submitted_at => campaign.submitted_at.to_string(),
        started_at => campaign.started_at.map(|at| at.to_string()),
        finished_at => campaign.finished_at.map(|at| at.to_string()),
        is_over => state.is_over(),
        // A campaign on hold sends nothing already.
        can_pause => !matches!(state, CampaignState::Paused | CampaignState::Held) && state.can_become(CampaignState::Paused),
        can_resume => matches!(state, CampaignState::Paused | CampaignState::Held),
        can_cancel => state.can_become(CampaignState::Cancelled) && captions::unsent(campaign) > 0,
    }
}

/// The data that the parts of a campaign's page show.
pub(super) struct CampaignPageData {
    facts: Arc<JobFacts>,
    points: Vec<Point>,
    acts: Vec<AuditEntry>,
    doubts: Vec<ReportLine>,
    answers: Option<Value>,
    /// The breaker that holds the campaign, if one does.
    held: Option<OpenBreaker>,
}

impl CampaignPageData {
    /// Reads the data of a campaign's page.
    pub(super) async fn gather(dashboard: &Dashboard, campaign: &Campaign) -> Result<Self, Problem> {
        let backing = dashboard.api.backing()?;
        let id = &campaign.id;
        let facts = dashboard.facts.for_campaign(&backing.ledger, id).await?;
        let answers = dashboard.answers.for_campaign(&backing.ledger, campaign).await?;
        let ledger = &backing.ledger;
        let doubts =
            if campaign.counts.in_doubt > 0 { doubts::first(ledger, id, DOUBTS).await? } else { Vec::new() };
        Ok(Self {
            facts,
            points: ledger.points(id).await?,
            acts: ledger.acts(Some(id), None, ACTS).await?.acts,
            doubts,
            answers,
            held: match &campaign.suspended_by {
                Some(breaker) => ledger.breaker(breaker).await?,
                None => None,
            },
        })
    }
}

/// Renders the parts of a campaign's page, each with its name.
pub(super) fn parts(
    campaign: &Campaign,
    material: &CampaignPageData,
    accounts: &Accounts,
) -> Vec<(&'static str, String)> {
    let most = material.facts.most(campaign, accounts);
    let head = head(campaign, &material.acts, &CampaignContext { most, held: material.held.as_ref() });
    let with = |own: Value| context! { ..own, ..head.clone() };
    let zone = material.facts.zone.as_deref().and_then(|zone| TimeZone::get(zone).ok());
    let plot = plot(&material.points, most, &zone.unwrap_or(TimeZone::UTC));
    vec![
        ("head", part("campaign_head.html", with(held(material)))),
        (
            "plot",
            part(
                "campaign_plot.html",
                with(context! { plot => serialized(plot), most => most.map(captions::rate) }),
            ),
        ),
        ("funnel", part("campaign_funnel.html", with(funnel(campaign)))),
        ("failures", part("campaign_failures.html", with(failures(campaign)))),
        ("doubts", part("campaign_doubts.html", with(doubts(&material.doubts)))),
        ("log", part("campaign_log.html", with(context! { acts => entries(&material.acts) }))),
        ("answers", part("campaign_answers.html", with(context! { answers => material.answers.clone() }))),
    ]
}

/// Returns since when a breaker holds the campaign, and its next probe.
fn held(material: &CampaignPageData) -> Value {
    let held = material.held.as_ref();
    context! {
        held_since => held.map(|open| open.since.to_string()),
        probe_at => held.and_then(|open| open.probe_at).map(|at| at.to_string()),
    }
}

fn funnel(campaign: &Campaign) -> Value {
    let funnel = Funnel::from(campaign);
    let accepted = ("Accepted by the provider".to_owned(), funnel.accepted);
    let steps = funnel.steps.iter().map(|step| (titled(step.name), step.count));
    let steps = std::iter::once(accepted).chain(steps).map(|(name, count)| {
        context! { name, count, share => captions::percent(count, funnel.accepted),
        width => (count * 1000).checked_div(funnel.accepted).unwrap_or_default().min(1000) }
    });
    context! { steps => steps.collect::<Vec<_>>(), failed => funnel.failed, knows_more => !funnel.is_empty(),
    unreported => may_change(campaign) && !funnel.is_empty() && funnel.accepted > campaign.delivery.delivered + campaign.delivery.read + funnel.failed }
}

fn failures(campaign: &Campaign) -> Value {
    let each = |(code, count): (&String, &u64)| {
        let text = campaign.texts.get(code).cloned().unwrap_or_default();
        let known = codes::reported(code, &text);
        context! {
            code => captions::without_markup(code), count, text => captions::without_markup(&text),
            meaning => known.map(|code| captions::as_sentence(code.meaning)),
            remedy => known.map(|code| captions::as_sentence(code.remedy)),
        }
    };
    let sorted = |tally: &BTreeMap<String, u64>| {
        let mut tally: Vec<(String, u64)> =
            tally.iter().map(|(code, count)| (code.clone(), *count)).collect();
        tally.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let more = tally.len().saturating_sub(CODES_SHOWN);
        tally.truncate(CODES_SHOWN);
        (tally, more)
    };
    let (rejected, more) = sorted(&campaign.rejected);
    let (undelivered, _) = sorted(&campaign.undelivered);
    let skipped = campaign.skipped.iter().map(|(reason, count)| skipped_rows(reason, *count, &[]));
    context! {
        rejected => rejected.iter().map(|(code, count)| each((code, count))).collect::<Vec<_>>(),
        more,
        undelivered => undelivered.iter().map(|(code, count)| each((code, count))).collect::<Vec<_>>(),
        skipped => skipped.collect::<Vec<_>>(),
    }
}

fn doubts(lines: &[ReportLine]) -> Value {
    let lines = lines.iter().map(|line| {
        context! {
            recipient => captions::without_markup(&line.recipient), row => line.row,
            detail => line.detail.as_deref().map(captions::without_markup),
            age => line.updated_at.map(captions::age),
        }
    });
    context! { lines => lines.collect::<Vec<_>>() }
}

#[derive(Deserialize)]
pub(super) struct ShowParams {
    /// Code of the action that was just done, as in the audit log.
    done: Option<String>,
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    who: Caller,
    look: Viewer,
    Path(id): Path<String>,
    Params(asked): Params<ShowParams>,
) -> Result<Html<String>, Problem> {
    let campaign = campaign(&dashboard.api, &id).await?;
    let backing = dashboard.api.backing()?;
    let material = CampaignPageData::gather(&dashboard, &campaign).await?;
    let parts = parts(&campaign, &material, &backing.context.accounts);
    let parts = parts.into_iter().map(|(name, html)| context! { name, html }).collect::<Vec<_>>();
    // The text is that of the log: nothing of the address is shown.
    let did = material
        .acts
        .first()
        .filter(|act| asked.done.as_ref() == Some(&act.what) && still_holds(act, &campaign));
    let own = context! {
        ..head(&campaign, &material.acts, &CampaignContext::default()),
        ..context! {
            parts,
            is_still => !may_change(&campaign),
            account => campaign.account.clone(),
            facts => serialized(&*material.facts),
            first => first_message::shown(&dashboard, &campaign, &material.facts).await,
            tested => of_test(&dashboard, &campaign.id).await?,
            can_duplicate => material.facts.file.is_some(),
            did => did.map(|act| captions::as_sentence(&act.detail)),
        }
    };
    let title = captions::name(&campaign);
    Ok(page_of(&look, Some(&who), "campaign.html", &title, own))
}

/// How long the page says what was just done, in seconds.
const JUST_DONE: u64 = 60;

/// Returns whether an action still describes the campaign.
fn still_holds(act: &AuditEntry, campaign: &Campaign) -> bool {
    let is_as_left = match act.what.as_str() {
        "pause" => campaign.state == CampaignState::Paused,
        "resume" => !matches!(campaign.state, CampaignState::Paused | CampaignState::Held),
        "cancel" => campaign.state == CampaignState::Cancelled,
        _ => true,
    };
    is_as_left && captions::age(act.at) < JUST_DONE
}
