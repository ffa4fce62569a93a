//! What others are told: always after the ledger has it. `docs/reference/events.md` describes each event.
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

use crate::campaign::delivery::{Delivery, News, ReplyContent, Report};
use crate::campaign::notice::{Notice, Noticed};
use crate::campaign::{Event, EventName, MessageRef, MessageState, Phone, Recipient};
use crate::forward::Forward;
use crate::ledger::{Breaker, BreakerScope, Campaign, Outcome, ReportEffect};
use crate::queue::QueueError;
use crate::queue::rabbitmq::Broker;

/// How long a sender waits for the broker to take what it tells.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(3);

/// What all events about one message say. There are thousands a second of them.
#[derive(Serialize)]
struct AboutMessage<'n> {
    account: &'n str,
    id: &'n str,
    campaign: &'n str,
    message_ref: &'n str,
    sid: Option<&'n str>,
    custom_data: Option<&'n str>,
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
    Reply { reply_id: &'n str, response: Value },
}

/// Where the job of a message's campaign stands in its events.
#[derive(Clone, Copy)]
pub struct OfJob<'j> {
    /// The account that sends it.
    pub account: &'j str,
    /// Its `custom_data`, as it was sent.
    pub custom_data: Option<&'j str>,
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
            if wanted.iter().any(|wanted| is_wanted(wanted, event.name.as_str())) {
                self.forward.send(event.id.clone(), url.clone(), event.body.clone()).await?;
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
        at: Timestamp,
        job: OfJob<'_>,
        recipient: &Recipient<'_>,
        outcome: &Outcome,
    ) -> Option<Event> {
        let (name, code, detail) = match outcome {
            Outcome::Rejected { code, detail } => (EventName::MessageRejected, Some(code.as_str()), detail),
            Outcome::InDoubt(doubt) => (EventName::MessageInDoubt, None, &doubt.detail),
            _ => return None,
        };
        let message_ref = recipient.message_ref();
        let about = AboutMessage {
            account: job.account,
            id: recipient.campaign().as_str(),
            campaign: recipient.campaign().as_str(),
            message_ref: &message_ref,
            sid: None,
            custom_data: job.custom_data,
            recipient: recipient.phone,
            row: recipient.row,
            batch: recipient.batch_number(),
            more: MoreNews::State { state: outcome.state(), code, detail },
        };
        Some(Event::new(name, at, &[&message_ref, &at.as_microsecond().to_string()], about))
    }

    /// A campaign's state.
    pub(super) fn state(at: Timestamp, campaign: &Campaign) -> Event {
        let name = EventName::of_state(campaign.state);
        // The same id sent again after it was forgotten is another campaign.
        let (submitted, nth) =
            (campaign.submitted_at.as_millisecond().to_string(), campaign.announced.to_string());
        let fields = json!({
            "id": campaign.id, "campaign": campaign.id, "name": campaign.name, "account": campaign.account,
            "state": campaign.state, "reason": campaign.reason.as_ref().map(ToString::to_string),
            "planned": campaign.planned, "counts": campaign.counts,
            "skipped": campaign.skipped, "rejected": campaign.rejected,
        });
        Event::new(name, at, &[campaign.id.as_str(), &submitted, &nth], fields)
    }

    /// An account, or a part of it, is held, for a reason, or works again.
    pub fn breaker(at: Timestamp, breaker: &Breaker, reason: Option<&str>) -> Event {
        let is_held = reason.is_some();
        let either = |held, released| if is_held { held } else { released };
        let (name, flow, from) = match &breaker.scope {
            BreakerScope::Account => (either(EventName::AccountHeld, EventName::AccountReleased), None, None),
            BreakerScope::Sender(from) | BreakerScope::SenderFlows(from) => {
                (either(EventName::SenderHeld, EventName::SenderReleased), None, Some(from))
            }
            BreakerScope::Flow(flow) => {
                (either(EventName::FlowHeld, EventName::FlowReleased), Some(flow), None)
            }
        };
        let mut fields = json!({ "account": breaker.account, "flow": flow, "reason": reason });
        if let Some(from) = from {
            fields["from"] = json!(from.to_string());
            fields["flows_only"] = json!(matches!(breaker.scope, BreakerScope::SenderFlows(_)));
        }
        Event::new(name, at, &[&breaker.to_string(), &at.as_microsecond().to_string()], fields)
    }

    /// A flow is throttled.
    pub fn throttled(at: Timestamp, account: &str, flow: &str, reason: &str) -> Event {
        let fields = json!({ "account": account, "flow": flow, "reason": reason });
        Event::new(EventName::FlowThrottled, at, &[account, flow, &at.as_microsecond().to_string()], fields)
    }

    /// What a provider says of a template or a sender number. `told` is the same when the provider says it again.
    pub fn notice(at: Timestamp, account: &str, notice: &Notice, told: &str) -> Event {
        let (name, about, of) = match &notice.about {
            Noticed::Template(name) => (EventName::TemplateChanged, "template", name.clone()),
            Noticed::Number(digits) => (EventName::NumberChanged, "number", format!("+{digits}")),
        };
        let mut fields = json!({ "account": account, "change": notice.event, "detail": notice.detail });
        fields[about] = json!(of);
        Event::new(name, at, &[account, &of, &notice.event, told], fields)
    }

    /// What a report says of a message.
    pub fn news(
        message: &MessageRef,
        job: OfJob<'_>,
        effect: &ReportEffect,
        report: &Report,
        at: i64,
    ) -> Vec<Event> {
        let message_ref = message.to_string();
        let event = |name: EventName, identity: &str, more: MoreNews<'_>| {
            let about = AboutMessage {
                account: job.account,
                id: message.campaign.as_str(),
                campaign: message.campaign.as_str(),
                message_ref: &message_ref,
                sid: report.sid.as_deref(),
                custom_data: job.custom_data,
                recipient: effect.recipient,
                row: effect.row,
                batch: message.batch,
                more,
            };
            let at = Timestamp::from_millisecond(at).unwrap_or_default();
            Event::new(name, at, &[&message_ref, identity], about)
        };
        let accepted = |code, detail| MoreNews::State { state: MessageState::Accepted, code, detail };
        // A message that was sent again comes as far as before once more, under another SID.
        let try_of = format!("{} {at}", report.sid.as_deref().unwrap_or_default());
        let mut events = Vec::new();
        if effect.settled {
            events.push(event(EventName::MessageAccepted, &try_of, accepted(None, "")));
        }
        match &report.news {
            News::Delivery { state, code, text } => {
                let name = match state {
                    Delivery::Sent => EventName::MessageSent,
                    Delivery::Delivered => EventName::MessageDelivered,
                    Delivery::Read => EventName::MessageRead,
                    Delivery::Failed => EventName::MessageFailed,
                };
                events.push(event(name, &try_of, accepted(code.as_deref(), text)));
            }
            News::Reply(reply) => {
                let reply_id = &reply.key(message.batch, message.index);
                let (name, response) = match &reply.content {
                    ReplyContent::Flow(fields) => (EventName::FlowCompleted, Value::Object(fields.clone())),
                    ReplyContent::Text(words) | ReplyContent::Other(words) => {
                        (EventName::MessageReplied, words.as_str().into())
                    }
                };
                events.push(event(name, reply_id, MoreNews::Reply { reply_id, response }));
            }
        }
        events
    }

    /// A person wants nothing more. `answer` is what tells the stop word apart from others.
    pub fn suppressed(
        at: Timestamp,
        account: &str,
        person: Phone,
        message: Option<&MessageRef>,
        answer: &str,
    ) -> Event {
        let message_ref = message.map(ToString::to_string);
        let person = person.to_string();
        let identity = [account, &person, message_ref.as_deref().unwrap_or_default(), answer];
        let fields = json!({
            "account": account, "recipient": person, "message_ref": message_ref,
            "campaign": message.map(|message| &message.campaign),
        });
        Event::new(EventName::RecipientSuppressed, at, &identity, fields)
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
        publishing.await.unwrap_or(Err(QueueError::Silent))
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
        publishing.await.unwrap_or(Err(QueueError::Silent))
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
