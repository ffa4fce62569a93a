//! Builds events and publishes them, always after the ledger has the change. `docs/reference/events.md` describes each event.
//!
//! The time of an event is the ledger's: a worker's clock may be wrong.
//!
//! | event | delivery |
//! |---|---|
//! | state of a campaign | at least once: marked as published after the broker has it |
//! | reply of a recipient | at least once: the provider repeats the callback until the broker has the event |
//! | outcome of a message | at most once: the ledger has the facts, and reports are made from it |

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::{DispatchError, supervisor::within};
use crate::campaign::delivery::{Delivery, DeliveryReport, DeliveryUpdate, ReplyContent};
use crate::campaign::notice::{Notice, NoticeSubject};
use crate::campaign::{Event, EventName, MessageRef, MessageState, Phone, Recipient};
use crate::forward::Forward;
use crate::ledger::{Breaker, BreakerScope, Campaign, Ledger, Outcome, ReportEffect};
use crate::queue::{QueueError, rabbitmq::Broker};

/// Timeout for publishing to the broker.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(3);

/// The fields of all events about one message. There may be thousands of events a second.
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
    more: MessageUpdates<'n>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum MessageUpdates<'n> {
    State { state: MessageState, code: Option<&'n str>, detail: &'n str },
    Reply { reply_id: &'n str, response: Value },
}

/// The fields of a message's events that come from its job.
#[derive(Clone, Copy)]
pub struct OfJob<'j> {
    /// The account that sends the message.
    pub account: &'j str,
    /// The job's `custom_data`, as it was sent.
    pub custom_data: Option<&'j str>,
}

/// The destinations of events: the broker, if there is one, and webhooks.
#[derive(Clone, Default)]
pub struct Events {
    /// The fleet's broker.
    pub broker: Option<Broker>,
    /// The webhooks.
    pub webhooks: Option<Webhooks>,
}

/// Webhooks: events are forwarded like reports, signed, and with retries until they are accepted.
#[derive(Clone)]
pub struct Webhooks {
    /// Forwards the events.
    pub forward: Forward,
    /// URLs, each with the events it receives: names, or patterns such as `campaign.*`.
    pub to: Arc<Vec<(String, Vec<String>)>>,
}

impl Webhooks {
    /// Forwards an event to the webhooks that receive it.
    async fn publish(&self, event: &Event) -> Result<(), QueueError> {
        for (url, wanted) in &*self.to {
            if wanted.iter().any(|wanted| is_wanted(wanted, event.name.as_str())) {
                self.forward.send(event.id.clone(), url.clone(), event.body.clone()).await?;
            }
        }
        Ok(())
    }
}

/// Returns whether an event's name equals `wanted` or matches its pattern.
fn is_wanted(wanted: &str, name: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(kind) => name.starts_with(kind),
        None => wanted == name,
    }
}

