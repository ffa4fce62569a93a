//! The file of a store: opened by one sending process, written by one thread.
//!
//! The thread writes all waiting work in one transaction, so that many batches share one sync to disk. It knows no table.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, Params, Row, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::layout::{MOVED, UPGRADES, VERSION, upgrade, upgrade_moved};
use super::{each_row, execute, first_row};
use crate::ledger::LedgerError;

/// Application id of a store of this program ("flow").
const APPLICATION: i64 = 0x666c_6f77;
/// Maximum number of writes in one transaction.
const GROUP: usize = 512;
/// Minimum free disk space for a write, in bytes. A commit needs less, so a full disk interrupts none.
const RESERVED_BYTES: u64 = 8 << 20;
/// Timeout for a file that another process has locked.
const BUSY: Duration = Duration::from_secs(10);
/// Interval between checks of a full disk.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The purpose for which a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To send: excludes other sending processes, and creates the file.
    Send,
    /// To change data, also while another process sends.
    Change,
    /// As `Change`, and creates the file.
    Create,
    /// To read, also while another process sends.
    Read,
    /// To move it to a fleet, also if a move was started before. Excludes sending processes.
    Move,
}

/// An open store.
pub(super) struct SqliteStore {
    reader: Arc<Mutex<Connection>>,
    writer: Option<mpsc::Sender<Work>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    path: PathBuf,
    /// Whether the store is being closed.
    closing: Arc<AtomicBool>,
    /// Lock of the sending process; the system releases it when the process ends.
    lock: Option<File>,
}

