//! Batches in Redis: the recipients and the record are strings, the outcomes a hash for other systems.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use redis::{FromRedisValue, Value};

use super::layout::{Keys, field};
use super::transaction::{Command, Key, Transaction, TransactionOutcome};
use super::{Redis, hash_payload::HashDump, journal::Journal};
use crate::campaign::{CampaignId, Phone};
use crate::ledger::{
    BatchUpdate, Batches, CasOutcome, ClaimPurpose, Clock, LedgerError, ListEntry, PlannedBatch, StoredBatch,
    batches::MARGIN, campaigns::ClaimAdmission, change::Change, plans::DIGEST, record::BatchRecord,
    throughput::SECONDS,
};
use crate::redis_client::RedisClientError;

/// Approximate size of an outcome (number, state, SID), in bytes.
const FIELD: usize = 64;
/// Delay before a claim is repeated that too few replicas have.
const REPLICA_WAIT: Duration = Duration::from_millis(200);
/// Interval between checks of a full disk.
const ROOM_WAIT: Duration = Duration::from_millis(200);
/// Number of expired claims read with one call.
const DUE: u32 = 100;

fn damaged(error: &redis::ParsingError) -> LedgerError {
    LedgerError::Storage(format!("has a damaged batch: {error}"))
}

impl Redis {
    /// Reads a value of each batch, with one pipeline.
    pub(super) async fn of_each<T: FromRedisValue>(
        &self,
        numbers: &[u32],
        command: impl Fn(u32) -> redis::Cmd,
    ) -> Result<Vec<T>, LedgerError> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::pipe();
        for number in numbers {
            pipe.add_command(command(*number));
        }
        Ok(self.client.pipeline(&pipe).await?)
    }
}

impl Batches for Redis {
    fn token(&self) -> u64 {
        let nth = self.claims.fetch_add(1, Ordering::Relaxed);
        (u64::from(self.session) << 32) | (nth & 0xffff_ffff)
    }

    fn claims_run_out(&self) -> bool {
        true
    }

    async fn load(&self, id: &CampaignId, numbers: &[u32]) -> Result<Vec<Option<StoredBatch>>, LedgerError> {
        let mget = |number| redis::cmd("MGET").arg((Keys(id).plan(number), Keys(id).record(number))).clone();
        let kept: Vec<[Option<Vec<u8>>; 2]> = self.of_each(numbers, mget).await?;
        let mut batches = Vec::with_capacity(numbers.len());
        for (number, [plan, record]) in numbers.iter().zip(kept) {
            let Some(plan) = plan else {
                batches.push(None);
                continue;
            };
            let batch = PlannedBatch::read(id, *number, &plan)?;
            let record = BatchRecord::read(&record.unwrap_or_default(), batch.recipients.len())?;
            batches.push(Some(StoredBatch { batch, record }));
        }
        Ok(batches)
    }

    async fn update_batch(&self, swap: BatchUpdate<'_>) -> Result<CasOutcome, LedgerError> {
        let mut transaction = self.transaction(&swap, self.takes_dumps.load(Ordering::Relaxed));
        if let Some(journal) = &self.journal {
            self.wait_for_room(journal).await;
        }
        // Only a claim, which a request follows, must survive a failover.
        let replicas = if swap.purpose.is_some() { self.replicas } else { 0 };
        loop {
            let (done, is_replicated) = match transaction.run(&self.client, replicas).await {
                // RESTORE is the first command, so nothing is written yet.
                // An existing hash does not mean that the server rejects the next payload.
                Err(RedisClientError::KeyExists(_)) if transaction.restores => {
                    transaction = self.transaction(&swap, false);
                    continue;
                }
                Err(RedisClientError::Refused(why)) if transaction.restores => {
                    tracing::info!(error = %why, "Redis rejected RESTORE; falling back to HSET");
                    self.takes_dumps.store(false, Ordering::Relaxed);
                    transaction = self.transaction(&swap, false);
                    continue;
                }
                done => done?,
            };
            let (check, found) = match done {
                TransactionOutcome::Written(_) if replicas > 0 && !self.heeds_replicas(is_replicated) => {
                    // It is claimed again with the same token, and gets a new deadline when enough replicas have it.
                    tokio::time::sleep(REPLICA_WAIT).await;
                    return Ok(CasOutcome::Stale);
                }
                TransactionOutcome::Written(answers) => {
                    if let Some(journal) = &self.journal {
                        journal.batch(self.now(), swap.batch, swap.change)?;
                    }
                    return written(&swap, answers);
                }
                TransactionOutcome::Failed { check, found } => (check, found),
            };
            // A known record was written together with this plan, so the plan is checked only without one.
            match check + i64::from(swap.change.known > 0) {
                // The batch is claimed before its checkpoint.
                1 if found.is_empty() => {
                    if !self.plan_batch(swap.batch).await? {
                        return Ok(CasOutcome::unplanned(swap.purpose));
                    }
                }
                1 => return Err(LedgerError::OtherPlan(swap.batch.campaign.clone(), swap.batch.number)),
                2 => return Ok(CasOutcome::NotAdmitted),
                // The server may have lost claims: nothing is granted until that is resolved.
                3 if swap.purpose.is_some() => return Ok(CasOutcome::NotAdmitted),
                check if swap.change.reopens && check == 3 + i64::from(swap.purpose.is_some()) => {
                    return Ok(CasOutcome::Ended);
                }
                _ => return Ok(CasOutcome::Stale),
            }
        }
    }