impl Events {
    /// Returns the event for a message that was rejected or is in doubt.
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
            more: MessageUpdates::State { state: outcome.state(), code, detail },
        };
        Some(Event::new(name, at, &[&message_ref, &at.as_microsecond().to_string()], about))
    }

    /// Returns the event for a campaign's state.
    fn state(at: Timestamp, campaign: &Campaign) -> Event {
        let name = EventName::of_state(campaign.state);
        // The same id, submitted again after it was removed, is another campaign.
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

    /// Returns the event for a breaker that opened, with its reason, or closed.
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

    /// Returns the event for a throttled flow.
    pub fn throttled(at: Timestamp, account: &str, flow: &str, reason: &str) -> Event {
        let fields = json!({ "account": account, "flow": flow, "reason": reason });
        Event::new(EventName::FlowThrottled, at, &[account, flow, &at.as_microsecond().to_string()], fields)
    }

    /// Returns the event for a provider's notice about a template or a sender number.
    ///
    /// `identity` identifies the notice: it is the same if the provider repeats it.
    pub fn notice(at: Timestamp, account: &str, notice: &Notice, identity: &str) -> Event {
        let (name, about, of) = match &notice.about {
            NoticeSubject::Template(name) => (EventName::TemplateChanged, "template", name.clone()),
            NoticeSubject::Number(digits) => (EventName::NumberChanged, "number", format!("+{digits}")),
        };
        let mut fields = json!({ "account": account, "change": notice.event, "detail": notice.detail });
        fields[about] = json!(of);
        Event::new(name, at, &[account, &of, &notice.event, identity], fields)
    }

    /// Returns the events for a report about a message.
    pub fn message_event(
        message: &MessageRef,
        job: OfJob<'_>,
        effect: &ReportEffect,
        report: &DeliveryReport,
        at: i64,
    ) -> Vec<Event> {
        let message_ref = message.to_string();
        let event = |name: EventName, identity: &str, more: MessageUpdates<'_>| {
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
        let accepted = |code, detail| MessageUpdates::State { state: MessageState::Accepted, code, detail };
        // A message that was sent again repeats the same states under another SID.
        let try_of = format!("{} {at}", report.sid.as_deref().unwrap_or_default());
        let mut events = Vec::new();
        if effect.settled {
            events.push(event(EventName::MessageAccepted, &try_of, accepted(None, "")));
        }
        match &report.update {
            DeliveryUpdate::Delivery { state, code, text } => {
                let name = match state {
                    Delivery::Sent => EventName::MessageSent,
                    Delivery::Delivered => EventName::MessageDelivered,
                    Delivery::Read => EventName::MessageRead,
                    Delivery::Failed => EventName::MessageFailed,
                };
                events.push(event(name, &try_of, accepted(code.as_deref(), text)));
            }
            DeliveryUpdate::Reply(reply) => {
                let reply_id = &reply.key(message.batch, message.index);
                let (name, response) = match &reply.content {
                    ReplyContent::Flow(fields) => (EventName::FlowCompleted, Value::Object(fields.clone())),
                    ReplyContent::Text(words) | ReplyContent::Other(words) => {
                        (EventName::MessageReplied, words.as_str().into())
                    }
                };
                events.push(event(name, reply_id, MessageUpdates::Reply { reply_id, response }));
            }
        }
        events
    }

    /// Returns the event for a recipient who opted out. `answer` identifies the reply with the stop word.
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

    /// Returns whether there is a broker or a webhook.
    pub fn are_published(&self) -> bool {
        self.broker.is_some() || self.webhooks.is_some()
    }

    /// Forwards events to webhooks. When it returns, the events to forward are stored.
    ///
    /// # Errors
    ///
    /// Returns an error if the broker does not accept them.
    pub async fn publish_webhook_events(&self, events: &[Event]) -> Result<(), QueueError> {
        let Some(webhooks) = &self.webhooks else { return Ok(()) };
        for event in events {
            webhooks.publish(event).await?;
        }
        Ok(())
    }

    /// Publishes a campaign's state unless it is published, then marks it as published in the ledger.
    pub(super) async fn publish_state(
        &self,
        ledger: &impl Ledger,
        campaign: &Campaign,
    ) -> Result<(), DispatchError> {
        if campaign.published == Some(campaign.state) {
            return Ok(());
        }
        if self.are_published() {
            let event = [Self::state(ledger.time(), campaign)];
            within(self.publish_webhook_events(&event)).await?;
            self.publish_to_broker(&event).await?;
        }
        Ok(ledger.published(&campaign.id, campaign.state).await?)
    }

    /// Publishes events, and only logs an error: an unreachable broker must not delay a sender.
    pub async fn publish(&self, events: &[Event]) {
        if let Err(error) = self.publish_confirmed(events).await {
            tracing::warn!(events = events.len(), error = %error, "events not published");
        }
    }

    /// Publishes an event. Returns whether a queue is bound to it.
    ///
    /// # Errors
    ///
    /// Returns an error if the broker does not accept it in time.
    pub async fn publish_if_bound(&self, event: &Event) -> Result<bool, QueueError> {
        let Some(broker) = &self.broker else { return Ok(false) };
        let publishing = tokio::time::timeout(PUBLISH_TIMEOUT, broker.publish_if_bound(event));
        publishing.await.unwrap_or(Err(QueueError::Silent))
    }

    /// Publishes events to webhooks and the broker. When it returns, the broker has them.
    ///
    /// # Errors
    ///
    /// Returns an error if the broker does not accept them in time.
    pub async fn publish_confirmed(&self, events: &[Event]) -> Result<(), QueueError> {
        self.publish_webhook_events(events).await?;
        self.publish_to_broker(events).await
    }

    /// Publishes events only to the broker.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Events::publish_confirmed`].
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
    fn a_pattern_matches_only_its_kind_of_events() {
        assert!(is_wanted("campaign.*", "campaign.completed"));
        assert!(is_wanted("flow.completed", "flow.completed"));
        assert!(is_wanted("*", "message.sent"));
        assert!(!is_wanted("campaign.*", "campaigns.completed"));
        assert!(!is_wanted("flow.completed", "flow.completed.twice"));
    }
}
