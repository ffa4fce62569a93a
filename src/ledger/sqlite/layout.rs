//! The layout versions of the store, and the upgrades between them.

use rusqlite::{Connection, TransactionBehavior};

/// Layout version that this program writes.
pub(super) const VERSION: i64 = 14;
/// Statements that upgrade a layout to the next one, from the oldest that is supported.
pub(super) const UPGRADES: [(i64, &str); 7] = [
    (7, "ALTER TABLE campaign ADD COLUMN doubt_below INTEGER NOT NULL DEFAULT 0"),
    (
        8,
        "CREATE TABLE sent (number INTEGER NOT NULL, campaign INTEGER NOT NULL, batch INTEGER NOT NULL,
             message INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (number, campaign)) WITHOUT ROWID;
         CREATE INDEX sent_at ON sent (at);
         ALTER TABLE batch ADD COLUMN request TEXT;",
    ),
    (9, "CREATE TABLE ended_session (digest TEXT PRIMARY KEY, ends INTEGER NOT NULL) WITHOUT ROWID;"),
    (10, "ALTER TABLE campaign ADD COLUMN created_by TEXT"),
    (11, "ALTER TABLE campaign ADD COLUMN announced INTEGER NOT NULL DEFAULT 0"),
    (
        12,
        "ALTER TABLE suppressed ADD COLUMN added TEXT;
         ALTER TABLE campaign ADD COLUMN reason_data TEXT;",
    ),
    // Notices were stored as breakers of Flows with impossible names.
    (
        13,
        "CREATE TABLE notice (account TEXT NOT NULL, subject TEXT NOT NULL, event TEXT, detail TEXT NOT NULL,
             since INTEGER NOT NULL, PRIMARY KEY (account, subject)) WITHOUT ROWID;
         INSERT INTO notice (account, subject, detail, since)
             SELECT account, substr(word, length('flow (notice) ') + 1), reason, since FROM breaker
             WHERE word GLOB 'flow (notice) template *' OR word GLOB 'flow (notice) number *';
         DELETE FROM breaker
             WHERE word GLOB 'flow (notice) template *' OR word GLOB 'flow (notice) number *';
         ALTER TABLE act ADD COLUMN file TEXT;",
    ),
];
/// Layouts that a moved store may have, latest first: the layout, and a column that it added (table and name).
const COLUMNS: [(i64, &str, &str); 2] = [(14, "act", "file"), (13, "campaign", "reason_data")];
/// Earliest layout of a moved store.
const FIRST_MOVED: i64 = 12;
/// Layout version that marks a moved store: no process sends from it, and older versions do not open it.
pub(super) const MOVED: i64 = -1;

/// Upgrades a store, all steps or none.
pub(super) fn upgrade(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (from, step) in UPGRADES {
        // Another process may have upgraded it.
        if transaction.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? == from {
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "user_version", from + 1)?;
        }
    }
    transaction.commit()
}

/// Upgrades a store that an earlier version moved. Its layout is found by its columns, because its version is [`MOVED`].
pub(super) fn upgrade_moved(connection: &mut Connection) -> rusqlite::Result<()> {
    if moved_layout(connection)? == VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have upgraded it.
    let layout = moved_layout(&transaction)?;
    for (_, step) in UPGRADES.iter().filter(|(from, _)| *from >= layout) {
        transaction.execute_batch(step)?;
    }
    transaction.commit()
}

fn moved_layout(connection: &Connection) -> rusqlite::Result<i64> {
    for (layout, table, column) in COLUMNS {
        let has = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
        if connection.query_row(has, [table, column], |row| row.get::<_, i64>(0))? > 0 {
            return Ok(layout);
        }
    }
    Ok(FIRST_MOVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a store with notices in layout 13.
    fn layout_13() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("schema.sql")).unwrap();
        connection
            .execute_batch(
                "DROP TABLE notice;
                 ALTER TABLE act DROP COLUMN file;
                 INSERT INTO breaker VALUES
                     ('main', 'flow (notice) template of fer', 'it is paused', 7, NULL, 0),
                     ('main', 'flow (notice) number 912248931479', 'it is flagged', 8, NULL, 0),
                     ('main', 'flow 1323', 'blocked', 9, NULL, 0);",
            )
            .unwrap();
        connection
    }

    fn has_notices(connection: &Connection) {
        let rows = |query: &str| -> Vec<String> {
            let mut statement = connection.prepare(query).unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.collect::<rusqlite::Result<_>>().unwrap()
        };
        let notices = "SELECT account || ' ' || subject || ' ' || coalesce(event, '-') || ' ' || detail FROM notice ORDER BY since";
        assert_eq!(
            rows(notices),
            ["main template of fer - it is paused", "main number 912248931479 - it is flagged"]
        );
        assert_eq!(rows("SELECT word FROM breaker"), ["flow 1323"]);
        assert_eq!(rows("SELECT file FROM act"), Vec::<String>::new());
    }

    #[test]
    fn notices_that_were_stored_as_breakers_become_notices() {
        let mut connection = layout_13();
        connection.pragma_update(None, "user_version", 13).unwrap();
        upgrade(&mut connection).unwrap();
        has_notices(&connection);
        let layout: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(layout, VERSION);
    }

    #[test]
    fn a_store_that_an_earlier_version_moved_is_upgraded_and_stays_moved() {
        let mut connection = layout_13();
        connection.pragma_update(None, "user_version", MOVED).unwrap();
        for _ in 0..2 {
            upgrade_moved(&mut connection).unwrap();
            has_notices(&connection);
        }
        let layout: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(layout, MOVED);
    }
}
