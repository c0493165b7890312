//! Blocks on a server: many of them in each statement, lanes locked in order.
//!
//! A group of blocks is one transaction of seven statements, however many blocks it has (and two for each that shows a loss). It first locks the rows of its
//! lanes, in rising order, so two collectors never wait for each other in a ring, and whoever sends for the same agent
//! through two collectors is put in line: the mark is read under that lock. The numbers of a lane follow the order of
//! commits for the same reason.

use std::collections::BTreeMap;

use peil_proto::ids::{AgentId, Epoch, Seq};
use peil_proto::time::UtcTime;

use super::lane::{BlockId, Lane, Through, lane_of};
use super::lost;
use super::place::{Numbered, Placed, Stream, admit};
use super::sqlite::block_row;
use super::{Page, SEGMENT};
use crate::store::StoreError;
use crate::store::cells;
use crate::store::db::{self, Connection};
use crate::store::error::Fault;

type Key = (AgentId, Epoch);

/// Stores a group, in order; each block has its own answer, and all of them one commit.
pub(in crate::store) fn append(db: &Connection, group: &[&Numbered]) -> Result<Vec<Result<Placed, StoreError>>, Fault> {
    let mut heads = lock_lanes(db, group)?;
    let mut known = Known::read(db, group)?;
    let mut rows = Rows::default();
    let mut answers = Vec::with_capacity(group.len());
    for new in group {
        let key = (new.block.agent, new.block.epoch);
        if let Err(refusal) = admit(new.block.agent, known.agents.get(&new.block.agent).copied()) {
            answers.push(Err(refusal));
            continue;
        }
        let (stream, _) = known.streams.entry(key).or_default();
        let Some(placement) = stream.place(new) else {
            answers.push(Ok(Placed::Duplicate { acked: Seq(stream.acked) }));
            continue;
        };
        lost::note(db, new, &placement)?;
        let lane = lane_of(new.block.agent);
        let head = heads.entry(lane).or_insert(0);
        *head += 1;
        rows.push(BlockId { lane, no: *head }, new, placement.skip);
        known.streams.insert(key, (placement.moved, Some(new.block.received_at)));
        answers.push(Ok(Placed::Stored { last: new.last, records: placement.records, lost: placement.lost }));
    }
    if !rows.lanes.is_empty() {
        rows.insert(db)?;
        move_heads(db, &heads)?;
        known.write(db)?;
    }
    Ok(answers)
}

/// Locks the lane of an agent: after the commit nothing is appended that was decided on before it.
pub(in crate::store) fn lock_lane(db: &Connection, agent: AgentId) -> db::Result<()> {
    let mut lock = db.prepare_cached("SELECT head FROM lane WHERE lane = ?1 FOR UPDATE")?;
    lock.query_row([i64::from(lane_of(agent).0)], |_| Ok(()))
}

fn lock_lanes(db: &Connection, group: &[&Numbered]) -> db::Result<BTreeMap<Lane, i64>> {
    let lanes: BTreeMap<Lane, ()> = group.iter().map(|new| (lane_of(new.block.agent), ())).collect();
    let lanes: Vec<i64> = lanes.into_keys().map(|lane| lane.0.into()).collect();
    let mut lock = db.prepare_cached(
        "SELECT lane, head FROM lane WHERE lane = ANY(CAST(?1 AS BIGINT[])) ORDER BY lane FOR UPDATE",
    )?;
    lock.query_map([lanes], lane_row)?.collect()
}

fn move_heads(db: &Connection, heads: &BTreeMap<Lane, i64>) -> db::Result<()> {
    let lanes: Vec<i64> = heads.keys().map(|lane| lane.0.into()).collect();
    let numbers: Vec<i64> = heads.values().copied().collect();
    let mut update = db.prepare_cached(
        "UPDATE lane SET head = n.head FROM UNNEST(CAST(?1 AS BIGINT[]), CAST(?2 AS BIGINT[])) AS n(lane, head)
         WHERE lane.lane = n.lane AND lane.head < n.head",
    )?;
    update.execute((lanes, numbers))?;
    Ok(())
}

/// What is known of the agents of a group, and of their streams; a stream with a time has moved.
struct Known {
    agents: BTreeMap<AgentId, Option<UtcTime>>,
    streams: BTreeMap<Key, (Stream, Option<UtcTime>)>,
}

