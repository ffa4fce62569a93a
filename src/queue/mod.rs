//! How batches travel from the planner to the senders: each campaign has a queue of its own.
//!
//! A queue hands each batch to one taker at a time, keeps it until it is acknowledged, and gives it
//! back when the taker is gone. It may deliver a batch twice: the ledger's claim says what is left.
//!
//! Every backend passes one suite (`tests/it/queue.rs`).

mod local;
pub mod rabbitmq;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use local::Local;
pub use rabbitmq::RabbitMq;

use crate::campaign::{Batch, CampaignId};

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
#[error("the queue {}", self.why())]
pub enum QueueError {
    /// The broker will not do it, however often it is asked: a person has to change something there.
    Refused(String),
    /// It may work later.
    Failed(String),
    /// There was no answer in time.
    Silent,
}

impl QueueError {
    /// Returns what went wrong, as words behind a name of the queue.
    pub fn why(&self) -> &str {
        match self {
            Self::Refused(why) | Self::Failed(why) => why,
            Self::Silent => "does not answer",
        }
    }
}

/// The queue of a campaign's batches.
pub trait Queue: Clone + Send + Sync + 'static {
    /// What proves that a batch was taken: it is acknowledged or delayed. Dropped, the batch goes back.
    type Receipt: Send;
    /// Where the queues of all campaigns are.
    type Home: Clone + Send + Sync + 'static;
    /// Whether batches outlive the process that published them.
    const LASTS: bool;

    /// A campaign's queue, for a worker that sends so many of its batches at once. It is made when
    /// it is first used.
    fn open(home: &Self::Home, campaign: &CampaignId, ahead: usize) -> Self;

    /// Puts batches into the queue. When it returns, the queue has all of them for certain.
    fn publish(&self, batches: Vec<QueuedBatch>) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// The next batch. Waits as long as there is none.
    fn next(&self) -> impl Future<Output = Result<(QueuedBatch, Self::Receipt), QueueError>> + Send;

    /// The batch is done with.
    fn acknowledge(&self, receipt: Self::Receipt) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// The batch, as it is now, comes back after about so long.
    fn delay(
        &self,
        receipt: Self::Receipt,
        batch: QueuedBatch,
        wait: Duration,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// How many batches wait to be taken, delayed ones not counted.
    fn waiting(&self) -> impl Future<Output = Result<u64, QueueError>> + Send;

    /// How many batches this worker has taken and is not done with, or has delayed.
    fn held(&self) -> u64;

    /// Takes no more; what was taken and is not done with goes back.
    fn close(&self) -> impl Future<Output = ()> + Send;

    /// Lets all batches go: the campaign needs them no more.
    fn remove(&self) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// What keeps batches from being published just now, if anything.
    fn trouble(&self) -> Option<String>;
}
