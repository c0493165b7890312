//! Days in the place of blocks: nothing reads differently, in whatever portions, killed wherever.

use std::future::Future as _;
use std::pin::pin;
use std::task::Poll;

use peil_proto::record::Record;
use peil_proto::time::UtcTime;

use super::super::judge::Judge;
use super::super::trial::{CHECK, NOON, Trial, agent, checks, down, energy, in_force, patch, up};
use super::*;
use crate::derive::{Derived, Kept, rebuild};
use crate::store::blocks::{BlockLimit, Through};

const DAY_S: i64 = 86_400;

fn compact(trial: &Trial, step_blocks: usize) -> Compact {
    Compact { step_blocks, ..trial.compaction(&Tell::default()) }
}

async fn judge(trial: &Trial) -> Judge {
    Judge::start(trial.store.clone(), trial.clock.clone(), checks(), Millis(14 * Millis::DAY.0), trial.leading.clone())
        .await
        .expect("judges")
}

/// Everything that came is judged and its hours are derived: what compaction waits for.
async fn pass(trial: &Trial) {
    judge(trial).await;
    trial.derive(&Tell::default()).activate().await.expect("derived");
}

/// Two days of two agents, with blocks across midnight, an outage, other records, and one block that came late.
async fn send(trial: &mut Trial) {
    for from in [1, 2] {
        for block in 0..24_i64 {
            let start = block * 7_200;
            let mut records: Vec<Record> = (0..12).map(|n| start + n * 600).map(up).collect();
            if block == 3 {
                records = (0..12).map(|n| down(start + n * 600)).collect();
            }
            records.push(energy(block * 120, 1_000));
            records.push(patch(block / 12, &["openssl"]));
            trial.send(agent(from), &records).await;
        }
    }
    trial.send_in(agent(1), 2, &[down(5), up(DAY_S + 7)]).await;
}

/// What follows from the blocks as they came.
async fn from_blocks(store: &Store) -> Derived {
    let blocks = store.blocks_after(Through::NOTHING, BlockLimit::default()).await.expect("read");
    let kept: Vec<_> = blocks.into_iter().map(|b| (b.agent, Kept::Came(history::came(b)))).collect();
    rebuild(kept.iter().map(|(agent, block)| (*agent, block)), &in_force().borrow().holds()).expect("readable")
}

/// What is stored of days, months and states.
async fn stored(store: &Store) -> Derived {
    let (from, to) = (UtcDay(0), UtcDay(1_000_000));
    let days = store.latency_days(None, from, to).await.expect("read");
    let mut pieces = Vec::new();
    for no in [1, 2] {
        pieces.extend(store.state_pieces(agent(no), from, to).await.expect("read"));
    }
    let mut derived = rows::derived(&[], &days, &pieces).expect("readable");
    for row in store.latency_months(None, from, to).await.expect("read") {
        let months = &mut derived.seen.entry((row.agent, row.check)).or_default().months;
        months.insert(row.from, rows::opened(&row).expect("readable"));
    }
    derived
}

fn without_hours(mut derived: Derived) -> Derived {
    derived.seen.values_mut().for_each(|seen| seen.hours.clear());
    derived
}

/// All day blocks, but for how often they were compacted.
async fn day_blocks(store: &Store) -> Vec<DayRow> {
    let mut rows = store.day_blocks_from(UtcDay(0), None, usize::MAX).await.expect("read");
    rows.iter_mut().for_each(|row| row.version = 0);
    rows
}

async fn blocks_left(store: &Store) -> usize {
    store.blocks_after(Through::NOTHING, BlockLimit::default()).await.expect("read").len()
}

