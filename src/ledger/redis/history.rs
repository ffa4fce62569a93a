//! What Redis has forgotten: found, written again, or reported.
//!
//! A Redis that loses power, whose replica takes over, or that is restored from a backup comes back with data of an
//! earlier moment, and says nothing of it. But its replication id is another one then: it names a history of the
//! data. A campaign names the history in which all that was written of it is known to be there; in another one no
//! claim is granted (`swap.lua`). Each worker that looks after the campaign compares what it has written lately
//! (`journal.rs`), writes again what is gone, and says so with its heartbeat. When all have, the campaign goes on.
//! What is forgotten is always the last of what was written, so a worker whose journal reaches back to its last
//! heartbeat that is there knows all that it has lost. A worker that has died is spoken for by those on its machine.
//! Where nobody knows, this says so, and decides nothing.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use redis::{FromRedisValue, Value};
use tokio::time::Instant;

use super::journal::{Journal, Known, KnownCampaign};
use super::layout::Keys;
use super::{Redis, WINDOW};
use crate::campaign::{CampaignId, counted};
use crate::ledger::{
    Batches, Campaigns, Gap, LEASE, Lease, LedgerError, PRESENCE, PlannedBatch, Store, claims,
};
use crate::redis_client::{Arg, Script};

/// For how long a new history waits for workers at least: for one that was there and that it has forgotten.
const GRACE: Duration = Duration::from_millis(2500);
/// For how long it is known that a campaign was forgotten on purpose. What a worker registered longer ago is not
/// registered again.
pub(super) const FORGOTTEN: Duration = Duration::from_hours(30 * 24);

/// A script that asks for the history of the server's data.
pub(super) fn script(text: &str) -> Script {
    Script::new(&format!("{}{text}", include_str!("server_history.lua")))
}

static HEARTBEAT: LazyLock<Script> = LazyLock::new(|| script(include_str!("heartbeat.lua")));
static GAP: LazyLock<Script> = LazyLock::new(|| script(include_str!("gap.lua")));
static CONFIRM: LazyLock<Script> = LazyLock::new(|| script(include_str!("confirm.lua")));
static CLOSE_GAP: LazyLock<Script> = LazyLock::new(|| script(include_str!("close_gap.lua")));

/// The history of campaigns that were written again into a server which somebody had emptied. No server has it, so
/// nothing of them is claimed until a person has decided.
const EMPTIED: &str = "emptied";
/// Within this time each worker notices that the server was emptied: it says once a second that it is there.
const NOTICED: Duration = Duration::from_secs(5);
/// How often it is looked whether another worker has written a campaign.
const LOOK: Duration = Duration::from_millis(100);

/// What this worker knows of histories.
#[derive(Default)]
pub(super) struct Compared {
    /// Until when this worker counts as there, by the server's clock: so long its entry can't have run out.
    there_until: i64,
    /// Of which history the data were when they were last asked for it.
    latest: String,
    /// For which history the data of campaigns were compared.
    campaigns: HashMap<CampaignId, String>,
    /// Since when this worker looks after campaigns.
    joined: HashMap<CampaignId, i64>,
    /// How many campaigns were looked at to compare them.
    steps: u64,
    /// When this worker noticed that the server was emptied.
    emptied_at: Option<Instant>,
}

/// What a server says of a history that is not the campaign's.
#[derive(Debug)]
struct OtherHistory {
    history: String,
    /// When this worker was last heard before; 0 is never.
    own: i64,
    since: i64,
    last: i64,
    silent: Vec<(u32, i64)>,
    /// The campaign's own history.
    campaigns: String,
}

impl OtherHistory {
    fn is_of_emptied(&self) -> bool {
        self.campaigns == EMPTIED
    }

    fn read(values: Vec<Value>) -> Result<Self, LedgerError> {
        let read = || {
            let [history, own, since, last, silent, campaigns]: [Value; 6] = values.try_into().ok()?;
            Some(Self {
                history: String::from_redis_value(history).ok()?,
                own: i64::from_redis_value(own).ok()?,
                since: i64::from_redis_value(since).ok()?,
                last: i64::from_redis_value(last).ok()?,
                silent: Vec::from_redis_value(silent).ok()?,
                campaigns: String::from_redis_value(campaigns).ok()?,
            })
        };
        read().ok_or_else(|| LedgerError::Storage("answered something else about its history".into()))
    }

