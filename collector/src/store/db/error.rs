//! What a database said when it did not do what it was asked, and what that means for whoever asked.

use std::fmt;

use postgres::error::SqlState;
use rusqlite::ErrorCode;

/// What the database said.
#[derive(Debug)]
pub(in crate::store) enum Error {
    /// SQLite.
    Sqlite(rusqlite::Error),
    /// PostgreSQL, or the way to it.
    Postgres(postgres::Error),
    /// One row was asked for and there is none.
    NoRow,
    /// A file that is needed to connect cannot be used.
    File(String),
    /// A cell is not what this program wrote there.
    Cell(String),
}

/// What an error means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Meaning {
    /// No room on the disk.
    Full,
    /// Somebody else holds what is needed, for longer than we wait.
    Busy,
    /// Two transactions met: the same again has every chance.
    Conflict,
    /// The connection is gone, or leads to a server that does not take writes any more.
    Lost,
    /// A row with this key is there already.
    Taken,
    /// Anything else: the statement, the data, the disk.
    Other,
}

impl Error {
    pub(in crate::store) fn cell(why: String) -> Self {
        Self::Cell(why)
    }

    /// What it means.
    pub(in crate::store) fn meaning(&self) -> Meaning {
        match self {
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => Meaning::Full,
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OperationInterrupted) => {
                    Meaning::Busy
                }
                Some(ErrorCode::ConstraintViolation) => Meaning::Taken,
                _ => Meaning::Other,
            },
            Self::Postgres(error) => of_postgres(error),
            Self::NoRow | Self::File(_) | Self::Cell(_) => Meaning::Other,
        }
    }
}

/// By the codes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn of_postgres(error: &postgres::Error) -> Meaning {
    let Some(code) = error.code() else {
        // Without a code the server did not speak: the connection broke, could not be made, or was closed.
        return Meaning::Lost;
    };
    match *code {
        SqlState::DISK_FULL => Meaning::Full,
        SqlState::LOCK_NOT_AVAILABLE | SqlState::QUERY_CANCELED | SqlState::TOO_MANY_CONNECTIONS => Meaning::Busy,
        SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => Meaning::Conflict,
        SqlState::UNIQUE_VIOLATION => Meaning::Taken,
        // A primary that went down, or came back as a replica.
        SqlState::READ_ONLY_SQL_TRANSACTION
        | SqlState::ADMIN_SHUTDOWN
        | SqlState::CRASH_SHUTDOWN
        | SqlState::CANNOT_CONNECT_NOW
        | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => Meaning::Lost,
        ref code if code.code().starts_with("08") => Meaning::Lost,
        _ => Meaning::Other,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(error) => error.fmt(f),
            // The crate's own words are "db error"; what the server said is one level below.
            Self::Postgres(error) => match error.as_db_error() {
                Some(said) => {
                    write!(f, "{} (SQLSTATE {})", said.message(), said.code().code())?;
                    said.detail().map_or(Ok(()), |detail| write!(f, ": {detail}"))
                }
                None => {
                    write!(f, "{error}")?;
                    std::error::Error::source(error).map_or(Ok(()), |cause| write!(f, ": {cause}"))
                }
            },
            Self::NoRow => f.write_str("there is no such row"),
            Self::File(why) | Self::Cell(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::QueryReturnedNoRows => Self::NoRow,
            other => Self::Sqlite(other),
        }
    }
}

impl From<postgres::Error> for Error {
    fn from(error: postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// "Not there" as a value instead of an error.
pub(in crate::store) trait OptionalExtension<T> {
    fn optional(self) -> Result<Option<T>, Error>;
}

impl<T> OptionalExtension<T> for Result<T, Error> {
    fn optional(self) -> Result<Option<T>, Error> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(Error::NoRow) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
