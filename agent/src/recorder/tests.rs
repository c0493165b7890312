//! The recorder against a real spool; the disk refuses because the test takes its room away.

use std::sync::{Mutex, MutexGuard, PoisonError};

use peil_proto::record::Vitals;
use peil_proto::units::Millis;
use tempfile::TempDir;

use super::*;
use crate::spool::Limits;

fn vitals(at: i64) -> Record {
    Record::Vitals(Vitals { at: UtcTime(at), ..Vitals::default() })
}

fn keeper(limits: Limits) -> (Keeper, TempDir) {
    let dir = tempfile::tempdir().expect("directory");
    let (spool, _) = Spool::open(&dir.path().join("spool"), "machine", limits).expect("opens");
    let ledger = Ledger::open(dir.path().join("gaps"), Millis::DAY);
    let keeper = Keeper::new(spool, WallClock::manual(UtcTime(7)), ledger, watch::channel(SpoolState::default()).0);
    (keeper, dir)
}

fn ledger(dir: &TempDir) -> Ledger {
    Ledger::open(dir.path().join("gaps"), Millis::DAY)
}

fn append(keeper: &mut Keeper, ats: std::ops::Range<i64>) {
    for at in ats {
        keeper.append(convert::to_spool(&vitals(at)), false);
    }
}

