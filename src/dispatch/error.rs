//! What ends a run before its time.

use crate::audience::AudienceError;
use crate::campaign::CampaignId;
use crate::ledger::LedgerError;
use crate::queue::QueueError;

/// Why a campaign could not go on. What it has sent is in the ledger.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The audience can't be read any more.
    #[error(transparent)]
    Audience(#[from] AudienceError),
    /// A job that was registered can't be read any more.
    #[error("the job of campaign {0}: {1}")]
    Job(CampaignId, String),
    /// A task of this process ended in an unexpected way.
    #[error("a task of flowcast failed: {0}")]
    Task(String),
}