/// A write: done in the transaction, answered when the transaction is on disk.
type Work = Box<dyn FnOnce(&Transaction<'_>) -> CompletedWrite + Send>;

/// What is wrong with another file.
const FOREIGN: &str = "not a flowcast store; use another file";

struct CompletedWrite {
    /// Whether the store itself failed: then the transaction must be rolled back.
    broken: bool,
    answer: Box<dyn FnOnce(Result<(), LedgerError>) + Send>,
}

impl SqliteStore {
    pub(super) fn open(path: &Path, access: Access) -> Result<Self, LedgerError> {
        let broken = |error: &dyn std::fmt::Display| storage(path, error);
        let lock = match access {
            Access::Read | Access::Change | Access::Create => None,
            Access::Send | Access::Move => Some(lock(path)?),
        };
        if matches!(access, Access::Send | Access::Create) {
            make(path)?;
        } else if !path.is_file() {
            return Err(LedgerError::NoStore(path.display().to_string()));
        }
        let mut connection = connect(path).map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => broken(&FOREIGN),
            _ => broken(&error),
        })?;
        // Nothing is written to a file that is not a store.
        match kind(&connection).map_err(|error| broken(&error))? {
            Kind::Store(VERSION) => {}
            // A moved store can still be read, including the campaigns that were not moved.
            Kind::Store(MOVED) if matches!(access, Access::Move | Access::Read) => {
                upgrade_moved(&mut connection).map_err(|error| broken(&error))?;
            }
            Kind::Store(MOVED) => {
                return Err(broken(
                    &"moved to a fleet's ledger; finish the move with `flowcast migrate`, or use another file",
                ));
            }
            // Also for reading: the additions do not disturb any version, not even the one that wrote it.
            Kind::Store(older) if UPGRADES.iter().any(|(from, _)| *from == older) => {
                upgrade(&mut connection).map_err(|error| broken(&error))?;
            }
            // A file that an operator created, or on a file system without links.
            Kind::Empty if access != Access::Read => {
                create(&mut connection).map_err(|error| broken(&error))?;
            }
            Kind::Empty => return Err(broken(&"no campaigns yet")),
            Kind::Foreign => return Err(broken(&FOREIGN)),
            Kind::Store(other) => {
                return Err(broken(&format!(
                    "its layout is {other}, but this flowcast reads layout {VERSION}; use the flowcast that wrote it, or \
                     another file"
                )));
            }
        }
        let reader = Arc::new(Mutex::new(connect(path).map_err(|error| broken(&error))?));
        let closing = Arc::new(AtomicBool::new(false));
        let (writer, thread) = if access == Access::Read {
            (None, None)
        } else {
            let (sender, receiver) = mpsc::channel();
            let (name, closed) = (path.to_path_buf(), closing.clone());
            // A sending process waits for disk space; other writes fail with an error.
            let waits = access == Access::Send;
            let has_room = move |path: &Path| !waits || wait_for_room(path, &closed);
            let thread = std::thread::Builder::new()
                .name("ledger".into())
                .spawn(move || write_loop(connection, &receiver, &name, has_room))
                .map_err(|error| broken(&error))?;
            (Some(sender), Some(thread))
        };
        Ok(Self { reader, writer, thread: Mutex::new(thread), path: path.into(), closing, lock })
    }

    /// Returns why the store cannot be written, if it cannot.
    pub(super) fn health_error(&self) -> Option<String> {
        lacks_room(&self.path)
    }

    /// Reads on a separate connection, which never waits for a write.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (sender, receiver) = oneshot::channel();
        let reader = self.reader.clone();
        // Boxed, because the runtime is compiled for each type that is spawned.
        let work: Box<dyn FnOnce() + Send> = Box::new(move || {
            let result = read(&reader.lock());
            // Before the answer: if the process ends right after it, the connection must be closed, or the writes
            // stay in the write-ahead log.
            drop(reader);
            // A caller that was dropped does not wait for the result.
            let _ = sender.send(result);
        });
        tokio::task::spawn_blocking(work);
        receiver.await.map_err(|_| storage(&self.path, &"cannot be read"))?
    }

    /// Reads each row of a query.
    pub(super) async fn each_row<T, C: FromIterator<T> + Send + 'static>(
        &self,
        sql: &'static str,
        params: impl Params + Send + 'static,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<C, LedgerError> {
        self.read(move |connection| Ok(each_row(connection, sql, params, read)?)).await
    }

    /// Reads the first row of a query, if there is one.
    pub(super) async fn first_row<T: Send + 'static>(
        &self,
        sql: &'static str,
        params: impl Params + Send + 'static,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Option<T>, LedgerError> {
        self.read(move |connection| Ok(first_row(connection, sql, params, read)?)).await
    }

    /// Runs one statement as a write. Returns the number of rows that it changed.
    pub(super) async fn execute(
        &self,
        sql: &'static str,
        params: impl Params + Send + 'static,
    ) -> Result<usize, LedgerError> {
        self.write(move |transaction| Ok(execute(transaction, sql, params)?)).await
    }

    /// Writes. When it returns, the write is on disk.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move |transaction| {
            let result = write(transaction);
            let broken = matches!(result, Err(LedgerError::Storage(_)));
            let answer = Box::new(move |committed: Result<(), LedgerError>| {
                // A caller that was dropped does not wait for the result.
                let _ = sender.send(result.and_then(|value| committed.map(|()| value)));
            });
            CompletedWrite { broken, answer }
        });
        let closed = || storage(&self.path, &"closed for writing");
        self.writer.as_ref().ok_or_else(closed)?.send(work).map_err(|_| closed())?;
        receiver.await.map_err(|_| closed())?
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The thread ends when the channel is closed; then the lock can be released.
        self.writer = None;
        self.closing.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        // Explicitly, because a child process that is being started holds a copy of the file.
        if let Some(lock) = &self.lock {
            let _ = lock.unlock();
        }
    }
}

pub(super) fn storage(path: &Path, error: &dyn std::fmt::Display) -> LedgerError {
    LedgerError::Storage(format!("{}: {error}", path.display()))
}

