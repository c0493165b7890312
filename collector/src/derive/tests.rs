//! Nothing is lost by compacting, the order of blocks leaves no trace, and hours add up to days and months.

use peil_proto::convert::to_spool;
use peil_proto::record::{HostFacts, Vitals};
use peil_proto::sample::{FailureKind, NotRun, Outcome, Phases};
use peil_proto::units::Micros;
use proptest::prelude::*;

use super::compact::{Compacted, Compaction, Subject};
use super::*;

const AGENT: AgentId = AgentId([7; 16]);
/// 30 November 2026, so that the samples of three days lie in two months.
const DAY: UtcDay = UtcDay(20_787);

fn holds() -> Holds {
    BTreeMap::from([(CheckNo(1), Millis(130_000)), (CheckNo(2), Millis(70_000))])
}

prop_compose! {
    fn any_sample()(
        check in 1..4_u32,
        minute in 0..3 * 1_440_i64,
        outcome in prop_oneof![
            6 => Just(Outcome::Up { code: 200 }),
            2 => Just(Outcome::Failed { kind: FailureKind::Status, code: 503 }),
            1 => Just(Outcome::NotRun(NotRun::Overload)),
        ],
        phases in proptest::array::uniform5(proptest::option::of(0..80_000_000_u32)),
    ) -> Item {
        Item::Sample(Sample {
            check: CheckNo(check),
            scheduled_at: DAY.start().plus(Millis(minute * 60_000)),
            delay: Millis(minute % 5),
            outcome,
            phases: Phases::from_array(phases.map(|time| time.map(Micros))),
        })
    }
}

fn any_other() -> impl Strategy<Value = Item> {
    let vitals = (0..3 * 1_440_i64, any::<u64>()).prop_map(|(minute, rss_bytes)| {
        Record::Vitals(Vitals { at: DAY.start().plus(Millis(minute * 60_000)), rss_bytes, ..Vitals::default() })
    });
    let summary = (0..3 * 1_440_i64, 1..50_i64).prop_map(|(minute, count)| {
        let sample = |n: i64| Sample { check: CheckNo(1), ..up(minute + n, 700) };
        let mut summary = Summary::of(&sample(0)).expect("a success");
        (1..count).for_each(|n| assert!(summary.take(&sample(n))));
        Record::Summary(summary)
    });
    let facts = any::<u32>().prop_map(|cpus| Record::Facts(HostFacts { cpus, ..HostFacts::default() }));
    prop_oneof![vitals, facts, summary].prop_map(|record| Item::Other(to_spool(&record)))
}

/// What an agent sent: records in blocks, some with leading records that were stored before, in two epochs.
fn any_blocks() -> impl Strategy<Value = Vec<Came>> {
    let items = proptest::collection::vec(prop_oneof![9 => any_sample(), 1 => any_other()], 2..40);
    proptest::collection::vec((items, 0..2_u32, any::<bool>()), 1..8).prop_map(|blocks| {
        let mut next = BTreeMap::from([(Epoch(9), 1), (Epoch(4), 1)]);
        let of = |(place, (items, skip, old)): (u64, (Vec<Item>, u32, bool))| {
            let epoch = if old { Epoch(9) } else { Epoch(4) };
            let first = Seq(next[&epoch]);
            next.insert(epoch, first.0 + items.len() as u64);
            let received_at = DAY.start().plus(Millis(i64::try_from(place).expect("small") * Millis::HOUR.0));
            Came { place, epoch, first, skip, received_at, bytes: block::encode(first, &items).into() }
        };
        (1..).zip(blocks).map(of).collect()
    })
}

fn samples(blocks: &[Came]) -> Vec<Sample> {
    sorted(blocks.iter().flat_map(|came| came.items().expect("readable")).filter_map(|item| sample_in(&item)).collect())
}

fn sorted(mut samples: Vec<Sample>) -> Vec<Sample> {
    samples.sort_by_key(|s| (s.check, s.scheduled_at, s.delay, s.outcome, s.phases.to_array()));
    samples
}

fn compacted(blocks: &[Came]) -> Vec<Compacted> {
    let mut compaction = Compaction::default();
    for block in blocks {
        compaction.take(block).expect("readable");
    }
    compaction.finish().expect("fits")
}

fn opened(blocks: &[Compacted]) -> Vec<DayBlock> {
    blocks.iter().map(|block| day::decode(&block.bytes).expect("readable")).collect()
}

fn came(blocks: &[Came]) -> Derived {
    let kept: Vec<_> = blocks.iter().cloned().map(Kept::Came).collect();
    rebuild(kept.iter().map(|block| (AGENT, block)), &holds()).expect("readable")
}

fn of_days(blocks: &[Compacted]) -> Derived {
    let kept: Vec<_> = blocks.iter().map(|block| Kept::Day(Bytes::from(block.bytes.clone()))).collect();
    rebuild(kept.iter().map(|block| (AGENT, block)), &holds()).expect("readable")
}

