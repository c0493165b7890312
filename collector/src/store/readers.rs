//! Reading connections: a few, opened when first needed, each used by one question at a time.
//!
//! A read never waits for a write and sees one moment of the database, because each runs in a
//! transaction of its own that writes nothing. It runs on the runtime's blocking threads. A question that takes longer
//! than 30 s is ended: by SQLite, or on PostgreSQL by the server, each statement by itself; one whose connection is lost
//! is asked once more on a new one.
//!
//! What agents wait for is asked on connections of its own, so that slow questions of people and programs, however many,
//! never keep an agent from sending.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::db::Connection;
use super::error::Fault;
use super::postgres::Target;
use super::postgres::transact::{Again, Isolation, Line};
use super::{StoreError, sqlite};

/// Questions answered at a time; the next one waits.
pub(super) const READERS: u32 = 4;
/// Questions of agents answered at a time.
pub(super) const AGENTS: u32 = 2;
/// Time for a question to a file; to a server, `statement_timeout` (`postgres.rs`).
const TIME: Duration = Duration::from_secs(30);

/// Where reading connections lead.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// The database file.
    Sqlite(PathBuf),
    Postgres(Target),
}

/// A connection that is not used just now.
enum Idle {
    Sqlite(Connection),
    Postgres(Line),
}

pub(super) struct Readers {
    source: Source,
    /// How many at a time.
    count: u32,
    time: Duration,
    places: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Idle>>>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Readers {
    pub(super) fn new(source: Source, count: u32) -> Self {
        Self::with_time(source, count, TIME)
    }

    pub(super) fn with_time(source: Source, count: u32, time: Duration) -> Self {
        Self { source, count, time, places: Arc::new(Semaphore::new(count as usize)), idle: Arc::default() }
    }

    /// Runs `work` on an idle connection.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl Fn(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (idle, source, time) = (self.idle.clone(), self.source.clone(), self.time);
        let answer = tokio::task::spawn_blocking(move || {
            let waiting = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut reader = match waiting {
                Some(reader) => reader,
                None => open(&source).map_err(|fault| told(what, fault))?,
            };
            let answer = ask(&mut reader, time, what, &work);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            // The place is free only once the connection is back, also when the asker went away.
            drop(place);
            answer
        });
        // A blocking task ends without an answer only when the runtime is being torn down.
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Waits for the reads under way and closes the connections.
    pub(super) async fn close(&self) {
        let all = self.places.acquire_many(self.count).await;
        self.places.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        // Saying good-bye to a server waits for it.
        let _ = tokio::task::spawn_blocking(move || drop(idle)).await;
    }
}

impl Drop for Readers {
    /// For a store that was not closed: saying good-bye to a server waits, which async code may not.
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        if matches!(self.source, Source::Postgres(_)) && !idle.is_empty() {
            std::thread::spawn(move || drop(idle));
        }
    }
}

fn open(source: &Source) -> Result<Idle, Fault> {
    Ok(match source {
        Source::Sqlite(path) => Idle::Sqlite(Connection::Sqlite(sqlite::open_to_read(path)?)),
        Source::Postgres(target) => Idle::Postgres(Line::new(target.clone(), None)),
    })
}

fn ask<T>(
    reader: &mut Idle,
    time: Duration,
    what: &'static str,
    work: &dyn Fn(&Connection) -> Result<T, Fault>,
) -> Result<T, StoreError> {
    match reader {
        Idle::Sqlite(db) => one_moment(db, time, work).map_err(|fault| told(what, fault)),
        Idle::Postgres(line) => line.transact(what, Isolation::Snapshot, Again::Harmless, work).map_err(as_read),
    }
}

fn told(what: &'static str, fault: Fault) -> StoreError {
    match fault {
        Fault::Sql(error) => StoreError::reading(what, error),
        Fault::Refused(refusal) => refusal,
    }
}

/// A transaction tells what failed as a write.
fn as_read(error: StoreError) -> StoreError {
    match error {
        StoreError::Write { what, source } | StoreError::Busy { what, source } => StoreError::Read { what, source },
        other => other,
    }
}

fn one_moment<T>(
    db: &mut Connection,
    time: Duration,
    work: &dyn Fn(&Connection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    sqlite::limit(db, time)?;
    db.execute("BEGIN", ())?;
    let answer = work(db);
    // Its end is not limited by what came before.
    sqlite::limit(db, time)?;
    // For a read the same as a commit.
    db.execute("ROLLBACK", ())?;
    answer
}
