//! The ledger: what became of every message.
//!
//! A message's state is written before its request (the claim) and after its answer (the record).
//! Whatever lies between the two when a worker dies is in doubt. Ledgers keep states and counts;
//! they send nothing, render nothing and know no provider.
//!
//! Both backends pass one suite (`tests/it/ledger.rs`).

mod sqlite;

use std::collections::BTreeMap;

use jiff::Timestamp;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

pub use sqlite::{Access, Sqlite};

use crate::campaign::{Batch, CampaignId, CampaignState, MessageState, Phone, SkipReason};

/// A ledger's own failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store can't be read or written. Sending stops.
    #[error("the store {0}")]
    Storage(String),
    /// There is no store to look into.
    #[error(
        "no such store: {0}; nothing was sent from here yet (--store FILE, or store.path in the configuration)"
    )]
    NoStore(String),
    /// Another process sends from this store.
    #[error("{0}")]
    InUse(String),
    /// There is no such campaign.
    #[error("there is no campaign {0}")]
    NoCampaign(CampaignId),
    /// The same id stands for another job.
    #[error(
        "campaign {0} is known with other content; a job that has changed is another campaign: give it another id"
    )]
    OtherContent(CampaignId),
    /// A rehearsal would overwrite what was really sent.
    #[error("campaign {0} has really been sent; rehearse it under another id, or with --store FILE")]
    NotARehearsal(CampaignId),
    /// A move that no campaign makes.
    #[error("campaign {id} is {from} and can't become {to}")]
    IllegalMove {
        /// The campaign.
        id: CampaignId,
        /// Its state.
        from: CampaignState,
        /// The state asked for.
        to: CampaignState,
    },
    /// A batch was planned with other recipients before.
    #[error("batch {1} of campaign {0} was planned with other recipients before")]
    OtherPlan(CampaignId, u32),
}

/// A campaign that asks to be registered.
#[derive(Clone, Debug)]
pub struct NewCampaign {
    /// Its id.
    pub id: CampaignId,
    /// Whether the job named the id, rather than being given one.
    pub named: bool,
    /// What people call it.
    pub name: Option<String>,
    /// The job's digest: the same job has the same.
    pub fingerprint: String,
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
    /// Where it stands.
    pub state: CampaignState,
    /// Why it is held, or what a running one waits for.
    pub reason: Option<String>,
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

/// Where a report goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next batch.
    batch: u32,
    /// The last row that was reported.
    row: u64,
}

/// A part of a report, in the order of the audience's rows.
#[derive(Clone, Debug, Default)]
pub struct ReportPage {
    /// Its lines.
    pub lines: Vec<ReportLine>,
    /// Where it goes on, `None` at the end.
    pub next: Option<Cursor>,
}

/// A record of every message. All writes are atomic and durable when they return.
pub trait Ledger: Clone + Send + Sync + 'static {
    /// Registers a campaign, or finds it as it is.
    ///
    /// A rehearsal gives way to the real campaign of the same id. A job without an id that is
    /// known from before is that campaign again.
    ///
    /// # Errors
    ///
    /// When the id is taken by other content.
    fn register(&self, new: NewCampaign) -> impl Future<Output = Result<Campaign, LedgerError>> + Send;

    /// A campaign, as it is now.
    fn campaign(&self, id: &CampaignId)
    -> impl Future<Output = Result<Option<Campaign>, LedgerError>> + Send;

    /// All campaigns, the newest first.
    fn campaigns(&self) -> impl Future<Output = Result<Vec<Campaign>, LedgerError>> + Send;

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

    /// What is planned already.
    fn plan(&self, id: &CampaignId) -> impl Future<Output = Result<Plan, LedgerError>> + Send;

    /// Writes down how far the plan is, with the batches and skipped rows since the last time.
    /// What is known already is not counted again.
    fn checkpoint(
        &self,
        id: &CampaignId,
        checkpoint: Checkpoint,
        batches: Vec<PlannedBatch>,
        skipped: Vec<SkippedRow>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Claims messages of a batch before their request goes out; returns those that were pending
    /// and are this caller's now. No other caller gets them until they are recorded.
    ///
    /// # Errors
    ///
    /// When the batch is known with other recipients.
    fn claim(
        &self,
        batch: PlannedBatch,
        messages: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, LedgerError>> + Send;

    /// Records what became of messages, after the answer. A move that is not legal from the state
    /// in which the message is by now changes nothing.
    fn record(
        &self,
        id: &CampaignId,
        batch: u32,
        outcomes: Vec<(u8, Outcome)>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Turns the claims of callers that are gone to in doubt, or with `resend` to pending again.
    /// Returns how many messages that were.
    fn expire_claims(
        &self,
        id: &CampaignId,
        resend: bool,
    ) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// A part of the report: a line for each message and each skipped row.
    fn report(
        &self,
        id: &CampaignId,
        from: Cursor,
    ) -> impl Future<Output = Result<ReportPage, LedgerError>> + Send;
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
