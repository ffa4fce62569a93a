//! A ledger in memory: for tests, and for simulations whose clock is handed in. It lasts as long as the
//! process; nothing of a real campaign is kept in it.

mod audit;
mod batches;
mod campaigns;
mod notices;
mod pages;
mod reporting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use roaring::RoaringTreemap;

use super::draft::Counter;
use super::suppression::REMEMBERED;
use super::{
    Act, Breaker, Breakers, Campaign, Checkpoint, FIRST_PROBE, LAST_PROBE, Ledger, LedgerError, NewCampaign,
    OpenBreaker, OptOut, OptOutSource, PlannedBatch, Point, SentMessages, SkippedRow, Store, StoredNotice,
    Suppress, Suppressed, Suppression, SuppressionUpdate, new_key,
};
use crate::campaign::{CampaignId, CampaignState, MessageRef, Phone};
use crate::runtime;

/// Tells the time, in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A ledger in memory, as one worker sees it. Workers that share it have each a session of their own.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Mutex<State>>,
    clock: Clock,
    session: u32,
    /// How long a claim holds.
    holds: Duration,
}

#[derive(Default)]
struct State {
    campaigns: BTreeMap<CampaignId, Stored>,
    /// Grows with everything that is told apart by its order.
    order: u64,
    tokens: u32,
    /// Those that are looked after, with the version of the last change of each.
    active: BTreeMap<CampaignId, u64>,
    version: u64,
    /// Until when which worker counts as there.
    workers: BTreeMap<u32, i64>,
    unnamed: BTreeMap<String, CampaignId>,
    breakers: BTreeMap<(String, String), Open>,
    /// The notices, by account and subject.
    notices: BTreeMap<(String, String), StoredNotice>,
    suppressed: RoaringTreemap,
    opt_outs: BTreeMap<u64, OptOut>,
    changes: Vec<(Phone, bool)>,
    callback_key: Option<String>,
    acts: Vec<Act>,
    drafts: BTreeMap<String, String>,
    ended_sessions: BTreeSet<String>,
    /// To whom messages went, by account and number, and when.
    sent: BTreeMap<(String, Phone), BTreeMap<CampaignId, (MessageRef, i64)>>,
}

struct Open {
    reason: String,
    since: i64,
    probe_at: Option<i64>,
    wait: i64,
}

/// A campaign.
struct Stored {
    new: NewCampaign,
    /// When it was registered, as a number that grows.
    order: u64,
    submitted_at: i64,
    /// What of it moves with its state.
    head: Campaign,
    published: Option<CampaignState>,
    checkpoint: Checkpoint,
    counters: BTreeMap<Counter, i64>,
    texts: BTreeMap<Counter, String>,
    skipped: Vec<(SkippedRow, i64)>,
    batches: BTreeMap<u32, KeptBatch>,
    claims: BTreeMap<(u64, u32), i64>,
    replays: BTreeMap<u32, u64>,
    /// Whether a response is still to be published.
    unpublished: BTreeSet<String>,
    workers: BTreeMap<u32, (u64, i64)>,
    leader: Option<(u32, i64)>,
    /// How many messages were settled in each second.
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
    /// An empty ledger with a clock. A claim holds for `holds`.
    pub fn new(clock: Clock, holds: Duration) -> Self {
        Self { shared: Arc::default(), clock, session: session(), holds }
    }

    /// The same ledger for another worker, or for one that has been started again.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { session: session(), ..self.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl State {
    fn touch(&mut self, id: &CampaignId) {
        self.version += 1;
        self.active.insert(id.clone(), self.version);
    }

    fn campaign(&mut self, id: &CampaignId) -> Result<&mut Stored, LedgerError> {
        self.campaigns.get_mut(id).ok_or_else(|| LedgerError::NoCampaign(id.clone()))
    }
}

impl Stored {
    /// Writes a batch down, if it is not yet.
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

    /// The counters of a kind, by word.
    fn tally(&self, kind: &str) -> BTreeMap<String, u64> {
        let of_kind =
            self.counters.iter().filter(|((of, word), count)| *of == kind && !word.is_empty() && **count > 0);
        of_kind.map(|((_, word), count)| (word.clone(), count.unsigned_abs())).collect()
    }

    fn open(&self) -> u64 {
        self.count("pending", "") + self.count("sending", "")
    }
}

/// Names a worker.
fn session() -> u32 {
    (runtime::chance() * f64::from(u32::MAX)) as u32
}

impl Store for Memory {
    fn now(&self) -> i64 {
        (self.clock)()
    }
}

impl Ledger for Memory {
    async fn callback_key(&self) -> Result<String, LedgerError> {
        Ok(self.state().callback_key.get_or_insert_with(new_key).clone())
    }
}

