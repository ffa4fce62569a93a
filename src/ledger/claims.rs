//! Claims: granted before a request, recorded after its response, expired when their worker is gone.
//!
//! A write decides on a batch's record as a value (`batch_machine.rs`) and lets the backend replace the record by
//! compare-and-swap; on a conflict it reads the record and decides again. Nothing here sends a request or knows a backend.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{
    BatchUpdate, Batches, CasOutcome, ClaimPurpose, LedgerError, Outcome, PlannedBatch, RecordOutcome,
    batch_machine::BatchMachine, batches::MARGIN, change::Counter, record::BatchRecord,
};
use crate::campaign::{CampaignId, DoubtCause};

/// Messages that the caller may send now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Their positions in the batch.
    pub messages: Vec<u8>,
    /// Whether the campaign admits the claim; if not, nothing was granted, and the batch must be kept.
    pub running: bool,
    /// Token of the claim; the outcomes are recorded with it.
    pub token: u64,
    /// Latest start of the request: later, the claim may expire before the request's timeout.
    pub start_by: Option<Instant>,
}

/// A write to a batch.
#[derive(Clone, Debug)]
pub enum BatchWrite {
    /// Claims messages.
    Claim {
        /// A token that no other claim has.
        token: u64,
        /// Positions of the messages.
        messages: Vec<u8>,
        /// Why they are claimed.
        purpose: ClaimPurpose,
    },
    /// Records the outcomes of messages.
    Record {
        /// The token of their claim.
        token: u64,
        /// The outcomes.
        outcomes: Vec<RecordOutcome>,
        /// The provider's id of the request.
        request: Option<String>,
    },
    /// Puts messages in doubt that the ledger knows as never claimed, because it lost recent writes.
    Doubt {
        /// Positions of the messages.
        messages: Vec<u8>,
    },
}

/// The result of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The granted claim.
    Claimed(Claim),
    /// Number of open messages of the campaign.
    Recorded(u64),
}

/// Writes to a batch, several writes in one step.
///
/// `known` is the batch's record, if it is known; afterwards it is the written one.
///
/// # Errors
///
/// As [`Batches::update_batch`].
pub async fn write<L: Batches>(
    ledger: &L,
    batch: &PlannedBatch,
    known: &mut Option<BatchRecord>,
    writes: &[BatchWrite],
) -> Result<Vec<WriteOutcome>, LedgerError> {
    let (mut admits, mut has_ended) = (true, false);
    // An unchanged batch is the usual case; the compare-and-swap fails if it is not.
    let mut record = known.take().unwrap_or_else(|| BatchRecord::new(batch.recipients.len()));
    let last = record.revision;
    let mut is_read = false;
    loop {
        let asked = Instant::now();
        let mut machine = BatchMachine::new(batch, record, ledger.now());
        if has_ended {
            machine = machine.of_ended();
        }
        let (mut purpose, mut written) = (None, Vec::with_capacity(writes.len()));
        for write in writes {
            written.push(match write {
                BatchWrite::Claim { token, messages, purpose: wanted } if admits => {
                    if purpose != Some(ClaimPurpose::Send) {
                        purpose = Some(*wanted);
                    }
                    let messages = machine.claim(*token, messages);
                    let start_by = ledger.claims_run_out().then(|| asked + MARGIN);
                    WriteOutcome::Claimed(Claim { messages, running: true, token: *token, start_by })
                }
                BatchWrite::Claim { token, messages, .. } => {
                    // An earlier attempt with this token may have been written: no request follows it.
                    let released = messages.iter().map(|message| (*message, Outcome::Released).into());
                    machine.settle(*token, &released.collect::<Vec<_>>());
                    WriteOutcome::Claimed(Claim { token: *token, ..Claim::default() })
                }
                BatchWrite::Record { token, outcomes, request } => {
                    machine.settle(*token, outcomes);
                    machine.answered_by(request.as_deref());
                    WriteOutcome::Recorded(0)
                }
                BatchWrite::Doubt { messages } => {
                    machine.mark_unreported_in_doubt(messages);
                    WriteOutcome::Recorded(0)
                }
            });
        }
        let change = machine.finish();
        // Without a write nothing is compared: only a record that was just read proves that there is
        // nothing to write.
        if change.record.is_some() || is_read {
            match ledger.update_batch(BatchUpdate { batch, purpose, change: &change }).await? {
                // After a slow response the claim may be old already: claimed again with the same token, it gets
                // a new deadline.
                CasOutcome::Done { .. }
                    if purpose.is_some() && ledger.claims_run_out() && asked.elapsed() >= MARGIN => {}
                CasOutcome::Done { open, .. } => {
                    for written in &mut written {
                        if let WriteOutcome::Recorded(left) = written {
                            *left = open;
                        }
                    }
                    *known = change.record;
                    return Ok(written);
                }
                CasOutcome::Stale => {}
                CasOutcome::NotAdmitted => admits = false,
                CasOutcome::Ended => has_ended = true,
            }
        }
        record = record_of(ledger, batch).await?;
        is_read = true;
        if record.revision < last && ledger.compare(&batch.campaign).await? {
            // A write of this worker was lost, and is restored now.
            record = record_of(ledger, batch).await?;
        }
    }
}

