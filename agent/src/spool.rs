//! The spool: a bounded queue of opaque records on disk, between a probe's result and the
//! collector's acknowledgement. It knows nothing about what the records mean.
//!
//! **What it promises.** A record is durable once [`Spool::sync`] has returned; it is handed out by
//! [`Spool::read_after`] only then, in the order of appending, until it is released. A stop at any
//! point (kill, power) loses only records that were not yet synced. Whatever lies in the directory,
//! the spool starts.
//!
//! **What it assumes of the disk.** After `fdatasync` bytes stay, after `fsync` of the directory
//! names stay, and a rename is atomic. Writes that were not synced may be there after a crash or
//! not, in any order, in part, or as zeros. Bits may flip at rest; that costs the records they are in.
//!
//! **How.** Records are framed into a buffer in memory; `sync` writes the buffer behind what is
//! durable in the newest segment, or into a new one, and makes it durable. If that fails, the buffer
//! stays and the next `sync` writes it whole again, into a *new* segment: after a failed fsync the
//! kernel may have dropped the pages, so nothing written before it is believed. The cursor file is
//! replaced before segments are removed or begun ([`cursor`]). Byte layouts: README of `spool/`.
//!
//! **Sequences** go up by one and are never given out twice for two records that could both have
//! left the agent. Records in memory have not left it, so after a plain crash their numbers are used
//! again. But where durable records can no longer be read at the *end* of the spool (torn or damaged
//! tail, vanished segment, lost cursor), their number is unknown and the collector may have seen
//! them: then the sequence jumps ahead by more than a segment can hold (2^20), into a new segment. The
//! jump is written down before the evidence for it is cleared away. A jump is no loss:
//! each segment's header says which sequence was the newest in use before it. Not noticed, because
//! nothing on disk tells: a newest segment that somebody shortened exactly between two records, and
//! an old copy of the whole directory put back; the collector sees such a rewind by its marks, and then the spool goes on
//! under another epoch ([`Spool::renew_epoch`]).
//!
//! **Losses** are told as ranges: by [`Recovery`] and once more by [`Spool::take_dropped`], which the
//! caller turns into Gap records. A range in the unreleased part is told again after a restart,
//! because nobody knows whether the caller got round to it: gaps are idempotent, silence is not. A range says
//! what is missing *at most*: it may include records that were never synced.
//!
//! **Limits** ([`Limits`]). Full: oldest first, routine is folded together, then only trouble is kept, then the segment
//! goes ([`room`]). Free space on the file system low and nothing left to fold, or writing fails: `sync` says so and nothing on disk is touched; `append` goes on
//! until the buffer ([`UNSYNCED_BYTES_MAX`]) is full and then refuses; the caller keeps newer records
//! in its own ring and tries again. One process at a time (advisory lock).
//!
//! **Not done here**: no thread and no timer (how often to sync is the caller's rhythm), no
//! compression, no encryption; what may be folded together is for the [`Digest`] to say. A segment that is deleted under a running agent loses
//! what it held. All calls block on the disk: call from a blocking thread.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use peil_proto::ids::{Epoch, Seq};

use cursor::Cursor;
use disk::{Disk, DiskFile, Held, RealDir};
use segment::{HEADER, Header, Segment};

pub use error::{AppendError, OpenError};
pub use losses::{Beginning, CursorFound, Recovery, SeqRange};
pub use room::{Digest, Thin};

mod cursor;
mod disk;
mod error;
pub mod inspect;
mod losses;
mod read;
mod record;
pub mod recover;
mod renew;
mod room;
mod segment;
mod start;
#[cfg(test)]
mod tests;

/// Appended bytes held in memory while they are not durable. When reached, `append` syncs first; if
/// that fails, it refuses the record.
pub const UNSYNCED_BYTES_MAX: usize = 1 << 20;

/// Memory the buffer keeps after a sync.
const UNSYNCED_BYTES_KEPT: usize = 64 << 10;

