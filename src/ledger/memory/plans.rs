//! Plans in memory.

use roaring::RoaringBitmap;

use super::Memory;
use crate::campaign::{CampaignId, SkipReason};
use crate::ledger::record::BatchRecord;
use crate::ledger::{Checkpoint, Clock, LedgerError, Plan, PlannedBatch, PlannedSoFar, Plans, SkippedRow};

impl Plans for Memory {
    async fn plan(&self, id: &CampaignId) -> Result<Plan, LedgerError> {
        let mut state = self.state.lock();
        let stored = state.campaign(id)?;
        let mut settled = RoaringBitmap::new();
        for (number, batch) in &stored.batches {
            if !BatchRecord::read(&batch.record, batch.recipients.len())?.is_open() {
                settled.insert(*number);
            }
        }
        Ok(Plan { checkpoint: stored.checkpoint.clone(), settled })
    }

    async fn checkpoint(
        &self,
        id: &CampaignId,
        after: u64,
        checkpoint: Checkpoint,
        batches: Vec<PlannedBatch>,
        skipped: Vec<SkippedRow>,
    ) -> Result<(), LedgerError> {
        let now = self.now();
        let mut state = self.state.lock();
        let stored = state.campaign(id)?;
        match stored.checkpoint.rows {
            known if known == after => {}
            known if known >= checkpoint.rows => return Ok(()),
            _ => return Err(LedgerError::StalePlan(id.clone())),
        }
        // No worker would send what is planned now.
        if stored.head.state.is_over() {
            return Err(LedgerError::StalePlan(id.clone()));
        }
        for batch in &batches {
            stored.plan(batch)?;
        }
        for row in skipped {
            *stored.counters.entry(("skipped", String::new())).or_default() += 1;
            *stored.counters.entry(("skipped", row.reason.as_str().into())).or_default() += 1;
            stored.skipped.push((row, now));
        }
        stored.checkpoint = checkpoint;
        Ok(())
    }

    async fn count_unplanned(
        &self,
        id: &CampaignId,
        known: PlannedSoFar,
        rows: u64,
        reason: SkipReason,
    ) -> Result<bool, LedgerError> {
        let mut state = self.state.lock();
        let stored = state.campaign(id)?;
        let batches = stored.batches.keys().next_back().map_or(0, |last| last + 1);
        if stored.checkpoint.complete || known != (PlannedSoFar { rows: stored.checkpoint.rows, batches }) {
            return Ok(false);
        }
        let count = i64::try_from(rows).unwrap_or(i64::MAX);
        *stored.counters.entry(("skipped", String::new())).or_default() += count;
        *stored.counters.entry(("skipped", reason.as_str().into())).or_default() += count;
        stored.checkpoint.complete = true;
        Ok(true)
    }
}
