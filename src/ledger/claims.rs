//! Claims: granted before a request, recorded after its response, expired when their worker is gone.
//!
//! Every write reads a batch's record, decides on it as a value (`draft.rs`), and has the backend replace it if nobody else
//! has (compare-and-swap). Nothing here sends a request or knows a backend.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::batches::MARGIN;
use super::draft::{Counter, Draft};
use super::record::BatchRecord;
use super::{Batches, LedgerError, PlannedBatch, Swap, Swapped};
use crate::campaign::{CampaignId, Doubt, DoubtCause, MessageState, SkipReason};

/// What became of a claimed message, or of a pending one that is not sent at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took it.
    Accepted {
        /// Its SID there.
        sid: String,
    },
    /// The provider refused it.
    Rejected {
        /// Its code.
        code: String,
        /// Its text; kept once a code.
        detail: String,
    },
    /// Accepted or rejected: unknown which.
    InDoubt(Doubt),
    /// Proven not taken: it may be sent again.
    Released,
    /// Never sent.
    Skipped {
        /// Why.
        reason: SkipReason,
        /// What exactly.
        detail: String,
    },
}

impl Outcome {
    /// The state it leads to.
    pub fn state(&self) -> MessageState {
        match self {
            Self::Accepted { .. } => MessageState::Accepted,
            Self::Rejected { .. } => MessageState::Rejected,
            Self::InDoubt(_) => MessageState::InDoubt,
            Self::Released => MessageState::Pending,
            Self::Skipped { .. } => MessageState::Skipped,
        }
    }
}

/// Why messages are claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To send them.
    Send,
    /// To see whether what suspends their campaign still does: granted while it is suspended.
    Probe,
}

/// Messages that a caller may send now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Their places in the batch.
    pub messages: Vec<u8>,
    /// Whether the campaign runs; if not, nothing was granted, and the batch is to be kept.
    pub running: bool,
    /// Names the claim; its outcomes are recorded under it.
    pub token: u64,
    /// The request must begin before this moment, or not at all: later the claim may have run out.
    pub start_by: Option<Instant>,
}

/// What became of a message, and what is needed to send it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the batch.
    pub message: u8,
    /// What became of it.
    pub outcome: Outcome,
    /// Its values, kept as long as it may be sent again.
    pub payload: Option<String>,
}

impl From<(u8, Outcome)> for Recorded {
    fn from((message, outcome): (u8, Outcome)) -> Self {
        Self { message, outcome, payload: None }
    }
}

/// Something that is to be written of a batch.
#[derive(Clone, Debug)]
pub enum BatchWrite {
    /// Claims messages, under a token that no other claim has.
    Claim {
        /// The token.
        token: u64,
        /// Which of them.
        messages: Vec<u8>,
        /// What for.
        purpose: Purpose,
    },
    /// Records what became of messages, under the token of their claim.
    Record {
        /// The token.
        token: u64,
        /// What became of them.
        outcomes: Vec<Recorded>,
        /// What the provider calls the request that says so.
        request: Option<String>,
    },
    /// Messages are in doubt that nobody has claimed, as far as the ledger knows: it came back older than it was.
    Doubt {
        /// Which of them.
        messages: Vec<u8>,
    },
}

/// What a write came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// What a claim was granted.
    Claimed(Claim),
    /// How many messages of the campaign are open.
    Recorded(u64),
}

/// Writes some things of a batch, together. `known` is its record, where it is known; afterwards it
/// is what was written.
///
/// # Errors
///
/// As [`Batches::swap_batch`].
pub async fn write<L: Batches>(
    ledger: &L,
    batch: &PlannedBatch,
    known: &mut Option<BatchRecord>,
    writes: &[BatchWrite],
) -> Result<Vec<Written>, LedgerError> {
    let (mut admits, mut has_ended) = (true, false);
    // A batch that nobody has touched is the usual case; a swap finds it out where it is not.
    let mut record = known.take().unwrap_or_else(|| BatchRecord::new(batch.recipients.len()));
    let last = record.revision;
    let mut is_read = false;
    loop {
        let asked = Instant::now();
        let mut draft = Draft::new(batch, record, ledger.now());
        if has_ended {
            draft = draft.of_ended();
        }
        let (mut purpose, mut written) = (None, Vec::with_capacity(writes.len()));
        for write in writes {
            written.push(match write {
                BatchWrite::Claim { token, messages, purpose: wanted } if admits => {
                    if purpose != Some(Purpose::Send) {
                        purpose = Some(*wanted);
                    }
                    let messages = draft.claim(*token, messages);
                    let start_by = ledger.claims_run_out().then(|| asked + MARGIN);
                    Written::Claimed(Claim { messages, running: true, token: *token, start_by })
                }
                BatchWrite::Claim { token, messages, .. } => {
                    // An earlier try under this token may have been written, and is not followed by
                    // a request any more.
                    let released = messages.iter().map(|message| (*message, Outcome::Released).into());
                    draft.settle(*token, &released.collect::<Vec<_>>());
                    Written::Claimed(Claim { token: *token, ..Claim::default() })
                }
                BatchWrite::Record { token, outcomes, request } => {
                    draft.settle(*token, outcomes);
                    draft.answered_by(request.as_deref());
                    Written::Recorded(0)
                }
                BatchWrite::Doubt { messages } => {
                    draft.doubt_untouched(messages);
                    Written::Recorded(0)
                }
            });
        }
        let change = draft.finish();
        // Nothing is compared where nothing is written: that there is nothing to write is judged by
        // a record that was just read.
        if change.record.is_some() || is_read {
            match ledger.swap_batch(Swap { batch, purpose, change: &change }).await? {
                // An answer that took long may tell of a claim that is old already; asked for
                // again under the same token, it holds anew.
                Swapped::Done { .. }
                    if purpose.is_some() && ledger.claims_run_out() && asked.elapsed() >= MARGIN => {}
                Swapped::Done { open, .. } => {
                    for written in &mut written {
                        if let Written::Recorded(left) = written {
                            *left = open;
                        }
                    }
                    *known = change.record;
                    return Ok(written);
                }
                Swapped::Stale => {}
                Swapped::NotAdmitted => admits = false,
                Swapped::Ended => has_ended = true,
            }
        }
        record = record_of(ledger, batch).await?;
        is_read = true;
        if record.revision < last && ledger.compare(&batch.campaign).await? {
            // What this worker had written was gone, and is there again.
            record = record_of(ledger, batch).await?;
        }
    }
}

