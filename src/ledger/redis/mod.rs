//! The fleet's ledger: Redis, one server or a cluster. Every change of state is one script.
//!
//! Keys of a campaign share its hash tag, so that a script finds them on one node of a cluster.
//! Times are the server's. `docs/redis.md` has the whole layout for people.
//!
//! Each call may be made twice, because a lost connection leaves open whether the first was taken:
//! a claim is known by its token, a checkpoint by the row it goes on from, an outcome by the state.

mod deliveries;
mod layout;
mod read;
mod scripts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use secrecy::SecretString;

use super::{
    ABANDONED, ABANDONED_TEXT, ATTENTION, Again, Attendance, Barrier, Campaign, Checkpoint, Claim, Cursor,
    Decision, FIRST_PROBE, Heard, Hold, LAST_PROBE, Learnt, Ledger, LedgerError, NewCampaign, Outcome, Plan,
    PlannedBatch, Purpose, RESTING, Recorded, ReportPage, ResponsePage, SkippedRow, StoredJob, Suppress,
    Suppressed, new_key,
};
use crate::campaign::{CampaignId, CampaignState, Phone, SkipReason};
pub use crate::redis_server::Patience;
use crate::redis_server::{Arg, Fault, RedisServer};
use layout::{Keys, barrier_key, digest, meta, moves_of_campaigns, moves_of_messages};
use scripts::SCRIPTS;

/// The campaigns, by the time of their registration.
const CAMPAIGNS: &str = "flowcast:campaigns";
/// The campaigns that a worker must look after.
const ACTIVE: &str = "flowcast:active";
/// The numbers that must never be messaged, and how often they have changed. The second's hash tag is
/// the first's name, so that a script finds both on one node.
const SUPPRESSED: &str = "flowcast:suppressed";
const SUPPRESSED_VERSION: &str = "{flowcast:suppressed}:version";
/// The key that seals the addresses of reports where none is configured.
const CALLBACK_KEY: &str = "flowcast:callback_key";
/// A request must begin so long before its claim runs out, its own time-out not counted.
const MARGIN: Duration = Duration::from_secs(5);
/// How many commands are on their way at once where many are sent.
const WINDOW: usize = 64;
/// What is said of a message whose worker went silent.
const RAN_OUT: &str = "the worker that was sending it went silent, and its claim ran out";

/// A ledger in Redis.
#[derive(Clone)]
pub struct Redis {
    server: RedisServer,
    /// Names this worker, and with a number its claims.
    session: u32,
    claims: Arc<AtomicU64>,
    request_timeout: Duration,
}

impl From<Fault> for LedgerError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Away(text) => Self::Away(format!("is away: {text}")),
            Fault::Refused(text) => Self::Away(text),
        }
    }
}

impl Redis {
    /// The ledger at an address. `request_timeout` is the longest that a request of this worker takes:
    /// a claim holds a little longer.
    ///
    /// # Errors
    ///
    /// When the server can't be reached or used.
    pub async fn connect(
        addresses: &SecretString,
        patience: Patience,
        request_timeout: Duration,
    ) -> Result<Self, LedgerError> {
        let server = RedisServer::connect(addresses, patience).await?;
        Ok(Self::on(server, request_timeout))
    }

    /// The ledger on a server that is known.
    pub fn on(server: RedisServer, request_timeout: Duration) -> Self {
        Self { server, session: rand::random(), claims: Arc::default(), request_timeout }
    }

