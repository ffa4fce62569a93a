//! Breakers in the embedded store: a row for each.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Sqlite, now, time};
use crate::ledger::{Breaker, Breakers, FIRST_PROBE, LAST_PROBE, LedgerError, OpenBreaker};

impl Breakers for Sqlite {
    async fn open_breaker(
        &self,
        breaker: &Breaker,
        reason: String,
        probes: bool,
    ) -> Result<bool, LedgerError> {
        let breaker = breaker.clone();
        let write = move |transaction: &Transaction<'_>| {
            let wait = FIRST_PROBE.as_millis() as i64;
            let probe_at = probes.then(|| now() + wait);
            let inserted = transaction
                .prepare_cached(
                    "INSERT OR IGNORE INTO breaker (account, word, reason, since, probe_at, wait)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![breaker.account, breaker.code(), reason, now(), probe_at, wait * 2])?;
            if inserted == 0 {
                transaction
                    .prepare_cached("UPDATE breaker SET reason = ?3 WHERE account = ?1 AND word = ?2")?
                    .execute(params![breaker.account, breaker.code(), reason])?;
            }
            Ok(inserted == 1)
        };
        self.store.write(write).await
    }

    async fn breaker(&self, breaker: &Breaker) -> Result<Option<OpenBreaker>, LedgerError> {
        let breaker = breaker.clone();
        let read = move |connection: &Connection| {
            let now = now();
            let mut statement = connection.prepare_cached(
                "SELECT reason, since, probe_at FROM breaker WHERE account = ?1 AND word = ?2",
            )?;
            let open = statement.query_row(params![breaker.account, breaker.code()], |row| {
                let probe_at: Option<i64> = row.get(2)?;
                Ok(OpenBreaker {
                    reason: row.get(0)?,
                    since: time(row.get(1)?),
                    probe_at: probe_at.map(time),
                    probe_is_due: probe_at.is_some_and(|at| at <= now),
                })
            });
            Ok(open.optional()?)
        };
        self.store.read(read).await
    }

    async fn half_open(&self, breaker: &Breaker) -> Result<bool, LedgerError> {
        let breaker = breaker.clone();
        let write = move |transaction: &Transaction<'_>| {
            let taken = transaction
                .prepare_cached(
                    "UPDATE breaker SET probe_at = ?3 + wait, wait = min(wait * 2, ?4)
                     WHERE account = ?1 AND word = ?2 AND probe_at <= ?3",
                )?
                .execute(params![breaker.account, breaker.code(), now(), LAST_PROBE.as_millis() as i64])?;
            Ok(taken == 1)
        };
        self.store.write(write).await
    }

    async fn close_breaker(&self, breaker: &Breaker) -> Result<bool, LedgerError> {
        let breaker = breaker.clone();
        let write = move |transaction: &Transaction<'_>| {
            let closed = transaction
                .prepare_cached("DELETE FROM breaker WHERE account = ?1 AND word = ?2")?
                .execute(params![breaker.account, breaker.code()])?;
            Ok(closed == 1)
        };
        self.store.write(write).await
    }
}
