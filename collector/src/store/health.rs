//! How the store is doing: for `/metrics`, `/readyz` and the operator.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Place, Store, StoreError, reserve, sqlite, writer};

/// Counters since the store was opened, and the last thing that happened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    commits: AtomicU64,
    failed_commits: AtomicU64,
    blocks: AtomicU64,
    duplicates: AtomicU64,
    records: AtomicU64,
    lost: AtomicU64,
    trouble: Mutex<Option<String>>,
}

/// How the store is doing at one moment. Counters run from the opening of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// The store takes writes, and the last commit succeeded (or none was tried).
    pub ok: bool,
    /// Why it is not: the last commit's failure with its cause, or that it is closed.
    pub reason: Option<String>,
    /// Size of the database file; 0 on a server.
    pub db_bytes: u64,
    /// Size of the write-ahead log beside it; 0 on a server.
    pub wal_bytes: u64,
    /// Bytes kept for alerts ([`reserve`](super::reserve)); `Some(0)` while the disk is full and no blocks are taken; `None`
    /// on a server.
    pub reserve_bytes: Option<u64>,
    /// Room left on the disk for the database; `None` when the system does not say, and on a server.
    pub free_bytes: Option<u64>,
    /// Pieces of work that wait for the writer.
    pub queue_depth: usize,
    /// How many may wait before callers have to.
    pub queue_limit: usize,
    /// Groups committed.
    pub commits: u64,
    /// Groups that failed.
    pub failed_commits: u64,
    /// Blocks stored; over `commits` this is the size of a group.
    pub blocks: u64,
    /// Blocks that had been stored before and were only acked again.
    pub duplicates: u64,
    /// Records stored.
    pub records: u64,
    /// Records found missing between blocks.
    pub lost: u64,
}

impl Counters {
    pub(super) fn committed(&self, end: &Result<(), StoreError>) {
        let (counter, trouble) = match end {
            Ok(()) => (&self.commits, None),
            Err(error) => (&self.failed_commits, Some(with_cause(error))),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(super) fn stored(&self, records: u64, lost: u64) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.lost.fetch_add(lost, Ordering::Relaxed);
    }

    pub(super) fn repeated(&self) {
        self.duplicates.fetch_add(1, Ordering::Relaxed);
    }
}

fn with_cause(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl Store {
    /// How the store is doing. Looks at the sizes of files; does not touch the database.
    pub fn health(&self) -> StoreHealth {
        let counters = &self.inner.counters;
        let trouble = counters.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reason = if self.inner.blocks.is_stopped() || self.inner.rest.is_stopped() {
            Some(StoreError::Closed.to_string())
        } else {
            trouble
        };
        let kept = match &self.inner.place {
            Place::Directory(dir) => Some(reserve::kept(dir)),
            Place::Server(_) => None,
        };
        let reason = reason.or_else(|| (kept == Some(0)).then(|| reserve::refusal("store a block").to_string()));
        let size = |path: std::path::PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
        let dir = match &self.inner.place {
            Place::Directory(dir) => Some(dir),
            Place::Server(_) => None,
        };
        StoreHealth {
            ok: reason.is_none(),
            reason,
            db_bytes: dir.map_or(0, |dir| size(sqlite::database_file(dir))),
            wal_bytes: dir.map_or(0, |dir| size(sqlite::wal_file(dir))),
            reserve_bytes: kept,
            free_bytes: dir.and_then(|dir| reserve::room(dir)),
            queue_depth: self.inner.blocks.depth().max(self.inner.rest.depth()),
            queue_limit: writer::QUEUE,
            commits: counters.commits.load(Ordering::Relaxed),
            failed_commits: counters.failed_commits.load(Ordering::Relaxed),
            blocks: counters.blocks.load(Ordering::Relaxed),
            duplicates: counters.duplicates.load(Ordering::Relaxed),
            records: counters.records.load(Ordering::Relaxed),
            lost: counters.lost.load(Ordering::Relaxed),
        }
    }
}
