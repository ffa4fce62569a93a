//! What holds campaigns together, as rows of their own.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{key, now, time};
use crate::campaign::CampaignId;
use crate::ledger::{Barrier, FIRST_PROBE, Hold, LAST_PROBE, LedgerError};

/// Holds a campaign, if it runs.
pub(super) fn hold_back(
    transaction: &Transaction<'_>,
    id: &CampaignId,
    barrier: &Barrier,
    reason: &str,
) -> Result<(), LedgerError> {
    let key = key(transaction, id)?;
    transaction
        .prepare_cached(
            "UPDATE campaign SET state = 'held', held_by = ?2, reason = ?3 WHERE key = ?1 AND state = 'running'",
        )?
        .execute(params![key, barrier.word(), reason])?;
    Ok(())
}

pub(super) fn close(
    transaction: &Transaction<'_>,
    barrier: &Barrier,
    reason: &str,
    probes: bool,
) -> Result<bool, LedgerError> {
    let wait = FIRST_PROBE.as_millis() as i64;
    let probe_at = probes.then(|| now() + wait);
    let inserted = transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO barrier (account, word, reason, since, probe_at, wait) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![barrier.account, barrier.word(), reason, now(), probe_at, wait * 2])?;
    if inserted == 0 {
        transaction
            .prepare_cached("UPDATE barrier SET reason = ?3 WHERE account = ?1 AND word = ?2")?
            .execute(params![barrier.account, barrier.word(), reason])?;
    }
    Ok(inserted == 1)
}

pub(super) fn hold(connection: &Connection, barrier: &Barrier) -> Result<Option<Hold>, LedgerError> {
    let now = now();
    let mut statement = connection
        .prepare_cached("SELECT reason, since, probe_at FROM barrier WHERE account = ?1 AND word = ?2")?;
    let hold = statement.query_row(params![barrier.account, barrier.word()], |row| {
        let probe_at: Option<i64> = row.get(2)?;
        Ok(Hold {
            reason: row.get(0)?,
            since: time(row.get(1)?),
            probe_is_due: probe_at.is_some_and(|at| at <= now),
        })
    });
    Ok(hold.optional()?)
}

pub(super) fn probe(transaction: &Transaction<'_>, barrier: &Barrier) -> Result<bool, LedgerError> {
    let taken = transaction
        .prepare_cached(
            "UPDATE barrier SET probe_at = ?3 + wait, wait = min(wait * 2, ?4)
             WHERE account = ?1 AND word = ?2 AND probe_at <= ?3",
        )?
        .execute(params![barrier.account, barrier.word(), now(), LAST_PROBE.as_millis() as i64])?;
    Ok(taken == 1)
}

pub(super) fn lift(transaction: &Transaction<'_>, barrier: &Barrier) -> Result<bool, LedgerError> {
    let lifted = transaction
        .prepare_cached("DELETE FROM barrier WHERE account = ?1 AND word = ?2")?
        .execute(params![barrier.account, barrier.word()])?;
    Ok(lifted == 1)
}
