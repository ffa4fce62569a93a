//! The list of campaigns, and one of them in full.

use axum::extract::{Path, State};
use axum::response::Html;
use jiff::tz::TimeZone;
use minijinja::{Value, context};
use serde::{Deserialize, Serialize};

use super::super::access::Who;
use super::super::api::extract::{Params, campaign};
use super::super::api::live::may_change;
use super::super::problem::Problem;
use super::facts::Facts;
use super::first_message;
use super::new::{drafts, of_test};
use super::plot::plot;
use super::render::{Look, page_of, part, serialized};
use super::words::Known;
use super::{Dashboard, words};
use crate::campaign::codes;
use crate::campaign::text::titled;
use crate::campaign::{CampaignState, SkipReason};
use crate::dispatch::Accounts;
use crate::ledger::{
    Act, AnyLedger, Audit, Breakers, Campaign, CampaignDrafts, CampaignFilter, LedgerError, OpenBreaker,
    Point, ReportLine, Series,
};
use crate::ledger::{doubts, listing};
use crate::views::funnel::Funnel;

/// What stands for the newest campaign where there is none: no id begins like that, and an empty value is none in a query.
const NO_CAMPAIGN: &str = "-";
/// How many campaigns a page of the list has.
const LISTED: usize = 30;
/// How many of the newest campaigns are sorted.
const SORTED: usize = 1_000;
/// How many acts are shown beside a campaign, and on a page of their own.
const ACTS: usize = 15;
const ALL_ACTS: usize = 100;
/// How many messages in doubt are shown one by one.
const DOUBTS: usize = 10;
/// How many codes of failures are shown.
const CODES_SHOWN: usize = 20;

#[derive(Default, Deserialize)]
pub(super) struct ListParams {
    state: Option<CampaignState>,
    q: Option<String>,
    account: Option<String>,
    kind: Option<Kind>,
    sort: Option<Sort>,
    cursor: Option<String>,
}

/// What is listed; without one campaigns and tests.
#[derive(Clone, Copy, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Campaigns,
    Tests,
    Drafts,
}

/// The order of the list; without one the newest comes first.
#[derive(Clone, Copy, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Sort {
    Name,
    Start,
    People,
    State,
}

impl Sort {
    /// Sorts campaigns of which the newest comes first, and stays first among those that are alike.
    fn apply(self, campaigns: &mut [Campaign]) {
        match self {
            Self::Name => campaigns.sort_by_key(|campaign| words::name(campaign).to_lowercase()),
            Self::Start => campaigns.sort_by_key(|campaign| {
                std::cmp::Reverse(campaign.started_at.unwrap_or(campaign.submitted_at))
            }),
            Self::People => campaigns.sort_by_key(|campaign| std::cmp::Reverse(words::people(campaign))),
            Self::State => campaigns
                .sort_by_key(|campaign| CampaignState::ALL.iter().position(|state| *state == campaign.state)),
        }
    }
}

/// A page of the list: its campaigns, the place of the next page, and whether there are older ones that are not sorted in.
struct Listed {
    campaigns: Vec<Campaign>,
    next: Option<String>,
    has_older: bool,
}

impl Listed {
    async fn read(
        ledger: &AnyLedger,
        filter: &CampaignFilter,
        asked: &ListParams,
    ) -> Result<Self, LedgerError> {
        let Some(sort) = asked.sort else {
            let page = match listing::page(ledger, filter, asked.cursor.as_deref(), LISTED).await {
                // A place of long ago: the beginning is as good.
                Err(LedgerError::NoPlace) => listing::page(ledger, filter, None, LISTED).await?,
                page => page?,
            };
            return Ok(Self { campaigns: page.campaigns, next: page.next, has_older: false });
        };
        let page = listing::page(ledger, filter, None, SORTED).await?;
        let mut campaigns = page.campaigns;
        sort.apply(&mut campaigns);
        let from = asked.cursor.as_deref().and_then(|cursor| cursor.parse().ok()).unwrap_or(0_usize);
        let end = from.saturating_add(LISTED);
        let next = (end < campaigns.len()).then(|| end.to_string());
        let campaigns = campaigns.into_iter().skip(from).take(LISTED).collect();
        Ok(Self { campaigns, next, has_older: page.next.is_some() })
    }
}