/// Smallest and largest segment; other values are held to these. The upper bound makes sure that no
/// segment has more records than the sequence jumps.
const SEGMENT_BYTES: std::ops::RangeInclusive<u32> = 256..=16 << 20;

/// How much the spool may hold. Values that do not fit together are held to what does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Segments on disk in all. When reached the oldest segment is dropped and its range reported.
    pub bytes_max: u64,
    /// One segment, 256 B to 16 MiB, at most half of `bytes_max`. When reached a new one is begun.
    pub segment_bytes: u32,
    /// One record, at most what fits in a segment. A larger one is refused.
    pub record_bytes_max: u32,
    /// Bytes left to others on the file system. When fewer are free, `sync` fails with `StorageFull`.
    pub keep_free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 64 << 20, segment_bytes: 4 << 20, record_bytes_max: 1 << 20, keep_free_bytes: 64 << 20 }
    }
}

impl Limits {
    fn held(self) -> Self {
        let half = u32::try_from(self.bytes_max / 2).unwrap_or(u32::MAX);
        let segment_bytes = self.segment_bytes.min(half).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
        let room = segment_bytes - u32::try_from(HEADER + record::OVERHEAD).unwrap_or(u32::MAX);
        Self {
            bytes_max: self.bytes_max.max(2 * u64::from(segment_bytes)),
            segment_bytes,
            record_bytes_max: self.record_bytes_max.min(room),
            keep_free_bytes: self.keep_free_bytes,
        }
    }
}

/// See the [module](self).
pub struct Spool {
    disk: Box<dyn Disk>,
    limits: Limits,
    machine: u64,
    epoch: Epoch,
    /// By first sequence, oldest first. All that is in them is durable.
    segments: BTreeMap<u64, Segment>,
    /// The newest of `segments`, open for appending; `None`: the next sync begins a new one.
    active: Option<Box<dyn DiskFile>>,
    /// Framed records that are not durable.
    unsynced: Vec<u8>,
    /// Sequence of the first of them.
    unsynced_first: u64,
    next: u64,
    durable: u64,
    acked: u64,
    spent: u64,
    /// What the cursor file says was acked.
    acked_on_disk: u64,
    /// Lost, not yet taken by the caller.
    dropped: Vec<SeqRange>,
    /// Lost and told: in order, apart.
    reported: Vec<SeqRange>,
    place: Option<read::Place>,
    failing: read::Failing,
    /// Who knows what records mean, when room must be made.
    digest: Option<Box<dyn Digest>>,
    /// Records through this sequence may have reached the collector, acked or not.
    maybe_sent: u64,
    /// Segments that were thinned since the start, by first sequence.
    thinned: BTreeMap<u64, room::Thinned>,
}

impl Spool {
    /// Opens the spool in `dir`, making the directory (0700) when needed. `machine_id` is whatever
    /// tells this machine from a clone of it; only a fingerprint is stored.
    ///
    /// # Errors
    /// Only when the directory cannot be made or listed, is in use, or no epoch can be chosen. Nothing
    /// that lies in the directory is an error: see [`Recovery`].
    pub fn open(dir: &Path, machine_id: &str, limits: Limits) -> Result<(Self, Recovery), OpenError> {
        match RealDir::hold(dir) {
            Ok(Held::Ours(disk)) => Self::open_on(Box::new(disk), machine_id, limits),
            Ok(Held::InUse) => Err(OpenError::InUse { path: dir.to_owned() }),
            Err(source) => Err(OpenError::Make { path: dir.to_owned(), source }),
        }
    }

