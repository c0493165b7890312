//! Hours about which something came since they were last derived.
//!
//! A block only ever marks; the hour is derived later, from all blocks that speak about it, and overwritten. So a late
//! block, one that comes twice to be judged, or a crash in between all end in the same rows. The watermark of what has
//! been marked moves in the transaction of the marks; the mark goes in the transaction of the hour. Both need the lease
//! of the lane.

use std::collections::BTreeSet;

use peil_proto::ids::AgentId;
use peil_proto::time::UtcTime;

use super::blocks::{BlockId, Lane, Through};
use super::db::{self, Connection};
use super::latency::{self, HourRow};
use super::leases::{self, Duty, Held};
use super::{Store, StoreError, cells};

/// An hour of one agent, by its start.
pub type DirtyHour = (AgentId, UtcTime);

const JOB: &str = "derive";

impl Store {
    /// How far blocks have marked their hours.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn marked_through(&self) -> Result<Through, StoreError> {
        self.read("read how far hours are marked", |db| Ok(through(db, JOB)?)).await
    }

    /// Marks hours, and remembers that the blocks through `through` have been looked at.
    ///
    /// # Errors
    /// As every write; [`StoreError::LeaseLost`] when one of the lanes is another collector's.
    pub async fn mark_dirty(&self, hours: BTreeSet<DirtyHour>, through: Through, held: Held) -> Result<(), StoreError> {
        let hours: Vec<_> = hours.into_iter().map(|(agent, hour)| (self.lane_of(agent), agent, hour)).collect();
        self.write("mark hours to be derived", move |db| {
            leases::require(db, &held, through.lanes().map(|(lane, _)| Duty::Lane(lane)))?;
            let mut mark = db.prepare_cached(
                "INSERT INTO dirty_hour (lane, agent, hour_ms) VALUES (?1, ?2, ?3)
                 ON CONFLICT (lane, agent, hour_ms) DO NOTHING",
            )?;
            for (lane, agent, hour) in &hours {
                mark.execute((lane.0, agent.0, hour.0))?;
            }
            Ok(move_through(db, JOB, &through)?)
        })
        .await
    }

    /// The lanes with marked hours that begin before `before`.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn dirty_lanes(&self, before: UtcTime) -> Result<Vec<Lane>, StoreError> {
        self.read("read where hours must be derived", move |db| {
            let mut ask = db.prepare_cached("SELECT DISTINCT lane FROM dirty_hour WHERE hour_ms < ?1 ORDER BY lane")?;
            Ok(ask.query_map([before.0], |row| Ok(Lane(row.get(0)?)))?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The marked hours of a lane that begin before `before`, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn dirty_hours(&self, lane: Lane, before: UtcTime, limit: u32) -> Result<Vec<DirtyHour>, StoreError> {
        self.read("read which hours must be derived", move |db| {
            let mut ask = db.prepare_cached(
                "SELECT agent, hour_ms FROM dirty_hour WHERE lane = ?1 AND hour_ms < ?2
                 ORDER BY hour_ms, agent LIMIT ?3",
            )?;
            let rows =
                ask.query_map((lane.0, before.0, limit), |row| Ok((cells::agent(row, 0)?, cells::time(row, 1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// How many hours are marked.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn dirty_count(&self) -> Result<u64, StoreError> {
        self.read("count the hours to be derived", |db| {
            Ok(db.query_row("SELECT COUNT(*) FROM dirty_hour", (), |row| cells::number(row, 0))?)
        })
        .await
    }

    /// Writes hours that were derived and takes their marks away. `done` names all of them: one without a row has no
    /// samples.
    ///
    /// # Errors
    /// As every write; [`StoreError::LeaseLost`] when one of the agents is another collector's.
    pub async fn write_hours(&self, done: Vec<DirtyHour>, rows: Vec<HourRow>, held: Held) -> Result<(), StoreError> {
        let done: Vec<_> = done.into_iter().map(|(agent, hour)| (self.lane_of(agent), agent, hour)).collect();
        self.write("write the times of hours", move |db| {
            let lanes: BTreeSet<Lane> = done.iter().map(|(lane, _, _)| *lane).collect();
            leases::require(db, &held, lanes.into_iter().map(Duty::Lane))?;
            let mut none = db.prepare_cached("DELETE FROM latency_hour WHERE agent = ?1 AND hour_ms = ?2")?;
            let mut unmark =
                db.prepare_cached("DELETE FROM dirty_hour WHERE lane = ?1 AND agent = ?2 AND hour_ms = ?3")?;
            for (lane, agent, hour) in &done {
                none.execute((agent.0, hour.0))?;
                unmark.execute((lane.0, agent.0, hour.0))?;
            }
            Ok(latency::write_hours(db, &rows)?)
        })
        .await
    }
}

pub(super) fn through(db: &Connection, job: &str) -> db::Result<Through> {
    let mut ask = db.prepare_cached("SELECT lane, through FROM watermark WHERE job = ?1")?;
    ask.query_map([job], |row| Ok(BlockId { lane: Lane(row.get(0)?), no: row.get(1)? }))?.collect()
}

/// Moves a job's watermark, never back, inside the caller's transaction.
fn move_through(db: &Connection, job: &str, to: &Through) -> db::Result<()> {
    let known = through(db, job)?;
    let mut mark = db.prepare_cached(
        "INSERT INTO watermark (job, lane, through) VALUES (?1, ?2, ?3)
         ON CONFLICT (job, lane) DO UPDATE SET through = excluded.through WHERE excluded.through > watermark.through",
    )?;
    for (lane, no) in to.lanes().filter(|(lane, no)| *no > known.of(*lane)) {
        mark.execute((job, lane.0, no))?;
    }
    Ok(())
}
