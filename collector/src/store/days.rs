//! Compacted days, and the step that puts them in the place of blocks.
//!
//! A step is one transaction: the blocks go, the day blocks they became a part of are overwritten, and what follows
//! from those days is written. A crash before its commit leaves everything as it was, one after it everything done;
//! there is nothing in between to mend. Two things are checked inside it, so that no step can double or lose a record
//! even if two collectors should take the same one: every block is still there, and no day was compacted meanwhile.
//!
//! Only blocks go that every job has passed (judged and marked), so a watermark never meets a hole.
//!
//! Who reads a period from day blocks and blocks holds compaction still meanwhile ([`Store::hold_still`]) and asks
//! afterwards whether another collector took a step ([`Store::compactions`]): otherwise a block could be missed in both
//! places or met in both. A step needs the lease of the agent's lane.

use std::collections::BTreeSet;

use bytes::Bytes;
use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::time::{UtcDay, UtcTime};
use tokio::sync::OwnedRwLockReadGuard;

use super::blocks::lane::{LANES, lane_of};
use super::blocks::sqlite::block_row;
use super::blocks::{BlockId, Lane, StoredBlock, Through};
use super::db::{self, Connection, Engine, OptionalExtension, Row};
use super::dirty;
use super::error::Fault;
use super::latency::{self, DerivedDays, HourRow};
use super::leases::{self, Duty, Held};
use super::{Store, StoreError, cells};

/// How the block of everything that is no sample is numbered among those of the checks.
const REST: i64 = -1;
/// The name under which steps are counted.
pub(super) const JOB: &str = "compact";

/// A compacted block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayRow {
    /// Who sent it.
    pub agent: AgentId,
    /// Of which day.
    pub day: UtcDay,
    /// The samples of which check; `None`: all other records, and the ledger.
    pub check: Option<CheckNo>,
    /// How often the day was compacted.
    pub version: u32,
    /// Records in it.
    pub records: u32,
    /// The day block.
    pub bytes: Bytes,
}

/// Where a day block stands, for paging: by agent, day and check.
pub type DayKey = (AgentId, UtcDay, Option<CheckNo>);

/// While it lives, this process takes no step of compaction.
#[derive(Debug)]
pub struct Still {
    _guard: OwnedRwLockReadGuard<()>,
}

impl DayRow {
    /// Its key.
    pub fn key(&self) -> DayKey {
        (self.agent, self.day, self.check)
    }
}

/// One step of compaction.
#[derive(Debug, Clone)]
pub struct Step {
    /// Whose blocks.
    pub agent: AgentId,
    /// The blocks that go.
    pub sources: Vec<BlockId>,
    /// The days they become a part of, with the version each had when it was read; 0 for one that was not there.
    pub days: Vec<(UtcDay, u32)>,
    /// The day blocks, all of these days and whole; `version` is not looked at.
    pub blocks: Vec<DayRow>,
    /// What follows from them.
    pub derived: DerivedDays,
}

impl Store {
    /// The parts of the log, each of which is compacted by itself.
    pub fn lanes(&self) -> impl Iterator<Item = Lane> + use<> {
        let count = if self.is_shared() { LANES } else { 1 };
        (0..count).map(Lane)
    }

    /// Until the guard goes, no step of compaction of this process takes place.
    pub async fn hold_still(&self) -> Still {
        Still { _guard: self.inner.compaction.clone().read_owned().await }
    }

