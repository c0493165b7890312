//! Rows of any table on their way from one database to another: read in pages, written many at a time, summed up.

use ring::digest::{Context, SHA256};

use crate::store::db::{self, Cell, Connection, Engine, OptionalExtension, Row, Seen};
use crate::store::tables::{How, Table};

/// Rows read at a time, and written in one transaction. The largest cells are records of 64 KiB at most.
pub(super) const PAGE: usize = 256;
/// Rows in one statement: the largest table has 13 columns, SQLite takes 32 766 values.
const AT_ONCE: usize = 64;

/// A cell that is kept for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// The cells of a row, in the order of its [`Shape`].
pub(super) type Values = Vec<Value>;

impl Value {
    fn of(seen: Seen<'_>) -> Self {
        match seen {
            Seen::Null => Self::Null,
            Seen::Int(value) => Self::Int(value),
            Seen::Text(text) => Self::Text(text.to_owned()),
            Seen::Blob(bytes) => Self::Blob(bytes.to_owned()),
        }
    }

    fn cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Int(value) => Cell::Int(*value),
            Self::Text(text) => Cell::Text(text),
            Self::Blob(bytes) => Cell::Blob(bytes),
        }
    }
}

/// The columns of a table, as the schema tells them.
#[derive(Debug)]
pub(super) struct Shape {
    table: &'static str,
    pub(super) columns: Vec<String>,
    /// Places of the key in `columns`.
    key: Vec<usize>,
}

impl Shape {
    /// Asks the schema. Both engines have the columns in the order of the migrations.
    pub(super) fn of(db: &Connection, table: &Table) -> db::Result<Self> {
        let ask = match db.engine() {
            Engine::Sqlite => "SELECT name FROM pragma_table_info(?1) ORDER BY cid",
            Engine::Postgres => {
                "SELECT column_name FROM information_schema.columns
                 WHERE table_schema = CURRENT_SCHEMA AND table_name = ?1 ORDER BY ordinal_position"
            }
        };
        let mut columns: Vec<String> =
            db.prepare_cached(ask)?.query_map([table.name], |row| row.get(0))?.collect::<db::Result<_>>()?;
        if table.how == How::ByLane {
            columns.retain(|column| column != "lane");
        }
        let key = table.key.iter().filter_map(|key| columns.iter().position(|column| column == key)).collect();
        Ok(Self { table: table.name, columns, key })
    }

    /// The rows after the one with this key, in the order of the key.
    pub(super) fn page(&self, db: &Connection, after: Option<&[Value]>) -> db::Result<Vec<Values>> {
        let keys = self.names(&self.key);
        let beyond = after.map_or(String::new(), |key| format!("WHERE ({keys}) > ({})", signs(1, key.len())));
        let sql = format!(
            "SELECT {} FROM {} {beyond} ORDER BY {keys} LIMIT {PAGE}",
            self.names(&(0..self.columns.len()).collect::<Vec<_>>()),
            self.table
        );
        let cells: Vec<Cell<'_>> = after.unwrap_or_default().iter().map(Value::cell).collect();
        read_all(db, &sql, cells, self.columns.len())
    }

    /// The key of the last row; nothing when there is none.
    pub(super) fn last(&self, db: &Connection) -> db::Result<Option<Values>> {
        let keys: Vec<String> = self.key.iter().map(|at| format!("{:?} DESC", self.columns[*at])).collect();
        let (names, order) = (self.names(&self.key), keys.join(", "));
        let sql = format!("SELECT {names} FROM {} ORDER BY {order} LIMIT 1", self.table);
        Ok(read_all(db, &sql, Vec::new(), self.key.len())?.pop())
    }

    /// The key of a row.
    pub(super) fn key_of(&self, row: &Values) -> Values {
        self.key.iter().map(|at| row[*at].clone()).collect()
    }

    fn names(&self, which: &[usize]) -> String {
        let names: Vec<String> = which.iter().map(|at| format!("{:?}", self.columns[*at])).collect();
        names.join(", ")
    }
}

/// Every row of an answer with so many columns.
pub(super) fn read_all(db: &Connection, sql: &str, cells: Vec<Cell<'_>>, columns: usize) -> db::Result<Vec<Values>> {
    let rows = db.prepare_cached(sql)?.query_map(cells, |row| values(row, columns))?;
    rows.collect()
}

fn values(row: &Row<'_>, columns: usize) -> db::Result<Values> {
    (0..columns).map(|column| Ok(Value::of(row.get_ref(column)?))).collect()
}

/// `?1, ?2, …`, so many from the number `first` on.
fn signs(first: usize, count: usize) -> String {
    let signs: Vec<String> = (first..first + count).map(|no| format!("?{no}")).collect();
    signs.join(", ")
}

/// Writes rows with these columns. One that is there already is an error: nobody else writes here.
pub(super) fn insert(db: &Connection, table: &str, columns: &[String], rows: &[Values]) -> db::Result<()> {
    let names: Vec<String> = columns.iter().map(|column| format!("{column:?}")).collect();
    for some in rows.chunks(AT_ONCE) {
        let places: Vec<String> =
            (0..some.len()).map(|row| format!("({})", signs(row * columns.len() + 1, columns.len()))).collect();
        let sql = format!("INSERT INTO {table} ({}) VALUES {}", names.join(", "), places.join(", "));
        let cells: Vec<Cell<'_>> = some.iter().flatten().map(Value::cell).collect();
        db.execute(&sql, cells)?;
    }
    Ok(())
}

/// Whether the table has any row.
pub(super) fn is_empty(db: &Connection, table: &str) -> db::Result<bool> {
    let found = db.query_row(&format!("SELECT 1 FROM {table} LIMIT 1"), (), |_| Ok(())).optional()?;
    Ok(found.is_none())
}

/// How many rows the table has.
pub(super) fn count(db: &Connection, table: &str) -> db::Result<u64> {
    let rows: i64 = db.query_row(&format!("SELECT COUNT(*) FROM {table}"), (), |row| row.get(0))?;
    Ok(rows.cast_unsigned())
}

/// A sum over rows: SHA-256 over the cells, each with its kind, and text and bytes with their length, so that no two
/// tables have the same cells without having the same rows.
#[derive(Clone)]
pub(super) struct Sum {
    context: Context,
    pub(super) rows: u64,
}

impl Sum {
    pub(super) fn new() -> Self {
        Self { context: Context::new(&SHA256), rows: 0 }
    }

    pub(super) fn add(&mut self, row: &[Value]) {
        self.rows += 1;
        for value in row {
            match value {
                Value::Null => self.context.update(&[0]),
                Value::Int(value) => {
                    self.context.update(&[1]);
                    self.context.update(&value.to_be_bytes());
                }
                Value::Text(text) => self.bytes(2, text.as_bytes()),
                Value::Blob(bytes) => self.bytes(3, bytes),
            }
        }
    }

    fn bytes(&mut self, kind: u8, bytes: &[u8]) {
        self.context.update(&[kind]);
        self.context.update(&(bytes.len() as u64).to_be_bytes());
        self.context.update(bytes);
    }

    pub(super) fn finish(self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.context.finish().as_ref());
        digest
    }
}
