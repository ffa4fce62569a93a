//! Live updates of pages, as server-sent events `part`: the ID of an element and its new HTML. A part that many pages show is
//! rendered once. Nothing here changes a campaign.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, SelectAll};
use futures_util::{Stream, StreamExt};
use minijinja::context;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout};

use super::super::api::away;
use super::super::api::extract::{Params, campaign as find_campaign};
use super::super::api::live::{PageFragment, Seen, may_change};
use super::super::problem::Problem;
use super::Dashboard;
use super::campaign::{self, CampaignPageData};
use super::campaigns;
use super::render::part;
use crate::campaign::CampaignId;
use crate::ledger::CampaignFilter;
use crate::ledger::listing;

/// Minimum interval between two updates of a campaign.
const MIN_UPDATE_INTERVAL: Duration = Duration::from_secs(2);
/// Interval between health checks of the ledger while no event is sent.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Number of health checks without an event after which a comment is sent, so that proxies keep the connection open.
const ALIVE: u8 = 15;
/// Interval between checks for new campaigns.
const LOOK_FOR_NEW: Duration = Duration::from_secs(5);
/// Maximum number of campaigns that a page follows.
const MAX_CAMPAIGNS: usize = 50;

/// Returns an event as it is sent.
///
/// It is the same for every page, as hundreds may show one campaign.
fn event(name: &str, html: &str) -> PageFragment {
    let data = json!({ "id": name, "html": html });
    (name.to_owned(), format!("event: part\ndata: {data}\n\n").into())
}

/// Streams events, with comments in between as a heartbeat.
///
/// The stream ends when the ledger becomes unavailable: the page then says since when it is out of date, and reconnects.
fn answer(dashboard: &Dashboard, events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let health = dashboard.health.clone();
    let kept = stream::unfold((Box::pin(events), health), |(mut events, health)| async move {
        for _ in 0..ALIVE {
            if let Ok(event) = timeout(POLL_INTERVAL, events.next()).await {
                return event.map(|event| (event, (events, health)));
            }
            if away(&health).is_some() {
                return None;
            }
        }
        Some((Bytes::from_static(b":\n\n"), (events, health)))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (kind, Body::from_stream(kept.map(Ok::<_, Infallible>))).into_response()
}

/// Streams the parts of a campaign's page.
pub(super) async fn parts(
    State(dashboard): State<Dashboard>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let campaign = find_campaign(&dashboard.api, &id).await?;
    let receiver = dashboard.api.backing()?.live.follow(&campaign);
    let page = dashboard.clone();
    let fragments = changes(receiver).then(move |seen| {
        let dashboard = dashboard.clone();
        async move { parts_of(&dashboard, &seen).await }
    });
    // A part that has not changed is not sent again.
    let mut known: HashMap<String, Bytes> = HashMap::new();
    let changed = fragments.flat_map(move |parts| {
        let mut events = Vec::new();
        for (name, event) in parts {
            if known.get(&name) != Some(&event) {
                known.insert(name, event.clone());
                events.push(event);
            }
        }
        stream::iter(events)
    });
    Ok(answer(&page, changed))
}

async fn parts_of(dashboard: &Dashboard, seen: &Seen) -> Vec<PageFragment> {
    let make = || async {
        let material = CampaignPageData::gather(dashboard, &seen.campaign).await?;
        let accounts = &dashboard.api.backing()?.context.accounts;
        let parts = campaign::parts(&seen.campaign, &material, accounts);
        Ok::<_, Problem>(parts.iter().map(|(name, html)| event(name, html)).collect())
    };
    // While the ledger is unavailable the page keeps what it shows.
    seen.parts.get_or_try_init(make).await.cloned().unwrap_or_default()
}

/// Streams a campaign after its changes, at most once per `MIN_UPDATE_INTERVAL`.
fn changes(mut receiver: watch::Receiver<Arc<Seen>>) -> impl Stream<Item = Arc<Seen>> + Send {
    receiver.mark_changed();
    stream::unfold((receiver, false, true), |(mut receiver, is_still, is_first)| async move {
        if is_still {
            return None;
        }
        if !is_first {
            sleep(MIN_UPDATE_INTERVAL).await;
        }
        receiver.changed().await.ok()?;
        let seen = receiver.borrow_and_update().clone();
        let is_still = !may_change(&seen.campaign);
        Some((seen, (receiver, is_still, false)))
    })
}

#[derive(Deserialize)]
pub(super) struct Followed {
    /// Campaign IDs, separated by commas.
    campaigns: Option<String>,
    /// ID of the first campaign in the list, if newer ones are to be announced; for an empty list a text that is no ID.
    newest: Option<String>,
}

/// Streams the rows of the listed campaigns.
pub(super) async fn rows(
    State(dashboard): State<Dashboard>,
    Params(asked): Params<Followed>,
) -> Result<Response, Problem> {
    let ids = asked.campaigns.unwrap_or_default();
    let ids: Vec<CampaignId> = ids.split(',').take(MAX_CAMPAIGNS).filter_map(|id| id.parse().ok()).collect();
    let backing = dashboard.api.backing()?;
    let found = listing::read_each(&backing.ledger, ids).await?;
    let mut all = SelectAll::new();
    for campaign in &found {
        let dashboard = dashboard.clone();
        let changed_rows = changes(backing.live.follow(campaign)).filter_map(move |seen| {
            let dashboard = dashboard.clone();
            async move { Some(row_of(&dashboard, &seen).await?.1) }
        });
        all.push(changed_rows.boxed());
    }
    // A page with nothing to follow keeps its connection, so that it does not reconnect again and again.
    let rest = match asked.newest {
        Some(newest) => newer_than(dashboard.clone(), newest).boxed(),
        None => stream::pending::<Bytes>().boxed(),
    };
    Ok(answer(&dashboard, stream::select(all, rest)))
}

/// Cache of the newest campaign's ID, shared by all open pages.
#[derive(Default)]
pub(super) struct KnownNewest(Mutex<Option<(Instant, Option<CampaignId>)>>);

impl KnownNewest {
    async fn campaign(&self, dashboard: &Dashboard) -> Option<CampaignId> {
        let mut known = self.0.lock().await;
        if let Some((_, newest)) = known.as_ref().filter(|(at, _)| at.elapsed() < LOOK_FOR_NEW) {
            return newest.clone();
        }
        let ledger = dashboard.api.ledger().ok()?;
        let page = listing::page(ledger, &CampaignFilter::default(), None, 1).await;
        let newest = page.ok().and_then(|page| page.campaigns.into_iter().next()).map(|first| first.id);
        *known = Some((Instant::now(), newest.clone()));
        newest
    }
}

/// Streams one event once there is a campaign newer than the first in the list.
fn newer_than(dashboard: Dashboard, newest: String) -> impl Stream<Item = Bytes> + Send {
    let found = async move {
        loop {
            sleep(LOOK_FOR_NEW).await;
            if dashboard.newest.campaign(&dashboard).await.is_some_and(|first| first.as_str() != newest) {
                return event("new-campaigns", &part("new_campaigns.html", context! {})).1;
            }
        }
    };
    stream::once(found).chain(stream::pending())
}

async fn row_of(dashboard: &Dashboard, seen: &Seen) -> Option<PageFragment> {
    if let Some(made) = seen.row.get() {
        return Some(made.clone());
    }
    let row = campaigns::row(dashboard, &seen.campaign).await.ok()?;
    Some(seen.row.get_or_init(|| event(&format!("row-{}", seen.campaign.id), &row)).clone())
}