pub(super) async fn list(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Params(asked): Params<ListParams>,
) -> Result<Html<String>, Problem> {
    let backing = dashboard.api.backing()?;
    let tests = match asked.kind {
        Some(Kind::Drafts) => return drafts_page(&dashboard, &who, &look, asked).await,
        kind => kind.map(|kind| kind == Kind::Tests),
    };
    let filter =
        CampaignFilter { state: asked.state, text: asked.q.clone(), account: asked.account.clone(), tests };
    let is_filtered =
        filter.state.is_some() || filter.text.is_some() || filter.account.is_some() || tests.is_some();
    let page = Listed::read(&backing.ledger, &filter, &asked).await?;
    let mut rows = Vec::with_capacity(page.campaigns.len());
    for campaign in &page.campaigns {
        rows.push(context! { id => campaign.id.as_str(), html => row(&dashboard, campaign).await? });
    }
    let followed: Vec<&str> = page
        .campaigns
        .iter()
        .filter(|campaign| may_change(campaign))
        .map(|campaign| campaign.id.as_str())
        .collect();
    let accounts: Vec<String> = backing.context.accounts.all().keys().cloned().collect();
    let states: Vec<&'static str> = CampaignState::ALL.iter().map(|state| state.as_str()).collect();
    let next = page.next.map(|cursor| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let word = |value: Value| value.as_str().map(str::to_owned);
        for (name, value) in [
            ("state", asked.state.map(|state| state.as_str().to_owned())),
            ("q", asked.q.clone()),
            ("account", asked.account.clone()),
            ("kind", word(serialized(asked.kind))),
            ("sort", word(serialized(asked.sort))),
        ] {
            value.map(|value| query.append_pair(name, &value));
        }
        format!("/?{}", query.append_pair("cursor", &cursor).finish())
    });
    let is_newest_first = asked.sort.is_none() && asked.cursor.is_none() && !is_filtered;
    let own = context! {
        rows,
        next,
        states,
        accounts,
        is_filtered,
        is_first => asked.cursor.is_none(),
        state => asked.state.map(CampaignState::as_str),
        q => asked.q,
        account => asked.account,
        follow => followed.join(","),
        kind => serialized(asked.kind),
        sort => serialized(asked.sort),
        sorted => page.has_older.then_some(SORTED),
        draft_count => if is_newest_first { backing.ledger.draft_names().await?.len() } else { 0 },
        newest => is_newest_first.then(|| page.campaigns.first().map_or(NO_CAMPAIGN, |campaign| campaign.id.as_str())),
        rehearses => backing.context.rehearses,
    };
    Ok(page_of(&look, Some(&who), "campaigns.html", "Campaigns", own))
}

/// The drafts, in place of campaigns.
async fn drafts_page(
    dashboard: &Dashboard,
    who: &Who,
    look: &Look,
    asked: ListParams,
) -> Result<Html<String>, Problem> {
    let accounts: Vec<String> = dashboard.api.backing()?.context.accounts.all().keys().cloned().collect();
    let states: Vec<&'static str> = CampaignState::ALL.iter().map(|state| state.as_str()).collect();
    let own = context! {
        drafts => drafts(dashboard).await?,
        accounts,
        states,
        kind => serialized(Kind::Drafts),
        state => asked.state.map(CampaignState::as_str),
        q => asked.q,
        account => asked.account,
        sort => serialized(asked.sort),
        rehearses => dashboard.api.backing()?.context.rehearses,
    };
    Ok(page_of(look, Some(who), "campaigns.html", "Campaigns", own))
}

/// A campaign's row in the list.
pub(super) async fn row(dashboard: &Dashboard, campaign: &Campaign) -> Result<String, Problem> {
    let backing = dashboard.api.backing()?;
    let mut most = None;
    if campaign.state == CampaignState::Running {
        let facts = dashboard.facts.of(&backing.ledger, &campaign.id).await?;
        most = facts.most(campaign, &backing.context.accounts);
    }
    let is_running = campaign.state == CampaignState::Running;
    let left = crate::views::status::eta(campaign).map(|left| left.as_secs());
    Ok(part(
        "campaign_row.html",
        context! {
            ..head(campaign, &[], &Known { most, held: None }),
            ..context! {
                rate => is_running.then(|| words::rate(words::within(campaign.rate, most))),
                limit => most.map(words::rate),
                left,
            }
        },
    ))
}

