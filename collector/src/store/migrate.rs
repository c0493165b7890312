//! Numbered migrations: the only way a table comes to be.
//!
//! A fresh database goes the same road as an old one, from 1 to the newest, so there is no second
//! description of the schema that could differ. Each migration commits with its own row in
//! `schema_version`; one that fails leaves the database at the number before it. A published file is never
//! edited: a change is a new file and a new line in [`MIGRATIONS`].

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::StoreError;

pub(super) struct Migration {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, name: "agents and blocks", sql: include_str!("migrations/001_agents_and_blocks.sql") },
    Migration { number: 2, name: "judgement", sql: include_str!("migrations/002_judgement.sql") },
    Migration { number: 3, name: "alerts", sql: include_str!("migrations/003_alerts.sql") },
    Migration { number: 4, name: "access and audit", sql: include_str!("migrations/004_access_and_audit.sql") },
];

/// Brings the schema to the newest number. The caller holds the directory's lock.
pub(super) fn migrate(db: &mut Connection, path: &Path) -> Result<(), StoreError> {
    migrate_with(db, path, MIGRATIONS)
}

pub(super) fn migrate_with(db: &mut Connection, path: &Path, migrations: &[Migration]) -> Result<(), StoreError> {
    let found = version(db).map_err(|source| StoreError::Open { path: path.to_owned(), source: source.into() })?;
    let known = migrations.last().map_or(0, |newest| newest.number);
    if found > known {
        return Err(StoreError::NewerSchema { path: path.to_owned(), found, known });
    }
    for step in migrations.iter().filter(|step| step.number > found) {
        apply(db, step).map_err(|error| StoreError::Migrate {
            number: step.number,
            name: step.name,
            source: error.into(),
        })?;
    }
    Ok(())
}

fn version(db: &Connection) -> rusqlite::Result<u32> {
    if !db.table_exists(None, "schema_version")? {
        return Ok(0);
    }
    db.query_row("SELECT COALESCE(MAX(number), 0) FROM schema_version", [], |row| row.get(0))
}

fn apply(db: &mut Connection, step: &Migration) -> rusqlite::Result<()> {
    let transaction = Transaction::new(db, TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_version (number INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL) STRICT",
    )?;
    transaction.execute_batch(step.sql)?;
    transaction.execute("INSERT INTO schema_version (number, name) VALUES (?1, ?2)", (step.number, step.name))?;
    transaction.commit()
}
