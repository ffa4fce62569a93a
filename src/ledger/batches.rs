//! The batches of a campaign: claimed before their request, recorded after its answer.
//!
//! What may become of a message is decided in `draft.rs`. A backend loads what it keeps of a batch and
//! swaps it if nobody else has; everything else stands here once, for all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use tokio::time::Instant;

use super::deliveries::{MessageReport, ReportEffect};
use super::draft::{Change, Counter, Draft, ENDED, RAN_OUT};
use super::record::BatchRecord;
use super::{LedgerError, PlannedBatch, Store};
use crate::campaign::codes::is_unsent;
use crate::campaign::{CampaignId, MessageState, SkipReason};

/// The code of messages in doubt that a person has given up. A retry takes them only by this name:
/// they may have been delivered.
pub const ABANDONED: &str = "abandoned";
/// How many batches are written at once where many are.
const WINDOW: usize = 64;
/// How many batches are read together.
pub(super) const PAGE: u32 = 100;
/// A request must begin so long before its claim runs out, its own time-out not counted.
pub(super) const MARGIN: Duration = Duration::from_secs(5);

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
    /// One of the two.
    InDoubt {
        /// What was seen instead of an answer.
        detail: String,
    },
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
            Self::InDoubt { .. } => MessageState::InDoubt,
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

/// Which messages a person decides about, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Rejected ones are sent again; with codes, those with one of them, and those that a report failed with one that
    /// says they were not sent on ([`codes::is_unsent`](crate::campaign::codes::is_unsent)).
    Retry(Vec<String>),
    /// Those in doubt are sent again.
    Resend {
        /// Since this time at the latest, in milliseconds since 1970: nobody has seen a doubt that came up later.
        until: i64,
    },
    /// Those in doubt count as rejected, under [`ABANDONED`].
    Abandon {
        /// Since this time at the latest, in milliseconds since 1970.
        until: i64,
    },
    /// Pending ones are skipped, because the campaign was cancelled.
    Cancel,
    /// Pending ones are skipped, because the campaign's `expires_at` has passed while nothing of it was sent.
    Expire,
    /// Pending ones are in doubt, because the ledger came back older than it was.
    Doubt,
}

impl Decision {
    /// Whether it is also about messages that the provider took and a report failed.
    fn is_of_unsent(&self) -> bool {
        matches!(self, Self::Retry(codes) if codes.iter().any(|code| is_unsent(code)))
    }
}

/// A batch with messages that are to be queued again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Whom it goes to.
    pub batch: PlannedBatch,
    /// When it was decided, as a number that grows.
    pub since: u64,
    /// The pending messages whose values are kept, with these.
    pub payloads: BTreeMap<u8, String>,
}

