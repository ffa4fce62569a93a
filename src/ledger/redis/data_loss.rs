//! Writes that Redis lost: detected, restored from journals, or reported as a gap.
//!
//! After a power loss, a failover or a restored backup, Redis has the data of an earlier time and does not report it. But
//! it has a new replication id, which identifies an epoch of the data. A campaign stores the epoch (field `history`) in
//! which all its writes are known to exist; in another epoch no claim is granted (`swap.lua`). Then:
//!
//! 1. Each worker of the campaign compares its recent writes (`journal.rs`) with Redis, restores the lost ones, and
//!    reports with its heartbeat that it is done.
//! 2. Redis always loses the most recent writes. So a journal that reaches back to the worker's last heartbeat in
//!    Redis contains every write of the worker that Redis lost.
//! 3. A worker on the same machine compares the journal of a dead worker.
//! 4. When all journals are compared, the campaign gets the new epoch and continues.
//!
//! If a journal is missing or too short, the lost writes are unknown: a gap is reported, and an operator decides.

use std::sync::{Arc, LazyLock};
use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use redis::{FromRedisValue, Value};
use tokio::time::Instant;

use super::journal::{Journal, JournalContents, JournaledCampaign};
use super::{Redis, WINDOW, layout::Keys};
use crate::campaign::CampaignId;
use crate::ledger::{
    Batches, Campaigns, Clock, LEASE, Lease, LedgerError, LostWrites, PRESENCE, PlannedBatch, claims,
};
use crate::redis_client::Script;

/// Minimum time that a new epoch waits for workers, because Redis may have lost a worker's heartbeat.
const GRACE: Duration = Duration::from_millis(2500);
/// Time for which the removal of a campaign is stored. A registration older than that is not restored.
pub(super) const FORGOTTEN: Duration = Duration::from_hours(30 * 24);

/// Returns a script that can read the server's replication epoch.
pub(super) fn script(text: &str) -> Script {
    Script::new(&format!("{}{text}", include_str!("server_history.lua")))
}

static HEARTBEAT: LazyLock<Script> = LazyLock::new(|| script(include_str!("heartbeat.lua")));
static GAP: LazyLock<Script> = LazyLock::new(|| script(include_str!("gap.lua")));
static CONFIRM: LazyLock<Script> = LazyLock::new(|| script(include_str!("confirm.lua")));

/// Epoch of campaigns that were restored after the server was emptied. No server has it, so nothing is claimed until an
/// operator decides.
const EMPTIED: &str = "emptied";
/// Time within which each worker detects that the server was emptied, by its presence heartbeat (once a second).
const DETECTION_TIME: Duration = Duration::from_secs(5);
/// Interval between checks whether another worker has restored a campaign.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What this worker knows of replication epochs.
#[derive(Default)]
pub(super) struct Reconciliation {
    /// Time until which this worker's presence entry cannot have expired, by the server's clock.
    there_until: i64,
    /// The server's epoch when it was last read.
    latest: String,
    /// Epoch for which each campaign was compared.
    campaigns: HashMap<CampaignId, String>,
    /// Time since which this worker works on each campaign.
    joined: HashMap<CampaignId, i64>,
    /// Number of campaigns compared.
    steps: u64,
    /// Time when this worker detected that the server was emptied.
    emptied_at: Option<Instant>,
}

/// The answer of a server whose epoch is not the campaign's.
#[derive(Debug)]
pub(super) struct OtherEpoch {
    epoch: String,
    /// Last heartbeat of this worker before that; 0 without one.
    own: i64,
    since: i64,
    last: i64,
    silent: Vec<(u32, i64)>,
    /// The campaign's own epoch.
    of_campaign: String,
}

impl OtherEpoch {
    fn is_of_emptied(&self) -> bool {
        self.of_campaign == EMPTIED
    }

    fn read(values: Vec<Value>) -> Result<Self, LedgerError> {
        let read = || {
            let [epoch, own, since, last, silent, of_campaign]: [Value; 6] = values.try_into().ok()?;
            Some(Self {
                epoch: String::from_redis_value(epoch).ok()?,
                own: i64::from_redis_value(own).ok()?,
                since: i64::from_redis_value(since).ok()?,
                last: i64::from_redis_value(last).ok()?,
                silent: Vec::from_redis_value(silent).ok()?,
                of_campaign: String::from_redis_value(of_campaign).ok()?,
            })
        };
        read().ok_or_else(|| LedgerError::Storage("sent an invalid answer about its epoch".into()))
    }

