//! Points of charts, campaign drafts and ended sessions in the embedded store.

use rusqlite::{Connection, Row, Transaction, params};

use super::{Sqlite, each_row, execute, key, signed, unsigned};
use crate::campaign::CampaignId;
use crate::ledger::{CampaignDrafts, Clock as _, LedgerError, Point, Series, Sessions};

impl Series for Sqlite {
    async fn points(&self, id: &CampaignId) -> Result<Vec<Point>, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let key = key(connection, &id)?;
            let sql = "SELECT at, accepted, rejected, in_doubt FROM point WHERE campaign = ?1 ORDER BY at";
            let point = |row: &Row<'_>| {
                let count = |nth| row.get(nth).map(unsigned);
                Ok(Point { at: row.get(0)?, accepted: count(1)?, rejected: count(2)?, in_doubt: count(3)? })
            };
            Ok(each_row(connection, sql, [key], point)?)
        };
        self.store.read(read).await
    }

    async fn write_points(&self, id: &CampaignId, points: Vec<Point>, all: bool) -> Result<(), LedgerError> {
        let id = id.clone();
        let write = move |transaction: &Transaction<'_>| {
            let key = key(transaction, &id)?;
            if all {
                execute(transaction, "DELETE FROM point WHERE campaign = ?1", [key])?;
            }
            for Point { at, accepted, rejected, in_doubt } in points {
                let [accepted, rejected, in_doubt] = [accepted, rejected, in_doubt].map(signed);
                let sql = "INSERT OR REPLACE INTO point VALUES (?1, ?2, ?3, ?4, ?5)";
                execute(transaction, sql, [key, at, accepted, rejected, in_doubt])?;
            }
            Ok(())
        };
        self.store.write(write).await
    }
}

impl CampaignDrafts for Sqlite {
    async fn drafts(&self) -> Result<Vec<(String, String)>, LedgerError> {
        let draft = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        self.store.each_row("SELECT name, draft FROM campaign_draft", [], draft).await
    }

    async fn draft_names(&self) -> Result<Vec<String>, LedgerError> {
        self.store.each_row("SELECT name FROM campaign_draft", [], |row| row.get(0)).await
    }

    async fn draft(&self, name: &str) -> Result<Option<String>, LedgerError> {
        let sql = "SELECT draft FROM campaign_draft WHERE name = ?1";
        self.store.first_row(sql, [name.to_owned()], |row| row.get(0)).await
    }

    async fn keep_draft(&self, name: &str, draft: String) -> Result<(), LedgerError> {
        let sql = "INSERT OR REPLACE INTO campaign_draft VALUES (?1, ?2)";
        self.store.execute(sql, [name.to_owned(), draft]).await.map(drop)
    }

    async fn remove_draft(&self, name: &str) -> Result<(), LedgerError> {
        self.store.execute("DELETE FROM campaign_draft WHERE name = ?1", [name.to_owned()]).await.map(drop)
    }
}

impl Sessions for Sqlite {
    async fn end_session(&self, digest: &str, ends: i64) -> Result<(), LedgerError> {
        let (digest, now) = (digest.to_owned(), self.now());
        let write = move |transaction: &Transaction<'_>| {
            execute(transaction, "DELETE FROM ended_session WHERE ends <= ?1", [now])?;
            let sql = "INSERT OR REPLACE INTO ended_session VALUES (?1, ?2)";
            execute(transaction, sql, params![digest, ends])?;
            Ok(())
        };
        self.store.write(write).await
    }

    async fn is_session_ended(&self, digest: &str) -> Result<bool, LedgerError> {
        let sql = "SELECT 1 FROM ended_session WHERE digest = ?1";
        Ok(self.store.first_row(sql, [digest.to_owned()], |_| Ok(())).await?.is_some())
    }
}