/// What all pictures of a campaign begin with.
fn head(campaign: &Campaign, acts: &[Act], known: &Known<'_>) -> Value {
    let state = campaign.state;
    context! {
        id => campaign.id.as_str(),
        name => words::name(campaign),
        state => state.as_str(),
        reason => campaign.reason.as_ref().map(|reason| words::waits_for(reason, known.most)),
        sentence => words::sentence(campaign, acts, known),
        progress => words::progress(campaign),
        done => words::percent(words::progress(campaign), 1000),
        counts => serialized(campaign.counts),
        people => words::people(campaign),
        rows => words::rows(campaign),
        skipped_rows => words::skipped(campaign),
        is_planned => campaign.planned,
        unsent => if state.is_over() { 0 } else { words::unsent(campaign) },
        not_sent => words::not_sent(campaign),
        is_test => campaign.id.is_test(),
        rehearsal => campaign.rehearsal,
        by => campaign.created_by.as_deref().map(words::plain),
        submitted_at => campaign.submitted_at.to_string(),
        started_at => campaign.started_at.map(|at| at.to_string()),
        finished_at => campaign.finished_at.map(|at| at.to_string()),
        is_over => state.is_over(),
        // One that is on hold sends nothing as it is.
        can_pause => !matches!(state, CampaignState::Paused | CampaignState::Held) && state.can_become(CampaignState::Paused),
        can_resume => matches!(state, CampaignState::Paused | CampaignState::Held),
        can_cancel => state.can_become(CampaignState::Cancelled) && words::unsent(campaign) > 0,
    }
}

/// What the parts of a campaign's page are made of.
pub(super) struct Material {
    facts: std::sync::Arc<Facts>,
    points: Vec<Point>,
    acts: Vec<Act>,
    doubts: Vec<ReportLine>,
    answers: Option<Value>,
    /// What holds it, where that is more than itself.
    held: Option<OpenBreaker>,
}

impl Material {
    pub(super) async fn gather(dashboard: &Dashboard, campaign: &Campaign) -> Result<Self, Problem> {
        let backing = dashboard.api.backing()?;
        let id = &campaign.id;
        let facts = dashboard.facts.of(&backing.ledger, id).await?;
        let answers = dashboard.answers.of(&backing.ledger, campaign).await?;
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

/// The parts of a campaign's page, each with its name.
pub(super) fn parts(
    campaign: &Campaign,
    material: &Material,
    accounts: &Accounts,
) -> Vec<(&'static str, String)> {
    let most = material.facts.most(campaign, accounts);
    let head = head(campaign, &material.acts, &Known { most, held: material.held.as_ref() });
    let with = |own: Value| context! { ..own, ..head.clone() };
    let zone = material.facts.zone.as_deref().and_then(|zone| TimeZone::get(zone).ok());
    let plot = plot(&material.points, most, &zone.unwrap_or(TimeZone::UTC));
    vec![
        ("head", part("campaign_head.html", with(held(material)))),
        (
            "plot",
            part(
                "campaign_plot.html",
                with(context! { plot => serialized(plot), most => most.map(words::rate) }),
            ),
        ),
        ("funnel", part("campaign_funnel.html", with(funnel(campaign)))),
        ("failures", part("campaign_failures.html", with(failures(campaign)))),
        ("doubts", part("campaign_doubts.html", with(doubts(&material.doubts)))),
        ("log", part("campaign_log.html", with(context! { acts => acts(&material.acts) }))),
        ("answers", part("campaign_answers.html", with(context! { answers => material.answers.clone() }))),
    ]
}

/// What holds a campaign besides a person: since when, and whether it is retried.
fn held(material: &Material) -> Value {
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
        context! { name, count, share => words::percent(count, funnel.accepted),
        width => (count * 1000).checked_div(funnel.accepted).unwrap_or_default().min(1000) }
    });
    context! { steps => steps.collect::<Vec<_>>(), failed => funnel.failed, knows_more => !funnel.is_empty() }
}

fn failures(campaign: &Campaign) -> Value {
    let each = |(code, count): (&String, &u64)| {
        let text = campaign.texts.get(code).cloned().unwrap_or_default();
        let known = codes::reported(code, &text);
        context! {
            code => words::plain(code), count, text => words::plain(&text),
            meaning => known.map(|code| words::as_sentence(code.meaning)),
            remedy => known.map(|code| words::as_sentence(code.remedy)),
        }
    };
    let sorted = |tally: &std::collections::BTreeMap<String, u64>| {
        let mut tally: Vec<(String, u64)> =
            tally.iter().map(|(code, count)| (code.clone(), *count)).collect();
        tally.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let more = tally.len().saturating_sub(CODES_SHOWN);
        tally.truncate(CODES_SHOWN);
        (tally, more)
    };
    let (rejected, more) = sorted(&campaign.rejected);
    let (undelivered, _) = sorted(&campaign.undelivered);
    let skipped = campaign.skipped.iter().map(|(reason, count)| {
        let known: Option<SkipReason> = reason.parse().ok();
        context! { title => known.map_or_else(|| reason.clone(), skip_title), count, meaning => known.map(skip_meaning) }
    });
    context! {
        rejected => rejected.iter().map(|(code, count)| each((code, count))).collect::<Vec<_>>(),
        more,
        undelivered => undelivered.iter().map(|(code, count)| each((code, count))).collect::<Vec<_>>(),
        skipped => skipped.collect::<Vec<_>>(),
    }
}

