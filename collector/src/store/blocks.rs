//! Blocks as they came, and how far each stream is: exactly once, whatever the network repeats.
//!
//! The agent sends its records in order of sequence and sends again what was not acked. So one number per
//! (agent, epoch) is enough to tell new from old: the high-water mark, which moves in the transaction that
//! stores the block.
//!
//! ```text
//! last record ≤ mark          Duplicate: nothing is stored, the mark is acked again
//! first ≤ mark < last         Stored with `skip` = the leading records that are there already
//! first = mark + 1            Stored
//! first > mark + 1            Stored; the records between are counted as lost, for they will never come:
//!                             the agent has dropped them, or its ack was from a database since restored
//! ```
//!
//! Hence always, per stream: `acked = records + lost`, but for jumps of [`SEQ_JUMP`], which are no loss. A block that comes after a later one is a
//! duplicate; an agent does not do that, and nothing it sends can make a record count twice.
//!
//! Finding the blocks of a month: an index on `to_ms` would cost an entry per block for ever and is asked
//! once per rebuild. Instead one row per 1024 blocks holds the latest moment any of them reaches (a zone
//! map). Blocks come almost in order of time, so old segments are passed over whole, and one stray block
//! costs reading one segment. It works for clocks that are wrong, too: nothing is assumed about
//! `received_at`.

use std::collections::BTreeMap;

use bytes::Bytes;
use peil_proto::ids::{AgentId, Epoch, SEQ_JUMP, Seq};
use peil_proto::time::UtcTime;
use rusqlite::{Connection, OptionalExtension, Row};

use super::error::Fault;
use super::{Store, StoreError, cells};

/// Blocks behind one row of the zone map.
const SEGMENT: i64 = 1024;

/// Place of a block in the order of storing: from 1, rising, never used twice. The unit of watermarks;
/// 0 stands before all blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub i64);

/// A checked block that came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBlock {
    /// From its certificate.
    pub agent: AgentId,
    /// Generation of its spool.
    pub epoch: Epoch,
    /// Sequence of the first record, from 1.
    pub first: Seq,
    /// How many records, at least 1.
    pub records: u32,
    /// When it came.
    pub received_at: UtcTime,
    /// Earliest moment any record speaks about.
    pub from: UtcTime,
    /// Latest moment any record speaks about.
    pub to: UtcTime,
    /// The block as it came.
    pub bytes: Bytes,
}

/// What became of a block. In both cases `acked` is what to tell the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is on the disk, its new records count.
    Stored {
        /// The mark now.
        acked: Seq,
        /// Records found missing before this block.
        lost: u64,
    },
    /// All of it was stored before.
    Duplicate {
        /// The mark, unmoved.
        acked: Seq,
    },
}

/// A block from the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlock {
    /// Its place.
    pub id: BlockId,
    /// Who sent it.
    pub agent: AgentId,
    /// Generation of its spool.
    pub epoch: Epoch,
    /// Sequence of the first record in `bytes`.
    pub first: Seq,
    /// Records in `bytes`.
    pub records: u32,
    /// Leading records that an earlier block holds: pass over them.
    pub skip: u32,
    /// When it came.
    pub received_at: UtcTime,
    /// Earliest moment any record speaks about.
    pub from: UtcTime,
    /// Latest moment any record speaks about.
    pub to: UtcTime,
    /// The block as it came.
    pub bytes: Bytes,
}

/// What one agent's streams came to, over all epochs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamTotals {
    /// Records stored.
    pub records: u64,
    /// Records that had numbers and never came.
    pub lost: u64,
}

/// What all streams came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockStats {
    /// Blocks stored.
    pub blocks: u64,
    /// Records stored.
    pub records: u64,
    /// Records that had numbers and never came.
    pub lost: u64,
    /// Bytes of all blocks.
    pub bytes: u64,
    /// The newest block.
    pub newest: BlockId,
}

/// How much a reader of blocks wants at a time. At least one block comes, however large.
#[derive(Debug, Clone, Copy)]
pub struct BlockLimit {
    /// Blocks at most.
    pub blocks: u32,
    /// Reading stops after the block that reaches this.
    pub bytes: usize,
}

