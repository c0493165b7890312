//! What can go wrong with the store, told by what was attempted.
//!
//! Three families, and a caller treats each alike: refusals, which no repetition will change
//! ([`StoreError::is_refusal`]); trouble that may pass (disk full, database busy, I/O), where asking again
//! later is right; and trouble at opening, which somebody must mend.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use peil_proto::ids::{AgentId, Seq};
use peil_proto::time::UtcTime;
use rusqlite::ErrorCode;

/// What the database itself said. Clone-able, because one failed commit is the cause of many errors.
#[derive(Debug, Clone)]
pub struct Cause {
    said: Arc<rusqlite::Error>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.said.fmt(f)
    }
}

impl std::error::Error for Cause {}

impl From<rusqlite::Error> for Cause {
    fn from(error: rusqlite::Error) -> Self {
        Self { said: Arc::new(error) }
    }
}

/// Why the store did not do what it was asked. Each variant names the attempt.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The directory could not be made or locked.
    #[error("cannot make or lock the data directory {path}")]
    CreateDir {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The database could not be opened.
    #[error("cannot open the database {path}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: Cause,
    },
    /// The database would lose acknowledged results in a power cut.
    #[error(
        "the database does not keep what it commits: {setting} is {found:?}, it must be {wanted:?}; is the data directory on a local disk?"
    )]
    NotDurable {
        /// Which setting.
        setting: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// A newer program has been here.
    #[error(
        "the database {path} has schema {found}, this program knows up to {known}: start the newer peil-collector, or restore a back-up from before it"
    )]
    NewerSchema {
        /// Which file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A migration failed; the database is as it was before it.
    #[error("cannot migrate the database to schema {number} ({name})")]
    Migrate {
        /// Number of the migration.
        number: u32,
        /// Its name.
        name: &'static str,
        /// What the database said.
        #[source]
        source: Cause,
    },
    /// No thread for the writer.
    #[error("cannot start the thread that writes")]
    StartWriter {
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A question was not answered.
    #[error("cannot {what}")]
    Read {
        /// What was asked.
        what: &'static str,
        /// What the database said.
        #[source]
        source: Cause,
    },
    /// A write failed and left nothing behind.
    #[error("cannot {what}")]
    Write {
        /// What was to be written.
        what: &'static str,
        /// What the database said.
        #[source]
        source: Cause,
    },
    /// No room on the disk. Nothing was written; it works again once there is room.
    #[error("cannot {what}: the disk is full")]
    Full {
        /// What was to be written.
        what: &'static str,
        /// What the database said.
        #[source]
        source: Cause,
    },
    /// Another process held the database for longer than five seconds. Nothing was written.
    #[error("cannot {what}: another process keeps the database locked")]
    Busy {
        /// What was to be written.
        what: &'static str,
        /// What the database said.
        #[source]
        source: Cause,
    },
    /// Bytes in the database are not what this program wrote there.
    #[error("{what} in the database cannot be read back")]
    Damaged {
        /// What cannot be read.
        what: &'static str,
    },
    /// The store was closed while or before it was asked.
    #[error("the store is closed")]
    Closed,
    /// Nobody enrolled this agent.
    #[error("agent {0} is not enrolled here")]
    UnknownAgent(AgentId),
    /// The agent was revoked.
    #[error("agent {agent} was revoked at {at}")]
    RevokedAgent {
        /// Which agent.
        agent: AgentId,
        /// When.
        at: UtcTime,
    },
    /// A block with sequence numbers that cannot be.
    #[error("a block of {records} records from sequence {first} cannot be")]
    BadRange {
        /// First sequence.
        first: Seq,
        /// Number of records.
        records: u32,
    },
    /// Nobody and nothing has this name.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// Which one.
        name: String,
    },
    /// No more checks can be numbered.
    #[error("all check numbers are used up")]
    NoCheckNumbers,
}

impl StoreError {
    /// True when asking again can never help: the request itself is refused.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::UnknownAgent(_)
                | Self::RevokedAgent { .. }
                | Self::BadRange { .. }
                | Self::NotFound { .. }
                | Self::NoCheckNumbers
        )
    }

    pub(super) fn reading(what: &'static str, error: rusqlite::Error) -> Self {
        Self::Read { what, source: error.into() }
    }

    pub(super) fn writing(what: &'static str, error: rusqlite::Error) -> Self {
        Self::caused(what, error.sqlite_error_code(), error.into())
    }

    fn caused(what: &'static str, code: Option<ErrorCode>, source: Cause) -> Self {
        match code {
            Some(ErrorCode::DiskFull) => Self::Full { what, source },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { what, source },
            _ => Self::Write { what, source },
        }
    }

    /// The same trouble as it struck another piece of work of the same group.
    pub(super) fn struck(&self, what: &'static str) -> Self {
        match self {
            Self::Write { source, .. } | Self::Full { source, .. } | Self::Busy { source, .. } => {
                Self::caused(what, source.said.sqlite_error_code(), source.clone())
            }
            other => other.clone(),
        }
    }
}

/// How a piece of work inside the store ends badly: the database failed, or the work refused.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(rusqlite::Error),
    Refused(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}