/// Locks a store for sending.
///
/// Only one process sends from a store. So all earlier claims are those of dead processes, and the limits of an
/// account, which the process keeps, are exact.
fn lock(path: &Path) -> Result<File, LedgerError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name);
    let mut file = open().map_err(|error| storage(&name, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = pid.trim();
            return Err(LedgerError::InUse(format!(
                "another flowcast (process {pid}) is sending from {}; wait until it ends, or use another store with --store FILE",
                path.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(storage(&name, &error)),
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
    written.map_err(|error| storage(&name, &error))?;
    Ok(file)
}

/// Creates the file if it does not exist, atomically. If two processes create it, one uses the other's file.
fn make(path: &Path) -> Result<(), LedgerError> {
    if path.exists() {
        return Ok(());
    }
    let broken = |error: &dyn std::fmt::Display| storage(path, error);
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    // Readable only by its owner, because it contains phone numbers.
    let new = tempfile::Builder::new()
        .prefix(".flowcast-new-")
        .tempfile_in(folder)
        .map_err(|error| broken(&error))?;
    let mut connection = connect(new.path()).map_err(|error| broken(&error))?;
    create(&mut connection).map_err(|error| broken(&error))?;
    connection.close().map_err(|(_, error)| broken(&error))?;
    match std::fs::hard_link(new.path(), path) {
        Ok(()) => File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| broken(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) => make_in_place(path).map_err(|error| broken(&error)),
    }
}

/// Creates an empty file, on a file system without links.
fn make_in_place(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Full: a commit is on disk when it returns, and survives a power loss.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    // 2 MiB: batches are appended and changed twice soon after, so a larger cache only uses memory.
    connection.pragma_update(None, "cache_size", -2048)?;
    Ok(connection)
}

/// The kind of a database file.
enum Kind {
    Empty,
    Store(i64),
    Foreign,
}

fn kind(connection: &Connection) -> rusqlite::Result<Kind> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (number("application_id")?, tables) {
        (APPLICATION, _) => Kind::Store(number("user_version")?),
        (0, 0) => Kind::Empty,
        _ => Kind::Foreign,
    })
}

/// Creates the tables in an empty file. Another process may do the same concurrently.
fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let since = Instant::now();
    while let Err(error) = create_now(connection) {
        // SQLite does not wait for a lock when the journal mode changes.
        let is_busy = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy);
        if !is_busy || since.elapsed() > BUSY {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn create_now(connection: &mut Connection) -> rusqlite::Result<()> {
    if !matches!(kind(connection)?, Kind::Empty) {
        return Ok(());
    }
    connection.pragma_update(None, "page_size", 8192)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if !matches!(kind(&transaction)?, Kind::Empty) {
        return Ok(());
    }
    transaction.execute_batch(include_str!("schema.sql"))?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Writes all waiting work in one transaction and answers when it is on disk, until the channel is closed.
fn write_loop(
    mut connection: Connection,
    receiver: &mpsc::Receiver<Work>,
    path: &Path,
    has_room: impl Fn(&Path) -> bool,
) {
    while let Ok(first) = receiver.recv() {
        if !has_room(path) {
            // Dropped work reports to its caller that nothing was written.
            continue;
        }
        let waiting = std::iter::once(first).chain(receiver.try_iter()).take(GROUP);
        let mut answers = Vec::new();
        let committed = write_group(&mut connection, waiting.collect(), &mut answers);
        let committed = committed.map_err(|error| storage(path, &error));
        for answer in answers {
            answer(committed.clone());
        }
    }
}

/// Returns why a store's disk is too full, if it is.
fn lacks_room(path: &Path) -> Option<String> {
    let disk = rustix::fs::statvfs(path).ok()?;
    let room = disk.f_bavail.saturating_mul(disk.f_frsize);
    (room < RESERVED_BYTES).then(|| {
        let (path, least) = (path.display(), RESERVED_BYTES >> 20);
        format!("the disk of {path} is full; sending continues when {least} MiB are free")
    })
}

/// Waits until there is disk space to write. Returns `false` if the store is closed before.
fn wait_for_room(path: &Path, closing: &AtomicBool) -> bool {
    let Some(why) = lacks_room(path) else { return true };
    tracing::warn!("sending stops: {why}");
    while lacks_room(path).is_some() {
        if closing.load(Ordering::Relaxed) {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    tracing::info!("the disk of {} has free space again", path.display());
    true
}

type Answers = Vec<Box<dyn FnOnce(Result<(), LedgerError>) + Send>>;

fn write_group(connection: &mut Connection, group: Vec<Work>, answers: &mut Answers) -> Result<(), String> {
    // Dropped work reports to its caller that nothing was written.
    let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let transaction = begun.map_err(|error| error.to_string())?;
    let mut broken = false;
    for work in group {
        let done = work(&transaction);
        answers.push(done.answer);
        broken |= done.broken;
    }
    if broken {
        // A write that failed in the middle rolls back the whole group, so that no partial write is stored.
        let _ = transaction.rollback();
        return Err("a write failed, and all writes of its transaction were rolled back".into());
    }
    transaction.commit().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_an_unknown_layout_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flowcast.db");
        drop(SqliteStore::open(&path, Access::Send).unwrap());
        connect(&path).unwrap().pragma_update(None, "user_version", 4).unwrap();
        for access in [Access::Send, Access::Read] {
            let error = SqliteStore::open(&path, access).err().unwrap().to_string();
            assert!(error.contains("its layout is 4"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_read_releases_its_connection_before_it_returns() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("flowcast.db"), Access::Send).unwrap();
        for _ in 0..10_000 {
            store.read(|_| Ok(())).await.unwrap();
            assert_eq!(Arc::strong_count(&store.reader), 1);
        }
    }

    #[test]
    fn concurrent_processes_create_a_new_store_once() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("flowcast.db");
            std::thread::scope(|scope| {
                for nth in 0..8 {
                    let access = if nth == 0 { Access::Send } else { Access::Create };
                    let path = &path;
                    scope.spawn(move || SqliteStore::open(path, access).unwrap());
                }
            });
            assert!(matches!(kind(&connect(&path).unwrap()).unwrap(), Kind::Store(VERSION)));
            let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
            let files: Vec<_> = files.filter(|name| name.to_string_lossy().contains("new")).collect();
            assert!(files.is_empty(), "{files:?}");
        }
    }

    #[test]
    fn an_empty_file_becomes_a_store() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flowcast.db");
        make_in_place(&path).unwrap();
        std::thread::scope(|scope| {
            for access in [Access::Send, Access::Create, Access::Change] {
                let path = &path;
                scope.spawn(move || SqliteStore::open(path, access).unwrap());
            }
        });
        assert!(matches!(kind(&connect(&path).unwrap()).unwrap(), Kind::Store(VERSION)));
    }

    #[tokio::test]
    async fn a_failed_write_stores_nothing_and_returns_the_cause() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("flowcast.db"), Access::Send).unwrap();
        let insert = "INSERT INTO tally (campaign, kind, word, count) VALUES (1, 'rejected', '400', 1)";
        let failed = store.write(move |transaction| {
            transaction.execute(insert, [])?;
            Ok(transaction.execute("INSERT INTO nowhere VALUES (1)", []).map(drop)?)
        });
        let error = failed.await.unwrap_err().to_string();
        assert!(error.contains("no such table: nowhere"), "{error}");
        let count = |connection: &Connection| {
            Ok(connection.query_row("SELECT count(*) FROM tally", [], |row| row.get::<_, i64>(0))?)
        };
        assert_eq!(store.read(count).await.unwrap(), 0);
        store.write(move |transaction| Ok(transaction.execute(insert, [])?)).await.unwrap();
        assert_eq!(store.read(count).await.unwrap(), 1);
    }
}