impl Known {
    fn read(db: &Connection, group: &[&Numbered]) -> db::Result<Self> {
        let keys: BTreeMap<Key, ()> = group.iter().map(|new| ((new.block.agent, new.block.epoch), ())).collect();
        let ids: Vec<AgentId> = keys.keys().map(|(agent, _)| *agent).collect();
        let agents: Vec<&[u8]> = ids.iter().map(|agent| agent.0.as_slice()).collect();
        let epochs: Vec<i64> = keys.keys().map(|(_, epoch)| cells::bits(epoch.0)).collect();
        let mut ask = db.prepare_cached(
            "SELECT a.agent, a.revoked_at, w.epoch, s.acked, s.records, s.lost, s.blocks, s.bytes
             FROM UNNEST(CAST(?1 AS BYTEA[]), CAST(?2 AS BIGINT[])) AS w(agent, epoch)
             JOIN agent a ON a.agent = w.agent
             LEFT JOIN agent_stream s ON s.agent = w.agent AND s.epoch = w.epoch",
        )?;
        let mut known = Self { agents: BTreeMap::new(), streams: BTreeMap::new() };
        let mut rows = ask.query((agents, epochs))?;
        while let Some(row) = rows.next()? {
            let agent = cells::agent(&row, 0)?;
            known.agents.insert(agent, cells::time_or_none(&row, 1)?);
            known.streams.insert((agent, Epoch(cells::number(&row, 2)?)), (super::stream_row(&row, 3)?, None));
        }
        Ok(known)
    }

    /// Writes the marks that moved.
    fn write(&self, db: &Connection) -> db::Result<()> {
        let moved: Vec<_> = self.streams.iter().filter_map(|(key, (stream, at))| Some((key, stream, (*at)?))).collect();
        let agents: Vec<&[u8]> = moved.iter().map(|((agent, _), _, _)| agent.0.as_slice()).collect();
        let column = |value: &dyn Fn(&Stream) -> u64| -> Vec<i64> {
            moved.iter().map(|(_, stream, _)| cells::bits(value(stream))).collect()
        };
        let epochs: Vec<i64> = moved.iter().map(|((_, epoch), _, _)| cells::bits(epoch.0)).collect();
        let times: Vec<i64> = moved.iter().map(|(_, _, at)| at.0).collect();
        let mut upsert = db.prepare_cached(
            "INSERT INTO agent_stream (agent, epoch, acked, records, lost, blocks, bytes, last_at)
             SELECT * FROM UNNEST(CAST(?1 AS BYTEA[]), CAST(?2 AS BIGINT[]), CAST(?3 AS BIGINT[]),
               CAST(?4 AS BIGINT[]), CAST(?5 AS BIGINT[]), CAST(?6 AS BIGINT[]), CAST(?7 AS BIGINT[]),
               CAST(?8 AS BIGINT[]))
             ON CONFLICT (agent, epoch) DO UPDATE SET acked = excluded.acked, records = excluded.records,
               lost = excluded.lost, blocks = excluded.blocks, bytes = excluded.bytes, last_at = excluded.last_at",
        )?;
        upsert.execute((
            agents,
            epochs,
            column(&|stream| stream.acked),
            column(&|stream| stream.records),
            column(&|stream| stream.lost),
            column(&|stream| stream.blocks),
            column(&|stream| stream.bytes),
            times,
        ))?;
        Ok(())
    }
}

/// Blocks on their way into the table, column by column.
#[derive(Default)]
struct Rows<'g> {
    lanes: Vec<i64>,
    numbers: Vec<i64>,
    agents: Vec<&'g [u8]>,
    epochs: Vec<i64>,
    firsts: Vec<i64>,
    records: Vec<i64>,
    skips: Vec<i64>,
    received: Vec<i64>,
    froms: Vec<i64>,
    tos: Vec<i64>,
    bytes: Vec<&'g [u8]>,
}

impl<'g> Rows<'g> {
    fn push(&mut self, id: BlockId, new: &'g Numbered, skip: u32) {
        let block = &new.block;
        self.lanes.push(id.lane.0.into());
        self.numbers.push(id.no);
        self.agents.push(&block.agent.0);
        self.epochs.push(cells::bits(block.epoch.0));
        self.firsts.push(cells::bits(block.first.0));
        self.records.push(block.records.into());
        self.skips.push(skip.into());
        self.received.push(block.received_at.0);
        self.froms.push(block.from.0);
        self.tos.push(block.to.0);
        self.bytes.push(&block.bytes);
    }

