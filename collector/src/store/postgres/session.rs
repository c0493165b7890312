//! One connection to PostgreSQL: statements prepared once, values in the four kinds of cells.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error as StdError;

use bytes::{BufMut, BytesMut};
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Row, Statement};

use super::target::Target;
use crate::store::db::{self, Cell, Error, Seen, with_dollars, without_nul};

/// Prepared statements kept; when there are more, all are forgotten and prepared anew as they come.
const STATEMENTS: usize = 128;

/// A connection. Used by one thread at a time; every call waits for the server.
pub(in crate::store) struct Session {
    client: RefCell<Client>,
    statements: RefCell<HashMap<String, Statement>>,
}

impl Session {
    pub(super) fn connect(target: &Target) -> db::Result<Self> {
        Ok(Self { client: RefCell::new(target.client()?), statements: RefCell::default() })
    }

    /// The statement, prepared now or before.
    pub(in crate::store) fn prepared(&self, sql: &str) -> db::Result<Statement> {
        if let Some(known) = self.statements.borrow().get(sql) {
            return Ok(known.clone());
        }
        let statement = self.client.borrow_mut().prepare(&with_dollars(sql))?;
        let mut statements = self.statements.borrow_mut();
        if statements.len() >= STATEMENTS {
            statements.clear();
        }
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    pub(in crate::store) fn execute(&self, statement: &Statement, cells: &[Cell<'_>]) -> db::Result<usize> {
        let changed = self.client.borrow_mut().execute(statement, &as_params(cells))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(in crate::store) fn query(&self, statement: &Statement, cells: &[Cell<'_>]) -> db::Result<Vec<Row>> {
        Ok(self.client.borrow_mut().query(statement, &as_params(cells))?)
    }

    pub(in crate::store) fn batch(&self, sql: &str) -> db::Result<()> {
        Ok(self.client.borrow_mut().batch_execute(sql)?)
    }

    /// True when nothing can be asked over it any more.
    pub(in crate::store) fn is_closed(&self) -> bool {
        self.client.borrow().is_closed()
    }
}

fn as_params<'c>(cells: &'c [Cell<'c>]) -> Vec<&'c (dyn ToSql + Sync)> {
    cells.iter().map(|cell| -> &(dyn ToSql + Sync) { cell }).collect()
}

impl ToSql for Cell<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match (self, kind) {
            (Self::Null, _) => return Ok(IsNull::Yes),
            (Self::Int(value), &Type::INT8) => out.put_i64(*value),
            (Self::Int(value), &Type::INT4) => out.put_i32(i32::try_from(*value)?),
            (Self::Text(text), &Type::TEXT | &Type::VARCHAR | &Type::NAME) => {
                out.put_slice(without_nul(text).as_bytes());
            }
            (Self::Blob(bytes), &Type::BYTEA) => out.put_slice(bytes),
            (Self::Ints(values), &Type::INT8_ARRAY) => return values.to_sql(kind, out),
            (Self::Blobs(values), &Type::BYTEA_ARRAY) => return values.to_sql(kind, out),
            (cell, kind) => return Err(format!("{cell:?} was given where the database wants {kind}").into()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        // Which cell fits which type is told by `to_sql`, value by value.
        true
    }

    to_sql_checked!();
}

/// A cell as the server sent it.
struct Raw<'a>(Seen<'a>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(match *kind {
            Type::INT8 => Seen::Int(i64::from_be_bytes(raw.try_into()?)),
            Type::INT4 => Seen::Int(i32::from_be_bytes(raw.try_into()?).into()),
            Type::BOOL => Seen::Int(i64::from(raw == [1])),
            Type::TEXT | Type::VARCHAR | Type::NAME => Seen::Text(std::str::from_utf8(raw)?),
            Type::BYTEA => Seen::Blob(raw),
            ref other => return Err(format!("a column of type {other}").into()),
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(Seen::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A cell of a row.
pub(in crate::store) fn seen(row: &Row, column: usize) -> db::Result<Seen<'_>> {
    match row.try_get::<_, Raw<'_>>(column) {
        Ok(Raw(seen)) => Ok(seen),
        Err(error) => Err(Error::cell(error.source().map_or_else(|| error.to_string(), ToString::to_string))),
    }
}
