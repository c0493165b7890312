//! Making room: what goes first when the spool may not grow any more.
//!
//! The spool does not know what its records mean, so whoever opened it lends a [`Digest`] that does. Then, oldest
//! segment first, and one step further only when the one before gave too little:
//! 1. [`Thin::Fold`]: routine successes are folded together; everything else stays.
//! 2. [`Thin::TroubleOnly`]: only failures, changes of state and gaps stay.
//! 3. The segment goes.
//!
//! What a step throws away the digest writes down durably (the ledger of gaps) *before* the segment changes. Without
//! a digest, segments go and the spool itself reports their ranges.
//!
//! **Numbers.** A thinned segment holds fewer records than numbers. They get the last numbers of its stretch, in order,
//! and its header says that those before never existed: the jump that the format has anyway, so that any version of the agent
//! reads it. Renumbering is right only for records the collector cannot have: a segment with a record that was handed
//! out since the last ack, or that may have been before the start ([`MAYBE_SENT`]), is passed over.
//!
//! **Order of writes.** The thinned segment is written beside, synced, renamed to its own name (its first number, so
//! another than the old segment's), and only then the old one is removed. A start that finds both knows the old one
//! by the jump over it (`start.rs`).

use std::io;

use peil_proto::ids::Seq;

use super::disk;
use super::record;
use super::segment::{self, HEADER, Header, Segment};
use super::{Limits, Spool};

/// Records after the ack of which a spool that was just opened cannot know whether the collector has them: more than any
/// version of the agent has on its way at once.
const MAYBE_SENT: u64 = 65_536;

/// A file being written by thinning; debris when found at start-up.
pub(super) const NEW: &str = ".fold";

/// How far a segment is thinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thin {
    /// Routine successes are folded together, nothing else is touched.
    Fold,
    /// Failures, changes of state and gaps stay, and nothing else.
    TroubleOnly,
}

/// Who knows what records mean.
pub trait Digest: Send {
    /// What stays of `records`, in order; at least one, for a segment has a record.
    ///
    /// # Errors
    /// When what goes cannot be written down durably; then all of it stays.
    fn thin(&mut self, records: &[Vec<u8>], how: Thin) -> io::Result<Vec<Vec<u8>>>;

    /// These are about to go.
    ///
    /// # Errors
    /// When that cannot be written down durably; then they stay.
    fn forget(&mut self, records: &[Vec<u8>]) -> io::Result<()>;

    /// Whether a record is older than anybody wants.
    fn is_past(&self, record: &[u8]) -> bool;
}

/// What thinning did so far to a segment of this process; another start tries anew, which costs a little time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Thinned {
    /// As it was written.
    #[default]
    No,
    /// Its successes are folded.
    Folded,
    /// Trouble only.
    Trouble,
}

impl Spool {
    /// From now on room is made by thinning.
    pub fn thin_with(&mut self, digest: Box<dyn Digest>) {
        self.digest = Some(digest);
        self.maybe_sent = self.maybe_sent.max(self.acked.saturating_add(MAYBE_SENT).min(self.durable));
    }

    /// The collector said how far it has come: what follows was not taken before.
    pub fn collector_has(&mut self, through: Seq) {
        self.maybe_sent = self.maybe_sent.min(through.0);
    }

    /// No record after this sequence can have reached the collector: a mark beyond it is not about this spool's records.
    pub fn maybe_sent(&self) -> Seq {
        Seq(self.maybe_sent)
    }

    /// Drops segments of which even the newest record is older than the digest wants.
    ///
    /// # Errors
    /// When the disk fails; the next call tries again.
    pub fn expire(&mut self) -> io::Result<()> {
        while let Some(oldest) = self.segments.values().next().copied() {
            let is_newest = self.segments.len() == 1;
            let newest_of_it = self.records_of(oldest).unwrap_or_default().pop();
            let past = |record: &Vec<u8>| self.digest.as_ref().is_some_and(|digest| digest.is_past(record));
            if is_newest || !newest_of_it.as_ref().is_some_and(past) {
                break;
            }
            self.drop_segment(oldest)?;
        }
        Ok(())
    }

    /// Makes room until the buffer fits within the limit.
    pub(super) fn make_room_if_full(&mut self) -> io::Result<()> {
        let needed = (HEADER + self.unsynced.len()) as u64;
        while self.bytes() + needed > self.limits.bytes_max {
            if self.thin_one(Thin::TroubleOnly)? {
                continue;
            }
            let Some(oldest) = self.segments.values().next().copied() else { break };
            self.drop_segment(oldest)?;
        }
        Ok(())
    }

