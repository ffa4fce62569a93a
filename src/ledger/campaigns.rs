//! What a backend stores of campaigns: the job, the state, the counters, and the lease of the worker that leads.
//!
//! It decides nothing: the legal transitions are in `campaign/state.rs`, what else changes with them in `transitions.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::{convert::Infallible, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Breaker, Clock, DeliveryCounts, LedgerFuture};
use crate::campaign::delivery::{STEPS, StageTimings};
use crate::campaign::{CampaignId, CampaignState, Reason};

/// Time for which a worker holds the lease of a campaign after its last heartbeat.
pub const LEASE: Duration = Duration::from_secs(10);
/// Time for which a worker counts as present after its last presence heartbeat. Longer than [`LEASE`]: when others see
/// that a worker is gone, its leases have expired.
pub const PRESENCE: Duration = Duration::from_secs(12);

/// A campaign to register.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewCampaign {
    /// Its id.
    pub id: CampaignId,
    /// Whether the job contains the id; otherwise it was generated.
    pub named: bool,
    /// Its display name.
    pub name: Option<String>,
    /// Whether a job without an id may be a known campaign, found by its fingerprint.
    pub again: bool,
    /// The account that sends it.
    pub account: String,
    /// Digest of the job.
    pub fingerprint: String,
    /// The job, JSON.
    pub job: String,
    /// The audience's columns, for workers that do not have the audience.
    pub columns: Vec<String>,
    /// Digest of the audience's bytes.
    pub audience: String,
    /// Number of rows of the audience.
    pub rows: u64,
    /// Number of messages of a full batch. Stored, so that a later plan makes the same batches.
    pub batch_size: usize,
    /// Whether it is a rehearsal in a sandbox, which the real campaign replaces.
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
    /// Its display name.
    pub name: Option<String>,
    /// The account that sends it.
    pub account: String,
    /// Its state.
    pub state: CampaignState,
    /// The state that was last published as an event.
    pub published: Option<CampaignState>,
    /// Minimum number of states published: it distinguishes an event from an earlier one of the same state.
    pub announced: u64,
    /// Why it is held, or what it waits for while it runs.
    pub reason: Option<Reason>,
    /// The breaker that suspends it, if one does.
    pub suspended_by: Option<Breaker>,
    /// Numbers of messages rejected and settled before it last started to run: `stop_when` does not count them again
    /// after an operator resumed the campaign.
    pub forgiven: (u64, u64),
    /// Whether the whole audience is planned; until then `counts.total` grows.
    pub planned: bool,
    /// Messages and skipped rows by state.
    pub counts: Counts,
    /// Skipped rows by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Rejected messages by the provider's code.
    pub rejected: BTreeMap<String, u64>,
    /// Text of each code of messages rejected or not delivered.
    pub texts: BTreeMap<String, String>,
    /// Messages settled per second, over the last ten seconds.
    pub rate: f64,
    /// Accepted messages by delivery progress.
    pub delivery: DeliveryCounts,
    /// Messages not delivered, by the provider's code; `texts` has the texts.
    pub undelivered: BTreeMap<String, u64>,
    /// Duration of each delivery step.
    pub took: [StageTimings; STEPS.len()],
    /// Digest of the audience's bytes.
    pub audience: String,
    /// Number of rows of the audience.
    pub rows: u64,
    /// Number of messages of a full batch.
    pub batch_size: usize,
    /// Time of the last request to pause or cancel it, in microseconds since 1970: an earlier request does not undo it.
    /// 0 without one, and in a ledger without a queue for requests.
    pub stop_asked_at: i64,
    /// Batch number below which messages that the ledger knows as never claimed are in doubt. 0 unless the ledger lost
    /// writes and an operator decided so.
    pub doubt_below: u32,
    /// Whether it went to a sandbox.
    pub rehearsal: bool,
    /// Who submitted it; unknown for campaigns that an earlier version registered.
    pub created_by: Option<String>,
    /// When it was registered.
    pub submitted_at: Timestamp,
    /// When it first ran.
    pub started_at: Option<Timestamp>,
    /// When it completed or was cancelled.
    pub finished_at: Option<Timestamp>,
}

/// Messages by state. The total is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Counts {
    /// All planned rows.
    pub total: u64,
    /// Not sent yet.
    pub pending: u64,
    /// Claimed by a worker.
    pub sending: u64,
    /// Accepted by the provider.
    pub accepted: u64,
    /// Rejected by the provider.
    pub rejected: u64,
    /// Accepted or rejected: unknown which.
    pub in_doubt: u64,
    /// Not sent, on purpose.
    pub skipped: u64,
}

impl Counts {
    /// Returns the counts from the number of messages in each state, by its code.
    pub(super) fn from_states(count: impl Fn(&str) -> u64) -> Self {
        Self::try_from_states(|state| Ok::<_, Infallible>(count(state))).unwrap_or_default()
    }

    /// Returns the counts from the number of messages in each state, by its code, if all can be read.
    pub(super) fn try_from_states<E>(count: impl Fn(&str) -> Result<u64, E>) -> Result<Self, E> {
        let [pending, sending, accepted] = [count("pending")?, count("sending")?, count("accepted")?];
        let [rejected, in_doubt, skipped] = [count("rejected")?, count("in_doubt")?, count("skipped")?];
        let total = pending + sending + accepted + rejected + in_doubt + skipped;
        Ok(Self { total, pending, sending, accepted, rejected, in_doubt, skipped })
    }
    /// Returns the number of messages that are not settled.
    pub fn open(&self) -> u64 {
        self.pending + self.sending
    }
}

