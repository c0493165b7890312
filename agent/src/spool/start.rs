//! Start-up: from whatever lies in the directory to a spool that runs.
//!
//! Nothing found here is a reason not to start. What belongs to another machine, epoch or version is
//! set aside under another name; damage costs the damaged records; a write that fails (read-only or
//! full disk) is noted in [`Recovery::trouble`] and made up for at the next successful one.

use std::collections::BTreeMap;
use std::io;

use peil_proto::ids::{Epoch, Seq};

use super::cursor::{self, Cursor, CursorRead};
use super::disk::{self, Disk, DiskFile, Entry};
use super::recover::{Scan, scan_records};
use super::segment::{self, HEADER, Header, HeaderRead, SEQ_MAX, Segment};
use super::{Beginning, CursorFound, Limits, OpenError, Recovery, SeqRange, renew, room};

/// Records no segment can exceed (16 MiB / 16 B): how far the sequence jumps when records that may
/// have been sent cannot be read back, so that none of their numbers is ever given out again.
pub(super) const JUMP: u64 = peil_proto::ids::SEQ_JUMP;

/// A larger file is not read at start-up but set aside: no version of ours wrote it.
const SEGMENT_FILE_BYTES_MAX: u64 = 64 << 20;

/// What the spool starts from.
pub(super) struct Start {
    pub epoch: Epoch,
    pub acked: u64,
    /// The newest sequence in use; the next segment's `after`.
    pub durable: u64,
    /// No sequence up to this one may be given out again.
    pub spent: u64,
    pub segments: BTreeMap<u64, Segment>,
    /// The newest segment, when it can be continued.
    pub active: Option<Box<dyn DiskFile>>,
    pub recovery: Recovery,
}

impl Start {
    /// The next sequence to give out.
    pub(super) fn next(&self) -> u64 {
        self.durable.max(self.spent) + 1
    }
}

/// A segment file and what its header says.
struct Found {
    entry: Entry,
    first: u64,
    header: HeaderRead,
}

impl Found {
    /// Whether this is what another became by thinning: it says that numbers never existed which the other holds.
    fn replaces(&self, other: &Self) -> bool {
        match self.header {
            HeaderRead::Good(header) => header.after < other.first && other.first < self.first,
            HeaderRead::OtherVersion | HeaderRead::Damaged => false,
        }
    }
}

/// A segment of ours with what the scan of its records found.
struct Kept {
    segment: Segment,
    scan: Scan,
    headed: bool,
}

/// A change to the directory that waits until the cursor remembers what the change makes unseen.
enum Todo {
    SetAside(String),
    Remove(String),
    Cut { name: String, bytes: u64 },
}

struct Starting<'a> {
    disk: &'a dyn Disk,
    machine: u64,
    recovery: Recovery,
    /// Changes to be made, in order.
    todo: Vec<Todo>,
    /// Newest sequence that records we cannot read claim; they are lost.
    claimed: u64,
    /// No sequence up to this one may be given out again.
    floor: u64,
    /// Records may have existed, and been sent, that cannot be seen any more.
    dirty: bool,
    /// The newest segment is whole and the sequence goes on right behind it.
    continues: bool,
}

/// Reads the directory and puts it in order.
pub(super) fn start(disk: &dyn Disk, machine: u64, limits: &Limits) -> Result<Start, OpenError> {
    let mut entries = disk.list().map_err(|source| OpenError::List { source })?;
    let recovery = Recovery::default();
    let todo = Vec::new();
    let mut at = Starting { disk, machine, recovery, todo, claimed: 0, floor: 0, dirty: false, continues: false };
    let cursor = Cursor::load(disk);
    if at.finish_what_was_begun(cursor, &entries) {
        entries = disk.list().map_err(|source| OpenError::List { source })?;
    }
    let found = at.find(&entries);
    let kept = at.choose_epoch(cursor, &found).and_then(|epoch| at.keep(epoch, cursor, &found));
    let mut start = match kept {
        Some(start) => start,
        None => at.begin_anew(cursor, found)?,
    };
    at.tidy(cursor, &mut start);
    start.active = at.continue_newest(limits, &start);
    at.prune_aside(limits, &entries);
    start.recovery = at.recovery;
    Ok(start)
}

