//! The numbers that must never be messaged, in the embedded store.

use rusqlite::{Connection, Transaction};

use super::{signed, unsigned};
use crate::campaign::Phone;
use crate::ledger::{LedgerError, Suppress, Suppressed};

pub(super) fn suppress(
    transaction: &Transaction<'_>,
    numbers: &[Phone],
    how: Suppress,
) -> Result<u64, LedgerError> {
    let sql = match how {
        Suppress::Add => "INSERT OR IGNORE INTO suppressed (number) VALUES (?1)",
        Suppress::Remove => "DELETE FROM suppressed WHERE number = ?1",
    };
    let mut changed = 0;
    for phone in numbers {
        changed += transaction.prepare_cached(sql)?.execute([signed(phone.digits())])? as u64;
    }
    if changed > 0 {
        transaction.execute("UPDATE suppressed_version SET version = version + 1", [])?;
    }
    Ok(changed)
}

pub(super) fn suppressed(connection: &Connection, known: u64) -> Result<Option<Suppressed>, LedgerError> {
    let version: i64 = connection
        .prepare_cached("SELECT version FROM suppressed_version")?
        .query_row([], |row| row.get(0))?;
    let version = unsigned(version);
    if version == known {
        return Ok(None);
    }
    let mut statement = connection.prepare_cached("SELECT number FROM suppressed ORDER BY number")?;
    let numbers = statement.query_map([], |row| row.get::<_, i64>(0))?;
    let numbers = numbers.map(|number| number.map(unsigned)).collect::<rusqlite::Result<_>>()?;
    Ok(Some(Suppressed { version, numbers }))
}