/// A campaign's registered job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredJob {
    /// The job, JSON.
    pub job: String,
    /// The audience's columns.
    pub columns: Vec<String>,
}

/// Campaigns that changed since a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CampaignChanges {
    /// The campaigns.
    pub ids: Vec<CampaignId>,
    /// The version for the next call.
    pub version: u64,
}

/// The result of a heartbeat for a campaign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Whether this worker leads the campaign: it plans, completes and publishes.
    pub leads: bool,
    /// Number of batches that all workers hold.
    pub held: u64,
    /// Writes that the ledger may have lost: nothing is sent until that is resolved.
    pub gap: Option<LostWrites>,
}

/// Recent writes that the ledger may have lost: it restarted, failed over, or was restored from a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostWrites {
    /// Last heartbeat for the campaign before that, as far as the ledger knows.
    pub from: Option<Timestamp>,
    /// When it was detected; nothing was claimed since.
    pub to: Option<Timestamp>,
    /// The workers that have not compared their journals yet: session and last heartbeat.
    pub silent: Vec<(u32, Timestamp)>,
    /// Whether the ledger was emptied while workers ran: it contains only what running workers restored.
    pub emptied: bool,
}

/// Which claims a campaign admits. It is stored with the state, so that a backend does not interpret the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimAdmission {
    All,
    Probes,
    None,
}

impl ClaimAdmission {
    pub(super) fn for_state(state: CampaignState, is_suspended: bool) -> Self {
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

/// The campaigns. All writes are atomic and durable when they return.
pub trait Campaigns: Clock {
    /// Returns whether several processes can send from this ledger.
    fn is_shared(&self) -> bool;

    /// Registers a campaign, or returns the registered one. Returns also whether it is new.
    ///
    /// A rehearsal is replaced by the real campaign with the same id. A job without an id is found by its fingerprint if
    /// `again` is set.
    ///
    /// # Errors
    ///
    /// If the id exists with different content.
    fn register(&self, new: NewCampaign) -> impl LedgerFuture<(Campaign, bool)>;

    /// Returns a campaign.
    fn campaign(&self, id: &CampaignId) -> impl LedgerFuture<Option<Campaign>>;

    /// Returns the number of open messages of a campaign; cheaper than the whole campaign.
    fn open(&self, id: &CampaignId) -> impl LedgerFuture<u64>;

    /// Returns up to `count` ids of campaigns registered before `before`, newest first.
    ///
    /// `before` includes the time of registration, in milliseconds since 1970, in case that campaign is removed: then
    /// campaigns with the same time may be returned again, and none is missed.
    fn ids_before(
        &self,
        before: Option<&(CampaignId, i64)>,
        count: usize,
    ) -> impl LedgerFuture<Vec<CampaignId>>;

    /// Returns the active campaigns that changed since version `known`; with 0 all active ones.
    ///
    /// A campaign is active until it has ended and its end is published. Unchanged campaigns cost nothing.
    fn changes(&self, known: u64) -> impl LedgerFuture<CampaignChanges>;

    /// Returns a campaign's job.
    fn job(&self, id: &CampaignId) -> impl LedgerFuture<StoredJob>;

    /// Makes a campaign active.
    fn activate(&self, id: &CampaignId) -> impl LedgerFuture<()>;

    /// Marks a campaign as changed, so that every worker reads it.
    fn touch(&self, id: &CampaignId) -> impl LedgerFuture<()>;

    /// Sends a presence heartbeat, valid for [`PRESENCE`]. Returns the sessions of all present workers.
    fn present(&self) -> impl LedgerFuture<BTreeSet<u32>>;

    /// Removes this worker from the present ones.
    fn depart(&self) -> impl LedgerFuture<()>;

    /// Writes the fields that change with a campaign's state, if the state is still `known`. Returns whether it did.
    ///
    /// The fields are the state, its reason, the breaker that suspends it, `forgiven`, `stop_asked_at`, `doubt_below`, and the
    /// times of start and end. With `settled` they are written only if the plan is complete and no message is open.
    fn swap_campaign(&self, known: CampaignState, settled: bool, after: Campaign) -> impl LedgerFuture<bool>;

    /// Records that a state was published as an event.
    fn published(&self, id: &CampaignId, state: CampaignState) -> impl LedgerFuture<()>;

    /// Sends a heartbeat for a campaign: this worker works on it and holds `held` of its batches.
    ///
    /// It is valid for [`LEASE`].
    fn heartbeat(&self, id: &CampaignId, held: u64) -> impl LedgerFuture<Lease>;

    /// Returns the writes that the ledger may have lost for a campaign, if that is unresolved.
    fn gap(&self, id: &CampaignId) -> impl LedgerFuture<Option<LostWrites>> {
        let _ = id;
        std::future::ready(Ok(None))
    }

    /// Closes a gap, after an operator decided about the messages that may have been sent in it.
    fn close_gap(&self, id: &CampaignId) -> impl LedgerFuture<()> {
        let _ = id;
        std::future::ready(Ok(()))
    }

    /// Releases this worker's lease of a campaign, and its heartbeat.
    fn release(&self, id: &CampaignId) -> impl LedgerFuture<()>;

    /// Removes a campaign.
    fn remove(&self, id: &CampaignId) -> impl LedgerFuture<()>;
}
