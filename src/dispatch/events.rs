//! What others are told: always after the ledger has it. `docs/events.md` describes each event.
//!
//! Each says when it was, by the ledger's clock: a worker's own may be wrong.
//!
//! A change of a campaign's state is told at least once: it is marked as told when the broker has
//! it. An answer of a person is told at least once, too: its provider comes again until the broker has
//! it. What became of a message is told once at most: the ledger is the truth, and reports are made
//! from it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::campaign::delivery::{Delivery, News, ReplyContent};
use crate::campaign::notice::{Notice, Noticed};
use crate::campaign::time::{self, rfc3339};
use crate::campaign::{CampaignState, MessageRef, MessageState, Phone, Recipient};
use crate::forward::Forward;
use crate::ledger::{Breaker, BreakerScope, Campaign, Outcome, ReportEffect};
use crate::queue::QueueError;
use crate::queue::rabbitmq::{Broker, Event};

/// How long a sender waits for the broker to take what it tells.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(3);

/// The body of an event about one message. There are thousands a second of them.
#[derive(Serialize)]
struct MessageNews<'n> {
    version: u8,
    event: &'n str,
    #[serde(serialize_with = "time::serialize")]
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

/// Where events go: to the broker, where there is one, and to webhooks.
#[derive(Clone, Default)]
pub struct Events {
    /// The broker of the fleet.
    pub broker: Option<Broker>,
    /// Who is told by HTTP.
    pub webhooks: Option<Webhooks>,
}

/// Who is told of events by HTTP, as reports are handed on: signed, and again until they are taken.
#[derive(Clone)]
pub struct Webhooks {
    /// Hands them on.
    pub forward: Forward,
    /// Addresses, each with the events that it is told of: names, or `campaign.*`.
    pub to: Arc<Vec<(String, Vec<String>)>>,
}

impl Webhooks {
    /// Has an event handed on to those who want it.
    async fn tell(&self, event: &Event) -> Result<(), QueueError> {
        for (url, wanted) in &*self.to {
            if wanted.iter().any(|wanted| is_wanted(wanted, event.name)) {
                self.forward.send(url.clone(), event.body.clone()).await?;
            }
        }
        Ok(())
    }
}

/// Whether a name is the one that is wanted, or one of its kind.
fn is_wanted(wanted: &str, name: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(kind) => name.starts_with(kind),
        None => wanted == name,
    }
}

impl Events {
    /// A message that was rejected or is in doubt.
    pub(super) fn failed(
        &self,
        at: Timestamp,
        recipient: &Recipient<'_>,
        outcome: &Outcome,
    ) -> Option<Event> {
        self.are_published().then_some(())?;
        let (name, code, detail) = match outcome {
            Outcome::Rejected { code, detail } => ("message.rejected", Some(code), detail),
            Outcome::InDoubt { detail } => ("message.in_doubt", None, detail),
            _ => return None,
        };
        let (campaign, batch, index) = (recipient.campaign(), recipient.batch_number(), recipient.index);
        let body = json!({
            "version": 1, "event": name, "at": rfc3339(at),
            "id": campaign, "message_ref": format!("{campaign}.{batch}.{index}"),
            "recipient": recipient.phone.to_string(), "row": recipient.row, "batch": batch,
            "state": outcome.state(), "code": code, "detail": detail,
        });
        Some(Event::new(name, &body))
    }

    /// A campaign's state.
    pub(super) fn state(at: Timestamp, campaign: &Campaign) -> Event {
        let name = match campaign.state {
            CampaignState::Scheduled => "campaign.scheduled",
            CampaignState::Running => "campaign.running",
            CampaignState::Paused => "campaign.paused",
            CampaignState::Held => "campaign.held",
            CampaignState::Completed => "campaign.completed",
            CampaignState::Cancelled => "campaign.cancelled",
        };
        let body = json!({
            "version": 1, "event": name, "at": rfc3339(at),
            "id": campaign.id, "name": campaign.name, "account": campaign.account,
            "state": campaign.state, "reason": campaign.reason,
            "planned": campaign.planned, "counts": campaign.counts,
            "skipped": campaign.skipped, "rejected": campaign.rejected,
        });
        Event::new(name, &body)
    }

