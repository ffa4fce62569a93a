//! Decisions of an operator about messages: retry, resend, abandon, cancel.
//!
//! A decision changes records only: `replays.rs` lists the batches to requeue.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    BatchUpdate, Batches, Campaigns, CasOutcome, Decision, LedgerError, ListEntry, PlannedSoFar, Plans,
    Reporting, batch_machine::BatchMachine, batches::WINDOW,
};
use crate::campaign::{CampaignId, SkipReason};

/// Applies a decision. Returns the number of messages that it changed.
///
/// Messages to send again become pending, and [`replays::due`](super::replays::due) returns their batches.
pub async fn decide<L: Batches>(ledger: &L, id: &CampaignId, decision: Decision) -> Result<u64, LedgerError> {
    let listed = match decision {
        Decision::Cancel | Decision::Expire | Decision::Doubt => ListEntry::Open,
        _ if decision.is_of_unsent() => ListEntry::All,
        _ => ListEntry::Failed,
    };
    let batches = ledger.listed(id, listed).await?;
    let decide = batches.into_iter().map(|number| decide_batch(ledger, id, number, &decision));
    let window = stream::iter(decide).buffer_unordered(WINDOW);
    window.try_fold(0, |sum, done| async move { Ok(sum + done) }).await
}

/// Applies a decision to one batch, until no other writer interferes.
async fn decide_batch(
    ledger: &impl Batches,
    id: &CampaignId,
    number: u32,
    decision: &Decision,
) -> Result<u64, LedgerError> {
    loop {
        let Some(stored) = ledger.load(id, &[number]).await?.pop().flatten() else { return Ok(0) };
        let known =
            if decision.is_of_unsent() { ledger.deliveries(id, &[number]).await?.pop() } else { None };
        let mut machine = BatchMachine::new(&stored.batch, stored.record, ledger.now());
        let decided = machine.decide(decision) + machine.retry_unsent(decision, &known.unwrap_or_default());
        let change = machine.finish();
        let swap = BatchUpdate { batch: &stored.batch, purpose: None, change: &change };
        if change.is_empty() || matches!(ledger.update_batch(swap).await?, CasOutcome::Done { .. }) {
            return Ok(decided);
        }
    }
}

/// Counts the unplanned rows of a campaign that has ended as skipped. Returns their number.
///
/// Their number is known from the intake. They are in no report, because they were never read. If the ledger lost
/// writes and some of the rows may have been sent, none is counted.
///
/// # Errors
///
/// If the ledger fails.
pub async fn skip_unplanned(
    ledger: &(impl Campaigns + Plans + Reporting),
    id: &CampaignId,
    reason: SkipReason,
) -> Result<u64, LedgerError> {
    loop {
        let batches = ledger.written(id).await?;
        let rows = ledger.plan(id).await?.checkpoint.rows;
        let Some(campaign) = ledger.campaign(id).await? else { return Ok(0) };
        // Some of the rows may have been sent in batches that the ledger lost.
        if campaign.planned || campaign.doubt_below > batches {
            return Ok(0);
        }
        let unplanned = campaign.rows.saturating_sub(campaign.counts.total);
        if ledger.count_unplanned(id, PlannedSoFar { rows, batches }, unplanned, reason).await? {
            return Ok(unplanned);
        }
    }
}
