//! Notices in the embedded store: a row for each.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Sqlite, now, time};
use crate::campaign::notice::{KeptNotice, Notice, NoticeSubject};
use crate::ledger::{LedgerError, Notices, StoredNotice};

impl Notices for Sqlite {
    async fn store_notice(&self, account: &str, notice: &Notice) -> Result<(), LedgerError> {
        let (account, notice) = (account.to_owned(), notice.clone());
        let write = move |transaction: &Transaction<'_>| {
            transaction
                .prepare_cached(
                    "INSERT INTO notice (account, subject, event, detail, since) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (account, subject) DO UPDATE SET
                         since = CASE WHEN event IS excluded.event AND detail = excluded.detail
                                      THEN since ELSE excluded.since END,
                         event = excluded.event, detail = excluded.detail",
                )?
                .execute(params![account, notice.about.code(), notice.event, notice.detail, now()])?;
            Ok(())
        };
        self.store.write(write).await
    }

    async fn clear_notice(&self, account: &str, about: &NoticeSubject) -> Result<(), LedgerError> {
        let (account, subject) = (account.to_owned(), about.code());
        let write = move |transaction: &Transaction<'_>| {
            transaction
                .prepare_cached("DELETE FROM notice WHERE account = ?1 AND subject = ?2")?
                .execute(params![account, subject])?;
            Ok(())
        };
        self.store.write(write).await
    }

    async fn notice(
        &self,
        account: &str,
        about: &NoticeSubject,
    ) -> Result<Option<StoredNotice>, LedgerError> {
        let (account, about) = (account.to_owned(), about.clone());
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(
                "SELECT event, detail, since FROM notice WHERE account = ?1 AND subject = ?2",
            )?;
            let stored = statement.query_row(params![account, about.code()], |row| {
                let notice = KeptNotice::from_parts(&about, row.get(0)?, row.get(1)?);
                Ok(StoredNotice { notice, since: time(row.get(2)?) })
            });
            Ok(stored.optional()?)
        };
        self.store.read(read).await
    }
}