    async fn compare(&self, id: &CampaignId) -> Result<bool, LedgerError> {
        self.compare_campaign(id).await
    }

    async fn due_claims(&self, id: &CampaignId) -> Result<Vec<(u64, u32)>, LedgerError> {
        // This worker's clock follows the server's; the margin covers the difference.
        let due = (Keys(id).claims(), "-inf", self.now() * 1000, "BYSCORE", "LIMIT", 0, DUE);
        let members: Vec<String> = self.client.command(redis::cmd("ZRANGE").arg(due)).await?;
        let claim = |member: &String| {
            let (token, batch) = member.split_once(':')?;
            Some((token.parse().ok()?, batch.parse().ok()?))
        };
        Ok(members.iter().filter_map(claim).collect())
    }

    async fn forget_claim(&self, id: &CampaignId, token: u64, batch: u32) -> Result<(), LedgerError> {
        let claim = (Keys(id).claims(), format!("{token}:{batch}"));
        Ok(self.client.command(redis::cmd("ZREM").arg(claim)).await?)
    }

    async fn listed(&self, id: &CampaignId, listed: ListEntry) -> Result<Vec<u32>, LedgerError> {
        let key = match listed {
            ListEntry::Open => Keys(id).open(),
            ListEntry::Failed => Keys(id).failed(),
            ListEntry::All => return Ok((0..self.batches_of(id).await?).collect()),
        };
        let mut numbers: Vec<u32> = self.client.command(redis::cmd("SMEMBERS").arg(key)).await?;
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn replays(&self, id: &CampaignId) -> Result<BTreeMap<u32, u64>, LedgerError> {
        Ok(self.client.command(redis::cmd("HGETALL").arg(Keys(id).replays())).await?)
    }

    async fn payloads(
        &self,
        id: &CampaignId,
        numbers: &[u32],
    ) -> Result<Vec<BTreeMap<u8, String>>, LedgerError> {
        let all = |number| redis::cmd("HGETALL").arg(Keys(id).payload(number)).clone();
        self.of_each(numbers, all).await
    }

    async fn deliveries(&self, id: &CampaignId, numbers: &[u32]) -> Result<Vec<Vec<u8>>, LedgerError> {
        let get = |number| redis::cmd("GET").arg(Keys(id).deliveries(number)).clone();
        let kept: Vec<Option<Vec<u8>>> = self.of_each(numbers, get).await?;
        Ok(kept.into_iter().map(Option::unwrap_or_default).collect())
    }
}

impl Redis {
    /// Waits until the journal has room for the next write.
    ///
    /// A claim that is in Redis and not in the journal would be in doubt, although it was never sent.
    async fn wait_for_room(&self, journal: &Journal) {
        while let Err(error) = journal.reserve() {
            let why = format!(
                "cannot write the worker's journal to the folder for temporary files (TMPDIR): {error}"
            );
            if self.lacks_room.lock().replace(why.clone()).is_none() {
                tracing::warn!("sending stops: {why}");
            }
            tokio::time::sleep(ROOM_WAIT).await;
        }
        if self.lacks_room.lock().take().is_some() {
            tracing::info!("the worker's journal can be written again");
        }
    }

