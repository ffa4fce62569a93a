//! Campaigns in memory.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Memory, Stored};
use crate::campaign::{CampaignId, CampaignState};
use crate::ledger::deliveries::{self, TOOK, UNDELIVERED};
use crate::ledger::throughput::{SECONDS, rate};
use crate::ledger::{
    Campaign, CampaignChanges, Campaigns, Checkpoint, Clock, Counts, LEASE, Lease, LedgerError, NewCampaign,
    PRESENCE, StoredJob,
};

impl Stored {
    fn new(new: NewCampaign, order: u64, now: i64) -> Self {
        let at = Timestamp::from_millisecond(now).unwrap_or_default();
        let head = Campaign {
            id: new.id.clone(),
            name: new.name.clone(),
            account: new.account.clone(),
            state: CampaignState::Scheduled,
            published: None,
            announced: 0,
            reason: None,
            suspended_by: None,
            forgiven: (0, 0),
            stop_asked_at: 0,
            planned: false,
            counts: Counts::default(),
            skipped: BTreeMap::new(),
            rejected: BTreeMap::new(),
            texts: BTreeMap::new(),
            rate: 0.0,
            delivery: deliveries::counts(|_, _| 0),
            undelivered: BTreeMap::new(),
            took: deliveries::times(std::iter::empty()),
            audience: new.audience.clone(),
            rows: new.rows,
            batch_size: new.batch_size,
            doubt_below: 0,
            rehearsal: new.rehearsal,
            created_by: Some(new.created_by.clone()),
            submitted_at: at,
            started_at: None,
            finished_at: None,
        };
        Self {
            new,
            order,
            submitted_at: now,
            head,
            published: None,
            checkpoint: Checkpoint::default(),
            counters: BTreeMap::new(),
            texts: BTreeMap::new(),
            skipped: Vec::new(),
            batches: BTreeMap::new(),
            claims: BTreeMap::new(),
            replays: BTreeMap::new(),
            unpublished: BTreeSet::new(),
            workers: BTreeMap::new(),
            leader: None,
            ticks: BTreeMap::new(),
            points: Vec::new(),
        }
    }

    fn read(&self, now: i64) -> Campaign {
        let (rejected, undelivered) = (self.tally("rejected"), self.tally(UNDELIVERED));
        let text = |kind: &'static str, code: &String| {
            let text = self.texts.get(&(kind, code.clone())).cloned().unwrap_or_default();
            (code.clone(), text)
        };
        let texts = undelivered.keys().map(|code| text(UNDELIVERED, code));
        let texts = texts.chain(rejected.keys().map(|code| text("rejected", code))).collect();
        let started_at = self.head.started_at.map_or(now, Timestamp::as_millisecond);
        let ticks = self.ticks.iter().map(|(second, count)| (*second, *count));
        let is_running = self.head.state == CampaignState::Running;
        Campaign {
            published: self.published,
            planned: self.checkpoint.complete,
            counts: Counts::from_states(|state| self.count(state, "")),
            skipped: self.tally("skipped"),
            texts,
            rejected,
            rate: if is_running { rate(ticks, started_at, now) } else { 0.0 },
            delivery: deliveries::counts(|kind, word| self.count(kind, word)),
            took: deliveries::times(self.tally(TOOK).iter().map(|(word, count)| (word.as_str(), *count))),
            undelivered,
            submitted_at: Timestamp::from_millisecond(self.submitted_at).unwrap_or_default(),
            ..self.head.clone()
        }
    }

    /// Counts messages settled now.
    pub(super) fn tick(&mut self, settled: u64, now: i64) {
        let second = now / 1000;
        self.ticks.retain(|at, _| *at > second - SECONDS);
        *self.ticks.entry(second).or_default() += settled;
    }
}

impl Campaigns for Memory {
    fn is_shared(&self) -> bool {
        true
    }

    async fn register(&self, mut new: NewCampaign) -> Result<(Campaign, bool), LedgerError> {
        let now = self.now();
        let mut state = self.state.lock();
        if !new.named {
            let known = state.unnamed.get(&new.fingerprint).cloned().filter(|_| new.again);
            new.id = known.unwrap_or(new.id);
            state.unnamed.insert(new.fingerprint.clone(), new.id.clone());
        }
        let id = new.id.clone();
        match state.campaigns.get(&id).map(|known| (known.new.rehearsal, &known.new.fingerprint)) {
            Some((true, _)) if !new.rehearsal => {
                state.campaigns.remove(&id);
            }
            Some((false, _)) if new.rehearsal => return Err(LedgerError::NotARehearsal(id)),
            Some((_, fingerprint)) if *fingerprint != new.fingerprint => {
                return Err(LedgerError::OtherContent(id));
            }
            _ => {}
        }
        state.order += 1;
        let order = state.order;
        state.touch(&id);
        let is_new = !state.campaigns.contains_key(&id);
        let stored = state.campaigns.entry(id).or_insert_with(|| Stored::new(new, order, now));
        Ok((stored.read(now), is_new))
    }

