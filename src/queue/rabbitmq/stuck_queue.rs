//! Recovery of campaigns' queues that have stopped responding.

use std::time::Duration;

use lapin::Confirmation;
use lapin::options::{ConfirmSelectOptions, QueueDeleteOptions};

use super::broker::{Broker, answered};
use super::publishing::{OutgoingMessage, durable_properties, publish_one};
use super::topology;
use crate::queue::QueueError;

/// The timeout for deleting a queue that does not respond. RabbitMQ itself waits for 5 s.
const DELETE: Duration = Duration::from_secs(15);

impl Broker {
    /// Deletes a campaign's queue that does not respond, and returns whether it was deleted.
    ///
    /// It is deleted only if the broker responds for another queue.
    ///
    /// A queue whose node was killed just after its creation never answers again. Its batches are detected as lost, and planned
    /// again.
    pub(super) async fn delete_stuck(&self, queue: &str) -> Result<bool, QueueError> {
        // A separate channel: one that has published to a stuck queue does not answer either.
        let channel = self.channel().await?;
        // Messages of that exchange expire immediately.
        let probe = OutgoingMessage::new(topology::ENDED_EXCHANGE, "", Vec::new(), durable_properties());
        let probe = OutgoingMessage { mandatory: false, ..probe };
        let confirmed = async {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            publish_one(&channel, &probe).await?.await
        };
        if !matches!(answered(confirmed).await, Ok(Ok(Confirmation::Ack(_)))) {
            return Ok(false);
        }
        let deleting = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
        tokio::time::timeout(DELETE, deleting).await.map_err(|_| QueueError::Silent)??;
        Ok(true)
    }
}
