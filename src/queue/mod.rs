//! The queues between planner and senders; each campaign has one.
//!
//! A queue delivers each batch to one consumer at a time, keeps it until it is acknowledged, and requeues it when the
//! consumer is gone. It may deliver a batch twice: the ledger's claim says which messages are left.
//!
//! All backends pass the same tests (`tests/it/queue.rs`).

mod local;
mod messages;
pub mod rabbitmq;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use local::Local;
pub use messages::{DeadLetter, DeadLetterAction, Forwarded, Postponed};
pub use rabbitmq::RabbitMq;

use crate::campaign::{Batch, CampaignId};

/// A batch in a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedBatch {
    /// The batch as it was planned.
    pub batch: Batch,
    /// The indexes of the messages that are still to be sent.
    pub left: Vec<u8>,
    /// The number of attempts that failed for a transient reason.
    pub attempt: u32,
}

impl QueuedBatch {
    /// Creates an entry with all messages of a batch.
    pub fn new(batch: Batch) -> Self {
        let left = (0..batch.len()).filter_map(|index| u8::try_from(index).ok()).collect();
        Self { batch, left, attempt: 0 }
    }
}

/// An error of the queue.
#[derive(Clone, Debug, thiserror::Error)]
#[error("RabbitMQ {}", self.why())]
pub enum QueueError {
    /// The configured address is invalid.
    Address(String),
    /// A permanent refusal by the broker: an operator has to change its configuration.
    Refused(String),
    /// A transient error.
    Failed(String),
    /// A timeout.
    Silent,
}

impl QueueError {
    /// Returns the cause, as a sentence without its subject, RabbitMQ.
    pub fn why(&self) -> &str {
        match self {
            Self::Address(why) | Self::Refused(why) | Self::Failed(why) => why,
            Self::Silent => "does not respond",
        }
    }
}

/// The queue of a campaign's batches.
pub trait Queue: Clone + Send + Sync + 'static {
    /// The receipt of a delivered batch, which acknowledges or delays it. The batch is requeued when the receipt is dropped.
    type Receipt: Send;
    /// The owner of the queues of all campaigns.
    type Home: Clone + Send + Sync + 'static;
    /// Whether batches survive the process that published them.
    const DURABLE: bool;

    /// Opens a campaign's queue for a worker that sends `ahead` batches concurrently.
    ///
    /// The queue is created when it is first used.
    fn open(home: &Self::Home, campaign: &CampaignId, ahead: usize) -> Self;

    /// Publishes batches; once it returns, the queue has all of them.
    fn publish(&self, batches: Vec<QueuedBatch>) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Waits for the next batch.
    fn next(&self) -> impl Future<Output = Result<(QueuedBatch, Self::Receipt), QueueError>> + Send;

    /// Acknowledges a batch.
    fn acknowledge(&self, receipt: Self::Receipt) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Requeues a batch in its current state after about `wait`.
    fn delay(
        &self,
        receipt: Self::Receipt,
        batch: QueuedBatch,
        wait: Duration,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Returns the number of waiting batches, without the delayed ones.
    fn waiting(&self) -> impl Future<Output = Result<u64, QueueError>> + Send;

    /// Returns the number of this worker's unacknowledged or delayed batches.
    fn held(&self) -> u64;

    /// Stops consuming; requeues unacknowledged batches.
    fn close(&self) -> impl Future<Output = ()> + Send;

    /// Deletes the queue with all batches.
    fn remove(&self) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Returns what keeps batches from being published or consumed, if anything.
    fn health_error(&self) -> Option<String>;
}
