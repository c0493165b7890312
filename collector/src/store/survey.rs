//! A look at the store from outside the work: what `doctor` judges and `/metrics` repeats.
//!
//! A few small questions, none of which reads blocks or grows with them. Found is told as found; whether it is good is
//! decided by whoever asked (`crate::doctor`).

use std::collections::BTreeMap;
use std::time::Duration;

use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;

use super::blocks::{self, BlockId, Lane, Through};
use super::db::{self, Connection, Engine};
use super::error::Fault;
use super::leases::{CollectorRow, LeaseRow};
use super::{Place, Store, StoreError, bi, cells, leases, migrate, postgres, reserve, sqlite};

/// What was found.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Which store.
    pub place: String,
    /// When, by our clock.
    pub at: UtcTime,
    /// The database's clock minus ours; known to half the time the question took.
    pub ahead: Millis,
    /// How long that question took.
    pub round_trip: Duration,
    /// Number of the schema.
    pub schema: u32,
    /// Settings that decide whether a commit survives, as they are.
    pub durability: Vec<(&'static str, String)>,
    /// Servers that have every commit before it is told; 0 for a file.
    pub standbys: u64,
    /// Bytes of the database.
    pub bytes: u64,
    /// Bytes of the write-ahead log beside the file.
    pub wal_bytes: Option<u64>,
    /// Room left on the disk of the file.
    pub free_bytes: Option<u64>,
    /// Blocks that each job has not been through.
    pub behind: BTreeMap<String, u64>,
    /// When the oldest block came that the judge has not been through.
    pub unjudged_since: Option<UtcTime>,
    /// Every lease.
    pub leases: Vec<LeaseRow>,
    /// Every collector that did not say good-bye.
    pub collectors: Vec<CollectorRow>,
    /// Deliveries that were neither taken nor given up.
    pub unsent: u64,
    /// When the oldest of them was put there.
    pub unsent_since: Option<UtcTime>,
    /// The views for reports; nothing where the engine has none.
    pub bi: Option<bi::Standing>,
}

impl Store {
    /// Looks at the store, on a reading connection.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn survey(&self, clock: WallClock) -> Result<Survey, StoreError> {
        let place = self.inner.place.clone();
        self.read("look at the store", move |db| look(db, &place, &clock)).await
    }
}

/// Looks at a store that nobody has open here, without changing anything: neither made nor migrated. Blocks.
///
/// # Errors
/// When it cannot be opened, would lose commits, or has not the schema of this program.
pub fn survey(place: &Place, clock: &WallClock) -> Result<Survey, StoreError> {
    let db = match place {
        Place::Directory(dir) => {
            let path = sqlite::database_file(dir);
            let open = sqlite::open_to_read(&path);
            Connection::Sqlite(open.map_err(|source| StoreError::Open { path, source: source.into() })?)
        }
        Place::Server(target) => postgres::connect(target)?,
    };
    let what = "look at the store";
    let asked = migrate::version(&db).map_err(Fault::from).and_then(|found| {
        let (place, known) = (place.to_string(), migrate::newest());
        match found {
            _ if found > known => Err(StoreError::NewerSchema { place, found, known }.into()),
            _ if found < known => Err(StoreError::OlderSchema { place, found, known }.into()),
            _ => Ok(()),
        }
    });
    asked.and_then(|()| look(&db, place, clock)).map_err(|fault| match fault {
        Fault::Sql(error) => StoreError::reading(what, error),
        Fault::Refused(refusal) => refusal,
    })
}

