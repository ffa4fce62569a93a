//! The plan of a campaign: which batches there are, and how far it is made.

use roaring::RoaringBitmap;

use super::{Campaigns, LedgerError, Reporting, Store};
use crate::campaign::{Batch, CampaignId, Phone, SkipReason};

/// How far a campaign is planned. It never runs ahead of what the queue has confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// How many batches.
    pub batches: u32,
    /// How many rows of the audience.
    pub rows: u64,
    /// A digest of everything planned so far.
    pub digest: String,
    /// Whether that is all.
    pub complete: bool,
}

/// What is already planned.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// How far.
    pub checkpoint: Checkpoint,
    /// The batches with nothing left to send.
    pub settled: RoaringBitmap,
}

/// A row that is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedRow {
    /// The row, from 1.
    pub row: u64,
    /// The number, or what stands in its place.
    pub recipient: String,
    /// Why.
    pub reason: SkipReason,
    /// What exactly.
    pub detail: String,
}

/// What the ledger must know of a batch: whom it goes to.
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

/// The digest by which a batch's recipients are known again.
pub(super) const DIGEST: usize = 8;

impl PlannedBatch {
    /// A digest of whom it goes to.
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

    /// Whether each recipient has a number of its own. So it is planned; what comes from a queue may be
    /// anything.
    pub(super) fn are_distinct(&self) -> bool {
        let mut phones: Vec<Phone> = self.recipients.iter().map(|(_, phone)| *phone).collect();
        phones.sort_unstable();
        phones.is_sorted_by(|one, next| one < next)
    }

    /// Whom it goes to, as bytes: the digest, then of each the distance of its row from the one before,
    /// and its digits.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut before = 0;
        let step = |(row, phone): &(u64, Phone)| {
            (row.saturating_sub(std::mem::replace(&mut before, *row)), phone.digits())
        };
        let steps: Vec<(u64, u64)> = self.recipients.iter().map(step).collect();
        // Writing to memory does not fail.
        postcard::to_extend(&steps, self.digest().to_vec()).unwrap_or_default()
    }

    /// The same read again.
    ///
    /// # Errors
    ///
    /// When the bytes are none of a plan.
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
pub trait Plans: Store {
    /// What is planned already.
    fn plan(&self, id: &CampaignId) -> impl Future<Output = Result<Plan, LedgerError>> + Send;

    /// Writes down how far the plan is, with the batches and skipped rows since the checkpoint at row
    /// `after`. A checkpoint that is known already changes nothing.
    ///
    /// # Errors
    ///
    /// [`LedgerError::StalePlan`] when another planner has gone on from there, or the campaign is over.
    fn checkpoint(
        &self,
        id: &CampaignId,
        after: u64,
        checkpoint: Checkpoint,
        batches: Vec<PlannedBatch>,
        skipped: Vec<SkippedRow>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Counts rows that are never planned as skipped, and the plan as complete, if it is still as far as `known`.
    /// Returns whether it did.
    fn count_unplanned(
        &self,
        id: &CampaignId,
        known: PlannedSoFar,
        rows: u64,
        reason: SkipReason,
    ) -> impl Future<Output = Result<bool, LedgerError>> + Send;
}

/// How far a plan is: its checkpoint, and the batches that are written down, also ahead of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedSoFar {
    /// Rows of the audience up to the checkpoint.
    pub rows: u64,
    /// Batches.
    pub batches: u32,
}

/// Counts the rows of a campaign that are not planned as skipped: nothing of it is sent any more, and how many rows there
/// are is known since its intake. They are in no report, for nobody has read them. Returns how many: none where some may
/// have been sent.
///
/// # Errors
///
/// The ledger's.
pub async fn skip_unplanned(
    ledger: &(impl Campaigns + Plans + Reporting),
    id: &CampaignId,
    reason: SkipReason,
) -> Result<u64, LedgerError> {
    loop {
        let batches = ledger.written(id).await?;
        let rows = ledger.plan(id).await?.checkpoint.rows;
        let Some(campaign) = ledger.campaign(id).await? else { return Ok(0) };
        // Of what a ledger has forgotten that came back older than it was, some may have been sent.
        if campaign.planned || campaign.doubt_below > batches {
            return Ok(0);
        }
        let unplanned = campaign.rows.saturating_sub(campaign.counts.total);
        if ledger.count_unplanned(id, PlannedSoFar { rows, batches }, unplanned, reason).await? {
            return Ok(unplanned);
        }
    }
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