/// A batch's record, as it is now.
pub async fn record_of<L: Batches>(ledger: &L, batch: &PlannedBatch) -> Result<BatchRecord, LedgerError> {
    match ledger.load(&batch.campaign, &[batch.number]).await?.pop().flatten() {
        Some(stored) if stored.batch == *batch => Ok(stored.record),
        Some(_) => Err(LedgerError::OtherPlan(batch.campaign.clone(), batch.number)),
        None => Ok(BatchRecord::new(batch.recipients.len())),
    }
}

/// Claims messages of a batch before their request goes out; returns those that were pending
/// and are this caller's now. No other caller gets them until they are recorded. A campaign
/// that does not run grants nothing, but for a probe.
///
/// # Errors
///
/// When the batch is known with other recipients.
pub async fn claim<L: Batches>(
    ledger: &L,
    batch: PlannedBatch,
    messages: Vec<u8>,
    purpose: Purpose,
) -> Result<Claim, LedgerError> {
    let claim = BatchWrite::Claim { token: ledger.token(), messages, purpose };
    match write(ledger, &batch, &mut None, &[claim]).await?.pop() {
        Some(Written::Claimed(claim)) => Ok(claim),
        _ => Ok(Claim::default()),
    }
}

/// Records what became of messages, after the answer. A move that is not legal from the state
/// in which the message is by now changes nothing; a message goes back to pending only for the
/// claim that holds it. Returns how many messages of the campaign are open.
pub async fn record<L: Batches>(
    ledger: &L,
    id: &CampaignId,
    batch: u32,
    token: u64,
    outcomes: Vec<Recorded>,
) -> Result<u64, LedgerError> {
    let Some(stored) = ledger.load(id, &[batch]).await?.pop().flatten() else { return Ok(0) };
    let record = BatchWrite::Record { token, outcomes, request: None };
    match write(ledger, &stored.batch, &mut Some(stored.record), &[record]).await?.pop() {
        Some(Written::Recorded(open)) => Ok(open),
        _ => Ok(0),
    }
}

/// Turns the claims of callers that are gone to in doubt, or with `resend` to pending again.
/// Returns how many messages that were.
pub async fn expire<L: Batches>(ledger: &L, id: &CampaignId, resend: bool) -> Result<u64, LedgerError> {
    // Where no claim runs out nobody else could have taken over: its caller is certainly gone.
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
            // Its caller may have renewed it before the record was read; if after, the swap fails.
            if !ledger.due_claims(id).await?.contains(&claim) {
                continue;
            }
            let mut draft = Draft::new(&stored.batch, stored.record, ledger.now());
            let count = draft.expire(token, resend, cause);
            let change = draft.finish();
            if count == 0 {
                ledger.forget_claim(id, token, batch).await?;
                continue;
            }
            let swap = Swap { batch: &stored.batch, purpose: None, change: &change };
            if let Swapped::Done { .. } = ledger.swap_batch(swap).await? {
                expired += count;
            }
        }
    }
}

/// Writes again what is known of one batch and is gone: its record as it was, the SIDs of its messages by place,
/// and texts. Returns how many messages that were.
pub(super) async fn restore(
    ledger: &impl Batches,
    batch: &PlannedBatch,
    known: &BatchRecord,
    sids: &BTreeMap<u8, String>,
    texts: &BTreeMap<Counter, String>,
) -> Result<u64, LedgerError> {
    loop {
        let record = record_of(ledger, batch).await?;
        let mut draft = Draft::new(batch, record, ledger.now());
        let restored = draft.restore(known, sids);
        let mut change = draft.finish();
        if restored == 0 {
            return Ok(0);
        }
        change.texts.extend(texts.clone());
        let swap = Swap { batch, purpose: None, change: &change };
        if let Swapped::Done { .. } = ledger.swap_batch(swap).await? {
            return Ok(restored);
        }
    }
}
