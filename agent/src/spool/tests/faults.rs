//! One test per fault of the list the spool was designed against (F8 full or failing disk, F9 damage,
//! F10 kill at any point, F11 foreign files), on a real directory where that can be done.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use peil_proto::ids::Seq;
use proptest::prelude::*;
use tempfile::tempdir;

use super::super::cursor::{Cursor, CursorRead};
use super::super::disk::{Disk, DiskFile, Entry, Held, RealDir};
use super::super::segment::{self, HEADER};
use super::fake_disk::FakeDisk;
use super::{MACHINE, SMALL, fill, open, payload, read_all, seqs};
use crate::spool::{AppendError, Beginning, CursorFound, Limits, OpenError, SeqRange, Spool, UNSYNCED_BYTES_MAX};

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange { first: Seq(first), last: Seq(last) }
}

/// Segment files in order.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| segment::first_of(path.file_name().unwrap().to_str().unwrap()).is_some())
        .collect();
    found.sort();
    found
}

fn hurt(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// A stopped spool with records 1 to `records` in several segments.
fn filled(records: u64) -> tempfile::TempDir {
    let dir = tempdir().unwrap();
    fill(&mut open(dir.path()).0, 1, records);
    assert!(segments(dir.path()).len() > 2);
    dir
}

/// Appends, reads and releases once more, then reopens without any loss: the spool is healthy.
fn works_on(dir: &Path) {
    let (mut spool, _) = open(dir);
    let newest = spool.last();
    let seq = spool.append(b"works on").unwrap();
    assert!(seq > newest);
    spool.sync().unwrap();
    assert_eq!(spool.read_after(Seq(seq.0 - 1), 9, 999).unwrap(), [(seq, b"works on".to_vec())]);
    spool.release(seq).unwrap();
    drop(spool);
    let (mut spool, recovery) = open(dir);
    assert_eq!((recovery.records_lost(), recovery.cut_bytes, recovery.records), (0, 0, 0), "{recovery:?}");
    assert_eq!(recovery.beginning, Beginning::Continued);
    assert!(spool.append(b"next").unwrap() > seq);
}

#[test]
fn records_come_back_after_a_restart_in_order_until_they_are_released() {
    let dir = filled(20);
    let (mut spool, recovery) = open(dir.path());
    assert_eq!((recovery.records, recovery.records_lost(), recovery.cursor), (20, 0, CursorFound::Read));
    let all = read_all(&mut spool);
    assert_eq!(seqs(&all), (1..=20).collect::<Vec<_>>());
    assert!(all.iter().all(|(seq, content)| *content == payload(*seq)));
    let bytes = spool.bytes();
    spool.release(Seq(12)).unwrap();
    assert!(spool.bytes() < bytes);
    let epoch = spool.epoch();
    drop(spool);
    let (mut spool, recovery) = open(dir.path());
    assert_eq!((spool.epoch(), spool.acked(), spool.last(), recovery.records), (epoch, Seq(12), Seq(20), 8));
    assert_eq!(seqs(&read_all(&mut spool)), (13..=20).collect::<Vec<_>>());
    assert_eq!(spool.append(b"x").unwrap(), Seq(21), "dense over a clean restart");
}

#[test]
fn only_durable_records_are_handed_out() {
    let dir = tempdir().unwrap();
    let (mut spool, _) = open(dir.path());
    assert_eq!(spool.append(b"one").unwrap(), Seq(1));
    assert_eq!(spool.read_after(Seq(0), 9, 999).unwrap(), []);
    assert_eq!(spool.sync().unwrap(), Seq(1));
    assert_eq!(spool.read_after(Seq(0), 9, 999).unwrap(), [(Seq(1), b"one".to_vec())]);
    assert_eq!(spool.read_after(Seq(0), 9, 1).unwrap().len(), 1, "one record always, however small the room");
    spool.release(Seq(99)).unwrap();
    assert_eq!(spool.acked(), Seq(1), "nothing is released that was not durable");
}

#[test]
fn a_full_spool_drops_its_oldest_segment_and_tells_the_range() {
    let dir = tempdir().unwrap();
    let (mut spool, _) = open(dir.path());
    fill(&mut spool, 1, 60);
    let dropped = spool.take_dropped();
    assert_eq!(spool.take_dropped(), []);
    assert!(spool.bytes() <= SMALL.bytes_max);
    let left = seqs(&read_all(&mut spool));
    let [lost] = dropped[..] else { panic!("{dropped:?}") };
    assert_eq!(lost, range(1, left[0] - 1));
    assert_eq!(left, (left[0]..=60).collect::<Vec<_>>());
    drop(spool);
    let (mut spool, recovery) = open(dir.path());
    assert_eq!(recovery.lost, [lost], "told again: nobody knows whether the gap was recorded");
    assert_eq!(spool.take_dropped(), [lost]);
    spool.release(Seq(60)).unwrap();
    drop(spool);
    assert_eq!(open(dir.path()).1.lost, []);
}

#[test]
fn a_record_that_is_too_large_is_refused_and_nothing_else() {
    let dir = tempdir().unwrap();
    let (mut spool, _) = open(dir.path());
    assert!(matches!(spool.append(&[0; 201]), Err(AppendError::TooLarge { bytes: 201, max: 200 })));
    assert_eq!(spool.append(&[0; 200]).unwrap(), Seq(1));
    assert_eq!(spool.append(&[]).unwrap(), Seq(2), "an empty record is a record");
    spool.sync().unwrap();
    assert_eq!(read_all(&mut spool), [(1, vec![0; 200]), (2, vec![])]);
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempdir().unwrap();
    let (_held, _) = open(dir.path());
    assert!(matches!(Spool::open(dir.path(), MACHINE, SMALL), Err(OpenError::InUse { .. })));
}

#[test]
fn f8_a_full_or_failing_disk_costs_nothing_when_it_recovers() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::Other] {
        let disk = FakeDisk::default();
        let (mut spool, _) = Spool::open_on(Box::new(disk.clone()), MACHINE, SMALL).unwrap();
        fill(&mut spool, 1, 3);
        disk.fail(0, u32::MAX, kind);
        let mut taken = 3;
        let refused = loop {
            match spool.append(&payload(taken + 1)) {
                Ok(seq) => taken = seq.0,
                Err(e) => break e,
            }
        };
        assert_eq!(matches!(refused, AppendError::NoSpace { .. }), kind == io::ErrorKind::StorageFull);
        assert_eq!(spool.sync().unwrap_err().kind(), kind);
        assert_eq!(seqs(&read_all(&mut spool)), [1, 2, 3], "what is durable can still be sent");
        assert!(spool.release(Seq(2)).is_err());
        disk.fail(0, 0, kind);
        assert_eq!(spool.sync().unwrap(), Seq(taken), "{kind}: what was taken is written after all");
        fill(&mut spool, taken + 1, taken + 1);
        spool.release(Seq(3)).unwrap();
        assert_eq!(seqs(&read_all(&mut spool)), (4..=taken + 1).collect::<Vec<_>>());
        assert_eq!(spool.take_dropped(), []);
    }
}