    pub(super) fn gap(&self) -> LostWrites {
        let time = |at: i64| Timestamp::from_millisecond(at).ok().filter(|_| at > 0);
        let silent = self.silent.iter().filter_map(|(worker, at)| Some((*worker, time(*at)?)));
        let (from, to) = (time(self.last), time(self.since));
        LostWrites { from, to, silent: silent.collect(), emptied: self.is_of_emptied() }
    }
}

impl Redis {
    /// Sends a heartbeat for a campaign, and compares this worker's journal if the epoch has changed.
    pub(super) async fn beat(&self, id: &CampaignId, held: u64) -> Result<Lease, LedgerError> {
        let now = self.now();
        self.compared.lock().joined.entry(id.clone()).or_insert(now);
        let keys = [Keys(id).campaign(), Keys(id).workers()];
        let mut was_compared = false;
        loop {
            let compared = self.compared.lock().campaigns.get(id).cloned().unwrap_or_default();
            let (lease, grace) = (LEASE.as_micros() as u64, GRACE.as_micros() as u64);
            let args = (self.session, held, lease, &compared, grace);
            let mut answer: Vec<Value> = self.client.run(&HEARTBEAT, &keys, args).await?;
            let rest = answer.split_off(answer.len().min(3));
            let head: Vec<u64> =
                answer.into_iter().filter_map(|value| u64::from_redis_value(value).ok()).collect();
            let [leads, held, is_whole] = head[..] else {
                return Err(LedgerError::Storage("sent an invalid answer to a heartbeat".into()));
            };
            let lease = Lease { leads: leads == 1, held, gap: None };
            if is_whole == 1 {
                return Ok(lease);
            }
            let other = OtherEpoch::read(rest)?;
            if !was_compared && !other.is_of_emptied() {
                was_compared = true;
                let is_news = compared != other.epoch && self.compare_with(id, &other).await?;
                if self.speak_for_dead(id, &other).await? || is_news {
                    continue;
                }
            }
            return Ok(Lease { gap: Some(other.gap()), ..lease });
        }
    }

    /// Returns the server's epoch, if it is not the campaign's.
    pub(super) async fn other_epoch(&self, id: &CampaignId) -> Result<Option<OtherEpoch>, LedgerError> {
        let keys = [Keys(id).campaign(), Keys(id).workers()];
        let answer: Vec<Value> = self.client.run(&GAP, &keys, self.session).await?;
        if answer.is_empty() { Ok(None) } else { OtherEpoch::read(answer).map(Some) }
    }

    /// Compares this worker's journal for a campaign, if the epoch has changed.
    pub(super) async fn compare_campaign(&self, id: &CampaignId) -> Result<bool, LedgerError> {
        match self.other_epoch(id).await? {
            Some(other) if !other.is_of_emptied() => self.compare_with(id, &other).await,
            _ => Ok(false),
        }
    }

