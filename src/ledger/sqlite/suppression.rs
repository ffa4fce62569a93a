//! The suppression list in the embedded store.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{Sqlite, signed, unsigned};
use crate::campaign::Phone;
use crate::ledger::suppression::MAX_CHANGES;
use crate::ledger::{
    Clock as _, LedgerError, OptOut, OptOutSource, Suppress, Suppressed, Suppression, SuppressionUpdate,
};

impl Suppression for Sqlite {
    async fn suppress(
        &self,
        numbers: Vec<Phone>,
        how: Suppress,
        source: Option<OptOutSource>,
    ) -> Result<u64, LedgerError> {
        let added = source.map(|source| OptOut { at: self.now(), source }.text());
        let write = move |transaction: &Transaction<'_>| {
            let mut changed = 0;
            for phone in &numbers {
                let number = signed(phone.digits());
                let rows = match how {
                    Suppress::Add => transaction
                        .prepare_cached("INSERT OR IGNORE INTO suppressed (number, added) VALUES (?1, ?2)")?
                        .execute(params![number, added])?,
                    Suppress::Remove => transaction
                        .prepare_cached("DELETE FROM suppressed WHERE number = ?1")?
                        .execute([number])?,
                };
                if rows > 0 {
                    changed += 1;
                    transaction
                        .prepare_cached("INSERT INTO suppression (number, is_listed) VALUES (?1, ?2)")?
                        .execute(params![number, how == Suppress::Add])?;
                }
            }
            if changed > 0 {
                transaction.execute(
                    "DELETE FROM suppression WHERE version <= (SELECT max(version) FROM suppression) - ?1",
                    [signed(MAX_CHANGES as u64)],
                )?;
            }
            Ok(changed)
        };
        self.store.write(write).await
    }

    async fn opt_outs(&self, numbers: &[Phone]) -> Result<Vec<Option<OptOut>>, LedgerError> {
        let numbers: Vec<i64> = numbers.iter().map(|phone| signed(phone.digits())).collect();
        let read = move |connection: &Connection| {
            let mut statement =
                connection.prepare_cached("SELECT added FROM suppressed WHERE number = ?1")?;
            let added = |number: i64| statement.query_row([number], |row| row.get(0)).optional();
            let texts: rusqlite::Result<Vec<Option<Option<String>>>> =
                numbers.into_iter().map(added).collect();
            Ok(texts?.into_iter().map(|text| OptOut::read(&text.flatten()?)).collect())
        };
        self.store.read(read).await
    }

    async fn suppressed(&self, known: u64) -> Result<Option<SuppressionUpdate>, LedgerError> {
        self.store.read(move |connection| read(connection, known)).await
    }
}

fn read(connection: &Connection, known: u64) -> Result<Option<SuppressionUpdate>, LedgerError> {
    let (oldest, version): (i64, i64) = connection
        .prepare_cached("SELECT coalesce(min(version), 0), coalesce(max(version), 0) FROM suppression")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (oldest, version) = (unsigned(oldest), unsigned(version));
    if version == known {
        return Ok(None);
    }
    if known > 0 && known < version && known + 1 >= oldest {
        let mut statement = connection.prepare_cached(
            "SELECT number, is_listed FROM suppression WHERE version > ?1 ORDER BY version",
        )?;
        let change = |row: &Row<'_>| Ok((row.get(0).map(unsigned)?, row.get(1)?));
        let rows = statement.query_map([signed(known)], change)?.collect::<rusqlite::Result<Vec<_>>>()?;
        let changes =
            rows.into_iter().filter_map(|(digits, is_listed)| Some((Phone::from_digits(digits)?, is_listed)));
        return Ok(Some(SuppressionUpdate::Since { version, changes: changes.collect() }));
    }
    let mut statement = connection.prepare_cached("SELECT number FROM suppressed ORDER BY number")?;
    let numbers = statement.query_map([], |row| row.get::<_, i64>(0))?;
    let numbers = numbers.map(|number| number.map(unsigned)).collect::<rusqlite::Result<_>>()?;
    Ok(Some(SuppressionUpdate::Whole(Suppressed { version, numbers })))
}