#[test]
fn f8_room_is_left_to_others_on_the_file_system() {
    let dir = tempdir().unwrap();
    let (mut spool, _) = Spool::open(dir.path(), MACHINE, Limits { keep_free_bytes: u64::MAX, ..SMALL }).unwrap();
    spool.append(b"one").unwrap();
    assert_eq!(spool.sync().unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(segments(dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn memory_for_unsynced_records_is_bounded() {
    let disk = FakeDisk::default();
    let (mut spool, _) = Spool::open_on(Box::new(disk.clone()), MACHINE, Limits::default()).unwrap();
    disk.fail(0, u32::MAX, io::ErrorKind::StorageFull);
    let mut bytes = 0;
    while spool.append(&[7; 5_000]).is_ok() {
        bytes += 5_016;
    }
    assert!((UNSYNCED_BYTES_MAX - 5_016..=UNSYNCED_BYTES_MAX).contains(&bytes));
}

#[test]
fn f9_a_torn_last_record_costs_that_record() {
    let dir = filled(20);
    hurt(segments(dir.path()).last().unwrap(), |bytes| bytes.truncate(bytes.len() - 1));
    let (mut spool, recovery) = open(dir.path());
    assert_eq!((recovery.records, recovery.beginning), (19, Beginning::Continued));
    assert_eq!(recovery.cut_bytes, payload(20).len() as u64 + 15);
    assert_eq!(seqs(&read_all(&mut spool)), (1..=19).collect::<Vec<_>>());
    let next = spool.append(b"x").unwrap();
    assert!(next > Seq(20), "the collector may have seen 20: {next}");
    drop(spool);
    assert!(open(dir.path()).0.append(b"x").unwrap() >= next, "also when nothing was synced in between");
    works_on(dir.path());
}

#[test]
fn f9_no_number_of_a_record_that_was_sent_is_given_out_again_however_many_got_lost() {
    for lost in 1..=5 {
        let dir = tempdir().unwrap();
        let (mut spool, _) = open(dir.path());
        for _ in 0..6 {
            spool.append(&[9; 20]).unwrap();
            spool.sync().unwrap();
        }
        let sent = seqs(&read_all(&mut spool));
        drop(spool);
        let path = &segments(dir.path())[0];
        hurt(path, |bytes| {
            let from = bytes.len() - lost * 36;
            bytes[from..].fill(0);
        });
        let (mut spool, recovery) = open(dir.path());
        assert_eq!((recovery.records, recovery.cut_bytes), (6 - lost as u64, 36 * lost as u64));
        assert!(spool.append(b"x").unwrap().0 > sent[5], "{lost} lost");
        drop(spool);
        works_on(dir.path());
    }
}

#[test]
fn f9_a_bit_flip_in_the_middle_costs_that_record_and_is_told_once() {
    for which in 0..3 {
        let dir = filled(20);
        let path = &segments(dir.path())[which];
        let first = segment::first_of(path.file_name().unwrap().to_str().unwrap()).unwrap();
        hurt(path, |bytes| bytes[HEADER + 20] ^= 8);
        let (mut spool, recovery) = open(dir.path());
        assert_eq!((recovery.records, recovery.lost.clone()), (19, vec![range(first, first)]));
        assert_eq!(spool.take_dropped(), [range(first, first)]);
        assert_eq!(seqs(&read_all(&mut spool)), (1..=20).filter(|seq| *seq != first).collect::<Vec<_>>());
        assert_eq!(spool.take_dropped(), []);
        drop(spool);
        works_on(dir.path());
    }
}

#[test]
fn f9_damage_that_appears_while_running_is_skipped_and_told_once() {
    let dir = filled(20);
    let (mut spool, _) = open(dir.path());
    hurt(&segments(dir.path())[1], |bytes| bytes[HEADER + 20] ^= 8);
    fs::remove_file(&segments(dir.path())[0]).unwrap();
    let first = segment::first_of(segments(dir.path())[0].file_name().unwrap().to_str().unwrap()).unwrap();
    assert!(spool.read_after(Seq(0), 99, 9_999).is_err(), "a vanished file is an error once");
    assert_eq!(seqs(&read_all(&mut spool)), (first + 1..=20).collect::<Vec<_>>());
    assert_eq!(spool.take_dropped(), [range(1, first)]);
    assert_eq!(seqs(&read_all(&mut spool)), (first + 1..=20).collect::<Vec<_>>());
    assert_eq!(spool.take_dropped(), []);
    hurt(&segments(dir.path())[1], |bytes| bytes.truncate(HEADER + 5));
    let after_cut = seqs(&read_all(&mut spool));
    let [lost] = spool.take_dropped()[..] else { panic!() };
    assert!(!after_cut.contains(&lost.first.0) && after_cut.last() == Some(&20));
}

#[test]
fn f9_a_zero_filled_tail_costs_nothing() {
    let dir = filled(20);
    hurt(segments(dir.path()).last().unwrap(), |bytes| bytes.resize(bytes.len() + 4_096, 0));
    let (mut spool, recovery) = open(dir.path());
    assert_eq!((recovery.records, recovery.cut_bytes, recovery.records_lost()), (20, 4_096, 0));
    assert_eq!(seqs(&read_all(&mut spool)).len(), 20);
    drop(spool);
    works_on(dir.path());
}

#[test]
fn f9_a_missing_segment_costs_what_was_in_it() {
    let count = segments(filled(20).path()).len();
    for which in 0..count {
        let dir = filled(20);
        fs::remove_file(&segments(dir.path())[which]).unwrap();
        let (mut spool, recovery) = open(dir.path());
        let left = seqs(&read_all(&mut spool));
        let told: Vec<u64> = recovery.lost.iter().flat_map(|lost| lost.first.0..=lost.last.0).collect();
        assert!(!told.is_empty());
        assert!(told.iter().all(|seq| !left.contains(seq)));
        if which + 1 < count {
            assert_eq!(left.len() + told.len(), 20);
        } else {
            // How much was in the newest is not known, so the sequence jumps.
            assert!(spool.append(b"x").unwrap() > Seq(20));
        }
        drop(spool);
        works_on(dir.path());
    }
}

#[test]
fn f9_a_damaged_header_costs_no_record() {
    for which in 0..3 {
        let dir = filled(20);
        hurt(&segments(dir.path())[which], |bytes| bytes[3] ^= 1);
        let (mut spool, recovery) = open(dir.path());
        assert_eq!((recovery.records, recovery.records_lost(), recovery.damaged_bytes), (20, 0, HEADER as u64));
        assert_eq!(seqs(&read_all(&mut spool)).len(), 20);
        drop(spool);
        works_on(dir.path());
    }
}

#[test]
fn f9_a_missing_or_damaged_cursor_means_sending_again_not_losing() {
    for damaged in [false, true] {
        let dir = filled(20);
        let (mut spool, _) = open(dir.path());
        let epoch = spool.epoch();
        spool.release(Seq(19)).unwrap();
        drop(spool);
        let path = dir.path().join("cursor");
        if damaged {
            hurt(&path, |bytes| bytes[30] ^= 1);
        } else {
            fs::remove_file(path).unwrap();
        }
        let (mut spool, recovery) = open(dir.path());
        assert_eq!(recovery.cursor, if damaged { CursorFound::Damaged } else { CursorFound::Missing });
        assert_eq!((spool.epoch(), recovery.records_lost()), (epoch, 0));
        let again = seqs(&read_all(&mut spool));
        assert_eq!(again.last(), Some(&20));
        assert!(spool.append(b"x").unwrap() > Seq(20));
        drop(spool);
        assert_eq!(open(dir.path()).1.cursor, CursorFound::Read);
        works_on(dir.path());
    }
}

#[test]
fn f9_a_cursor_ahead_of_the_data_never_makes_the_sequence_go_back() {
    let dir = filled(20);
    let Held::Ours(disk) = RealDir::hold(dir.path()).unwrap() else { panic!() };
    let CursorRead::Good(cursor) = Cursor::load(&disk) else { panic!() };
    Cursor { acked: 500, durable: 500, ..cursor }.save(&disk).unwrap();
    drop(disk);
    let (mut spool, recovery) = open(dir.path());
    assert_eq!((recovery.records, recovery.records_lost(), spool.acked()), (0, 0, Seq(500)));
    assert_eq!(seqs(&read_all(&mut spool)), Vec::<u64>::new());
    assert!(spool.append(b"x").unwrap() > Seq(500));
    drop(spool);
    works_on(dir.path());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Anything at all in any file of the directory.
    #[test]
    fn f9_whatever_is_damaged_the_spool_starts_and_works(
        hurts in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..5, any::<prop::sample::Index>(), any::<u8>()), 1..8),
        released in 0_u64..20,
    ) {
        let disk = FakeDisk::default();
        let (mut spool, _) = Spool::open_on(Box::new(disk.clone()), MACHINE, SMALL).unwrap();
        fill(&mut spool, 1, 20);
        spool.release(Seq(released)).unwrap();
        drop(spool);
        for (file, how, at, to) in hurts {
            let names = disk.list().unwrap();
            if names.is_empty() {
                continue;
            }
            let Entry { name, bytes } = names[file.index(names.len())].clone();
            let open = disk.open(&name).unwrap();
            let at = at.index(usize::try_from(bytes).unwrap() + 1) as u64;
            match how {
                0 => disk.remove(&name).unwrap(),
                1 => open.cut(at).unwrap(),
                2 => open.write_at(at, &[0; 64]).unwrap(),
                3 => disk.rename(&name, &segment::name(u64::from(to) + 1)).unwrap(),
                _ => open.write_at(at, &[to]).unwrap(),
            }
        }
        let mut newest = 0;
        for _ in 0..2 {
            let (mut spool, recovery) = Spool::open_on(Box::new(disk.clone()), MACHINE, SMALL).unwrap();
            if recovery.beginning != Beginning::Continued {
                newest = 0;
            }
            for (seq, content) in read_all(&mut spool) {
                prop_assert!(content == payload(seq) || content == b"more", "record {seq} is not what was appended");
            }
            let seq = spool.append(b"more").unwrap();
            prop_assert!(seq.0 > newest);
            newest = seq.0;
            spool.sync().unwrap();
            prop_assert_eq!(read_all(&mut spool).last().cloned(), Some((newest, b"more".to_vec())));
        }
    }
}

/// A real directory on which the process is killed after some changes: the last one gets half way. A
/// kill leaves the cache alone, so syncs count as changes but need not reach the disk.
struct Killed {
    dir: RealDir,
    left: Arc<AtomicU32>,
}

struct KilledFile {
    file: Box<dyn DiskFile>,
    left: Arc<AtomicU32>,
}

fn spend(left: &AtomicU32) -> io::Result<()> {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
        .map(drop)
        .map_err(|_| io::Error::other("killed"))
}

impl Killed {
    fn wrap(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(KilledFile { file, left: self.left.clone() })
    }
}

impl Disk for Killed {
    fn list(&self) -> io::Result<Vec<Entry>> {
        self.dir.list()
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.dir.open(name).map(|file| self.wrap(file))
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        spend(&self.left).and_then(|()| self.dir.create(name)).map(|file| self.wrap(file))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        spend(&self.left).and_then(|()| self.dir.rename(from, to))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        spend(&self.left).and_then(|()| self.dir.remove(name))
    }
    fn sync_names(&self) -> io::Result<()> {
        spend(&self.left)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.dir.free_bytes()
    }
    fn random(&self) -> io::Result<u64> {
        self.dir.random()
    }
}

impl DiskFile for KilledFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match spend(&self.left) {
            Ok(()) => self.file.write_at(offset, bytes),
            Err(e) => {
                self.file.write_at(offset, &bytes[..bytes.len() / 2])?;
                Err(e)
            }
        }
    }
    fn cut(&self, bytes: u64) -> io::Result<()> {
        spend(&self.left).and_then(|()| self.file.cut(bytes))
    }
    fn sync(&self) -> io::Result<()> {
        spend(&self.left)
    }
}

