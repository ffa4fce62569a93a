//! The embedded ledger: `SQLite` in WAL mode with full sync, writes gathered into shared commits.

mod barrier;
mod batch_row;
mod callback_key;
mod campaign_row;
mod decisions;
mod deliveries;
mod settle;
mod store;
mod suppressed;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use roaring::RoaringBitmap;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{
    Again, Attendance, Barrier, Campaign, Checkpoint, Claim, Cursor, Decision, Heard, Hold, Learnt, Ledger,
    LedgerError, NewCampaign, Outcome, Plan, PlannedBatch, Purpose, Recorded, ReportLine, ReportPage,
    ResponsePage, SkippedRow, StoredJob, Suppress, Suppressed, new_key,
};
use crate::campaign::{CampaignId, CampaignState, MessageState, Phone};
use batch_row::BatchRow;
use campaign_row::{CAMPAIGN, campaign_of, key, shift, tally, word};
use settle::{Hand, decide_batch, settle};
pub use store::Access;
use store::Store;

/// How many batches a page of a report has.
const PAGE: usize = 100;
/// A ledger in a file.
#[derive(Clone)]
pub struct Sqlite {
    store: Arc<Store>,
    /// Marks this process's claims: any other is of a process that is dead, because only one sends.
    session: i64,
}

impl From<rusqlite::Error> for LedgerError {
    fn from(fault: rusqlite::Error) -> Self {
        Self::Storage(format!("failed: {fault}"))
    }
}

impl Sqlite {
    /// Opens a store.
    ///
    /// # Errors
    ///
    /// When another process sends from it, or it can't be read or made.
    pub fn open(path: &Path, access: Access) -> Result<Self, LedgerError> {
        Ok(Self { store: Arc::new(Store::open(path, access)?), session: rand::random() })
    }

    /// Whom an account wrote to within a span of time, and how long ago: a limit of recipients outlives
    /// the process that keeps it.
    ///
    /// # Errors
    ///
    /// When the store can't be read.
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
                "SELECT campaign.key, batch.key & 0xffffffff FROM campaign JOIN batch
                   ON batch.key >= campaign.key << 32 AND batch.key < (campaign.key + 1) << 32
                 WHERE account = ?1 AND NOT rehearsal AND batch.updated_at > ?2",
            )?;
            let batches: Vec<(i64, u32)> = statement
                .query_map(params![account, since], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let mut all = Vec::new();
            for (key, number) in batches {
                let Some(row) = BatchRow::read(connection, key, number)? else { continue };
                let ago = |milliseconds: i64| Duration::from_millis(unsigned(milliseconds));
                all.extend(row.written_to(since, now).map(|(phone, at)| (phone, ago(at))));
            }
            Ok(all)
        };
        self.store.read(read).await
    }
}

/// The ledger's clock.
fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or_default()
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// `SQLite` counts in signed numbers; ours stay far below their end.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(unsigned)
}

/// Writes a batch down, if it is not yet.
fn insert_batch(transaction: &Transaction<'_>, key: i64, batch: &PlannedBatch) -> Result<(), LedgerError> {
    let size = batch.recipients.len();
    let inserted = transaction
        .prepare_cached("INSERT OR IGNORE INTO batch (key, recipients, size, open) VALUES (?1, ?2, ?3, ?3)")?
        .execute(params![
            batch_row::key(key, batch.number),
            batch_row::recipients(&batch.recipients),
            signed(size as u64)
        ])?;
    if inserted > 0 {
        shift(transaction, key, None, MessageState::Pending, size)?;
    }
    Ok(())
}

