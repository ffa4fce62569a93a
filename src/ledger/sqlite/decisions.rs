//! What people decided for a campaign, in words, in the embedded store.

use rusqlite::{Connection, Transaction, params};

use super::campaign_row::key;
use crate::campaign::CampaignId;
use crate::ledger::LedgerError;

pub(super) fn decided(transaction: &Transaction<'_>, id: &CampaignId, line: &str) -> Result<(), LedgerError> {
    let campaign = key(transaction, id)?;
    transaction.execute("INSERT INTO decision (campaign, line) VALUES (?1, ?2)", params![campaign, line])?;
    Ok(())
}

pub(super) fn decisions(connection: &Connection, id: &CampaignId) -> Result<Vec<String>, LedgerError> {
    let mut statement =
        connection.prepare_cached("SELECT line FROM decision WHERE campaign = ?1 ORDER BY rowid")?;
    let lines = statement.query_map([key(connection, id)?], |row| row.get(0))?;
    Ok(lines.collect::<rusqlite::Result<_>>()?)
}
