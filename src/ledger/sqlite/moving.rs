//! Reads everything that a store has of its campaigns, for `migration.rs`, and marks the store as moved.

use rusqlite::{Connection, Row, Transaction, params};

use super::{Sqlite, batch_key, batch_number, batches::sids, each_row, key, layout::MOVED, time, unsigned};
use crate::campaign::notice::{KeptNotice, NoticeSubject};
use crate::campaign::{CampaignId, Phone};
use crate::ledger::migration::{WholeBatch, WholeCampaign};
use crate::ledger::{Audit, Campaigns, LedgerError, Series, StoredNotice};

/// Maximum number of audit entries of a campaign that are moved.
const ACTS: usize = 1_000;

impl Sqlite {
    /// Returns whether the store is marked as moved.
    pub(in crate::ledger) async fn is_marked_as_moved(&self) -> Result<bool, LedgerError> {
        let read = |connection: &Connection| {
            let layout: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            Ok(layout == MOVED)
        };
        self.store.read(read).await
    }

    /// Marks the store as moved: from then on no worker of any version opens it.
    pub(in crate::ledger) async fn mark_as_moved(&self) -> Result<(), LedgerError> {
        let write = |transaction: &Transaction<'_>| {
            transaction.pragma_update(None, "user_version", MOVED)?;
            Ok(())
        };
        self.store.write(write).await
    }

    /// Returns account, stored scope and reason of each open breaker.
    pub(in crate::ledger) async fn open_breakers(
        &self,
    ) -> Result<Vec<(String, String, String)>, LedgerError> {
        let open = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        self.store.each_row("SELECT account, word, reason FROM breaker", [], open).await
    }

    /// Returns account and subject of each notice, and the notice.
    pub(in crate::ledger) async fn notices(
        &self,
    ) -> Result<Vec<(String, NoticeSubject, StoredNotice)>, LedgerError> {
        let notice = |row: &Row<'_>| {
            let Some(about) = NoticeSubject::read(row.get_ref(1)?.as_str()?) else { return Ok(None) };
            let notice = KeptNotice::from_parts(&about, row.get(2)?, row.get(3)?);
            Ok(Some((row.get(0)?, about, StoredNotice { notice, since: time(row.get(4)?) })))
        };
        let sql = "SELECT account, subject, event, detail, since FROM notice";
        let notices: Vec<_> = self.store.each_row(sql, [], notice).await?;
        Ok(notices.into_iter().flatten().collect())
    }

    /// Returns everything of a campaign, except its batches.
    pub(in crate::ledger) async fn whole(&self, id: &CampaignId) -> Result<WholeCampaign, LedgerError> {
        let campaign = self.campaign(id).await?.ok_or_else(|| LedgerError::NoCampaign(id.clone()))?;
        let points = self.points(id).await?;
        let mut acts = self.acts(Some(id), None, ACTS).await?.acts;
        acts.reverse();
        let id = id.clone();
        let read = move |connection: &Connection| {
            let campaign_key = key(connection, &id)?;
            let (fingerprint, job, columns, plan) = connection.query_row(
                "SELECT fingerprint, job, columns, plan_batches, plan_rows, plan_digest FROM campaign WHERE key = ?1",
                [campaign_key],
                |row| {
                    let plan = (row.get(3)?, unsigned(row.get(4)?), row.get(5)?);
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, plan))
                },
            )?;
            let mut statement = connection.prepare(
                "SELECT kind, word, count, detail FROM tally WHERE campaign = ?1 AND kind <> 'tick'",
            )?;
            let (mut tallies, mut texts) = (Vec::new(), Vec::new());
            let mut rows = statement.query([campaign_key])?;
            while let Some(row) = rows.next()? {
                let (kind, word, count): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let detail: String = row.get(3)?;
                if !detail.is_empty() {
                    texts.push((kind.clone(), word.clone(), detail));
                }
                if count > 0 {
                    tallies.push((kind, word, unsigned(count)));
                }
            }
            let sql =
                "SELECT row, recipient, reason, detail, at FROM skipped WHERE campaign = ?1 ORDER BY row";
            let skipped = each_row(connection, sql, [campaign_key], |row| {
                Ok((unsigned(row.get(0)?), row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            })?;
            let sql = "SELECT number, batch, message, at FROM sent WHERE campaign = ?1";
            let sent: Vec<(Option<Phone>, u32, u8, i64)> =
                each_row(connection, sql, [campaign_key], |row| {
                    Ok((Phone::from_digits(unsigned(row.get(0)?)), row.get(1)?, row.get(2)?, row.get(3)?))
                })?;
            let sent =
                sent.into_iter().filter_map(|(phone, batch, place, at)| Some((phone?, batch, place, at)));
            let sent = sent.collect();
            Ok(WholeCampaign {
                campaign,
                fingerprint,
                job,
                columns,
                plan,
                tallies,
                texts,
                skipped,
                points,
                acts,
                sent,
            })
        };
        self.store.read(read).await
    }

    /// Returns everything of some batches.
    pub(in crate::ledger) async fn whole_batches(
        &self,
        id: &CampaignId,
        numbers: &[u32],
    ) -> Result<Vec<WholeBatch>, LedgerError> {
        let (id, numbers) = (id.clone(), numbers.to_vec());
        let read = move |connection: &Connection| {
            let campaign = key(connection, &id)?;
            numbers.iter().map(|number| whole_batch(connection, batch_key(campaign, *number))).collect()
        };
        self.store.read(read).await
    }
}

fn whole_batch(connection: &Connection, at: i64) -> Result<WholeBatch, LedgerError> {
    let sids = sids(connection, at)?;
    let sql = "SELECT message, payload FROM payload WHERE batch = ?1";
    let payloads = each_row(connection, sql, [at], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let sql = "SELECT id, response, published FROM response WHERE batch = ?1";
    let responses = each_row(connection, sql, [at], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut statement = connection.prepare_cached(
        "SELECT plan, record, request, open, failed, replay, (SELECT kept FROM delivery WHERE batch = ?1)
         FROM batch WHERE key = ?1",
    )?;
    let batch = statement.query_row(params![at], |row| {
        let replay: i64 = row.get(5)?;
        Ok(WholeBatch {
            number: batch_number(at),
            plan: row.get(0)?,
            record: row.get(1)?,
            sids,
            request: row.get(2)?,
            is_open: row.get::<_, i64>(3)? > 0,
            is_failed: row.get::<_, i64>(4)? > 0,
            replay: (replay > 0).then(|| unsigned(replay)),
            payloads,
            deliveries: row.get(6)?,
            responses,
        })
    })?;
    Ok(batch)
}