/// How far a spool's life had got when it was killed.
#[derive(Default)]
struct Lived {
    durable: u64,
    /// A release that had begun.
    releasing: u64,
    /// A release that had returned.
    released: u64,
    dropped: Vec<SeqRange>,
}

/// Begins, rotates, releases, fills up and drops, until it is killed.
fn live(spool: &mut Spool) -> Lived {
    let mut lived = Lived::default();
    for n in 1..=70 {
        let Ok(durable) = spool.append(&payload(n)).map_err(io::Error::other).and_then(|_| spool.sync()) else { break };
        lived.durable = durable.0;
        if (10..40).contains(&n) && n % 3 == 0 {
            lived.releasing = n - 5;
            if spool.release(Seq(n - 5)).is_err() {
                break;
            }
            lived.released = n - 5;
        }
    }
    lived.dropped = spool.take_dropped();
    lived
}

#[test]
fn f10_a_kill_at_any_point_loses_no_durable_record_and_the_spool_starts() {
    let mut finished = false;
    for changes in 0.. {
        if finished {
            assert!(changes > 300, "the story has {changes} steps");
            break;
        }
        let dir = tempdir().unwrap();
        let Held::Ours(real) = RealDir::hold(dir.path()).unwrap() else { panic!() };
        let left = Arc::new(AtomicU32::new(changes));
        let killed = Killed { dir: real, left: left.clone() };
        let (mut spool, _) = Spool::open_on(Box::new(killed), MACHINE, SMALL).unwrap();
        let lived = live(&mut spool);
        finished = left.load(Ordering::Relaxed) > 0;
        drop(spool);

        let (mut spool, recovery) = open(dir.path());
        assert_eq!(recovery.trouble, Vec::<String>::new(), "killed after {changes}");
        let all = read_all(&mut spool);
        assert!(all.iter().all(|(seq, content)| *content == payload(*seq)), "killed after {changes}");
        assert!(all.iter().all(|(seq, _)| *seq > lived.released), "killed after {changes}");
        let told = |seq: &u64| lived.dropped.iter().any(|lost| lost.first.0 <= *seq && *seq <= lost.last.0);
        let expected: Vec<u64> = (lived.releasing + 1..=lived.durable).filter(|seq| !told(seq)).collect();
        let owed = |seq: &u64| *seq > lived.releasing && *seq <= lived.durable;
        let got: Vec<u64> = seqs(&all).into_iter().filter(owed).collect();
        assert_eq!(got, expected, "killed after {changes}");
        drop(spool);
        works_on(dir.path());
    }
}