proptest! {
    #[test]
    fn compacting_loses_no_record(blocks in any_blocks()) {
        let days = opened(&compacted(&blocks));
        let kept = days.iter().filter_map(|block| match block {
            DayBlock::Check(day) => Some(day.samples.clone()),
            DayBlock::Rest(_) => None,
        });
        prop_assert_eq!(sorted(kept.flatten().collect()), samples(&blocks));

        let mut others = BTreeMap::new();
        let mut records = 0;
        for ledger in days.iter().filter_map(|block| if let DayBlock::Rest(ledger) = block { Some(ledger) } else { None }) {
            records += ledger.records;
            others.extend(ledger.others.clone());
        }
        let mut sent = BTreeMap::new();
        let mut count = 0;
        let crosses = |item: &Item| match convert::from_item(item) {
            Ok(Some(Record::Summary(summary))) => summary.first.day() != summary.last().day(),
            _ => false,
        };
        for block in &blocks {
            let items = block.items().expect("readable");
            count += (items.len() + items.iter().filter(|item| crosses(item)).count()) as u64;
            for (seq, item) in (block.first.0 + u64::from(block.skip)..).zip(items) {
                if let Item::Other(bytes) = item {
                    sent.insert((block.epoch, Seq(seq)), bytes);
                }
            }
        }
        prop_assert_eq!((others, records), (sent, count));
    }

    #[test]
    fn compacting_in_any_order_and_portions_gives_the_same_bytes(
        blocks in any_blocks(),
        order in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = compacted(&blocks);
        let mut turned = blocks.clone();
        turned.rotate_left(order.index(blocks.len()));
        turned.reverse();
        prop_assert_eq!(&compacted(&turned), &whole);

        let (first, second) = turned.split_at(cut.index(turned.len() + 1));
        let mut late = Compaction::default();
        opened(&compacted(first)).into_iter().for_each(|block| late.take_day(block));
        for block in second {
            late.take(block).expect("readable");
        }
        prop_assert_eq!(&late.finish().expect("fits"), &whole);

        let mut halves = Compaction::default();
        opened(&compacted(second)).into_iter().for_each(|block| halves.take_day(block));
        opened(&compacted(first)).into_iter().for_each(|block| halves.take_day(block));
        let halves = halves.finish().expect("fits");
        prop_assert_eq!(&halves, &whole);

        let mut again = Compaction::default();
        opened(&halves).into_iter().for_each(|block| again.take_day(block));
        prop_assert_eq!(&again.finish().expect("fits"), &whole);
    }

    #[test]
    fn what_follows_is_the_same_before_and_after_compacting_and_in_any_order(
        blocks in any_blocks(),
        order in any::<prop::sample::Index>(),
    ) {
        let derived = came(&blocks);
        let mut turned = blocks.clone();
        turned.rotate_left(order.index(blocks.len()));
        turned.reverse();
        prop_assert_eq!(&came(&turned), &derived);
        prop_assert_eq!(&of_days(&compacted(&blocks)), &derived);
        prop_assert_eq!(diff(&derived, &came(&turned)), vec![]);
    }

    #[test]
    fn the_hours_of_a_day_are_the_day_and_its_days_the_month_byte_for_byte(blocks in any_blocks()) {
        for seen in came(&blocks).seen.values() {
            for (start, day) in &seen.days {
                let mut sum = Hour::default();
                seen.hours.iter().rev().filter(|(hour, _)| hour.day() == *start).for_each(|(_, hour)| sum.add(hour));
                prop_assert_eq!(sum.counts, day.period.counts);
                prop_assert_eq!(sum.total.to_v2(), day.period.total.to_v2());
            }
            for (start, month) in &seen.months {
                let mut sum = Period::default();
                seen.days.iter().rev().filter(|(day, _)| day.month_start() == *start).for_each(|(_, day)| sum.add(&day.period));
                prop_assert_eq!(&sum, month);
            }
        }
    }

    #[test]
    fn the_changes_of_days_joined_are_those_of_all_samples(blocks in any_blocks()) {
        let all: Vec<_> = blocks.iter().flat_map(|came| came.samples().expect("readable")).collect();
        for ((_, check), seen) in &came(&blocks).seen {
            let Some(hold) = holds().get(check).copied() else {
                prop_assert!(seen.days.values().all(|day| day.pieces.is_empty()));
                continue;
            };
            let joined = Track::of_pieces(hold, seen.days.values().flat_map(|day| day.pieces.clone()));
            let of_check = all.iter().filter(|sample| sample.check == *check);
            let states: Vec<_> = of_check.map(|sample| (sample.scheduled_at, sample.outcome.state())).collect();
            prop_assert_eq!(joined.to_pieces(), Track::of_samples(hold, &states).to_pieces());
        }
    }
}

fn up(minute: i64, connect: u32) -> Sample {
    Sample {
        check: CheckNo(1),
        scheduled_at: DAY.start().plus(Millis(minute * 60_000)),
        delay: Millis(1),
        outcome: Outcome::Up { code: 0 },
        phases: Phases { connect: Some(Micros(connect)), ..Phases::default() },
    }
}

