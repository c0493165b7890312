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
//! Hence always, per stream: `acked = records + lost`, but for jumps of [`SEQ_JUMP`](peil_proto::ids::SEQ_JUMP), which are no loss. A block that comes after a later one is a
//! duplicate; an agent does not do that, and nothing it sends can make a record count twice.
//!
//! Finding the blocks of a month: an index on `to_ms` would cost an entry per block for ever and is asked
//! once per rebuild. Instead one row per 1024 blocks holds the latest moment any of them reaches (a zone
//! map). Blocks come almost in order of time, so old segments are passed over whole, and one stray block
//! costs reading one segment. It works for clocks that are wrong, too: nothing is assumed about
//! `received_at`.

pub mod lane;
pub mod lost;
pub(super) mod place;
pub(super) mod postgres;
pub(super) mod sqlite;

use std::collections::BTreeMap;

use bytes::Bytes;
use peil_proto::ids::{AgentId, Epoch, Seq};
use peil_proto::time::UtcTime;

use super::db::{self, Connection, Engine, OptionalExtension, Row};
use super::{Store, StoreError, cells};
pub use lane::{BlockId, Lane, Through};
use place::{Numbered, Placed, Stream};

/// Blocks behind one row of the zone map.
pub(super) const SEGMENT: i64 = 1024;

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
    /// Newest record the agent said, at its greeting, it was told is stored.
    pub told: Seq,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockStats {
    /// Blocks stored.
    pub blocks: u64,
    /// Records stored.
    pub records: u64,
    /// Records that had numbers and never came.
    pub lost: u64,
    /// Bytes of all blocks.
    pub bytes: u64,
    /// The newest blocks.
    pub newest: Through,
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
        let placed = self.inner.blocks.append(Numbered::new(block)?).await?;
        Ok(match placed {
            Placed::Duplicate { acked } => {
                self.inner.counters.repeated();
                Appended::Duplicate { acked }
            }
            Placed::Stored { last, records, lost } => {
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
        self.read_for_agent("read how far a stream is", move |db| {
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
                totals.records = totals.records.saturating_add(cells::number(&row, 0)?);
                totals.lost = totals.lost.saturating_add(cells::number(&row, 1)?);
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
                db.prepare_cached("SELECT agent, CAST(SUM(records) AS BIGINT), CAST(SUM(lost) AS BIGINT) FROM agent_stream GROUP BY agent")?;
            let mut rows = ask.query(())?;
            let mut totals = BTreeMap::new();
            while let Some(row) = rows.next()? {
                let of_agent = StreamTotals { records: cells::number(&row, 1)?, lost: cells::number(&row, 2)? };
                totals.insert(cells::agent(&row, 0)?, of_agent);
            }
            Ok(totals)
        })
        .await
    }

    /// The blocks stored after `after`, in order of storing within each lane. Empty when there are none yet.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn blocks_after(&self, after: Through, limit: BlockLimit) -> Result<Vec<StoredBlock>, StoreError> {
        self.read("read new blocks", move |db| {
            let mut page = Page::new(limit);
            match db.engine() {
                Engine::Sqlite => sqlite::after(db, &mut page, &after)?,
                Engine::Postgres => postgres::after(db, &mut page, &after)?,
            }
            Ok(page.blocks)
        })
        .await
    }

    /// The blocks stored after `after` in which something is said about `since` or later, in order of
    /// storing within each lane: what a rebuild reads, page by page, until a page is empty.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn blocks_reaching(
        &self,
        since: UtcTime,
        after: Through,
        limit: BlockLimit,
    ) -> Result<Vec<StoredBlock>, StoreError> {
        self.read("read the blocks of a period", move |db| {
            let mut page = Page::new(limit);
            match db.engine() {
                Engine::Sqlite => sqlite::reaching(db, &mut page, since, &after)?,
                Engine::Postgres => postgres::reaching(db, &mut page, since, &after)?,
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
            let mut rows = ask.query(())?;
            let mut stats = BlockStats::default();
            while let Some(row) = rows.next()? {
                stats.blocks = stats.blocks.saturating_add(cells::number(&row, 0)?);
                stats.records = stats.records.saturating_add(cells::number(&row, 1)?);
                stats.lost = stats.lost.saturating_add(cells::number(&row, 2)?);
                stats.bytes = stats.bytes.saturating_add(cells::number(&row, 3)?);
            }
            stats.newest = newest(db)?;
            Ok(stats)
        })
        .await
    }
}

/// The newest block of every lane.
pub(super) fn newest(db: &Connection) -> db::Result<Through> {
    match db.engine() {
        Engine::Sqlite => sqlite::newest(db),
        Engine::Postgres => postgres::newest(db),
    }
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
        !self.blocks.is_empty() && (self.bytes >= self.limit.bytes || self.room() == 0)
    }

    /// Blocks that still fit; at least one while there is none.
    fn room(&self) -> u32 {
        self.limit.blocks.max(1).saturating_sub(u32::try_from(self.blocks.len()).unwrap_or(u32::MAX))
    }

    fn push(&mut self, block: StoredBlock) {
        self.bytes = self.bytes.saturating_add(block.bytes.len());
        self.blocks.push(block);
    }
}

/// A stream's row from five columns, `acked` in column `at`; a stream that never sent has none.
fn stream_row(row: &Row<'_>, at: usize) -> db::Result<Stream> {
    if row.get::<Option<i64>>(at)?.is_none() {
        return Ok(Stream::default());
    }
    Ok(Stream {
        acked: cells::number(row, at)?,
        records: cells::number(row, at + 1)?,
        lost: cells::number(row, at + 2)?,
        blocks: cells::number(row, at + 3)?,
        bytes: cells::number(row, at + 4)?,
    })
}