impl Default for BlockLimit {
    /// 4096 blocks or 8 MiB: half a million results, a few milliseconds of reading.
    fn default() -> Self {
        Self { blocks: 4096, bytes: 8 << 20 }
    }
}

impl Store {
    /// Stores a block and moves its stream's mark in one transaction; answers after the commit. Repeating
    /// it is safe: a block is stored once.
    ///
    /// # Errors
    /// [`StoreError::UnknownAgent`], [`StoreError::RevokedAgent`], [`StoreError::BadRange`];
    /// [`StoreError::Full`], [`StoreError::Busy`] or [`StoreError::Write`] with nothing written.
    pub async fn append(&self, block: NewBlock) -> Result<Appended, StoreError> {
        let last = last_of(&block)?;
        let placed = self.inner.writer.together("store a block", move |db| append(db, &block, last)).await?;
        Ok(match placed {
            Placed::Duplicate { acked } => {
                self.inner.counters.repeated();
                Appended::Duplicate { acked }
            }
            Placed::Stored { records, lost } => {
                self.inner.counters.stored(records, lost);
                Appended::Stored { acked: last, lost }
            }
        })
    }

    /// How far this stream is stored; 0 for one that never sent.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn acked(&self, agent: AgentId, epoch: Epoch) -> Result<Seq, StoreError> {
        self.read("read how far a stream is", move |db| {
            let mut ask = db.prepare_cached("SELECT acked FROM agent_stream WHERE agent = ?1 AND epoch = ?2")?;
            let acked = ask.query_row((agent.0, cells::bits(epoch.0)), |row| cells::number(row, 0)).optional()?;
            Ok(Seq(acked.unwrap_or(0)))
        })
        .await
    }

    /// What came from this agent in all.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn stream_totals(&self, agent: AgentId) -> Result<StreamTotals, StoreError> {
        self.read("read the totals of an agent", move |db| {
            let mut ask = db.prepare_cached("SELECT records, lost FROM agent_stream WHERE agent = ?1")?;
            let mut rows = ask.query([agent.0])?;
            let mut totals = StreamTotals::default();
            while let Some(row) = rows.next()? {
                totals.records = totals.records.saturating_add(cells::number(row, 0)?);
                totals.lost = totals.lost.saturating_add(cells::number(row, 1)?);
            }
            Ok(totals)
        })
        .await
    }

    /// What every agent's streams came to.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn totals_by_agent(&self) -> Result<BTreeMap<AgentId, StreamTotals>, StoreError> {
        self.read("read the totals of all agents", |db| {
            let mut ask =
                db.prepare_cached("SELECT agent, SUM(records), SUM(lost) FROM agent_stream GROUP BY agent")?;
            let mut rows = ask.query([])?;
            let mut totals = BTreeMap::new();
            while let Some(row) = rows.next()? {
                let of_agent = StreamTotals { records: cells::number(row, 1)?, lost: cells::number(row, 2)? };
                totals.insert(cells::agent(row, 0)?, of_agent);
            }
            Ok(totals)
        })
        .await
    }

    /// The blocks stored after `after`, in order of storing. Empty when there are none yet.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn blocks_after(&self, after: BlockId, limit: BlockLimit) -> Result<Vec<StoredBlock>, StoreError> {
        self.read("read new blocks", move |db| {
            let mut page = Page::new(limit);
            page.fill(db, UtcTime(i64::MIN), after.0.saturating_add(1), i64::MAX)?;
            Ok(page.blocks)
        })
        .await
    }

    /// The blocks stored after `after` in which something is said about `since` or later, in order of
    /// storing: what a rebuild reads, page by page, until a page is empty.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn blocks_reaching(
        &self,
        since: UtcTime,
        after: BlockId,
        limit: BlockLimit,
    ) -> Result<Vec<StoredBlock>, StoreError> {
        self.read("read the blocks of a period", move |db| {
            let mut page = Page::new(limit);
            let from = after.0.saturating_add(1);
            let mut ask = db.prepare_cached(
                "SELECT segment FROM block_reach WHERE segment >= ?1 AND to_ms >= ?2 ORDER BY segment",
            )?;
            let mut rows = ask.query((from.div_euclid(SEGMENT), since.0))?;
            while let Some(row) = rows.next()? {
                let start: i64 = row.get::<_, i64>(0)?.saturating_mul(SEGMENT);
                page.fill(db, since, from.max(start), start.saturating_add(SEGMENT - 1))?;
                if page.is_full() {
                    break;
                }
            }
            Ok(page.blocks)
        })
        .await
    }

    /// What all streams came to. Reads one small row per stream, never the blocks.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn block_stats(&self) -> Result<BlockStats, StoreError> {
        self.read("read the totals of the store", |db| {
            let mut ask = db.prepare_cached("SELECT blocks, records, lost, bytes FROM agent_stream")?;
            let mut rows = ask.query([])?;
            let mut stats = BlockStats::default();
            while let Some(row) = rows.next()? {
                stats.blocks = stats.blocks.saturating_add(cells::number(row, 0)?);
                stats.records = stats.records.saturating_add(cells::number(row, 1)?);
                stats.lost = stats.lost.saturating_add(cells::number(row, 2)?);
                stats.bytes = stats.bytes.saturating_add(cells::number(row, 3)?);
            }
            stats.newest = BlockId(db.query_row("SELECT COALESCE(MAX(id), 0) FROM block", [], |row| row.get(0))?);
            Ok(stats)
        })
        .await
    }
}