fn derived(samples: &[Sample]) -> Derived {
    let mut fold = Fold::default();
    samples.iter().for_each(|sample| fold.sample(AGENT, sample));
    fold.finish(&holds())
}

#[test]
fn only_successes_are_timed_and_what_is_out_of_range_is_counted() {
    let failed = Sample { outcome: Outcome::Failed { kind: FailureKind::Timeout, code: 0 }, ..up(2, 5_000_000) };
    let not_run = Sample { outcome: Outcome::NotRun(NotRun::Overrun), phases: Phases::default(), ..up(3, 0) };
    let untimed = Sample { phases: Phases::default(), ..up(4, 0) };
    let derived = derived(&[up(0, 300), up(1, 70_000_000), failed, not_run, untimed]);
    let hour = &derived.seen[&(AGENT, CheckNo(1))].hours[&DAY.start()];
    assert_eq!(hour.counts, period::Counts { up: 3, failed: 1, not_run: 1, held: 1 });
    assert_eq!(hour.total.count(), 2);
    let day = &derived.seen[&(AGENT, CheckNo(1))].days[&DAY].period;
    assert_eq!(day.phases.each_ref().map(histogram::Histogram::count), [0, 2, 0, 0, 0]);
}

#[test]
fn a_difference_is_told_in_words() {
    let good = derived(&[up(0, 300), up(1, 310), up(2, 320)]);
    let mut bad = derived(&[up(0, 300), up(1, 310)]);
    let told: Vec<String> = diff(&bad, &good).iter().map(ToString::to_string).collect();
    assert_eq!(
        told[0],
        "check 1 as agent 07070707070707070707070707070707 saw it, hour from 2026-11-30T00:00:00Z: \
         2 up, 0 failed, 0 not run are stored, the blocks have 3 up, 0 failed, 0 not run"
    );
    let seen = bad.seen.get_mut(&(AGENT, CheckNo(1))).expect("seen");
    seen.hours.clear();
    seen.months.insert(DAY.next(), Period::default());
    seen.days = good.seen[&(AGENT, CheckNo(1))].days.clone();
    seen.days.get_mut(&DAY).expect("a day").pieces.clear();
    let told: Vec<String> = diff(&bad, &good).iter().map(|difference| difference.what.to_string()).collect();
    assert_eq!(
        told,
        [
            "nothing is stored, the blocks have 3 up, 0 failed, 0 not run",
            "the states are stored in 0 pieces, the blocks have 1; they differ from 2026-11-30T00:00:00Z on",
            "2 up, 0 failed, 0 not run are stored, the blocks have 3 up, 0 failed, 0 not run",
            "the times of total are stored as 2 values (half within 301 µs, 99 % within 311 µs), \
             the blocks have 3 values (half within 311 µs, 99 % within 321 µs)",
            "the times of connect are stored as 2 values (half within 301 µs, 99 % within 311 µs), \
             the blocks have 3 values (half within 311 µs, 99 % within 321 µs)",
            "0 up, 0 failed, 0 not run are stored, the blocks have nothing",
        ]
    );
}

#[test]
fn a_damaged_block_is_told_and_nothing_of_it_is_taken() {
    let mut bytes = block::encode(Seq(1), &[Item::Sample(up(0, 300))]);
    bytes[9] ^= 1;
    let damaged =
        Came { place: 1, epoch: Epoch(1), first: Seq(1), skip: 0, received_at: DAY.start(), bytes: bytes.into() };
    let mut compaction = Compaction::default();
    assert!(matches!(compaction.take(&damaged), Err(Unreadable::Came(BlockError::Checksum))));
    assert_eq!(compaction.subjects().count(), 0);
    let mut fold = Fold::default();
    assert!(fold.absorb(AGENT, &Kept::Came(damaged)).is_err());
    assert_eq!(fold.finish(&holds()), Derived::default());
}

#[test]
fn each_day_has_a_block_per_check_and_one_for_the_rest() {
    let items: Vec<Item> =
        [up(5, 300), up(1_445, 310), Sample { check: CheckNo(2), ..up(7, 9) }].map(Item::Sample).into();
    let bytes = block::encode(Seq(1), &items).into();
    let one = Came { place: 1, epoch: Epoch(1), first: Seq(1), skip: 0, received_at: DAY.start(), bytes };
    let blocks = compacted(&[one]);
    let keys: Vec<_> = blocks.iter().map(|block| (block.day, block.subject, block.records)).collect();
    let (first, second) = (DAY, DAY.next());
    assert_eq!(
        keys,
        [
            (first, Subject::Check(CheckNo(1)), 1),
            (first, Subject::Check(CheckNo(2)), 1),
            (second, Subject::Check(CheckNo(1)), 1),
            (first, Subject::Rest, 0),
            (second, Subject::Rest, 0),
        ]
    );
}