/// Moves a campaign where that is legal.
fn move_campaign(
    transaction: &Transaction<'_>,
    id: CampaignId,
    to: CampaignState,
    reason: Option<&str>,
) -> Result<(), LedgerError> {
    let key = key(transaction, &id)?;
    let from: CampaignState = transaction
        .prepare_cached("SELECT state FROM campaign WHERE key = ?1")?
        .query_row([key], |row| word(row, "state"))?;
    if from != to && !from.can_become(to) {
        return Err(LedgerError::IllegalMove { id, from, to });
    }
    let ended = matches!(to, CampaignState::Completed | CampaignState::Cancelled);
    transaction
        .prepare_cached(
            "UPDATE campaign SET
               forgiven_rejected = CASE WHEN ?4 AND state <> ?2 THEN rejected ELSE forgiven_rejected END,
               forgiven_settled = CASE WHEN ?4 AND state <> ?2 THEN accepted + rejected + in_doubt
                                       ELSE forgiven_settled END,
               state = ?2, reason = ?3, held_by = NULL,
               started_at = CASE WHEN ?4 THEN coalesce(started_at, ?5) ELSE started_at END,
               finished_at = CASE WHEN ?6 THEN coalesce(finished_at, ?5) WHEN ?4 THEN NULL ELSE finished_at END
             WHERE key = ?1",
        )?
        .execute(params![key, to.as_str(), reason, to == CampaignState::Running, now(), ended])?;
    Ok(())
}

impl Ledger for Sqlite {
    const SHARED: bool = false;

    async fn register(&self, new: NewCampaign) -> Result<Campaign, LedgerError> {
        let register = move |transaction: &Transaction<'_>| {
            let sql = if new.named {
                "SELECT key, fingerprint, rehearsal, id FROM campaign WHERE id = ?1"
            } else {
                // A job without an id that is run again is the same campaign: a new id would send
                // everything a second time.
                "SELECT key, fingerprint, rehearsal, id FROM campaign
                 WHERE named = 0 AND ?2 AND fingerprint = ?1 ORDER BY key DESC LIMIT 1"
            };
            let wanted = if new.named { new.id.as_str() } else { &new.fingerprint };
            let wanted = params![wanted, new.again];
            let wanted = if new.named { &wanted[..1] } else { wanted };
            let known: Option<(i64, String, bool, String)> = transaction
                .query_row(sql, wanted, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
                .optional()?;
            let id = match known {
                None => None,
                Some((key, _, true, _)) if !new.rehearsal => {
                    campaign_row::remove(transaction, key)?;
                    None
                }
                Some((.., false, id)) if new.rehearsal => {
                    return Err(LedgerError::NotARehearsal(id.parse().unwrap_or(new.id)));
                }
                Some((_, fingerprint, ..)) if fingerprint != new.fingerprint => {
                    return Err(LedgerError::OtherContent(new.id));
                }
                Some((.., id)) => Some(id),
            };
            let id = if let Some(id) = id {
                id
            } else {
                campaign_row::insert(transaction, &new)?;
                new.id.as_str().into()
            };
            let sql = format!("{CAMPAIGN} WHERE id = ?1");
            Ok(transaction.query_row(&sql, [id], |row| campaign_of(transaction, row))?)
        };
        self.store.write(register).await
    }

