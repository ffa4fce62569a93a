//! The suppression list in the embedded store.

use rusqlite::{Connection, Row, Transaction, params};

use super::{Sqlite, each_row, execute, first_row, signed, unsigned};
use crate::campaign::Phone;
use crate::ledger::suppression::MAX_CHANGES;
use crate::ledger::{LedgerError, OptOut, Suppress, Suppressed, Suppression, SuppressionUpdate};

impl Suppression for Sqlite {
    async fn suppress(
        &self,
        numbers: Vec<Phone>,
        how: Suppress,
        added: Option<OptOut>,
    ) -> Result<u64, LedgerError> {
        let added = added.map(|added| added.text());
        let write = move |transaction: &Transaction<'_>| {
            let mut changed = 0;
            for phone in &numbers {
                let number = signed(phone.digits());
                let rows = if how == Suppress::Add {
                    let sql = "INSERT OR IGNORE INTO suppressed (number, added) VALUES (?1, ?2)";
                    execute(transaction, sql, params![number, added])?
                } else {
                    execute(transaction, "DELETE FROM suppressed WHERE number = ?1", [number])?
                };
                if rows > 0 {
                    changed += 1;
                    let sql = "INSERT INTO suppression (number, is_listed) VALUES (?1, ?2)";
                    execute(transaction, sql, params![number, how == Suppress::Add])?;
                }
            }
            if changed > 0 {
                let sql =
                    "DELETE FROM suppression WHERE version <= (SELECT max(version) FROM suppression) - ?1";
                execute(transaction, sql, [signed(MAX_CHANGES as u64)])?;
            }
            Ok(changed)
        };
        self.store.write(write).await
    }

    async fn opt_outs(&self, numbers: &[Phone]) -> Result<Vec<Option<OptOut>>, LedgerError> {
        let numbers: Vec<i64> = numbers.iter().map(|phone| signed(phone.digits())).collect();
        let read = move |connection: &Connection| {
            let opt_out = |number: i64| {
                let sql = "SELECT added FROM suppressed WHERE number = ?1";
                let text: Option<Option<String>> = first_row(connection, sql, [number], |row| row.get(0))?;
                Ok(text.flatten().and_then(|text| OptOut::read(&text)))
            };
            numbers.into_iter().map(opt_out).collect()
        };
        self.store.read(read).await
    }

    async fn suppressed(&self, known: u64) -> Result<Option<SuppressionUpdate>, LedgerError> {
        self.store.read(move |connection| read(connection, known)).await
    }
}

fn read(connection: &Connection, known: u64) -> Result<Option<SuppressionUpdate>, LedgerError> {
    let (oldest, version) = connection
        .prepare_cached("SELECT coalesce(min(version), 0), coalesce(max(version), 0) FROM suppression")?
        .query_row([], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))))?;
    if version == known {
        return Ok(None);
    }
    if known > 0 && known < version && known + 1 >= oldest {
        let sql = "SELECT number, is_listed FROM suppression WHERE version > ?1 ORDER BY version";
        let change = |row: &Row<'_>| Ok((Phone::from_digits(unsigned(row.get(0)?)), row.get(1)?));
        let rows: Vec<(Option<Phone>, bool)> = each_row(connection, sql, [signed(known)], change)?;
        let changes = rows.into_iter().filter_map(|(phone, is_listed)| Some((phone?, is_listed)));
        return Ok(Some(SuppressionUpdate::Since { version, changes: changes.collect() }));
    }
    let sql = "SELECT number FROM suppressed ORDER BY number";
    let numbers = each_row(connection, sql, [], |row| row.get(0).map(unsigned))?;
    Ok(Some(SuppressionUpdate::Whole(Suppressed { version, numbers })))
}
