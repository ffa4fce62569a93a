//! The audit log in the embedded store: a row for each entry.

use rusqlite::{Row, Transaction, params};

use super::{Sqlite, execute, signed, time};
use crate::campaign::CampaignId;
use crate::ledger::audit::{RETAINED, page};
use crate::ledger::{Audit, AuditEntry, AuditPage, LedgerError};

impl Audit for Sqlite {
    async fn log(&self, act: AuditEntry) -> Result<(), LedgerError> {
        let write = move |transaction: &Transaction<'_>| {
            let campaign = act.campaign.as_ref().map(CampaignId::as_str);
            let sql =
                "INSERT INTO act (at, who, what, campaign, detail, file) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let values = params![act.at.as_millisecond(), act.who, act.what, campaign, act.detail, act.file];
            execute(transaction, sql, values)?;
            let sql = "DELETE FROM act WHERE key <= (SELECT max(key) FROM act) - ?1";
            execute(transaction, sql, [signed(RETAINED as u64)])?;
            Ok(())
        };
        self.store.write(write).await
    }

    async fn acts(
        &self,
        campaign: Option<&CampaignId>,
        from: Option<&str>,
        limit: usize,
    ) -> Result<AuditPage, LedgerError> {
        let campaign = campaign.map(ToString::to_string);
        let before = from.map_or(Ok(i64::MAX), |place| place.parse().map_err(|_| LedgerError::NoPlace))?;
        let sql = "SELECT key, at, who, what, campaign, detail, file FROM act
             WHERE key < ?1 AND (?2 IS NULL OR campaign = ?2) ORDER BY key DESC LIMIT ?3";
        let acts = self.store.each_row(sql, (before, campaign, signed(limit as u64 + 1)), act).await?;
        Ok(page(acts, limit))
    }
}

fn act(row: &Row<'_>) -> rusqlite::Result<(String, AuditEntry)> {
    let (key, campaign): (i64, Option<String>) = (row.get(0)?, row.get(4)?);
    let act = AuditEntry {
        at: time(row.get(1)?),
        who: row.get(2)?,
        what: row.get(3)?,
        campaign: campaign.and_then(|id| id.parse().ok()),
        detail: row.get(5)?,
        file: row.get(6)?,
    };
    Ok((key.to_string(), act))
}
