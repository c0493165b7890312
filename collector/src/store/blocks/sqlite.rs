//! Blocks in a file: one rowid table that is only ever appended to.

use bytes::Bytes;
use peil_proto::ids::{AgentId, Epoch, Seq};
use peil_proto::time::UtcTime;

use super::lane::{BlockId, Lane, Through};
use super::lost;
use super::place::{Numbered, Placed, Stream, admit};
use super::{Page, SEGMENT, StoredBlock};
use crate::store::cells;
use crate::store::db::{self, Connection, OptionalExtension, Row};
use crate::store::error::Fault;

/// The one lane.
const LANE: Lane = Lane(0);

pub(in crate::store) fn append(db: &Connection, new: &Numbered) -> Result<Placed, Fault> {
    let stream = admitted_stream(db, new.block.agent, new.block.epoch)?;
    let Some(placement) = stream.place(new) else { return Ok(Placed::Duplicate { acked: Seq(stream.acked) }) };
    lost::note(db, new, &placement)?;
    insert_block(db, new, placement.skip)?;
    move_mark(db, new, &placement.moved)?;
    Ok(Placed::Stored { last: new.last, records: placement.records, lost: placement.lost })
}

/// The stream's row when the agent may send, in one look-up.
fn admitted_stream(db: &Connection, agent: AgentId, epoch: Epoch) -> Result<Stream, Fault> {
    let mut ask = db.prepare_cached(
        "SELECT a.revoked_at, s.acked, s.records, s.lost, s.blocks, s.bytes
         FROM agent a LEFT JOIN agent_stream s ON s.agent = a.agent AND s.epoch = ?2 WHERE a.agent = ?1",
    )?;
    let found = ask
        .query_row((agent.0, cells::bits(epoch.0)), |row| {
            Ok((cells::time_or_none(row, 0)?, super::stream_row(row, 1)?))
        })
        .optional()?;
    admit(agent, found.map(|(revoked_at, _)| revoked_at))?;
    Ok(found.map(|(_, stream)| stream).unwrap_or_default())
}

fn insert_block(db: &Connection, new: &Numbered, skip: u32) -> db::Result<()> {
    let block = &new.block;
    let mut insert = db.prepare_cached(
        "INSERT INTO block (agent, epoch, first_seq, records, skip, received_at, from_ms, to_ms, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING no",
    )?;
    let no: i64 = insert.query_row(
        (
            block.agent.0,
            cells::bits(block.epoch.0),
            cells::bits(block.first.0),
            block.records,
            skip,
            block.received_at.0,
            block.from.0,
            block.to.0,
            block.bytes.as_ref(),
        ),
        |row| row.get(0),
    )?;
    let mut reach = db.prepare_cached(
        "INSERT INTO block_reach (lane, segment, to_ms) VALUES (0, ?1, ?2)
         ON CONFLICT (lane, segment) DO UPDATE SET to_ms = excluded.to_ms WHERE excluded.to_ms > block_reach.to_ms",
    )?;
    reach.execute((no.div_euclid(SEGMENT), block.to.0))?;
    Ok(())
}

fn move_mark(db: &Connection, new: &Numbered, stream: &Stream) -> db::Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO agent_stream (agent, epoch, acked, records, lost, blocks, bytes, last_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (agent, epoch) DO UPDATE SET acked = excluded.acked, records = excluded.records,
           lost = excluded.lost, blocks = excluded.blocks, bytes = excluded.bytes, last_at = excluded.last_at",
    )?;
    upsert.execute((
        new.block.agent.0,
        cells::bits(new.block.epoch.0),
        cells::bits(stream.acked),
        cells::bits(stream.records),
        cells::bits(stream.lost),
        cells::bits(stream.blocks),
        cells::bits(stream.bytes),
        new.block.received_at.0,
    ))?;
    Ok(())
}

/// Adds the blocks after `after`.
pub(super) fn after(db: &Connection, page: &mut Page, after: &Through) -> db::Result<()> {
    fill(db, page, UtcTime(i64::MIN), after.of(LANE).saturating_add(1), i64::MAX)
}

/// Adds the blocks after `after` that reach `since`, passing over segments in which none does.
pub(super) fn reaching(db: &Connection, page: &mut Page, since: UtcTime, after: &Through) -> db::Result<()> {
    let from = after.of(LANE).saturating_add(1);
    let mut ask =
        db.prepare_cached("SELECT segment FROM block_reach WHERE segment >= ?1 AND to_ms >= ?2 ORDER BY segment")?;
    let mut rows = ask.query((from.div_euclid(SEGMENT), since.0))?;
    while let Some(row) = rows.next()? {
        let start: i64 = row.get::<i64>(0)?.saturating_mul(SEGMENT);
        fill(db, page, since, from.max(start), start.saturating_add(SEGMENT - 1))?;
        if page.is_full() {
            break;
        }
    }
    Ok(())
}

/// The newest block.
pub(super) fn newest(db: &Connection) -> db::Result<Through> {
    let no = db.query_row("SELECT COALESCE(MAX(no), 0) FROM block", (), |row| row.get(0))?;
    Ok(Through::from_iter([BlockId { lane: LANE, no }]))
}

fn fill(db: &Connection, page: &mut Page, since: UtcTime, from: i64, through: i64) -> db::Result<()> {
    let mut ask = db.prepare_cached(
        "SELECT no, agent, epoch, first_seq, records, skip, received_at, from_ms, to_ms, bytes
         FROM block WHERE no BETWEEN ?1 AND ?2 AND to_ms >= ?3 ORDER BY no",
    )?;
    let mut rows = ask.query((from, through, since.0))?;
    while !page.is_full() {
        let Some(row) = rows.next()? else { break };
        page.push(block_row(&row, LANE, 0)?);
    }
    Ok(())
}

/// A block from its columns, `no` in column `at` and the others after it.
pub(in crate::store) fn block_row(row: &Row<'_>, lane: Lane, at: usize) -> db::Result<StoredBlock> {
    Ok(StoredBlock {
        id: BlockId { lane, no: row.get(at)? },
        agent: cells::agent(row, at + 1)?,
        epoch: Epoch(cells::number(row, at + 2)?),
        first: Seq(cells::number(row, at + 3)?),
        records: row.get(at + 4)?,
        skip: row.get(at + 5)?,
        received_at: cells::time(row, at + 6)?,
        from: cells::time(row, at + 7)?,
        to: cells::time(row, at + 8)?,
        bytes: Bytes::copy_from_slice(row.get_ref(at + 9)?.as_blob()?),
    })
}