    /// Forgets campaigns that ended so long ago. Returns how many.
    ///
    /// # Errors
    ///
    /// When Redis is away.
    pub async fn forget_ended(&self, before: jiff::Timestamp) -> Result<u64, LedgerError> {
        let mut forgotten = 0;
        for id in self.ids(CAMPAIGNS).await? {
            let mut ask = redis::cmd("HMGET");
            ask.arg(Keys(&id).campaign()).arg(&["state", "finished_at", "announced"]);
            let (state, finished, announced): (Option<String>, Option<i64>, Option<String>) =
                self.server.command(&ask).await?;
            let ended = finished.is_some_and(|at| at < before.as_millisecond()) && state == announced;
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
            self.server.command(redis::cmd("ZSCORE").arg(CAMPAIGNS).arg(id.as_str())).await?;
        Ok(score.is_some_and(|at| at > (jiff::Timestamp::now().as_millisecond() - 3_600_000) as f64))
    }

    /// The ids in a sorted or plain set, the first first.
    async fn ids(&self, key: &str) -> Result<Vec<CampaignId>, LedgerError> {
        let all: Vec<String> = if key == ACTIVE {
            self.server.command(redis::cmd("SMEMBERS").arg(key)).await?
        } else {
            self.server.command(redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("REV")).await?
        };
        Ok(all.iter().filter_map(|id| id.parse().ok()).collect())
    }

    async fn set(&self, key: String) -> Result<Vec<u32>, LedgerError> {
        let mut numbers: Vec<u32> = self.server.command(redis::cmd("SMEMBERS").arg(key)).await?;
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn activate(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let _: u64 = self.server.command(redis::cmd("SADD").arg(ACTIVE).arg(id.as_str())).await?;
        Ok(())
    }

    /// The campaign that stands for a job without an id, by its content; else it is this one.
    async fn unnamed(&self, new: &NewCampaign) -> Result<CampaignId, LedgerError> {
        let key = format!("flowcast:unnamed:{}", new.fingerprint);
        let known: Option<String> =
            if new.again { self.server.command(redis::cmd("GET").arg(&key)).await? } else { None };
        if let Some(known) = known.and_then(|known| known.parse().ok()) {
            return Ok(known);
        }
        // Long enough for every redelivery of the job.
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(new.id.as_str()).arg("EX").arg(30 * 86_400);
        let _: () = self.server.command(&set).await?;
        Ok(new.id.clone())
    }

    fn token(&self) -> u64 {
        let nth = self.claims.fetch_add(1, Ordering::Relaxed);
        (u64::from(self.session) << 32) | (nth & 0xffff_ffff)
    }

    /// Does something for many batches, some at a time, and adds up what it did.
    async fn for_each<F: Future<Output = Result<u64, LedgerError>>>(
        batches: Vec<u32>,
        work: impl Fn(u32) -> F,
    ) -> Result<u64, LedgerError> {
        use futures_util::{StreamExt, TryStreamExt, stream};
        let window = stream::iter(batches.into_iter().map(work)).buffer_unordered(WINDOW);
        window.try_fold(0, |sum, done| async move { Ok(sum + done) }).await
    }
}

impl Ledger for Redis {
    const SHARED: bool = true;

    async fn register(&self, new: NewCampaign) -> Result<Campaign, LedgerError> {
        let id = if new.named { new.id.clone() } else { self.unnamed(&new).await? };
        // Listed first: a campaign that nobody looks after would be lost, an empty name on a list is
        // only forgotten again.
        let now = jiff::Timestamp::now().as_millisecond();
        let mut list = redis::cmd("ZADD");
        list.arg(CAMPAIGNS).arg("NX").arg(now).arg(id.as_str());
        let _: u64 = self.server.command(&list).await?;
        self.activate(&id).await?;
        let keys = Keys(&id);
        let columns = serde_json::Value::from(new.columns.clone()).to_string();
        let (rows, size, name) =
            (new.rows.to_string(), new.batch_size.to_string(), new.name.clone().unwrap_or_default());
        let mut args: Vec<Arg> = vec![
            Arg::from(&new.fingerprint),
            Arg::from(&new.job),
            Arg::from(&columns),
            Arg::from(new.rehearsal),
        ];
        for (field, value) in [
            ("name", &name),
            ("account", &new.account),
            ("audience", &new.audience),
            ("rows", &rows),
            ("batch_size", &size),
        ] {
            args.extend([Arg::from(field), Arg::from(value)]);
        }
        loop {
            let stands: String =
                self.server.run(&SCRIPTS.register, &[keys.campaign(), keys.job()], &args).await?;
            match stands.as_str() {
                "rehearsal" => {
                    self.remove(&id).await?;
                    let _: u64 = self.server.command(&list).await?;
                    self.activate(&id).await?;
                }
                "real" => return Err(LedgerError::NotARehearsal(id)),
                "other" => return Err(LedgerError::OtherContent(id)),
                _ => break,
            }
        }
        self.campaign(&id).await?.ok_or(LedgerError::NoCampaign(id))
    }

    async fn campaign(&self, id: &CampaignId) -> Result<Option<Campaign>, LedgerError> {
        read::campaign(&self.server, id).await
    }

    async fn open(&self, id: &CampaignId) -> Result<u64, LedgerError> {
        let mut ask = redis::cmd("HMGET");
        ask.arg(Keys(id).campaign()).arg(&["pending", "sending"]);
        let counts: (Option<u64>, Option<u64>) = self.server.command(&ask).await?;
        let (Some(pending), Some(sending)) = counts else { return Err(LedgerError::NoCampaign(id.clone())) };
        Ok(pending + sending)
    }

    async fn campaigns(&self) -> Result<Vec<Campaign>, LedgerError> {
        use futures_util::{StreamExt, TryStreamExt, stream};
        let ids = self.ids(CAMPAIGNS).await?;
        let each = stream::iter(ids).map(async |id| read::campaign(&self.server, &id).await).buffered(WINDOW);
        each.try_filter_map(|campaign| async move { Ok(campaign) }).try_collect().await
    }

    async fn active(&self) -> Result<Vec<CampaignId>, LedgerError> {
        let mut ids = self.ids(ACTIVE).await?;
        ids.sort_unstable();
        Ok(ids)
    }

    async fn job(&self, id: &CampaignId) -> Result<StoredJob, LedgerError> {
        let mut pipe = redis::pipe();
        pipe.get(Keys(id).job()).hget(Keys(id).campaign(), "columns");
        let (job, columns): (Option<String>, Option<String>) = self.server.pipeline(&pipe).await?;
        let job = job.ok_or_else(|| LedgerError::NoCampaign(id.clone()))?;
        let columns = serde_json::from_str(&columns.unwrap_or_default())
            .map_err(|fault| LedgerError::Storage(format!("has damaged columns of {id}: {fault}")))?;
        Ok(StoredJob { job, columns })
    }

    async fn change_state(
        &self,
        id: &CampaignId,
        to: CampaignState,
        reason: Option<String>,
    ) -> Result<(), LedgerError> {
        if self.campaign(id).await?.is_some() {
            // Whatever its new state, somebody must tell others of it.
            self.activate(id).await?;
        }
        let reason = reason.unwrap_or_default();
        let args = [Arg::from(to.as_str()), Arg::from(&reason), Arg::from(moves_of_campaigns())];
        let done: String = self.server.run(&SCRIPTS.state, &[Keys(id).campaign()], &args).await?;
        if done == "ok" {
            // Again: a worker that was just done with the state before may have taken it off the list.
            self.activate(id).await?;
        }
        match (done.as_str(), done.parse()) {
            ("ok", _) => Ok(()),
            (_, Ok(from)) => Err(LedgerError::IllegalMove { id: id.clone(), from, to }),
            _ => Err(LedgerError::NoCampaign(id.clone())),
        }
    }

    async fn note(&self, id: &CampaignId, note: Option<String>) -> Result<(), LedgerError> {
        let note = note.unwrap_or_default();
        let _: u64 = self.server.run(&SCRIPTS.note, &[Keys(id).campaign()], &[Arg::from(&note)]).await?;
        Ok(())
    }

    async fn complete(&self, id: &CampaignId) -> Result<bool, LedgerError> {
        let done: u64 = self.server.run(&SCRIPTS.complete, &[Keys(id).campaign()], &[]).await?;
        Ok(done == 1)
    }

    async fn announced(&self, id: &CampaignId, state: CampaignState) -> Result<(), LedgerError> {
        let mut set = redis::cmd("HSET");
        set.arg(Keys(id).campaign()).arg("announced").arg(state.as_str());
        let _: u64 = self.server.command(&set).await?;
        if matches!(state, CampaignState::Completed | CampaignState::Cancelled) {
            let _: u64 = self.server.command(redis::cmd("SREM").arg(ACTIVE).arg(id.as_str())).await?;
            // A retry may have woken it in between; then it is to be looked after again.
            let now: Option<String> =
                self.server.command(redis::cmd("HGET").arg(Keys(id).campaign()).arg("state")).await?;
            if now.as_deref() != Some(state.as_str()) {
                self.activate(id).await?;
            }
        }
        Ok(())
    }

    async fn attend(&self, id: &CampaignId, held: u64) -> Result<Attendance, LedgerError> {
        let session = self.session.to_string();
        let patience = ATTENTION.as_micros() as u64;
        let args = [Arg::from(&session), Arg::from(held), Arg::from(patience)];
        let keys = [Keys(id).campaign(), Keys(id).workers()];
        let (leads, held): (u64, u64) = self.server.run(&SCRIPTS.attend, &keys, &args).await?;
        Ok(Attendance { leads: leads == 1, held })
    }

    async fn leave(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let session = self.session.to_string();
        let keys = [Keys(id).campaign(), Keys(id).workers()];
        let _: u64 = self.server.run(&SCRIPTS.leave, &keys, &[Arg::from(&session)]).await?;
        Ok(())
    }

    async fn plan(&self, id: &CampaignId) -> Result<Plan, LedgerError> {
        read::plan(&self.server, id).await
    }

    async fn checkpoint(
        &self,
        id: &CampaignId,
        after: u64,
        checkpoint: Checkpoint,
        batches: Vec<PlannedBatch>,
        skipped: Vec<SkippedRow>,
    ) -> Result<(), LedgerError> {
        let keys = Keys(id);
        let mut names = vec![keys.campaign(), keys.open(), keys.skipped()];
        names.extend(batches.iter().flat_map(|batch| [keys.batch(batch.number), keys.meta(batch.number)]));
        let metas: Vec<Vec<u8>> = batches.iter().map(meta).collect();
        let mut reasons = BTreeMap::<&str, u64>::new();
        for row in &skipped {
            *reasons.entry(row.reason.as_str()).or_default() += 1;
        }
        let now = jiff::Timestamp::now();
        let lines: Vec<String> = skipped.iter().map(|row| layout::skipped_line(row, now)).collect();
        let mut args: Vec<Arg> = vec![
            after.into(),
            checkpoint.rows.into(),
            u64::from(checkpoint.batches).into(),
            Arg::from(&checkpoint.digest),
            checkpoint.complete.into(),
            (batches.len() as u64).into(),
        ];
        for (batch, meta) in batches.iter().zip(&metas) {
            args.extend([u64::from(batch.number).into(), Arg::Bytes(meta)]);
        }
        args.push((reasons.len() as u64).into());
        args.extend(reasons.iter().flat_map(|(reason, count)| [Arg::from(*reason), Arg::from(*count)]));
        args.extend(lines.iter().map(Arg::from));
        let done: String = self.server.run(&SCRIPTS.checkpoint, &names, &args).await?;
        match done.as_str() {
            "stale" => Err(LedgerError::StalePlan(id.clone())),
            "unknown" => Err(LedgerError::NoCampaign(id.clone())),
            _ => Ok(()),
        }
    }

    async fn hold_back(&self, id: &CampaignId, barrier: &Barrier, reason: String) -> Result<(), LedgerError> {
        self.activate(id).await?;
        let word = barrier.word();
        let args = [Arg::from(&word), Arg::from(&reason)];
        let _: u64 = self.server.run(&SCRIPTS.hold_back, &[Keys(id).campaign()], &args).await?;
        Ok(())
    }

    async fn close(&self, barrier: &Barrier, reason: String, probes: bool) -> Result<bool, LedgerError> {
        let wait = if probes { FIRST_PROBE.as_micros() as u64 } else { 0 };
        let args = [Arg::from(&reason), wait.into()];
        let was_up: u64 = self.server.run(&SCRIPTS.close, &[barrier_key(barrier)], &args).await?;
        Ok(was_up == 1)
    }

    async fn hold(&self, barrier: &Barrier) -> Result<Option<Hold>, LedgerError> {
        let known: Vec<String> = self.server.run(&SCRIPTS.hold, &[barrier_key(barrier)], &[]).await?;
        let [reason, since, due] = &known[..] else { return Ok(None) };
        let since = since.parse().ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
        Ok(Some(Hold { reason: reason.clone(), since: since.unwrap_or_default(), probe_is_due: due == "1" }))
    }

    async fn probe(&self, barrier: &Barrier) -> Result<bool, LedgerError> {
        let args = [Arg::from(LAST_PROBE.as_micros() as u64)];
        let taken: u64 = self.server.run(&SCRIPTS.probe, &[barrier_key(barrier)], &args).await?;
        Ok(taken == 1)
    }

    async fn lift(&self, barrier: &Barrier) -> Result<bool, LedgerError> {
        let lifted: u64 = self.server.command(redis::cmd("DEL").arg(barrier_key(barrier))).await?;
        Ok(lifted == 1)
    }

    async fn claim(
        &self,
        batch: PlannedBatch,
        messages: Vec<u8>,
        purpose: Purpose,
    ) -> Result<Claim, LedgerError> {
        let keys = Keys(&batch.campaign);
        let names = [keys.campaign(), keys.batch(batch.number), keys.meta(batch.number), keys.claims()];
        let (digest, token) = (digest(&batch), self.token());
        let text = token.to_string();
        let holds = (self.request_timeout + MARGIN * 2).as_micros() as u64;
        let args = [
            Arg::Bytes(&digest),
            Arg::Bytes(&messages),
            Arg::from(&text),
            holds.into(),
            u64::from(batch.number).into(),
            (purpose == Purpose::Probe).into(),
        ];
        loop {
            let asked = Instant::now();
            let answer: Vec<Vec<u8>> = self.server.run(&SCRIPTS.claim, &names, &args).await?;
            let mut parts = answer.into_iter();
            let (word, granted) = (parts.next().unwrap_or_default(), parts.next());
            match word.as_slice() {
                b"granted" => {
                    // An answer that took long may tell of a claim that is old already; asked again
                    // under the same token, it holds anew.
                    if asked.elapsed() >= MARGIN {
                        continue;
                    }
                    let messages = granted.unwrap_or_default();
                    return Ok(Claim { messages, running: true, token, start_by: Some(asked + MARGIN) });
                }
                b"closed" => {
                    return Ok(Claim { messages: Vec::new(), running: false, token, start_by: None });
                }
                b"missing" => {
                    let meta = meta(&batch);
                    let args = [u64::from(batch.number).into(), Arg::Bytes(&meta)];
                    let names = [names[0].clone(), names[1].clone(), names[2].clone(), keys.open()];
                    let _: u64 = self.server.run(&SCRIPTS.plan, &names, &args).await?;
                }
                b"other" => return Err(LedgerError::OtherPlan(batch.campaign.clone(), batch.number)),
                _ => return Err(LedgerError::NoCampaign(batch.campaign.clone())),
            }
        }
    }

    async fn record(
        &self,
        id: &CampaignId,
        batch: u32,
        token: u64,
        outcomes: Vec<Recorded>,
    ) -> Result<u64, LedgerError> {
        let keys = Keys(id);
        let names = [
            keys.campaign(),
            keys.batch(batch),
            keys.meta(batch),
            keys.open(),
            keys.claims(),
            keys.payload(batch),
            keys.texts(),
            keys.failed(),
            keys.again(),
        ];
        let token = token.to_string();
        let words: Vec<(String, String)> =
            outcomes.iter().map(|recorded| layout::words(&recorded.outcome)).collect();
        let mut args: Vec<Arg> =
            vec![Arg::from(&token), u64::from(batch).into(), Arg::from(moves_of_messages())];
        for (recorded, (word, text)) in outcomes.iter().zip(&words) {
            args.extend([
                u64::from(recorded.message).into(),
                Arg::from(recorded.outcome.state().as_str()),
                Arg::from(word),
                Arg::from(text),
                Arg::from(recorded.payload.as_deref().unwrap_or_default()),
            ]);
        }
        Ok(self.server.run(&SCRIPTS.record, &names, &args).await?)
    }

    async fn hear(
        &self,
        id: &CampaignId,
        batch: u32,
        heard: Vec<Heard>,
    ) -> Result<Vec<Option<Learnt>>, LedgerError> {
        self.take_reports(id, batch, &heard).await
    }

    async fn told(&self, id: &CampaignId, _batch: u32, answer: String) -> Result<(), LedgerError> {
        let _: u64 = self.server.command(redis::cmd("SREM").arg(Keys(id).untold()).arg(answer)).await?;
        Ok(())
    }

    async fn responses(&self, id: &CampaignId, from: u32) -> Result<ResponsePage, LedgerError> {
        read::responses(&self.server, id, from).await
    }

    async fn oldest_doubt(&self, id: &CampaignId) -> Result<Option<jiff::Timestamp>, LedgerError> {
        read::oldest_doubt(&self.server, id, &self.set(Keys(id).failed()).await?).await
    }

    async fn decided(&self, id: &CampaignId, line: String) -> Result<(), LedgerError> {
        let mut push = redis::cmd("RPUSH");
        push.arg(Keys(id).decisions()).arg(line);
        let _: u64 = self.server.command(&push).await?;
        Ok(())
    }

    async fn decisions(&self, id: &CampaignId) -> Result<Vec<String>, LedgerError> {
        let mut range = redis::cmd("LRANGE");
        range.arg(Keys(id).decisions()).arg(0).arg(-1);
        Ok(self.server.command(&range).await?)
    }

    async fn suppress(&self, numbers: Vec<Phone>, how: Suppress) -> Result<u64, LedgerError> {
        let keys = [SUPPRESSED.to_owned(), SUPPRESSED_VERSION.to_owned()];
        let command = if how == Suppress::Add { "SADD" } else { "SREM" };
        let mut changed = 0;
        // In one script: a number whose version was not raised would still be written to.
        for some in numbers.chunks(1000) {
            let mut args = vec![Arg::from(command)];
            args.extend(some.iter().map(|phone| Arg::from(phone.digits())));
            changed += self.server.run::<u64>(&SCRIPTS.suppress, &keys, &args).await?;
        }
        Ok(changed)
    }

    async fn suppressed(&self, known: u64) -> Result<Option<Suppressed>, LedgerError> {
        let version: Option<u64> = self.server.command(redis::cmd("GET").arg(SUPPRESSED_VERSION)).await?;
        let version = version.unwrap_or_default();
        if version == known {
            return Ok(None);
        }
        let (mut numbers, mut cursor) = (roaring::RoaringTreemap::new(), 0_u64);
        loop {
            let mut scan = redis::cmd("SSCAN");
            scan.arg(SUPPRESSED).arg(cursor).arg("COUNT").arg(1000);
            let (next, page): (u64, Vec<u64>) = self.server.command(&scan).await?;
            numbers.extend(page);
            cursor = next;
            if cursor == 0 {
                return Ok(Some(Suppressed { version, numbers }));
            }
        }
    }

    async fn callback_key(&self) -> Result<String, LedgerError> {
        let mut make = redis::cmd("SET");
        make.arg(CALLBACK_KEY).arg(new_key()).arg("NX");
        let _: Option<String> = self.server.command(&make).await?;
        Ok(self.server.command(redis::cmd("GET").arg(CALLBACK_KEY)).await?)
    }

    async fn expire_claims(&self, id: &CampaignId, resend: bool) -> Result<u64, LedgerError> {
        let keys = Keys(id);
        let mut expired = 0;
        loop {
            let due: Vec<String> = self.server.run(&SCRIPTS.due, &[keys.claims()], &[]).await?;
            if due.is_empty() {
                return Ok(expired);
            }
            for member in &due {
                let (token, batch) = member.split_once(':').unwrap_or((member, "0"));
                let number = batch.parse().unwrap_or_default();
                let names = [
                    keys.campaign(),
                    keys.batch(number),
                    keys.meta(number),
                    keys.open(),
                    keys.claims(),
                    keys.texts(),
                    keys.failed(),
                    keys.again(),
                ];
                let args = [Arg::from(token), Arg::from(batch), resend.into(), Arg::from(RAN_OUT)];
                expired += self.server.run::<u64>(&SCRIPTS.expire, &names, &args).await?;
            }
        }
    }

    async fn decide(&self, id: &CampaignId, decision: Decision) -> Result<u64, LedgerError> {
        let keys = Keys(id);
        let cancelled = Outcome::Skipped {
            reason: SkipReason::Cancelled,
            detail: "the campaign was cancelled first".into(),
        };
        let abandoned = Outcome::Rejected { code: ABANDONED.into(), detail: ABANDONED_TEXT.into() };
        let (from, outcome, set) = match &decision {
            Decision::Retry(_) => ("rejected", Outcome::Released, keys.failed()),
            Decision::Resend { .. } => ("in_doubt", Outcome::Released, keys.failed()),
            Decision::Abandon { .. } => ("in_doubt", abandoned, keys.failed()),
            Decision::Cancel => ("pending", cancelled, keys.open()),
        };
        let codes: &[String] = if let Decision::Retry(codes) = &decision { codes } else { &[] };
        let (left_out, resting) =
            if matches!(decision, Decision::Retry(_)) { (ABANDONED, RESTING.0) } else { ("-", "-") };
        let (word, text) = layout::words(&outcome);
        let batches = self.set(set).await?;
        let decide = async |number: u32| {
            let names = [
                keys.campaign(),
                keys.batch(number),
                keys.meta(number),
                keys.open(),
                keys.payload(number),
                keys.texts(),
                keys.failed(),
                keys.again(),
            ];
            let mut args = vec![
                u64::from(number).into(),
                Arg::from(from),
                Arg::from(outcome.state().as_str()),
                Arg::from(&word),
                Arg::from(&text),
                Arg::from(left_out),
                Arg::from(resting),
                (RESTING.1.as_millis() as u64).into(),
                (decision.older_than().as_millis() as u64).into(),
            ];
            args.extend(codes.iter().map(Arg::from));
            Ok(self.server.run::<u64>(&SCRIPTS.decide, &names, &args).await?)
        };
        Self::for_each(batches, decide).await
    }

    async fn again(&self, id: &CampaignId, known: BTreeMap<u32, u64>) -> Result<Vec<Again>, LedgerError> {
        let all: BTreeMap<u32, u64> =
            self.server.command(redis::cmd("HGETALL").arg(Keys(id).again())).await?;
        let news = all.into_iter().filter(|(number, since)| known.get(number) != Some(since));
        read::again(&self.server, id, &news.take(WINDOW).collect::<Vec<_>>()).await
    }

    async fn remove(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let keys = Keys(id);
        let batches = (0..read::written(&self.server, id).await?).collect();
        Self::for_each(batches, async |number| {
            let mut unlink = redis::cmd("UNLINK");
            unlink.arg(keys.batch(number)).arg(keys.meta(number)).arg(keys.payload(number));
            unlink.arg(keys.deliveries(number)).arg(keys.responses(number));
            Ok(self.server.command::<u64>(&unlink).await?)
        })
        .await?;
        let mut unlink = redis::cmd("UNLINK");
        unlink.arg(&keys.whole()[..]);
        let _: u64 = self.server.command(&unlink).await?;
        let _: u64 = self.server.command(redis::cmd("SREM").arg(ACTIVE).arg(id.as_str())).await?;
        let _: u64 = self.server.command(redis::cmd("ZREM").arg(CAMPAIGNS).arg(id.as_str())).await?;
        Ok(())
    }

    async fn report(&self, id: &CampaignId, from: Cursor) -> Result<ReportPage, LedgerError> {
        read::report(&self.server, id, from).await
    }
}
