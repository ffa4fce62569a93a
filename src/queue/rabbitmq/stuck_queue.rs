//! Recovery of campaigns' queues that have stopped answering.

use std::time::Duration;

use lapin::Confirmation;
use lapin::options::{ConfirmSelectOptions, QueueDeleteOptions};

use super::super::QueueError;
use super::broker::{Broker, answered, failed};
use super::publishing::{OutgoingMessage, durable_properties, publish_one};
use super::topology;

/// Timeout for deleting a queue that does not answer. RabbitMQ itself waits for it for 5 s.
const DELETE: Duration = Duration::from_secs(15);

impl Broker {
    /// Deletes a campaign's queue that does not answer, and returns whether it did.
    ///
    /// It does so only if the broker answers for another queue.
    ///
    /// A queue whose node was killed just after its creation never answers again. Its batches are detected as lost, and planned
    /// again.
    pub(super) async fn delete_stuck(&self, queue: &str) -> Result<bool, QueueError> {
        // A separate channel: one that has published to a stuck queue does not answer either.
        let channel = self.channel().await?;
        // Messages of that exchange expire immediately.
        let probe = OutgoingMessage {
            exchange: topology::ENDED_EXCHANGE.into(),
            key: String::new(),
            payload: Vec::new(),
            properties: durable_properties(),
            mandatory: false,
        };
        let confirmed = async {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            publish_one(&channel, &probe).await?.await
        };
        if !matches!(answered(confirmed).await, Ok(Ok(Confirmation::Ack(_)))) {
            return Ok(false);
        }
        let deleting = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
        let silent = |_| QueueError::Silent;
        let deleted = tokio::time::timeout(DELETE, deleting).await.map_err(silent)?;
        deleted.map(|_| true).map_err(|error| failed(&error))
    }
}
