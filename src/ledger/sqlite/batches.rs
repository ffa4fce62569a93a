//! Batches in the embedded store: a row for each.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use rusqlite::{Connection, Row, Transaction, params, params_from_iter};

use super::campaigns::{open, state, tally, tick};
use super::plans::plan_batch;
use super::{
    Sqlite, batch_key, batch_number, each_row, execute, first_row, id_of, key, now, signed, unsigned,
};
use crate::campaign::{CampaignId, CampaignState, MessageState, Phone};
use crate::ledger::{
    BatchUpdate, Batches, CasOutcome, ClaimPurpose, LedgerError, ListEntry, PlannedBatch, StoredBatch,
    campaigns::ClaimAdmission, change::Change, plans::DIGEST, record::BatchRecord,
};

impl Sqlite {
    /// Returns the recipients of an account within a time span, and how long ago each got a message.
    ///
    /// With it a new process continues the account's limit of recipients.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn recipients(
        &self,
        account: &str,
        span: Duration,
    ) -> Result<Vec<(Phone, Duration)>, LedgerError> {
        let account = account.to_owned();
        let read = move |connection: &Connection| {
            let now = now();
            let since = now - i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 2);
            let mut statement = connection.prepare(
                "SELECT campaign.id, batch.key, batch.plan, batch.record FROM campaign JOIN batch
                   ON batch.key >= campaign.key << 32 AND batch.key < (campaign.key + 1) << 32
                 WHERE account = ?1 AND NOT rehearsal AND batch.updated_at > ?2",
            )?;
            let mut rows = statement.query(params![account, since])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let stored = stored(&id_of(row)?, row)?;
                let went_out = [MessageState::Accepted, MessageState::InDoubt];
                let each = stored.record.each().zip(&stored.batch.recipients);
                let written_to =
                    each.filter(|((_, message), _)| went_out.contains(&message.state) && message.at > since);
                let ago = |at: i64| Duration::from_millis(unsigned(now - at));
                all.extend(written_to.map(|((_, message), (_, phone))| (*phone, ago(message.at))));
            }
            Ok(all)
        };
        self.store.read(read).await
    }
}

/// Reads a batch from the columns `key`, `plan`, `record`.
fn stored(id: &CampaignId, row: &Row<'_>) -> Result<StoredBatch, LedgerError> {
    let number = batch_number(row.get("key")?);
    let bytes =
        |column| -> rusqlite::Result<_> { Ok(row.get_ref(column)?.as_blob_or_null()?.unwrap_or_default()) };
    let batch = PlannedBatch::read(id, number, bytes("plan")?)?;
    let record = BatchRecord::read(bytes("record")?, batch.recipients.len())?;
    Ok(StoredBatch { batch, record })
}

/// Reads a value of each batch, the default for a batch without one.
fn of_each<T: Default>(
    connection: &Connection,
    id: &CampaignId,
    numbers: &[u32],
    read: impl Fn(i64) -> Result<T, LedgerError>,
) -> Result<Vec<T>, LedgerError> {
    let Ok(campaign) = key(connection, id) else {
        return Ok(numbers.iter().map(|_| T::default()).collect());
    };
    numbers.iter().map(|number| read(batch_key(campaign, *number))).collect()
}

impl Batches for Sqlite {
    fn token(&self) -> u64 {
        let nth = self.claims.fetch_add(1, Ordering::Relaxed);
        (u64::from(self.session) << 32) | u64::from(nth)
    }

    fn claims_run_out(&self) -> bool {
        false
    }

    async fn load(&self, id: &CampaignId, numbers: &[u32]) -> Result<Vec<Option<StoredBatch>>, LedgerError> {
        let (id, numbers) = (id.clone(), numbers.to_vec());
        let read = move |connection: &Connection| {
            of_each(connection, &id, &numbers, |key| {
                let mut statement =
                    connection.prepare_cached("SELECT key, plan, record FROM batch WHERE key = ?1")?;
                let mut rows = statement.query([key])?;
                rows.next()?.map(|row| stored(&id, row)).transpose()
            })
        };
        self.store.read(read).await
    }