    fn gap(&self) -> Gap {
        let time = |at: i64| Timestamp::from_millisecond(at).ok().filter(|_| at > 0);
        let silent = self.silent.iter().filter_map(|(worker, at)| Some((*worker, time(*at)?)));
        let (from, to) = (time(self.last), time(self.since));
        Gap { from, to, silent: silent.collect(), emptied: self.is_of_emptied() }
    }
}

impl Redis {
    /// Says that this worker looks after a campaign; compares first what must be compared.
    pub(super) async fn beat(&self, id: &CampaignId, held: u64) -> Result<Lease, LedgerError> {
        let now = self.now();
        self.compared().joined.entry(id.clone()).or_insert(now);
        let (session, keys) = (self.session.to_string(), [Keys(id).campaign(), Keys(id).workers()]);
        let mut was_compared = false;
        loop {
            let compared = self.compared().campaigns.get(id).cloned().unwrap_or_default();
            let args = [
                Arg::from(&session),
                Arg::from(held),
                Arg::from(LEASE.as_micros() as u64),
                Arg::from(&compared),
                Arg::from(GRACE.as_micros() as u64),
            ];
            let mut answer: Vec<Value> = self.client.run(&HEARTBEAT, &keys, &args).await?;
            let rest = answer.split_off(answer.len().min(3));
            let head: Vec<u64> =
                answer.into_iter().filter_map(|value| u64::from_redis_value(value).ok()).collect();
            let [leads, held, is_whole] = head[..] else {
                return Err(LedgerError::Storage("answered something else to a heartbeat".into()));
            };
            let lease = Lease { leads: leads == 1, held, gap: None };
            if is_whole == 1 {
                return Ok(lease);
            }
            let other = OtherHistory::read(rest)?;
            if !was_compared && !other.is_of_emptied() {
                was_compared = true;
                let is_news = compared != other.history && self.compare_with(id, &other).await?;
                if self.speak_for_dead(id, &other).await? || is_news {
                    continue;
                }
            }
            return Ok(Lease { gap: Some(other.gap()), ..lease });
        }
    }

    /// What the server may have forgotten of a campaign.
    pub(super) async fn find_gap(&self, id: &CampaignId) -> Result<Option<Gap>, LedgerError> {
        Ok(self.other_history(id).await?.map(|other| other.gap()))
    }

    async fn other_history(&self, id: &CampaignId) -> Result<Option<OtherHistory>, LedgerError> {
        let keys = [Keys(id).campaign(), Keys(id).workers()];
        let answer: Vec<Value> =
            self.client.run(&GAP, &keys, &[Arg::from(&self.session.to_string())]).await?;
        if answer.is_empty() { Ok(None) } else { OtherHistory::read(answer).map(Some) }
    }

    /// A person has decided.
    pub(super) async fn forget_gap(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let _: u64 = self.client.run(&CLOSE_GAP, &[Keys(id).campaign(), Keys(id).workers()], &[]).await?;
        Ok(())
    }

    /// Holds what this worker has written of a campaign against what is there, if the history is another one.
    pub(super) async fn compare_campaign(&self, id: &CampaignId) -> Result<bool, LedgerError> {
        match self.other_history(id).await? {
            Some(other) if !other.is_of_emptied() => self.compare_with(id, &other).await,
            _ => Ok(false),
        }
    }

