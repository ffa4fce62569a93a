//! How batches travel from the planner to the senders.
//!
//! A queue hands each batch to one taker at a time, keeps it until it is acknowledged, and gives it
//! back when the taker is gone. It may deliver a batch twice: the ledger's claim says what is left.
//!
//! Every backend passes one suite (`tests/it/queue.rs`).

mod local;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use local::Local;

use crate::campaign::Batch;

/// A batch on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedBatch {
    /// The batch.
    pub batch: Batch,
    /// Which of its messages are still to be sent.
    pub left: Vec<u8>,
    /// How often sending it has failed for a passing reason.
    pub attempt: u32,
}

impl QueuedBatch {
    /// A whole batch, for the first time.
    pub fn new(batch: Batch) -> Self {
        let left = (0..batch.len()).filter_map(|index| u8::try_from(index).ok()).collect();
        Self { batch, left, attempt: 0 }
    }
}

/// A queue's own failure.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the queue {0}")]
pub struct QueueError(pub String);

/// A queue of batches.
pub trait Queue: Clone + Send + Sync + 'static {
    /// What proves that a batch was taken: it is acknowledged or delayed. Dropped, the batch goes back.
    type Receipt: Send;

    /// Puts a batch into the queue. When it returns, the queue has it for certain.
    /// Waits as long as the queue is full.
    fn publish(&self, batch: QueuedBatch) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// The next batch. Waits as long as there is none.
    fn next(&self) -> impl Future<Output = Result<(QueuedBatch, Self::Receipt), QueueError>> + Send;

    /// The batch is done with.
    fn acknowledge(&self, receipt: Self::Receipt) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// The batch, as it is now, comes back after a while.
    fn delay(
        &self,
        receipt: Self::Receipt,
        batch: QueuedBatch,
        wait: Duration,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;
}
