//! What others are told: always after the ledger has it. `docs/events.md` describes each event.
//!
//! A change of a campaign's state is told at least once: it is marked as told when the broker has
//! it. What became of a message is told once at most: the ledger is the truth, and reports are made
//! from it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::campaign::{CampaignState, Recipient};
use crate::ledger::{Barrier, Campaign, Outcome};
use crate::queue::rabbitmq::{Broker, Event};

/// How long a sender waits for the broker to take what it tells.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where events go; on one machine without a broker nowhere.
#[derive(Clone, Default)]
pub struct Events(pub Option<Broker>);

impl Events {
    /// A message that was rejected or is in doubt.
    pub(super) fn failed(&self, recipient: &Recipient<'_>, outcome: &Outcome) -> Option<Event> {
        self.0.as_ref()?;
        let (name, code, detail) = match outcome {
            Outcome::Rejected { code, detail } => ("message.rejected", Some(code), detail),
            Outcome::InDoubt { detail } => ("message.in_doubt", None, detail),
            _ => return None,
        };
        let (campaign, batch, index) = (recipient.campaign(), recipient.batch_number(), recipient.index);
        let body = json!({
            "version": 1, "event": name, "at": Timestamp::now(),
            "id": campaign, "message_ref": format!("{campaign}.{batch}.{index}"),
            "recipient": recipient.phone.to_string(), "row": recipient.row, "batch": batch,
            "state": outcome.state(), "code": code, "detail": detail,
        });
        Some(Event { name, body })
    }

    /// A campaign's state.
    pub(super) fn state(campaign: &Campaign) -> Event {
        let name = match campaign.state {
            CampaignState::Scheduled => "campaign.scheduled",
            CampaignState::Running => "campaign.running",
            CampaignState::Paused => "campaign.paused",
            CampaignState::Held => "campaign.held",
            CampaignState::Completed => "campaign.completed",
            CampaignState::Cancelled => "campaign.cancelled",
        };
        let body = json!({
            "version": 1, "event": name, "at": Timestamp::now(),
            "id": campaign.id, "name": campaign.name, "account": campaign.account,
            "state": campaign.state, "reason": campaign.reason,
            "planned": campaign.planned, "counts": campaign.counts,
            "skipped": campaign.skipped, "rejected": campaign.rejected,
        });
        Event { name, body }
    }

    /// An account or a flow is held, for a reason, or works again.
    pub(super) fn barrier(barrier: &Barrier, reason: Option<&str>) -> Event {
        let name = match (&barrier.flow, reason) {
            (None, Some(_)) => "account.held",
            (None, None) => "account.released",
            (Some(_), Some(_)) => "flow.held",
            (Some(_), None) => "flow.released",
        };
        Self::shared(name, &barrier.account, barrier.flow.as_deref(), reason)
    }

    /// A flow is throttled.
    pub(super) fn throttled(account: &str, flow: &str, reason: &str) -> Event {
        Self::shared("flow.throttled", account, Some(flow), Some(reason))
    }

    fn shared(name: &'static str, account: &str, flow: Option<&str>, reason: Option<&str>) -> Event {
        let body = json!({
            "version": 1, "event": name, "at": Timestamp::now(),
            "account": account, "flow": flow, "reason": reason,
        });
        Event { name, body }
    }

    /// Tells what became of messages, as well as it can be told.
    pub(super) async fn tell(&self, events: &[Event]) {
        let Some(broker) = self.0.as_ref().filter(|_| !events.is_empty()) else { return };
        // A broker that is away must not keep a sender that has recorded already.
        match tokio::time::timeout(PATIENCE, broker.tell(events)).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::warn!("{} events were not told: {fault}", events.len()),
            Err(_) => tracing::warn!("{} events were not told: the broker does not answer", events.len()),
        }
    }
}
