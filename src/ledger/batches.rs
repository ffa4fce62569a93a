//! What a backend stores of a campaign's batches: their records, read and replaced by compare-and-swap.
//!
//! A backend decides nothing. What may become of a message is decided in `draft.rs`; who asks for it is in `claims.rs`,
//! `decisions.rs`, `evidence.rs` and `replays.rs`, once for all backends.

use std::collections::BTreeMap;
use std::time::Duration;

use super::claims::Purpose;
use super::draft::Change;
use super::record::BatchRecord;
use super::{LedgerError, PlannedBatch, Store};
use crate::campaign::CampaignId;

/// The code of messages in doubt that a person has given up. A retry takes them only by this name:
/// they may have been delivered.
pub const ABANDONED: &str = "abandoned";
/// How many batches are written at once where many are.
pub(super) const WINDOW: usize = 64;
/// How many batches are read together.
pub(super) const PAGE: u32 = 100;
/// A request must begin so long before its claim runs out, its own time-out not counted.
pub(super) const MARGIN: Duration = Duration::from_secs(5);

/// What a backend keeps of a batch.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// Whom it goes to.
    pub batch: PlannedBatch,
    /// What became of its messages.
    pub record: BatchRecord,
}

/// What is to be swapped.
#[derive(Clone, Copy)]
pub struct Swap<'s> {
    /// The batch. It is written down where it is not known yet.
    pub(super) batch: &'s PlannedBatch,
    /// For what the campaign must admit claims, where it must.
    pub(super) purpose: Option<Purpose>,
    /// What changes.
    pub(super) change: &'s Change,
}

impl Swap<'_> {
    /// Whether it claims messages.
    #[cfg(test)]
    pub(crate) fn is_claim(&self) -> bool {
        self.purpose.is_some()
    }

    /// What it comes to: the batch, and the states of its messages.
    #[cfg(test)]
    pub(crate) fn shown(&self) -> String {
        let states = self.change.record.iter().flat_map(BatchRecord::each);
        let states: Vec<&str> = states.map(|(_, message)| message.state.as_str()).collect();
        let (batch, claims) = (self.batch, if self.is_claim() { "claims in" } else { "writes" });
        format!("{claims} batch {} of {}: {}", batch.number, batch.campaign, states.join(" "))
    }
}

/// What became of a swap.
#[derive(Debug)]
pub enum Swapped {
    /// It was written.
    Done {
        /// How many messages of the campaign are open; or more, where nothing was settled.
        open: u64,
        /// Whether others are still to be told of each response.
        responses: Vec<bool>,
    },
    /// The record is another one by now: read it again, judge anew.
    Stale,
    /// The campaign admits no claims.
    NotAdmitted,
    /// The campaign has ended, and a message would be pending again.
    Ended,
}

impl Swapped {
    /// What becomes of a swap whose batch is not written down in a campaign that is over: it stays so, because
    /// nobody would look after its messages. None of them was ever claimed, so there is nothing to record.
    pub(super) fn unplanned(purpose: Option<Purpose>) -> Self {
        match purpose {
            Some(_) => Self::NotAdmitted,
            None => Self::Done { open: 1, responses: Vec::new() },
        }
    }
}

/// Which batches are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Those with messages pending or being sent.
    Open,
    /// Those with messages rejected or in doubt.
    Failed,
    /// All that are written down.
    All,
}

/// The batches of campaigns. All writes are atomic and durable when they return.
pub trait Batches: Store {
    /// A token for a claim: no other claim has it, and no other process makes it.
    fn token(&self) -> u64;

    /// Whether a claim runs out while its caller lives.
    fn claims_run_out(&self) -> bool;

    /// What is kept of batches, by their numbers; `None` of one that is not known.
    fn load(
        &self,
        id: &CampaignId,
        numbers: &[u32],
    ) -> impl Future<Output = Result<Vec<Option<StoredBatch>>, LedgerError>> + Send;

    /// Writes a change, if the record is still the one that it was made from.
    ///
    /// # Errors
    ///
    /// When there is no such campaign, or the batch is known with other recipients.
    fn swap_batch(&self, swap: Swap<'_>) -> impl Future<Output = Result<Swapped, LedgerError>> + Send;

    /// Holds what this worker has written of a campaign lately against what is there, and writes again what is
    /// gone. Returns whether it did; a ledger that can't go back has nothing to compare.
    fn compare(&self, id: &CampaignId) -> impl Future<Output = Result<bool, LedgerError>> + Send {
        let _ = id;
        std::future::ready(Ok(false))
    }

    /// The claims whose callers are gone, some of them: token and batch.
    fn due_claims(
        &self,
        id: &CampaignId,
    ) -> impl Future<Output = Result<Vec<(u64, u32)>, LedgerError>> + Send;

    /// A claim that holds nothing any more is forgotten.
    fn forget_claim(
        &self,
        id: &CampaignId,
        token: u64,
        batch: u32,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// The numbers of batches, ascending.
    fn listed(
        &self,
        id: &CampaignId,
        listed: Listed,
    ) -> impl Future<Output = Result<Vec<u32>, LedgerError>> + Send;

    /// The batches that are to be queued again, and since when.
    fn replays(
        &self,
        id: &CampaignId,
    ) -> impl Future<Output = Result<BTreeMap<u32, u64>, LedgerError>> + Send;

    /// The values that are kept of batches.
    fn payloads(
        &self,
        id: &CampaignId,
        numbers: &[u32],
    ) -> impl Future<Output = Result<Vec<BTreeMap<u8, String>>, LedgerError>> + Send;

    /// How far the messages of batches have come, as it is kept.
    fn deliveries(
        &self,
        id: &CampaignId,
        numbers: &[u32],
    ) -> impl Future<Output = Result<Vec<Vec<u8>>, LedgerError>> + Send;
}