    async fn campaign(&self, id: &CampaignId) -> Result<Option<Campaign>, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(&format!("{CAMPAIGN} WHERE id = ?1"))?;
            Ok(statement.query_row([id.as_str()], |row| campaign_of(connection, row)).optional()?)
        };
        self.store.read(read).await
    }

    async fn open(&self, id: &CampaignId) -> Result<u64, LedgerError> {
        let id = id.clone();
        self.store.read(move |connection| campaign_row::open(connection, key(connection, &id)?)).await
    }

    async fn campaigns(&self) -> Result<Vec<Campaign>, LedgerError> {
        let read = |connection: &Connection| {
            let mut statement = connection.prepare_cached(&format!("{CAMPAIGN} ORDER BY key DESC"))?;
            let campaigns = statement.query_map([], |row| campaign_of(connection, row))?;
            Ok(campaigns.collect::<rusqlite::Result<_>>()?)
        };
        self.store.read(read).await
    }

    async fn change_state(
        &self,
        id: &CampaignId,
        to: CampaignState,
        reason: Option<String>,
    ) -> Result<(), LedgerError> {
        let id = id.clone();
        let write =
            move |transaction: &Transaction<'_>| move_campaign(transaction, id, to, reason.as_deref());
        self.store.write(write).await
    }

    async fn note(&self, id: &CampaignId, note: Option<String>) -> Result<(), LedgerError> {
        let id = id.clone();
        let write = move |transaction: &Transaction<'_>| {
            transaction
                .prepare_cached("UPDATE campaign SET reason = ?2 WHERE id = ?1 AND state = 'running'")?
                .execute(params![id.as_str(), note])?;
            Ok(())
        };
        self.store.write(write).await
    }

    async fn complete(&self, id: &CampaignId) -> Result<bool, LedgerError> {
        let id = id.clone();
        let write = move |transaction: &Transaction<'_>| {
            let done: bool = transaction
                .prepare_cached(
                    "SELECT state = 'running' AND planned AND pending + sending = 0 FROM campaign WHERE id = ?1",
                )?
                .query_row([id.as_str()], |row| row.get(0))?;
            if done {
                move_campaign(transaction, id, CampaignState::Completed, None)?;
            }
            Ok(done)
        };
        self.store.write(write).await
    }

    async fn active(&self) -> Result<Vec<CampaignId>, LedgerError> {
        let read = |connection: &Connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id FROM campaign WHERE state NOT IN ('completed', 'cancelled')
                   OR announced IS NULL OR announced <> state ORDER BY key",
            )?;
            let ids = statement.query_map([], word_id)?;
            Ok(ids.collect::<rusqlite::Result<_>>()?)
        };
        self.store.read(read).await
    }

    async fn job(&self, id: &CampaignId) -> Result<StoredJob, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let found = connection
                .prepare_cached("SELECT job, columns FROM campaign WHERE id = ?1")?
                .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))
                .optional()?;
            let (job, columns) = found.ok_or(LedgerError::NoCampaign(id))?;
            let columns = serde_json::from_str(&columns)
                .map_err(|fault| LedgerError::Storage(format!("has damaged columns: {fault}")))?;
            Ok(StoredJob { job, columns })
        };
        self.store.read(read).await
    }

    async fn announced(&self, id: &CampaignId, state: CampaignState) -> Result<(), LedgerError> {
        let id = id.clone();
        let write = move |transaction: &Transaction<'_>| {
            transaction
                .prepare_cached("UPDATE campaign SET announced = ?2 WHERE id = ?1")?
                .execute(params![id.as_str(), state.as_str()])?;
            Ok(())
        };
        self.store.write(write).await
    }

    /// Nobody else sends from this store, so this process leads and holds all there is.
    async fn attend(&self, _: &CampaignId, held: u64) -> Result<Attendance, LedgerError> {
        Ok(Attendance { leads: true, held })
    }

    async fn leave(&self, _: &CampaignId) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn plan(&self, id: &CampaignId) -> Result<Plan, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let key = key(connection, &id)?;
            let checkpoint = connection.query_row(
                "SELECT plan_batches, plan_rows, plan_digest, planned FROM campaign WHERE key = ?1",
                [key],
                |row| {
                    Ok(Checkpoint {
                        batches: row.get(0)?,
                        rows: unsigned(row.get(1)?),
                        digest: row.get(2)?,
                        complete: row.get(3)?,
                    })
                },
            )?;
            let mut statement = connection.prepare(
                "SELECT key & 0xffffffff FROM batch WHERE key >= ?1 << 32 AND key < (?1 + 1) << 32 AND open = 0",
            )?;
            let settled = statement.query_map([key], |row| row.get::<_, u32>(0))?;
            Ok(Plan { checkpoint, settled: settled.collect::<rusqlite::Result<RoaringBitmap>>()? })
        };
        self.store.read(read).await
    }

    async fn checkpoint(
        &self,
        id: &CampaignId,
        after: u64,
        checkpoint: Checkpoint,
        batches: Vec<PlannedBatch>,
        skipped: Vec<SkippedRow>,
    ) -> Result<(), LedgerError> {
        let id = id.clone();
        let write = move |transaction: &Transaction<'_>| {
            let key = key(transaction, &id)?;
            let known: i64 = transaction
                .prepare_cached("SELECT plan_rows FROM campaign WHERE key = ?1")?
                .query_row([key], |row| row.get(0))?;
            match unsigned(known) {
                known if known == after => {}
                known if known >= checkpoint.rows => return Ok(()),
                _ => return Err(LedgerError::StalePlan(id)),
            }
            for batch in &batches {
                insert_batch(transaction, key, batch)?;
            }
            let at = now();
            let mut new = BTreeMap::<&str, usize>::new();
            for line in &skipped {
                let inserted = transaction
                    .prepare_cached(
                        "INSERT OR IGNORE INTO skipped (campaign, row, recipient, reason, detail, at)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    )?
                    .execute(params![
                        key,
                        signed(line.row),
                        line.recipient,
                        line.reason.as_str(),
                        line.detail,
                        at
                    ])?;
                *new.entry(line.reason.as_str()).or_default() += inserted;
            }
            shift(transaction, key, None, MessageState::Skipped, new.values().sum())?;
            for (reason, count) in new {
                tally(transaction, key, "skipped", reason, signed(count as u64), "")?;
            }
            transaction
                .prepare_cached(
                    "UPDATE campaign SET plan_batches = ?2, plan_rows = ?3, plan_digest = ?4, planned = ?5 WHERE key = ?1",
                )?
                .execute(params![
                    key,
                    checkpoint.batches,
                    signed(checkpoint.rows),
                    checkpoint.digest,
                    checkpoint.complete
                ])?;
            Ok(())
        };
        self.store.write(write).await
    }

    async fn hold_back(&self, id: &CampaignId, barrier: &Barrier, reason: String) -> Result<(), LedgerError> {
        let (id, barrier) = (id.clone(), barrier.clone());
        self.store.write(move |transaction| barrier::hold_back(transaction, &id, &barrier, &reason)).await
    }

    async fn close(&self, barrier: &Barrier, reason: String, probes: bool) -> Result<bool, LedgerError> {
        let barrier = barrier.clone();
        self.store.write(move |transaction| barrier::close(transaction, &barrier, &reason, probes)).await
    }

    async fn hold(&self, barrier: &Barrier) -> Result<Option<Hold>, LedgerError> {
        let barrier = barrier.clone();
        self.store.read(move |connection| barrier::hold(connection, &barrier)).await
    }

    async fn probe(&self, barrier: &Barrier) -> Result<bool, LedgerError> {
        let barrier = barrier.clone();
        self.store.write(move |transaction| barrier::probe(transaction, &barrier)).await
    }

    async fn lift(&self, barrier: &Barrier) -> Result<bool, LedgerError> {
        let barrier = barrier.clone();
        self.store.write(move |transaction| barrier::lift(transaction, &barrier)).await
    }

    async fn claim(
        &self,
        batch: PlannedBatch,
        messages: Vec<u8>,
        purpose: Purpose,
    ) -> Result<Claim, LedgerError> {
        let session = self.session;
        let write = move |transaction: &Transaction<'_>| {
            let key = key(transaction, &batch.campaign)?;
            insert_batch(transaction, key, &batch)?;
            let mut row = BatchRow::read(transaction, key, batch.number)?
                .ok_or_else(|| LedgerError::Storage("lost a batch that it had just written".into()))?;
            if row.recipients() != batch.recipients {
                return Err(LedgerError::OtherPlan(batch.campaign, batch.number));
            }
            let running: bool = transaction
                .prepare_cached(
                    "SELECT state = 'running' OR (?2 AND state = 'held' AND held_by IS NOT NULL)
                     FROM campaign WHERE key = ?1",
                )?
                .query_row(params![key, purpose == Purpose::Probe], |row| row.get(0))?;
            let pending = |index: &u8| row.state(*index) == Some(MessageState::Pending);
            let granted: Vec<u8> = messages.into_iter().filter(|index| running && pending(index)).collect();
            let claim = Claim { messages: granted.clone(), running, token: 0, start_by: None };
            if !granted.is_empty() {
                row.claim(&granted);
                row.write(transaction, Some(session), None)?;
                shift(transaction, key, Some(MessageState::Pending), MessageState::Sending, granted.len())?;
            }
            // Only this process claims, and it claims a message once: no claim needs telling from another.
            Ok(claim)
        };
        self.store.write(write).await
    }

    async fn record(
        &self,
        id: &CampaignId,
        batch: u32,
        _token: u64,
        outcomes: Vec<Recorded>,
    ) -> Result<u64, LedgerError> {
        let id = id.clone();
        let session = self.session;
        let write = move |transaction: &Transaction<'_>| {
            let key = key(transaction, &id)?;
            let Some(mut row) = BatchRow::read(transaction, key, batch)? else { return Ok(0) };
            settle(transaction, key, &mut row, outcomes, Hand::Sender)?;
            row.write(transaction, Some(session), Some(now()))?;
            campaign_row::open(transaction, key)
        };
        self.store.write(write).await
    }

    async fn hear(
        &self,
        id: &CampaignId,
        batch: u32,
        heard: Vec<Heard>,
    ) -> Result<Vec<Option<Learnt>>, LedgerError> {
        let id = id.clone();
        self.store.write(move |transaction| deliveries::hear(transaction, &id, batch, &heard)).await
    }

    async fn told(&self, id: &CampaignId, batch: u32, answer: String) -> Result<(), LedgerError> {
        let id = id.clone();
        self.store.write(move |transaction| deliveries::told(transaction, &id, batch, &answer)).await
    }

    async fn responses(&self, id: &CampaignId, from: u32) -> Result<ResponsePage, LedgerError> {
        let id = id.clone();
        self.store.read(move |connection| deliveries::responses(connection, &id, from)).await
    }

    async fn oldest_doubt(&self, id: &CampaignId) -> Result<Option<Timestamp>, LedgerError> {
        let id = id.clone();
        self.store.read(move |connection| deliveries::oldest_doubt(connection, &id)).await
    }

    async fn decided(&self, id: &CampaignId, line: String) -> Result<(), LedgerError> {
        let id = id.clone();
        self.store.write(move |transaction| decisions::decided(transaction, &id, &line)).await
    }

    async fn decisions(&self, id: &CampaignId) -> Result<Vec<String>, LedgerError> {
        let id = id.clone();
        self.store.read(move |connection| decisions::decisions(connection, &id)).await
    }

    async fn suppress(&self, numbers: Vec<Phone>, how: Suppress) -> Result<u64, LedgerError> {
        self.store.write(move |transaction| suppressed::suppress(transaction, &numbers, how)).await
    }

    async fn suppressed(&self, known: u64) -> Result<Option<Suppressed>, LedgerError> {
        self.store.read(move |connection| suppressed::suppressed(connection, known)).await
    }

    async fn callback_key(&self) -> Result<String, LedgerError> {
        if let Some(key) = self.store.read(callback_key::read).await? {
            return Ok(key);
        }
        self.store.write(|transaction| callback_key::make(transaction, &new_key())).await
    }

    async fn expire_claims(&self, id: &CampaignId, resend: bool) -> Result<u64, LedgerError> {
        let id = id.clone();
        let session = self.session;
        let write = move |transaction: &Transaction<'_>| {
            let key = key(transaction, &id)?;
            let mut statement = transaction.prepare(
                "SELECT key & 0xffffffff FROM batch
                 WHERE key >= ?1 << 32 AND key < (?1 + 1) << 32 AND claimed IS NOT NULL AND session <> ?2",
            )?;
            let numbers: Vec<u32> = statement
                .query_map(params![key, session], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let mut expired = 0;
            for number in numbers {
                let Some(mut row) = BatchRow::read(transaction, key, number)? else { continue };
                let claimed = row.claimed().to_vec();
                expired += claimed.len() as u64;
                let outcome = if resend {
                    Outcome::Released
                } else {
                    Outcome::InDoubt { detail: "flowcast ended while the request was under way".into() }
                };
                settle(
                    transaction,
                    key,
                    &mut row,
                    claimed.into_iter().map(|index| (index, outcome.clone()).into()).collect(),
                    Hand::Sender,
                )?;
                row.write(transaction, None, Some(now()))?;
            }
            Ok(expired)
        };
        self.store.write(write).await
    }

    async fn decide(&self, id: &CampaignId, decision: Decision) -> Result<u64, LedgerError> {
        let id = id.clone();
        let write = move |transaction: &Transaction<'_>| {
            let key = key(transaction, &id)?;
            let mut done = 0;
            let mut next = Some(0);
            while let Some(from) = next {
                let page = BatchRow::page(transaction, key, from, PAGE)?;
                next = page.last().filter(|_| page.len() == PAGE).map(|last| last.number() + 1);
                for mut row in page {
                    done += decide_batch(transaction, key, &mut row, &decision)?;
                }
            }
            Ok(done)
        };
        self.store.write(write).await
    }

    async fn again(&self, id: &CampaignId, known: BTreeMap<u32, u64>) -> Result<Vec<Again>, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let key = key(connection, &id)?;
            let mut statement = connection.prepare_cached(
                "SELECT key & 0xffffffff, again FROM batch
                 WHERE again > 0 AND key >= ?1 << 32 AND key < (?1 + 1) << 32 ORDER BY key",
            )?;
            let numbers: Vec<(u32, u64)> = statement
                .query_map([key], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?
                .collect::<rusqlite::Result<_>>()?;
            let news = numbers.into_iter().filter(|(number, since)| known.get(number) != Some(since));
            let mut all = Vec::new();
            for (number, since) in news.take(PAGE) {
                let Some(row) = BatchRow::read(connection, key, number)? else { continue };
                let mut payloads = payloads(connection, batch_row::key(key, number))?;
                let pending = row.messages_in(MessageState::Pending);
                payloads.retain(|message, _| pending.contains(message));
                let batch =
                    PlannedBatch { campaign: id.clone(), number, recipients: row.recipients().to_vec() };
                all.push(Again { batch, since, payloads });
            }
            Ok(all)
        };
        self.store.read(read).await
    }

    async fn remove(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let id = id.clone();
        let write =
            move |transaction: &Transaction<'_>| campaign_row::remove(transaction, key(transaction, &id)?);
        self.store.write(write).await
    }

    async fn report(&self, id: &CampaignId, from: Cursor) -> Result<ReportPage, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let key = key(connection, &id)?;
            let batches = BatchRow::page(connection, key, from.batch, PAGE)?;
            let details = details(connection, key)?;
            let full = batches.len() == PAGE;
            let mut lines = Vec::new();
            for batch in &batches {
                let kept = deliveries::kept(connection, batch_row::key(key, batch.number()))?;
                for (place, mut line) in (0..).zip(batch.lines(&details)) {
                    if let Some(progress) = kept.of(place) {
                        line.deliver(progress, |code| details.get(code).cloned());
                    }
                    lines.push(line);
                }
            }
            // Skipped rows stand between the messages, so they are taken up to the page's last row.
            let last = if full { lines.last().map_or(u64::MAX, |line| line.row) } else { u64::MAX };
            lines.extend(skipped_lines(connection, key, from.row, last)?);
            lines.sort_by_key(|line| line.row);
            let next = batches.last().filter(|_| full).map(|batch| Cursor {
                batch: batch.number() + 1,
                row: last,
                skipped: 0,
            });
            Ok(ReportPage { lines, next })
        };
        self.store.read(read).await
    }
}