    fn open_on(disk: Box<dyn Disk>, machine_id: &str, limits: Limits) -> Result<(Self, Recovery), OpenError> {
        let limits = limits.held();
        let machine = fingerprint(machine_id);
        let start = start::start(disk.as_ref(), machine, &limits)?;
        let next = start.next();
        let spool = Self {
            disk,
            limits,
            machine,
            epoch: start.epoch,
            segments: start.segments,
            active: start.active,
            unsynced: Vec::new(),
            unsynced_first: next,
            next,
            durable: start.durable,
            acked: start.acked,
            spent: start.spent,
            acked_on_disk: start.acked,
            dropped: start.recovery.lost.clone(),
            reported: start.recovery.lost.clone(),
            place: None,
            failing: read::Failing::default(),
            digest: None,
            maybe_sent: 0,
            thinned: BTreeMap::new(),
        };
        Ok((spool, start.recovery))
    }

    /// The generation: random, made with the directory, bound to the machine.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Released through this sequence.
    pub fn acked(&self) -> Seq {
        Seq(self.acked)
    }

    /// Newest sequence in use, durable or not.
    pub fn last(&self) -> Seq {
        Seq(if self.unsynced.is_empty() { self.durable } else { self.next - 1 })
    }

    /// Newest durable sequence.
    pub fn durable(&self) -> Seq {
        Seq(self.durable)
    }

    /// Bytes in segment files.
    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// Ranges lost to a full spool or to damage since the last call.
    #[must_use]
    pub fn take_dropped(&mut self) -> Vec<SeqRange> {
        std::mem::take(&mut self.dropped)
    }