impl Starting<'_> {
    /// Files that were being written when the agent stopped: those of a new epoch that the cursor already names take their
    /// places, all others are debris. True when something changed.
    fn finish_what_was_begun(&mut self, cursor: CursorRead, entries: &[Entry]) -> bool {
        let begun = |entry: &&Entry| entry.name.ends_with(room::NEW) || entry.name.ends_with(renew::NEXT);
        let mut changed = false;
        for entry in entries.iter().filter(begun) {
            let name = entry.name.strip_suffix(renew::NEXT).filter(|_| self.is_of_cursor(cursor, &entry.name));
            let done = match name {
                Some(name) => self.disk.rename(&entry.name, name),
                None => self.disk.remove(&entry.name),
            };
            changed |= done.is_ok();
            self.tried(&format!("clearing {}", entry.name), done);
        }
        changed
    }

    fn is_of_cursor(&self, cursor: CursorRead, name: &str) -> bool {
        let head = self.disk.open(name).and_then(|file| disk::read_from(file.as_ref(), 0, HEADER));
        match (cursor, head.map(|bytes| Header::read(&bytes))) {
            (CursorRead::Good(cursor), Ok(HeaderRead::Good(header))) => {
                (header.machine, header.epoch) == (cursor.machine, cursor.epoch)
            }
            _ => false,
        }
    }

    /// The segment files in order, with their headers.
    fn find(&mut self, entries: &[Entry]) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        for entry in entries {
            let Some(first) = segment::first_of(&entry.name) else { continue };
            let head = self.disk.open(&entry.name).and_then(|file| disk::read_from(file.as_ref(), 0, HEADER));
            let header = match head.map(|bytes| Header::read(&bytes)) {
                Ok(HeaderRead::Good(header)) if header.first != first => HeaderRead::Damaged,
                Ok(header) => header,
                Err(e) => {
                    self.note(&format!("reading {}", entry.name), &e);
                    HeaderRead::Damaged
                }
            };
            found.push(Found { entry: entry.clone(), first, header });
        }
        found.sort_by_key(|found| found.first);
        found
    }

    /// The epoch to go on with; `None` when there is none, or it is another machine's.
    fn choose_epoch(&mut self, cursor: CursorRead, found: &[Found]) -> Option<Epoch> {
        let ours = |found: &Found| match found.header {
            HeaderRead::Good(header) if header.machine == self.machine => Some(header.epoch),
            _ => None,
        };
        let newest_of_ours = found.iter().rev().find_map(ours);
        let (state, epoch) = match cursor {
            CursorRead::Good(cursor) if cursor.machine != self.machine => (CursorFound::OtherMachine, None),
            CursorRead::Good(cursor) => (CursorFound::Read, Some(cursor.epoch)),
            CursorRead::Missing => (CursorFound::Missing, newest_of_ours),
            CursorRead::OtherVersion => (CursorFound::OtherVersion, newest_of_ours),
            CursorRead::Damaged => (CursorFound::Damaged, newest_of_ours),
        };
        self.recovery.cursor = state;
        let foreign =
            |found: &Found| matches!(found.header, HeaderRead::Good(header) if header.machine != self.machine);
        self.recovery.beginning = match (epoch, state) {
            (Some(_), _) => Beginning::Continued,
            (None, CursorFound::OtherMachine) => Beginning::OtherMachine,
            (None, CursorFound::Missing) if found.is_empty() => Beginning::Created,
            (None, _) if found.iter().any(foreign) => Beginning::OtherMachine,
            (None, _) => Beginning::NothingReadable,
        };
        epoch
    }

    /// Goes on with the segments of `epoch`. `None` when the sequence would run out.
    fn keep(&mut self, epoch: Epoch, cursor: CursorRead, found: &[Found]) -> Option<Start> {
        let machine = self.machine;
        let is_ours = |found: &&Found| match found.header {
            HeaderRead::Good(header) => header.machine == machine && header.epoch == epoch,
            HeaderRead::OtherVersion | HeaderRead::Damaged => false,
        };
        let ours: Vec<u64> = found.iter().filter(is_ours).map(|found| found.first).collect();
        let known = if let CursorRead::Good(cursor) = cursor {
            cursor
        } else {
            // Without a cursor everything on disk is sent again; the collector knows what it has.
            self.dirty = true;
            let acked = ours.first().map_or(0, |first| first - 1);
            Cursor { machine: self.machine, epoch, acked, durable: acked, newest: SEQ_MAX, spent: 0 }
        };
        let mut kept = Vec::new();
        for one in found {
            if is_ours(&one) && found.iter().filter(is_ours).any(|other| other.replaces(one)) {
                // Thinned, and then the agent stopped before the old one went.
                self.todo.push(Todo::Remove(one.entry.name.clone()));
                continue;
            }
            let below = ours.iter().find(|first| **first > one.first).copied().unwrap_or(u64::MAX);
            kept.extend(self.read_segment(one, epoch, known.newest, below));
        }
        let known = if known.newest == SEQ_MAX { Cursor { newest: 0, ..known } } else { known };
        self.settle(known, &kept)
    }

    /// One segment with its records, or `None` when it is to be set aside or cleared away. The cursor
    /// knows of no segment that begins after `newest`; the next segment begins at `below`.
    fn read_segment(&mut self, found: &Found, epoch: Epoch, newest: u64, below: u64) -> Option<Kept> {
        let (after, headed) = match found.header {
            HeaderRead::Good(header) if header.machine == self.machine && header.epoch == epoch => (header.after, true),
            HeaderRead::Damaged if found.first <= newest => (found.first - 1, false),
            HeaderRead::OtherVersion if found.first <= newest => return self.give_up(found),
            HeaderRead::Good(_) | HeaderRead::OtherVersion | HeaderRead::Damaged => {
                self.todo.push(Todo::SetAside(found.entry.name.clone()));
                return None;
            }
        };
        if found.entry.bytes > SEGMENT_FILE_BYTES_MAX {
            return self.give_up(found);
        }
        let length = usize::try_from(found.entry.bytes).unwrap_or(usize::MAX);
        let read = self.disk.open(&found.entry.name).and_then(|file| disk::read_from(file.as_ref(), 0, length));
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(e) => {
                self.note(&format!("reading {}", found.entry.name), &e);
                return self.give_up(found);
            }
        };
        let scan = scan_records(epoch, found.first, below, &bytes);
        if !headed && scan.runs.is_empty() {
            if bytes.iter().any(|byte| *byte != 0) {
                return self.give_up(found);
            }
            // Begun, and then the power went: nothing in it was ever durable.
            self.todo.push(Todo::Remove(found.entry.name.clone()));
            return None;
        }
        if !headed {
            self.recovery.damaged_bytes += HEADER as u64;
        }
        let last = scan.runs.last().map_or(found.first - 1, |run| run.last.0);
        Some(Kept { segment: Segment { after, first: found.first, last, bytes: scan.good_end }, scan, headed })
    }

    /// Sets a segment of this epoch aside that cannot be read: its sequences stay taken.
    fn give_up<T>(&mut self, found: &Found) -> Option<T> {
        self.dirty = true;
        self.claimed = self.claimed.max(found.first);
        self.floor = self.floor.max(found.first + found.entry.bytes.clamp(JUMP, SEGMENT_FILE_BYTES_MAX));
        self.recovery.damaged_bytes += found.entry.bytes;
        self.todo.push(Todo::SetAside(found.entry.name.clone()));
        None
    }

    /// Works out what is lost and where to go on.
    fn settle(&mut self, known: Cursor, kept: &[Kept]) -> Option<Start> {
        let newest = kept.last();
        let on_disk = newest.map_or(0, |kept| kept.segment.last.max(kept.segment.first - 1));
        let tail = newest.map_or(0, |kept| kept.scan.tail_bytes);
        let in_tail = newest.and_then(|kept| kept.scan.tail_claims).map_or(0, |seq| seq.0);
        self.dirty |= on_disk < known.durable.max(known.acked)
            || newest.map_or(0, |kept| kept.segment.first) < known.newest
            || tail > 0;
        // The segment the cursor calls newest was begun for a record of that number.
        let claimed = self.claimed.max(in_tail).max(known.newest);
        self.count_losses(known.acked, known.durable.max(claimed), kept);
        self.recovery.cut_bytes = tail;

        let durable = on_disk.max(known.durable).max(known.acked).max(claimed);
        let spent = known.spent.max(if self.dirty { durable.max(self.floor) + JUMP } else { 0 });
        if durable.max(spent) >= SEQ_MAX {
            self.recovery.beginning = Beginning::NothingReadable;
            return None;
        }
        let segments = kept.iter().map(|kept| (kept.segment.first, kept.segment)).collect();
        let recovery = Recovery::default();
        let mut start =
            Start { epoch: known.epoch, acked: known.acked, durable, spent, segments, active: None, recovery };
        self.clear_newest(kept, &mut start);
        self.clear_released(&mut start);
        Some(start)
    }

    /// Fills in records, losses and damage. Sequences through `existed` are known to have been in use.
    fn count_losses(&mut self, acked: u64, existed: u64, kept: &[Kept]) {
        fn reach(expected: &mut u64, through: u64, lost: &mut Vec<SeqRange>) {
            if *expected <= through {
                lost.push(SeqRange { first: Seq(*expected), last: Seq(through) });
                *expected = through + 1;
            }
        }
        let (mut expected, mut lost) = (acked + 1, Vec::new());
        for Kept { segment, scan, .. } in kept {
            reach(&mut expected, segment.after, &mut lost);
            // From `after` to `first` the spool jumped: nothing was ever there.
            expected = expected.max(segment.first);
            for run in &scan.runs {
                reach(&mut expected, run.first.0 - 1, &mut lost);
                self.recovery.records += (run.last.0 + 1).saturating_sub(run.first.0.max(acked + 1));
                expected = expected.max(run.last.0 + 1);
            }
            self.recovery.damaged_bytes += scan.damaged_bytes;
        }
        reach(&mut expected, existed, &mut lost);
        self.recovery.lost = lost;
    }

    /// The newest segment is cut behind its last whole record; without any it goes.
    fn clear_newest(&mut self, kept: &[Kept], start: &mut Start) {
        let Some(Kept { segment, scan, headed }) = kept.last() else { return };
        let name = segment::name(segment.first);
        if segment.last < segment.first {
            start.segments.remove(&segment.first);
            self.todo.push(Todo::Remove(name));
        } else if scan.tail_bytes > 0 {
            self.todo.push(Todo::Cut { name, bytes: segment.bytes });
        }
        self.continues = *headed && scan.tail_bytes == 0 && start.next() == segment.last + 1;
    }

    /// Segments that were released before the stop go. The newest stays: it remembers where the
    /// sequence is, should the cursor get lost.
    fn clear_released(&mut self, start: &mut Start) {
        let newest = start.segments.keys().next_back().copied();
        let todo = &mut self.todo;
        start.segments.retain(|first, segment| {
            let stays = segment.last > start.acked || Some(*first) == newest;
            if !stays {
                todo.push(Todo::Remove(segment::name(*first)));
            }
            stays
        });
    }

    /// A new epoch, from sequence 1.
    fn begin_anew(&mut self, cursor: CursorRead, found: Vec<Found>) -> Result<Start, OpenError> {
        self.dirty = true;
        self.todo = found.into_iter().map(|found| Todo::SetAside(found.entry.name)).collect();
        let epoch = Epoch(self.disk.random().map_err(|source| OpenError::Random { source })?);
        if cursor == CursorRead::OtherVersion {
            self.set_aside(cursor::NAME);
        }
        let (segments, recovery) = (BTreeMap::new(), Recovery::default());
        Ok(Start { epoch, acked: 0, durable: 0, spent: 0, segments, active: None, recovery })
    }

    /// Writes down what was concluded, then changes the directory. Without the first the second does
    /// not happen: the next start must come to the same conclusion from the same evidence.
    fn tidy(&mut self, found: CursorRead, start: &mut Start) {
        if self.dirty || !matches!(found, CursorRead::Good(_)) {
            let newest = start.segments.keys().next_back().copied().unwrap_or(0);
            let (machine, epoch, acked) = (self.machine, start.epoch, start.acked);
            let cursor = Cursor { machine, epoch, acked, durable: start.durable, newest, spent: start.spent };
            if let Err(e) = cursor.save(self.disk) {
                self.note("writing the cursor", &e);
                return;
            }
        }
        for todo in std::mem::take(&mut self.todo) {
            match todo {
                Todo::SetAside(name) => self.set_aside(&name),
                Todo::Remove(name) => self.tried(&format!("removing {name}"), self.disk.remove(&name)),
                Todo::Cut { name, bytes } => {
                    let cut = self.disk.open(&name).and_then(|file| file.cut(bytes));
                    self.tried(&format!("cutting {name}"), cut);
                }
            }
        }
    }

    /// Makes durable what the newest segment holds (a process that was killed may have left it in the
    /// cache only), and hands it out when appending can go on there.
    fn continue_newest(&mut self, limits: &Limits, start: &Start) -> Option<Box<dyn DiskFile>> {
        let newest = start.segments.values().next_back()?;
        let name = segment::name(newest.first);
        let synced = self.disk.open(&name).and_then(|file| {
            file.sync()?;
            // Its name, too, may be in the cache only.
            self.disk.sync_names()?;
            Ok(file)
        });
        match synced {
            Ok(file) => (self.continues && newest.bytes < u64::from(limits.segment_bytes)).then_some(file),
            Err(e) => {
                self.note(&format!("syncing {name}"), &e);
                None
            }
        }
    }

    fn set_aside(&mut self, name: &str) {
        match self.disk.rename(name, &aside_name(self.disk, name)) {
            Ok(()) => self.recovery.set_aside.push(name.to_owned()),
            Err(e) => self.note(&format!("renaming {name}"), &e),
        }
    }

    /// Files set aside by earlier starts go when together with the new ones they exceed the spool's
    /// own limit, so that evidence of damage cannot fill the disk.
    fn prune_aside(&mut self, limits: &Limits, before: &[Entry]) {
        let is_aside = |entry: &&Entry| entry.name.ends_with(".aside");
        let now = self.disk.list().unwrap_or_default();
        let mut bytes: u64 = now.iter().filter(is_aside).map(|entry| entry.bytes).sum();
        let mut old: Vec<&Entry> = before.iter().filter(is_aside).collect();
        old.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in old {
            if bytes <= limits.bytes_max {
                break;
            }
            bytes = bytes.saturating_sub(entry.bytes);
            self.tried(&format!("removing {}", entry.name), self.disk.remove(&entry.name));
        }
    }

    fn tried(&mut self, attempt: &str, result: io::Result<()>) {
        if let Err(e) = result {
            self.note(attempt, &e);
        }
    }

    fn note(&mut self, attempt: &str, why: &io::Error) {
        self.recovery.trouble.push(format!("{attempt}: {why}"));
    }
}

/// A free name for a file to be set aside: `NAME.aside`, `NAME.1.aside`, …
pub(super) fn aside_name(disk: &dyn Disk, name: &str) -> String {
    let taken = disk.list().unwrap_or_default();
    let is_free = |candidate: &String| !taken.iter().any(|entry| entry.name == *candidate);
    let first = format!("{name}.aside");
    let others = (1..=taken.len()).map(|n| format!("{name}.{n}.aside"));
    std::iter::once(first.clone()).chain(others).find(is_free).unwrap_or(first)
}