/// What a backend keeps of a batch.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// Whom it goes to.
    pub batch: PlannedBatch,
    /// What became of its messages.
    pub record: BatchRecord,
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

    /// Writes some things of a batch, together. `known` is its record, where it is known; afterwards it
    /// is what was written.
    ///
    /// # Errors
    ///
    /// As [`Batches::swap_batch`].
    fn write(
        &self,
        batch: &PlannedBatch,
        known: &mut Option<BatchRecord>,
        writes: &[BatchWrite],
    ) -> impl Future<Output = Result<Vec<Written>, LedgerError>> + Send {
        async move {
            let (mut admits, mut has_ended) = (true, false);
            // A batch that nobody has touched is the usual case; a swap finds it out where it is not.
            let mut record = known.take().unwrap_or_else(|| BatchRecord::new(batch.recipients.len()));
            let last = record.revision;
            let mut is_read = false;
            loop {
                let asked = Instant::now();
                let mut draft = Draft::new(batch, record, self.now());
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
                            let start_by = self.claims_run_out().then(|| asked + MARGIN);
                            Written::Claimed(Claim { messages, running: true, token: *token, start_by })
                        }
                        BatchWrite::Claim { token, messages, .. } => {
                            // An earlier try under this token may have been written, and is not followed by
                            // a request any more.
                            let released =
                                messages.iter().map(|message| (*message, Outcome::Released).into());
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
                    match self.swap_batch(Swap { batch, purpose, change: &change }).await? {
                        // An answer that took long may tell of a claim that is old already; asked for
                        // again under the same token, it holds anew.
                        Swapped::Done { .. }
                            if purpose.is_some() && self.claims_run_out() && asked.elapsed() >= MARGIN => {}
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
                record = self.record_of(batch).await?;
                is_read = true;
                if record.revision < last && self.compare(&batch.campaign).await? {
                    // What this worker had written was gone, and is there again.
                    record = self.record_of(batch).await?;
                }
            }
        }
    }

    /// A batch's record, as it is now.
    fn record_of(
        &self,
        batch: &PlannedBatch,
    ) -> impl Future<Output = Result<BatchRecord, LedgerError>> + Send {
        async move {
            match self.load(&batch.campaign, &[batch.number]).await?.pop().flatten() {
                Some(stored) if stored.batch == *batch => Ok(stored.record),
                Some(_) => Err(LedgerError::OtherPlan(batch.campaign.clone(), batch.number)),
                None => Ok(BatchRecord::new(batch.recipients.len())),
            }
        }
    }

    /// Claims messages of a batch before their request goes out; returns those that were pending
    /// and are this caller's now. No other caller gets them until they are recorded. A campaign
    /// that does not run grants nothing, but for a probe.
    ///
    /// # Errors
    ///
    /// When the batch is known with other recipients.
    fn claim(
        &self,
        batch: PlannedBatch,
        messages: Vec<u8>,
        purpose: Purpose,
    ) -> impl Future<Output = Result<Claim, LedgerError>> + Send {
        async move {
            let claim = BatchWrite::Claim { token: self.token(), messages, purpose };
            match self.write(&batch, &mut None, &[claim]).await?.pop() {
                Some(Written::Claimed(claim)) => Ok(claim),
                _ => Ok(Claim::default()),
            }
        }
    }

    /// Records what became of messages, after the answer. A move that is not legal from the state
    /// in which the message is by now changes nothing; a message goes back to pending only for the
    /// claim that holds it. Returns how many messages of the campaign are open.
    fn record(
        &self,
        id: &CampaignId,
        batch: u32,
        token: u64,
        outcomes: Vec<Recorded>,
    ) -> impl Future<Output = Result<u64, LedgerError>> + Send {
        async move {
            let Some(stored) = self.load(id, &[batch]).await?.pop().flatten() else { return Ok(0) };
            let record = BatchWrite::Record { token, outcomes, request: None };
            match self.write(&stored.batch, &mut Some(stored.record), &[record]).await?.pop() {
                Some(Written::Recorded(open)) => Ok(open),
                _ => Ok(0),
            }
        }
    }

    /// Turns the claims of callers that are gone to in doubt, or with `resend` to pending again.
    /// Returns how many messages that were.
    fn expire_claims(
        &self,
        id: &CampaignId,
        resend: bool,
    ) -> impl Future<Output = Result<u64, LedgerError>> + Send {
        async move {
            let why = if self.claims_run_out() { RAN_OUT } else { ENDED };
            let mut expired = 0;
            loop {
                let due = self.due_claims(id).await?;
                if due.is_empty() {
                    return Ok(expired);
                }
                for claim @ (token, batch) in due {
                    let Some(stored) = self.load(id, &[batch]).await?.pop().flatten() else {
                        self.forget_claim(id, token, batch).await?;
                        continue;
                    };
                    // Its caller may have renewed it before the record was read; if after, the swap fails.
                    if !self.due_claims(id).await?.contains(&claim) {
                        continue;
                    }
                    let mut draft = Draft::new(&stored.batch, stored.record, self.now());
                    let count = draft.expire(token, resend, why);
                    let change = draft.finish();
                    if count == 0 {
                        self.forget_claim(id, token, batch).await?;
                        continue;
                    }
                    let swap = Swap { batch: &stored.batch, purpose: None, change: &change };
                    if let Swapped::Done { .. } = self.swap_batch(swap).await? {
                        expired += count;
                    }
                }
            }
        }
    }

    /// Does what a person decided; returns for how many messages. Those that are to be sent again
    /// are pending then, and their batches among [`Batches::replay`].
    fn decide(
        &self,
        id: &CampaignId,
        decision: Decision,
    ) -> impl Future<Output = Result<u64, LedgerError>> + Send {
        async move {
            let listed = match decision {
                Decision::Cancel | Decision::Expire | Decision::Doubt => Listed::Open,
                _ if decision.is_of_unsent() => Listed::All,
                _ => Listed::Failed,
            };
            let batches = self.listed(id, listed).await?;
            let decide = batches.into_iter().map(|number| decide_batch(self, id, number, &decision));
            let window = stream::iter(decide).buffer_unordered(WINDOW);
            window.try_fold(0, |sum, done| async move { Ok(sum + done) }).await
        }
    }

    /// Batches whose messages are to be queued again, some at a time, with what is kept of them;
    /// without those that are `known` since then. They are told of until nothing of them is open.
    fn replay(
        &self,
        id: &CampaignId,
        known: BTreeMap<u32, u64>,
    ) -> impl Future<Output = Result<Vec<Replay>, LedgerError>> + Send {
        async move {
            let all = self.replays(id).await?;
            let news = all.into_iter().filter(|(number, since)| known.get(number) != Some(since));
            let wanted: Vec<(u32, u64)> = news.take(WINDOW).collect();
            let numbers: Vec<u32> = wanted.iter().map(|(number, _)| *number).collect();
            if numbers.is_empty() {
                return Ok(Vec::new());
            }
            let (stored, kept) = (self.load(id, &numbers).await?, self.payloads(id, &numbers).await?);
            let mut all = Vec::with_capacity(wanted.len());
            for (((_, since), stored), mut payloads) in wanted.into_iter().zip(stored).zip(kept) {
                let Some(StoredBatch { batch, record }) = stored else { continue };
                payloads.retain(|place, _| {
                    record.message(*place).is_some_and(|message| message.state == MessageState::Pending)
                });
                all.push(Replay { batch, since, payloads });
            }
            Ok(all)
        }
    }

    /// Takes in what reports say of a batch's messages: what became of them after the provider took
    /// them, and that it did take what is not known to be taken. In any order and repetition it ends
    /// the same. Returns what each changed, `None` of a message that there is not.
    fn apply_reports(
        &self,
        id: &CampaignId,
        batch: u32,
        reports: Vec<MessageReport>,
    ) -> impl Future<Output = Result<Vec<Option<ReportEffect>>, LedgerError>> + Send {
        async move {
            // Which report settled a message: the first that proves it, also when all is read again.
            loop {
                let numbers = [batch];
                let reading = (self.load(id, &numbers), self.deliveries(id, &numbers));
                let (stored, before) = futures_util::try_join!(reading.0, reading.1)?;
                let Some(stored) = stored.into_iter().next().flatten() else {
                    return Ok(vec![None; reports.len()]);
                };
                let before = before.into_iter().next().unwrap_or_default();
                let mut draft = Draft::new(&stored.batch, stored.record, self.now());
                let mut effects = draft.report(&reports, &before)?;
                let change = draft.finish();
                if change.is_empty() {
                    return Ok(effects);
                }
                let swap = Swap { batch: &stored.batch, purpose: None, change: &change };
                let Swapped::Done { responses, .. } = self.swap_batch(swap).await? else { continue };
                // An answer is news until others were told of it.
                let answers = effects.iter_mut().zip(&reports).filter(|(_, report)| report.is_answer());
                for (effect, is_news) in answers.filter_map(|(effect, _)| effect.as_mut()).zip(responses) {
                    effect.is_news = is_news;
                }
                return Ok(effects);
            }
        }
    }

    /// Since when the oldest message in doubt is so.
    fn oldest_doubt(
        &self,
        id: &CampaignId,
    ) -> impl Future<Output = Result<Option<Timestamp>, LedgerError>> + Send {
        async move {
            let mut oldest = None;
            for numbers in self.listed(id, Listed::Failed).await?.chunks(PAGE as usize) {
                for stored in self.load(id, numbers).await?.into_iter().flatten() {
                    let doubts = stored.record.each().filter(|(_, m)| m.state == MessageState::InDoubt);
                    oldest = oldest.into_iter().chain(doubts.map(|(_, message)| message.at)).min();
                }
            }
            Ok(oldest.and_then(|at| Timestamp::from_millisecond(at).ok()))
        }
    }
}

/// Writes again what is known of one batch and is gone: its record as it was, the SIDs of its messages by place,
/// and texts. Returns how many messages that were.
pub(super) async fn restore_batch(
    ledger: &impl Batches,
    batch: &PlannedBatch,
    known: &BatchRecord,
    sids: &BTreeMap<u8, String>,
    texts: &BTreeMap<Counter, String>,
) -> Result<u64, LedgerError> {
    loop {
        let record = ledger.record_of(batch).await?;
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

/// Does what a person decided for one batch, again as often as somebody else was quicker.
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
        let mut draft = Draft::new(&stored.batch, stored.record, ledger.now());
        let decided = draft.decide(decision) + draft.retry_unsent(decision, &known.unwrap_or_default());
        let change = draft.finish();
        let swap = Swap { batch: &stored.batch, purpose: None, change: &change };
        if change.is_empty() || matches!(ledger.swap_batch(swap).await?, Swapped::Done { .. }) {
            return Ok(decided);
        }
    }
}