    /// Applies the server's epoch: if it has changed, this worker's whole journal is compared.
    ///
    /// `was_there` is whether this worker was among the present ones, `now` the server's time. A worker whose entry
    /// disappears in the same epoch before it expires was deleted with everything else: the server was emptied.
    pub(super) async fn heed_epoch(
        &self,
        epoch: String,
        was_there: bool,
        now: i64,
    ) -> Result<(), LedgerError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let (latest, until) = {
            let mut compared = self.compared.lock();
            let until = std::mem::replace(&mut compared.there_until, now + PRESENCE.as_millis() as i64);
            (compared.latest.clone(), until)
        };
        if latest == epoch {
            return if was_there || now >= until { Ok(()) } else { self.heed_emptied(journal).await };
        }
        if !latest.is_empty() {
            tracing::warn!("Redis was restarted or failed over; comparing this worker's journal");
            // The journal is read once for all campaigns.
            let _turn = self.comparing.lock().await;
            let ids = journal.campaigns().map_err(|error| unreadable(&error))?;
            let known = self.read_journal(journal, &ids).await?;
            let dropped = known.dropped;
            for (id, campaign) in known.campaigns {
                self.compared.lock().steps += 1;
                if let Some((at, new)) = &campaign.registered
                    && *at > self.now() - FORGOTTEN.as_millis() as i64
                    && self.campaign(&id).await?.is_none()
                {
                    tracing::warn!(campaign = %id, "Redis lost the campaign; registering it again");
                    self.register_again(new, &latest).await?;
                }
                if let Some(other) = self.other_epoch(&id).await?
                    && self.compared.lock().campaigns.get(&id) != Some(&other.epoch)
                {
                    self.compare_known(&id, &other, dropped, Some(campaign)).await?;
                }
            }
        }
        self.compared.lock().latest = epoch;
        Ok(())
    }

    /// Restores what this worker knows after the server was emptied (`FLUSHALL`), and holds it.
    ///
    /// It is held because the writes of workers that have exited are unknown.
    async fn heed_emptied(&self, journal: &Journal) -> Result<(), LedgerError> {
        tracing::error!(
            "Redis was emptied while this worker ran; restoring campaigns from its journal, held until `flowcast recover`"
        );
        let _turn = self.comparing.lock().await;
        self.compared.lock().campaigns.clear();
        self.compared.lock().emptied_at = Some(Instant::now());
        let known = journal.read(&HashMap::new()).map_err(|error| unreadable(&error))?;
        let mut unregistered = Vec::new();
        for (id, campaign) in known.campaigns {
            self.compared.lock().steps += 1;
            match &campaign.registered {
                Some((at, new)) if *at > self.now() - FORGOTTEN.as_millis() as i64 => {
                    // If its job was submitted again since, it exists as if nothing had been sent.
                    self.register_again(new, EMPTIED).await?;
                    self.put_in_doubt(&id).await?;
                    self.restore(&id, Some(campaign)).await?;
                }
                _ => unregistered.push((id, campaign)),
            }
        }
        // The worker that registered such a campaign restores it when it detects the loss.
        let until = Instant::now() + DETECTION_TIME;
        while !unregistered.is_empty() {
            let mut missing = Vec::new();
            for (id, campaign) in unregistered {
                if self.campaign(&id).await?.is_some() {
                    self.put_in_doubt(&id).await?;
                    self.restore(&id, Some(campaign)).await?;
                } else {
                    missing.push((id, campaign));
                }
            }
            unregistered = missing;
            if Instant::now() > until {
                break;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        for (id, _) in unregistered {
            tracing::error!(
                campaign = %id,
                "the campaign is lost, and this worker's journal has only some of its messages; submit it under another id for \
                 recipients without a message"
            );
        }
        Ok(())
    }

    /// Waits until the other workers have detected an emptied server, too, and restored what they know.
    ///
    /// A campaign that is registered before that would be sent from the beginning, and only another worker may know it.
    pub(super) async fn wait_for_the_others(&self) {
        let emptied_at = self.compared.lock().emptied_at;
        if let Some(noticed) = emptied_at.map(|at| at + DETECTION_TIME)
            && noticed > Instant::now()
        {
            tokio::time::sleep_until(noticed).await;
        }
    }

    /// Prevents claims for a campaign until an operator decides.
    async fn put_in_doubt(&self, id: &CampaignId) -> Result<(), LedgerError> {
        self.client.command::<()>(redis::cmd("HSET").arg((Keys(id).campaign(), "history", EMPTIED))).await?;
        self.touch(id).await
    }

    /// Compares this worker's journal for a campaign. Returns whether it covers everything that may be lost.
    async fn compare_with(&self, id: &CampaignId, other: &OtherEpoch) -> Result<bool, LedgerError> {
        let Some(journal) = &self.journal else { return Ok(false) };
        // One at a time, because each reads the journal, and many campaigns may be compared concurrently.
        let _turn = self.comparing.lock().await;
        if self.compared.lock().campaigns.get(id) == Some(&other.epoch) {
            return Ok(true);
        }
        self.compared.lock().steps += 1;
        let mut known = self.read_journal(journal, std::slice::from_ref(id)).await?;
        let campaign = known.campaigns.remove(id);
        self.compare_known(id, other, known.dropped, campaign).await
    }

    /// Reads the journal, without entries of campaigns that were removed after them.
    async fn read_journal(
        &self,
        journal: &Journal,
        ids: &[CampaignId],
    ) -> Result<JournalContents, LedgerError> {
        let forgotten = self.forgotten(ids).await?;
        journal.read(&forgotten).map_err(|error| unreadable(&error))
    }

    /// Returns which campaigns were removed on purpose, and when.
    async fn forgotten(&self, ids: &[CampaignId]) -> Result<HashMap<CampaignId, i64>, LedgerError> {
        let each = stream::iter(ids.iter().cloned().map(|id| async move {
            let at: Option<i64> = self.client.command(redis::cmd("GET").arg(Keys(&id).forgotten())).await?;
            Ok::<_, LedgerError>(at.map(|at| (id, at)))
        }));
        let found: Vec<_> = each.buffer_unordered(WINDOW).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Restores a campaign's journal entries, and confirms them if the journal reaches back far enough.
    ///
    /// Entries up to `dropped` may be missing. Returns whether it reaches back.
    async fn compare_known(
        &self,
        id: &CampaignId,
        other: &OtherEpoch,
        dropped: i64,
        campaign: Option<JournaledCampaign>,
    ) -> Result<bool, LedgerError> {
        let joined = self.compared.lock().joined.get(id).copied();
        let reaches_back = match other.own {
            0 => joined.is_none_or(|joined| dropped < joined),
            own => dropped < own,
        } || dropped == 0;
        self.restore(id, campaign).await?;
        if !reaches_back {
            tracing::error!(campaign = %id, "Redis lost writes that are no longer in this worker's journal");
            return Ok(false);
        }
        self.compared.lock().campaigns.insert(id.clone(), other.epoch.clone());
        self.confirm(id, self.session, &other.epoch).await?;
        Ok(true)
    }

    /// Restores and confirms the journals of dead workers of this machine. Returns whether there was one.
    async fn speak_for_dead(&self, id: &CampaignId, other: &OtherEpoch) -> Result<bool, LedgerError> {
        let Some(journal) = &self.journal else { return Ok(false) };
        let mut has_spoken = false;
        for (session, at) in &other.silent {
            if *session == self.session {
                continue;
            }
            let forgotten = self.forgotten(std::slice::from_ref(id)).await?;
            let Some(mut known) = journal.read_dead_worker(*session, &forgotten) else { continue };
            let reaches_back = known.dropped == 0 || known.dropped < *at;
            self.restore(id, known.campaigns.remove(id)).await?;
            if reaches_back {
                tracing::info!(campaign = %id, worker = session, "compared the journal of a dead worker of this machine");
                self.confirm(id, *session, &other.epoch).await?;
                has_spoken = true;
            }
        }
        Ok(has_spoken)
    }

    async fn confirm(&self, id: &CampaignId, session: u32, epoch: &str) -> Result<(), LedgerError> {
        Ok(self.client.run(&CONFIRM, &[Keys(id).workers()], (session, epoch)).await?)
    }

    /// Restores lost writes of a campaign's batches.
    async fn restore(&self, id: &CampaignId, known: Option<JournaledCampaign>) -> Result<(), LedgerError> {
        let Some(JournaledCampaign { batches, .. }) = known else { return Ok(()) };
        let each = stream::iter(batches.into_iter().map(|(number, batch)| async move {
            let planned = match &batch.plan {
                Some(plan) => Some(PlannedBatch::read(id, number, plan)?),
                None => self.load(id, &[number]).await?.pop().flatten().map(|stored| stored.batch),
            };
            match planned {
                Some(planned) => {
                    claims::restore(self, &planned, &batch.record()?, &batch.sids, &batch.texts).await
                }
                None => Ok(0),
            }
        }));
        let restored: u64 =
            each.buffer_unordered(WINDOW).try_fold(0, |sum, one| async move { Ok(sum + one) }).await?;
        if restored > 0 {
            tracing::warn!(campaign = %id, messages = restored, "restored outcomes that Redis lost");
            metrics::counter!("flowcast_restored_messages_total").increment(restored);
        }
        Ok(())
    }

    /// Returns a number that grows while this worker retries commands or compares its journal.
    ///
    /// A loop that waits for the ledger in that time has not stalled.
    pub fn recovery_steps(&self) -> u64 {
        self.client.retries() + self.compared.lock().steps
    }

    /// Forgets a campaign that this worker released.
    pub(super) fn leave(&self, id: &CampaignId) {
        let mut compared = self.compared.lock();
        compared.joined.remove(id);
        compared.campaigns.remove(id);
    }
}

fn unreadable(error: &std::io::Error) -> LedgerError {
    LedgerError::Storage(format!("has a journal that cannot be read: {error}"))
}

/// State of comparisons, shared by the clones of a ledger.
pub(super) type SharedCompared = Arc<parking_lot::Mutex<Reconciliation>>;