    async fn campaign(&self, id: &CampaignId) -> Result<Option<Campaign>, LedgerError> {
        let now = self.now();
        Ok(self.state.lock().campaigns.get(id).map(|stored| stored.read(now)))
    }

    async fn open(&self, id: &CampaignId) -> Result<u64, LedgerError> {
        Ok(self.state.lock().campaign(id)?.open())
    }

    async fn ids_before(
        &self,
        before: Option<&(CampaignId, i64)>,
        count: usize,
    ) -> Result<Vec<CampaignId>, LedgerError> {
        let state = self.state.lock();
        let mut all: Vec<&Stored> = state.campaigns.values().collect();
        all.sort_by_key(|stored| std::cmp::Reverse(stored.order));
        let order = before.map_or(u64::MAX, |(id, at)| match state.campaigns.get(id) {
            Some(stored) => stored.order,
            None => all.iter().find(|stored| stored.submitted_at <= *at).map_or(0, |stored| stored.order + 1),
        });
        let ids = all.into_iter().filter(|stored| stored.order < order).map(|stored| stored.new.id.clone());
        Ok(ids.take(count).collect())
    }

    async fn changes(&self, known: u64) -> Result<CampaignChanges, LedgerError> {
        let state = self.state.lock();
        let updates = state.active.iter().filter(|(_, version)| known == 0 || **version > known);
        Ok(CampaignChanges { ids: updates.map(|(id, _)| id.clone()).collect(), version: state.version })
    }

    async fn job(&self, id: &CampaignId) -> Result<StoredJob, LedgerError> {
        let mut state = self.state.lock();
        let new = &state.campaign(id)?.new;
        Ok(StoredJob { job: new.job.clone(), columns: new.columns.clone() })
    }

    async fn activate(&self, id: &CampaignId) -> Result<(), LedgerError> {
        self.state.lock().active.entry(id.clone()).or_default();
        Ok(())
    }

    async fn touch(&self, id: &CampaignId) -> Result<(), LedgerError> {
        self.state.lock().touch(id);
        Ok(())
    }

    async fn present(&self) -> Result<BTreeSet<u32>, LedgerError> {
        let (now, presence) = (self.now(), PRESENCE.as_millis() as i64);
        let mut state = self.state.lock();
        state.workers.retain(|_, until| *until > now);
        state.workers.insert(self.session, now + presence);
        Ok(state.workers.keys().copied().collect())
    }

    async fn depart(&self) -> Result<(), LedgerError> {
        self.state.lock().workers.remove(&self.session);
        Ok(())
    }

    async fn swap_campaign(
        &self,
        known: CampaignState,
        settled: bool,
        after: Campaign,
    ) -> Result<bool, LedgerError> {
        let mut state = self.state.lock();
        let stored = state.campaign(&after.id)?;
        let is_settled = stored.checkpoint.complete && stored.open() == 0;
        if stored.head.state != known || settled && !is_settled {
            return Ok(false);
        }
        stored.head = after;
        Ok(true)
    }

    async fn published(&self, id: &CampaignId, published: CampaignState) -> Result<(), LedgerError> {
        let mut state = self.state.lock();
        let stored = state.campaign(id)?;
        stored.published = Some(published);
        stored.head.announced += 1;
        if published.is_over() && stored.head.state == published {
            state.active.remove(id);
        }
        Ok(())
    }

    async fn heartbeat(&self, id: &CampaignId, held: u64) -> Result<Lease, LedgerError> {
        let (now, lease) = (self.now(), LEASE.as_millis() as i64);
        let mut state = self.state.lock();
        let Ok(stored) = state.campaign(id) else { return Ok(Lease::default()) };
        stored.workers.insert(self.session, (held, now));
        stored.workers.retain(|_, (_, at)| *at + lease >= now);
        let held = stored.workers.values().map(|(held, _)| held).sum();
        let leads = stored.leader.is_none_or(|(worker, until)| worker == self.session || until < now);
        if leads {
            stored.leader = Some((self.session, now + lease));
        }
        Ok(Lease { leads, held, gap: None })
    }

    async fn release(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let mut state = self.state.lock();
        if let Ok(stored) = state.campaign(id) {
            stored.workers.remove(&self.session);
            stored.leader = stored.leader.filter(|(worker, _)| *worker != self.session);
        }
        Ok(())
    }

    async fn remove(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let mut state = self.state.lock();
        state.campaigns.remove(id);
        state.active.remove(id);
        Ok(())
    }
}
