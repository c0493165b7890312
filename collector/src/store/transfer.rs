//! Copies of a whole database: back-up, restore, and the way from one engine to the other.
//!
//! All three are one walk: table by table in the order of `tables.rs`, row by row in the order of the primary key, cell
//! by cell. Every cell is one of four kinds on both engines and keys sort alike, so the walk does not care which engine
//! stands on which side, and a table is the same on both exactly when the SHA-256 over its cells is.
//!
//! **A back-up of either engine is one SQLite file with the store's own schema.** Anybody can look into it with
//! `sqlite3`; it goes back into a directory or a server; and it is checked with the questions the store has anyway:
//! integrity, references, the checksum of every block, the chain of the audit log. `pg_dump` would have needed the
//! server's own programs in the right version and could only be checked by loading it. The price: a server is read row
//! by row, about as fast as it is filled. A SQLite store is copied page by page instead (its back-up interface), which
//! keeps even the numbers of blocks.
//!
//! **Numbers of blocks.** SQLite has one lane, PostgreSQL 256 by agent, so a block gets its place in the log anew. What
//! counts is kept: the order within an agent. Watermarks are translated, not dropped: blocks that every job has been
//! through come first, lane by lane, then the rest, so "all of these" is again a first part of each lane. A job that
//! was further than another goes over a few blocks twice, which only overwrites. (Judging everything anew would give
//! the same only while all blocks are kept: findings remember when they were first seen.) See `log.rs`.
//!
//! **What is trusted.** One snapshot of the source, whatever collectors do meanwhile. A target that was empty, and says
//! in its table `transfer` that it is being filled until it is whole: no collector starts on it. Each page is one
//! transaction with how far it went, so a kill at any moment costs a page; the next run goes on. At the end both sides
//! are read again, the source by then in a new snapshot: whatever was written to it meanwhile is found.
//!
//! Not here: schedules, retention and encryption of back-ups (cron, the file system and `age` are better at it), and
//! `pki/` beside the store, without which hosts enrol anew.

mod backup;
mod check;
mod copy;
pub(super) mod log;
mod migrate;
mod partial;
mod restore;
mod rows;
pub(super) mod side;

use std::fmt;
use std::path::PathBuf;

use peil_proto::time::UtcTime;

pub use backup::backup;
pub use check::check_file;
pub use migrate::migrate;
pub use restore::restore;

use super::StoreError;
use super::error::Fault;

/// Who asked for a copy, and when: for the audit log of what was filled.
#[derive(Debug, Clone)]
pub struct Asked {
    /// By whom.
    pub who: String,
    /// When.
    pub at: UtcTime,
}

/// A table that is the same on both sides, or in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Its name.
    pub table: &'static str,
    /// Its rows.
    pub rows: u64,
    /// SHA-256 over all their cells. Blocks count by agent, because their place in the log differs.
    pub digest: [u8; 32],
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = data_encoding::HEXLOWER.encode(&self.digest);
        write!(f, "{:<14} {:>10} rows  sha256 {digest}", self.table, self.rows)
    }
}

/// How far a copy has come; told after each page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The table that is copied.
    pub table: &'static str,
    /// Rows copied by this run.
    pub rows: u64,
}

/// Why there is no copy. What was there before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// One of the databases failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or directory could not be made, moved or read.
    #[error("cannot {attempt} {path}")]
    File {
        /// What was tried.
        attempt: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A back-up with this name exists.
    #[error("{0} is there already: a back-up is never written over; name another file")]
    Taken(PathBuf),
    /// Another process makes a copy here.
    #[error("another copy is being made in {0}")]
    Beside(PathBuf),
    /// There is nothing to copy.
    #[error("there is no database in {0}")]
    Nothing(String),
    /// Something is kept here already.
    #[error("{place} is not empty: its table {table:?} has rows; name an empty directory or an empty schema")]
    NotEmpty {
        /// Which database.
        place: String,
        /// A table with rows.
        table: &'static str,
    },
    /// A collector runs on it.
    #[error("the collector {holder} holds leases on {place}: stop it first (one that was killed lets go within 20 s)")]
    InUse {
        /// Which database.
        place: String,
        /// Id of the collector.
        holder: String,
    },
    /// It is being filled from elsewhere.
    #[error("{place} is half filled from {from}: finish that first, or empty it")]
    HalfFilled {
        /// Which database.
        place: String,
        /// From what.
        from: String,
    },
    /// A back-up by another version of the program.
    #[error(
        "{place} has schema {found}, this program has {known}: restore it into a directory, which brings it up to date"
    )]
    Schema {
        /// Which database.
        place: String,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The copy is not what it was made from.
    #[error(
        "table {table:?} of {target} is not what is in {from} now: was {from} written to meanwhile? Empty {target} and begin again"
    )]
    Differs {
        /// Which table.
        table: &'static str,
        /// The copy.
        target: String,
        /// What it was made from.
        from: String,
    },
    /// A file that cannot be relied on.
    #[error("{place} is damaged: {what}")]
    Damaged {
        /// Which one.
        place: String,
        /// In what way.
        what: String,
    },
}

/// Names the attempt of what failed inside.
fn failed(what: &'static str) -> impl Fn(Fault) -> TransferError {
    move |fault| match fault {
        Fault::Sql(error) => StoreError::writing(what, error).into(),
        Fault::Refused(refusal) => refusal.into(),
    }
}

/// As [`failed`], for a file or directory.
fn unusable(attempt: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> TransferError {
    let path = path.to_owned();
    move |source| TransferError::File { attempt, path, source }
}