    /// The server's data are of this history. If they were of another one when it was last asked, all that this
    /// worker has written lately is compared. `was_there` says whether this worker was among those that are there, and
    /// `now` is the server's time: a worker that has vanished in the same history, and before its time, was erased with
    /// all else.
    pub(super) async fn heed_history(
        &self,
        history: String,
        was_there: bool,
        now: i64,
    ) -> Result<(), LedgerError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let (latest, until) = {
            let mut compared = self.compared();
            let until = std::mem::replace(&mut compared.there_until, now + PRESENCE.as_millis() as i64);
            (compared.latest.clone(), until)
        };
        if latest == history {
            return if was_there || now >= until { Ok(()) } else { self.heed_emptied(journal).await };
        }
        if !latest.is_empty() {
            tracing::warn!(
                "Redis was started again or another one has taken its place: what this worker wrote is compared"
            );
            // Read once for all of them.
            let _turn = self.comparing.lock().await;
            let ids = journal.campaigns().map_err(|fault| unreadable(&fault))?;
            let known = self.known(journal, &ids).await?;
            let dropped = known.dropped;
            for (id, campaign) in known.campaigns {
                self.compared().steps += 1;
                if let Some((at, new)) = &campaign.registered
                    && *at > self.now() - FORGOTTEN.as_millis() as i64
                    && self.campaign(&id).await?.is_none()
                {
                    tracing::warn!(campaign = %id, "Redis had forgotten the campaign: it is registered again");
                    self.register_again(new, &latest).await?;
                }
                if let Some(other) = self.other_history(&id).await?
                    && self.compared().campaigns.get(&id) != Some(&other.history)
                {
                    self.compare_known(&id, &other, dropped, Some(campaign)).await?;
                }
            }
        }
        self.compared().latest = history;
        Ok(())
    }

    /// Somebody has emptied the server (`FLUSHALL`). All that this worker knows is written again, and held: what others
    /// wrote that are gone by now, nobody knows.
    async fn heed_emptied(&self, journal: &Journal) -> Result<(), LedgerError> {
        tracing::error!(
            "Redis was emptied while this worker ran: what it knows of campaigns is written again, and they are held until \
             a person has decided (flowcast recover)"
        );
        let _turn = self.comparing.lock().await;
        self.compared().campaigns.clear();
        self.compared().emptied_at = Some(Instant::now());
        let known = journal.known(&HashMap::new()).map_err(|fault| unreadable(&fault))?;
        let mut unregistered = Vec::new();
        for (id, campaign) in known.campaigns {
            self.compared().steps += 1;
            match &campaign.registered {
                Some((at, new)) if *at > self.now() - FORGOTTEN.as_millis() as i64 => {
                    // Where its job came again meanwhile it is there, as if nothing of it had been sent.
                    self.register_again(new, EMPTIED).await?;
                    self.put_in_doubt(&id).await?;
                    self.restore(&id, Some(campaign)).await?;
                }
                _ => unregistered.push((id, campaign)),
            }
        }
        // The worker that registered one of the others writes it when it notices.
        let until = Instant::now() + NOTICED;
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
            tokio::time::sleep(LOOK).await;
        }
        for (id, _) in unregistered {
            tracing::error!(campaign = %id, "the campaign is gone, and this worker knows only some of its messages: submit it again under another id for those who got nothing");
        }
        Ok(())
    }

    /// Waits until the other workers have noticed, too, that the server was emptied, and have written what they know: a
    /// campaign that is registered before that would be sent from its beginning, and this worker need not know of it.
    pub(super) async fn wait_for_the_others(&self) {
        let emptied_at = self.compared().emptied_at;
        if let Some(noticed) = emptied_at.map(|at| at + NOTICED)
            && noticed > Instant::now()
        {
            tokio::time::sleep_until(noticed).await;
        }
    }

    /// Has nothing of a campaign be claimed until a person has decided.
    async fn put_in_doubt(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let mut set = redis::cmd("HSET");
        set.arg(Keys(id).campaign()).arg("history").arg(EMPTIED);
        let _: u64 = self.client.command(&set).await?;
        self.touch(id).await
    }

    /// Compares, and confirms where this worker knows all that may be missing. Returns whether it does.
    async fn compare_with(&self, id: &CampaignId, other: &OtherHistory) -> Result<bool, LedgerError> {
        let Some(journal) = &self.journal else { return Ok(false) };
        // One at a time: each reads the journal, and many campaigns may be looked at together.
        let _turn = self.comparing.lock().await;
        if self.compared().campaigns.get(id) == Some(&other.history) {
            return Ok(true);
        }
        self.compared().steps += 1;
        let mut known = self.known(journal, std::slice::from_ref(id)).await?;
        let campaign = known.campaigns.remove(id);
        self.compare_known(id, other, known.dropped, campaign).await
    }

    /// What this worker knows; nothing of what was forgotten on purpose of these campaigns.
    async fn known(&self, journal: &Journal, ids: &[CampaignId]) -> Result<Known, LedgerError> {
        let forgotten = self.forgotten(ids).await?;
        journal.known(&forgotten).map_err(|fault| unreadable(&fault))
    }

    /// When campaigns were forgotten on purpose, those that were.
    async fn forgotten(&self, ids: &[CampaignId]) -> Result<HashMap<CampaignId, i64>, LedgerError> {
        let each = stream::iter(ids.iter().cloned().map(|id| async move {
            let get = redis::cmd("GET").arg(Keys(&id).forgotten()).clone();
            let at: Option<i64> = self.client.command(&get).await?;
            Ok::<_, LedgerError>(at.map(|at| (id, at)))
        }));
        let found: Vec<_> = each.buffer_unordered(WINDOW).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Compares with what this worker knows of the campaign; entries up to `dropped` may be missing.
    async fn compare_known(
        &self,
        id: &CampaignId,
        other: &OtherHistory,
        dropped: i64,
        campaign: Option<KnownCampaign>,
    ) -> Result<bool, LedgerError> {
        let joined = self.compared().joined.get(id).copied();
        let reaches_back = match other.own {
            0 => joined.is_none_or(|joined| dropped < joined),
            own => dropped < own,
        } || dropped == 0;
        self.restore(id, campaign).await?;
        if !reaches_back {
            tracing::error!(campaign = %id, "Redis has forgotten more than this worker knows of what it sent");
            return Ok(false);
        }
        self.compared().campaigns.insert(id.clone(), other.history.clone());
        self.confirm(id, self.session, &other.history).await?;
        Ok(true)
    }

    /// Says what workers knew that have died on this machine. Returns whether there was one.
    async fn speak_for_dead(&self, id: &CampaignId, other: &OtherHistory) -> Result<bool, LedgerError> {
        let Some(journal) = &self.journal else { return Ok(false) };
        let mut has_spoken = false;
        for (session, at) in &other.silent {
            if *session == self.session {
                continue;
            }
            let forgotten = self.forgotten(std::slice::from_ref(id)).await?;
            let Some(mut known) = journal.of_dead(*session, &forgotten) else { continue };
            let reaches_back = known.dropped == 0 || known.dropped < *at;
            self.restore(id, known.campaigns.remove(id)).await?;
            if reaches_back {
                tracing::info!(campaign = %id, "what worker {session} wrote before it died on this machine is compared");
                self.confirm(id, *session, &other.history).await?;
                has_spoken = true;
            }
        }
        Ok(has_spoken)
    }

    async fn confirm(&self, id: &CampaignId, session: u32, history: &str) -> Result<(), LedgerError> {
        let (session, keys) = (session.to_string(), [Keys(id).workers()]);
        let _: u64 = self.client.run(&CONFIRM, &keys, &[Arg::from(&session), Arg::from(history)]).await?;
        Ok(())
    }

    /// Writes again what is known of a campaign and is gone.
    async fn restore(&self, id: &CampaignId, known: Option<KnownCampaign>) -> Result<(), LedgerError> {
        let Some(KnownCampaign { batches, .. }) = known else { return Ok(()) };
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
            tracing::warn!(campaign = %id, "Redis had forgotten what became of {}: it is written again", counted(restored, "message"));
            metrics::counter!("flowcast_restored_messages_total").increment(restored);
        }
        Ok(())
    }

    /// Returns a number that grows while this worker tries commands again or compares what it wrote: who waits for the
    /// ledger then has not stalled.
    pub fn recovery_steps(&self) -> u64 {
        self.client.retries() + self.compared().steps
    }

    fn compared(&self) -> parking_lot::MutexGuard<'_, Compared> {
        self.compared.lock()
    }

    /// This worker does not look after a campaign any more.
    pub(super) fn leave(&self, id: &CampaignId) {
        let mut compared = self.compared();
        compared.joined.remove(id);
        compared.campaigns.remove(id);
    }
}

fn unreadable(fault: &std::io::Error) -> LedgerError {
    LedgerError::Storage(format!("has a journal beside it that can't be read: {fault}"))
}

/// Shared by the clones of a ledger.
pub(super) type SharedCompared = Arc<parking_lot::Mutex<Compared>>;
