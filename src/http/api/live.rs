//! A campaign's status as it changes, by server-sent events. However many look at a campaign, the ledger is
//! asked for it once.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, watch};
use tokio::time::sleep;

use super::super::problem::Problem;
use super::Api;
use super::extract::campaign;
use super::refusals::OnOne;
use crate::campaign::CampaignId;
use crate::ledger::{AnyLedger, Campaign, Campaigns};
use crate::views::status::Status;

/// How often a campaign is looked at: at most twice a second something is told.
const LOOK: Duration = Duration::from_millis(500);
/// Where many campaigns are looked at, one in each of these: however many pages are open, sending goes on.
const PACE: Duration = Duration::from_millis(5);

/// A campaign as it was last seen, and what is made of that once, however many are told.
pub(in crate::http) struct Seen {
    pub(in crate::http) campaign: Campaign,
    /// The status, JSON.
    json: String,
    /// The parts of its page, each with its name.
    pub(in crate::http) parts: OnceCell<Vec<Part>>,
    /// Its row in the list.
    pub(in crate::http) row: OnceLock<Part>,
}

/// A part of a page: its name, and the event that puts it there, ready to be sent.
pub(in crate::http) type Part = (String, Bytes);
type Told = Arc<Seen>;

/// The campaigns that somebody looks at.
pub(in crate::http) struct Live {
    ledger: AnyLedger,
    seen: Followed,
}

/// The campaigns that somebody follows, and what tells them.
type Followed = Arc<Mutex<HashMap<CampaignId, watch::Sender<Told>>>>;

impl Live {
    pub(super) fn new(ledger: AnyLedger) -> Self {
        Self { ledger, seen: Arc::default() }
    }

    /// Follows a campaign, from what is known of it now.
    pub(in crate::http) fn follow(&self, campaign: &Campaign) -> watch::Receiver<Told> {
        let mut seen = self.seen.lock();
        if let Some(known) = seen.get(&campaign.id) {
            // It may have been retried since it was looked at.
            tell(known, campaign);
            return known.subscribe();
        }
        let (sender, receiver) = watch::channel(told(campaign));
        seen.insert(campaign.id.clone(), sender);
        tokio::spawn(look(self.ledger.clone(), self.seen.clone(), campaign.id.clone()));
        receiver
    }
}

/// How long after its end reports and answers of a campaign come.
const REPORTS: Duration = Duration::from_hours(72);

/// Whether anything of a campaign may still change.
pub(in crate::http) fn may_change(campaign: &Campaign) -> bool {
    let is_recent = |at| Timestamp::now().duration_since(at).unsigned_abs() < REPORTS;
    !campaign.state.is_over() || campaign.finished_at.is_some_and(is_recent)
}

/// Tells what is new of a campaign.
fn tell(sender: &watch::Sender<Told>, campaign: &Campaign) {
    sender.send_if_modified(|known| {
        let has_changed = known.campaign != *campaign;
        if has_changed {
            *known = told(campaign);
        }
        has_changed
    });
}

fn told(campaign: &Campaign) -> Told {
    let json = serde_json::to_string(&Status::from(campaign)).unwrap_or_default();
    Arc::new(Seen { campaign: campaign.clone(), json, parts: OnceCell::new(), row: OnceLock::new() })
}

/// Looks at a campaign as long as it may change and somebody follows it.
async fn look(ledger: AnyLedger, seen: Followed, id: CampaignId) {
    let all = || seen.lock();
    loop {
        let count = u32::try_from(all().len()).unwrap_or(u32::MAX);
        sleep(LOOK.max(PACE * count)).await;
        {
            let mut all = all();
            let is_followed = |sender: &watch::Sender<Told>| {
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
                    tell(sender, &campaign);
                }
            }
            // It is forgotten: there is nothing more to tell.
            Ok(None) => {
                all().remove(&id);
                return;
            }
            // Away for a while; who looks sees what was known last.
            Err(fault) => tracing::debug!("a campaign can't be followed now: {fault}"),
        }
    }
}

/// The status of a campaign, at once and after each change, until it has ended.
///
/// Server-sent events: one at once, and one after each change, at most twice a second, until the campaign has ended.
#[utoipa::path(
    get, path = "/campaigns/{id}/events", tag = "campaigns", operation_id = "followCampaign",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "Events `status`, each with the status as data", body = String,
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
