//! Numbered migrations: the only way a table comes to be, on both engines.
//!
//! A fresh database goes the same road as an old one, from 1 to the newest, so there is no second
//! description of the schema that could differ. Each migration commits with its own row in
//! `schema_version`; one that fails leaves the database at the number before it. A published file is never
//! edited: a change is a new file and a new line in [`MIGRATIONS`]. A new step may add, never take away or change
//! what the version before it uses: on a server collectors are replaced one at a time.
//!
//! A file is written once, in SQLite's words; for PostgreSQL the types are exchanged ([`for_postgres`]). What only one
//! of them has stands below a line `-- only sqlite` or `-- only postgres`, until `-- both`.

use super::StoreError;
use super::db::{self, Connection, Engine, Meaning};

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
    Migration { number: 5, name: "collectors and leases", sql: include_str!("migrations/005_leases.sql") },
    Migration { number: 6, name: "agreement and months", sql: include_str!("migrations/006_agreement.sql") },
    Migration { number: 7, name: "days and times", sql: include_str!("migrations/007_derived.sql") },
    Migration { number: 8, name: "lost ranges", sql: include_str!("migrations/008_lost_ranges.sql") },
    Migration { number: 9, name: "transfer", sql: include_str!("migrations/009_transfer.sql") },
    Migration { number: 10, name: "authorities", sql: include_str!("migrations/010_authorities.sql") },
    Migration { number: 11, name: "labels", sql: include_str!("migrations/011_labels.sql") },
    Migration { number: 12, name: "copies", sql: include_str!("migrations/012_copies.sql") },
    Migration { number: 13, name: "clock errors", sql: include_str!("migrations/013_clock_error.sql") },
];

/// Collectors that start together on a server meet here; one of them migrates, the others find it done.
const MEETINGS: u32 = 100;

/// Brings the schema of the database at `place` to the newest number.
pub(super) fn migrate(db: &Connection, place: &str) -> Result<(), StoreError> {
    migrate_with(db, place, MIGRATIONS)
}

pub(super) fn migrate_with(db: &Connection, place: &str, migrations: &[Migration]) -> Result<(), StoreError> {
    let mut meetings = 0;
    loop {
        let found = version(db).map_err(|source| StoreError::Open { path: place.into(), source: source.into() })?;
        let known = migrations.last().map_or(0, |newest| newest.number);
        if found > known {
            return Err(StoreError::NewerSchema { place: place.to_owned(), found, known });
        }
        let Some(step) = migrations.iter().find(|step| step.number > found) else { return Ok(()) };
        match apply(db, step) {
            Ok(()) => {}
            // Somebody else took this step at the same time: look again.
            Err(error)
                if db.engine() == Engine::Postgres
                    && matches!(error.meaning(), Meaning::Taken | Meaning::Conflict)
                    && meetings < MEETINGS =>
            {
                meetings += 1;
            }
            Err(error) => {
                return Err(StoreError::Migrate { number: step.number, name: step.name, source: error.into() });
            }
        }
    }
}

/// The newest number there is.
pub(super) fn newest() -> u32 {
    MIGRATIONS.last().map_or(0, |newest| newest.number)
}

/// The number of the database's schema; 0 when it has none.
pub(super) fn version(db: &Connection) -> db::Result<u32> {
    let there = match db.engine() {
        Engine::Sqlite => "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'schema_version'",
        Engine::Postgres => {
            "SELECT COUNT(*) FROM information_schema.tables
             WHERE table_name = 'schema_version' AND table_schema = CURRENT_SCHEMA"
        }
    };
    if db.query_row(there, (), |row| row.get::<i64>(0))? == 0 {
        return Ok(0);
    }
    db.query_row("SELECT COALESCE(MAX(number), 0) FROM schema_version", (), |row| row.get(0))
}

fn apply(db: &Connection, step: &Migration) -> db::Result<()> {
    db.execute_batch(match db.engine() {
        Engine::Sqlite => "BEGIN IMMEDIATE",
        Engine::Postgres => "BEGIN",
    })?;
    let applied = steps(db, step).and_then(|()| db.execute_batch("COMMIT"));
    if applied.is_err() {
        // What is not committed is not there.
        let _ = db.execute_batch("ROLLBACK");
    }
    applied
}

fn steps(db: &Connection, step: &Migration) -> db::Result<()> {
    let engine = db.engine();
    let table = "CREATE TABLE IF NOT EXISTS schema_version (
       number INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL) STRICT;";
    db.execute_batch(&sql_for(engine, table))?;
    // Its row first: on a server whoever comes second waits here, and then finds the step taken.
    db.execute("INSERT INTO schema_version (number, name) VALUES (?1, ?2)", (step.number, step.name))?;
    db.execute_batch(&sql_for(engine, step.sql))
}

/// The part of a file that is for this engine, in its words.
pub(super) fn sql_for(engine: Engine, sql: &str) -> String {
    let mut wanted = true;
    let mut out = String::with_capacity(sql.len());
    for line in sql.lines() {
        match line.trim() {
            "-- only sqlite" => wanted = engine == Engine::Sqlite,
            "-- only postgres" => wanted = engine == Engine::Postgres,
            "-- both" => wanted = true,
            _ if wanted => {
                out.push_str(line);
                out.push('\n');
            }
            _ => {}
        }
    }
    match engine {
        Engine::Sqlite => out,
        Engine::Postgres => for_postgres(&out),
    }
}

/// Text compares byte by byte, as in SQLite, whatever the locale of the server.
fn for_postgres(sql: &str) -> String {
    sql.replace(" STRICT, WITHOUT ROWID", "")
        .replace(" STRICT", "")
        .replace(" INTEGER", " BIGINT")
        .replace(" BLOB", " BYTEA")
        .replace(" TEXT", " TEXT COLLATE \"C\"")
}