    /// Takes a record. Durable after [`sync`](Self::sync); when the buffer is full that happens here.
    ///
    /// # Errors
    /// When the record is too large, or the buffer is full and cannot be written: see [`AppendError`].
    pub fn append(&mut self, payload: &[u8]) -> Result<Seq, AppendError> {
        if payload.len() > self.limits.record_bytes_max as usize {
            return Err(AppendError::TooLarge { bytes: payload.len(), max: self.limits.record_bytes_max });
        }
        let buffer_max = UNSYNCED_BYTES_MAX.min(self.limits.segment_bytes as usize - HEADER);
        if !self.unsynced.is_empty() && self.unsynced.len() + record::OVERHEAD + payload.len() > buffer_max {
            self.sync().map_err(|source| match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppendError::NoSpace { source },
                _ => AppendError::Write { source },
            })?;
        }
        let seq = self.next;
        record::write(&mut self.unsynced, self.epoch, seq, payload);
        self.next += 1;
        Ok(Seq(seq))
    }

    /// Makes everything appended so far durable, and says through which sequence.
    ///
    /// # Errors
    /// When the disk is full or fails. Nothing is lost: what was appended stays in memory and the next
    /// call writes all of it again.
    pub fn sync(&mut self) -> io::Result<Seq> {
        if self.unsynced.is_empty() {
            return Ok(Seq(self.durable));
        }
        self.leave_room_to_others()?;
        self.make_room_if_full()?;
        let newest = self.segments.values().next_back().copied();
        let grown = |segment: Segment| segment.bytes + self.unsynced.len() as u64;
        match (self.active.take(), newest) {
            (Some(file), Some(segment)) if grown(segment) <= u64::from(self.limits.segment_bytes) => {
                self.extend(file, segment)?;
            }
            _ => self.begin_segment()?,
        }
        self.durable = self.next - 1;
        self.unsynced_first = self.next;
        self.unsynced.clear();
        self.unsynced.shrink_to(UNSYNCED_BYTES_KEPT);
        Ok(Seq(self.durable))
    }

    /// Writes the buffer behind the newest segment. `active` has been taken out and comes back only
    /// after success: what fails once is not trusted with more.
    fn extend(&mut self, file: Box<dyn DiskFile>, segment: Segment) -> io::Result<()> {
        if let Err(e) = file.write_at(segment.bytes, &self.unsynced).and_then(|()| file.sync()) {
            // Gives the room back; when this fails too, the next start copes with what is left.
            let _ = file.cut(segment.bytes);
            return Err(e);
        }
        let bytes = segment.bytes + self.unsynced.len() as u64;
        self.segments.insert(segment.first, Segment { last: self.next - 1, bytes, ..segment });
        self.active = Some(file);
        Ok(())
    }

    /// Writes the buffer into a new segment. The cursor names the segment before it exists.
    fn begin_segment(&mut self) -> io::Result<()> {
        let first = self.unsynced_first;
        self.save_cursor(first)?;
        let header = Header { machine: self.machine, epoch: self.epoch, first, after: self.durable };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(&self.unsynced);
        let name = segment::name(first);
        let file = self.create_segment(&name)?;
        let written = file.write_at(0, &bytes).and_then(|()| file.sync()).and_then(|()| self.disk.sync_names());
        if let Err(e) = written {
            let _ = self.disk.remove(&name);
            return Err(e);
        }
        let segment = Segment { after: self.durable, first, last: self.next - 1, bytes: bytes.len() as u64 };
        self.segments.insert(first, segment);
        self.active = Some(file);
        Ok(())
    }

    /// Makes a segment file. A file that has the name already (left by an attempt that failed, or
    /// one that could not be set aside at the start) is moved out of the way, never overwritten.
    fn create_segment(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        match self.disk.create(name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.rename(name, &start::aside_name(self.disk.as_ref(), name))?;
                self.disk.create(name)
            }
            other => other,
        }
    }

    fn leave_room_to_others(&mut self) -> io::Result<()> {
        let needed = self.limits.keep_free_bytes.saturating_add(self.unsynced.len() as u64);
        // A file system that does not say is not asked again: the write will tell.
        while self.disk.free_bytes().is_ok_and(|free| free < needed) {
            // What was routine takes less room afterwards; more than that is not given up for others.
            if !self.thin_one(Thin::Fold)? {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }

    /// Forgets records through `through` (at most what is durable): the collector has them. The cursor
    /// is written before segments are removed.
    ///
    /// # Errors
    /// When the cursor cannot be written or a segment not be removed. The records count as released
    /// all the same for as long as this process runs, and the next call tries again.
    pub fn release(&mut self, through: Seq) -> io::Result<()> {
        self.acked = self.acked.max(through.0.min(self.durable));
        let acked = Seq(self.acked);
        self.reported.retain(|range| range.last > acked);
        if self.acked > self.acked_on_disk {
            self.save_newest_cursor()?;
        }
        let newest = self.segments.keys().next_back().copied();
        let released = |segment: &&Segment| segment.last <= self.acked && Some(segment.first) != newest;
        let released: Vec<Segment> = self.segments.values().take_while(released).copied().collect();
        released.into_iter().try_for_each(|segment| self.remove_segment(segment))
    }

    /// Takes back what was released after `to`, as far as it still lies here: the collector lost it. Returns through
    /// which sequence records stay released. Nothing is written: a start that comes too soon finds the cursor of before,
    /// and may be told again.
    pub fn rewind(&mut self, to: Seq) -> Seq {
        let oldest = self.segments.keys().next().map_or(self.acked, |first| first.saturating_sub(1));
        self.acked = self.acked.min(to.0.max(oldest));
        self.acked()
    }

    fn remove_segment(&mut self, segment: Segment) -> io::Result<()> {
        match self.disk.remove(&segment::name(segment.first)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => {
                self.segments.remove(&segment.first);
                Ok(())
            }
        }
    }

    fn save_newest_cursor(&mut self) -> io::Result<()> {
        self.save_cursor(self.segments.keys().next_back().copied().unwrap_or(0))
    }

    fn save_cursor(&mut self, newest: u64) -> io::Result<()> {
        let (machine, epoch, acked, durable, spent) = (self.machine, self.epoch, self.acked, self.durable, self.spent);
        Cursor { machine, epoch, acked, durable, newest, spent }.save(self.disk.as_ref())?;
        self.acked_on_disk = acked;
        Ok(())
    }
}

/// The first 64 bits of the SHA-256 of the machine's id.
fn fingerprint(machine_id: &str) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, machine_id.as_bytes());
    digest.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
