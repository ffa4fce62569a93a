//! Events that flowcast publishes by the broker and by webhooks. `docs/reference/events.md` describes each.
//!
//! Defines events and their format; `dispatch/events.rs` publishes them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{CampaignState, time};

/// Version of the format.
const VERSION: u8 = 1;

macro_rules! names {
    ($($variant:ident $name:literal $about:literal)*) => {
        /// The name of an event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EventName {
            $(#[doc = $about] $variant,)*
        }

        impl EventName {
            /// All names.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns its routing key.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

names! {
    CampaignScheduled "campaign.scheduled" "Registered, and waiting for its start."
    CampaignRunning "campaign.running" "Sending."
    CampaignPaused "campaign.paused" "Paused by an operator."
    CampaignHeld "campaign.held" "Stopped by flowcast; `reason` says why and what to do."
    CampaignCompleted "campaign.completed" "Every row has an outcome."
    CampaignCancelled "campaign.cancelled" "Cancelled by an operator."
    AccountHeld "account.held" "The provider refuses an account; all its campaigns are held. `reason` says why and what to do."
    AccountReleased "account.released" "The account works again: a request was accepted."
    SenderHeld "sender.held" "The provider refuses a sender number; its campaigns are held, with `flows_only` only those that send flows."
    SenderReleased "sender.released" "The sender number works again."
    FlowHeld "flow.held" "A flow is blocked, and every campaign that uses it is held."
    FlowReleased "flow.released" "The flow works again."
    FlowThrottled "flow.throttled" "A flow is throttled, and every campaign that uses it sends slowly."
    FlowCompleted "flow.completed" "A recipient submitted the form."
    TemplateChanged "template.changed" "The provider reports that a template was approved, rejected, paused or disabled."
    NumberChanged "number.changed" "The provider reports that a sender number is flagged, or has a new limit."
    MessageSent "message.sent" "A report says that the message is on its way."
    MessageDelivered "message.delivered" "A report says that the message is on a device."
    MessageRead "message.read" "A report says that the message was opened."
    MessageFailed "message.failed" "A report says that the message could not be delivered."
    MessageAccepted "message.accepted" "A report proves that the provider accepted a message that was in doubt or being sent."
    MessageReplied "message.replied" "A recipient replied with a text, a button or something else."
    MessageRejected "message.rejected" "The provider rejected the message."
    MessageInDoubt "message.in_doubt" "The provider may or may not have accepted the message."
    RecipientSuppressed "recipient.suppressed" "A recipient replied with a stop word, and gets no more messages."
}

impl EventName {
    /// Returns the filters of a receiver: names, all of a kind, e.g. `campaign.*`, and `*` for all.
    pub fn patterns() -> BTreeSet<String> {
        let kind = |name: &Self| name.as_str().split('.').next().map(|kind| format!("{kind}.*"));
        let names = Self::ALL.iter().map(|name| name.as_str().to_owned());
        names.chain(Self::ALL.iter().filter_map(kind)).chain(["*".to_owned()]).collect()
    }

    /// Returns the event of a campaign's state.
    pub fn of_state(state: CampaignState) -> Self {
        match state {
            CampaignState::Scheduled => Self::CampaignScheduled,
            CampaignState::Running => Self::CampaignRunning,
            CampaignState::Paused => Self::CampaignPaused,
            CampaignState::Held => Self::CampaignHeld,
            CampaignState::Completed => Self::CampaignCompleted,
            CampaignState::Cancelled => Self::CampaignCancelled,
        }
    }
}

impl Serialize for EventName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The name.
    pub name: EventName,
    /// The id, the same wherever and however often the event is published.
    pub id: String,
    /// The body, as JSON.
    pub body: Vec<u8>,
}

/// The fields of every body.
#[derive(Serialize)]
struct Body<'b, F> {
    version: u8,
    event: EventName,
    event_id: &'b str,
    #[serde(serialize_with = "time::serialize")]
    at: Timestamp,
    #[serde(flatten)]
    fields: F,
}

impl Event {
    /// Creates an event. `identity` distinguishes it from all others of its name, and is the same when it is
    /// published again; `fields` is an object.
    pub fn new(name: EventName, at: Timestamp, identity: &[&str], fields: impl Serialize) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in std::iter::once(&name.as_str()).chain(identity) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let id = format!("evt_{}", &hasher.finalize().to_hex()[..32]);
        let body = Body { version: VERSION, event: name, event_id: &id, at, fields };
        // Texts, numbers and JSON values always serialize.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        Self { name, id, body }
    }
}

/// Returns the JSON Schema of an event's body (2020-12).
pub fn event_schema() -> Value {
    serde_json::from_str(include_str!("event_schema.json")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_each_event_once() {
        let schema = event_schema();
        let arms = schema["oneOf"].as_array().unwrap().iter();
        let names = arms.flat_map(|arm| arm["properties"]["event"]["enum"].as_array().unwrap());
        let mut names: Vec<&str> = names.map(|name| name.as_str().unwrap()).collect();
        names.sort_unstable();
        let mut all: Vec<&str> = EventName::ALL.iter().map(|name| name.as_str()).collect();
        all.sort_unstable();
        assert_eq!(names, all);
    }

    #[test]
    fn an_event_keeps_its_id_and_shares_it_with_no_other() {
        let event = |at, identity: &[&str]| {
            Event::new(EventName::CampaignPaused, Timestamp::from_second(at).unwrap(), identity, ()).id
        };
        assert_eq!(event(1, &["c1", "2"]), event(9, &["c1", "2"]));
        assert_ne!(event(1, &["c1", "2"]), event(1, &["c1", "3"]));
        assert_ne!(event(1, &["c1", "2"]), event(1, &["c12", ""]));
    }
}
