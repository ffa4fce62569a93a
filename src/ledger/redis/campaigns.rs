//! Campaigns in Redis: a hash for each, a sorted set of all, a sorted set of the active ones.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::campaign_hash::{Fields, campaign_of, head};
use super::data_loss::{self, FORGOTTEN};
use super::layout::{Keys, REMOVED};
use super::transaction::{Command, Transaction, TransactionOutcome};
use super::{Redis, WINDOW};
use crate::campaign::{CampaignId, CampaignState};
use crate::ledger::campaigns::ClaimAdmission;
use crate::ledger::throughput::{SECONDS, rate};
use crate::ledger::{
    Campaign, CampaignChanges, Campaigns, Clock, Lease, LedgerError, LostWrites, NewCampaign, PRESENCE,
    StoredJob,
};
use crate::redis_client::{Arg, Script};

/// All campaigns, by the time of their registration.
const CAMPAIGNS: &str = "flowcast:campaigns";
/// The active campaigns, each with the version of its last change; the empty member has the last version.
const ACTIVE: &str = "flowcast:active";
/// Sessions of the present workers, by the time until which they count as present.
const WORKERS: &str = "flowcast:workers";

static TOUCH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("touch.lua")));
static PRESENT: LazyLock<Script> = LazyLock::new(|| data_loss::script(include_str!("present.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("release.lua")));

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
            let mut ask = redis::cmd("HMGET");
            ask.arg(Keys(&id).campaign()).arg(&["state", "finished_at", "published"]);
            let (state, finished, published): (Option<String>, Option<String>, Option<String>) =
                self.client.command(&ask).await?;
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
            self.client.command(redis::cmd("ZSCORE").arg(CAMPAIGNS).arg(id.as_str())).await?;
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
        let mut set = redis::cmd("SET");
        set.arg(format!("flowcast:unnamed:{fingerprint}")).arg(id.as_str()).arg("EX").arg(30 * 86_400);
        Ok(self.client.command::<()>(&set).await?)
    }

    /// Lists a campaign before it is written: an unlisted campaign would be lost, an unused id is removed later.
    async fn list(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let mut list = redis::cmd("ZADD");
        list.arg(CAMPAIGNS).arg("NX").arg(self.now()).arg(id.as_str());
        let _: u64 = self.client.command(&list).await?;
        self.activate(id).await
    }

    /// Lists a campaign that was registered at `since`. It is not active if its end is published.
    pub(super) async fn list_since(
        &self,
        id: &CampaignId,
        since: i64,
        is_active: bool,
    ) -> Result<(), LedgerError> {
        let mut list = redis::cmd("ZADD");
        list.arg(CAMPAIGNS).arg("NX").arg(since).arg(id.as_str());
        let _: u64 = self.client.command(&list).await?;
        if is_active {
            self.activate(id).await?;
            self.touch(id).await?;
        }
        Ok(())
    }

    /// Registers a campaign again that Redis lost.
    ///
    /// It gets another replication epoch (`history`), so nothing is claimed until the workers have compared their journals.
    pub(super) async fn register_again(&self, new: &NewCampaign, history: &str) -> Result<(), LedgerError> {
        self.list(&new.id).await?;
        self.create(&new.id, new, Some(history)).await?;
        self.touch(&new.id).await
    }

    /// Writes a campaign, unless its id exists. Returns whether it did.
    async fn create(
        &self,
        id: &CampaignId,
        new: &NewCampaign,
        history: Option<&str>,
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
        match history {
            Some(history) => transaction.command(Command::HSet, campaign, &["history", history]),
            None => transaction.command(Command::History, campaign, &["history"]),
        }
        Ok(matches!(transaction.run(&self.client, 0).await?.0, TransactionOutcome::Written(_)))
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
            let mut ask = redis::cmd("HMGET");
            ask.arg(Keys(&id).campaign()).arg(&["fingerprint", "rehearsal"]);
            let (fingerprint, rehearsal): (Option<String>, Option<String>) =
                self.client.command(&ask).await?;
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
        let mut ask = redis::cmd("HMGET");
        ask.arg(Keys(id).campaign()).arg(&["pending", "sending"]);
        let counts: (Option<u64>, Option<u64>) = self.client.command(&ask).await?;
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
            let mut rank = redis::cmd("ZREVRANK");
            let rank: Option<u64> = self.client.command(rank.arg(CAMPAIGNS).arg(id.as_str())).await?;
            first = if let Some(rank) = rank {
                rank + 1
            } else {
                // It was removed since.
                let mut newer = redis::cmd("ZCOUNT");
                newer.arg(CAMPAIGNS).arg(format!("({at}")).arg("+inf");
                self.client.command(&newer).await?
            };
        }
        let last = first.saturating_add(count as u64).saturating_sub(1).min(i64::MAX as u64);
        let mut range = redis::cmd("ZRANGE");
        range.arg(CAMPAIGNS).arg(first).arg(last).arg("REV");
        let ids: Vec<String> = self.client.command(&range).await?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    async fn changes(&self, known: u64) -> Result<CampaignChanges, LedgerError> {
        let mut from = known;
        loop {
            let mut range = redis::cmd("ZRANGE");
            // The range includes the known version: if nothing is found, the server has lost writes.
            range.arg(ACTIVE).arg(from).arg("+inf").arg("BYSCORE").arg("WITHSCORES");
            let found: Vec<(String, u64)> = self.client.command(&range).await?;
            if found.is_empty() && from > 0 {
                from = 0;
                continue;
            }
            let version = found.iter().map(|(_, version)| *version).max().unwrap_or_default();
            let news = found.iter().filter(|(_, version)| from == 0 || *version > from);
            let ids = news.filter_map(|(id, _)| id.parse().ok()).collect();
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
        let mut add = redis::cmd("ZADD");
        add.arg(ACTIVE).arg("NX").arg(0).arg(id.as_str());
        let _: u64 = self.client.command(&add).await?;
        Ok(())
    }

    async fn touch(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let _: u64 = self.client.run(&TOUCH, &[ACTIVE.into()], &[Arg::from(id.as_str())]).await?;
        Ok(())
    }

    async fn present(&self) -> Result<BTreeSet<u32>, LedgerError> {
        let _turn = self.presence.lock().await;
        let session = self.session.to_string();
        let args = [Arg::from(&session), Arg::from(PRESENCE.as_micros() as u64)];
        let (history, all, was_there, now): (String, Vec<u32>, bool, i64) =
            self.client.run(&PRESENT, &[WORKERS.into()], &args).await?;
        self.heed_history(history, was_there, now).await?;
        Ok(all.into_iter().collect())
    }

    async fn depart(&self) -> Result<(), LedgerError> {
        let _: u64 = self.client.command(redis::cmd("ZREM").arg(WORKERS).arg(self.session)).await?;
        Ok(())
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
        Ok(matches!(transaction.run(&self.client, 0).await?.0, TransactionOutcome::Written(_)))
    }

    async fn published(&self, id: &CampaignId, state: CampaignState) -> Result<(), LedgerError> {
        // The count first: one too many does no harm, one too few would give two events the same id.
        let mut count = redis::cmd("HINCRBY");
        count.arg(Keys(id).campaign()).arg("announced").arg(1);
        let _: u64 = self.client.command(&count).await?;
        let mut set = redis::cmd("HSET");
        set.arg(Keys(id).campaign()).arg("published").arg(state.as_str());
        let _: u64 = self.client.command(&set).await?;
        if state.is_over() {
            let _: u64 = self.client.command(redis::cmd("ZREM").arg(ACTIVE).arg(id.as_str())).await?;
            // A retry may have restarted it in between: then it must be active again.
            let now: Option<String> =
                self.client.command(redis::cmd("HGET").arg(Keys(id).campaign()).arg("state")).await?;
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
        self.find_gap(id).await
    }

    async fn close_gap(&self, id: &CampaignId) -> Result<(), LedgerError> {
        self.forget_gap(id).await
    }

    async fn release(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let session = self.session.to_string();
        let keys = [Keys(id).campaign(), Keys(id).workers()];
        let _: u64 = self.client.run(&RELEASE, &keys, &[Arg::from(&session)]).await?;
        self.leave(id);
        Ok(())
    }

    async fn remove(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let keys = Keys(id);
        // First, so that a worker whose journal has it does not restore it.
        let mut mark = redis::cmd("SET");
        mark.arg(keys.forgotten()).arg(self.now()).arg("EX").arg(FORGOTTEN.as_secs());
        let _: () = self.client.command(&mark).await?;
        // From here on a report fails instead of being incomplete.
        let _: u64 = self.client.command(redis::cmd("HSET").arg(keys.campaign()).arg(REMOVED).arg(1)).await?;
        let unlink = |number: u32| {
            let mut unlink = redis::cmd("UNLINK");
            unlink.arg(keys.plan(number)).arg(keys.record(number)).arg(keys.batch(number));
            unlink.arg(keys.payload(number)).arg(keys.deliveries(number)).arg(keys.responses(number));
            async move { self.client.command::<u64>(&unlink).await.map(drop) }
        };
        let batches = stream::iter((0..self.batches_of(id).await?).map(unlink));
        batches.buffer_unordered(WINDOW).try_collect::<()>().await?;
        let mut unlink = redis::cmd("UNLINK");
        unlink.arg(&keys.whole()[..]);
        let second = self.now() / 1000;
        unlink.arg((second - SECONDS..=second + 1).map(|second| keys.tick(second)).collect::<Vec<_>>());
        let _: u64 = self.client.command(&unlink).await?;
        let _: u64 = self.client.command(redis::cmd("ZREM").arg(ACTIVE).arg(id.as_str())).await?;
        let _: u64 = self.client.command(redis::cmd("ZREM").arg(CAMPAIGNS).arg(id.as_str())).await?;
        Ok(())
    }
}
