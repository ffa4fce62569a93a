//! What others are told: always after the ledger has it. `docs/events.md` describes each event.
//!
//! A change of a campaign's state is told at least once: it is marked as told when the broker has
//! it. An answer of a person is told at least once, too: its provider comes again until the broker has
//! it. What became of a message is told once at most: the ledger is the truth, and reports are made
//! from it.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::campaign::delivery::{Delivery, News, ReplyContent};
use crate::campaign::{CampaignState, MessageRef, MessageState, Phone, Recipient};
use crate::ledger::{Breaker, Campaign, Outcome, ReportEffect};
use crate::queue::QueueError;
use crate::queue::rabbitmq::{Broker, Event};

/// How long a sender waits for the broker to take what it tells.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(3);

/// The body of an event about one message. There are thousands a second of them.
#[derive(Serialize)]
struct MessageNews<'n> {
    version: u8,
    event: &'n str,
    at: Timestamp,
    id: &'n str,
    message_ref: String,
    recipient: Phone,
    row: u64,
    batch: u32,
    #[serde(flatten)]
    more: MoreNews<'n>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum MoreNews<'n> {
    State { state: MessageState, code: Option<&'n str>, detail: &'n str },
    Reply { reply_id: String, response: Value },
}

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
        Some(Event::new(name, &body))
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
        Event::new(name, &body)
    }

    /// An account or a flow is held, for a reason, or works again.
    pub fn breaker(breaker: &Breaker, reason: Option<&str>) -> Event {
        let name = match (&breaker.flow, reason) {
            (None, Some(_)) => "account.held",
            (None, None) => "account.released",
            (Some(_), Some(_)) => "flow.held",
            (Some(_), None) => "flow.released",
        };
        Self::shared(name, &breaker.account, breaker.flow.as_deref(), reason)
    }

    /// A flow is throttled.
    pub fn throttled(account: &str, flow: &str, reason: &str) -> Event {
        Self::shared("flow.throttled", account, Some(flow), Some(reason))
    }

    fn shared(name: &'static str, account: &str, flow: Option<&str>, reason: Option<&str>) -> Event {
        let body = json!({
            "version": 1, "event": name, "at": Timestamp::now(),
            "account": account, "flow": flow, "reason": reason,
        });
        Event::new(name, &body)
    }

    /// What a report says of a message.
    pub fn news(message: &MessageRef, effect: &ReportEffect, news: &News, at: i64) -> Vec<Event> {
        let event = |name: &'static str, more: MoreNews<'_>| {
            let at = Timestamp::from_millisecond(at).unwrap_or_default();
            let (id, message_ref) = (message.campaign.as_str(), message.to_string());
            let (recipient, row, batch) = (effect.recipient, effect.row, message.batch);
            let body =
                MessageNews { version: 1, event: name, at, id, message_ref, recipient, row, batch, more };
            Event::new(name, &body)
        };
        let accepted = |code, detail| MoreNews::State { state: MessageState::Accepted, code, detail };
        let mut events = Vec::new();
        if effect.settled {
            events.push(event("message.accepted", accepted(None, "")));
        }
        match news {
            News::Delivery { state, code, text } => {
                let name = match state {
                    Delivery::Sent => "message.sent",
                    Delivery::Delivered => "message.delivered",
                    Delivery::Read => "message.read",
                    Delivery::Failed => "message.failed",
                };
                events.push(event(name, accepted(code.as_deref(), text)));
            }
            News::Reply(reply) => {
                let reply_id = reply.key(message.batch, message.index);
                let (name, response) = match &reply.content {
                    ReplyContent::Flow(fields) => ("flow.completed", Value::Object(fields.clone())),
                    ReplyContent::Text(words) | ReplyContent::Other(words) => {
                        ("message.replied", words.as_str().into())
                    }
                };
                events.push(event(name, MoreNews::Reply { reply_id, response }));
            }
        }
        events
    }

    /// A person wants nothing more.
    pub fn suppressed(person: Phone, message: Option<&MessageRef>) -> Event {
        let name = "recipient.suppressed";
        let message = message.map(ToString::to_string);
        let body = json!({
            "version": 1, "event": name, "at": Timestamp::now(),
            "recipient": person.to_string(), "message_ref": message,
        });
        Event::new(name, &body)
    }

    /// Whether there is a broker to tell.
    pub fn are_published(&self) -> bool {
        self.0.is_some()
    }

    /// Tells what became of messages, as well as it can be told. A broker that is away must not keep a
    /// sender that has recorded already.
    pub async fn publish(&self, events: &[Event]) {
        if let Err(fault) = self.publish_confirmed(events).await {
            tracing::warn!("{} events were not published: {fault}", events.len());
        }
    }

    /// Tells an event, and finds out whether anybody listens to such.
    ///
    /// # Errors
    ///
    /// When the broker does not take it soon.
    pub async fn publish_if_heard(&self, event: &Event) -> Result<bool, QueueError> {
        let Some(broker) = &self.0 else { return Ok(false) };
        let publishing = tokio::time::timeout(PUBLISH_TIMEOUT, broker.publish_if_heard(event));
        publishing.await.unwrap_or_else(|_| Err(QueueError("does not answer".into())))
    }

    /// Tells events; when it returns, the broker has them.
    ///
    /// # Errors
    ///
    /// When the broker does not take them soon.
    pub async fn publish_confirmed(&self, events: &[Event]) -> Result<(), QueueError> {
        let Some(broker) = self.0.as_ref().filter(|_| !events.is_empty()) else { return Ok(()) };
        let publishing = tokio::time::timeout(PUBLISH_TIMEOUT, broker.publish_events(events));
        publishing.await.unwrap_or_else(|_| Err(QueueError("does not answer".into())))
    }
}
