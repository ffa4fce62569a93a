//! Reports in the embedded store.

use std::collections::BTreeMap;
use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::batches::sids;
use super::{Sqlite, batch_key, batch_number, count, key, signed, time};
use crate::campaign::{CampaignId, MessageState};
use crate::ledger::report::OutcomeTexts;
use crate::ledger::{LedgerError, ReportLine, Reporting, StoredBatch};

impl Reporting for Sqlite {
    async fn written(&self, id: &CampaignId) -> Result<u32, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let campaign = key(connection, &id)?;
            let last: Option<i64> = connection
                .prepare_cached(
                    "SELECT key FROM batch WHERE key >= ?1 << 32 AND key < (?1 + 1) << 32 ORDER BY key DESC LIMIT 1",
                )?
                .query_row([campaign], |row| row.get(0))
                .optional()?;
            Ok(last.map_or(0, |key| batch_number(key) + 1))
        };
        self.store.read(read).await
    }

    async fn sids(&self, batches: &[Option<StoredBatch>]) -> Result<Vec<BTreeMap<u8, String>>, LedgerError> {
        let wanted: Vec<_> = batches
            .iter()
            .map(|stored| stored.as_ref().map(|stored| (stored.batch.campaign.clone(), stored.batch.number)))
            .collect();
        let read = move |connection: &Connection| {
            let of = |wanted: &Option<(CampaignId, u32)>| match wanted {
                Some((id, number)) => sids(connection, batch_key(key(connection, id)?, *number)),
                None => Ok(BTreeMap::new()),
            };
            wanted.iter().map(of).collect()
        };
        self.store.read(read).await
    }

    async fn requests(&self, id: &CampaignId, numbers: &[u32]) -> Result<Vec<Option<String>>, LedgerError> {
        let (id, numbers) = (id.clone(), numbers.to_vec());
        let read = move |connection: &Connection| {
            let campaign = key(connection, &id)?;
            let mut statement = connection.prepare_cached("SELECT request FROM batch WHERE key = ?1")?;
            let mut of = |number: &u32| -> Result<Option<String>, LedgerError> {
                let request = statement.query_row([batch_key(campaign, *number)], |row| row.get(0));
                Ok(request.optional()?.flatten())
            };
            numbers.iter().map(&mut of).collect()
        };
        self.store.read(read).await
    }

    async fn texts(&self, id: &CampaignId) -> Result<OutcomeTexts, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(
                "SELECT kind, word, detail FROM tally WHERE campaign = ?1 AND detail <> ''",
            )?;
            let text = |row: &Row<'_>| Ok(((row.get(0)?, row.get(1)?), row.get(2)?));
            let texts = statement.query_map([key(connection, &id)?], text)?;
            Ok(texts.collect::<rusqlite::Result<_>>()?)
        };
        self.store.read(read).await
    }

    async fn skipped(&self, id: &CampaignId, from: u64, to: u64) -> Result<Vec<ReportLine>, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(
                "SELECT * FROM skipped WHERE campaign = ?1 AND row <= ?2 ORDER BY row LIMIT -1 OFFSET ?3",
            )?;
            let line = |row: &Row<'_>| {
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
                    request_id: None,
                })
            };
            let lines =
                statement.query_map(params![key(connection, &id)?, signed(to), signed(from)], line)?;
            Ok(lines.collect::<rusqlite::Result<_>>()?)
        };
        self.store.read(read).await
    }

    async fn answers(&self, id: &CampaignId, numbers: Range<u32>) -> Result<Vec<String>, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let campaign = key(connection, &id)?;
            let (from, end) = (batch_key(campaign, numbers.start), batch_key(campaign, numbers.end));
            let mut statement = connection
                .prepare_cached("SELECT response FROM response WHERE batch >= ?1 AND batch < ?2")?;
            let answers = statement.query_map([from, end], |row| row.get(0))?;
            Ok(answers.collect::<rusqlite::Result<_>>()?)
        };
        self.store.read(read).await
    }

    async fn answer_published(&self, id: &CampaignId, batch: u32, answer: String) -> Result<(), LedgerError> {
        let id = id.clone();
        let write = move |transaction: &Transaction<'_>| {
            transaction
                .prepare_cached("UPDATE response SET published = 1 WHERE batch = ?1 AND id = ?2")?
                .execute(params![batch_key(key(transaction, &id)?, batch), answer])?;
            Ok(())
        };
        self.store.write(write).await
    }
}