    /// Thins the oldest segment that was thinned least, at most as far as `furthest`. False when there is none left.
    pub(super) fn thin_one(&mut self, furthest: Thin) -> io::Result<bool> {
        if self.digest.is_none() {
            return Ok(false);
        }
        let steps = [(Thinned::No, Thin::Fold), (Thinned::Folded, Thin::TroubleOnly)];
        for (done, how) in steps.into_iter().filter(|(_, how)| *how <= furthest) {
            let newest = self.segments.keys().next_back().copied();
            let may = |segment: &&Segment| segment.first > self.maybe_sent && Some(segment.first) != newest;
            let is_next = |segment: &&Segment| self.thinned.get(&segment.first).copied().unwrap_or_default() == done;
            let next = self.segments.values().filter(may).find(is_next).copied();
            if let Some(segment) = next {
                self.thin_segment(segment, how)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn thin_segment(&mut self, segment: Segment, how: Thin) -> io::Result<()> {
        let state = if how == Thin::Fold { Thinned::Folded } else { Thinned::Trouble };
        let Ok(before) = self.records_of(segment) else {
            // A bad sector is no reason to hold up what comes after it: this one goes as it is.
            self.thinned.insert(segment.first, Thinned::Trouble);
            return Ok(());
        };
        let Some(digest) = &mut self.digest else { return Ok(()) };
        let kept = digest.thin(&before, how)?;
        if kept.is_empty() || kept.len() >= before.len() {
            self.thinned.insert(segment.first, state);
            return Ok(());
        }
        self.thinned.remove(&segment.first);
        let thin = self.replace_segment(segment, &kept)?;
        self.thinned.insert(thin.first, state);
        Ok(())
    }

    /// Writes `records` under the last numbers of `old`, and removes `old`.
    fn replace_segment(&mut self, old: Segment, records: &[Vec<u8>]) -> io::Result<Segment> {
        let first = old.last + 1 - records.len() as u64;
        let header = Header { machine: self.machine, epoch: self.epoch, first, after: old.after };
        let mut bytes = header.to_bytes().to_vec();
        for (seq, payload) in (first..).zip(records) {
            record::write(&mut bytes, self.epoch, seq, payload);
        }
        let (name, beside) = (segment::name(first), format!("{}{NEW}", segment::name(first)));
        if self.disk.list()?.iter().any(|entry| entry.name == beside) {
            self.disk.remove(&beside)?;
        }
        let file = self.disk.create(&beside)?;
        let written = file.write_at(0, &bytes).and_then(|()| file.sync());
        if let Err(e) = written {
            let _ = self.disk.remove(&beside);
            return Err(e);
        }
        self.disk.rename(&beside, &name)?;
        self.disk.sync_names()?;
        let thin = Segment { after: old.after, first, last: old.last, bytes: bytes.len() as u64 };
        self.segments.insert(first, thin);
        self.remove_segment(old)?;
        Ok(thin)
    }

    /// Drops a segment, the oldest. The cursor is written first when it is behind, so that released records do not look lost
    /// after a crash.
    fn drop_segment(&mut self, oldest: Segment) -> io::Result<()> {
        if self.acked > self.acked_on_disk {
            self.save_newest_cursor()?;
        }
        let written_down = match (self.records_of(oldest), &mut self.digest) {
            (Ok(records), Some(digest)) => digest.forget(&records).map(|()| true)?,
            _ => false,
        };
        if self.segments.len() == 1 {
            self.active = None;
        }
        self.thinned.remove(&oldest.first);
        self.remove_segment(oldest)?;
        if written_down {
            return self.release_dropped(oldest);
        }
        self.note_lost(oldest.first, oldest.last);
        Ok(())
    }

    /// The ledger has what went; a later start must not take its numbers for a loss as well.
    fn release_dropped(&mut self, gone: Segment) -> io::Result<()> {
        self.acked = self.acked.max(gone.last);
        self.save_newest_cursor()
    }

    /// Payloads of the unreleased records of a segment that can be read.
    pub(super) fn records_of(&self, segment: Segment) -> io::Result<Vec<Vec<u8>>> {
        let file = self.disk.open(&segment::name(segment.first))?;
        let bytes = disk::read_from(file.as_ref(), 0, usize::try_from(segment.bytes).unwrap_or(usize::MAX))?;
        Ok(super::recover::payloads(self.epoch, segment.first, self.acked, &bytes))
    }
}

impl Limits {
    /// The usual limits with this many bytes in all: segments of a sixteenth, so that the oldest are thinned long before
    /// the newest is full.
    #[must_use]
    pub fn of_bytes(bytes_max: u64) -> Self {
        let sixteenth = u32::try_from(bytes_max / 16).unwrap_or(u32::MAX);
        Self { bytes_max, segment_bytes: sixteenth.clamp(256 << 10, 2 << 20), ..Self::default() }
    }
}