    /// An account, or a part of it, is held, for a reason, or works again.
    pub fn breaker(at: Timestamp, breaker: &Breaker, reason: Option<&str>) -> Event {
        let (name, flow, from) = match (&breaker.scope, reason) {
            (BreakerScope::Account, Some(_)) => ("account.held", None, None),
            (BreakerScope::Account, None) => ("account.released", None, None),
            (BreakerScope::Sender(from) | BreakerScope::SenderFlows(from), Some(_)) => {
                ("sender.held", None, Some(from))
            }
            (BreakerScope::Sender(from) | BreakerScope::SenderFlows(from), None) => {
                ("sender.released", None, Some(from))
            }
            (BreakerScope::Flow(flow), Some(_)) => ("flow.held", Some(flow), None),
            (BreakerScope::Flow(flow), None) => ("flow.released", Some(flow), None),
        };
        let mut body = json!({
            "version": 1, "event": name, "at": rfc3339(at),
            "account": breaker.account, "flow": flow, "reason": reason,
        });
        if let Some(from) = from {
            body["from"] = json!(from.to_string());
            body["flows_only"] = json!(matches!(breaker.scope, BreakerScope::SenderFlows(_)));
        }
        Event::new(name, &body)
    }

    /// A flow is throttled.
    pub fn throttled(at: Timestamp, account: &str, flow: &str, reason: &str) -> Event {
        let name = "flow.throttled";
        let body = json!({
            "version": 1, "event": name, "at": rfc3339(at),
            "account": account, "flow": flow, "reason": reason,
        });
        Event::new(name, &body)
    }

    /// What a provider says of a template or a sender number.
    pub fn notice(at: Timestamp, account: &str, notice: &Notice) -> Event {
        let (name, about) = match &notice.about {
            Noticed::Template(name) => ("template.changed", json!({ "template": name })),
            Noticed::Number(digits) => ("number.changed", json!({ "number": format!("+{digits}") })),
        };
        let mut body = json!({
            "version": 1, "event": name, "at": rfc3339(at), "account": account,
            "change": notice.event, "detail": notice.detail,
        });
        if let (Some(body), Some(about)) = (body.as_object_mut(), about.as_object()) {
            body.extend(about.clone());
        }
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
    pub fn suppressed(at: Timestamp, person: Phone, message: Option<&MessageRef>) -> Event {
        let name = "recipient.suppressed";
        let message = message.map(ToString::to_string);
        let body = json!({
            "version": 1, "event": name, "at": rfc3339(at),
            "recipient": person.to_string(), "message_ref": message,
        });
        Event::new(name, &body)
    }

    /// Whether there is anybody to tell.
    pub fn are_published(&self) -> bool {
        self.broker.is_some() || self.webhooks.is_some()
    }

    /// Tells webhooks. When it returns, what is to be handed on is kept.
    ///
    /// # Errors
    ///
    /// When the broker does not take it.
    pub async fn tell_webhooks(&self, events: &[Event]) -> Result<(), QueueError> {
        let Some(webhooks) = &self.webhooks else { return Ok(()) };
        for event in events {
            webhooks.tell(event).await?;
        }
        Ok(())
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
        let Some(broker) = &self.broker else { return Ok(false) };
        let publishing = tokio::time::timeout(PUBLISH_TIMEOUT, broker.publish_if_heard(event));
        publishing.await.unwrap_or_else(|_| Err(QueueError("does not answer".into())))
    }

    /// Tells events; when it returns, the broker has them.
    ///
    /// # Errors
    ///
    /// When the broker does not take them soon.
    pub async fn publish_confirmed(&self, events: &[Event]) -> Result<(), QueueError> {
        self.tell_webhooks(events).await?;
        self.publish_to_broker(events).await
    }

    /// Tells the broker alone.
    ///
    /// # Errors
    ///
    /// As [`Events::publish_confirmed`].
    pub async fn publish_to_broker(&self, events: &[Event]) -> Result<(), QueueError> {
        let Some(broker) = self.broker.as_ref().filter(|_| !events.is_empty()) else { return Ok(()) };
        let publishing = tokio::time::timeout(PUBLISH_TIMEOUT, broker.publish_events(events));
        publishing.await.unwrap_or_else(|_| Err(QueueError("does not answer".into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_a_kind_of_events_wants_no_other() {
        assert!(is_wanted("campaign.*", "campaign.completed"));
        assert!(is_wanted("flow.completed", "flow.completed"));
        assert!(is_wanted("*", "message.sent"));
        assert!(!is_wanted("campaign.*", "campaigns.completed"));
        assert!(!is_wanted("flow.completed", "flow.completed.twice"));
    }
}
