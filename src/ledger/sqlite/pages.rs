//! Points of charts, campaign drafts and ended sessions in the embedded store.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Sqlite, key, signed, unsigned};
use crate::campaign::CampaignId;
use crate::ledger::{CampaignDrafts, Clock as _, LedgerError, Point, Series, Sessions};

impl Series for Sqlite {
    async fn points(&self, id: &CampaignId) -> Result<Vec<Point>, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let key = key(connection, &id)?;
            let mut statement = connection.prepare_cached(
                "SELECT at, accepted, rejected, in_doubt FROM point WHERE campaign = ?1 ORDER BY at",
            )?;
            let point = |row: &rusqlite::Row<'_>| {
                let count = |nth| row.get(nth).map(unsigned);
                Ok(Point { at: row.get(0)?, accepted: count(1)?, rejected: count(2)?, in_doubt: count(3)? })
            };
            Ok(statement.query_map([key], point)?.collect::<rusqlite::Result<_>>()?)
        };
        self.store.read(read).await
    }

    async fn write_points(&self, id: &CampaignId, points: Vec<Point>, all: bool) -> Result<(), LedgerError> {
        let id = id.clone();
        let write = move |transaction: &Transaction<'_>| {
            let key = key(transaction, &id)?;
            if all {
                transaction.prepare_cached("DELETE FROM point WHERE campaign = ?1")?.execute([key])?;
            }
            let mut insert =
                transaction.prepare_cached("INSERT OR REPLACE INTO point VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for Point { at, accepted, rejected, in_doubt } in points {
                let counts = [accepted, rejected, in_doubt].map(signed);
                insert.execute(params![key, at, counts[0], counts[1], counts[2]])?;
            }
            Ok(())
        };
        self.store.write(write).await
    }
}

impl CampaignDrafts for Sqlite {
    async fn drafts(&self) -> Result<Vec<(String, String)>, LedgerError> {
        let read = |connection: &Connection| {
            let mut statement = connection.prepare_cached("SELECT name, draft FROM campaign_draft")?;
            let drafts = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(drafts.collect::<rusqlite::Result<_>>()?)
        };
        self.store.read(read).await
    }

    async fn draft_names(&self) -> Result<Vec<String>, LedgerError> {
        let read = |connection: &Connection| {
            let mut statement = connection.prepare_cached("SELECT name FROM campaign_draft")?;
            let names = statement.query_map([], |row| row.get(0))?;
            Ok(names.collect::<rusqlite::Result<_>>()?)
        };
        self.store.read(read).await
    }

    async fn draft(&self, name: &str) -> Result<Option<String>, LedgerError> {
        let name = name.to_owned();
        let read = move |connection: &Connection| {
            let mut statement =
                connection.prepare_cached("SELECT draft FROM campaign_draft WHERE name = ?1")?;
            Ok(statement.query_row([name], |row| row.get(0)).optional()?)
        };
        self.store.read(read).await
    }

    async fn keep_draft(&self, name: &str, draft: String) -> Result<(), LedgerError> {
        let name = name.to_owned();
        let write = move |transaction: &Transaction<'_>| {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO campaign_draft VALUES (?1, ?2)")?
                .execute([name, draft])?;
            Ok(())
        };
        self.store.write(write).await
    }

    async fn remove_draft(&self, name: &str) -> Result<(), LedgerError> {
        let name = name.to_owned();
        let write = move |transaction: &Transaction<'_>| {
            transaction.prepare_cached("DELETE FROM campaign_draft WHERE name = ?1")?.execute([name])?;
            Ok(())
        };
        self.store.write(write).await
    }
}

impl Sessions for Sqlite {
    async fn end_session(&self, digest: &str, ends: i64) -> Result<(), LedgerError> {
        let (digest, now) = (digest.to_owned(), self.now());
        let write = move |transaction: &Transaction<'_>| {
            transaction.prepare_cached("DELETE FROM ended_session WHERE ends <= ?1")?.execute([now])?;
            transaction
                .prepare_cached("INSERT OR REPLACE INTO ended_session VALUES (?1, ?2)")?
                .execute(params![digest, ends])?;
            Ok(())
        };
        self.store.write(write).await
    }

    async fn is_session_ended(&self, digest: &str) -> Result<bool, LedgerError> {
        let digest = digest.to_owned();
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached("SELECT 1 FROM ended_session WHERE digest = ?1")?;
            Ok(statement.exists([digest])?)
        };
        self.store.read(read).await
    }
}
