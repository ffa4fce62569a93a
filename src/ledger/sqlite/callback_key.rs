//! The key that seals the addresses of reports where none is configured, in the embedded store.

use rusqlite::{Connection, OptionalExtension, Transaction};

use crate::ledger::LedgerError;

pub(super) fn read(connection: &Connection) -> Result<Option<String>, LedgerError> {
    Ok(connection.query_row("SELECT key FROM callback_key", [], |row| row.get(0)).optional()?)
}

/// Keeps a key, unless there is one already; returns the one that is there.
pub(super) fn make(transaction: &Transaction<'_>, key: &str) -> Result<String, LedgerError> {
    transaction.execute("INSERT OR IGNORE INTO callback_key (one, key) VALUES (1, ?1)", [key])?;
    Ok(read(transaction)?.unwrap_or_default())
}
