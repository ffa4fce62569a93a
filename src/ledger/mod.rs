//! The ledger: what became of every message.
//!
//! A message's state is written before its request (the claim) and after its answer (the record).
//! Whatever lies between the two when a worker dies is in doubt. Ledgers keep states and counts;
//! they send nothing, render nothing and know no provider.
//!
//! Both backends pass one suite (`tests/it/ledger.rs`).

mod barrier;
mod deliveries;
mod error;
mod rate;
mod redis;
mod sqlite;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use roaring::{RoaringBitmap, RoaringTreemap};
use serde::{Deserialize, Serialize};

pub use self::redis::{Patience, Redis};
pub use barrier::{Barrier, FIRST_PROBE, Hold, LAST_PROBE};
pub use deliveries::{DeliveryCounts, Heard, Learnt, Response};
pub use error::LedgerError;
pub use sqlite::{Access, Sqlite};

use crate::campaign::delivery::{Progress, STEPS, Times};
use crate::campaign::{Batch, CampaignId, CampaignState, MessageState, Phone, SkipReason};

/// A campaign that asks to be registered.
#[derive(Clone, Debug)]
pub struct NewCampaign {
    /// Its id.
    pub id: CampaignId,
    /// Whether the job named the id, rather than being given one.
    pub named: bool,
    /// What people call it.
    pub name: Option<String>,
    /// Whether a campaign without a name may be one that is known: then its content finds it.
    pub again: bool,
    /// The account that sends it.
    pub account: String,
    /// The job's digest: the same job has the same.
    pub fingerprint: String,
    /// The job itself, a JSON text.
    pub job: String,
    /// The audience's columns, so that its batches can be sent where the audience is not.
    pub columns: Vec<String>,
    /// The digest of the audience's bytes.
    pub audience: String,
    /// How many rows the audience has.
    pub rows: u64,
    /// How many messages a full batch has. Fixed here, so that a later plan cuts the same batches.
    pub batch_size: usize,
    /// Whether it goes to a sandbox: a rehearsal, which the real campaign replaces.
    pub rehearsal: bool,
}

/// A campaign as the ledger knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Campaign {
    /// Its id.
    pub id: CampaignId,
    /// What people call it.
    pub name: Option<String>,
    /// The account that sends it.
    pub account: String,
    /// Where it stands.
    pub state: CampaignState,
    /// The state that was last told to others.
    pub announced: Option<CampaignState>,
    /// Why it is held, or what a running one waits for.
    pub reason: Option<String>,
    /// The barrier that holds it with others, where one does.
    pub held_by: Option<Barrier>,
    /// How many messages were rejected and settled before it last began to run: what a person has let
    /// pass is not counted against it again.
    pub forgiven: (u64, u64),
    /// Whether the whole audience is planned; until then `counts.total` still grows.
    pub planned: bool,
    /// Messages and skipped rows by state.
    pub counts: Counts,
    /// Skipped rows by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Rejected messages by the provider's code.
    pub rejected: BTreeMap<String, u64>,
    /// The text to each code of rejected messages.
    pub texts: BTreeMap<String, String>,
    /// Messages settled a second, over the last ten seconds.
    pub rate: f64,
    /// How many messages have come how far after the provider took them.
    pub delivery: DeliveryCounts,
    /// Messages that could not be delivered, by the provider's code; `texts` has the texts.
    pub undelivered: BTreeMap<String, u64>,
    /// How long each step took.
    pub took: [Times; STEPS.len()],
    /// The digest of the audience's bytes.
    pub audience: String,
    /// How many rows the audience has.
    pub rows: u64,
    /// How many messages a full batch has.
    pub batch_size: usize,
    /// Whether it went to a sandbox.
    pub rehearsal: bool,
    /// When it was registered.
    pub submitted_at: Timestamp,
    /// When it first ran.
    pub started_at: Option<Timestamp>,
    /// When it completed or was cancelled.
    pub finished_at: Option<Timestamp>,
}

/// How many messages are in which state. The total is always the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All rows so far.
    pub total: u64,
    /// Not sent yet.
    pub pending: u64,
    /// Claimed.
    pub sending: u64,
    /// Taken by the provider.
    pub accepted: u64,
    /// Refused by it.
    pub rejected: u64,
    /// One of the two.
    pub in_doubt: u64,
    /// Rows that are not sent.
    pub skipped: u64,
}