async fn after_compaction_everything_reads_as_before(mut trial: Trial) {
    send(&mut trial).await;
    trial.clock.set(NOON.plus(Millis(5 * Millis::DAY.0)));
    pass(&trial).await;
    let (live, derived) = (format!("{:?}", judge(&trial).await.live()), from_blocks(&trial.store).await);
    let hours = trial.store.latency_hours(None, UtcTime(0), UtcTime(i64::MAX)).await.expect("read");

    assert_eq!(compact(&trial, 5).activate().await.expect("compacts"), 49);
    assert_eq!(blocks_left(&trial.store).await, 0);
    assert_eq!(format!("{:?}", judge(&trial).await.live()), live);
    assert_eq!(stored(&trial.store).await, without_hours(derived));
    assert_eq!(trial.store.latency_hours(None, UtcTime(0), UtcTime(i64::MAX)).await.expect("read"), hours);
    assert_eq!(compact(&trial, 5).activate().await.expect("compacts"), 0, "twice is harmless");

    // What comes late marks its hour, and its day is compacted again.
    trial.send_in(agent(2), 3, &[down(25)]).await;
    pass(&trial).await;
    assert_eq!(compact(&trial, 5).activate().await.expect("compacts"), 1);
    let seen = &stored(&trial.store).await.seen[&(agent(2), CHECK)];
    assert_eq!(seen.days[&NOON.day()].period.counts.failed, 13);
    let rows = trial.store.latency_hours(Some(agent(2)), NOON, NOON.plus(Millis::HOUR)).await.expect("read");
    assert_eq!((rows[0].tally.up, rows[0].tally.failed), (6, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_compaction_everything_reads_as_before_on_sqlite() {
    after_compaction_everything_reads_as_before(Trial::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_compaction_everything_reads_as_before_on_postgres() {
    after_compaction_everything_reads_as_before(Trial::on_server().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_that_is_not_over_and_a_block_that_was_not_judged_stay_as_they_came() {
    let mut trial = Trial::new().await;
    trial.send(agent(1), &[up(0)]).await;
    trial.clock.set(NOON.plus(Millis(3 * Millis::DAY.0)));
    assert_eq!(compact(&trial, 5).activate().await.expect("compacts"), 0, "nobody has judged it");
    pass(&trial).await;
    trial.clock.set(NOON.plus(Millis::HOUR));
    assert_eq!(compact(&trial, 5).activate().await.expect("compacts"), 0, "the day goes on");
    trial.clock.set(NOON.plus(Millis(3 * Millis::DAY.0)));
    assert_eq!(compact(&trial, 5).activate().await.expect("compacts"), 1);
}

/// The process dies after every number of turns its work can take: what it wrote by then stands, what it had in mind is
/// gone. Whoever comes next ends up with the same days as if nothing had happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_any_two_turns_compaction_ends_the_same() {
    let mut reference = Trial::new().await;
    send(&mut reference).await;
    reference.clock.set(NOON.plus(Millis(5 * Millis::DAY.0)));
    pass(&reference).await;
    compact(&reference, 7).activate().await.expect("compacts");
    let (wanted, derived) = (day_blocks(&reference.store).await, stored(&reference.store).await);

    for turns in 0.. {
        let mut trial = Trial::new().await;
        send(&mut trial).await;
        trial.clock.set(NOON.plus(Millis(5 * Millis::DAY.0)));
        pass(&trial).await;
        let ended = {
            let mut dying = compact(&trial, 7);
            let mut work = pin!(dying.activate());
            let mut left = turns;
            std::future::poll_fn(|waker| match work.as_mut().poll(waker) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if left == 0 => Poll::Ready(None),
                Poll::Pending => {
                    left -= 1;
                    Poll::Pending
                }
            })
            .await
        };
        // What was handed to the writer is done or not; nobody waits for its answer.
        let path = trial.path().to_owned();
        trial.store.clone().close().await;
        let store = Store::open(&path).expect("opens");
        let mut next = Compact { store: store.clone(), ..compact(&trial, 7) };
        next.activate().await.expect("compacts");
        assert_eq!(blocks_left(&store).await, 0, "after {turns} turns");
        assert!(day_blocks(&store).await == wanted, "after {turns} turns");
        assert!(stored(&store).await == derived, "after {turns} turns");
        if ended.is_some() {
            assert!(turns > 10, "it was never killed in the middle");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_no_longer_fits_changes_nothing() {
    let mut trial = Trial::new().await;
    send(&mut trial).await;
    trial.clock.set(NOON.plus(Millis(5 * Millis::DAY.0)));
    pass(&trial).await;
    let held = trial.leading.borrow().held.clone();
    let before = trial.store.blocks_after(Through::NOTHING, BlockLimit::default()).await.expect("read");
    let step = |sources: Vec<BlockId>, version: u32| Step {
        agent: agent(1),
        sources,
        days: vec![(NOON.day(), version)],
        blocks: vec![DayRow {
            agent: agent(1),
            day: NOON.day(),
            check: None,
            version: 0,
            records: 0,
            bytes: vec![1].into(),
        }],
        derived: DerivedDays::default(),
    };
    let gone = BlockId { no: 9_999, ..before[0].id };
    assert!(!trial.store.compact(step(vec![before[0].id, gone], 0), held.clone()).await.expect("asked"));
    assert!(!trial.store.compact(step(vec![before[0].id], 3), held.clone()).await.expect("asked"));
    assert_eq!(trial.store.blocks_after(Through::NOTHING, BlockLimit::default()).await.expect("read"), before);
    assert_eq!(day_blocks(&trial.store).await, []);
    assert!(trial.store.compact(step(vec![before[0].id], 0), held.clone()).await.expect("asked"));
    assert!(!trial.store.compact(step(vec![before[1].id], 0), held).await.expect("asked"), "it is version 1 now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_cannot_be_read_stays_and_holds_nothing_up() {
    let mut trial = Trial::new().await;
    trial.send(agent(1), &[up(0)]).await;
    let first = trial.next_seq(agent(1));
    trial.send_bytes(agent(1), 1, first, &[up(10)], b"damaged".to_vec()).await;
    trial.send(agent(1), &[up(20)]).await;
    trial.clock.set(NOON.plus(Millis(3 * Millis::DAY.0)));
    pass(&trial).await;
    let mut compact = compact(&trial, 5);
    assert_eq!(compact.activate().await.expect("compacts"), 2);
    assert_eq!(compact.activate().await.expect("compacts"), 0);
    assert_eq!(blocks_left(&trial.store).await, 1);
    assert_eq!(stored(&trial.store).await.seen[&(agent(1), CHECK)].days[&NOON.day()].period.counts.up, 2);
}
