//! Campaigns: registered once, moved from state to state, looked after by one worker at a time.
//!
//! The legal moves are `campaign/state.rs`'s; what else changes with a move is decided here. A backend
//! keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::{Breaker, DeliveryCounts, LedgerError, Store};
use crate::campaign::delivery::{STEPS, Times};
use crate::campaign::{CampaignId, CampaignState, Reason};

/// How long a worker holds the lease of a campaign after its last heartbeat for it.
pub const LEASE: Duration = Duration::from_secs(10);
/// How long a worker counts as there after it last said so. Longer than [`LEASE`]: when others see that
/// it has gone, its leases have run out.
pub const PRESENCE: Duration = Duration::from_secs(12);

/// A campaign that asks to be registered.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
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
    /// Who submitted it.
    #[serde(default)]
    pub created_by: String,
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
    /// The state that was last published as an event.
    pub published: Option<CampaignState>,
    /// How many states were published, at the least: it tells an event of one apart from that of the same state before.
    pub announced: u64,
    /// Why it is held, or what a running one waits for.
    pub reason: Option<Reason>,
    /// The breaker that suspends it with others, where one does.
    pub suspended_by: Option<Breaker>,
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
    /// When it was last asked to be paused or cancelled, in microseconds since 1970: what was asked for before does not undo
    /// that. 0 where it never was, and where nothing is asked for by way of a queue.
    pub stop_asked_at: i64,
    /// Messages of batches below this number that nobody has claimed, as far as the ledger knows, may have been sent
    /// all the same: they are in doubt. 0 unless the ledger went back and a person said so.
    pub doubt_below: u32,
    /// Whether it went to a sandbox.
    pub rehearsal: bool,
    /// Who submitted it; not known of those that an earlier version registered.
    pub created_by: Option<String>,
    /// When it was registered.
    pub submitted_at: Timestamp,
    /// When it first ran.
    pub started_at: Option<Timestamp>,
    /// When it completed or was cancelled.
    pub finished_at: Option<Timestamp>,
}

/// How many messages are in which state. The total is always the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
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

/// What workers must look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CampaignChanges {
    /// The campaigns.
    pub ids: Vec<CampaignId>,
    /// The version to ask with next.
    pub version: u64,
}

/// What a worker learns with its heartbeat for a campaign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Whether this worker holds it: it plans, completes and publishes.
    pub leads: bool,
    /// How many batches all workers have taken and are not done with.
    pub held: u64,
    /// What the ledger may have forgotten: nothing is sent before that is clear.
    pub gap: Option<Gap>,
}

/// The ledger is another one than it was — it was started again, a replica has taken over, a backup was restored —
/// and may have forgotten the last of what it was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// When the ledger last heard of the campaign before, as it is now.
    pub from: Option<Timestamp>,
    /// When it was noticed; nothing was claimed since.
    pub to: Option<Timestamp>,
    /// The workers that have not said yet that what they have written is there: session, and when it was last heard.
    pub silent: Vec<(u32, Timestamp)>,
    /// Whether the whole ledger was emptied while workers ran: what is there is what those wrote again that still ran.
    pub emptied: bool,
}

/// For what a campaign admits claims. It is kept beside the state, so that a backend need not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admits {
    All,
    Probes,
    None,
}

impl Admits {
    pub(super) fn of(state: CampaignState, is_suspended: bool) -> Self {
        match state {
            CampaignState::Running => Self::All,
            CampaignState::Held if is_suspended => Self::Probes,
            _ => Self::None,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Probes => "probes",
            Self::None => "none",
        }
    }
}

/// The campaigns that there are. All writes are atomic and durable when they return.
pub trait Campaigns: Store {
    /// Whether another process can take over from this one while it runs.
    fn is_shared(&self) -> bool;

    /// Registers a campaign, or finds it as it is.
    ///
    /// A rehearsal gives way to the real campaign of the same id. A job without an id that may be
    /// known from before is found by its content. Returns also whether it is new.
    ///
    /// # Errors
    ///
    /// When the id is taken by other content.
    fn register(
        &self,
        new: NewCampaign,
    ) -> impl Future<Output = Result<(Campaign, bool), LedgerError>> + Send;

    /// A campaign, as it is now.
    fn campaign(&self, id: &CampaignId)
    -> impl Future<Output = Result<Option<Campaign>, LedgerError>> + Send;

    /// How many messages of a campaign are open. Cheaper than all of the campaign.
    fn open(&self, id: &CampaignId) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// The ids of campaigns, the newest first: so many of those that were registered before one. That one is
    /// named with the moment of its registration, in milliseconds since 1970, for when it is forgotten: then those
    /// of the same moment may come again, and none is left out.
    fn ids_before(
        &self,
        before: Option<&(CampaignId, i64)>,
        count: usize,
    ) -> impl Future<Output = Result<Vec<CampaignId>, LedgerError>> + Send;

    /// Which campaigns have changed since version `known`, of those that workers must look after: those
    /// that have not ended, and those whose end was not published. With 0, all of them. Costs nothing
    /// for those that have not changed.
    fn changes(&self, known: u64) -> impl Future<Output = Result<CampaignChanges, LedgerError>> + Send;

    /// A campaign's job.
    fn job(&self, id: &CampaignId) -> impl Future<Output = Result<StoredJob, LedgerError>> + Send;

    /// Puts a campaign among those that are looked after.
    fn activate(&self, id: &CampaignId) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Puts a campaign among those that have changed, so that every worker looks at it.
    fn touch(&self, id: &CampaignId) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Says that this worker is there, which counts for [`PRESENCE`], and returns the sessions of all
    /// that are.
    fn present(&self) -> impl Future<Output = Result<BTreeSet<u32>, LedgerError>> + Send;

    /// Says that this worker is gone.
    fn depart(&self) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Writes what of a campaign moves with its state — the state, its reason and what suspends it, what
    /// is forgiven, when it started and ended — if the state is still the one that is `known`; with
    /// `settled` only if it is planned to its end and has nothing open. Returns whether it did.
    fn swap_campaign(
        &self,
        known: CampaignState,
        settled: bool,
        after: Campaign,
    ) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    /// Writes down that a state was published as an event.
    fn published(
        &self,
        id: &CampaignId,
        state: CampaignState,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Says that this worker looks after a campaign and holds so many of its batches. It must be said
    /// again within [`LEASE`], or the worker counts as gone.
    fn heartbeat(
        &self,
        id: &CampaignId,
        held: u64,
    ) -> impl Future<Output = Result<Lease, LedgerError>> + Send;

    /// What the ledger may have forgotten of a campaign, as far as that is not clear yet.
    fn gap(&self, id: &CampaignId) -> impl Future<Output = Result<Option<Gap>, LedgerError>> + Send {
        let _ = id;
        std::future::ready(Ok(None))
    }

    /// The gap is closed: a person has decided what becomes of what may have been sent in it.
    fn close_gap(&self, id: &CampaignId) -> impl Future<Output = Result<(), LedgerError>> + Send {
        let _ = id;
        std::future::ready(Ok(()))
    }

    /// Says that this worker does not look after a campaign any more.
    fn release(&self, id: &CampaignId) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Forgets a campaign.
    fn remove(&self, id: &CampaignId) -> impl Future<Output = Result<(), LedgerError>> + Send;
}
