//! The publication of events.

use super::publishing::{OutgoingMessage, json_properties};
use super::{broker::Broker, topology::EVENTS};
use crate::campaign::Event;
use crate::queue::QueueError;

fn message_of(event: &Event, mandatory: bool) -> OutgoingMessage {
    let name = event.name.as_str();
    let properties = json_properties().with_type(name.into()).with_message_id(event.id.as_str().into());
    OutgoingMessage { mandatory, ..OutgoingMessage::new(EVENTS, name, event.body.clone(), properties) }
}

impl Broker {
    /// Publishes events.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it.
    pub async fn publish_events(&self, events: &[Event]) -> Result<(), QueueError> {
        let messages: Vec<OutgoingMessage> = events.iter().map(|event| message_of(event, false)).collect();
        self.publish(&messages).await.map(drop)
    }

    /// Publishes an event; returns whether a queue is bound to its name.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it.
    pub async fn publish_if_bound(&self, event: &Event) -> Result<bool, QueueError> {
        self.publish(&[message_of(event, true)]).await
    }
}
