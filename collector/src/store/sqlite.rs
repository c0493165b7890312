//! SQLite as the store's back-end: how a connection is opened, and what we insist on.
//!
//! We assume a local file system with working `fsync` and shared memory between processes of one machine.
//! Journal in WAL mode with `synchronous = FULL`: a commit returns after its log is on the disk, so what
//! was acknowledged survives a power cut. Both are read back after they were set and anything else is
//! refused: some file systems quietly give less.
//!
//! The files belong to the owner alone: they hold password hashes.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, ffi};

use super::StoreError;
use super::db;
use super::migrate;

/// How long a connection waits for another process before the work fails with [`StoreError::Busy`].
const BUSY: Duration = Duration::from_secs(5);
/// The log is cut back to this size when it has been larger (a long read held it up).
const WAL_BYTES_KEPT: i64 = 64 << 20;
/// Steps of SQLite's machine between two looks at the clock: well below a millisecond.
const STEPS: i32 = 10_000;
/// Prepared statements kept per connection; more are prepared anew each time.
const STATEMENTS: usize = 64;

/// The database file in a data directory.
pub(super) fn database_file(dir: &Path) -> PathBuf {
    dir.join("peil.db")
}

/// The write-ahead log beside it.
pub(super) fn wal_file(dir: &Path) -> PathBuf {
    dir.join("peil.db-wal")
}

/// Opens for writing. Two programs that start together take turns here, so that only one migrates.
pub(super) fn open_and_migrate(dir: &Path) -> Result<db::Connection, StoreError> {
    let lock =
        lock_dir(dir).map_err(|source| StoreError::CreateDir { path: dir.to_owned(), source: Arc::new(source) })?;
    let path = database_file(dir);
    let connection =
        open_to_write(&path).map_err(|source| StoreError::Open { path: path.clone(), source: source.into() })?;
    require_durable(&connection).map_err(|fault| match fault {
        super::Fault::Sql(source) => StoreError::Open { path: path.clone(), source: source.into() },
        super::Fault::Refused(refusal) => refusal,
    })?;
    let db = db::Connection::Sqlite(connection);
    migrate::migrate(&db, &path.display().to_string())?;
    drop(lock);
    Ok(db)
}

/// Whether a transaction is open on this connection.
pub(super) fn in_transaction(db: &db::Connection) -> bool {
    match db {
        db::Connection::Sqlite(connection) => !connection.is_autocommit(),
        db::Connection::Postgres(_) => false,
    }
}

/// Makes the directory and the database file for the owner alone; the lock lasts as long as the file.
fn lock_dir(dir: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(dir.join("open.lock"))?;
    lock.lock()?;
    // SQLite gives its log and its index the rights of this file.
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(database_file(dir))?;
    Ok(lock)
}

fn open_to_write(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    Ok(connection)
}

/// Reads back what decides whether a commit survives a power cut.
pub(super) fn require_durable(connection: &Connection) -> Result<(), super::Fault> {
    let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if journal != "wal" {
        return Err(StoreError::NotDurable { setting: "journal_mode", found: journal, wanted: "wal" }.into());
    }
    for (setting, wanted) in [("synchronous", "2"), ("foreign_keys", "1")] {
        let found: i64 = connection.pragma_query_value(None, setting, |row| row.get(0))?;
        if found.to_string() != wanted {
            return Err(StoreError::NotDurable { setting, found: found.to_string(), wanted }.into());
        }
    }
    Ok(())
}

/// Copies the database behind `source`, as the transaction that is open on it sees it, into the file `to`, page by page
/// and in one go: with pauses it would begin anew at each commit of a running collector, and a read holds nobody up. The
/// copy needs no log beside it and is synced.
pub(super) fn copy_pages(source: &Connection, to: &Path) -> rusqlite::Result<()> {
    let mut copy =
        Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    copy.pragma_update(None, "synchronous", "FULL")?;
    match Backup::new(source, &mut copy)?.step(-1)? {
        StepResult::Done => {}
        other => {
            let said = format!("the copy ended with {other:?}");
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), Some(said)));
        }
    }
    without_log(&copy)
}

/// Leaves one file that can also be read where nothing can be written.
pub(super) fn without_log(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "DELETE")
}

/// Whatever is asked on this connection from now on is ended when `time` is over: it fails as interrupted. A new limit
/// takes the place of the last one.
pub(super) fn limit(db: &mut db::Connection, time: Duration) -> rusqlite::Result<()> {
    let db::Connection::Sqlite(connection) = db else { return Ok(()) };
    let begun = Instant::now();
    connection.progress_handler(STEPS, Some(move || begun.elapsed() >= time))
}

pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}
