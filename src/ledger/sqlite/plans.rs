//! Plans in the embedded store.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use rusqlite::{Connection, Transaction, params};

use super::campaigns::{state, tally};
use super::{Sqlite, batch_key, each_row, execute, key, now, signed, unsigned};
use crate::campaign::{CampaignId, CampaignState, SkipReason};
use crate::ledger::{Checkpoint, LedgerError, Plan, PlannedBatch, PlannedSoFar, Plans, SkippedRow};

/// Stores a batch, if it is not stored yet.
pub(super) fn plan_batch(
    transaction: &Transaction<'_>,
    key: i64,
    batch: &PlannedBatch,
) -> Result<(), LedgerError> {
    let sql = "INSERT OR IGNORE INTO batch (key, plan) VALUES (?1, ?2)";
    let inserted = execute(transaction, sql, params![batch_key(key, batch.number), batch.bytes()])?;
    if inserted > 0 {
        let sql = "UPDATE campaign SET pending = pending + ?2 WHERE key = ?1";
        execute(transaction, sql, [key, signed(batch.recipients.len() as u64)])?;
    }
    Ok(())
}

impl Plans for Sqlite {
    async fn plan(&self, id: &CampaignId) -> Result<Plan, LedgerError> {
        let id = id.clone();
        let read = move |connection: &Connection| {
            let key = key(connection, &id)?;
            let checkpoint = connection.query_row(
                "SELECT plan_batches, plan_rows, plan_digest, planned FROM campaign WHERE key = ?1",
                [key],
                |row| {
                    Ok(Checkpoint {
                        batches: row.get(0)?,
                        rows: unsigned(row.get(1)?),
                        digest: row.get(2)?,
                        complete: row.get(3)?,
                    })
                },
            )?;
            let sql = "SELECT key & 0xffffffff FROM batch WHERE key >= ?1 << 32 AND key < (?1 + 1) << 32 AND open = 0";
            let settled: RoaringBitmap = each_row(connection, sql, [key], |row| row.get::<_, u32>(0))?;
            Ok(Plan { checkpoint, settled })
        };
        self.store.read(read).await
    }

    async fn checkpoint(
        &self,
        id: &CampaignId,
        after: u64,
        checkpoint: Checkpoint,
        batches: Vec<PlannedBatch>,
        skipped: Vec<SkippedRow>,
    ) -> Result<(), LedgerError> {
        let id = id.clone();
        let write = move |transaction: &Transaction<'_>| {
            let key = key(transaction, &id)?;
            let known: i64 = transaction
                .prepare_cached("SELECT plan_rows FROM campaign WHERE key = ?1")?
                .query_row([key], |row| row.get(0))?;
            match unsigned(known) {
                known if known == after => {}
                known if known >= checkpoint.rows => return Ok(()),
                _ => return Err(LedgerError::StalePlan(id)),
            }
            // No worker would send what is planned now.
            if state(transaction, key)?.is_none_or(CampaignState::is_over) {
                return Err(LedgerError::StalePlan(id));
            }
            for batch in &batches {
                plan_batch(transaction, key, batch)?;
            }
            let at = now();
            let mut new = BTreeMap::<&str, usize>::new();
            for line in &skipped {
                let sql = "INSERT OR IGNORE INTO skipped (campaign, row, recipient, reason, detail, at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                let (row, reason) = (signed(line.row), line.reason.as_str());
                let values = params![key, row, line.recipient, reason, line.detail, at];
                *new.entry(reason).or_default() += execute(transaction, sql, values)?;
            }
            let all: usize = new.values().sum();
            let sql = "UPDATE campaign SET skipped = skipped + ?2 WHERE key = ?1";
            execute(transaction, sql, [key, signed(all as u64)])?;
            for (reason, count) in new {
                tally(transaction, key, "skipped", reason, signed(count as u64), "")?;
            }
            let sql = "UPDATE campaign SET plan_batches = ?2, plan_rows = ?3, plan_digest = ?4, planned = ?5 WHERE key = ?1";
            let Checkpoint { batches, rows, digest, complete } = checkpoint;
            execute(transaction, sql, params![key, batches, signed(rows), digest, complete])?;
            Ok(())
        };
        self.store.write(write).await
    }

    async fn count_unplanned(
        &self,
        id: &CampaignId,
        known: PlannedSoFar,
        rows: u64,
        reason: SkipReason,
    ) -> Result<bool, LedgerError> {
        let id = id.clone();
        let write = move |transaction: &Transaction<'_>| {
            let key = key(transaction, &id)?;
            let is_known: bool = transaction.query_row(
                "SELECT NOT planned AND plan_rows = ?2 AND ?3 = coalesce((SELECT 1 + max(batch.key & 0xffffffff)
                   FROM batch WHERE batch.key >= ?1 << 32 AND batch.key < (?1 + 1) << 32), 0)
                 FROM campaign WHERE key = ?1",
                params![key, signed(known.rows), known.batches],
                |row| row.get(0),
            )?;
            if is_known {
                let sql = "UPDATE campaign SET skipped = skipped + ?2, planned = true WHERE key = ?1";
                execute(transaction, sql, [key, signed(rows)])?;
                tally(transaction, key, "skipped", reason.as_str(), signed(rows), "")?;
            }
            Ok(is_known)
        };
        self.store.write(write).await
    }
}
