//! Campaigns in the embedded store: a row for each, and a row for each counter with a code.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{Sqlite, count, each_row, execute, first_row, id_of, key, now, parsed, signed, time, unsigned};
use crate::campaign::{CampaignId, CampaignState, Reason};
use crate::ledger::deliveries::{self, TOOK, UNDELIVERED};
use crate::ledger::throughput::{SECONDS, rate};
use crate::ledger::{
    Breaker, Campaign, CampaignChanges, Campaigns, Counts, Lease, LedgerError, NewCampaign, StoredJob,
};

/// Kind of the counters of messages settled in a second.
const TICK: &str = "tick";

/// The counters of a campaign that are not in its row.
#[derive(Default)]
struct Tallies {
    /// Counters, by kind and code.
    by_kind: BTreeMap<String, BTreeMap<String, u64>>,
    /// Text of each code of messages rejected or not delivered.
    texts: BTreeMap<String, String>,
    /// Number of messages settled in each of the last seconds.
    ticks: Vec<(i64, u64)>,
}

fn tallies_of(connection: &Connection, campaign: i64) -> rusqlite::Result<Tallies> {
    let mut tallies = Tallies::default();
    let mut statement = connection
        .prepare_cached("SELECT kind, word, count, detail FROM tally WHERE campaign = ?1 AND count > 0")?;
    let mut rows = statement.query([campaign])?;
    while let Some(tally) = rows.next()? {
        let kind: String = tally.get(0)?;
        if kind == TICK {
            let second: String = tally.get(3)?;
            tallies.ticks.push((second.parse().unwrap_or_default(), unsigned(tally.get(2)?)));
            continue;
        }
        if matches!(kind.as_str(), "rejected" | UNDELIVERED) {
            tallies.texts.insert(tally.get(1)?, tally.get(3)?);
        }
        tallies.by_kind.entry(kind).or_default().insert(tally.get(1)?, unsigned(tally.get(2)?));
    }
    Ok(tallies)
}

fn campaign_of(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<Campaign> {
    let key: i64 = row.get("key")?;
    let state = parsed(row.get_ref("state")?.as_str()?)?;
    let started_at: Option<i64> = row.get("started_at")?;
    let Tallies { by_kind: mut tallies, texts, ticks } = tallies_of(connection, key)?;
    let delivery = deliveries::counts(|kind, word| {
        tallies.get(kind).and_then(|words| words.get(word)).copied().unwrap_or_default()
    });
    let mut tallied = |kind: &str| tallies.remove(kind).unwrap_or_default();
    let (skipped, rejected, undelivered) = (tallied("skipped"), tallied("rejected"), tallied(UNDELIVERED));
    let took = tallied(TOOK);
    let rate = match state {
        CampaignState::Running => rate(ticks.into_iter(), started_at.unwrap_or(now()), now()),
        _ => 0.0,
    };
    Ok(Campaign {
        id: parsed(row.get_ref("id")?.as_str()?)?,
        name: row.get("name")?,
        account: row.get("account")?,
        published: row.get_ref("published")?.as_str_or_null()?.map(parsed).transpose()?,
        announced: count(row, "announced")?,
        state,
        reason: Reason::read(
            row.get::<_, Option<String>>("reason")?.as_deref(),
            row.get::<_, Option<String>>("reason_data")?.as_deref(),
        ),
        suspended_by: {
            let word: Option<String> = row.get("suspended_by")?;
            word.and_then(|word| Breaker::read(row.get_ref("account").ok()?.as_str().ok()?, &word))
        },
        forgiven: (count(row, "forgiven_rejected")?, count(row, "forgiven_settled")?),
        // An embedded worker gets no requests from a queue.
        stop_asked_at: 0,
        planned: row.get("planned")?,
        counts: Counts::try_from_states(|state| count(row, state))?,
        skipped,
        rejected,
        texts,
        delivery,
        undelivered,
        took: deliveries::times(took.iter().map(|(word, count)| (word.as_str(), *count))),
        rate,
        audience: row.get("audience")?,
        rows: count(row, "rows")?,
        batch_size: usize::try_from(row.get::<_, i64>("batch_size")?).unwrap_or(1),
        doubt_below: row.get("doubt_below")?,
        rehearsal: row.get("rehearsal")?,
        created_by: row.get("created_by")?,
        submitted_at: time(row.get("submitted_at")?),
        started_at: started_at.map(time),
        finished_at: row.get::<_, Option<i64>>("finished_at")?.map(time),
    })
}

/// Counts messages settled now.
pub(super) fn tick(transaction: &Transaction<'_>, key: i64, settled: u64) -> Result<(), LedgerError> {
    let second = now() / 1000;
    let sql = "INSERT INTO tally (campaign, kind, word, count, detail) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET detail = excluded.detail,
           count = excluded.count + CASE WHEN detail = excluded.detail THEN count ELSE 0 END";
    let (slot, settled, second) = ((second % SECONDS).to_string(), signed(settled), second.to_string());
    execute(transaction, sql, params![key, TICK, slot, settled, second])?;
    Ok(())
}

pub(super) fn tally(
    transaction: &Transaction<'_>,
    key: i64,
    kind: &str,
    word: &str,
    count: i64,
    detail: &str,
) -> Result<(), LedgerError> {
    let sql = "INSERT INTO tally (campaign, kind, word, count, detail) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET count = count + excluded.count,
           detail = CASE WHEN detail = '' THEN excluded.detail ELSE detail END";
    execute(transaction, sql, params![key, kind, word, count, detail])?;
    Ok(())
}

fn insert(transaction: &Transaction<'_>, new: &NewCampaign) -> Result<(), LedgerError> {
    transaction.execute(
        "INSERT INTO campaign (id, named, name, fingerprint, audience, rows, batch_size, rehearsal, state, submitted_at,
           account, job, columns, created_by, changed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14,
           max(?10, (SELECT coalesce(max(changed), 0) + 1 FROM campaign)))",
        params![
            new.id.as_str(),
            new.named,
            new.name,
            new.fingerprint,
            new.audience,
            signed(new.rows),
            signed(new.batch_size as u64),
            new.rehearsal,
            CampaignState::Scheduled.as_str(),
            now(),
            new.account,
            new.job,
            serde_json::Value::from(new.columns.clone()).to_string(),
            new.created_by
        ],
    )?;
    Ok(())
}

