//! One way to ask both engines.
//!
//! The files of SQL see a [`Connection`], a [`Statement`] and [`Row`]s; whether SQLite or PostgreSQL stands behind
//! them they see only where one statement cannot be had on both ([`Connection::engine`]). Statements are written once,
//! with `?1`, `?2` for their values; for PostgreSQL the signs are exchanged. What both understand is a dialect of its
//! own, small and plain (`README.md` lists it), and a test looks for what it forbids.
//!
//! Calls block, on both engines: they are made from the writers' threads and the runtime's blocking threads.
//! A connection is used by one thread at a time.
//!
//! Deliberately not here: transactions. Who writes and who reads decides where they begin and end.

mod cell;
mod error;

use std::borrow::Cow;

pub(super) use cell::{Cell, FromCell, Params, Seen, without_nul};
pub(super) use error::{Error, Meaning, OptionalExtension};

use super::postgres::Session;

pub(super) type Result<T> = std::result::Result<T, Error>;

/// A connection to the database.
pub(super) enum Connection {
    /// A file of this machine.
    Sqlite(rusqlite::Connection),
    /// A server.
    Postgres(Box<Session>),
}

/// The engines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Sqlite,
    Postgres,
}

impl Connection {
    pub(super) fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }

    /// A statement that is prepared once per connection and kept.
    pub(super) fn prepare_cached(&self, sql: &str) -> Result<Statement<'_>> {
        Ok(match self {
            Self::Sqlite(db) => Statement::Sqlite(db.prepare_cached(sql)?),
            Self::Postgres(session) => Statement::Postgres(session, session.prepared(sql)?),
        })
    }

    /// Runs one statement; says how many rows it changed.
    pub(super) fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        self.prepare_cached(sql)?.execute(params)
    }

    /// The first row of an answer, as `read` understands it; [`Error::NoRow`] when there is none.
    pub(super) fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.prepare_cached(sql)?.query_row(params, read)
    }

    /// Runs statements that take no values, separated by semicolons.
    pub(super) fn execute_batch(&self, sql: &str) -> Result<()> {
        match self {
            Self::Sqlite(db) => Ok(db.execute_batch(sql)?),
            Self::Postgres(session) => session.batch(sql),
        }
    }
}

/// A prepared statement.
pub(super) enum Statement<'c> {
    Sqlite(rusqlite::CachedStatement<'c>),
    Postgres(&'c Session, postgres::Statement),
}

impl Statement<'_> {
    /// Runs it; says how many rows it changed.
    pub(super) fn execute(&mut self, params: impl Params) -> Result<usize> {
        let cells = params.cells();
        match self {
            Self::Sqlite(statement) => Ok(statement.execute(rusqlite::params_from_iter(cells))?),
            Self::Postgres(session, statement) => session.execute(statement, &cells),
        }
    }

    /// The rows of its answer, one after the other.
    pub(super) fn query(&mut self, params: impl Params) -> Result<Rows<'_>> {
        let cells = params.cells();
        Ok(match self {
            Self::Sqlite(statement) => Rows::Sqlite(statement.query(rusqlite::params_from_iter(cells))?),
            Self::Postgres(session, statement) => Rows::Postgres(session.query(statement, &cells)?, 0),
        })
    }

    /// Every row of its answer, as `read` understands it.
    pub(super) fn query_map<T>(
        &mut self,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<std::vec::IntoIter<Result<T>>> {
        let mut rows = self.query(params)?;
        let mut values = Vec::new();
        while let Some(row) = rows.next()? {
            values.push(read(&row));
        }
        Ok(values.into_iter())
    }

    /// The first row of its answer; [`Error::NoRow`] when there is none.
    pub(super) fn query_row<T>(&mut self, params: impl Params, read: impl FnOnce(&Row<'_>) -> Result<T>) -> Result<T> {
        let mut rows = self.query(params)?;
        match rows.next()? {
            Some(row) => read(&row),
            None => Err(Error::NoRow),
        }
    }
}

/// Rows of an answer. PostgreSQL sends them all at once: a question that may have a long answer has a `LIMIT`.
pub(super) enum Rows<'s> {
    Sqlite(rusqlite::Rows<'s>),
    Postgres(Vec<postgres::Row>, usize),
}

impl Rows<'_> {
    pub(super) fn next(&mut self) -> Result<Option<Row<'_>>> {
        Ok(match self {
            Self::Sqlite(rows) => rows.next()?.map(Row::Sqlite),
            Self::Postgres(rows, at) => {
                let row = rows.get(*at).map(Row::Postgres);
                *at += 1;
                row
            }
        })
    }
}

/// One row of an answer; columns count from 0.
pub(super) enum Row<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r postgres::Row),
}

impl Row<'_> {
    /// The value of a column.
    pub(super) fn get<T: FromCell>(&self, column: usize) -> Result<T> {
        T::from_cell(self.get_ref(column)?)
    }

    /// The value of a column, not copied.
    pub(super) fn get_ref(&self, column: usize) -> Result<Seen<'_>> {
        match self {
            Self::Sqlite(row) => Ok(match row.get_ref(column)? {
                rusqlite::types::ValueRef::Null => Seen::Null,
                rusqlite::types::ValueRef::Integer(value) => Seen::Int(value),
                rusqlite::types::ValueRef::Text(bytes) => {
                    Seen::Text(std::str::from_utf8(bytes).map_err(|_| Error::cell("text is not UTF-8".to_owned()))?)
                }
                rusqlite::types::ValueRef::Blob(bytes) => Seen::Blob(bytes),
                rusqlite::types::ValueRef::Real(_) => return Err(Error::cell("a cell holds a fraction".to_owned())),
            }),
            Self::Postgres(row) => super::postgres::seen(row, column),
        }
    }
}

impl rusqlite::ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        if let Self::Text(text) = self
            && let Cow::Owned(cleaned) = without_nul(text)
        {
            return Ok(cleaned.into());
        }
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
            Self::Ints(_) | Self::Blobs(_) => {
                return Err(rusqlite::Error::ToSqlConversionFailure("SQLite has no lists".into()));
            }
        }))
    }
}

/// The statement with PostgreSQL's signs for values: `?1` becomes `$1`. No statement has a question mark otherwise.
pub(super) fn with_dollars(sql: &str) -> Cow<'_, str> {
    if sql.contains('?') { Cow::Owned(sql.replace('?', "$")) } else { Cow::Borrowed(sql) }
}
