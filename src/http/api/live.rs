//! Server-sent events with a campaign's status as it changes. The ledger is asked once for all followers of a campaign.

use std::sync::{Arc, OnceLock};
use std::{collections::HashMap, convert::Infallible, time::Duration};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, watch};
use tokio::time::sleep;

use super::super::problem::Problem;
use super::{Api, extract::campaign, refusals::OnOne};
use crate::campaign::CampaignId;
use crate::ledger::{AnyLedger, Campaign, Campaigns};
use crate::views::status::Status;

/// Interval between reads of a campaign: an event at most twice a second.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Minimum time between two reads if many campaigns are followed, so that open pages do not slow sending down.
const PACE: Duration = Duration::from_millis(5);

/// A campaign as last read, with what is rendered once for all followers.
pub(in crate::http) struct Seen {
    pub(in crate::http) campaign: Campaign,
    /// The status as JSON.
    json: String,
    /// The named parts of its page.
    pub(in crate::http) parts: OnceCell<Vec<PageFragment>>,
    /// The row in the list.
    pub(in crate::http) row: OnceLock<PageFragment>,
}

/// A part of a page: its name, and its event, ready to be sent.
pub(in crate::http) type PageFragment = (String, Bytes);

type Snapshot = Arc<Seen>;

/// The campaigns that are followed.
pub(in crate::http) struct Live {
    ledger: AnyLedger,
    seen: Followed,
}

/// Followed campaigns, with the channel to their followers.
type Followed = Arc<Mutex<HashMap<CampaignId, watch::Sender<Snapshot>>>>;

impl Live {
    pub(super) fn new(ledger: AnyLedger) -> Self {
        Self { ledger, seen: Arc::default() }
    }

    /// Follows a campaign, starting with its current state.
    pub(in crate::http) fn follow(&self, campaign: &Campaign) -> watch::Receiver<Snapshot> {
        let mut seen = self.seen.lock();
        if let Some(known) = seen.get(&campaign.id) {
            // The campaign may have been retried since the last read.
            publish(known, campaign);
            return known.subscribe();
        }
        let (sender, receiver) = watch::channel(snapshot(campaign));
        seen.insert(campaign.id.clone(), sender);
        tokio::spawn(look(self.ledger.clone(), self.seen.clone(), campaign.id.clone()));
        receiver
    }
}

/// Time after a campaign's end in which reports and replies arrive.
const REPORTS: Duration = Duration::from_hours(72);

/// Returns whether a campaign may still change.
pub(in crate::http) fn may_change(campaign: &Campaign) -> bool {
    let is_recent = |at| Timestamp::now().duration_since(at).unsigned_abs() < REPORTS;
    !campaign.state.is_over() || campaign.finished_at.is_some_and(is_recent)
}

/// Sends a campaign to its followers if it has changed.
fn publish(sender: &watch::Sender<Snapshot>, campaign: &Campaign) {
    sender.send_if_modified(|known| {
        let has_changed = known.campaign != *campaign;
        if has_changed {
            *known = snapshot(campaign);
        }
        has_changed
    });
}

fn snapshot(campaign: &Campaign) -> Snapshot {
    let json = serde_json::to_string(&Status::from(campaign)).unwrap_or_default();
    Arc::new(Seen { campaign: campaign.clone(), json, parts: OnceCell::new(), row: OnceLock::new() })
}

/// Reads a campaign periodically while it may change and has followers.
async fn look(ledger: AnyLedger, seen: Followed, id: CampaignId) {
    let all = || seen.lock();
    loop {
        let count = u32::try_from(all().len()).unwrap_or(u32::MAX);
        sleep(POLL_INTERVAL.max(PACE * count)).await;
        {
            let mut all = all();
            let is_followed = |sender: &watch::Sender<Snapshot>| {
                sender.receiver_count() > 0 && may_change(&sender.borrow().campaign)
            };
            if !all.get(&id).is_some_and(is_followed) {
                all.remove(&id);
                return;
            }
        }
        match ledger.campaign(&id).await {
            Ok(Some(campaign)) => {
                if let Some(sender) = all().get(&id) {
                    publish(sender, &campaign);
                }
            }
            // The campaign was removed.
            Ok(None) => {
                all().remove(&id);
                return;
            }
            // Followers keep the last state until the ledger is available again.
            Err(error) => tracing::debug!(campaign = %id, error = %error, "cannot read a followed campaign"),
        }
    }
}

/// Follows a campaign's status until it has ended.
///
/// Server-sent events: one immediately, and one after each change, at most twice a second, until the campaign has ended.
#[utoipa::path(
    get, path = "/campaigns/{id}/events", tag = "campaigns", operation_id = "followCampaign",
    params(("id" = String, Path, description = "The campaign's id")),
    responses(
        (status = 200, description = "Events named `status`, with the status as data", body = String,
         content_type = "text/event-stream"),
        OnOne,
    )
)]
pub(super) async fn events(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let campaign = campaign(&api, &id).await?;
    let mut receiver = api.backing()?.live.follow(&campaign);
    receiver.mark_changed();
    let events = stream::unfold((receiver, false), |(mut receiver, is_over)| async move {
        if is_over || receiver.changed().await.is_err() {
            return None;
        }
        let seen = receiver.borrow_and_update().clone();
        let is_over = seen.campaign.state.is_over();
        Some((Ok(Event::default().event("status").data(&*seen.json)), (receiver, is_over)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}
