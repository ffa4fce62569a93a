//! What changed on a page, as it changes: server-sent events `part`, each with the name of a place and what
//! stands there now. Whatever many pages show is made once.

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
use super::super::api::extract::{Params, campaign};
use super::super::api::live::{Part, Seen, may_change};
use super::super::problem::Problem;
use super::Dashboard;
use super::campaigns::{self, Material};
use super::render::part;
use crate::campaign::CampaignId;
use crate::ledger::CampaignFilter;
use crate::ledger::listing;

/// A page that is changed more often than this is restless.
const REST: Duration = Duration::from_secs(2);
/// How often it is looked whether the ledger is away while there is no news.
const LOOK: Duration = Duration::from_secs(1);
/// After so many looks without news a line is sent all the same, so that nobody in between closes the
/// connection.
const ALIVE: u8 = 15;
/// How often it is looked for new campaigns.
const LOOK_FOR_NEW: Duration = Duration::from_secs(5);
/// The most campaigns that one page follows.
const MOST: usize = 50;

/// An event as it is sent, whoever it is sent to: hundreds of pages may show one campaign.
fn event(name: &str, html: &str) -> Part {
    let data = json!({ "id": name, "html": html });
    (name.to_owned(), format!("event: part\ndata: {data}\n\n").into())
}

/// Events as they come, and a sign of life where none do. While the ledger is away they end: the page then
/// says since when it shows what was, and comes again.
fn answer(dashboard: &Dashboard, events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let health = dashboard.health.clone();
    let kept = stream::unfold((Box::pin(events), health), |(mut events, health)| async move {
        for _ in 0..ALIVE {
            if let Ok(event) = timeout(LOOK, events.next()).await {
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

/// The parts of a campaign's page.
pub(super) async fn parts(
    State(dashboard): State<Dashboard>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let campaign = campaign(&dashboard.api, &id).await?;
    let receiver = dashboard.api.backing()?.live.follow(&campaign);
    let page = dashboard.clone();
    let told = changes(receiver).then(move |seen| {
        let dashboard = dashboard.clone();
        async move { parts_of(&dashboard, &seen).await }
    });
    // What a page has already is not sent again.
    let mut known: HashMap<String, Bytes> = HashMap::new();
    let news = told.flat_map(move |parts| {
        let mut news = Vec::new();
        for (name, event) in parts {
            if known.get(&name) != Some(&event) {
                known.insert(name, event.clone());
                news.push(event);
            }
        }
        stream::iter(news)
    });
    Ok(answer(&page, news))
}

async fn parts_of(dashboard: &Dashboard, seen: &Seen) -> Vec<Part> {
    let make = || async {
        let material = Material::gather(dashboard, &seen.campaign).await?;
        let accounts = &dashboard.api.backing()?.context.accounts;
        let parts = campaigns::parts(&seen.campaign, &material, accounts);
        Ok::<_, Problem>(parts.iter().map(|(name, html)| event(name, html)).collect())
    };
    // Away for a while: the page shows what it knows, and says since when.
    seen.parts.get_or_try_init(make).await.cloned().unwrap_or_default()
}

/// A campaign whenever it has changed, as long as it may, and not too often.
fn changes(mut receiver: watch::Receiver<Arc<Seen>>) -> impl Stream<Item = Arc<Seen>> + Send {
    receiver.mark_changed();
    stream::unfold((receiver, false, true), |(mut receiver, is_still, is_first)| async move {
        if is_still {
            return None;
        }
        if !is_first {
            sleep(REST).await;
        }
        receiver.changed().await.ok()?;
        let seen = receiver.borrow_and_update().clone();
        let is_still = !may_change(&seen.campaign);
        Some((seen, (receiver, is_still, false)))
    })
}

#[derive(Deserialize)]
pub(super) struct Followed {
    /// Ids, with commas between them.
    campaigns: Option<String>,
    /// The first campaign of the list, where new ones are to be told; no campaign's id where there is none yet.
    newest: Option<String>,
}

/// The rows of some campaigns in the list.
pub(super) async fn rows(
    State(dashboard): State<Dashboard>,
    Params(asked): Params<Followed>,
) -> Result<Response, Problem> {
    let ids = asked.campaigns.unwrap_or_default();
    let ids: Vec<CampaignId> = ids.split(',').take(MOST).filter_map(|id| id.parse().ok()).collect();
    let backing = dashboard.api.backing()?;
    let found = listing::read_each(&backing.ledger, ids).await?;
    let mut all = SelectAll::new();
    for campaign in &found {
        let dashboard = dashboard.clone();
        let told = changes(backing.live.follow(campaign)).filter_map(move |seen| {
            let dashboard = dashboard.clone();
            async move { Some(row_of(&dashboard, &seen).await?.1) }
        });
        all.push(told.boxed());
    }
    // A page with nothing to follow keeps its connection, so that it does not ask again and again.
    let rest = match asked.newest {
        Some(newest) => newer_than(dashboard.clone(), newest).boxed(),
        None => stream::pending::<Bytes>().boxed(),
    };
    Ok(answer(&dashboard, stream::select(all, rest)))
}

/// The newest campaign, looked up once for all pages that are open.
#[derive(Default)]
pub(super) struct KnownNewest(Mutex<Option<(Instant, Option<CampaignId>)>>);

impl KnownNewest {
    async fn of(&self, dashboard: &Dashboard) -> Option<CampaignId> {
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

/// Says once that there is a campaign newer than the first of the list.
fn newer_than(dashboard: Dashboard, newest: String) -> impl Stream<Item = Bytes> + Send {
    let found = async move {
        loop {
            sleep(LOOK_FOR_NEW).await;
            if dashboard.newest.of(&dashboard).await.is_some_and(|first| first.as_str() != newest) {
                return event("new-campaigns", &part("new_campaigns.html", context! {})).1;
            }
        }
    };
    stream::once(found).chain(stream::pending())
}

async fn row_of(dashboard: &Dashboard, seen: &Seen) -> Option<Part> {
    if let Some(made) = seen.row.get() {
        return Some(made.clone());
    }
    let row = campaigns::row(dashboard, &seen.campaign).await.ok()?;
    Some(seen.row.get_or_init(|| event(&format!("row-{}", seen.campaign.id), &row)).clone())
}
