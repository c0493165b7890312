//! KEEP: everything that must outlive the process, behind one handle.
//!
//! A [`Store`] is a clone-able handle with one async method per thing that is kept or asked; callers see
//! rows of the domain, never SQL and never the database's own types, so that a second back-end can stand
//! behind the same methods. Rules live in `contract/`; what is decided here is only what must be decided
//! inside a transaction: whether a record is new ([`blocks`]), who wins a token ([`tokens`]), whether an
//! alert is already open ([`alerts`]).
//!
//! Promises:
//!
//! - When a writing method returns `Ok`, its effect has been synced to disk. When it returns an error,
//!   nothing of it is there, except after [`StoreError::Closed`], where it may be either: ask again.
//! - A caller that goes away while it waits changes nothing: the write happens or does not, whole.
//! - Writes happen in the order in which they were queued. A read sees every write that was answered
//!   before it began.
//! - Time is always an argument.
//!
//! One thread owns the writing connection and puts what waits into one transaction
//! (`sqlite/writer.rs`); reads run beside it on connections of their own.
//!
//! Deliberately not here: retention and compaction of blocks, and caches. Whoever needs a value often
//! keeps it.

mod cells;
mod error;
mod migrate;
mod sqlite;
#[cfg(test)]
mod tests;

pub mod blocks;
pub mod agents;
pub mod tokens;
pub mod checks;
pub mod judgement;
pub mod outages;
pub mod patches;
pub mod energy;
pub mod hosts;
pub mod alerts;
pub mod access;
pub mod audit;
pub mod health;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::{Cause, StoreError};

use error::Fault;
use health::Counters;
use rusqlite::Connection;
use sqlite::readers::Readers;
use sqlite::writer::Writer;

/// The database of one collector: a directory that nothing else writes to.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    writer: Writer,
    readers: Readers,
    counters: Arc<Counters>,
}

impl Store {
    /// Opens the store in `dir`, making the directory and the tables where they are missing and bringing
    /// an older schema up to date. Other processes may have it open (the command line making a token).
    ///
    /// Blocks for as long as a migration takes: call it before serving.
    ///
    /// # Errors
    /// [`StoreError::CreateDir`], [`StoreError::Open`], [`StoreError::NotDurable`],
    /// [`StoreError::NewerSchema`], [`StoreError::Migrate`], [`StoreError::StartWriter`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let connection = sqlite::open_and_migrate(dir)?;
        let counters = Arc::new(Counters::default());
        let writer = Writer::start(connection, counters.clone())?;
        let readers = Readers::new(dir);
        Ok(Self { inner: Arc::new(Inner { dir: dir.to_owned(), writer, readers, counters }) })
    }

    /// Commits what is queued, waits for reads under way and closes the files. Methods called on another
    /// clone from now on answer [`StoreError::Closed`]; closing twice does no harm.
    pub async fn close(self) {
        self.inner.readers.close().await;
        self.inner.writer.close().await;
    }

    /// Whether the database answers now: what `/readyz` asks.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Closed`].
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.read("ask the database whether it is there", |db| Ok(db.query_row("SELECT 1", [], |_| Ok(()))?)).await
    }

    /// Runs `work` in the next group; answers after its commit. An error undoes only this piece of work.
    async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.inner.writer.apart(what, work).await
    }

    /// Runs `work` on a reading connection, in one transaction: it sees one moment.
    async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.inner.readers.run(what, work).await
    }
}