impl Breakers for Memory {
    async fn open_breaker(
        &self,
        breaker: &Breaker,
        reason: String,
        probes: bool,
    ) -> Result<bool, LedgerError> {
        let (now, wait) = (self.now(), FIRST_PROBE.as_millis() as i64);
        let mut state = self.state();
        let key = (breaker.account.clone(), breaker.word());
        if let Some(open) = state.breakers.get_mut(&key) {
            open.reason = reason;
            return Ok(false);
        }
        let open = Open { reason, since: now, probe_at: probes.then(|| now + wait), wait: wait * 2 };
        state.breakers.insert(key, open);
        Ok(true)
    }

    async fn breaker(&self, breaker: &Breaker) -> Result<Option<OpenBreaker>, LedgerError> {
        let now = self.now();
        let open = |open: &Open| OpenBreaker {
            reason: open.reason.clone(),
            since: jiff::Timestamp::from_millisecond(open.since).unwrap_or_default(),
            probe_at: open.probe_at.and_then(|at| jiff::Timestamp::from_millisecond(at).ok()),
            probe_is_due: open.probe_at.is_some_and(|at| at <= now),
        };
        Ok(self.state().breakers.get(&(breaker.account.clone(), breaker.word())).map(open))
    }

    async fn half_open(&self, breaker: &Breaker) -> Result<bool, LedgerError> {
        let now = self.now();
        let mut state = self.state();
        let open = state.breakers.get_mut(&(breaker.account.clone(), breaker.word()));
        let Some(open) = open.filter(|open| open.probe_at.is_some_and(|at| at <= now)) else {
            return Ok(false);
        };
        open.probe_at = Some(now + open.wait);
        open.wait = (open.wait * 2).min(LAST_PROBE.as_millis() as i64);
        Ok(true)
    }

    async fn close_breaker(&self, breaker: &Breaker) -> Result<bool, LedgerError> {
        Ok(self.state().breakers.remove(&(breaker.account.clone(), breaker.word())).is_some())
    }
}

impl Suppression for Memory {
    async fn suppress(
        &self,
        numbers: Vec<Phone>,
        how: Suppress,
        source: Option<OptOutSource>,
    ) -> Result<u64, LedgerError> {
        let added = source.map(|source| OptOut { at: self.now(), source });
        let mut state = self.state();
        let before = state.changes.len();
        for phone in numbers {
            let is_listed = how == Suppress::Add;
            let changed = match how {
                Suppress::Add => state.suppressed.insert(phone.digits()),
                Suppress::Remove => state.suppressed.remove(phone.digits()),
            };
            if changed {
                match added.clone().filter(|_| is_listed) {
                    Some(added) => state.opt_outs.insert(phone.digits(), added),
                    None if is_listed => None,
                    None => state.opt_outs.remove(&phone.digits()),
                };
                state.changes.push((phone, is_listed));
            }
        }
        Ok((state.changes.len() - before) as u64)
    }

    async fn opt_outs(&self, numbers: &[Phone]) -> Result<Vec<Option<OptOut>>, LedgerError> {
        let state = self.state();
        Ok(numbers.iter().map(|phone| state.opt_outs.get(&phone.digits()).cloned()).collect())
    }

    async fn suppressed(&self, known: u64) -> Result<Option<SuppressionUpdate>, LedgerError> {
        let state = self.state();
        let version = state.changes.len() as u64;
        if version == known {
            return Ok(None);
        }
        let since = usize::try_from(known).unwrap_or(usize::MAX);
        Ok(Some(match state.changes.get(since..) {
            Some(changes) if known > 0 && changes.len() <= REMEMBERED => {
                SuppressionUpdate::Since { version, changes: changes.to_vec() }
            }
            _ => SuppressionUpdate::Whole(Suppressed { version, numbers: state.suppressed.clone() }),
        }))
    }
}

impl SentMessages for Memory {
    async fn note_sent(
        &self,
        account: &str,
        within: Duration,
        campaign: &CampaignId,
        batch: u32,
        messages: &[(Phone, u8)],
    ) -> Result<(), LedgerError> {
        let now = self.now();
        let mut state = self.state();
        for (phone, index) in messages {
            let message = MessageRef { campaign: campaign.clone(), batch, index: *index };
            let of_number = state.sent.entry((account.to_owned(), *phone)).or_default();
            of_number.retain(|_, (_, at)| is_recent(*at, now, within));
            of_number.insert(campaign.clone(), (message, now));
        }
        Ok(())
    }

    async fn sent_to(
        &self,
        account: &str,
        within: Duration,
        phone: Phone,
    ) -> Result<Vec<MessageRef>, LedgerError> {
        let now = self.now();
        let state = self.state();
        let of_number = state.sent.get(&(account.to_owned(), phone)).into_iter().flat_map(BTreeMap::values);
        let recent = of_number.filter(|(_, at)| is_recent(*at, now, within));
        Ok(recent.map(|(message, _)| message.clone()).collect())
    }
}

fn is_recent(at: i64, now: i64, within: Duration) -> bool {
    u128::try_from(now - at).is_ok_and(|ago| ago <= within.as_millis()) || at > now
}