#[test]
fn f11_another_machines_spool_is_set_aside_for_a_new_epoch() {
    let dir = filled(20);
    let (spool, _) = open(dir.path());
    let epoch = spool.epoch();
    let files = segments(dir.path()).len();
    drop(spool);
    let (mut spool, recovery) = Spool::open(dir.path(), "a clone", SMALL).unwrap();
    assert_eq!((recovery.beginning, recovery.cursor), (Beginning::OtherMachine, CursorFound::OtherMachine));
    assert_ne!(spool.epoch(), epoch);
    assert_eq!((recovery.set_aside.len(), recovery.records), (files, 0));
    assert_eq!(read_all(&mut spool), []);
    assert_eq!(spool.append(b"x").unwrap(), Seq(1));
    spool.sync().unwrap();
    let new = spool.epoch();
    drop(spool);
    let (spool, recovery) = Spool::open(dir.path(), "a clone", SMALL).unwrap();
    assert_eq!((recovery.beginning, spool.epoch(), recovery.records), (Beginning::Continued, new, 1));
}

/// The same bytes under another format version.
fn as_version(bytes: &mut [u8], version: u32) {
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    bytes[12] ^= 0x55;
}

#[test]
fn f11_a_spool_of_another_version_is_set_aside_for_a_new_epoch() {
    for version in [2, 1_u32.swap_bytes()] {
        let dir = filled(20);
        let epoch = open(dir.path()).0.epoch();
        let files = segments(dir.path());
        files.iter().for_each(|path| hurt(path, |bytes| as_version(bytes, version)));
        hurt(&dir.path().join("cursor"), |bytes| as_version(bytes, version));
        let (spool, recovery) = open(dir.path());
        assert_eq!(recovery.beginning, Beginning::NothingReadable);
        assert_ne!(spool.epoch(), epoch);
        assert_eq!(recovery.set_aside.len(), files.len() + 1, "{recovery:?}");
        drop(spool);
        works_on(dir.path());
    }
}

