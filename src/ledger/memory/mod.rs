//! A ledger in memory, for tests and for simulations, which pass in its clock.
//!
//! It lasts as long as the process and is never used for real campaigns.

mod audit;
mod batches;
mod breakers;
mod campaigns;
mod notices;
mod pages;
mod plans;
mod reporting;
mod sent;
mod suppression;

use std::collections::{BTreeMap, BTreeSet};
use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use roaring::RoaringTreemap;

use super::{
    AuditEntry, Campaign, Checkpoint, Clock, Ledger, LedgerError, NewCampaign, OptOut, PlannedBatch, Point,
    SkippedRow, StoredNotice, change::Counter, new_key,
};
use crate::campaign::{CampaignId, CampaignState, MessageRef, Phone};
use crate::runtime;

/// Returns the time, in milliseconds since 1970.
pub type ClockFn = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A ledger in memory, as one worker sees it. Workers that share it have different sessions.
#[derive(Clone)]
pub struct Memory {
    state: Arc<Mutex<MemoryState>>,
    clock: ClockFn,
    session: u32,
    /// Validity of a claim.
    holds: Duration,
}

#[derive(Default)]
struct MemoryState {
    campaigns: BTreeMap<CampaignId, Stored>,
    /// Last number given to campaigns and replays, for their order.
    order: u64,
    tokens: u32,
    /// The active campaigns, with the version of the last change of each.
    active: BTreeMap<CampaignId, u64>,
    version: u64,
    /// The present workers, by session: until when, in milliseconds since 1970.
    workers: BTreeMap<u32, i64>,
    unnamed: BTreeMap<String, CampaignId>,
    breakers: BTreeMap<(String, String), breakers::Open>,
    /// The notices, by account and subject.
    notices: BTreeMap<(String, String), StoredNotice>,
    suppressed: RoaringTreemap,
    opt_outs: BTreeMap<u64, OptOut>,
    changes: Vec<(Phone, bool)>,
    callback_key: Option<String>,
    acts: Vec<AuditEntry>,
    drafts: BTreeMap<String, String>,
    ended_sessions: BTreeSet<String>,
    /// Recent messages by account and number, with their times.
    sent: BTreeMap<(String, Phone), BTreeMap<CampaignId, (MessageRef, i64)>>,
}

/// A campaign.
struct Stored {
    new: NewCampaign,
    /// Number that grows with each registration.
    order: u64,
    submitted_at: i64,
    /// The fields that change with its state.
    head: Campaign,
    published: Option<CampaignState>,
    checkpoint: Checkpoint,
    counters: BTreeMap<Counter, i64>,
    texts: BTreeMap<Counter, String>,
    skipped: Vec<(SkippedRow, i64)>,
    batches: BTreeMap<u32, KeptBatch>,
    claims: BTreeMap<(u64, u32), i64>,
    replays: BTreeMap<u32, u64>,
    /// Keys of the replies that are not published.
    unpublished: BTreeSet<String>,
    workers: BTreeMap<u32, (u64, i64)>,
    leader: Option<(u32, i64)>,
    /// Number of messages settled in each second.
    ticks: BTreeMap<i64, u64>,
    points: Vec<Point>,
}

#[derive(Default)]
struct KeptBatch {
    recipients: Vec<(u64, Phone)>,
    record: Vec<u8>,
    sids: BTreeMap<u8, String>,
    payloads: BTreeMap<u8, String>,
    deliveries: Vec<u8>,
    responses: BTreeMap<String, String>,
    request: Option<String>,
}

impl Memory {
    /// Returns an empty ledger with a clock. A claim is valid for `holds`.
    pub fn new(clock: ClockFn, holds: Duration) -> Self {
        Self { state: Arc::default(), clock, session: session(), holds }
    }

    /// Returns the same ledger for another worker, or for a restarted one.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { session: session(), ..self.clone() }
    }
}

impl MemoryState {
    fn touch(&mut self, id: &CampaignId) {
        self.version += 1;
        self.active.insert(id.clone(), self.version);
    }

    fn campaign(&mut self, id: &CampaignId) -> Result<&mut Stored, LedgerError> {
        self.campaigns.get_mut(id).ok_or_else(|| LedgerError::NoCampaign(id.clone()))
    }
}

impl Stored {
    /// Stores a batch, if it is not stored yet.
    fn plan(&mut self, batch: &PlannedBatch) -> Result<&mut KeptBatch, LedgerError> {
        let known = self.batches.entry(batch.number).or_insert_with(|| {
            let pending = self.counters.entry(("pending", String::new())).or_default();
            *pending += i64::try_from(batch.recipients.len()).unwrap_or_default();
            KeptBatch { recipients: batch.recipients.clone(), ..KeptBatch::default() }
        });
        if known.recipients != batch.recipients {
            return Err(LedgerError::OtherPlan(batch.campaign.clone(), batch.number));
        }
        Ok(known)
    }

    fn count(&self, kind: &str, word: &str) -> u64 {
        let count = self.counters.iter().find(|((of, its), _)| *of == kind && its == word);
        count.map_or(0, |(_, count)| u64::try_from(*count).unwrap_or_default())
    }

    /// Returns the counters of a kind, by code.
    fn tally(&self, kind: &str) -> BTreeMap<String, u64> {
        let of_kind =
            self.counters.iter().filter(|((of, word), count)| *of == kind && !word.is_empty() && **count > 0);
        of_kind.map(|((_, word), count)| (word.clone(), count.unsigned_abs())).collect()
    }

    fn open(&self) -> u64 {
        self.count("pending", "") + self.count("sending", "")
    }
}

/// Returns a new session.
fn session() -> u32 {
    (runtime::chance() * f64::from(u32::MAX)) as u32
}

impl Clock for Memory {
    fn now(&self) -> i64 {
        (self.clock)()
    }
}

impl Ledger for Memory {
    async fn callback_key(&self) -> Result<String, LedgerError> {
        Ok(self.state.lock().callback_key.get_or_insert_with(new_key).clone())
    }
}
