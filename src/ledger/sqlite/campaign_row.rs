//! A campaign as one row: its state, its counters, and the tallies beside it.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{count, now, signed, time, unsigned};
use crate::campaign::{CampaignId, CampaignState, MessageState};
use crate::ledger::deliveries::{self, TOOK, UNDELIVERED};
use crate::ledger::rate::{SECONDS, rate};
use crate::ledger::{Barrier, Campaign, Counts, LedgerError, NewCampaign};

/// The kind of tally that counts the messages that were settled in a second.
const TICK: &str = "tick";

/// The key of a campaign's row.
pub(super) fn key(connection: &Connection, id: &CampaignId) -> Result<i64, LedgerError> {
    connection
        .prepare_cached("SELECT key FROM campaign WHERE id = ?1")?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?
        .ok_or_else(|| LedgerError::NoCampaign(id.clone()))
}

/// A word of a state column, back as its type.
pub(super) fn word<T: std::str::FromStr<Err = String>>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    row.get_ref(column)?.as_str()?.parse().map_err(|fault: String| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, fault.into())
    })
}

pub(super) const CAMPAIGN: &str = "SELECT * FROM campaign";

pub(super) fn campaign_of(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<Campaign> {
    let mut counts = Counts {
        total: 0,
        pending: count(row, "pending")?,
        sending: count(row, "sending")?,
        accepted: count(row, "accepted")?,
        rejected: count(row, "rejected")?,
        in_doubt: count(row, "in_doubt")?,
        skipped: count(row, "skipped")?,
    };
    counts.total = counts.open() + counts.accepted + counts.rejected + counts.in_doubt + counts.skipped;
    let key: i64 = row.get("key")?;
    let state = word(row, "state")?;
    let started_at: Option<i64> = row.get("started_at")?;
    let mut tallies = BTreeMap::<String, BTreeMap<String, u64>>::new();
    let (mut texts, mut ticks) = (BTreeMap::new(), Vec::new());
    let mut statement = connection
        .prepare_cached("SELECT kind, word, count, detail FROM tally WHERE campaign = ?1 AND count > 0")?;
    let mut rows = statement.query([key])?;
    while let Some(tally) = rows.next()? {
        let kind: String = tally.get(0)?;
        if kind == TICK {
            let second: String = tally.get(3)?;
            ticks.push((second.parse().unwrap_or_default(), unsigned(tally.get(2)?)));
            continue;
        }
        if matches!(kind.as_str(), "rejected" | UNDELIVERED) {
            texts.insert(tally.get(1)?, tally.get(3)?);
        }
        tallies.entry(kind).or_default().insert(tally.get(1)?, unsigned(tally.get(2)?));
    }
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
    let id: String = row.get("id")?;
    let id = id.parse().map_err(|fault| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(fault))
    })?;
    Ok(Campaign {
        id,
        name: row.get("name")?,
        account: row.get("account")?,
        announced: match row.get_ref("announced")? {
            rusqlite::types::ValueRef::Null => None,
            _ => Some(word(row, "announced")?),
        },
        state,
        reason: row.get("reason")?,
        held_by: {
            let word: Option<String> = row.get("held_by")?;
            word.and_then(|word| Barrier::read(row.get_ref("account").ok()?.as_str().ok()?, &word))
        },
        forgiven: (count(row, "forgiven_rejected")?, count(row, "forgiven_settled")?),
        planned: row.get("planned")?,
        counts,
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
        rehearsal: row.get("rehearsal")?,
        submitted_at: time(row.get("submitted_at")?),
        started_at: started_at.map(time),
        finished_at: row.get::<_, Option<i64>>("finished_at")?.map(time),
    })
}

/// Counts messages that were settled just now.
pub(super) fn tick(transaction: &Transaction<'_>, key: i64, settled: usize) -> Result<(), LedgerError> {
    let second = now() / 1000;
    transaction
        .prepare_cached(
            "INSERT INTO tally (campaign, kind, word, count, detail) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET detail = excluded.detail,
               count = excluded.count + CASE WHEN detail = excluded.detail THEN count ELSE 0 END",
        )?
        .execute(params![
            key,
            TICK,
            (second % SECONDS).to_string(),
            signed(settled as u64),
            second.to_string()
        ])?;
    Ok(())
}

/// The column that counts a state.
fn column(state: MessageState) -> &'static str {
    state.as_str()
}

/// Moves `count` messages of the campaign's counters from one state to another.
pub(super) fn shift(
    transaction: &Transaction<'_>,
    key: i64,
    from: Option<MessageState>,
    to: MessageState,
    count: usize,
) -> Result<(), LedgerError> {
    if count == 0 || from == Some(to) {
        return Ok(());
    }
    let to = column(to);
    let sql = match from.map(column) {
        Some(from) => format!("UPDATE campaign SET {from} = {from} - ?2, {to} = {to} + ?2 WHERE key = ?1"),
        None => format!("UPDATE campaign SET {to} = {to} + ?2 WHERE key = ?1"),
    };
    transaction.prepare_cached(&sql)?.execute(params![key, signed(count as u64)])?;
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
    transaction
        .prepare_cached(
            "INSERT INTO tally (campaign, kind, word, count, detail) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET count = count + excluded.count",
        )?
        .execute(params![key, kind, word, count, detail])?;
    Ok(())
}

pub(super) fn insert(transaction: &Transaction<'_>, new: &NewCampaign) -> Result<(), LedgerError> {
    transaction.execute(
        "INSERT INTO campaign (id, named, name, fingerprint, audience, rows, batch_size, rehearsal, state, submitted_at,
           account, job, columns)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
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
            serde_json::Value::from(new.columns.clone()).to_string()
        ],
    )?;
    Ok(())
}

/// How many messages are open.
pub(super) fn open(connection: &Connection, key: i64) -> Result<u64, LedgerError> {
    let mut statement = connection.prepare_cached("SELECT pending + sending FROM campaign WHERE key = ?1")?;
    Ok(unsigned(statement.query_row([key], |row| row.get(0))?))
}

pub(super) fn remove(transaction: &Transaction<'_>, key: i64) -> Result<(), LedgerError> {
    transaction.execute("DELETE FROM payload WHERE batch >= ?1 << 32 AND batch < (?1 + 1) << 32", [key])?;
    transaction.execute("DELETE FROM batch WHERE key >= ?1 << 32 AND key < (?1 + 1) << 32", [key])?;
    transaction.execute("DELETE FROM delivery WHERE batch >= ?1 << 32 AND batch < (?1 + 1) << 32", [key])?;
    transaction.execute("DELETE FROM response WHERE batch >= ?1 << 32 AND batch < (?1 + 1) << 32", [key])?;
    transaction.execute("DELETE FROM decision WHERE campaign = ?1", [key])?;
    transaction.execute("DELETE FROM skipped WHERE campaign = ?1", [key])?;
    transaction.execute("DELETE FROM tally WHERE campaign = ?1", [key])?;
    transaction.execute("DELETE FROM campaign WHERE key = ?1", [key])?;
    Ok(())
}
