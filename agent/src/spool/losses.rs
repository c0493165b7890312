//! What the spool tells about itself: how it started, what it found, what is lost.

use peil_proto::ids::Seq;

/// Sequences from `first` through `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeqRange {
    /// The first.
    pub first: Seq,
    /// The last; not before `first`.
    pub last: Seq,
}

impl SeqRange {
    /// How many sequences.
    pub fn records(self) -> u64 {
        (self.last.0 + 1).saturating_sub(self.first.0)
    }

    /// Adds a range to ranges that are in order and do not touch, and keeps them so.
    pub(super) fn add(ranges: &mut Vec<Self>, mut new: Self) {
        ranges.retain(|old| {
            let apart = old.last.0 + 1 < new.first.0 || new.last.0 + 1 < old.first.0;
            if !apart {
                new = Self { first: new.first.min(old.first), last: new.last.max(old.last) };
            }
            apart
        });
        let at = ranges.partition_point(|old| old.first < new.first);
        ranges.insert(at, new);
    }
}

/// Why the spool began the way it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Beginning {
    /// The epoch found in the directory goes on.
    #[default]
    Continued,
    /// The directory was empty: a new epoch.
    Created,
    /// The directory came from another machine (a clone, a restored image): set aside, a new epoch.
    OtherMachine,
    /// Nothing in the directory told an epoch: set aside, a new epoch.
    NothingReadable,
}

/// What was found where the cursor should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CursorFound {
    /// A good one.
    Read,
    /// None. Everything on disk will be sent again; the collector knows what it has.
    #[default]
    Missing,
    /// Not a cursor any more; as if missing.
    Damaged,
    /// Written by another version; as if missing.
    OtherVersion,
    /// Written on another machine.
    OtherMachine,
}

/// What a start found, and what is lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the epoch goes on.
    pub beginning: Beginning,
    /// The cursor.
    pub cursor: CursorFound,
    /// Whole, unreleased records.
    pub records: u64,
    /// Unreleased sequences that are missing, at most. [`Spool::take_dropped`](super::Spool::take_dropped) tells them, too.
    pub lost: Vec<SeqRange>,
    /// Damaged bytes between or instead of whole records, in bytes of segment files.
    pub damaged_bytes: u64,
    /// Bytes cut off behind the last whole record of the newest segment: torn, damaged or zero.
    pub cut_bytes: u64,
    /// Files that were set aside (renamed to `NAME.aside`), by their old names.
    pub set_aside: Vec<String>,
    /// What could not be done, in words. The spool runs all the same.
    pub trouble: Vec<String>,
}

impl Recovery {
    /// How many records are lost at most.
    pub fn records_lost(&self) -> u64 {
        self.lost.iter().map(|range| range.records()).sum()
    }
}