/// Sequence of the last record, or the refusal of numbers that cannot be.
fn last_of(block: &NewBlock) -> Result<Seq, StoreError> {
    let refusal = StoreError::BadRange { first: block.first, records: block.records };
    if block.first.0 == 0 || block.records == 0 {
        return Err(refusal);
    }
    block.first.0.checked_add(u64::from(block.records) - 1).map(Seq).ok_or(refusal)
}

enum Placed {
    Stored { records: u64, lost: u64 },
    Duplicate { acked: Seq },
}

/// A stream's row, or what it would be.
#[derive(Default)]
struct Stream {
    acked: u64,
    records: u64,
    lost: u64,
    blocks: u64,
    bytes: u64,
}

fn append(db: &Connection, block: &NewBlock, last: Seq) -> Result<Placed, Fault> {
    let stream = admitted_stream(db, block.agent, block.epoch)?;
    if last.0 <= stream.acked {
        return Ok(Placed::Duplicate { acked: Seq(stream.acked) });
    }
    let first = block.first.0;
    // One of the two is always 0. `skip` is less than `records`, because the last record is new.
    let skip = u32::try_from((stream.acked + 1).saturating_sub(first)).unwrap_or(0);
    let missing = first.saturating_sub(stream.acked + 1);
    let lost = if missing >= SEQ_JUMP { missing - SEQ_JUMP } else { missing };
    insert_block(db, block, skip)?;
    let records = u64::from(block.records - skip);
    let moved = Stream {
        acked: last.0,
        records: stream.records.saturating_add(records),
        lost: stream.lost.saturating_add(lost),
        blocks: stream.blocks.saturating_add(1),
        bytes: stream.bytes.saturating_add(block.bytes.len() as u64),
    };
    move_mark(db, block, &moved)?;
    Ok(Placed::Stored { records, lost })
}

/// The stream's row when the agent may send, in one look-up.
fn admitted_stream(db: &Connection, agent: AgentId, epoch: Epoch) -> Result<Stream, Fault> {
    let mut ask = db.prepare_cached(
        "SELECT a.revoked_at, s.acked, s.records, s.lost, s.blocks, s.bytes
         FROM agent a LEFT JOIN agent_stream s ON s.agent = a.agent AND s.epoch = ?2 WHERE a.agent = ?1",
    )?;
    let found = ask
        .query_row((agent.0, cells::bits(epoch.0)), |row| {
            let revoked_at = cells::time_or_none(row, 0)?;
            if row.get::<_, Option<i64>>(1)?.is_none() {
                return Ok((revoked_at, Stream::default()));
            }
            let stream = Stream {
                acked: cells::number(row, 1)?,
                records: cells::number(row, 2)?,
                lost: cells::number(row, 3)?,
                blocks: cells::number(row, 4)?,
                bytes: cells::number(row, 5)?,
            };
            Ok((revoked_at, stream))
        })
        .optional()?;
    match found {
        None => Err(StoreError::UnknownAgent(agent).into()),
        Some((Some(at), _)) => Err(StoreError::RevokedAgent { agent, at }.into()),
        Some((None, stream)) => Ok(stream),
    }
}

