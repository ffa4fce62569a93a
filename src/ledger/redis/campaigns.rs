//! Campaigns in Redis: a hash for each, a sorted set of all, a sorted set of the active ones.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::campaign_hash::{Fields, campaign_of, head};
use super::data_loss::{self, FORGOTTEN};
use super::layout::{Keys, REMOVED};
use super::transaction::{Command, Transaction};
use super::{Redis, WINDOW};
use crate::campaign::{CampaignId, CampaignState};
use crate::ledger::throughput::{SECONDS, rate};
use crate::ledger::{
    Campaign, CampaignChanges, Campaigns, Clock, Lease, LedgerError, LostWrites, NewCampaign, PRESENCE,
    StoredJob, campaigns::ClaimAdmission,
};
use crate::redis_client::Script;

/// All campaigns, by the time of their registration.
const CAMPAIGNS: &str = "flowcast:campaigns";
/// The active campaigns, each with the version of its last change; the empty member has the last version.
const ACTIVE: &str = "flowcast:active";
/// Sessions of the present workers, by the time until which they count as present.
const WORKERS: &str = "flowcast:workers";

static TOUCH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("touch.lua")));
static PRESENT: LazyLock<Script> = LazyLock::new(|| data_loss::script(include_str!("present.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("release.lua")));
static CLOSE_GAP: LazyLock<Script> = LazyLock::new(|| data_loss::script(include_str!("close_gap.lua")));

/// A hash as Redis returns it.
type Hash = HashMap<String, String>;

impl Redis {
    /// Removes campaigns that ended before a time. Returns their number.
    ///
    /// # Errors
    ///
    /// If Redis fails.
    pub async fn forget_ended(&self, before: Timestamp) -> Result<u64, LedgerError> {
        let mut forgotten = 0;
        for id in self.ids_before(None, usize::MAX).await? {
            let fields = (Keys(&id).campaign(), "state", "finished_at", "published");
            let [state, finished, published]: [Option<String>; 3] =
                self.client.command(redis::cmd("HMGET").arg(fields)).await?;
            let finished = finished.and_then(|at| at.parse::<i64>().ok());
            let ended = finished.is_some_and(|at| at < before.as_millisecond()) && state == published;
            if ended || state.is_none() && !self.is_new(&id).await? {
                self.remove(&id).await?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }

    /// Returns whether an id was listed within the last hour: its campaign may not be written yet.
    async fn is_new(&self, id: &CampaignId) -> Result<bool, LedgerError> {
        let score: Option<f64> =
            self.client.command(redis::cmd("ZSCORE").arg((CAMPAIGNS, id.as_str()))).await?;
        Ok(score.is_some_and(|at| at > (self.now() - 3_600_000) as f64))
    }

    /// Returns the campaign of a job without an id: a known one with the same fingerprint, or else the new one.
    async fn unnamed(&self, new: &NewCampaign) -> Result<CampaignId, LedgerError> {
        let key = format!("flowcast:unnamed:{}", new.fingerprint);
        let known: Option<String> =
            if new.again { self.client.command(redis::cmd("GET").arg(&key)).await? } else { None };
        if let Some(known) = known.and_then(|known| known.parse().ok()) {
            return Ok(known);
        }
        self.name_unnamed(&new.fingerprint, &new.id).await?;
        Ok(new.id.clone())
    }

    /// Records the campaign of a job without an id, for 30 days: longer than a job is redelivered.
    pub(super) async fn name_unnamed(&self, fingerprint: &str, id: &CampaignId) -> Result<(), LedgerError> {
        let key = format!("flowcast:unnamed:{fingerprint}");
        Ok(self.client.command(redis::cmd("SET").arg((key, id.as_str(), "EX", 30 * 86_400))).await?)
    }

    /// Lists a campaign before it is written: an unlisted campaign would be lost, an unused id is removed later.
    async fn list(&self, id: &CampaignId) -> Result<(), LedgerError> {
        self.client.command::<()>(redis::cmd("ZADD").arg((CAMPAIGNS, "NX", self.now(), id.as_str()))).await?;
        self.activate(id).await
    }

    /// Lists a campaign that was registered at `since`. It is not active if its end is published.
    pub(super) async fn list_since(
        &self,
        id: &CampaignId,
        since: i64,
        is_active: bool,
    ) -> Result<(), LedgerError> {
        self.client.command::<()>(redis::cmd("ZADD").arg((CAMPAIGNS, "NX", since, id.as_str()))).await?;
        if is_active {
            self.activate(id).await?;
            self.touch(id).await?;
        }
        Ok(())
    }

    /// Registers a campaign again that Redis lost.
    ///
    /// It gets another replication epoch, so nothing is claimed until the workers have compared their journals.
    pub(super) async fn register_again(&self, new: &NewCampaign, epoch: &str) -> Result<(), LedgerError> {
        self.list(&new.id).await?;
        self.create(&new.id, new, Some(epoch)).await?;
        self.touch(&new.id).await
    }

    /// Writes a campaign, unless its id exists. Returns whether it did.
    async fn create(
        &self,
        id: &CampaignId,
        new: &NewCampaign,
        epoch: Option<&str>,
    ) -> Result<bool, LedgerError> {
        let (rows, size) = (new.rows.to_string(), new.batch_size.to_string());
        let columns = serde_json::Value::from(new.columns.clone()).to_string();
        let now = self.now().to_string();
        let fields = [
            ("fingerprint", new.fingerprint.as_str()),
            ("rehearsal", if new.rehearsal { "1" } else { "0" }),
            ("columns", &columns),
            ("created_by", &new.created_by),
            ("name", new.name.as_deref().unwrap_or_default()),
            ("account", &new.account),
            ("audience", &new.audience),
            ("rows", &rows),
            ("batch_size", &size),
            ("state", CampaignState::Scheduled.as_str()),
            ("admits", ClaimAdmission::None.as_str()),
            ("planned", "0"),
            ("batches", "0"),
            ("plan_batches", "0"),
            ("plan_rows", "0"),
            ("plan_digest", ""),
            ("pending", "0"),
            ("sending", "0"),
            ("accepted", "0"),
            ("rejected", "0"),
            ("in_doubt", "0"),
            ("skipped", "0"),
            ("submitted_at", &now),
        ];
        let mut transaction = Transaction::default();
        let (campaign, job) = (transaction.key(Keys(id).campaign()), transaction.key(Keys(id).job()));
        transaction.check_field(campaign, "fingerprint", &[""]);
        transaction.command(Command::Set, job, &[&new.job]);
        transaction.command(Command::HSet, campaign, &fields.map(|(field, value)| [field, value]).concat());
        match epoch {
            Some(epoch) => transaction.command(Command::HSet, campaign, &["history", epoch]),
            None => transaction.command(Command::History, campaign, &["history"]),
        }
        Ok(transaction.is_written(&self.client).await?)
    }
}

impl Campaigns for Redis {
    fn is_shared(&self) -> bool {
        true
    }

    async fn register(&self, new: NewCampaign) -> Result<(Campaign, bool), LedgerError> {
        if self.journal.is_some() {
            // An emptied server does not know an id that was sent, so lost campaigns are restored first.
            self.present().await?;
            self.wait_for_the_others().await;
        }
        let id = if new.named { new.id.clone() } else { self.unnamed(&new).await? };
        let is_new = loop {
            self.list(&id).await?;
            if self.create(&id, &new, None).await? {
                break true;
            }
            let fields = (Keys(&id).campaign(), "fingerprint", "rehearsal");
            let [fingerprint, rehearsal]: [Option<String>; 2] =
                self.client.command(redis::cmd("HMGET").arg(fields)).await?;
            match (rehearsal.as_deref(), new.rehearsal) {
                (Some("1"), false) => self.remove(&id).await?,
                (Some("0"), true) => return Err(LedgerError::NotARehearsal(id)),
                _ if fingerprint.as_ref().is_some_and(|known| *known != new.fingerprint) => {
                    return Err(LedgerError::OtherContent(id));
                }
                _ => break false,
            }
        };
        if let Some(journal) = &self.journal
            && is_new
        {
            journal.campaign(self.now(), &NewCampaign { id: id.clone(), named: true, ..new })?;
        }
        // Workers can read it now.
        self.touch(&id).await?;
        let campaign = self.campaign(&id).await?.ok_or(LedgerError::NoCampaign(id))?;
        Ok((campaign, is_new))
    }

    async fn campaign(&self, id: &CampaignId) -> Result<Option<Campaign>, LedgerError> {
        let second = self.now() / 1000;
        let seconds: Vec<i64> = (second - SECONDS..=second + 1).collect();
        let ticks: Vec<String> = seconds.iter().map(|second| Keys(id).tick(*second)).collect();
        let mut pipe = redis::pipe();
        pipe.hgetall(Keys(id).campaign()).hgetall(Keys(id).texts()).mget(&ticks);
        let (fields, texts, ticks): (Hash, Hash, Vec<Option<u64>>) = self.client.pipeline(&pipe).await?;
        let fields = Fields(fields);
        let now = self.now();
        let started_at = fields.time("started_at").map_or(now, Timestamp::as_millisecond);
        let ticks = seconds.into_iter().zip(ticks).filter_map(|(second, count)| Some((second, count?)));
        let is_running = fields.state("state") == Some(CampaignState::Running);
        let rate = if is_running { rate(ticks, started_at, now) } else { 0.0 };
        Ok(campaign_of(id, &fields, &texts, rate))
    }

    async fn open(&self, id: &CampaignId) -> Result<u64, LedgerError> {
        let fields = (Keys(id).campaign(), "pending", "sending");
        let counts: (Option<u64>, Option<u64>) = self.client.command(redis::cmd("HMGET").arg(fields)).await?;
        let (Some(pending), Some(sending)) = counts else { return Err(LedgerError::NoCampaign(id.clone())) };
        Ok(pending + sending)
    }

    async fn ids_before(
        &self,
        before: Option<&(CampaignId, i64)>,
        count: usize,
    ) -> Result<Vec<CampaignId>, LedgerError> {
        let mut first = 0;
        if let Some((id, at)) = before {
            let rank: Option<u64> =
                self.client.command(redis::cmd("ZREVRANK").arg((CAMPAIGNS, id.as_str()))).await?;
            first = if let Some(rank) = rank {
                rank + 1
            } else {
                // It was removed since.
                let newer = (CAMPAIGNS, format!("({at}"), "+inf");
                self.client.command(redis::cmd("ZCOUNT").arg(newer)).await?
            };
        }
        let last = first.saturating_add(count as u64).saturating_sub(1).min(i64::MAX as u64);
        let ids: Vec<String> =
            self.client.command(redis::cmd("ZRANGE").arg((CAMPAIGNS, first, last, "REV"))).await?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    async fn changes(&self, known: u64) -> Result<CampaignChanges, LedgerError> {
        let mut from = known;
        loop {
            // The range includes the known version: if nothing is found, the server has lost writes.
            let range = (ACTIVE, from, "+inf", "BYSCORE", "WITHSCORES");
            let found: Vec<(String, u64)> = self.client.command(redis::cmd("ZRANGE").arg(range)).await?;
            if found.is_empty() && from > 0 {
                from = 0;
                continue;
            }
            let version = found.iter().map(|(_, version)| *version).max().unwrap_or_default();
            let updates = found.iter().filter(|(_, version)| from == 0 || *version > from);
            let ids = updates.filter_map(|(id, _)| id.parse().ok()).collect();
            return Ok(CampaignChanges { ids, version });
        }
    }

    async fn job(&self, id: &CampaignId) -> Result<StoredJob, LedgerError> {
        let mut pipe = redis::pipe();
        pipe.get(Keys(id).job()).hget(Keys(id).campaign(), "columns");
        let (job, columns): (Option<String>, Option<String>) = self.client.pipeline(&pipe).await?;
        let job = job.ok_or_else(|| LedgerError::NoCampaign(id.clone()))?;
        let columns = serde_json::from_str(&columns.unwrap_or_default())
            .map_err(|error| LedgerError::Storage(format!("has damaged columns of {id}: {error}")))?;
        Ok(StoredJob { job, columns })
    }

    async fn activate(&self, id: &CampaignId) -> Result<(), LedgerError> {
        Ok(self.client.command(redis::cmd("ZADD").arg((ACTIVE, "NX", 0, id.as_str()))).await?)
    }

    async fn touch(&self, id: &CampaignId) -> Result<(), LedgerError> {
        Ok(self.client.run(&TOUCH, &[ACTIVE.into()], id.as_str()).await?)
    }

    async fn present(&self) -> Result<BTreeSet<u32>, LedgerError> {
        let _turn = self.presence.lock().await;
        let args = (self.session, PRESENCE.as_micros() as u64);
        let (epoch, all, was_there, now): (String, Vec<u32>, bool, i64) =
            self.client.run(&PRESENT, &[WORKERS.into()], args).await?;
        self.heed_epoch(epoch, was_there, now).await?;
        Ok(all.into_iter().collect())
    }

    async fn depart(&self) -> Result<(), LedgerError> {
        Ok(self.client.command(redis::cmd("ZREM").arg((WORKERS, self.session))).await?)
    }

    async fn swap_campaign(
        &self,
        known: CampaignState,
        settled: bool,
        after: Campaign,
    ) -> Result<bool, LedgerError> {
        let mut transaction = Transaction::default();
        let campaign = transaction.key(Keys(&after.id).campaign());
        transaction.check_field(campaign, "state", &[known.as_str()]);
        if settled {
            transaction.check_field(campaign, "planned", &["1"]);
            transaction.check_field(campaign, "pending", &["0"]);
            transaction.check_field(campaign, "sending", &["0"]);
        }
        let head = head(&after);
        let fields: Vec<&str> = head.iter().flat_map(|(field, value)| [*field, value.as_str()]).collect();
        transaction.command(Command::HSet, campaign, &fields);
        Ok(transaction.is_written(&self.client).await?)
    }

    async fn published(&self, id: &CampaignId, state: CampaignState) -> Result<(), LedgerError> {
        // The count first: one too many does no harm, one too few would give two events the same id.
        let campaign = Keys(id).campaign();
        self.client.command::<()>(redis::cmd("HINCRBY").arg((&campaign, "announced", 1))).await?;
        self.client.command::<()>(redis::cmd("HSET").arg((&campaign, "published", state.as_str()))).await?;
        if state.is_over() {
            self.client.command::<()>(redis::cmd("ZREM").arg((ACTIVE, id.as_str()))).await?;
            // A retry may have restarted it in between: then it must be active again.
            let now: Option<String> =
                self.client.command(redis::cmd("HGET").arg((&campaign, "state"))).await?;
            if now.as_deref() != Some(state.as_str()) {
                self.touch(id).await?;
            }
        }
        Ok(())
    }

    async fn heartbeat(&self, id: &CampaignId, held: u64) -> Result<Lease, LedgerError> {
        self.beat(id, held).await
    }

    async fn gap(&self, id: &CampaignId) -> Result<Option<LostWrites>, LedgerError> {
        Ok(self.other_epoch(id).await?.map(|other| other.gap()))
    }

    async fn close_gap(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let keys = [Keys(id).campaign(), Keys(id).workers()];
        Ok(self.client.run_packed(&CLOSE_GAP, &keys, &[]).await?)
    }

    async fn release(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let keys = [Keys(id).campaign(), Keys(id).workers()];
        self.client.run::<()>(&RELEASE, &keys, self.session).await?;
        self.leave(id);
        Ok(())
    }

    async fn remove(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let keys = Keys(id);
        // First, so that a worker whose journal has it does not restore it.
        let mark = (keys.forgotten(), self.now(), "EX", FORGOTTEN.as_secs());
        self.client.command::<()>(redis::cmd("SET").arg(mark)).await?;
        // From here on a report fails instead of being incomplete.
        self.client.command::<()>(redis::cmd("HSET").arg((keys.campaign(), REMOVED, 1))).await?;
        let unlink = |number: u32| {
            let unlink = redis::cmd("UNLINK").arg(&keys.of_batch(number)).clone();
            async move { self.client.command::<()>(&unlink).await }
        };
        let batches = stream::iter((0..self.batches_of(id).await?).map(unlink));
        batches.buffer_unordered(WINDOW).try_collect::<()>().await?;
        let mut unlink = redis::cmd("UNLINK");
        unlink.arg(&keys.whole()[..]);
        let second = self.now() / 1000;
        unlink.arg((second - SECONDS..=second + 1).map(|second| keys.tick(second)).collect::<Vec<_>>());
        self.client.command::<()>(&unlink).await?;
        self.client.command::<()>(redis::cmd("ZREM").arg((ACTIVE, id.as_str()))).await?;
        Ok(self.client.command(redis::cmd("ZREM").arg((CAMPAIGNS, id.as_str()))).await?)
    }
}
