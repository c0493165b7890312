//! What is folded, what stays, and that nothing goes untold.

use proptest::prelude::*;

use peil_proto::record::Vitals;
use peil_proto::sample::{FailureKind, NotRun, Outcome, Phases};
use peil_proto::units::{Micros, Millis};

use super::*;

const UP: Outcome = Outcome::Up { code: 200 };
const DOWN: Outcome = Outcome::Failed { kind: FailureKind::Refused, code: 0 };

fn sample(check: u32, tick: i64, outcome: Outcome) -> Sample {
    let phases = Phases { connect: Some(Micros(200)), ..Phases::default() };
    let scheduled_at = UtcTime(tick * 10_000 + i64::from(check));
    Sample { check: CheckNo(check), scheduled_at, delay: Millis(1), outcome, phases }
}

fn spooled(records: &[Record]) -> Vec<Vec<u8>> {
    records.iter().map(convert::to_spool).collect()
}

fn read(records: &[Vec<u8>]) -> Vec<Record> {
    records.iter().map(|bytes| convert::from_spool(bytes).expect("a record").expect("known")).collect()
}

fn digest() -> (RecordDigest, Ledger, tempfile::TempDir) {
    let place = tempfile::tempdir().expect("directory");
    let ledger = Ledger::open(place.path().join("gaps"), Millis::DAY);
    (RecordDigest::new(ledger.clone(), WallClock::manual(UtcTime(0))), ledger, place)
}

/// Every tick that records tell, with its outcome.
fn ticks(records: &[Record]) -> Vec<(CheckNo, UtcTime, Outcome)> {
    let mut all: Vec<_> = records
        .iter()
        .flat_map(|record| match record {
            Record::Sample(sample) => vec![(sample.check, sample.scheduled_at, sample.outcome)],
            Record::Summary(summary) => summary.ticks().map(|at| (summary.check, at, summary.outcome())).collect(),
            _ => Vec::new(),
        })
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn an_hour_of_routine_becomes_one_record_and_trouble_with_its_ends_stays() {
    let mut records: Vec<Record> = (0..360).map(|tick| Record::Sample(sample(1, tick, UP))).collect();
    records[100] = Record::Sample(sample(1, 100, DOWN));
    records.insert(200, Record::Vitals(Vitals::default()));
    let folded = read(&fold(&spooled(&records)));
    assert_eq!(ticks(&folded), ticks(&records), "no tick is lost");
    let words: Vec<&str> = folded
        .iter()
        .map(|record| match record {
            Record::Summary(_) => "summary",
            Record::Sample(sample) if sample.outcome == DOWN => "down",
            Record::Sample(_) => "up again",
            _ => "other",
        })
        .collect();
    assert_eq!(words, ["summary", "down", "up again", "other", "summary"]);
}

#[test]
fn trouble_only_keeps_every_outage_with_its_end_and_the_ledger_counts_the_rest() {
    let (mut digest, ledger, _place) = digest();
    let outcomes = [UP, UP, UP, DOWN, DOWN, UP, UP];
    let records: Vec<Record> =
        (0..).zip(outcomes).map(|(tick, outcome)| Record::Sample(sample(1, tick, outcome))).collect();
    let kept = read(&digest.thin(&spooled(&records), Thin::TroubleOnly).expect("written down"));
    assert_eq!(ticks(&kept).iter().map(|(_, _, outcome)| *outcome).collect::<Vec<_>>(), [DOWN, DOWN, UP]);
    let gaps = ledger.gaps();
    assert_eq!(
        gaps.iter().map(|gap| (gap.check, gap.records_lost, gap.ok_lost, gap.not_ok_lost)).collect::<Vec<_>>(),
        [(Some(CheckNo(1)), 4, 4, 0)]
    );
    assert_eq!((gaps[0].from, gaps[0].to), (UtcTime(1), UtcTime(60_001)));
    let only_routine = spooled(&[Record::Sample(sample(1, 0, UP)), Record::Sample(sample(1, 1, UP))]);
    assert_eq!(digest.thin(&only_routine, Thin::TroubleOnly).expect("written down").len(), 1, "a segment has a record");
}

#[test]
fn what_goes_is_in_the_ledger_first_or_stays() {
    let place = tempfile::tempdir().expect("directory");
    let ledger = Ledger::open(place.path().join("not-there/gaps"), Millis::DAY);
    let mut digest = RecordDigest::new(ledger, WallClock::manual(UtcTime(0)));
    let records = spooled(&[Record::Sample(sample(1, 0, UP)), Record::Sample(sample(1, 1, DOWN))]);
    assert!(digest.forget(&records).is_err());
    assert!(digest.thin(&records, Thin::TroubleOnly).is_err());
}

#[test]
fn a_record_is_past_when_it_is_older_than_the_agreed_age() {
    let (_, ledger, _place) = digest();
    let old = convert::to_spool(&Record::Sample(sample(0, 0, UP)));
    let at = |now| RecordDigest::new(ledger.clone(), WallClock::manual(UtcTime(now))).is_past(&old);
    assert!(!at(Millis::DAY.0) && at(Millis::DAY.0 + 1));
    assert!(!RecordDigest::new(ledger, WallClock::manual(UtcTime(i64::MAX))).is_past(b"not a record"));
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![8 => Just(UP), 1 => Just(Outcome::Up { code: 204 }), 1 => Just(DOWN), 1 => Just(Outcome::NotRun(NotRun::Overrun))]
}

proptest! {
    /// Whatever comes: ticks with outcomes stay the same, order per check stays, also when it is folded again, and
    /// kept plus ledger is everything.
    #[test]
    fn nothing_is_lost_untold(samples in prop::collection::vec((1_u32..4, 0_i64..3, outcome()), 1..200)) {
        let mut at = 0;
        let records: Vec<Record> = samples.iter().map(|(check, step, outcome)| {
            at += step + 1;
            Record::Sample(sample(*check, at, *outcome))
        }).collect();
        let bytes = spooled(&records);
        let folded = fold(&bytes);
        prop_assert_eq!(ticks(&read(&folded)), ticks(&records));
        prop_assert_eq!(ticks(&read(&fold(&folded))), ticks(&records));
        let mut newest = BTreeMap::new();
        for record in read(&folded) {
            for (check, at, _) in ticks(&[record]) {
                prop_assert!(newest.insert(check, at).is_none_or(|before| before < at));
            }
        }
        let (mut digest, ledger, _place) = digest();
        let kept = digest.thin(&folded, Thin::TroubleOnly).expect("written down");
        let not_up = |records: &[Record]| ticks(records).iter().filter(|(_, _, outcome)| outcome.state() != State::Up).count();
        prop_assert_eq!(not_up(&read(&kept)), not_up(&records));
        let told: u64 = ledger.gaps().iter().map(|gap| gap.ok_lost).sum();
        prop_assert_eq!(ticks(&read(&kept)).len() as u64 + told, records.len() as u64);
    }
}