/// Everything durable, read back: vitals by their time, gaps by what they lost.
fn told(keeper: &mut Keeper) -> (Vec<i64>, Vec<u64>) {
    let (mut ats, mut lost) = (Vec::new(), Vec::new());
    let mut after = Seq(0);
    loop {
        let page = keeper.spool.read_after(after, 10_000, 1 << 20).expect("readable");
        let Some((last, _)) = page.last() else { return (ats, lost) };
        after = *last;
        for (_, bytes) in page {
            match convert::from_spool(&bytes).expect("a record") {
                Some(Record::Vitals(vitals)) => ats.push(vitals.at.0),
                Some(Record::Gap(gap)) => lost.push(gap.records_lost),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A spool that has room as long as the returned file is empty: limits are set between what is free now and
/// what is free once the file has taken its bytes.
struct Room {
    file: std::fs::File,
    bytes: u64,
    _alone: MutexGuard<'static, ()>,
}

/// Two tests that take room from each other would measure each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl Room {
    fn new(dir: &TempDir) -> (Self, Limits) {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = rustix::fs::statvfs(dir.path()).expect("tells");
        let free = seen.f_bavail * seen.f_frsize;
        let bytes = (free / 2).min(4 << 30);
        let file = std::fs::File::create(dir.path().join("filler")).expect("made");
        (Self { file, bytes, _alone }, Limits { keep_free_bytes: free - bytes / 2, ..Limits::default() })
    }

    fn take(&self) {
        rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, self.bytes).expect("taken");
    }

    fn give_back(&self) {
        self.file.set_len(0).expect("given back");
    }
}

#[tokio::test]
async fn an_urgent_record_is_durable_and_announced_at_once() {
    let dir = tempfile::tempdir().expect("directory");
    let (spool, _) = Spool::open(dir.path(), "machine", Limits::default()).expect("opens");
    let (recorder, thread) = Recorder::start(spool, WallClock::manual(UtcTime(0)), ledger(&dir)).expect("starts");
    let mut state = recorder.state();
    recorder.record(&vitals(1), false).await;
    recorder.record(&vitals(2), true).await;
    state.wait_for(|state| state.urgent == Seq(2)).await.expect("published");
    assert_eq!(recorder.read_after(Seq(0), 10, 1 << 20).await.len(), 2);
    recorder.release(Seq(1)).await;
    state.wait_for(|state| state.acked == Seq(1)).await.expect("published");
    drop(recorder);
    drop(state);
    thread.join().await;
}

#[tokio::test]
async fn whoever_was_told_that_records_are_on_disk_finds_it_in_the_state() {
    let dir = tempfile::tempdir().expect("directory");
    let (spool, _) = Spool::open(dir.path(), "machine", Limits::default()).expect("opens");
    let (recorder, thread) = Recorder::start(spool, WallClock::manual(UtcTime(0)), ledger(&dir)).expect("starts");
    for seq in 1..200 {
        recorder.record(&vitals(1), false).await;
        recorder.sync().await;
        assert_eq!(recorder.state().borrow().durable, Seq(seq));
    }
    drop(recorder);
    thread.join().await;
}

#[tokio::test]
async fn records_survive_a_restart_and_keep_their_numbers() {
    let dir = tempfile::tempdir().expect("directory");
    for round in 0..3_u64 {
        let (spool, _) = Spool::open(dir.path(), "machine", Limits::default()).expect("opens");
        assert_eq!(spool.last(), Seq(round));
        let (recorder, thread) = Recorder::start(spool, WallClock::manual(UtcTime(0)), ledger(&dir)).expect("starts");
        recorder.record(&vitals(1), false).await;
        recorder.sync().await;
        drop(recorder);
        thread.join().await;
    }
}

#[tokio::test]
async fn a_disk_without_room_is_told_and_holds_nobody_up() {
    let dir = tempfile::tempdir().expect("directory");
    let limits = Limits { keep_free_bytes: u64::MAX, ..Limits::default() };
    let (spool, _) = Spool::open(dir.path(), "machine", limits).expect("opens");
    let (recorder, thread) = Recorder::start(spool, WallClock::manual(UtcTime(0)), ledger(&dir)).expect("starts");
    let mut state = recorder.state();
    recorder.record(&vitals(1), true).await;
    recorder.sync().await;
    let seen = *state.wait_for(|state| state.degraded).await.expect("published");
    assert_eq!((seen.durable, seen.urgent), (Seq(0), Seq(0)), "nothing is announced that is not durable");
    for at in 2..100 {
        recorder.record(&vitals(at), false).await;
    }
    recorder.sync().await;
    drop((recorder, state));
    thread.join().await;
}

#[test]
fn what_waited_in_memory_is_written_once_and_in_order_when_the_disk_is_back() {
    let place = tempfile::tempdir().expect("directory");
    let (room, limits) = Room::new(&place);
    let (mut keeper, _dir) = keeper(limits);
    append(&mut keeper, 0..3);
    keeper.sync();
    assert!(!keeper.state.degraded, "there is room");
    room.take();
    append(&mut keeper, 3..6);
    keeper.sync();
    assert!(keeper.state.degraded && keeper.state.durable == Seq(3));
    append(&mut keeper, 6..9);
    keeper.sync();
    assert!(keeper.state.degraded, "still refused");
    room.give_back();
    keeper.sync();
    assert!(!keeper.state.degraded && keeper.retry_at.is_none());
    append(&mut keeper, 9..10);
    keeper.sync();
    assert_eq!(told(&mut keeper), ((0..10).collect(), vec![]));
}

#[test]
fn beyond_the_memory_for_a_failing_disk_the_oldest_go_and_are_counted() {
    let place = tempfile::tempdir().expect("directory");
    let (room, limits) = Room::new(&place);
    let (mut keeper, _dir) = keeper(limits);
    room.take();
    append(&mut keeper, 0..1);
    keeper.sync();
    let held = i64::try_from(HELD_MAX).expect("small");
    append(&mut keeper, 1..held + 11);
    room.give_back();
    keeper.sync();
    keeper.sync();
    let (ats, lost) = told(&mut keeper);
    assert_eq!(lost, [10]);
    assert_eq!(ats, std::iter::once(0).chain(11..held + 11).collect::<Vec<_>>());
}

#[test]
fn a_record_too_large_for_the_spool_is_told_as_a_gap_and_holds_nothing_up() {
    let (mut keeper, _dir) = keeper(Limits { record_bytes_max: 200, keep_free_bytes: 0, ..Limits::default() });
    append(&mut keeper, 0..1);
    keeper.append(vec![0; 1_000], false);
    append(&mut keeper, 1..2);
    keeper.sync();
    assert!(!keeper.state.degraded);
    assert_eq!(told(&mut keeper), (vec![0, 1], vec![1]));
    // The same while records are held back.
    keeper.retry_at = Some(Instant::now());
    append(&mut keeper, 2..3);
    keeper.append(vec![0; 1_000], true);
    append(&mut keeper, 3..4);
    keeper.sync();
    keeper.sync();
    assert_eq!(told(&mut keeper), (vec![0, 1, 2, 3], vec![1, 1]));
}

fn up(tick: i64) -> Vec<u8> {
    use peil_proto::sample::{Outcome, Phases, Sample};
    let (check, scheduled_at) = (peil_proto::ids::CheckNo(1), UtcTime(tick * 1_000));
    let (delay, outcome) = (Millis::ZERO, Outcome::Up { code: 0 });
    convert::to_spool(&Record::Sample(Sample { check, scheduled_at, delay, outcome, phases: Phases::default() }))
}

/// The records of the spool in words, with how many ticks they tell, and what gaps say was lost of them.
fn ticks_and_losses(keeper: &mut Keeper) -> (u64, u64) {
    let (mut ticks, mut lost, mut after) = (0, 0, Seq(0));
    loop {
        let page = keeper.spool.read_after(after, 10_000, 1 << 20).expect("readable");
        let Some((last, _)) = page.last() else { return (ticks, lost) };
        after = *last;
        for (_, bytes) in page {
            match convert::from_spool(&bytes).expect("a record") {
                Some(Record::Sample(_)) => ticks += 1,
                Some(Record::Summary(summary)) => ticks += u64::from(summary.count),
                Some(Record::Gap(gap)) => lost += gap.ok_lost,
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_full_spool_folds_every_tick_and_tells_the_rest_when_the_collector_is_back() {
    let limits = Limits { bytes_max: 8_000, segment_bytes: 1_000, keep_free_bytes: 0, ..Limits::default() };
    let (mut keeper, dir) = keeper(limits);
    for tick in 0..800 {
        keeper.append(up(tick), false);
        if tick % 20 == 0 {
            keeper.sync();
        }
    }
    keeper.sync();
    assert!(keeper.spool.bytes() <= limits.bytes_max && !keeper.state.degraded);
    assert_eq!(ticks_and_losses(&mut keeper), (800, 0), "800 ticks that would take 36 kB");
    for tick in 800..3_000 {
        keeper.append(up(tick), false);
        if tick % 50 == 0 {
            keeper.sync();
        }
    }
    keeper.sync();
    assert!(keeper.spool.bytes() <= limits.bytes_max);
    let (ticks, told) = ticks_and_losses(&mut keeper);
    assert_eq!(told, 0, "nobody is there to be told");
    let noted: u64 = Ledger::open(dir.path().join("gaps"), Millis::DAY).gaps().iter().map(|gap| gap.ok_lost).sum();
    assert_eq!(ticks + noted, 3_000);
    let acked = keeper.spool.acked();
    keeper.obey(Command::Release { through: acked });
    let (ticks, told) = ticks_and_losses(&mut keeper);
    assert!(told > 0);
    // The gap took room itself, and what went for it is told next time.
    let noted: u64 = keeper.ledger.gaps().iter().map(|gap| gap.ok_lost).sum();
    assert_eq!(ticks + told + noted, 3_000, "every tick is there or told to be lost");
}

#[test]
fn f8_routine_in_memory_is_folded_before_anything_goes_when_the_disk_fails_for_long() {
    let place = tempfile::tempdir().expect("directory");
    let (room, limits) = Room::new(&place);
    let (mut keeper, _dir) = keeper(limits);
    room.take();
    let ticks = i64::try_from(HELD_MAX).expect("small") + 5_000;
    for tick in 0..ticks {
        keeper.append(up(tick), false);
    }
    keeper.sync();
    assert!(keeper.state.degraded && keeper.held.len() <= HELD_MAX);
    room.give_back();
    keeper.sync();
    assert_eq!(ticks_and_losses(&mut keeper), (ticks.unsigned_abs(), 0));
}
