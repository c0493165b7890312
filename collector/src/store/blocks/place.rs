//! What is new about a block: the rule of the mark, apart from where marks are kept.

use peil_proto::ids::{AgentId, SEQ_JUMP, Seq};
use peil_proto::time::UtcTime;

use super::NewBlock;
use crate::store::StoreError;

/// A stream's row, or what it would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) acked: u64,
    pub(super) records: u64,
    pub(super) lost: u64,
    pub(super) blocks: u64,
    pub(super) bytes: u64,
}

/// A block with numbers that can be, and the last of them.
#[derive(Debug)]
pub(in crate::store) struct Numbered {
    pub(in crate::store) block: NewBlock,
    pub(in crate::store) last: Seq,
}

/// What became of a block inside the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Placed {
    Stored { last: Seq, records: u64, lost: u64 },
    Duplicate { acked: Seq },
}

/// A block that has something new.
pub(super) struct Placement {
    /// Leading records that are there already.
    pub(super) skip: u32,
    /// New records.
    pub(super) records: u64,
    /// Records found missing before it.
    pub(super) lost: u64,
    /// The stream's row after it.
    pub(super) moved: Stream,
}

impl Numbered {
    /// Refuses numbers that cannot be.
    pub(super) fn new(block: NewBlock) -> Result<Self, StoreError> {
        let refusal = StoreError::BadRange { first: block.first, records: block.records };
        if block.first.0 == 0 || block.records == 0 {
            return Err(refusal);
        }
        let last = block.first.0.checked_add(u64::from(block.records) - 1).map(Seq).ok_or(refusal)?;
        Ok(Self { block, last })
    }
}

impl Stream {
    /// What this block adds to the stream; `None` when all of it was stored before.
    pub(super) fn place(&self, new: &Numbered) -> Option<Placement> {
        let Numbered { block, last } = new;
        if last.0 <= self.acked {
            return None;
        }
        let first = block.first.0;
        // One of the two is always 0. `skip` is less than `records`, because the last record is new.
        let skip = u32::try_from((self.acked + 1).saturating_sub(first)).unwrap_or(0);
        let missing = first.saturating_sub(self.acked + 1);
        let lost = if missing >= SEQ_JUMP { missing - SEQ_JUMP } else { missing };
        let records = u64::from(block.records - skip);
        let moved = Self {
            acked: last.0,
            records: self.records.saturating_add(records),
            lost: self.lost.saturating_add(lost),
            blocks: self.blocks.saturating_add(1),
            bytes: self.bytes.saturating_add(block.bytes.len() as u64),
        };
        Some(Placement { skip, records, lost, moved })
    }
}

/// Whether the agent may send: it is enrolled and was not shut out.
pub(super) fn admit(agent: AgentId, found: Option<Option<UtcTime>>) -> Result<(), StoreError> {
    match found {
        None => Err(StoreError::UnknownAgent(agent)),
        Some(Some(at)) => Err(StoreError::RevokedAgent { agent, at }),
        Some(None) => Ok(()),
    }
}