/// Returns what a reason is called.
pub(super) fn skip_title(reason: SkipReason) -> String {
    titled(reason.as_str())
}

/// What a reason means to whoever made the list.
pub(super) fn skip_meaning(reason: SkipReason) -> &'static str {
    match reason {
        SkipReason::InvalidNumber => "not a valid phone number",
        SkipReason::Duplicate => "duplicate of an earlier row",
        SkipReason::Suppressed => "the person asked not to be messaged",
        SkipReason::MissingVariable => "a value that the message needs is empty",
        SkipReason::InvalidContent => "with this row's values the message would be too long or not valid",
        SkipReason::Expired => "the campaign ended before it was sent",
        SkipReason::Cancelled => "the campaign was cancelled before it was sent",
    }
}

fn doubts(lines: &[ReportLine]) -> Value {
    let lines = lines.iter().map(|line| {
        context! {
            recipient => words::plain(&line.recipient), row => line.row,
            detail => line.detail.as_deref().map(words::plain),
            age => line.updated_at.map(words::age),
        }
    });
    context! { lines => lines.collect::<Vec<_>>() }
}

fn acts(acts: &[Act]) -> Vec<Value> {
    let act = |act: &Act| {
        context! { at => act.at.to_string(), who => words::plain(&act.who), what => act.what.clone(), detail => words::plain(&act.detail),
        campaign => act.campaign.as_ref().map(crate::campaign::id::CampaignId::as_str) }
    };
    acts.iter().map(act).collect()
}

#[derive(Deserialize)]
pub(super) struct ShowParams {
    /// What was just done, as the audit log calls it.
    done: Option<String>,
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Path(id): Path<String>,
    Params(asked): Params<ShowParams>,
) -> Result<Html<String>, Problem> {
    let campaign = campaign(&dashboard.api, &id).await?;
    let backing = dashboard.api.backing()?;
    let material = Material::gather(&dashboard, &campaign).await?;
    let parts = parts(&campaign, &material, &backing.context.accounts);
    let parts = parts.into_iter().map(|(name, html)| context! { name, html }).collect::<Vec<_>>();
    // What was done stands in the log; nothing of the address is shown.
    let did = material
        .acts
        .first()
        .filter(|act| asked.done.as_ref() == Some(&act.what) && still_holds(act, &campaign));
    let own = context! {
        ..head(&campaign, &material.acts, &Known::default()),
        ..context! {
            parts,
            is_still => !may_change(&campaign),
            account => campaign.account.clone(),
            facts => serialized(&*material.facts),
            first => first_message::shown(&dashboard, &campaign, &material.facts).await,
            tested => of_test(&dashboard, &campaign.id).await?,
            can_duplicate => material.facts.file.is_some(),
            did => did.map(|act| words::as_sentence(&act.detail)),
        }
    };
    let title = words::name(&campaign);
    Ok(page_of(&look, Some(&who), "campaign.html", &title, own))
}

/// How long a page says what was just done.
const JUST_DONE: u64 = 60;

/// Whether what was done is still the last that happened.
fn still_holds(act: &Act, campaign: &Campaign) -> bool {
    let is_as_left = match act.what.as_str() {
        "pause" => campaign.state == CampaignState::Paused,
        "resume" => !matches!(campaign.state, CampaignState::Paused | CampaignState::Held),
        "cancel" => campaign.state == CampaignState::Cancelled,
        _ => true,
    };
    is_as_left && words::age(act.at) < JUST_DONE
}

#[derive(Deserialize)]
pub(super) struct LogParams {
    cursor: Option<String>,
}

/// What people did to all campaigns, and beside them.
pub(super) async fn log(
    State(dashboard): State<Dashboard>,
    who: Who,
    look: Look,
    Params(asked): Params<LogParams>,
) -> Result<Html<String>, Problem> {
    let from = asked.cursor.as_deref();
    let page = dashboard.api.ledger()?.acts(None, from, ALL_ACTS).await?;
    let own = context! { kind => "log", acts => acts(&page.acts), next => page.next };
    Ok(page_of(&look, Some(&who), "lists.html", "Log", own))
}
