//! What a backend stores of a campaign's plan: its batches, its skipped rows, and the checkpoint.
//!
//! The plan is made elsewhere (`dispatch`): nothing here reads an audience.

use roaring::RoaringBitmap;

use super::{Clock, LedgerError, LedgerFuture};
use crate::campaign::{Batch, CampaignId, Phone, SkipReason};

/// How far a campaign is planned. It is never ahead of what the queue has confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Number of batches.
    pub batches: u32,
    /// Number of rows of the audience.
    pub rows: u64,
    /// Digest of everything planned so far.
    pub digest: String,
    /// Whether the plan is complete.
    pub complete: bool,
}

/// A stored plan.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Its checkpoint.
    pub checkpoint: Checkpoint,
    /// Numbers of the batches without open messages.
    pub settled: RoaringBitmap,
}

/// A row that is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedRow {
    /// The row, from 1.
    pub row: u64,
    /// The number, or the invalid text in its place.
    pub recipient: String,
    /// Why.
    pub reason: SkipReason,
    /// The reason in detail.
    pub detail: String,
}

/// A batch as the ledger stores it: its recipients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedBatch {
    /// The campaign.
    pub campaign: CampaignId,
    /// The batch's number.
    pub number: u32,
    /// Row and number of each message.
    pub recipients: Vec<(u64, Phone)>,
}

impl From<&Batch> for PlannedBatch {
    fn from(batch: &Batch) -> Self {
        Self {
            campaign: batch.campaign.clone(),
            number: batch.number,
            recipients: batch.recipients().map(|recipient| (recipient.row, recipient.phone)).collect(),
        }
    }
}

/// Length of the digest of a batch's recipients, in bytes.
pub(super) const DIGEST: usize = 8;

impl PlannedBatch {
    /// Returns a digest of the recipients.
    pub(super) fn digest(&self) -> [u8; DIGEST] {
        let mut hasher = blake3::Hasher::new();
        let mut bytes = Vec::with_capacity(self.recipients.len() * 16);
        for (row, phone) in &self.recipients {
            bytes.extend(row.to_le_bytes());
            bytes.extend(phone.digits().to_le_bytes());
        }
        let mut digest = [0; DIGEST];
        hasher.update(&bytes).finalize_xof().fill(&mut digest);
        digest
    }

    /// Returns whether all numbers are distinct. In a plan they are; a batch from a queue may contain anything.
    pub(super) fn are_distinct(&self) -> bool {
        let mut phones: Vec<Phone> = self.recipients.iter().map(|(_, phone)| *phone).collect();
        phones.sort_unstable();
        phones.is_sorted_by(|one, next| one < next)
    }

    /// Returns the recipients as bytes: the digest, then for each the difference to the previous row and the digits.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut before = 0;
        let step = |(row, phone): &(u64, Phone)| {
            (row.saturating_sub(std::mem::replace(&mut before, *row)), phone.digits())
        };
        let steps: Vec<(u64, u64)> = self.recipients.iter().map(step).collect();
        // Writing to memory cannot fail.
        postcard::to_extend(&steps, self.digest().to_vec()).unwrap_or_default()
    }

    /// Reads the recipients of a batch from bytes.
    ///
    /// # Errors
    ///
    /// If the bytes are not those of a plan.
    pub(super) fn read(campaign: &CampaignId, batch: u32, bytes: &[u8]) -> Result<Self, LedgerError> {
        let damaged = || LedgerError::Storage(format!("has a damaged plan of batch {batch} of {campaign}"));
        let steps = bytes.get(DIGEST..).ok_or_else(damaged)?;
        let steps: Vec<(u64, u64)> = postcard::from_bytes(steps).map_err(|_| damaged())?;
        let mut row = 0_u64;
        let recipient = |(step, digits): (u64, u64)| {
            row = row.checked_add(step)?;
            Some((row, Phone::from_digits(digits)?))
        };
        let recipients: Option<Vec<_>> = steps.into_iter().map(recipient).collect();
        let recipients = recipients.ok_or_else(damaged)?;
        Ok(Self { campaign: campaign.clone(), number: batch, recipients })
    }
}

/// The plans of campaigns. All writes are atomic and durable when they return.
pub trait Plans: Clock {
    /// Returns the plan of a campaign.
    fn plan(&self, id: &CampaignId) -> impl LedgerFuture<Plan>;

    /// Writes a checkpoint, with the batches and skipped rows since the checkpoint at row `after`.
    ///
    /// It is idempotent: a checkpoint that is stored already changes nothing.
    ///
    /// # Errors
    ///
    /// [`LedgerError::StalePlan`] if another planner continued from there, or the campaign has ended.
    fn checkpoint(
        &self,
        id: &CampaignId,
        after: u64,
        checkpoint: Checkpoint,
        batches: Vec<PlannedBatch>,
        skipped: Vec<SkippedRow>,
    ) -> impl LedgerFuture<()>;

    /// Counts unplanned rows as skipped and completes the plan, if it is still as far as `known`.
    ///
    /// Returns whether it did.
    fn count_unplanned(
        &self,
        id: &CampaignId,
        known: PlannedSoFar,
        rows: u64,
        reason: SkipReason,
    ) -> impl LedgerFuture<bool>;
}

/// How far a plan is: its checkpoint, and the stored batches, also those ahead of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedSoFar {
    /// Number of rows of the audience up to the checkpoint.
    pub rows: u64,
    /// Number of stored batches.
    pub batches: u32,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_plan_reads_back_as_it_was_written(
            recipients in prop::collection::vec((0..1_000_000_000_u64, 1_000_000..999_999_999_999_999_u64), 0..100),
        ) {
            let mut recipients: Vec<(u64, Phone)> = recipients
                .into_iter()
                .filter_map(|(row, digits)| Some((row, Phone::from_digits(digits)?)))
                .collect();
            recipients.sort_unstable();
            let batch = PlannedBatch { campaign: "c".parse().unwrap(), number: 7, recipients };
            prop_assert_eq!(PlannedBatch::read(&batch.campaign, 7, &batch.bytes()).unwrap(), batch);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = PlannedBatch::read(&"c".parse().unwrap(), 0, &bytes);
        }
    }
}