    /// Records whether enough replicas have a claim, and logs changes of that.
    fn heeds_replicas(&self, is_replicated: bool) -> bool {
        if self.lacks_replicas.swap(!is_replicated, Ordering::Relaxed) == is_replicated {
            if is_replicated {
                tracing::info!("Redis has enough replicas again");
            } else {
                tracing::warn!(required = self.replicas, "sending stops: Redis has too few replicas in step");
            }
        }
        is_replicated
    }

    /// Returns the transaction of a compare-and-swap. With `dumps` the first outcomes of a batch are a payload.
    fn transaction(&self, swap: &BatchUpdate<'_>, dumps: bool) -> Transaction {
        let BatchUpdate { batch, purpose, change } = swap;
        let keys = Keys(&batch.campaign);
        let mut transaction = Transaction::default();
        let campaign = transaction.key(keys.campaign());
        if change.known == 0 {
            let plan = transaction.key(keys.plan(batch.number));
            let digest: [u8; DIGEST] = batch.digest();
            transaction.check_start(plan, &digest, false);
        }
        let all =
            [ClaimAdmission::All, ClaimAdmission::Probes, ClaimAdmission::None].map(ClaimAdmission::as_str);
        let admits = match purpose {
            Some(ClaimPurpose::Send) => &all[..1],
            Some(ClaimPurpose::Probe) => &all[..2],
            None => &all[..],
        };
        transaction.check_field(campaign, "admits", admits);
        if purpose.is_some() {
            transaction.check_epoch(campaign);
        }
        if change.reopens {
            transaction.check_has_not_ended(campaign);
        }
        write_outcomes(&mut transaction, batch, change, dumps);
        write_record(&mut transaction, batch, change);
        self.write_claims(&mut transaction, batch, change);
        write_counters(&mut transaction, campaign, batch, change);
        write_lists(&mut transaction, batch, change);
        if change.settled > 0 {
            let tick = transaction.key(keys.tick(self.now() / 1000));
            let (settled, seconds) = (change.settled.to_string(), (SECONDS + 5).to_string());
            transaction.command(Command::Tick, tick, &[settled, seconds]);
        }
        write_responses(&mut transaction, batch, change);
        if asks_what_is_open(swap) {
            transaction.command(Command::HMGet, campaign, &["pending", "sending"]);
        }
        transaction
    }

