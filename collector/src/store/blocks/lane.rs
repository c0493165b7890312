//! Lanes: the log of blocks is one in SQLite and 256 on PostgreSQL, by agent.
//!
//! Within a lane blocks have dense numbers in the order in which they were committed, so "everything after this number"
//! is a question with one answer, and one collector at a time can own what is derived from it. Across lanes there is
//! no order, and none is needed: what is derived from an agent's records needs only that agent's order.
//!
//! One lane would do for the rate; it would make collectors wait for each other's commits. In SQLite there is one
//! writer anyway, and one place to append to is what keeps the bytes written down (`README.md`).

use std::collections::BTreeMap;

use peil_proto::ids::AgentId;

/// Lanes on PostgreSQL: shards of agents.
pub const LANES: u16 = 256;

/// A part of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u16);

/// Place of a block: its lane, and its number there, from 1, rising, never used twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// Which part of the log.
    pub lane: Lane,
    /// Place in it.
    pub no: i64,
}

impl std::fmt::Display for BlockId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.lane.0, self.no)
    }
}

/// A cut through the log: in each lane everything through one number. The unit of watermarks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Through(BTreeMap<Lane, i64>);

impl Through {
    /// Nothing yet.
    pub const NOTHING: Self = Self(BTreeMap::new());

    /// The last number of a lane that is inside; 0 for none.
    pub fn of(&self, lane: Lane) -> i64 {
        self.0.get(&lane).copied().unwrap_or(0)
    }

    /// Whether this block is inside.
    pub fn covers(&self, id: BlockId) -> bool {
        id.no <= self.of(id.lane)
    }

    /// Whether all of `other` is inside.
    pub fn covers_all(&self, other: &Self) -> bool {
        other.lanes().all(|(lane, no)| no <= self.of(lane))
    }

    /// Takes this block, and what stands before it in its lane, inside. Never moves back.
    pub fn pass(&mut self, id: BlockId) {
        let through = self.0.entry(id.lane).or_default();
        *through = (*through).max(id.no);
    }

    /// Every lane of which something is inside.
    pub fn lanes(&self) -> impl Iterator<Item = (Lane, i64)> {
        self.0.iter().map(|(lane, no)| (*lane, *no))
    }

    /// How many blocks are inside, when none was removed.
    pub fn blocks(&self) -> i64 {
        self.0.values().sum()
    }
}

impl FromIterator<BlockId> for Through {
    fn from_iter<I: IntoIterator<Item = BlockId>>(ids: I) -> Self {
        let mut through = Self::default();
        ids.into_iter().for_each(|id| through.pass(id));
        through
    }
}

/// The lane of an agent on PostgreSQL. Fixed for ever: rows are kept by it.
pub(in crate::store) fn lane_of(agent: AgentId) -> Lane {
    // FNV-1a, folded to eight bits. Ids are random already; this takes care of those a test makes.
    let hash = agent
        .0
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let folded = hash ^ (hash >> 32);
    let folded = folded ^ (folded >> 16);
    Lane(u16::from((folded ^ (folded >> 8)).to_le_bytes()[0]))
}