    /// The blocks of a lane that say something about a time before `before` and that all jobs have passed, the oldest
    /// first.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn closed_blocks(
        &self,
        lane: Lane,
        before: UtcTime,
        limit: u32,
    ) -> Result<Vec<(AgentId, BlockId)>, StoreError> {
        self.read("read which blocks can be compacted", move |db| {
            let passed = passed(db)?.of(lane);
            let mut ask = db.prepare_cached(match db.engine() {
                Engine::Sqlite => {
                    "SELECT agent, no FROM block WHERE no <= ?1 AND from_ms < ?2 AND ?3 = 0 ORDER BY no LIMIT ?4"
                }
                Engine::Postgres => {
                    "SELECT agent, no FROM block WHERE no <= ?1 AND from_ms < ?2 AND lane = ?3 ORDER BY no LIMIT ?4"
                }
            })?;
            let rows = ask.query_map((passed, before.0, lane.0, limit), |row| {
                Ok((cells::agent(row, 0)?, BlockId { lane, no: row.get(1)? }))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// These blocks, those that are still there.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn blocks(&self, ids: Vec<BlockId>) -> Result<Vec<StoredBlock>, StoreError> {
        self.read("read blocks", move |db| {
            let columns = "no, agent, epoch, first_seq, records, skip, received_at, from_ms, to_ms, bytes";
            let mut ask = db.prepare_cached(&format!("SELECT {columns} FROM block WHERE {}", this_block(db)))?;
            let mut blocks = Vec::with_capacity(ids.len());
            for id in &ids {
                blocks.extend(ask.query_row((id.lane.0, id.no), |row| block_row(row, id.lane, 0)).optional()?);
            }
            Ok(blocks)
        })
        .await
    }

    /// The day blocks of some days of one agent.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn day_blocks(&self, agent: AgentId, days: BTreeSet<UtcDay>) -> Result<Vec<DayRow>, StoreError> {
        self.read("read compacted days", move |db| {
            let mut ask = db.prepare_cached(
                "SELECT agent, day, check_no, version, records, bytes FROM day_block
                 WHERE agent = ?1 AND day = ?2 ORDER BY check_no",
            )?;
            let mut found = Vec::new();
            for day in &days {
                for row in ask.query_map((agent.0, day.0), day_row)? {
                    found.push(row?);
                }
            }
            Ok(found)
        })
        .await
    }

    /// The day blocks of `since` and later, page by page in order of their keys, until a page is empty. A page ends
    /// after the block with which it has `bytes`.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn day_blocks_from(
        &self,
        since: UtcDay,
        after: Option<DayKey>,
        bytes: usize,
    ) -> Result<Vec<DayRow>, StoreError> {
        const AT_ONCE: i64 = 256;
        self.read("read the compacted days of a period", move |db| {
            let mut ask = db.prepare_cached(
                "SELECT agent, day, check_no, version, records, bytes FROM day_block
                 WHERE (agent, day, check_no) > (?1, ?2, ?3) AND day >= ?4 ORDER BY agent, day, check_no LIMIT ?5",
            )?;
            let (agent, day, check) = after.unwrap_or((AgentId([0; 16]), UtcDay(i64::MIN), None));
            let mut rows = ask.query((agent.0, day.0, number_of(check), since.0, AT_ONCE))?;
            let (mut page, mut size) = (Vec::new(), 0);
            while size < bytes.max(1) {
                let Some(row) = rows.next()? else { break };
                let row = day_row(&row)?;
                size += row.bytes.len();
                page.push(row);
            }
            Ok(page)
        })
        .await
    }

    /// Agents and days that are compacted, the newest days first.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn compacted_days(
        &self,
        after: Option<(UtcDay, AgentId)>,
        limit: u32,
    ) -> Result<Vec<(UtcDay, AgentId)>, StoreError> {
        self.read("read which days are compacted", move |db| {
            let mut ask = db.prepare_cached(
                "SELECT day, agent FROM day_block WHERE check_no = -1 AND (day < ?1 OR (day = ?1 AND agent > ?2))
                 ORDER BY day DESC, agent LIMIT ?3",
            )?;
            let (day, agent) = after.unwrap_or((UtcDay(i64::MAX), AgentId([0xff; 16])));
            let rows =
                ask.query_map((day.0, agent.0, limit), |row| Ok((UtcDay(row.get(0)?), cells::agent(row, 1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The earliest moment the oldest block of any lane speaks about; `None` when all are compacted. Tells how far compaction lags.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn oldest_block(&self) -> Result<Option<UtcTime>, StoreError> {
        self.read("read how old the oldest block is", |db| {
            let mut ask = db.prepare_cached(match db.engine() {
                Engine::Sqlite => "SELECT from_ms FROM block ORDER BY no LIMIT 1",
                Engine::Postgres => {
                    "SELECT b.from_ms FROM lane l CROSS JOIN LATERAL (
                       SELECT from_ms FROM block WHERE block.lane = l.lane ORDER BY no LIMIT 1) AS b
                     ORDER BY b.from_ms LIMIT 1"
                }
            })?;
            Ok(ask.query_row((), |row| cells::time(row, 0)).optional()?)
        })
        .await
    }

    /// How many steps were ever taken.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn compactions(&self) -> Result<i64, StoreError> {
        self.read("read how often blocks were compacted", |db| Ok(dirty::through(db, JOB)?.blocks())).await
    }

    /// The lane an agent's blocks are in.
    pub fn lane_of(&self, agent: AgentId) -> Lane {
        if self.is_shared() { lane_of(agent) } else { Lane::default() }
    }

    /// Takes a step, all or nothing. False when it no longer fits what is there: a block has gone, or a day was
    /// compacted meanwhile; nothing is changed then.
    ///
    /// # Errors
    /// As every write; [`StoreError::LeaseLost`] when the agent is another collector's.
    pub async fn compact(&self, step: Step, held: Held) -> Result<bool, StoreError> {
        let lane = self.lane_of(step.agent);
        let _alone = self.inner.compaction.write().await;
        let work = move |db: &Connection| {
            leases::require(db, &held, [Duty::Lane(lane)])?;
            take(db, &step)?;
            count(db, lane)
        };
        let taken = self.write("put compacted days in the place of blocks", work).await;
        match taken {
            Ok(()) => Ok(true),
            Err(StoreError::Overtaken) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Overwrites what is stored of one day with what was derived again from its blocks. False, and nothing changed,
    /// when the day was compacted since its blocks were read. Needs no lease: it is what an operator asks for.
    ///
    /// # Errors
    /// As every write.
    pub async fn repair_day(
        &self,
        (agent, day, version): (AgentId, UtcDay, u32),
        derived: DerivedDays,
        hours: Vec<HourRow>,
    ) -> Result<bool, StoreError> {
        let work = move |db: &Connection| {
            is_version(db, agent, day, version)?;
            latency::replace_days(db, agent, &derived)?;
            latency::replace_hours(db, agent, day, &hours)?;
            Ok(())
        };
        match self.write("write a day that was derived again", work).await {
            Ok(()) => Ok(true),
            Err(StoreError::Overtaken) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Whether something about this day may still change by itself: an hour waits to be derived, or a block to be
    /// compacted. Reads the agent's blocks that are not compacted: for the rare case.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn is_unsettled(&self, agent: AgentId, day: UtcDay) -> Result<bool, StoreError> {
        let lane = self.lane_of(agent);
        self.read("read whether a day is settled", move |db| {
            let (from, to) = (day.start().0, day.next().start().0);
            let dirty: i64 = db.query_row(
                "SELECT COUNT(*) FROM dirty_hour WHERE lane = ?1 AND agent = ?2 AND hour_ms >= ?3 AND hour_ms < ?4",
                (lane.0, agent.0, from, to),
                |row| row.get(0),
            )?;
            let of_lane = match db.engine() {
                Engine::Sqlite => "?1 = 0",
                Engine::Postgres => "lane = ?1",
            };
            let waiting: i64 = db.query_row(
                &format!("SELECT COUNT(*) FROM block WHERE {of_lane} AND agent = ?2 AND from_ms < ?3 AND to_ms >= ?4"),
                (lane.0, agent.0, to, from),
                |row| row.get(0),
            )?;
            Ok(dirty + waiting > 0)
        })
        .await
    }
}

/// What every job has passed.
fn passed(db: &Connection) -> db::Result<Through> {
    let (judged, marked) = (dirty::through(db, "judge")?, dirty::through(db, "derive")?);
    let both = judged.lanes().map(|(lane, no)| BlockId { lane, no: no.min(marked.of(lane)) });
    Ok(both.collect())
}

fn take(db: &Connection, step: &Step) -> Result<(), Fault> {
    for (day, expected) in &step.days {
        is_version(db, step.agent, *day, *expected)?;
    }
    let mut delete = db.prepare_cached(&format!("DELETE FROM block WHERE {}", this_block(db)))?;
    for id in &step.sources {
        if delete.execute((id.lane.0, id.no))? != 1 {
            return Err(StoreError::Overtaken.into());
        }
    }
    let mut upsert = db.prepare_cached(
        "INSERT INTO day_block (agent, day, check_no, version, records, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (agent, day, check_no) DO UPDATE SET version = excluded.version, records = excluded.records,
           bytes = excluded.bytes",
    )?;
    for row in &step.blocks {
        let version = step.days.iter().find(|(day, _)| *day == row.day).map_or(1, |(_, version)| version + 1);
        upsert.execute((row.agent.0, row.day.0, number_of(row.check), version, row.records, &row.bytes))?;
    }
    latency::replace_days(db, step.agent, &step.derived)?;
    Ok(())
}

/// Refuses when the day was compacted another number of times.
fn is_version(db: &Connection, agent: AgentId, day: UtcDay, expected: u32) -> Result<(), Fault> {
    let mut ask = db.prepare_cached("SELECT version FROM day_block WHERE agent = ?1 AND day = ?2 AND check_no = -1")?;
    let found = ask.query_row((agent.0, day.0), |row| row.get::<u32>(0)).optional()?.unwrap_or(0);
    if found == expected { Ok(()) } else { Err(StoreError::Overtaken.into()) }
}

fn count(db: &Connection, lane: Lane) -> Result<(), Fault> {
    let taken = dirty::through(db, JOB)?.of(lane);
    db.execute(
        "INSERT INTO watermark (job, lane, through) VALUES (?1, ?2, ?3)
         ON CONFLICT (job, lane) DO UPDATE SET through = excluded.through",
        (JOB, lane.0, taken + 1),
    )?;
    Ok(())
}

/// Finds one block by lane and number.
fn this_block(db: &Connection) -> &'static str {
    match db.engine() {
        Engine::Sqlite => "?1 = 0 AND no = ?2",
        Engine::Postgres => "lane = ?1 AND no = ?2",
    }
}

fn number_of(check: Option<CheckNo>) -> i64 {
    check.map_or(REST, |check| check.0.into())
}

fn day_row(row: &Row<'_>) -> db::Result<DayRow> {
    let check: i64 = row.get(2)?;
    Ok(DayRow {
        agent: cells::agent(row, 0)?,
        day: UtcDay(row.get(1)?),
        check: if check == REST { None } else { Some(CheckNo(row.get(2)?)) },
        version: row.get(3)?,
        records: row.get(4)?,
        bytes: Bytes::from(row.get::<Vec<u8>>(5)?),
    })
}