    async fn update_batch(&self, swap: BatchUpdate<'_>) -> Result<CasOutcome, LedgerError> {
        let (batch, purpose, change) = (swap.batch.clone(), swap.purpose, swap.change.clone());
        self.store.write(move |transaction| write(transaction, &batch, purpose, &change)).await
    }

    async fn due_claims(&self, id: &CampaignId) -> Result<Vec<(u64, u32)>, LedgerError> {
        let (id, session) = (id.clone(), self.session);
        let read = move |connection: &Connection| {
            let sql = "SELECT key, claims FROM batch
                 WHERE key >= ?1 << 32 AND key < (?1 + 1) << 32 AND claims IS NOT NULL AND session <> ?2";
            let claims = |row: &Row<'_>| Ok((batch_number(row.get(0)?), tokens(row.get_ref(1)?.as_blob()?)));
            let due: Vec<_> = each_row(connection, sql, params![key(connection, &id)?, session], claims)?;
            let each =
                |(number, tokens): (u32, Vec<u64>)| tokens.into_iter().map(move |token| (token, number));
            Ok(due.into_iter().flat_map(each).collect())
        };
        self.store.read(read).await
    }

    /// Does nothing, because a batch's claims are those of its record.
    async fn forget_claim(&self, _: &CampaignId, _: u64, _: u32) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn listed(&self, id: &CampaignId, listed: ListEntry) -> Result<Vec<u32>, LedgerError> {
        let id = id.clone();
        let which = match listed {
            ListEntry::Open => "open > 0",
            ListEntry::Failed => "failed > 0",
            ListEntry::All => "true",
        };
        let read = move |connection: &Connection| {
            let sql = format!(
                "SELECT key FROM batch WHERE {which} AND key >= ?1 << 32 AND key < (?1 + 1) << 32 ORDER BY key"
            );
            Ok(each_row(connection, &sql, [key(connection, &id)?], |row| row.get(0).map(batch_number))?)
        };
        self.store.read(read).await
    }

    async fn replays(&self, id: &CampaignId) -> Result<BTreeMap<u32, u64>, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let sql =
                "SELECT key, replay FROM batch WHERE replay > 0 AND key >= ?1 << 32 AND key < (?1 + 1) << 32";
            let replay = |row: &Row<'_>| Ok((batch_number(row.get(0)?), unsigned(row.get(1)?)));
            Ok(each_row(connection, sql, [key(connection, &id)?], replay)?)
        };
        self.store.read(read).await
    }

    async fn payloads(
        &self,
        id: &CampaignId,
        numbers: &[u32],
    ) -> Result<Vec<BTreeMap<u8, String>>, LedgerError> {
        let (id, numbers) = (id.clone(), numbers.to_vec());
        let read = move |connection: &Connection| {
            of_each(connection, &id, &numbers, |key| {
                let sql = "SELECT message, payload FROM payload WHERE batch = ?1";
                Ok(each_row(connection, sql, [key], |row| Ok((row.get(0)?, row.get(1)?)))?)
            })
        };
        self.store.read(read).await
    }

    async fn deliveries(&self, id: &CampaignId, numbers: &[u32]) -> Result<Vec<Vec<u8>>, LedgerError> {
        let (id, numbers) = (id.clone(), numbers.to_vec());
        let read = move |connection: &Connection| {
            of_each(connection, &id, &numbers, |key| Ok(deliveries(connection, key)?))
        };
        self.store.read(read).await
    }
}

fn deliveries(connection: &Connection, key: i64) -> rusqlite::Result<Vec<u8>> {
    let kept = first_row(connection, "SELECT kept FROM delivery WHERE batch = ?1", [key], |row| row.get(0))?;
    Ok(kept.unwrap_or_default())
}

/// Reads tokens of 8 bytes each, little-endian.
fn tokens(bytes: &[u8]) -> Vec<u64> {
    let token = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
    bytes.chunks_exact(8).map(token).collect()
}