fn payloads(connection: &Connection, batch: i64) -> Result<BTreeMap<u8, String>, LedgerError> {
    let mut statement = connection.prepare_cached("SELECT message, payload FROM payload WHERE batch = ?1")?;
    let rows = statement.query_map([batch], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn word_id(row: &Row<'_>) -> rusqlite::Result<CampaignId> {
    let id: String = row.get(0)?;
    id.parse().map_err(|fault| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(fault))
    })
}

/// The text to each code of the campaign.
fn details(connection: &Connection, key: i64) -> Result<BTreeMap<String, String>, LedgerError> {
    let mut statement = connection.prepare_cached("SELECT word, detail FROM tally WHERE campaign = ?1")?;
    let rows = statement.query_map([key], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn skipped_lines(
    connection: &Connection,
    key: i64,
    after: u64,
    to: u64,
) -> Result<Vec<ReportLine>, LedgerError> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM skipped WHERE campaign = ?1 AND row > ?2 AND row <= ?3 ORDER BY row",
    )?;
    let lines = statement.query_map(params![key, signed(after), signed(to)], |row| {
        Ok(ReportLine {
            recipient: row.get("recipient")?,
            row: count(row, "row")?,
            batch: None,
            state: MessageState::Skipped,
            sid: None,
            code: row.get("reason")?,
            detail: row.get("detail")?,
            attempts: 0,
            delivery: None,
            updated_at: Some(time(row.get("at")?)),
        })
    })?;
    Ok(lines.collect::<rusqlite::Result<_>>()?)
}