    /// Adds the new claims with their deadlines, and removes the released ones.
    fn write_claims(&self, transaction: &mut Transaction, batch: &PlannedBatch, change: &Change) {
        if change.claimed.is_empty() && change.released.is_empty() {
            return;
        }
        let (claims, number) = (transaction.key(Keys(&batch.campaign).claims()), batch.number);
        let holds = (self.request_timeout + MARGIN * 2).as_micros().to_string();
        for token in &change.claimed {
            transaction.command(Command::Due, claims, &[&holds, &format!("{token}:{number}")]);
        }
        let released: Vec<String> = change.released.iter().map(|token| format!("{token}:{number}")).collect();
        if !released.is_empty() {
            transaction.command(Command::ZRem, claims, &released);
        }
    }
}

/// Replaces the record and the delivery progress, each if it is still the one that the change was made from.
fn write_record(transaction: &mut Transaction, batch: &PlannedBatch, change: &Change) {
    let keys = Keys(&batch.campaign);
    if let Some(record) = &change.record {
        let key = transaction.key(keys.record(batch.number));
        let known = change.known.to_le_bytes();
        transaction.check_start(key, if change.known == 0 { b"" } else { &known }, false);
        transaction.command(Command::Set, key, &[record.bytes()]);
    }
    if let Some((before, after)) = &change.deliveries {
        let key = transaction.key(keys.deliveries(batch.number));
        transaction.check_start(key, before, true);
        transaction.command(Command::Set, key, &[after]);
    }
}

/// Writes the campaign's counters and texts, and the provider's id of the request.
fn write_counters(transaction: &mut Transaction, campaign: Key, batch: &PlannedBatch, change: &Change) {
    let keys = Keys(&batch.campaign);
    for (counter, by) in &change.counters {
        transaction.add(campaign, &field(counter), *by);
    }
    if !change.texts.is_empty() {
        let texts = transaction.key(keys.texts());
        for (text, words) in &change.texts {
            transaction.command(Command::HSetNx, texts, &[&field(text), words]);
        }
    }
    if let Some(request) = &change.request {
        let requests = transaction.key(keys.requests());
        transaction.command(Command::HSet, requests, &[&batch.number.to_string(), request]);
    }
}

/// Writes the stored values of messages, and the batch's entries in the campaign's lists.
fn write_lists(transaction: &mut Transaction, batch: &PlannedBatch, change: &Change) {
    let (keys, number) = (Keys(&batch.campaign), batch.number.to_string());
    if !change.payloads.is_empty() {
        let payloads = transaction.key(keys.payload(batch.number));
        for (place, payload) in &change.payloads {
            let place = place.to_string();
            match payload {
                Some(payload) => transaction.command(Command::HSet, payloads, &[&place, payload]),
                None => transaction.command(Command::HDel, payloads, &[&place]),
            }
        }
    }
    for (listed, key) in [(change.open, keys.open()), (change.failed, keys.failed())] {
        if let Some(listed) = listed {
            let key = transaction.key(key);
            transaction.command(if listed { Command::SAdd } else { Command::SRem }, key, &[&number]);
        }
    }
    if let Some(replay) = change.replay {
        let key = transaction.key(keys.replays());
        transaction.command(if replay { Command::Stamp } else { Command::HDel }, key, &[&number]);
    }
}

/// Writes replies, and asks whether they still have to be published.
fn write_responses(transaction: &mut Transaction, batch: &PlannedBatch, change: &Change) {
    if change.responses.is_empty() {
        return;
    }
    let keys = Keys(&batch.campaign);
    let responses = transaction.key(keys.responses(batch.number));
    let unpublished = transaction.key(keys.unpublished());
    for (key, json) in &change.responses {
        transaction.command_if(1, Command::HSetNx, responses, &[key, json]);
        transaction.command(Command::SAdd, unpublished, &[key]);
        transaction.command(Command::SIsMember, unpublished, &[key]);
    }
}

/// Writes the outcomes of a batch's messages for other systems: number, then state and code.
fn write_outcomes(transaction: &mut Transaction, batch: &PlannedBatch, change: &Change, dumps: bool) {
    let (mut set, mut removed) = (Vec::with_capacity(change.outcomes.len()), Vec::new());
    for (place, outcome) in &change.outcomes {
        match (batch.recipients.get(usize::from(*place)), outcome) {
            (None, _) => {}
            (Some((_, phone)), Some((state, word))) => set.push((*phone, state.as_str(), word.as_str())),
            (Some((_, phone)), None) => removed.push(phone.to_string()),
        }
    }
    if set.is_empty() && removed.is_empty() {
        return;
    }
    let outcomes = transaction.key(Keys(&batch.campaign).batch(batch.number));
    let space = |word: &str| if word.is_empty() { "" } else { " " };
    if dumps && change.are_first && removed.is_empty() {
        let mut hash = HashDump::with_capacity(set.len() * FIELD);
        for (phone, state, word) in &set {
            let mut digits = itoa::Buffer::new();
            hash.field(&["+", digits.format(phone.digits())], &[state, space(word), word]);
        }
        if let Some(payload) = hash.payload() {
            return transaction.restore(outcomes, &payload);
        }
    }
    let pair = |(phone, state, word): &(Phone, &str, &str)| {
        [phone.to_string(), format!("{state}{}{word}", space(word))]
    };
    let set: Vec<String> = set.iter().flat_map(pair).collect();
    for (command, args) in [(Command::HSet, set), (Command::HDel, removed)] {
        if !args.is_empty() {
            transaction.command(command, outcomes, &args);
        }
    }
}

/// Returns whether the number of open messages is needed: a claim alone cannot complete a campaign.
fn asks_what_is_open(swap: &BatchUpdate<'_>) -> bool {
    swap.purpose.is_none() || swap.change.settled > 0
}

/// Reads the answers of a transaction that was written: which replies to publish, and the number of open messages.
fn written(swap: &BatchUpdate<'_>, mut answers: Vec<Value>) -> Result<CasOutcome, LedgerError> {
    let mut open = u64::MAX;
    if asks_what_is_open(swap) {
        let counts = FromRedisValue::from_redis_value(answers.pop().unwrap_or(Value::Nil));
        let (pending, sending): (u64, u64) = counts.map_err(|error| damaged(&error))?;
        open = pending + sending;
    }
    let responses = answers.split_off(answers.len() - swap.change.responses.len() * 3);
    let responses = responses.chunks(3).map(|answers| answers[2] == Value::Int(1)).collect();
    Ok(CasOutcome::Done { open, responses })
}
