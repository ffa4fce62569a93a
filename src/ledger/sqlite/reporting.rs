//! Reports in the embedded store.

use std::{collections::BTreeMap, ops::Range};

use rusqlite::{Connection, Row, Transaction, params};

use super::batches::sids;
use super::{Sqlite, batch_key, batch_number, each_row, execute, first_row, key, signed, unsigned};
use crate::campaign::CampaignId;
use crate::ledger::{LedgerError, ReportLine, Reporting, StoredBatch, report::OutcomeTexts};

impl Reporting for Sqlite {
    async fn written(&self, id: &CampaignId) -> Result<u32, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let campaign = key(connection, &id)?;
            let sql = "SELECT key FROM batch WHERE key >= ?1 << 32 AND key < (?1 + 1) << 32 ORDER BY key DESC LIMIT 1";
            let last = first_row(connection, sql, [campaign], |row| row.get(0))?;
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
            let request = |number: u32| -> Result<Option<String>, LedgerError> {
                let sql = "SELECT request FROM batch WHERE key = ?1";
                Ok(first_row(connection, sql, [batch_key(campaign, number)], |row| row.get(0))?.flatten())
            };
            numbers.into_iter().map(request).collect()
        };
        self.store.read(read).await
    }

    async fn texts(&self, id: &CampaignId) -> Result<OutcomeTexts, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let sql = "SELECT kind, word, detail FROM tally WHERE campaign = ?1 AND detail <> ''";
            let text = |row: &Row<'_>| Ok(((row.get(0)?, row.get(1)?), row.get(2)?));
            Ok(each_row(connection, sql, [key(connection, &id)?], text)?)
        };
        self.store.read(read).await
    }

    async fn skipped(&self, id: &CampaignId, from: u64, to: u64) -> Result<Vec<ReportLine>, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let sql = "SELECT row, recipient, reason, detail, at FROM skipped
                 WHERE campaign = ?1 AND row <= ?2 ORDER BY row LIMIT -1 OFFSET ?3";
            let line = |row: &Row<'_>| {
                let nth = unsigned(row.get(0)?);
                Ok(ReportLine::skipped(nth, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            };
            Ok(each_row(connection, sql, [key(connection, &id)?, signed(to), signed(from)], line)?)
        };
        self.store.read(read).await
    }

    async fn answers(&self, id: &CampaignId, numbers: Range<u32>) -> Result<Vec<String>, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let campaign = key(connection, &id)?;
            let (from, end) = (batch_key(campaign, numbers.start), batch_key(campaign, numbers.end));
            let sql = "SELECT response FROM response WHERE batch >= ?1 AND batch < ?2";
            Ok(each_row(connection, sql, [from, end], |row| row.get(0))?)
        };
        self.store.read(read).await
    }

    async fn answer_published(&self, id: &CampaignId, batch: u32, answer: String) -> Result<(), LedgerError> {
        let id = id.clone();
        let write = move |transaction: &Transaction<'_>| {
            let sql = "UPDATE response SET published = 1 WHERE batch = ?1 AND id = ?2";
            execute(transaction, sql, params![batch_key(key(transaction, &id)?, batch), answer])?;
            Ok(())
        };
        self.store.write(write).await
    }
}