fn insert_block(db: &Connection, block: &NewBlock, skip: u32) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO block (agent, epoch, first_seq, records, skip, received_at, from_ms, to_ms, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let id = insert.insert((
        block.agent.0,
        cells::bits(block.epoch.0),
        cells::bits(block.first.0),
        block.records,
        skip,
        block.received_at.0,
        block.from.0,
        block.to.0,
        block.bytes.as_ref(),
    ))?;
    let mut reach = db.prepare_cached(
        "INSERT INTO block_reach (segment, to_ms) VALUES (?1, ?2)
         ON CONFLICT (segment) DO UPDATE SET to_ms = excluded.to_ms WHERE excluded.to_ms > block_reach.to_ms",
    )?;
    reach.execute((id.div_euclid(SEGMENT), block.to.0))?;
    Ok(())
}

fn move_mark(db: &Connection, block: &NewBlock, stream: &Stream) -> rusqlite::Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO agent_stream (agent, epoch, acked, records, lost, blocks, bytes, last_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (agent, epoch) DO UPDATE SET acked = excluded.acked, records = excluded.records,
           lost = excluded.lost, blocks = excluded.blocks, bytes = excluded.bytes, last_at = excluded.last_at",
    )?;
    upsert.execute((
        block.agent.0,
        cells::bits(block.epoch.0),
        cells::bits(stream.acked),
        cells::bits(stream.records),
        cells::bits(stream.lost),
        cells::bits(stream.blocks),
        cells::bits(stream.bytes),
        block.received_at.0,
    ))?;
    Ok(())
}

/// Blocks being gathered up to a limit.
struct Page {
    limit: BlockLimit,
    bytes: usize,
    blocks: Vec<StoredBlock>,
}

impl Page {
    fn new(limit: BlockLimit) -> Self {
        Self { limit, bytes: 0, blocks: Vec::new() }
    }

    fn is_full(&self) -> bool {
        !self.blocks.is_empty()
            && (self.bytes >= self.limit.bytes || self.blocks.len() >= self.limit.blocks.max(1) as usize)
    }

    /// Adds the blocks with ids in `[from, through]` that reach `since`.
    fn fill(&mut self, db: &Connection, since: UtcTime, from: i64, through: i64) -> rusqlite::Result<()> {
        let mut ask = db.prepare_cached(
            "SELECT id, agent, epoch, first_seq, records, skip, received_at, from_ms, to_ms, bytes
             FROM block WHERE id BETWEEN ?1 AND ?2 AND to_ms >= ?3 ORDER BY id",
        )?;
        let mut rows = ask.query((from, through, since.0))?;
        while !self.is_full() {
            let Some(row) = rows.next()? else { break };
            let block = stored_block(row)?;
            self.bytes = self.bytes.saturating_add(block.bytes.len());
            self.blocks.push(block);
        }
        Ok(())
    }
}

fn stored_block(row: &Row<'_>) -> rusqlite::Result<StoredBlock> {
    Ok(StoredBlock {
        id: BlockId(row.get(0)?),
        agent: cells::agent(row, 1)?,
        epoch: Epoch(cells::number(row, 2)?),
        first: Seq(cells::number(row, 3)?),
        records: row.get(4)?,
        skip: row.get(5)?,
        received_at: cells::time(row, 6)?,
        from: cells::time(row, 7)?,
        to: cells::time(row, 8)?,
        bytes: Bytes::from(row.get::<_, Vec<u8>>(9)?),
    })
}
