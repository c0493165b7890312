//! What is missing between blocks: told once, in the transaction that finds it, with its time and a reason.
//!
//! The count of a stream (`lost`) says how much never came; a row here says which numbers, about when, and why as far as
//! the collector can know. The time of a range is an upper bound: from the last block before it to the first record
//! after it. That time is unknown by itself, because nothing is stored about it; the row explains why.
//!
//! Limits: an agent makes one row per accident, not per record; rows are kept as long as other evidence.

use peil_proto::ids::{AgentId, Epoch, Seq};
use peil_proto::time::UtcTime;

use super::place::{Numbered, Placement};
use crate::store::db::{self, Connection, OptionalExtension};
use crate::store::{Store, StoreError, cells};

/// Why records are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LossReason {
    /// They never came: the agent dropped them or found them damaged, and its own records say which.
    NeverCame,
    /// The agent was told that they are stored, and here they are not: this database was put back from an older copy, or
    /// they were refused.
    AckedBefore,
}

impl LossReason {
    const ALL: [Self; 2] = [Self::NeverCame, Self::AckedBefore];

    /// The word in the database and for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::NeverCame => "never_came",
            Self::AckedBefore => "acked_before",
        }
    }

    /// For people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NeverCame => "dropped or damaged on the host before they were sent",
            Self::AckedBefore => {
                "acked before and missing now: the database was restored from an older copy, or they were refused"
            }
        }
    }

    fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}

/// Records that are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRange {
    /// Whose.
    pub agent: AgentId,
    /// Generation of its spool.
    pub epoch: Epoch,
    /// The newest record before them.
    pub after: Seq,
    /// How many.
    pub lost: u64,
    /// They speak about this time, at most.
    pub from: UtcTime,
    /// Its end.
    pub to: UtcTime,
    /// Why.
    pub reason: LossReason,
    /// When it was noticed.
    pub noticed_at: UtcTime,
}

impl Store {
    /// What was found missing last, newest first.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn lost_ranges(&self, limit: u32) -> Result<Vec<LostRange>, StoreError> {
        self.read("list the records that are missing", move |db| {
            let mut ask = db.prepare_cached(
                "SELECT agent, epoch, after_seq, lost, from_ms, to_ms, reason, noticed_at FROM lost_range
                 ORDER BY noticed_at DESC, agent, epoch, after_seq LIMIT ?1",
            )?;
            let rows = ask.query_map([limit], |row| {
                Ok(LostRange {
                    agent: cells::agent(row, 0)?,
                    epoch: Epoch(cells::number(row, 1)?),
                    after: Seq(cells::number(row, 2)?),
                    lost: cells::number(row, 3)?,
                    from: cells::time(row, 4)?,
                    to: cells::time(row, 5)?,
                    reason: cells::word(row, 6, LossReason::of)?,
                    noticed_at: cells::time(row, 7)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// Notes what is missing before a block, if anything is. Before the mark of its stream moves.
pub(super) fn note(db: &Connection, new: &Numbered, placement: &Placement) -> db::Result<()> {
    if placement.lost == 0 {
        return Ok(());
    }
    let block = &new.block;
    let key = (block.agent.0, cells::bits(block.epoch.0));
    let mut ask = db.prepare_cached("SELECT last_at FROM agent_stream WHERE agent = ?1 AND epoch = ?2")?;
    let heard: Option<i64> = ask.query_row(key, |row| row.get(0)).optional()?;
    let after = block.first.0.saturating_sub(1).saturating_sub(placement.lost);
    let reason = if block.told.0 > after { LossReason::AckedBefore } else { LossReason::NeverCame };
    let mut insert = db.prepare_cached(
        "INSERT INTO lost_range (agent, epoch, after_seq, before_seq, lost, from_ms, to_ms, reason, noticed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (agent, epoch, after_seq) DO NOTHING",
    )?;
    insert.execute((
        block.agent.0,
        cells::bits(block.epoch.0),
        cells::bits(after),
        cells::bits(block.first.0),
        cells::bits(placement.lost),
        heard.map_or(block.from.0, |at| at.min(block.from.0)),
        block.from.0,
        reason.word(),
        block.received_at.0,
    ))?;
    Ok(())
}