fn remove(transaction: &Transaction<'_>, key: i64) -> Result<(), LedgerError> {
    transaction.execute("DELETE FROM payload WHERE batch >= ?1 << 32 AND batch < (?1 + 1) << 32", [key])?;
    transaction.execute("DELETE FROM batch WHERE key >= ?1 << 32 AND key < (?1 + 1) << 32", [key])?;
    transaction.execute("DELETE FROM delivery WHERE batch >= ?1 << 32 AND batch < (?1 + 1) << 32", [key])?;
    transaction.execute("DELETE FROM response WHERE batch >= ?1 << 32 AND batch < (?1 + 1) << 32", [key])?;
    transaction.execute("DELETE FROM skipped WHERE campaign = ?1", [key])?;
    transaction.execute("DELETE FROM tally WHERE campaign = ?1", [key])?;
    transaction.execute("DELETE FROM point WHERE campaign = ?1", [key])?;
    transaction.execute("DELETE FROM campaign WHERE key = ?1", [key])?;
    Ok(())
}

impl Campaigns for Sqlite {
    fn is_shared(&self) -> bool {
        false
    }

    async fn register(&self, new: NewCampaign) -> Result<(Campaign, bool), LedgerError> {
        let register = move |transaction: &Transaction<'_>| {
            let sql = if new.named {
                "SELECT key, fingerprint, rehearsal, id FROM campaign WHERE id = ?1"
            } else {
                // A job without an id that is run again is the same campaign: with a new id, everything
                // would be sent twice.
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
                    remove(transaction, key)?;
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
            let is_new = id.is_none();
            let id = if let Some(id) = id {
                id
            } else {
                insert(transaction, &new)?;
                new.id.as_str().into()
            };
            let sql = "SELECT * FROM campaign WHERE id = ?1";
            Ok((transaction.query_row(sql, [id], |row| campaign_of(transaction, row))?, is_new))
        };
        self.store.write(register).await
    }