/// Reads a batch's record.
pub async fn record_of<L: Batches>(ledger: &L, batch: &PlannedBatch) -> Result<BatchRecord, LedgerError> {
    match ledger.load(&batch.campaign, &[batch.number]).await?.pop().flatten() {
        Some(stored) if stored.batch == *batch => Ok(stored.record),
        Some(_) => Err(LedgerError::OtherPlan(batch.campaign.clone(), batch.number)),
        None => Ok(BatchRecord::new(batch.recipients.len())),
    }
}

/// Claims pending messages of a batch before their request. Returns those that were granted.
///
/// No other caller gets them until their outcomes are recorded. A campaign that does not run grants nothing, except to
/// a probe while a breaker suspends it.
///
/// # Errors
///
/// If the batch is stored with different recipients.
pub async fn claim<L: Batches>(
    ledger: &L,
    batch: PlannedBatch,
    messages: Vec<u8>,
    purpose: ClaimPurpose,
) -> Result<Claim, LedgerError> {
    let claim = BatchWrite::Claim { token: ledger.token(), messages, purpose };
    match write(ledger, &batch, &mut None, &[claim]).await?.pop() {
        Some(WriteOutcome::Claimed(claim)) => Ok(claim),
        _ => Ok(Claim::default()),
    }
}

/// Records the outcomes of messages after the response. Returns the number of open messages of the campaign.
///
/// An outcome that is illegal in the message's present state changes nothing; only the claim that holds a message can
/// make it pending again.
pub async fn record<L: Batches>(
    ledger: &L,
    id: &CampaignId,
    batch: u32,
    token: u64,
    outcomes: Vec<RecordOutcome>,
) -> Result<u64, LedgerError> {
    let Some(stored) = ledger.load(id, &[batch]).await?.pop().flatten() else { return Ok(0) };
    let record = BatchWrite::Record { token, outcomes, request: None };
    match write(ledger, &stored.batch, &mut Some(stored.record), &[record]).await?.pop() {
        Some(WriteOutcome::Recorded(open)) => Ok(open),
        _ => Ok(0),
    }
}

/// Expires claims whose deadline has passed: their messages become in doubt, or with `resend` pending.
///
/// Returns the number of messages.
pub async fn expire<L: Batches>(ledger: &L, id: &CampaignId, resend: bool) -> Result<u64, LedgerError> {
    // If claims cannot expire while their process lives, the process is certainly gone.
    let cause = if ledger.claims_run_out() { DoubtCause::ClaimExpired } else { DoubtCause::ProcessEnded };
    let mut expired = 0;
    loop {
        let due = ledger.due_claims(id).await?;
        if due.is_empty() {
            return Ok(expired);
        }
        for claim @ (token, batch) in due {
            let Some(stored) = ledger.load(id, &[batch]).await?.pop().flatten() else {
                ledger.forget_claim(id, token, batch).await?;
                continue;
            };
            // It may have been renewed before the record was read; if after, the compare-and-swap fails.
            if !ledger.due_claims(id).await?.contains(&claim) {
                continue;
            }
            let mut machine = BatchMachine::new(&stored.batch, stored.record, ledger.now());
            let count = machine.expire(token, resend, cause);
            let change = machine.finish();
            if count == 0 {
                ledger.forget_claim(id, token, batch).await?;
                continue;
            }
            let swap = BatchUpdate { batch: &stored.batch, purpose: None, change: &change };
            if let CasOutcome::Done { .. } = ledger.update_batch(swap).await? {
                expired += count;
            }
        }
    }
}

/// Restores lost writes of a batch: its record, the SIDs of its messages by position, and texts.
///
/// Returns the number of restored messages.
pub(super) async fn restore(
    ledger: &impl Batches,
    batch: &PlannedBatch,
    known: &BatchRecord,
    sids: &BTreeMap<u8, String>,
    texts: &BTreeMap<Counter, String>,
) -> Result<u64, LedgerError> {
    loop {
        let record = record_of(ledger, batch).await?;
        let mut machine = BatchMachine::new(batch, record, ledger.now());
        let restored = machine.restore(known, sids);
        let mut change = machine.finish();
        if restored == 0 {
            return Ok(0);
        }
        change.texts.extend(texts.clone());
        let swap = BatchUpdate { batch, purpose: None, change: &change };
        if let CasOutcome::Done { .. } = ledger.update_batch(swap).await? {
            return Ok(restored);
        }
    }
}