impl Counts {
    /// What is still to be done.
    pub fn open(&self) -> u64 {
        self.pending + self.sending
    }
}

/// A campaign's job as it was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredJob {
    /// The JSON text.
    pub job: String,
    /// The audience's columns.
    pub columns: Vec<String>,
}

/// What a worker learns when it says that it attends to a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attendance {
    /// Whether this worker holds the campaign's lease: it plans, completes and tells others.
    pub leads: bool,
    /// How many batches all workers hold in their hands.
    pub held: u64,
}

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
    /// To see whether what holds their campaign still does: granted while it is held.
    Probe,
}

/// Messages that a caller may send now.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Rejected ones are sent again; with codes, those with one of them.
    Retry(Vec<String>),
    /// Those that have been in doubt for so long are sent again.
    Resend {
        /// For how long at the least.
        older_than: Duration,
    },
    /// Those that have been in doubt for so long count as rejected, under [`ABANDONED`].
    Abandon {
        /// For how long at the least.
        older_than: Duration,
    },
    /// Pending ones are skipped, because the campaign was cancelled.
    Cancel,
}

impl Decision {
    /// How long ago a message must have changed.
    fn older_than(&self) -> Duration {
        match self {
            Self::Resend { older_than } | Self::Abandon { older_than } => *older_than,
            Self::Retry(_) | Self::Cancel => Duration::ZERO,
        }
    }
}

/// Whether numbers are put on the list of those that must never be messaged, or taken off it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suppress {
    /// Put on it.
    Add,
    /// Taken off it.
    Remove,
}

/// The numbers that must never be messaged.
#[derive(Clone, Debug, Default)]
pub struct Suppressed {
    /// Grows with each change.
    pub version: u64,
    /// Their digits.
    pub numbers: RoaringTreemap,
}

impl Suppressed {
    /// Whether a number is one of them.
    pub fn contains(&self, phone: Phone) -> bool {
        self.numbers.contains(phone.digits())
    }
}

/// The code of messages in doubt that a person has given up. A retry takes them only by this name:
/// they may have been delivered.
pub const ABANDONED: &str = "abandoned";

/// What is said of [`ABANDONED`] messages.
const ABANDONED_TEXT: &str = "was in doubt, and a person gave it up; it may have been delivered";

/// The code of people who get enough marketing already. For so long it would be refused again, so a
/// retry takes such messages then only by this name.
const RESTING: (&str, Duration) = ("131049", Duration::from_hours(24));

/// Whether a retry of these codes takes a message that was rejected with `code` so long ago.
fn is_retried(code: &str, ago: Duration, codes: &[String]) -> bool {
    if codes.is_empty() {
        code != ABANDONED && (code != RESTING.0 || ago >= RESTING.1)
    } else {
        codes.iter().any(|wanted| wanted == code)
    }
}

/// A batch with messages that are to be queued again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Again {
    /// Whom it goes to.
    pub batch: PlannedBatch,
    /// When it was decided, as a number that grows.
    pub since: u64,
    /// The pending messages whose values are kept, with these.
    pub payloads: BTreeMap<u8, String>,
}

/// A line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportLine {
    /// The number; of a skipped row what stands in its place.
    pub recipient: String,
    /// The row of the audience, from 1.
    pub row: u64,
    /// The batch, where it is in one.
    pub batch: Option<u32>,
    /// The state.
    pub state: MessageState,
    /// The provider's id of the message.
    pub sid: Option<String>,
    /// The provider's code, or the reason of a skipped row.
    pub code: Option<String>,
    /// The text to the code.
    pub detail: Option<String>,
    /// How often it was claimed.
    pub attempts: u32,
    /// What the delivery reports say.
    pub delivery: Option<String>,
    /// The last change.
    pub updated_at: Option<Timestamp>,
}

impl ReportLine {
    /// Adds what reports say of the message.
    fn deliver(&mut self, progress: &Progress, text: impl Fn(&str) -> Option<String>) {
        self.delivery = progress.state.map(|state| state.as_str().to_owned());
        if let Some(code) = progress.failure() {
            self.code = Some(code.to_owned()).filter(|code| !code.is_empty());
            self.detail = text(code).filter(|text| !text.is_empty());
        }
    }
}