#[test]
fn f11_one_segment_of_another_version_is_set_aside_and_the_others_stay() {
    let count = segments(filled(20).path()).len();
    for which in 0..count {
        let dir = filled(20);
        let epoch = open(dir.path()).0.epoch();
        hurt(&segments(dir.path())[which], |bytes| as_version(bytes, 2));
        let (mut spool, recovery) = open(dir.path());
        assert_eq!((recovery.set_aside.len(), spool.epoch()), (1, epoch));
        let left = seqs(&read_all(&mut spool));
        let lost = recovery.lost.first().copied().unwrap();
        assert!(left.len() >= 10 && !left.contains(&lost.first.0));
        assert!(spool.append(b"x").unwrap() > Seq(20), "what the other version used stays used");
        drop(spool);
        works_on(dir.path());
    }
}

#[test]
fn files_set_aside_do_not_pile_up() {
    let dir = tempdir().unwrap();
    for machine in 0..30 {
        let (mut spool, _) = Spool::open(dir.path(), &format!("machine {machine}"), SMALL).unwrap();
        fill(&mut spool, 1, 20);
    }
    let aside = fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
    let bytes: u64 = aside.map(|entry| entry.metadata().unwrap().len()).sum();
    assert!(bytes <= 2 * SMALL.bytes_max + 4_096, "{bytes}");
}

#[test]
fn what_a_collector_lost_again_is_taken_back_as_far_as_it_still_lies_here() {
    let dir = tempdir().unwrap();
    let (mut spool, _) = open(dir.path());
    fill(&mut spool, 1, 24);
    spool.release(Seq(20)).unwrap();
    assert_eq!(seqs(&read_all(&mut spool)), (21..=24).collect::<Vec<_>>());
    let oldest = segment::first_of(segments(dir.path())[0].file_name().unwrap().to_str().unwrap()).unwrap();
    assert!((2..=20).contains(&oldest), "whole segments are gone, the one with the mark is not: {oldest}");
    assert_eq!(spool.rewind(Seq(3)), Seq(oldest - 1));
    assert_eq!(seqs(&read_all(&mut spool)), (oldest..=24).collect::<Vec<_>>());
    assert_eq!(spool.rewind(Seq(23)), Seq(oldest - 1), "it never goes forward");
    spool.release(Seq(24)).unwrap();
    assert_eq!(read_all(&mut spool), []);
    assert!(spool.take_dropped().is_empty(), "nothing is told as lost");
    drop(spool);
    assert_eq!(open(dir.path()).0.acked(), Seq(24));
}
