//! What a backend stores of a campaign's batches: their records, read and replaced by compare-and-swap.
//!
//! A backend decides nothing. The rules for messages are in `batch_machine.rs`; `claims.rs`, `decisions.rs`, `evidence.rs` and
//! `replays.rs` use them, once for all backends.

use std::{collections::BTreeMap, time::Duration};

use super::{Clock, LedgerFuture, PlannedBatch, change::Change, record::BatchRecord};
use crate::campaign::CampaignId;

/// Code of messages in doubt that an operator abandoned. They may have been delivered, so a retry includes them only if
/// it names the code.
pub const ABANDONED: &str = "abandoned";
/// Maximum number of batches written concurrently.
pub(super) const WINDOW: usize = 64;
/// Number of batches read with one call.
pub(super) const PAGE: u32 = 100;
/// Time between the latest start of a request plus its timeout, and the expiry of its claim.
pub(super) const MARGIN: Duration = Duration::from_secs(5);

/// A batch as a backend stores it.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// Its recipients.
    pub batch: PlannedBatch,
    /// The states of its messages.
    pub record: BatchRecord,
}

/// Why messages are claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimPurpose {
    /// To send them.
    Send,
    /// To probe an open breaker: granted while the breaker suspends the campaign.
    Probe,
}

/// A compare-and-swap of a batch.
#[derive(Clone, Copy)]
pub struct BatchUpdate<'s> {
    /// The batch. It is stored if it is not yet.
    pub(super) batch: &'s PlannedBatch,
    /// The purpose for which the campaign must admit claims, if the change contains a claim.
    pub(super) purpose: Option<ClaimPurpose>,
    /// The change.
    pub(super) change: &'s Change,
}

impl BatchUpdate<'_> {
    /// Returns whether it claims messages.
    #[cfg(test)]
    pub(crate) fn is_claim(&self) -> bool {
        self.purpose.is_some()
    }

    /// Returns the batch and the new states of its messages, for a trace.
    #[cfg(test)]
    pub(crate) fn shown(&self) -> String {
        let states = self.change.record.iter().flat_map(BatchRecord::each);
        let states: Vec<&str> = states.map(|(_, message)| message.state.as_str()).collect();
        let (batch, claims) = (self.batch, if self.is_claim() { "claims in" } else { "writes" });
        format!("{claims} batch {} of {}: {}", batch.number, batch.campaign, states.join(" "))
    }
}

/// The result of a compare-and-swap.
#[derive(Debug)]
pub enum CasOutcome {
    /// It was written.
    Done {
        /// Number of open messages of the campaign; it may be too large if nothing was settled.
        open: u64,
        /// For each reply, whether it still has to be published.
        responses: Vec<bool>,
    },
    /// Another writer changed the record: read it again and decide again.
    Stale,
    /// The campaign admits no claims.
    NotAdmitted,
    /// The campaign has ended, and the change would make a message pending.
    Ended,
}

impl CasOutcome {
    /// Returns the result for a batch that is not stored when its campaign has ended.
    ///
    /// The batch is not stored then, because no worker would send its messages. They were never claimed, so there is
    /// nothing to record.
    pub(super) fn unplanned(purpose: Option<ClaimPurpose>) -> Self {
        match purpose {
            Some(_) => Self::NotAdmitted,
            None => Self::Done { open: 1, responses: Vec::new() },
        }
    }
}

/// A list of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListEntry {
    /// Batches with pending or sending messages.
    Open,
    /// Batches with rejected messages or messages in doubt.
    Failed,
    /// All stored batches.
    All,
}

/// The batches of campaigns. All writes are atomic and durable when they return.
pub trait Batches: Clock {
    /// Returns a token for a claim, unique among all claims of all processes.
    fn token(&self) -> u64;

    /// Returns whether a claim can expire while its process lives.
    fn claims_run_out(&self) -> bool;

    /// Returns batches by number, `None` for one that is not stored.
    fn load(&self, id: &CampaignId, numbers: &[u32]) -> impl LedgerFuture<Vec<Option<StoredBatch>>>;

    /// Writes a change if the record is still the one that it was made from.
    ///
    /// # Errors
    ///
    /// If the campaign does not exist, or the batch is stored with different recipients.
    fn update_batch(&self, swap: BatchUpdate<'_>) -> impl LedgerFuture<CasOutcome>;

    /// Compares this worker's recent writes for a campaign with the ledger, and restores lost ones.
    ///
    /// Returns whether it did. The default is for a ledger that cannot lose writes.
    fn compare(&self, id: &CampaignId) -> impl LedgerFuture<bool> {
        let _ = id;
        std::future::ready(Ok(false))
    }

    /// Returns some of the expired claims: token and batch.
    fn due_claims(&self, id: &CampaignId) -> impl LedgerFuture<Vec<(u64, u32)>>;

    /// Deletes a claim that holds no messages.
    fn forget_claim(&self, id: &CampaignId, token: u64, batch: u32) -> impl LedgerFuture<()>;

    /// Returns the numbers of batches, ascending.
    fn listed(&self, id: &CampaignId, listed: ListEntry) -> impl LedgerFuture<Vec<u32>>;

    /// Returns the batches to requeue, each with a number that grows with each decision.
    fn replays(&self, id: &CampaignId) -> impl LedgerFuture<BTreeMap<u32, u64>>;

    /// Returns the stored values of batches' messages, by position.
    fn payloads(&self, id: &CampaignId, numbers: &[u32]) -> impl LedgerFuture<Vec<BTreeMap<u8, String>>>;

    /// Returns the stored delivery progress of batches.
    fn deliveries(&self, id: &CampaignId, numbers: &[u32]) -> impl LedgerFuture<Vec<Vec<u8>>>;
}