    fn insert(self, db: &Connection) -> db::Result<()> {
        let mut reach: BTreeMap<(i64, i64), i64> = BTreeMap::new();
        for ((lane, no), to) in self.lanes.iter().zip(&self.numbers).zip(&self.tos) {
            let latest = reach.entry((*lane, no.div_euclid(SEGMENT))).or_insert(*to);
            *latest = (*latest).max(*to);
        }
        let mut insert = db.prepare_cached(
            "INSERT INTO block (lane, no, agent, epoch, first_seq, records, skip, received_at, from_ms, to_ms, bytes)
             SELECT * FROM UNNEST(CAST(?1 AS BIGINT[]), CAST(?2 AS BIGINT[]), CAST(?3 AS BYTEA[]),
               CAST(?4 AS BIGINT[]), CAST(?5 AS BIGINT[]), CAST(?6 AS BIGINT[]), CAST(?7 AS BIGINT[]),
               CAST(?8 AS BIGINT[]), CAST(?9 AS BIGINT[]), CAST(?10 AS BIGINT[]), CAST(?11 AS BYTEA[]))",
        )?;
        insert.execute((
            self.lanes,
            self.numbers,
            self.agents,
            self.epochs,
            self.firsts,
            self.records,
            self.skips,
            self.received,
            self.froms,
            self.tos,
            self.bytes,
        ))?;
        let (lanes, segments): (Vec<i64>, Vec<i64>) = reach.keys().copied().unzip();
        let mut upsert = db.prepare_cached(
            "INSERT INTO block_reach (lane, segment, to_ms)
             SELECT * FROM UNNEST(CAST(?1 AS BIGINT[]), CAST(?2 AS BIGINT[]), CAST(?3 AS BIGINT[]))
             ON CONFLICT (lane, segment) DO UPDATE SET to_ms = excluded.to_ms
             WHERE excluded.to_ms > block_reach.to_ms",
        )?;
        upsert.execute((lanes, segments, reach.into_values().collect::<Vec<i64>>()))?;
        Ok(())
    }
}

/// Adds the blocks after `after`.
pub(super) fn after(db: &Connection, page: &mut Page, after: &Through) -> db::Result<()> {
    let behind: Vec<(Lane, i64)> = newest(db)?
        .lanes()
        .filter(|(lane, head)| *head > after.of(*lane))
        .map(|(lane, _)| (lane, after.of(lane)))
        .collect();
    if behind.is_empty() {
        return Ok(());
    }
    fill(db, page, UtcTime(i64::MIN), &behind, i64::MAX)
}

/// Adds the blocks after `after` that reach `since`, passing over segments in which none does.
pub(super) fn reaching(db: &Connection, page: &mut Page, since: UtcTime, after: &Through) -> db::Result<()> {
    let mut ask = db.prepare_cached(
        "SELECT lane, segment FROM block_reach WHERE lane >= ?1 AND to_ms >= ?2 ORDER BY lane, segment",
    )?;
    let mut rows = ask.query((0_i64, since.0))?;
    while let Some(row) = rows.next()? {
        let lane = Lane(row.get(0)?);
        let start = row.get::<i64>(1)?.saturating_mul(SEGMENT);
        let through = start.saturating_add(SEGMENT - 1);
        if through <= after.of(lane) {
            continue;
        }
        fill(db, page, since, &[(lane, after.of(lane).max(start - 1))], through)?;
        if page.is_full() {
            break;
        }
    }
    Ok(())
}

/// The newest block of every lane.
pub(super) fn newest(db: &Connection) -> db::Result<Through> {
    let mut ask = db.prepare_cached("SELECT lane, head FROM lane WHERE head > 0")?;
    let ids = ask.query_map((), |row| lane_row(row).map(|(lane, no)| BlockId { lane, no }))?;
    ids.collect()
}

fn lane_row(row: &db::Row<'_>) -> db::Result<(Lane, i64)> {
    Ok((Lane(row.get(0)?), row.get(1)?))
}

/// Adds blocks of these lanes, each after its number and through the number `through`, in order of lane and number.
fn fill(db: &Connection, page: &mut Page, since: UtcTime, lanes: &[(Lane, i64)], through: i64) -> db::Result<()> {
    let (lanes, after): (Vec<i64>, Vec<i64>) = lanes.iter().map(|(lane, after)| (i64::from(lane.0), *after)).unzip();
    let mut ask = db.prepare_cached(
        "SELECT b.lane, b.no, b.agent, b.epoch, b.first_seq, b.records, b.skip, b.received_at, b.from_ms, b.to_ms,
           b.bytes
         FROM UNNEST(CAST(?1 AS BIGINT[]), CAST(?2 AS BIGINT[])) AS w(lane, after)
         JOIN block b ON b.lane = w.lane AND b.no > w.after AND b.no <= ?3
         WHERE b.to_ms >= ?4 ORDER BY b.lane, b.no LIMIT ?5",
    )?;
    let mut rows = ask.query((lanes, after, through, since.0, page.room()))?;
    while !page.is_full() {
        let Some(row) = rows.next()? else { break };
        page.push(block_row(&row, Lane(row.get(0)?), 1)?);
    }
    Ok(())
}
