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
//!   nothing of it is there, except after [`StoreError::Closed`] and [`StoreError::Uncertain`], where it may be either:
//!   look, then ask again.
//! - A caller that goes away while it waits changes nothing: the write happens or does not, whole.
//! - Writes happen in the order in which they were queued. A read sees every write that was answered
//!   before it began.
//! - Time is always an argument.
//!
//! Threads own the writing connections and put what waits into one transaction
//! (`writer.rs`); reads run beside it on connections of their own.
//!
//! Deliberately not here: caches. Whoever needs a value often keeps it.

mod cells;
mod db;
mod error;
mod migrate;
mod postgres;
mod readers;
mod reserve;
mod sqlite;
mod tables;
mod writer;
#[cfg(test)]
pub(crate) mod tests;

pub mod blocks;
pub mod agents;
pub mod authorities;
pub mod tokens;
pub mod checks;
pub mod judgement;
pub mod dirty;
pub mod latency;
pub mod days;
pub mod retention;
pub mod outages;
pub mod patches;
pub mod energy;
pub mod hosts;
pub mod alerts;
pub mod access;
pub mod audit;
pub mod objects;
pub mod exclusions;
pub mod months;
pub mod leases;
pub mod contacts;
pub mod clocks;
pub mod transfer;
pub mod place;
pub mod health;
pub mod survey;
pub mod bi;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::RwLock;

pub use error::{Cause, StoreError};
pub use place::Place;

use db::Connection;
use error::Fault;
use health::Counters;
use postgres::transact::Line;
use readers::{Readers, Source};
use reserve::Reserve;
use writer::{Pen, Writer};

/// The database of one collector, in a directory, or of several, on a server.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    place: Place,
    /// Stores blocks.
    blocks: Arc<Writer>,
    /// Writes everything else; the same one where the engine has one writer.
    rest: Arc<Writer>,
    readers: Readers,
    /// For what agents wait for.
    greeters: Readers,
    counters: Arc<Counters>,
    /// Read: somebody reads a period whole. Write: blocks become days.
    compaction: Arc<RwLock<()>>,
}

impl Store {
    /// Opens the store in the directory `dir`, as [`Store::connect`] does.
    ///
    /// # Errors
    /// As [`Store::connect`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::connect(&Place::Directory(dir.to_owned()))
    }

    /// Opens the store, making the directory and the tables where they are missing and bringing
    /// an older schema up to date. Other processes may have it open: the command line making a token, and on a server
    /// other collectors.
    ///
    /// Blocks for as long as a migration takes, and for the way to a server: call it before serving, outside of async
    /// code.
    ///
    /// # Errors
    /// [`StoreError::CreateDir`], [`StoreError::Open`], [`StoreError::Connect`], [`StoreError::NotDurable`],
    /// [`StoreError::ReadOnly`], [`StoreError::WeakServer`], [`StoreError::NewerSchema`], [`StoreError::Migrate`],
    /// [`StoreError::HalfFilled`], [`StoreError::StartWriter`].
    pub fn connect(place: &Place) -> Result<Self, StoreError> {
        let counters = Arc::new(Counters::default());
        let (blocks, rest, source) = match place {
            Place::Directory(dir) => {
                let db = sqlite::open_and_migrate(dir)?;
                transfer::side::require_whole(&db, &place.to_string())?;
                let pen = Pen::Sqlite(db, Reserve::open(dir));
                let writer = Arc::new(Writer::start("store-writer", pen, counters.clone())?);
                (writer.clone(), writer, Source::Sqlite(sqlite::database_file(dir)))
            }
            Place::Server(target) => {
                let db = postgres::open(target)?;
                let line = |open| Pen::Postgres(Line::new(target.clone(), open));
                let blocks = Writer::start("store-blocks", line(Some(db)), counters.clone())?;
                let rest = Writer::start("store-writer", line(None), counters.clone())?;
                (Arc::new(blocks), Arc::new(rest), Source::Postgres(target.clone()))
            }
        };
        let greeters = Readers::new(source.clone(), readers::AGENTS);
        let readers = Readers::new(source, readers::READERS);
        let compaction = Arc::default();
        let inner = Inner { place: place.clone(), blocks, rest, readers, greeters, counters, compaction };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Commits what is queued, waits for reads under way and closes the files. Methods called on another
    /// clone from now on answer [`StoreError::Closed`]; closing twice does no harm.
    pub async fn close(self) {
        self.inner.readers.close().await;
        self.inner.greeters.close().await;
        self.inner.rest.close().await;
        self.inner.blocks.close().await;
    }

    /// Whether the database answers now: what `/readyz` asks.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Closed`].
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.read("ask the database whether it is there", |db| Ok(db.query_row("SELECT 1", (), |_| Ok(()))?)).await
    }

    /// Runs `work` in the next group; answers after its commit. An error undoes only this piece of work. It may run
    /// more than once before it is committed, when transactions meet on a server: it changes nothing but the database.
    async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl Fn(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.inner.rest.write(what, work).await
    }

    /// Runs `work` on a reading connection, in one transaction: it sees one moment.
    async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl Fn(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.inner.readers.run(what, work).await
    }

    /// As [`Store::read`], for what an agent waits for: never behind what others ask.
    async fn read_for_agent<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl Fn(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.inner.greeters.run(what, work).await
    }
}
