//! Contracts, services and checks as they were applied: every version ever written down.
//!
//! Rows are only added. Which version holds when is decided in `contract/version.rs`; here is decided only what
//! needs the transaction: that nobody else applied something since the caller looked ([`Store::apply_objects`]).
//!
//! Limits: [`VERSIONS_MAX`] rows; [`Store::apply_objects`] says no beyond.

use peil_proto::time::UtcTime;
use serde_json::{Map, Value};

use super::db::Row;
use super::{Store, StoreError, audit, cells, db};

/// Versions kept altogether.
pub const VERSIONS_MAX: u32 = 200_000;

/// One version of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion {
    /// `contract`, `service`, `check`.
    pub kind: String,
    /// Which one.
    pub name: String,
    /// First instant at which it holds.
    pub valid_from: UtcTime,
    /// When it was written down.
    pub recorded_at: UtcTime,
    /// By whom.
    pub author: String,
    /// Why.
    pub reason: String,
    /// The table of the file, as JSON. Of an end the table that held last, with [`ENDED`].
    pub body: String,
}

/// The key of a body that ends its object; no table of a file has it.
const ENDED: &str = "ended";

impl ObjectVersion {
    /// The body with which an object ends of which `table` held last.
    pub fn end_of(table: &str) -> String {
        let mut body = keys_of(table);
        body.insert(ENDED.to_owned(), Value::Bool(true));
        Value::Object(body).to_string()
    }

    /// Whether the object ends with this version.
    pub fn is_end(&self) -> bool {
        keys_of(&self.body).contains_key(ENDED)
    }

    /// What held last.
    pub fn table(&self) -> String {
        if !self.is_end() {
            return self.body.clone();
        }
        let mut table = keys_of(&self.body);
        table.remove(ENDED);
        Value::Object(table).to_string()
    }
}

fn keys_of(body: &str) -> Map<String, Value> {
    serde_json::from_str(body).unwrap_or_default()
}

/// How many versions there are: changes with every change, so whoever saw the same number saw the same versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u32);

/// What became of versions that were to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// They are all there; this is the generation now.
    Done(Generation),
    /// Somebody else changed something since: nothing was written.
    Overtaken(Generation),
    /// There would be more than [`VERSIONS_MAX`]: nothing was written.
    TooMany,
}

const COLUMNS: &str = "kind, name, valid_from, recorded_at, author, reason, body";

impl Store {
    /// All versions, in order of kind, name and beginning, and their generation.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn object_versions(&self) -> Result<(Generation, Vec<ObjectVersion>), StoreError> {
        self.read("read what was agreed", |db| {
            let mut ask = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM object_version ORDER BY kind, name, valid_from, recorded_at LIMIT {VERSIONS_MAX}"
            ))?;
            let rows: Vec<_> = ask.query_map((), version_row)?.collect::<Result<_, _>>()?;
            Ok((generation(db)?, rows))
        })
        .await
    }

    /// The generation now.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn object_generation(&self) -> Result<Generation, StoreError> {
        self.read("ask whether the agreement changed", |db| Ok(generation(db)?)).await
    }

    /// Adds `versions` if the generation is still `seen`, all or nothing, with one entry in the audit log each.
    ///
    /// # Errors
    /// As every write.
    pub async fn apply_objects(
        &self,
        versions: Vec<ObjectVersion>,
        seen: Generation,
        who: &str,
    ) -> Result<Applied, StoreError> {
        let who = who.to_owned();
        self.write("write what was agreed", move |db| {
            let now = generation(db)?;
            if now != seen {
                return Ok(Applied::Overtaken(now));
            }
            let after = usize::try_from(now.0).unwrap_or(usize::MAX).saturating_add(versions.len());
            if after > usize::try_from(VERSIONS_MAX).unwrap_or(usize::MAX) {
                return Ok(Applied::TooMany);
            }
            let mut insert = db.prepare_cached(&format!(
                "INSERT INTO object_version ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
            ))?;
            for version in &versions {
                let ObjectVersion { kind, name, valid_from, recorded_at, author, reason, body } = version;
                insert.execute((kind, name, valid_from.0, recorded_at.0, author, reason, body))?;
                let begins = if version.is_end() { "ends" } else { "from" };
                let detail = format!("{kind} {name:?} {begins} {}: {reason}", since(*valid_from));
                audit::enter(db, *recorded_at, &who, "agreement.apply", &detail)?;
            }
            Ok(Applied::Done(generation(db)?))
        })
        .await
    }
}

fn since(valid_from: UtcTime) -> String {
    if valid_from.0 == i64::MIN { "ever".to_owned() } else { valid_from.to_string() }
}

fn generation(db: &db::Connection) -> db::Result<Generation> {
    db.query_row("SELECT COUNT(*) FROM object_version", (), |row| Ok(Generation(row.get(0)?)))
}

fn version_row(row: &Row<'_>) -> db::Result<ObjectVersion> {
    Ok(ObjectVersion {
        kind: row.get(0)?,
        name: row.get(1)?,
        valid_from: cells::time(row, 2)?,
        recorded_at: cells::time(row, 3)?,
        author: row.get(4)?,
        reason: row.get(5)?,
        body: row.get(6)?,
    })
}
