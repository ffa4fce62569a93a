//! The list of campaigns, which can be filtered and sorted, and a campaign's row in it. Changes nothing.

use axum::extract::State;
use axum::response::Html;
use minijinja::{Value, context};
use serde::{Deserialize, Serialize};

use super::super::access::Caller;
use super::super::api::extract::Params;
use super::super::api::live::may_change;
use super::super::problem::Problem;
use super::campaign::head;
use super::captions::CampaignContext;
use super::new::drafts;
use super::paging::next_page;
use super::render::{Viewer, page_of, part, serialized};
use super::{Dashboard, captions};
use crate::campaign::CampaignState;
use crate::ledger::listing;
use crate::ledger::{AnyLedger, Campaign, CampaignDrafts, CampaignFilter, LedgerError};

/// Stands for the newest campaign of an empty list. No campaign ID begins with it, and an empty parameter counts as missing.
const NO_CAMPAIGN: &str = "-";
/// Number of campaigns on a page of the list.
const PAGE_SIZE: usize = 30;
/// Maximum number of recent campaigns that are sorted.
const MAX_SORTED: usize = 1_000;

#[derive(Default, Deserialize)]
pub(super) struct ListParams {
    state: Option<CampaignState>,
    q: Option<String>,
    account: Option<String>,
    kind: Option<Kind>,
    sort: Option<Sort>,
    cursor: Option<String>,
}

/// What the list shows. The default is campaigns and tests.
#[derive(Clone, Copy, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Campaigns,
    Tests,
    Drafts,
}

/// The order of the list. The default is the newest first.
#[derive(Clone, Copy, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Sort {
    Name,
    Start,
    People,
    State,
}

impl Sort {
    /// Sorts campaigns. Equal ones keep their order: the newest first.
    fn apply(self, campaigns: &mut [Campaign]) {
        match self {
            Self::Name => campaigns.sort_by_key(|campaign| captions::name(campaign).to_lowercase()),
            Self::Start => campaigns.sort_by_key(|campaign| {
                std::cmp::Reverse(campaign.started_at.unwrap_or(campaign.submitted_at))
            }),
            Self::People => campaigns.sort_by_key(|campaign| std::cmp::Reverse(captions::people(campaign))),
            Self::State => campaigns
                .sort_by_key(|campaign| CampaignState::ALL.iter().position(|state| *state == campaign.state)),
        }
    }
}

/// A page of the list.
struct CampaignPage {
    campaigns: Vec<Campaign>,
    /// Cursor of the next page.
    next: Option<String>,
    /// Whether older campaigns were left unsorted.
    has_older: bool,
}

impl CampaignPage {
    /// Reads a page.
    ///
    /// A sorted list is sorted again for each page, and its cursor is the number of rows before it.
    async fn read(
        ledger: &AnyLedger,
        filter: &CampaignFilter,
        asked: &ListParams,
    ) -> Result<Self, LedgerError> {
        let Some(sort) = asked.sort else {
            let page = match listing::page(ledger, filter, asked.cursor.as_deref(), PAGE_SIZE).await {
                // The cursor is invalid, e.g. from an earlier version: start over.
                Err(LedgerError::NoPlace) => listing::page(ledger, filter, None, PAGE_SIZE).await?,
                page => page?,
            };
            return Ok(Self { campaigns: page.campaigns, next: page.next, has_older: false });
        };
        let page = listing::page(ledger, filter, None, MAX_SORTED).await?;
        let mut campaigns = page.campaigns;
        sort.apply(&mut campaigns);
        let from = asked.cursor.as_deref().and_then(|cursor| cursor.parse().ok()).unwrap_or(0_usize);
        let end = from.saturating_add(PAGE_SIZE);
        let next = (end < campaigns.len()).then(|| end.to_string());
        let campaigns = campaigns.into_iter().skip(from).take(PAGE_SIZE).collect();
        Ok(Self { campaigns, next, has_older: page.next.is_some() })
    }
}

pub(super) async fn list(
    State(dashboard): State<Dashboard>,
    who: Caller,
    look: Viewer,
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
    let page = CampaignPage::read(&backing.ledger, &filter, &asked).await?;
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
    let word = |value: Value| value.as_str().map(str::to_owned);
    let filters = [
        ("state", asked.state.map(|state| state.as_str().to_owned())),
        ("q", asked.q.clone()),
        ("account", asked.account.clone()),
        ("kind", word(serialized(asked.kind))),
        ("sort", word(serialized(asked.sort))),
    ];
    let next = page.next.map(|cursor| next_page("/", &filters, &cursor));
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
        sorted => page.has_older.then_some(MAX_SORTED),
        draft_count => if is_newest_first { backing.ledger.draft_names().await?.len() } else { 0 },
        newest => is_newest_first.then(|| page.campaigns.first().map_or(NO_CAMPAIGN, |campaign| campaign.id.as_str())),
        rehearses => backing.context.rehearses,
    };
    Ok(page_of(&look, Some(&who), "campaigns.html", "Campaigns", own))
}

/// Renders the list with drafts in place of campaigns.
async fn drafts_page(
    dashboard: &Dashboard,
    who: &Caller,
    look: &Viewer,
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

/// Renders a campaign's row of the list.
pub(super) async fn row(dashboard: &Dashboard, campaign: &Campaign) -> Result<String, Problem> {
    let backing = dashboard.api.backing()?;
    let mut most = None;
    if campaign.state == CampaignState::Running {
        let facts = dashboard.facts.for_campaign(&backing.ledger, &campaign.id).await?;
        most = facts.most(campaign, &backing.context.accounts);
    }
    let is_running = campaign.state == CampaignState::Running;
    let left = crate::views::status::eta(campaign).map(|left| left.as_secs());
    Ok(part(
        "campaign_row.html",
        context! {
            ..head(campaign, &[], &CampaignContext { most, held: None }),
            ..context! {
                rate => is_running.then(|| captions::rate(captions::within(campaign.rate, most))),
                limit => most.map(captions::rate),
                left,
            }
        },
    ))
}
