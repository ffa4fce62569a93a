//! Notices in the embedded store: a row for each.

use rusqlite::Row;

use super::{Sqlite, now, time};
use crate::campaign::notice::{KeptNotice, Notice, NoticeSubject};
use crate::ledger::{LedgerError, Notices, StoredNotice};

impl Notices for Sqlite {
    async fn store_notice(&self, account: &str, notice: &Notice) -> Result<(), LedgerError> {
        let sql = "INSERT INTO notice (account, subject, event, detail, since) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (account, subject) DO UPDATE SET
                 since = CASE WHEN event IS excluded.event AND detail = excluded.detail
                              THEN since ELSE excluded.since END,
                 event = excluded.event, detail = excluded.detail";
        let Notice { about, event, detail } = notice.clone();
        self.store.execute(sql, (account.to_owned(), about.code(), event, detail, now())).await.map(drop)
    }

    async fn clear_notice(&self, account: &str, about: &NoticeSubject) -> Result<(), LedgerError> {
        let sql = "DELETE FROM notice WHERE account = ?1 AND subject = ?2";
        self.store.execute(sql, (account.to_owned(), about.code())).await.map(drop)
    }

    async fn notice(
        &self,
        account: &str,
        about: &NoticeSubject,
    ) -> Result<Option<StoredNotice>, LedgerError> {
        let sql = "SELECT event, detail, since FROM notice WHERE account = ?1 AND subject = ?2";
        let (subject, about) = (about.code(), about.clone());
        let stored = move |row: &Row<'_>| {
            let notice = KeptNotice::from_parts(&about, row.get(0)?, row.get(1)?);
            Ok(StoredNotice { notice, since: time(row.get(2)?) })
        };
        self.store.first_row(sql, (account.to_owned(), subject), stored).await
    }
}
