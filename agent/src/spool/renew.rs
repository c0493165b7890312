//! Another epoch for the same records: what the spool does when the collector has numbers of it that it never gave out,
//! or that another host gave out under the same identity.
//!
//! That happens after an old copy of the state directory was put back, and to a cloned machine that kept its id. Going on
//! would give numbers away a second time, and new records would pass for repetitions. So every unreleased record is
//! copied into the new epoch, numbered from 1. Some of them the collector may have under the old one: samples are told
//! apart by check and tick, so they count once all the same; an energy reading or two from the time of the copy
//! can be added twice, which is less than losing all that came after it.
//!
//! **Order of writes.** Copies beside the old segments (`.next`), synced; then the cursor, which names the new epoch: from
//! here on a start finishes the move; then the old segments go and the new ones get their names.

use std::collections::BTreeMap;
use std::io;

use peil_proto::ids::{Epoch, Seq};

use super::cursor::Cursor;
use super::record;
use super::segment::{self, HEADER, Header, Segment};
use super::{SeqRange, Spool};

/// A segment of the epoch to come.
pub(super) const NEXT: &str = ".next";

impl Spool {
    /// Begins another epoch with all unreleased records, in order, from sequence 1.
    ///
    /// # Errors
    /// When the disk fails; the old epoch then goes on, and the call can be repeated.
    pub fn renew_epoch(&mut self) -> io::Result<Epoch> {
        self.sync()?;
        let epoch = Epoch(self.disk.random()?);
        let copies = self.copy_into(epoch)?;
        let newest = copies.keys().next_back().copied().unwrap_or(0);
        let durable = copies.values().next_back().map_or(0, |segment| segment.last);
        Cursor { machine: self.machine, epoch, acked: 0, durable, newest, spent: 0 }.save(self.disk.as_ref())?;
        let old = std::mem::replace(&mut self.segments, copies);
        (self.epoch, self.acked, self.acked_on_disk, self.spent) = (epoch, 0, 0, 0);
        (self.durable, self.next, self.unsynced_first) = (durable, durable + 1, durable + 1);
        (self.active, self.place, self.maybe_sent) = (None, None, 0);
        self.reported.clear();
        self.thinned.clear();
        // What fails from here on the next start makes up for: the cursor names the new epoch.
        for segment in old.values() {
            self.disk.remove(&segment::name(segment.first))?;
        }
        for first in self.segments.keys() {
            let name = segment::name(*first);
            self.disk.rename(&format!("{name}{NEXT}"), &name)?;
        }
        self.disk.sync_names()?;
        Ok(epoch)
    }

    fn copy_into(&mut self, epoch: Epoch) -> io::Result<BTreeMap<u64, Segment>> {
        for debris in self.disk.list()?.iter().filter(|entry| entry.name.ends_with(NEXT)) {
            self.disk.remove(&debris.name)?;
        }
        let (mut copies, mut last) = (BTreeMap::new(), 0);
        for segment in self.segments.values() {
            let records = self.records_of(*segment)?;
            let told = u64::try_from(records.len()).unwrap_or(u64::MAX);
            let there = segment.last.saturating_sub(self.acked.max(segment.first - 1));
            if told < there {
                let (first, last) = (segment.last + 1 - there, segment.last - told);
                SeqRange::add(&mut self.dropped, SeqRange { first: Seq(first), last: Seq(last) });
            }
            if records.is_empty() {
                continue;
            }
            let first = last + 1;
            let mut bytes = Header { machine: self.machine, epoch, first, after: last }.to_bytes().to_vec();
            bytes.reserve(usize::try_from(segment.bytes).unwrap_or(HEADER));
            for (seq, payload) in (first..).zip(&records) {
                record::write(&mut bytes, epoch, seq, payload);
                last = seq;
            }
            let file = self.disk.create(&format!("{}{NEXT}", segment::name(first)))?;
            file.write_at(0, &bytes)?;
            file.sync()?;
            copies.insert(first, Segment { after: first - 1, first, last, bytes: bytes.len() as u64 });
        }
        self.disk.sync_names()?;
        Ok(copies)
    }
}
