//! Campaigns in Redis: a hash each, a list of all, a set of those that are looked after.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::history::{self, FORGOTTEN};
use super::layout::{Keys, REMOVED};
use super::transaction::{Command, Done, Transaction};
use super::{Redis, WINDOW};
use crate::campaign::{CampaignId, CampaignState, Reason};
use crate::ledger::campaigns::Admits;
use crate::ledger::deliveries::{self, TOOK, UNDELIVERED};
use crate::ledger::rate::{SECONDS, rate};
use crate::ledger::{
    Breaker, Campaign, CampaignChanges, Campaigns, Counts, Gap, Lease, LedgerError, NewCampaign, PRESENCE,
    Store, StoredJob,
};
use crate::redis_client::{Arg, Script};

/// The campaigns, by the time of their registration.
const CAMPAIGNS: &str = "flowcast:campaigns";
/// The campaigns that a worker must look after, each with the version of its last change; a member
/// without a name has the version of the last change of all.
const ACTIVE: &str = "flowcast:active";
/// The workers' sessions, by the time until which they count as there.
const WORKERS: &str = "flowcast:workers";

static TOUCH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("touch.lua")));
static PRESENT: LazyLock<Script> = LazyLock::new(|| history::script(include_str!("present.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("release.lua")));

/// A hash as Redis answers it.
type Hash = HashMap<String, String>;

/// A campaign's hash.
pub(super) struct Fields(pub(super) HashMap<String, String>);

impl Fields {
    pub(super) fn text(&self, field: &str) -> Option<String> {
        self.0.get(field).filter(|text| !text.is_empty()).cloned()
    }

    pub(super) fn number(&self, field: &str) -> u64 {
        self.0.get(field).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    pub(super) fn time(&self, field: &str) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.0.get(field)?.parse().ok()?).ok()
    }

    pub(super) fn state(&self, field: &str) -> Option<CampaignState> {
        self.0.get(field)?.parse().ok()
    }

    /// The counts by code or reason.
    pub(super) fn tally(&self, of: &str) -> BTreeMap<String, u64> {
        let fields = self.0.iter().filter_map(|(field, count)| {
            let word = field.strip_prefix(of)?.strip_prefix(':')?;
            Some((word.to_owned(), count.parse().ok()?))
        });
        fields.filter(|(_, count)| *count > 0).collect()
    }
}

/// A campaign out of its hash, the texts beside it, and how fast it goes.
fn campaign_of(
    id: &CampaignId,
    fields: &Fields,
    texts: &HashMap<String, String>,
    rate: f64,
) -> Option<Campaign> {
    let state = fields.state("state")?;
    let mut counts = Counts {
        total: 0,
        pending: fields.number("pending"),
        sending: fields.number("sending"),
        accepted: fields.number("accepted"),
        rejected: fields.number("rejected"),
        in_doubt: fields.number("in_doubt"),
        skipped: fields.number("skipped"),
    };
    counts.total = counts.open() + counts.accepted + counts.rejected + counts.in_doubt + counts.skipped;
    let rejected = fields.tally("rejected");
    let text = |code: &String| texts.get(&format!("rejected:{code}")).cloned().unwrap_or_default();
    Some(Campaign {
        id: id.clone(),
        name: fields.text("name"),
        account: fields.text("account").unwrap_or_default(),
        state,
        published: fields.state("published"),
        announced: fields.number("announced"),
        reason: Reason::read(fields.text("reason").as_deref(), fields.text("reason_data").as_deref()),
        suspended_by: fields
            .text("suspended_by")
            .and_then(|word| Breaker::read(&fields.text("account").unwrap_or_default(), &word)),
        forgiven: (fields.number("forgiven_rejected"), fields.number("forgiven_settled")),
        stop_asked_at: i64::try_from(fields.number("stop_asked_at")).unwrap_or_default(),
        planned: fields.number("planned") == 1,
        counts,
        skipped: fields.tally("skipped"),
        texts: {
            let undelivered = fields.tally(UNDELIVERED);
            let why =
                |code: &String| texts.get(&format!("{UNDELIVERED}:{code}")).cloned().unwrap_or_default();
            let failed = undelivered.keys().map(|code| (code.clone(), why(code)));
            failed.chain(rejected.keys().map(|code| (code.clone(), text(code)))).collect()
        },
        rejected,
        rate,
        audience: fields.text("audience").unwrap_or_default(),
        rows: fields.number("rows"),
        batch_size: usize::try_from(fields.number("batch_size")).unwrap_or(1),
        doubt_below: u32::try_from(fields.number("doubt_below")).unwrap_or(u32::MAX),
        rehearsal: fields.number("rehearsal") == 1,
        created_by: fields.text("created_by"),
        delivery: deliveries::counts(|kind, word| fields.number(&format!("{kind}:{word}"))),
        undelivered: fields.tally(UNDELIVERED),
        took: deliveries::times(fields.tally(TOOK).iter().map(|(word, count)| (word.as_str(), *count))),
        submitted_at: fields.time("submitted_at").unwrap_or_default(),
        started_at: fields.time("started_at"),
        finished_at: fields.time("finished_at"),
    })
}

/// The fields that say for what a campaign admits claims, and what moves with its state.
pub(super) fn head(campaign: &Campaign) -> Vec<(&'static str, String)> {
    let time = |at: Option<Timestamp>| at.map(|at| at.as_millisecond().to_string()).unwrap_or_default();
    vec![
        ("state", campaign.state.as_str().into()),
        ("admits", campaign.admits().as_str().into()),
        ("reason", campaign.reason.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("reason_data", campaign.reason.as_ref().and_then(Reason::data).unwrap_or_default()),
        ("suspended_by", campaign.suspended_by.as_ref().map(Breaker::word).unwrap_or_default()),
        ("forgiven_rejected", campaign.forgiven.0.to_string()),
        ("forgiven_settled", campaign.forgiven.1.to_string()),
        ("doubt_below", campaign.doubt_below.to_string()),
        ("stop_asked_at", campaign.stop_asked_at.to_string()),
        ("started_at", time(campaign.started_at)),
        ("finished_at", time(campaign.finished_at)),
    ]
}

impl Redis {
    /// Forgets campaigns that ended so long ago. Returns how many.
    ///
    /// # Errors
    ///
    /// When Redis is away.
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

    /// Whether an id was put on the list just now, before its campaign.
    async fn is_new(&self, id: &CampaignId) -> Result<bool, LedgerError> {
        let score: Option<f64> =
            self.client.command(redis::cmd("ZSCORE").arg(CAMPAIGNS).arg(id.as_str())).await?;
        Ok(score.is_some_and(|at| at > (self.now() - 3_600_000) as f64))
    }

    /// The campaign that stands for a job without an id, by its content; else it is this one.
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

    /// Remembers which campaign a job without an id is, long enough for every redelivery of the job.
    pub(super) async fn name_unnamed(&self, fingerprint: &str, id: &CampaignId) -> Result<(), LedgerError> {
        let mut set = redis::cmd("SET");
        set.arg(format!("flowcast:unnamed:{fingerprint}")).arg(id.as_str()).arg("EX").arg(30 * 86_400);
        Ok(self.client.command::<()>(&set).await?)
    }

    /// Lists a campaign before it is there: one that nobody looks after would be lost, an empty name on a
    /// list is only forgotten again.
    async fn list(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let mut list = redis::cmd("ZADD");
        list.arg(CAMPAIGNS).arg("NX").arg(self.now()).arg(id.as_str());
        let _: u64 = self.client.command(&list).await?;
        self.activate(id).await
    }

    /// The same of a campaign that was registered at a time. One that has ended, and of which others were told, is looked
    /// after by nobody.
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

    /// Writes a campaign down that Redis has forgotten, as one of another history: nothing of it is sent before
    /// workers have said what they sent.
    pub(super) async fn register_again(&self, new: &NewCampaign, history: &str) -> Result<(), LedgerError> {
        self.list(&new.id).await?;
        self.create(&new.id, new, Some(history)).await?;
        self.touch(&new.id).await
    }

    /// Writes a campaign down, unless its id is taken. Returns whether it did.
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
            ("admits", Admits::None.as_str()),
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
        Ok(matches!(transaction.run(&self.client, 0).await?.0, Done::Written(_)))
    }
}

impl Campaigns for Redis {
    fn is_shared(&self) -> bool {
        true
    }

    async fn register(&self, new: NewCampaign) -> Result<(Campaign, bool), LedgerError> {
        if self.journal.is_some() {
            // A server that was emptied a moment ago knows nothing of an id that was sent: first it is told.
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
        // Now it is there to be looked at.
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
                // It was forgotten meanwhile.
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
            // The version itself comes along, so that one that has gone back is noticed.
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
            .map_err(|fault| LedgerError::Storage(format!("has damaged columns of {id}: {fault}")))?;
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
        Ok(matches!(transaction.run(&self.client, 0).await?.0, Done::Written(_)))
    }

    async fn published(&self, id: &CampaignId, state: CampaignState) -> Result<(), LedgerError> {
        // First the count: one too many is no harm, one too few would give two events the same id.
        let mut count = redis::cmd("HINCRBY");
        count.arg(Keys(id).campaign()).arg("announced").arg(1);
        let _: u64 = self.client.command(&count).await?;
        let mut set = redis::cmd("HSET");
        set.arg(Keys(id).campaign()).arg("published").arg(state.as_str());
        let _: u64 = self.client.command(&set).await?;
        if state.is_over() {
            let _: u64 = self.client.command(redis::cmd("ZREM").arg(ACTIVE).arg(id.as_str())).await?;
            // A retry may have woken it in between; then it is to be looked after again.
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

    async fn gap(&self, id: &CampaignId) -> Result<Option<Gap>, LedgerError> {
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
        // First: a worker that still knows of it would think that Redis had lost it, and write it again.
        let mut mark = redis::cmd("SET");
        mark.arg(keys.forgotten()).arg(self.now()).arg("EX").arg(FORGOTTEN.as_secs());
        let _: () = self.client.command(&mark).await?;
        // From here on a report of it breaks off, in place of ending early.
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