/// Where a report goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next batch.
    batch: u32,
    /// The last row that was reported.
    row: u64,
    /// The next skipped row, in the order in which they were planned.
    skipped: u64,
}

/// A part of a report, in the order of the audience's rows.
#[derive(Clone, Debug, Default)]
pub struct ReportPage {
    /// Its lines.
    pub lines: Vec<ReportLine>,
    /// Where it goes on, `None` at the end.
    pub next: Option<Cursor>,
}

/// A part of what people answered, in the order of the audience's rows.
#[derive(Clone, Debug, Default)]
pub struct ResponsePage {
    /// The answers.
    pub responses: Vec<Response>,
    /// The batch from which it goes on, `None` at the end.
    pub next: Option<u32>,
}

/// A new key for callbacks: 32 random bytes in hexadecimal digits.
fn new_key() -> String {
    rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A record of every message. All writes are atomic and durable when they return.
pub trait Ledger: Clone + Send + Sync + 'static {
    /// Whether another process can take over from this one while it runs.
    const SHARED: bool;

    /// Registers a campaign, or finds it as it is.
    ///
    /// A rehearsal gives way to the real campaign of the same id. A job without an id that may be
    /// known from before is found by its content.
    ///
    /// # Errors
    ///
    /// When the id is taken by other content.
    fn register(&self, new: NewCampaign) -> impl Future<Output = Result<Campaign, LedgerError>> + Send;

    /// A campaign, as it is now.
    fn campaign(&self, id: &CampaignId)
    -> impl Future<Output = Result<Option<Campaign>, LedgerError>> + Send;

    /// How many messages of a campaign are open. Cheaper than all of the campaign.
    fn open(&self, id: &CampaignId) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// All campaigns, the newest first.
    fn campaigns(&self) -> impl Future<Output = Result<Vec<Campaign>, LedgerError>> + Send;

    /// The campaigns that a worker must look after: those that have not ended, and those whose end
    /// nobody was told of.
    fn active(&self) -> impl Future<Output = Result<Vec<CampaignId>, LedgerError>> + Send;

    /// A campaign's job.
    fn job(&self, id: &CampaignId) -> impl Future<Output = Result<StoredJob, LedgerError>> + Send;

    /// Moves a campaign to another state; to its own state it only changes the reason.
    ///
    /// # Errors
    ///
    /// When that is no legal move.
    fn change_state(
        &self,
        id: &CampaignId,
        to: CampaignState,
        reason: Option<String>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Says what a running campaign waits for. One that does not run by now keeps its reason.
    fn note(
        &self,
        id: &CampaignId,
        note: Option<String>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Completes a running campaign that is planned to its end and has nothing open. Returns whether
    /// it did.
    fn complete(&self, id: &CampaignId) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    /// Writes down that others were told of a state.
    fn announced(
        &self,
        id: &CampaignId,
        state: CampaignState,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Says that this worker attends to a campaign and holds so many of its batches. It must be said
    /// again within [`ATTENTION`], or the worker counts as gone.
    fn attend(
        &self,
        id: &CampaignId,
        held: u64,
    ) -> impl Future<Output = Result<Attendance, LedgerError>> + Send;

    /// Says that this worker does not attend to a campaign any more.
    fn leave(&self, id: &CampaignId) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// What is planned already.
    fn plan(&self, id: &CampaignId) -> impl Future<Output = Result<Plan, LedgerError>> + Send;

    /// Writes down how far the plan is, with the batches and skipped rows since the checkpoint at row
    /// `after`. A checkpoint that is known already changes nothing.
    ///
    /// # Errors
    ///
    /// [`LedgerError::StalePlan`] when another planner has gone on from there.
    fn checkpoint(
        &self,
        id: &CampaignId,
        after: u64,
        checkpoint: Checkpoint,
        batches: Vec<PlannedBatch>,
        skipped: Vec<SkippedRow>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Holds a campaign that runs, together with others, until its barrier is up again.
    fn hold_back(
        &self,
        id: &CampaignId,
        barrier: &Barrier,
        reason: String,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Lets a barrier down, or says why one that is down still is. With `probes` it is tried again by
    /// itself. Returns whether it was up.
    fn close(
        &self,
        barrier: &Barrier,
        reason: String,
        probes: bool,
    ) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    /// Why a barrier is down, if it is.
    fn hold(&self, barrier: &Barrier) -> impl Future<Output = Result<Option<Hold>, LedgerError>> + Send;

    /// Takes the turn to try whether a barrier must still be down; the next comes after twice the time.
    /// Only one caller gets it.
    fn probe(&self, barrier: &Barrier) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    /// Lifts a barrier. Returns whether it was down.
    fn lift(&self, barrier: &Barrier) -> impl Future<Output = Result<bool, LedgerError>> + Send;

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
    ) -> impl Future<Output = Result<Claim, LedgerError>> + Send;

    /// Records what became of messages, after the answer. A move that is not legal from the state
    /// in which the message is by now changes nothing; a message goes back to pending only for the
    /// claim that holds it. Returns how many messages of the campaign are open.
    fn record(
        &self,
        id: &CampaignId,
        batch: u32,
        token: u64,
        outcomes: Vec<Recorded>,
    ) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// Turns the claims of callers that are gone to in doubt, or with `resend` to pending again.
    /// Returns how many messages that were.
    fn expire_claims(
        &self,
        id: &CampaignId,
        resend: bool,
    ) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// Does what a person decided; returns for how many messages. Those that are to be sent again
    /// are pending then, and their batches among [`Ledger::again`].
    fn decide(
        &self,
        id: &CampaignId,
        decision: Decision,
    ) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// Batches whose messages are to be queued again, some at a time, with what is kept of them;
    /// without those that are `known` since then. They are told of until nothing of them is open.
    fn again(
        &self,
        id: &CampaignId,
        known: BTreeMap<u32, u64>,
    ) -> impl Future<Output = Result<Vec<Again>, LedgerError>> + Send;

    /// Takes in what reports say of a batch's messages: what became of them after the provider took
    /// them, and that it did take what is not known to be taken. In any order and repetition it ends
    /// the same. Returns what was learnt of each, `None` of a message that there is not.
    fn hear(
        &self,
        id: &CampaignId,
        batch: u32,
        heard: Vec<Heard>,
    ) -> impl Future<Output = Result<Vec<Option<Learnt>>, LedgerError>> + Send;

    /// Others were told of an answer to a message of a batch, by its key: from now on it is no news.
    fn told(
        &self,
        id: &CampaignId,
        batch: u32,
        answer: String,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// A part of what people answered, from a batch on.
    fn responses(
        &self,
        id: &CampaignId,
        from: u32,
    ) -> impl Future<Output = Result<ResponsePage, LedgerError>> + Send;

    /// Since when the oldest message in doubt is so.
    fn oldest_doubt(
        &self,
        id: &CampaignId,
    ) -> impl Future<Output = Result<Option<Timestamp>, LedgerError>> + Send;

    /// Writes down what a person decided, in words.
    fn decided(&self, id: &CampaignId, line: String) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// What people decided, the first first.
    fn decisions(&self, id: &CampaignId) -> impl Future<Output = Result<Vec<String>, LedgerError>> + Send;

    /// Changes the list of numbers that must never be messaged. Returns how many were changed.
    fn suppress(
        &self,
        numbers: Vec<Phone>,
        how: Suppress,
    ) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// The numbers that must never be messaged, if they have changed since version `known` (0 for
    /// none).
    fn suppressed(&self, known: u64) -> impl Future<Output = Result<Option<Suppressed>, LedgerError>> + Send;

    /// The key that seals the addresses of reports where none is configured: made when it is first asked
    /// for, the same for all workers ever after.
    fn callback_key(&self) -> impl Future<Output = Result<String, LedgerError>> + Send;

    /// Forgets a campaign.
    fn remove(&self, id: &CampaignId) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// A part of the report: a line for each message and each skipped row.
    fn report(
        &self,
        id: &CampaignId,
        from: Cursor,
    ) -> impl Future<Output = Result<ReportPage, LedgerError>> + Send;
}

/// How long a worker counts as there after it last said so.
pub const ATTENTION: Duration = Duration::from_secs(10);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_leaves_out_who_would_refuse_it_again() {
        let hours = |count| Duration::from_hours(count);
        assert!(is_retried("400", hours(0), &[]));
        assert!(!is_retried("131049", hours(23), &[]) && is_retried("131049", hours(24), &[]));
        assert!(!is_retried(ABANDONED, hours(99), &[]));
        let named = ["131049".to_string()];
        assert!(is_retried("131049", hours(0), &named) && !is_retried("400", hours(0), &named));
    }
}
