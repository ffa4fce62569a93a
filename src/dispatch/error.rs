//! The error of the engine.

use crate::audience::AudienceError;
use crate::campaign::CampaignId;
use crate::ledger::LedgerError;
use crate::queue::QueueError;

/// An error that stops a campaign in this process. What was sent is in the ledger.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The audience can no longer be read.
    #[error(transparent)]
    Audience(#[from] AudienceError),
    /// A registered job is no longer valid.
    #[error("invalid job of campaign {0}: {1}")]
    Job(CampaignId, String),
    /// A task of this process ended unexpectedly.
    #[error("a task of flowcast failed: {0}")]
    Task(String),
}
