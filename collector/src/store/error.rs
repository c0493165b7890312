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

use super::db::{self, Meaning};

/// What the database itself said. Clone-able, because one failed commit is the cause of many errors.
#[derive(Debug, Clone)]
pub struct Cause {
    said: Arc<db::Error>,
}

impl Cause {
    /// Whether the way to the server broke, rather than the server refusing.
    pub(super) fn is_lost(&self) -> bool {
        self.said.meaning() == Meaning::Lost
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.said.fmt(f)
    }
}

impl std::error::Error for Cause {}

impl From<db::Error> for Cause {
    fn from(error: db::Error) -> Self {
        Self { said: Arc::new(error) }
    }
}

impl From<rusqlite::Error> for Cause {
    fn from(error: rusqlite::Error) -> Self {
        db::Error::from(error).into()
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
    /// The server cannot be reached, or refuses us.
    #[error("cannot connect to the database {place}")]
    Connect {
        /// Which one, without its password.
        place: String,
        /// What was said, or why nothing was.
        #[source]
        source: Cause,
    },
    /// The server answers, and takes no writes.
    #[error(
        "the database {place} takes no writes: it is a standby, or set read-only; name the primary in the URL (and all hosts with target_session_attrs=read-write, to find it after a fail-over)"
    )]
    ReadOnly {
        /// Which one, without its password.
        place: String,
    },
    /// The server would lose acknowledged results in a crash.
    #[error(
        "the database server does not keep what it commits: {setting} is {found:?}, it must be {wanted:?}; set it on the server, or name \"{setting}={found}\" in store_accepts to take the risk"
    )]
    WeakServer {
        /// Which setting.
        setting: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// A newer program has been here.
    #[error(
        "the database {place} has schema {found}, this program knows up to {known}: start the newer peil-collector, or restore a back-up from before it"
    )]
    NewerSchema {
        /// Which one.
        place: String,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// An older program has been here, and this one only looks.
    #[error(
        "the database {place} has schema {found}, this program has {known}: the next start of a collector brings it up to date"
    )]
    OlderSchema {
        /// Which one.
        place: String,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A restore or a move to this database was begun and not ended.
    #[error(
        "the database {place} is half filled from {from}: run the same restore or migrate again, it goes on where it was"
    )]
    HalfFilled {
        /// Which one.
        place: String,
        /// What it is filled from.
        from: String,
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
    /// The database server was lost or could not be reached. Nothing was written; it works again once it is back.
    #[error("cannot {what}: the database cannot be reached")]
    Away {
        /// What was to be done.
        what: &'static str,
        /// What the way to it said.
        #[source]
        source: Cause,
    },
    /// The server was lost while it committed: the effect is there or it is not. Look before asking again.
    #[error("cannot tell whether it came to pass to {what}: the database was lost while it committed")]
    Uncertain {
        /// What was to be written.
        what: &'static str,
        /// What the way to it said.
        #[source]
        source: Cause,
    },
    /// Another collector does this now. Nothing was written.
    #[error("the lease {name:?} went to another collector")]
    LeaseLost {
        /// Which lease.
        name: String,
    },
    /// Bytes in the database are not what this program wrote there.
    #[error("{what} in the database cannot be read back")]
    Damaged {
        /// What cannot be read.
        what: &'static str,
    },
    /// What a step was made from is not there any more; it was not taken.
    #[error("somebody else took this step")]
    Overtaken,
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

    pub(super) fn reading(what: &'static str, error: db::Error) -> Self {
        match error.meaning() {
            Meaning::Lost => Self::Away { what, source: error.into() },
            _ => Self::Read { what, source: error.into() },
        }
    }

    pub(super) fn writing(what: &'static str, error: db::Error) -> Self {
        Self::caused(what, error.into())
    }

    fn caused(what: &'static str, source: Cause) -> Self {
        match source.said.meaning() {
            Meaning::Full => Self::Full { what, source },
            Meaning::Busy | Meaning::Conflict => Self::Busy { what, source },
            Meaning::Lost => Self::Away { what, source },
            Meaning::Taken | Meaning::Other => Self::Write { what, source },
        }
    }

    /// The same trouble as it struck another piece of work of the same group.
    pub(super) fn struck(&self, what: &'static str) -> Self {
        match self {
            Self::Write { source, .. } | Self::Full { source, .. } | Self::Busy { source, .. } => {
                Self::caused(what, source.clone())
            }
            other => other.clone(),
        }
    }
}

/// How a piece of work inside the store ends badly: the database failed, or the work refused.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(db::Error),
    Refused(StoreError),
}

impl From<db::Error> for Fault {
    fn from(error: db::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error.into())
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}
