//! The embedded ledger: `SQLite` in WAL mode with full sync; concurrent writes share a commit.

mod audit;
mod batches;
mod breakers;
mod campaigns;
mod layout;
mod moving;
mod notices;
mod pages;
mod plans;
mod reporting;
mod sent;
mod store;
mod suppression;

use std::{path::Path, str::FromStr, sync::Arc, sync::atomic::AtomicU32};

use jiff::Timestamp;
use rusqlite::{Connection, Error, OptionalExtension, Params, Row, Transaction, types::Type};

use super::{Ledger, LedgerError, new_key};
use crate::campaign::CampaignId;
pub use store::Access;
use store::SqliteStore;

/// A ledger in a file.
#[derive(Clone)]
pub struct Sqlite {
    store: Arc<SqliteStore>,
    /// Identifies this process' claims: all others are those of dead processes, because only one process sends.
    session: u32,
    claims: Arc<AtomicU32>,
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Storage(format!("failed: {error}"))
    }
}

impl Sqlite {
    /// Opens a store.
    ///
    /// # Errors
    ///
    /// If another process sends from it, or it cannot be read or created.
    pub fn open(path: &Path, access: Access) -> Result<Self, LedgerError> {
        let store = Arc::new(SqliteStore::open(path, access)?);
        Ok(Self { store, session: rand::random(), claims: Arc::default() })
    }
}

/// Returns the time of the ledger's clock, in milliseconds since 1970.
fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or_default()
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// Converts a number for `SQLite`, which has only signed ones; ours are far below the maximum.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(unsigned)
}

/// Runs a statement. Returns the number of rows that it changed.
fn execute(connection: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(params)
}

/// Reads the first row of a query, if there is one.
fn first_row<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(sql)?.query_row(params, read).optional()
}

/// Reads each row of a query.
fn each_row<T, C: FromIterator<T>>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<C> {
    connection.prepare_cached(sql)?.query_map(params, read)?.collect()
}

/// Reads a campaign's id from the first column.
fn id_of(row: &Row<'_>) -> rusqlite::Result<CampaignId> {
    parsed(row.get_ref(0)?.as_str()?)
}

/// Reads a text of a column into its type.
fn parsed<T: FromStr>(text: &str) -> rusqlite::Result<T>
where
    T::Err: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    text.parse().map_err(|error: T::Err| Error::FromSqlConversionFailure(0, Type::Text, error.into()))
}

/// Returns the key of a campaign's row.
fn key(connection: &Connection, id: &CampaignId) -> Result<i64, LedgerError> {
    let key =
        first_row(connection, "SELECT key FROM campaign WHERE id = ?1", [id.as_str()], |row| row.get(0))?;
    key.ok_or_else(|| LedgerError::NoCampaign(id.clone()))
}

/// Returns the key of a batch's row.
fn batch_key(campaign: i64, number: u32) -> i64 {
    (campaign << 32) | i64::from(number)
}

/// Returns a batch's number from the key of its row.
fn batch_number(key: i64) -> u32 {
    u32::try_from(key & 0xffff_ffff).unwrap_or_default()
}

impl super::Clock for Sqlite {
    fn now(&self) -> i64 {
        now()
    }
}

impl Ledger for Sqlite {
    fn health_error(&self) -> Option<String> {
        self.store.health_error()
    }

    async fn write_error(&self, _: &CampaignId) -> Result<Option<String>, LedgerError> {
        Ok(self.store.health_error())
    }

    async fn callback_key(&self) -> Result<String, LedgerError> {
        let make = |transaction: &Transaction<'_>| {
            execute(
                transaction,
                "INSERT OR IGNORE INTO callback_key (one, key) VALUES (1, ?1)",
                [new_key()],
            )?;
            read_key(transaction)?.ok_or_else(|| LedgerError::Storage("has no callback key".into()))
        };
        match self.store.read(read_key).await? {
            Some(key) => Ok(key),
            None => self.store.write(make).await,
        }
    }
}

fn read_key(connection: &Connection) -> Result<Option<String>, LedgerError> {
    Ok(first_row(connection, "SELECT key FROM callback_key", [], |row| row.get(0))?)
}
