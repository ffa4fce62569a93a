//! Breakers in the embedded store: a row for each.

use rusqlite::{Row, Transaction, params};

use super::{Sqlite, execute, now, time};
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
            let sql = "INSERT OR IGNORE INTO breaker (account, word, reason, since, probe_at, wait)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let open = params![breaker.account, breaker.code(), reason, now(), probe_at, wait * 2];
            let inserted = execute(transaction, sql, open)?;
            if inserted == 0 {
                let sql = "UPDATE breaker SET reason = ?3 WHERE account = ?1 AND word = ?2";
                execute(transaction, sql, params![breaker.account, breaker.code(), reason])?;
            }
            Ok(inserted == 1)
        };
        self.store.write(write).await
    }

    async fn breaker(&self, breaker: &Breaker) -> Result<Option<OpenBreaker>, LedgerError> {
        let open = |row: &Row<'_>| {
            let probe_at: Option<i64> = row.get(2)?;
            Ok(OpenBreaker {
                reason: row.get(0)?,
                since: time(row.get(1)?),
                probe_at: probe_at.map(time),
                probe_is_due: probe_at.is_some_and(|at| at <= now()),
            })
        };
        let sql = "SELECT reason, since, probe_at FROM breaker WHERE account = ?1 AND word = ?2";
        self.store.first_row(sql, (breaker.account.clone(), breaker.code()), open).await
    }

    async fn half_open(&self, breaker: &Breaker) -> Result<bool, LedgerError> {
        let sql = "UPDATE breaker SET probe_at = ?3 + wait, wait = min(wait * 2, ?4)
             WHERE account = ?1 AND word = ?2 AND probe_at <= ?3";
        let longest = LAST_PROBE.as_millis() as i64;
        Ok(self.store.execute(sql, (breaker.account.clone(), breaker.code(), now(), longest)).await? == 1)
    }

    async fn close_breaker(&self, breaker: &Breaker) -> Result<bool, LedgerError> {
        let sql = "DELETE FROM breaker WHERE account = ?1 AND word = ?2";
        Ok(self.store.execute(sql, (breaker.account.clone(), breaker.code())).await? == 1)
    }
}
