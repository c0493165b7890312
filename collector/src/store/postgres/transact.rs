//! One transaction on PostgreSQL, tried again when that is right and safe.
//!
//! Two transactions that met (SQLSTATE 40001, 40P01) left nothing behind: the same again. A connection that was lost
//! before the commit was sent left nothing behind either: once more on a new one. Lost while the commit was on its
//! way, nobody can tell; then it is [`StoreError::Uncertain`], unless the caller knows that the same again does no harm
//! ([`Again::Harmless`]).

use std::thread;
use std::time::Duration;

use crate::store::StoreError;
use crate::store::db::{self, Connection, Error, Meaning};
use crate::store::error::Fault;

use super::Target;

/// Attempts when transactions meet; the pause before the next one doubles from [`PAUSE`].
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(4);
/// Connections tried for one transaction; after that whoever asked is told, and asks again.
const CONNECTIONS: u32 = 2;

/// Whether doing the work twice does harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Again {
    /// The second time finds that it has been done.
    Harmless,
    /// It would be done twice.
    Harmful,
}

/// How transactions see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Isolation {
    /// As if one ran after the other: whoever read what another changed is tried again.
    Serializable,
    /// Each statement sees what is committed. For work that locks what it reads.
    Committed,
    /// One moment, nothing is written.
    Snapshot,
}

impl Isolation {
    fn begin(self) -> &'static str {
        match self {
            Self::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
            Self::Committed => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Self::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }
}

/// How far a failed transaction had come.
enum Failed {
    /// Nothing of it is there.
    Undone(Fault),
    /// The commit was sent and nothing was heard of it.
    Unknown(Error),
}

/// The connection of one writer or reader: made when it is needed, made anew when it was lost.
pub(in crate::store) struct Line {
    target: Target,
    open: Option<Connection>,
}

impl Line {
    pub(in crate::store) fn new(target: Target, open: Option<Connection>) -> Self {
        Self { target, open }
    }

    /// Runs `work` in a transaction of its own.
    pub(in crate::store) fn transact<T>(
        &mut self,
        what: &'static str,
        isolation: Isolation,
        again: Again,
        work: &dyn Fn(&Connection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let (mut attempts, mut connections, mut pause) = (0, 0, PAUSE);
        loop {
            attempts += 1;
            let db = self.connected(&mut connections)?;
            let failed = match once(db, isolation, work) {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            let (fault, unknown) = match failed {
                Failed::Undone(fault) => (fault, false),
                Failed::Unknown(error) => (Fault::Sql(error), true),
            };
            let error = match fault {
                Fault::Refused(refusal) => return Err(refusal),
                Fault::Sql(error) => error,
            };
            match error.meaning() {
                Meaning::Conflict if attempts < ATTEMPTS => {
                    // The writer's own thread: nobody else waits on it.
                    thread::sleep(pause);
                    pause *= 2;
                }
                Meaning::Lost => {
                    self.open = None;
                    if unknown && again == Again::Harmful {
                        return Err(StoreError::Uncertain { what, source: error.into() });
                    }
                    if connections >= CONNECTIONS {
                        return Err(StoreError::Away { what, source: error.into() });
                    }
                }
                _ => return Err(StoreError::writing(what, error)),
            }
        }
    }

    fn connected(&mut self, connections: &mut u32) -> Result<&Connection, StoreError> {
        if self.open.as_ref().is_none_or(is_closed) {
            self.open = None;
            self.open = Some(self.connect(connections)?);
        } else if *connections == 0 {
            *connections = 1;
        }
        // Just filled.
        self.open.as_ref().ok_or(StoreError::Closed)
    }
}

impl Line {
    /// A new connection; one that is lost while it is made is as good as one that is lost later.
    fn connect(&self, connections: &mut u32) -> Result<Connection, StoreError> {
        loop {
            *connections += 1;
            match super::connect(&self.target) {
                Err(StoreError::Connect { source, .. }) if source.is_lost() && *connections < CONNECTIONS => {}
                ended => return ended,
            }
        }
    }
}

fn is_closed(db: &Connection) -> bool {
    match db {
        Connection::Postgres(session) => session.is_closed(),
        Connection::Sqlite(_) => false,
    }
}

fn once<T>(db: &Connection, isolation: Isolation, work: &dyn Fn(&Connection) -> Result<T, Fault>) -> Result<T, Failed> {
    let undone = |error: Error| Failed::Undone(Fault::Sql(error));
    db.execute_batch(isolation.begin()).map_err(undone)?;
    match work(db) {
        Ok(value) => match commit(db) {
            Ok(()) => Ok(value),
            Err(error) if error.meaning() == Meaning::Lost => Err(Failed::Unknown(error)),
            Err(error) => Err(undone(error)),
        },
        Err(fault) => {
            // What is not committed is not there; a connection that cannot even say so is found closed next time.
            let _ = db.execute_batch("ROLLBACK");
            Err(Failed::Undone(fault))
        }
    }
}

fn commit(db: &Connection) -> db::Result<()> {
    db.execute_batch("COMMIT")
}