    async fn campaign(&self, id: &CampaignId) -> Result<Option<Campaign>, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let sql = "SELECT * FROM campaign WHERE id = ?1";
            Ok(first_row(connection, sql, [id.as_str()], |row| campaign_of(connection, row))?)
        };
        self.store.read(read).await
    }

    async fn open(&self, id: &CampaignId) -> Result<u64, LedgerError> {
        let id = id.clone();
        self.store.read(move |connection| open(connection, key(connection, &id)?)).await
    }

    async fn ids_before(
        &self,
        before: Option<&(CampaignId, i64)>,
        count: usize,
    ) -> Result<Vec<CampaignId>, LedgerError> {
        let sql = "SELECT id FROM campaign
             WHERE ?1 IS NULL
                OR key < coalesce((SELECT key FROM campaign WHERE id = ?1),
                                  (SELECT max(key) + 1 FROM campaign WHERE submitted_at <= ?2))
             ORDER BY key DESC LIMIT ?3";
        let (id, at) = before.map_or((None, 0), |(id, at)| (Some(id.to_string()), *at));
        self.store.each_row(sql, (id, at, signed(count as u64)), id_of).await
    }

    async fn changes(&self, known: u64) -> Result<CampaignChanges, LedgerError> {
        let read = move |connection: &Connection| {
            let sql =
                "SELECT id FROM campaign WHERE changed > ?1 AND (state NOT IN ('completed', 'cancelled')
                   OR published IS NULL OR published <> state) ORDER BY changed";
            let ids = each_row(connection, sql, [signed(known)], id_of)?;
            let mut statement =
                connection.prepare_cached("SELECT coalesce(max(changed), 0) FROM campaign")?;
            let version = statement.query_row([], |row| Ok(unsigned(row.get(0)?)))?;
            Ok(CampaignChanges { ids, version })
        };
        self.store.read(read).await
    }

    async fn job(&self, id: &CampaignId) -> Result<StoredJob, LedgerError> {
        let sql = "SELECT job, columns FROM campaign WHERE id = ?1";
        let job = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?));
        let found = self.store.first_row(sql, [id.to_string()], job).await?;
        let (job, columns) = found.ok_or_else(|| LedgerError::NoCampaign(id.clone()))?;
        let columns = serde_json::from_str(&columns)
            .map_err(|error| LedgerError::Storage(format!("has damaged columns: {error}")))?;
        Ok(StoredJob { job, columns })
    }

    /// Does nothing, because the state defines whether a campaign is active.
    async fn activate(&self, _: &CampaignId) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn touch(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let sql =
            "UPDATE campaign SET changed = max(?2, (SELECT max(changed) + 1 FROM campaign)) WHERE id = ?1";
        self.store.execute(sql, (id.to_string(), now())).await.map(drop)
    }

    /// Returns only this process, because no other one sends from the store.
    async fn present(&self) -> Result<BTreeSet<u32>, LedgerError> {
        Ok(BTreeSet::from([self.session]))
    }

    async fn depart(&self) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn swap_campaign(
        &self,
        known: CampaignState,
        settled: bool,
        after: Campaign,
    ) -> Result<bool, LedgerError> {
        let time = |at: Option<jiff::Timestamp>| at.map(jiff::Timestamp::as_millisecond);
        let sql = "UPDATE campaign SET state = ?3, reason = ?4, suspended_by = ?5, forgiven_rejected = ?6,
               forgiven_settled = ?7, started_at = ?8, finished_at = ?9, doubt_below = ?11, reason_data = ?12
             WHERE id = ?1 AND state = ?2 AND (NOT ?10 OR planned AND pending + sending = 0)";
        let values = (
            after.id.to_string(),
            known.as_str(),
            after.state.as_str(),
            after.reason.as_ref().map(ToString::to_string),
            after.suspended_by.as_ref().map(Breaker::code),
            signed(after.forgiven.0),
            signed(after.forgiven.1),
            time(after.started_at),
            time(after.finished_at),
            settled,
            after.doubt_below,
            after.reason.as_ref().and_then(Reason::data),
        );
        Ok(self.store.execute(sql, values).await? == 1)
    }

    async fn published(&self, id: &CampaignId, state: CampaignState) -> Result<(), LedgerError> {
        let sql = "UPDATE campaign SET published = ?2, announced = announced + 1 WHERE id = ?1";
        self.store.execute(sql, (id.to_string(), state.as_str())).await.map(drop)
    }

    /// Returns that this process leads, because no other one sends from the store.
    async fn heartbeat(&self, _: &CampaignId, held: u64) -> Result<Lease, LedgerError> {
        Ok(Lease { leads: true, held, gap: None })
    }

    async fn release(&self, _: &CampaignId) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn remove(&self, id: &CampaignId) -> Result<(), LedgerError> {
        let id = id.clone();
        self.store.write(move |transaction| remove(transaction, key(transaction, &id)?)).await
    }
}

/// Returns the number of open messages.
pub(super) fn open(connection: &Connection, key: i64) -> Result<u64, LedgerError> {
    let mut statement = connection.prepare_cached("SELECT pending + sending FROM campaign WHERE key = ?1")?;
    Ok(unsigned(statement.query_row([key], |row| row.get(0))?))
}

/// Returns a campaign's state.
pub(super) fn state(transaction: &Transaction<'_>, campaign: i64) -> rusqlite::Result<Option<CampaignState>> {
    let mut statement = transaction.prepare_cached("SELECT state FROM campaign WHERE key = ?1")?;
    statement.query_row([campaign], |row| Ok(row.get_ref(0)?.as_str()?.parse().ok()))
}