fn look(db: &Connection, place: &Place, clock: &WallClock) -> Result<Survey, Fault> {
    let asked = clock.now();
    let theirs = leases::clock(db)?;
    let at = clock.now();
    let (leases, collectors) = leases::all(db)?;
    let newest = blocks::newest(db)?;
    let judged = watermarks(db)?;
    let (unsent, unsent_since) = unsent(db)?;
    let size = |path: std::path::PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
    let (bytes, wal_bytes, free_bytes) = match place {
        Place::Directory(dir) => {
            (size(sqlite::database_file(dir)), Some(size(sqlite::wal_file(dir))), reserve::room(dir))
        }
        Place::Server(_) => {
            let ask = "SELECT pg_database_size(current_database())";
            (db.query_row(ask, (), |row| row.get::<i64>(0))?.cast_unsigned(), None, None)
        }
    };
    Ok(Survey {
        place: place.to_string(),
        at,
        ahead: Millis(theirs.0 - (asked.0 + at.0) / 2),
        round_trip: at.since(asked).to_duration(),
        schema: migrate::version(db)?,
        durability: durability(db)?,
        standbys: standbys(db)?,
        bytes,
        wal_bytes,
        free_bytes,
        behind: judged.iter().map(|(job, through)| (job.clone(), behind(&newest, through))).collect(),
        unjudged_since: first_after(db, judged.get(super::judgement::JOB).unwrap_or(&Through::NOTHING))?,
        leases,
        collectors,
        unsent,
        unsent_since,
        bi: bi::standing(db)?,
    })
}

fn durability(db: &Connection) -> db::Result<Vec<(&'static str, String)>> {
    match db {
        Connection::Sqlite(_) => {
            let journal: String = db.query_row("PRAGMA journal_mode", (), |row| row.get(0))?;
            let synchronous: i64 = db.query_row("PRAGMA synchronous", (), |row| row.get(0))?;
            Ok(vec![("journal_mode", journal), ("synchronous", synchronous.to_string())])
        }
        Connection::Postgres(_) => {
            let settings = postgres::DURABLE.iter().map(|(setting, _)| *setting).chain(["synchronous_standby_names"]);
            settings.map(|setting| Ok((setting, postgres::shown(db, setting)?))).collect()
        }
    }
}

/// A role that may not look at the replicas sees none.
fn standbys(db: &Connection) -> db::Result<u64> {
    match db.engine() {
        Engine::Sqlite => Ok(0),
        Engine::Postgres => {
            let ask = "SELECT COUNT(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')";
            Ok(db.query_row(ask, (), |row| row.get::<i64>(0))?.cast_unsigned())
        }
    }
}

fn watermarks(db: &Connection) -> db::Result<BTreeMap<String, Through>> {
    let mut ask = db.prepare_cached("SELECT job, lane, through FROM watermark WHERE job <> ?1 ORDER BY job, lane")?;
    // The judge has a watermark also when there is no row yet.
    let mut through = BTreeMap::from([(super::judgement::JOB.to_owned(), Through::NOTHING)]);
    // Compaction counts there, it does not tell a place.
    let mut rows = ask.query([super::days::JOB])?;
    while let Some(row) = rows.next()? {
        through.entry(row.get(0)?).or_default().pass(BlockId { lane: Lane(row.get(1)?), no: row.get(2)? });
    }
    Ok(through)
}

fn behind(newest: &Through, through: &Through) -> u64 {
    newest.lanes().map(|(lane, head)| (head - through.of(lane)).max(0).cast_unsigned()).sum()
}

/// When the first block after these came.
fn first_after(db: &Connection, judged: &Through) -> db::Result<Option<UtcTime>> {
    let ask = match db.engine() {
        Engine::Sqlite => "SELECT received_at FROM block WHERE no > ?2 AND ?1 = 0 ORDER BY no LIMIT 1",
        Engine::Postgres => "SELECT received_at FROM block WHERE lane = ?1 AND no > ?2 ORDER BY no LIMIT 1",
    };
    let mut ask = db.prepare_cached(ask)?;
    let mut first: Option<UtcTime> = None;
    for (lane, head) in blocks::newest(db)?.lanes() {
        if head <= judged.of(lane) {
            continue;
        }
        let came = ask.query_map((lane.0, judged.of(lane)), |row| cells::time(row, 0))?;
        for at in came {
            let at = at?;
            first = Some(first.map_or(at, |first| first.min(at)));
        }
    }
    Ok(first)
}

fn unsent(db: &Connection) -> db::Result<(u64, Option<UtcTime>)> {
    let ask = "SELECT COUNT(*), MIN(created_at) FROM delivery WHERE sent_at IS NULL AND abandoned_at IS NULL";
    db.query_row(ask, (), |row| Ok((row.get::<i64>(0)?.cast_unsigned(), cells::time_or_none(row, 1)?)))
}
