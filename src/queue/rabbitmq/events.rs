//! The publication of events.

use super::super::QueueError;
use super::broker::Broker;
use super::publishing::{OutgoingMessage, PublishError, json_properties};
use super::topology::EVENTS;
use crate::campaign::Event;

fn message_of(event: &Event, mandatory: bool) -> OutgoingMessage {
    let name = event.name.as_str();
    OutgoingMessage {
        exchange: EVENTS.into(),
        key: name.into(),
        payload: event.body.clone(),
        properties: json_properties().with_type(name.into()).with_message_id(event.id.as_str().into()),
        mandatory,
    }
}

impl Broker {
    /// Publishes events.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it.
    pub async fn publish_events(&self, events: &[Event]) -> Result<(), QueueError> {
        let messages: Vec<OutgoingMessage> = events.iter().map(|event| message_of(event, false)).collect();
        match self.publish(&messages).await {
            Ok(()) | Err(PublishError::Nowhere) => Ok(()),
            Err(PublishError::Failed(error)) => Err(error),
        }
    }

    /// Publishes an event; returns whether a queue is bound to its name.
    ///
    /// # Errors
    ///
    /// When the broker does not confirm it.
    pub async fn publish_if_bound(&self, event: &Event) -> Result<bool, QueueError> {
        match self.publish(&[message_of(event, true)]).await {
            Ok(()) => Ok(true),
            Err(PublishError::Nowhere) => Ok(false),
            Err(PublishError::Failed(error)) => Err(error),
        }
    }
}
