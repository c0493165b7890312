//! Handing out durable records in order, and giving up on what cannot be read.

use std::io;

use peil_proto::ids::Seq;

use super::disk::{self, DiskFile};
use super::record::{self, OVERHEAD, Read};
use super::recover::Search;
use super::segment::{self, HEADER, Segment};
use super::start::aside_name;
use super::{SeqRange, Spool};

/// Bytes read from disk at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// A segment that gives an I/O error this many times in a row is set aside and its records reported
/// lost: a bad sector must not hold up everything behind it.
const TRIES_MAX: u32 = 3;

/// Where the next record stands, so that reading on does not begin at the head of the segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    segment: u64,
    seq: u64,
    offset: u64,
}

/// Reads of one segment that failed in a row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Failing {
    segment: u64,
    times: u32,
}

/// What one call has collected and may still collect.
struct Basket {
    records: Vec<(Seq, Vec<u8>)>,
    records_max: usize,
    bytes_left: usize,
}

impl Basket {
    /// Whether a record of this size may still go in; the first always may.
    fn takes(&self, bytes: usize) -> bool {
        self.records.is_empty() || (self.records.len() < self.records_max && bytes <= self.bytes_left)
    }

    fn put(&mut self, seq: u64, payload: &[u8]) {
        self.bytes_left = self.bytes_left.saturating_sub(payload.len());
        self.records.push((Seq(seq), payload.to_vec()));
    }
}

impl Spool {
    /// Durable, unreleased records after `after`, in order: at most `records_max`, and at most
    /// `bytes_max` bytes of payload, save that one record is always handed out when there is one.
    /// A record that turns out to be damaged is left out and told once by
    /// [`take_dropped`](Self::take_dropped).
    ///
    /// # Errors
    /// When a segment cannot be read. Calling again is right: after three failures in a row the
    /// segment is set aside, and its records are reported like damaged ones.
    pub fn read_after(&mut self, after: Seq, records_max: usize, bytes_max: usize) -> io::Result<Vec<(Seq, Vec<u8>)>> {
        let mut basket = Basket { records: Vec::new(), records_max, bytes_left: bytes_max };
        let mut wanted = after.0.max(self.acked).saturating_add(1);
        if records_max == 0 {
            return Ok(Vec::new());
        }
        while let Some(segment) = self.segments.values().find(|segment| segment.last >= wanted).copied() {
            match self.read_segment(segment, wanted, &mut basket) {
                Ok(Filled::AtEnd) => wanted = segment.last + 1,
                Ok(Filled::Full) => break,
                // What was collected is good; the error comes back with the next call.
                Err(_) if !basket.records.is_empty() => break,
                Err(e) => {
                    self.count_failure(segment, &e);
                    return Err(e);
                }
            }
            self.failing = Failing::default();
        }
        let newest = basket.records.last().map_or(0, |(seq, _)| seq.0);
        self.maybe_sent = self.maybe_sent.max(newest);
        Ok(basket.records)
    }

    /// Collects from one segment, from `wanted` on.
    fn read_segment(&mut self, segment: Segment, wanted: u64, basket: &mut Basket) -> io::Result<Filled> {
        let file = self.disk.open(&segment::name(segment.first))?;
        let (mut seq, mut offset) = match self.place {
            Some(place) if place.segment == segment.first && place.seq <= wanted => (place.seq, place.offset),
            _ => (segment.first, HEADER as u64),
        };
        let mut block_bytes = BLOCK_BYTES;
        while seq <= segment.last {
            let rest = usize::try_from(segment.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
            let block = disk::read_from(file.as_ref(), offset, rest.min(block_bytes))?;
            // Somebody cut the file: what is behind its end is damaged, not still to be read.
            let rest = if block.len() < rest.min(block_bytes) { block.len() } else { rest };
            let mut at = 0;
            while seq <= segment.last {
                match record::read(self.epoch, &block[at..], seq..=seq) {
                    Read::Whole { payload, bytes, .. } => {
                        if seq >= wanted {
                            if !basket.takes(payload.len()) {
                                self.place = Some(Place { segment: segment.first, seq, offset: offset + at as u64 });
                                return Ok(Filled::Full);
                            }
                            basket.put(seq, payload);
                        }
                        (at, seq) = (at + bytes, seq + 1);
                    }
                    // The block ends before the record does.
                    Read::Cut { bytes } if bytes <= rest - at => {
                        block_bytes = BLOCK_BYTES.max(bytes);
                        break;
                    }
                    Read::Other if at == block.len() && at < rest => break,
                    Read::Cut { .. } | Read::Damaged { .. } | Read::Other => {
                        let damaged = offset + at as u64;
                        let Some((next, start)) = self.skip_damage(file.as_ref(), segment, seq, damaged)? else {
                            self.note_lost(seq, segment.last);
                            return Ok(Filled::AtEnd);
                        };
                        self.note_lost(seq, next - 1);
                        (seq, at) = (next, 0);
                        offset = start;
                        break;
                    }
                }
            }
            if at > 0 {
                offset += at as u64;
            }
        }
        self.place = Some(Place { segment: segment.first, seq, offset });
        Ok(Filled::AtEnd)
    }

    /// Sequence and offset of the next whole record after the damage at `damaged`, where `expected`
    /// should have stood.
    fn skip_damage(
        &self,
        file: &dyn DiskFile,
        segment: Segment,
        expected: u64,
        damaged: u64,
    ) -> io::Result<Option<(u64, u64)>> {
        let rest = usize::try_from(segment.bytes.saturating_sub(damaged)).unwrap_or(usize::MAX);
        let bytes = disk::read_from(file, damaged, rest)?;
        if bytes.len() < OVERHEAD {
            return Ok(None);
        }
        let found = Search::new(self.epoch, &bytes).next_whole(0, expected, segment.last + 1);
        Ok(found.map(|(start, seq, _)| (seq, damaged + start as u64)))
    }

    /// Counts a failed read, and gives up on the segment when there were enough of them or it is gone.
    fn count_failure(&mut self, segment: Segment, why: &io::Error) {
        let times = if self.failing.segment == segment.first { self.failing.times + 1 } else { 1 };
        self.failing = Failing { segment: segment.first, times };
        if times < TRIES_MAX && why.kind() != io::ErrorKind::NotFound {
            return;
        }
        let name = segment::name(segment.first);
        // If this fails as well the next start finds the file and tries again.
        let _ = self.disk.rename(&name, &aside_name(self.disk.as_ref(), &name));
        if self.segments.keys().next_back() == Some(&segment.first) {
            self.active = None;
        }
        self.segments.remove(&segment.first);
        self.note_lost(segment.first, segment.last);
    }

    /// Reports a range as lost, once: what was released or reported before is left out.
    pub(super) fn note_lost(&mut self, first: u64, last: u64) {
        let mut from = first.max(self.acked + 1);
        for known in &self.reported {
            if known.last.0 < from {
                continue;
            }
            if known.first.0 > last {
                break;
            }
            if from < known.first.0 {
                SeqRange::add(&mut self.dropped, SeqRange { first: Seq(from), last: Seq(known.first.0 - 1) });
            }
            from = known.last.0 + 1;
        }
        if from <= last {
            SeqRange::add(&mut self.dropped, SeqRange { first: Seq(from), last: Seq(last) });
        }
        SeqRange::add(&mut self.reported, SeqRange { first: Seq(first), last: Seq(last) });
    }
}

/// Why reading a segment ended.
enum Filled {
    /// The basket is full.
    Full,
    /// Everything in the segment has been seen.
    AtEnd,
}