/// Writes a change if the record is still the one that it was made from.
fn write(
    transaction: &Transaction<'_>,
    batch: &PlannedBatch,
    purpose: Option<ClaimPurpose>,
    change: &Change,
) -> Result<CasOutcome, LedgerError> {
    let campaign = key(transaction, &batch.campaign)?;
    let at = batch_key(campaign, batch.number);
    let sql = "SELECT substr(plan, 1, ?2), substr(record, 1, 4) FROM batch WHERE key = ?1";
    let known: Option<(Vec<u8>, Option<Vec<u8>>)> =
        first_row(transaction, sql, [at, signed(DIGEST as u64)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (digest, revision) = if let Some(known) = known {
        known
    } else {
        if state(transaction, campaign)?.is_none_or(CampaignState::is_over) {
            return Ok(CasOutcome::unplanned(purpose));
        }
        plan_batch(transaction, campaign, batch)?;
        (batch.digest().to_vec(), None)
    };
    if digest != batch.digest() {
        return Err(LedgerError::OtherPlan(batch.campaign.clone(), batch.number));
    }
    if let Some(purpose) = purpose {
        let admits = admits(transaction, campaign)?;
        if admits == ClaimAdmission::None || purpose == ClaimPurpose::Send && admits != ClaimAdmission::All {
            return Ok(CasOutcome::NotAdmitted);
        }
    }
    if change.reopens && state(transaction, campaign)?.is_none_or(CampaignState::is_over) {
        return Ok(CasOutcome::Ended);
    }
    let revision = revision.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    let is_stale = change.record.is_some() && revision != change.known
        || match &change.deliveries {
            Some((before, _)) => deliveries(transaction, at)? != *before,
            None => false,
        };
    if is_stale {
        return Ok(CasOutcome::Stale);
    }
    if let Some(record) = &change.record {
        write_record(transaction, at, record, change)?;
    }
    if let Some(request) = &change.request {
        execute(transaction, "UPDATE batch SET request = ?2 WHERE key = ?1", params![at, request])?;
    }
    write_counters(transaction, campaign, change)?;
    write_payloads(transaction, at, change)?;
    if let Some((_, after)) = &change.deliveries {
        let sql = "INSERT OR REPLACE INTO delivery (batch, kept) VALUES (?1, ?2)";
        execute(transaction, sql, params![at, after])?;
    }
    let responses = write_responses(transaction, at, change)?;
    Ok(CasOutcome::Done { open: open(transaction, campaign)?, responses })
}

/// Stores and deletes values of messages.
fn write_payloads(transaction: &Transaction<'_>, at: i64, change: &Change) -> rusqlite::Result<()> {
    for (message, payload) in &change.payloads {
        if let Some(payload) = payload {
            let sql = "INSERT OR REPLACE INTO payload VALUES (?1, ?2, ?3)";
            execute(transaction, sql, params![at, message, payload])?;
        } else {
            let sql = "DELETE FROM payload WHERE batch = ?1 AND message = ?2";
            execute(transaction, sql, params![at, message])?;
        }
    }
    Ok(())
}

/// Stores replies. Returns for each whether it still has to be published.
fn write_responses(transaction: &Transaction<'_>, at: i64, change: &Change) -> rusqlite::Result<Vec<bool>> {
    let mut responses = Vec::with_capacity(change.responses.len());
    for (answer, json) in &change.responses {
        let sql = "INSERT OR IGNORE INTO response (batch, id, response) VALUES (?1, ?2, ?3)";
        execute(transaction, sql, params![at, answer, json])?;
        let is_news = transaction
            .prepare_cached("SELECT NOT published FROM response WHERE batch = ?1 AND id = ?2")?
            .query_row(params![at, answer], |row| row.get(0))?;
        responses.push(is_news);
    }
    Ok(responses)
}

fn admits(transaction: &Transaction<'_>, campaign: i64) -> rusqlite::Result<ClaimAdmission> {
    let mut statement =
        transaction.prepare_cached("SELECT state, suspended_by IS NOT NULL FROM campaign WHERE key = ?1")?;
    statement.query_row([campaign], |row| {
        let state = row.get_ref(0)?.as_str()?.parse();
        Ok(state.map_or(ClaimAdmission::None, |state| {
            ClaimAdmission::for_state(state, row.get(1).unwrap_or_default())
        }))
    })
}

fn write_record(
    transaction: &Transaction<'_>,
    at: i64,
    record: &BatchRecord,
    change: &Change,
) -> Result<(), LedgerError> {
    if !change.outcomes.is_empty() {
        write_sids(transaction, at, change)?;
    }
    let claims = record.claims();
    let bytes: Vec<u8> = claims.iter().flat_map(|token| token.to_le_bytes()).collect();
    let session = claims.first().map(|token| (token >> 32) as u32);
    // The time of a record finds the batches of a rolling 24 hours.
    let recorded = (!change.outcomes.is_empty()).then(now);
    let replay = change.replay.map(|replay| if replay { now() } else { 0 });
    let sql = "UPDATE batch SET record = ?2, claims = ?3, session = ?4, open = coalesce(?5, open),
           failed = coalesce(?6, failed), updated_at = coalesce(?7, updated_at),
           replay = CASE WHEN ?8 > 0 THEN max(replay + 1, ?8) ELSE coalesce(?8, replay) END
         WHERE key = ?1";
    let (claims, Change { open, failed, .. }) = ((!bytes.is_empty()).then_some(bytes), change);
    execute(transaction, sql, params![at, record.bytes(), claims, session, open, failed, recorded, replay])?;
    Ok(())
}

/// Stores the SIDs of accepted messages.
fn write_sids(transaction: &Transaction<'_>, at: i64, change: &Change) -> Result<(), LedgerError> {
    let mut sids = sids(transaction, at)?;
    let before = sids.clone();
    for (place, outcome) in &change.outcomes {
        match outcome {
            Some((MessageState::Accepted, sid)) => sids.insert(*place, sid.clone()),
            _ => sids.remove(place),
        };
    }
    if sids != before {
        let bytes = postcard::to_stdvec(&sids)
            .map_err(|error| LedgerError::Storage(format!("cannot save the SIDs of a batch: {error}")))?;
        execute(transaction, "UPDATE batch SET sids = ?2 WHERE key = ?1", params![at, bytes])?;
    }
    Ok(())
}

/// Returns the SIDs of a batch's accepted messages, by position.
pub(super) fn sids(connection: &Connection, at: i64) -> Result<BTreeMap<u8, String>, LedgerError> {
    let bytes: Option<Option<Vec<u8>>> =
        first_row(connection, "SELECT sids FROM batch WHERE key = ?1", [at], |row| row.get(0))?;
    let damaged = |_| LedgerError::Storage("has damaged SIDs of a batch".into());
    bytes.flatten().map_or_else(|| Ok(BTreeMap::new()), |bytes| postcard::from_bytes(&bytes).map_err(damaged))
}

fn write_counters(transaction: &Transaction<'_>, campaign: i64, change: &Change) -> Result<(), LedgerError> {
    let by = |state: &str| change.counters.get(&(state, String::new())).copied().unwrap_or_default();
    let moved = ["pending", "sending", "accepted", "rejected", "in_doubt", "skipped"].map(by);
    if moved.iter().any(|by| *by != 0) {
        let sql =
            "UPDATE campaign SET pending = pending + ?1, sending = sending + ?2, accepted = accepted + ?3,
               rejected = rejected + ?4, in_doubt = in_doubt + ?5, skipped = skipped + ?6 WHERE key = ?7";
        execute(transaction, sql, params_from_iter(moved.into_iter().chain([campaign])))?;
    }
    for ((kind, word), by) in change.counters.iter().filter(|((_, word), _)| !word.is_empty()) {
        tally(transaction, campaign, kind, word, *by, "")?;
    }
    for ((kind, word), text) in &change.texts {
        tally(transaction, campaign, kind, word, 0, text)?;
    }
    if change.settled > 0 {
        tick(transaction, campaign, change.settled)?;
    }
    Ok(())
}
