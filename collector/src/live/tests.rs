//! Memory follows the records, not the order in which they came.

use super::*;
use peil_proto::ids::Seq;
use peil_proto::plan::{CheckKind, Tcp};
use peil_proto::record::Certificate;
use peil_proto::sample::{FailureKind, Outcome, Phases};
use peil_proto::units::Microjoules;

const AGENT: AgentId = AgentId([7; 16]);
const LONG_AGO: UtcTime = UtcTime(-Millis::DAY.0);

fn live() -> Live {
    let kind = CheckKind::Tcp(Tcp { address: "h:1".into(), ..Tcp::default() });
    let check = CheckDef { no: CheckNo(1), name: "a".into(), interval_ms: 10_000, timeout_ms: 1_000, kind };
    Live::new(BTreeMap::from([(CheckNo(1), check)]), LONG_AGO)
}

fn up(at: i64) -> Item {
    sample(at, Outcome::Up { code: 0 })
}

fn down(at: i64) -> Item {
    sample(at, Outcome::Failed { kind: FailureKind::Refused, code: 0 })
}

fn sample(at: i64, outcome: Outcome) -> Item {
    Item::Sample(Sample {
        check: CheckNo(1),
        scheduled_at: UtcTime(at),
        delay: Millis(0),
        outcome,
        phases: Phases::default(),
    })
}

fn item(record: &Record) -> Item {
    convert::to_item(&convert::to_spool(record)).expect("a record")
}

fn absorb(live: &mut Live, items: &[Item]) -> Changes {
    let mut changes = Changes::default();
    live.absorb(AGENT, &block::encode(Seq(1), items), 0, Pass::New, &mut changes).expect("a block");
    changes
}

#[test]
fn skipped_records_are_not_folded_twice() {
    let mut live = live();
    let mut changes = Changes::default();
    live.absorb(AGENT, &block::encode(Seq(1), &[up(0), up(10_000)]), 0, Pass::New, &mut changes).expect("a block");
    live.absorb(AGENT, &block::encode(Seq(2), &[up(10_000), up(20_000)]), 1, Pass::New, &mut changes).expect("a block");
    let (_, vantage) = live.vantages_of(CheckNo(1)).next().expect("one vantage");
    assert_eq!(vantage.track.newest(), Some((UtcTime(20_000), State::Up)));
    assert!(changes.late.is_empty());
}

#[test]
fn a_late_sample_between_others_is_folded_in() {
    let mut live = live();
    let changes = absorb(&mut live, &[up(0), up(20_000), up(10_000)]);
    assert!(changes.late.is_empty());
    let (_, vantage) = live.vantages_of(CheckNo(1)).next().expect("one vantage");
    let samples = [0, 10_000, 20_000].map(|at| (UtcTime(at), State::Up));
    assert_eq!(vantage.track, Track::of_samples(Millis(21_000), &samples));
}

#[test]
fn a_late_sample_that_breaks_a_run_marks_its_time_and_a_new_track_takes_the_place_of_the_old() {
    let mut live = live();
    let changes = absorb(&mut live, &[up(0), up(20_000), up(30_000), down(10_000)]);
    let due = Span::new(UtcTime(10_000), UtcTime(10_001));
    assert_eq!(changes.late.iter().collect::<Vec<_>>(), [(CheckNo(1), AGENT, due)]);
    let samples = [(UtcTime(20_000), State::Up), (UtcTime(10_000), State::Down), (UtcTime(0), State::Up)];
    live.replace_track(CheckNo(1), AGENT, &samples);
    let (_, vantage) = live.vantages_of(CheckNo(1)).next().expect("one vantage");
    assert_eq!(vantage.track, Track::of_samples(Millis(21_000), &samples));
}

#[test]
fn samples_of_a_check_that_is_not_configured_are_kept_out() {
    let mut live = live();
    let stranger = Item::Sample(Sample {
        check: CheckNo(2),
        scheduled_at: UtcTime(0),
        delay: Millis(0),
        outcome: Outcome::Up { code: 0 },
        phases: Phases::default(),
    });
    absorb(&mut live, &[stranger]);
    assert_eq!(live.vantages_of(CheckNo(2)).count(), 0);
}

#[test]
fn what_is_newest_by_its_own_time_stays_whatever_comes_last() {
    let vitals = |at| item(&Record::Vitals(Vitals { at: UtcTime(at), ..Vitals::default() }));
    let reading = |end| {
        let reading = EnergyReading { source: "rapl".into(), end: UtcTime(end), ..EnergyReading::default() };
        item(&Record::Energy(reading))
    };
    let report = |at| item(&Record::Patch(PatchReport { scanned_at: UtcTime(at), ..PatchReport::default() }));
    let detail = |at, not_after| {
        let certificate = Certificate {
            subject: String::new(),
            issuer: String::new(),
            not_before: UtcTime(0),
            not_after: UtcTime(not_after),
            sha256: [0; 32],
        };
        let detail = ProbeDetail {
            check: CheckNo(1),
            scheduled_at: UtcTime(at),
            peer: String::new(),
            text: format!("{at}"),
            certificate: Some(certificate),
        };
        item(&Record::Detail(detail))
    };
    let newer = [vitals(9), reading(9), report(9), detail(9, 900)];
    let older = [vitals(5), reading(5), report(5), detail(5, 500)];
    for order in [[&newer, &older], [&older, &newer]] {
        let mut live = live();
        for items in order {
            absorb(&mut live, items);
        }
        let host = live.host(AGENT).expect("a host");
        assert_eq!(host.vitals.as_ref().map(|vitals| vitals.at), Some(UtcTime(9)));
        assert_eq!(host.reading.as_ref().map(|reading| reading.end), Some(UtcTime(9)));
        assert_eq!(host.patch.as_ref().map(|report| report.scanned_at), Some(UtcTime(9)));
        let (_, vantage) = live.vantages_of(CheckNo(1)).next().expect("one vantage");
        assert_eq!(vantage.detail.as_ref().map(|detail| detail.text.as_str()), Some("9"));
        assert_eq!(vantage.cert_not_after, Some(UtcTime(900)));
    }
}

#[test]
fn energy_of_an_hour_that_is_not_in_memory_is_marked_and_not_begun_from_nothing() {
    let mut live = live();
    let reading = |start| {
        let (start, end) = (UtcTime(start), UtcTime(start + 60_000));
        item(&Record::Energy(EnergyReading {
            source: "rapl".into(),
            start,
            end,
            energy: Microjoules(60),
            high: Microjoules(60),
            ..EnergyReading::default()
        }))
    };
    let hour = Millis::HOUR.0;
    absorb(&mut live, &[reading(0), reading(hour)]);
    live.forget_before(UtcTime(1));
    let changes = absorb(&mut live, &[reading(60_000), reading(hour + 60_000)]);
    assert_eq!(changes.forgotten_hours, BTreeSet::from([(AGENT, UtcTime(0))]));
    assert_eq!(changes.hours, BTreeSet::from([(AGENT, UtcTime(hour))]));
    let hours: Vec<_> = live.host(AGENT).expect("a host").hours.iter().collect();
    assert_eq!(hours.len(), 1, "the hour in which the horizon lies is not whole");
    assert_eq!((hours[0].0.0, hours[0].1.energy), (UtcTime(hour), Microjoules(120)));
}

#[test]
fn a_summary_counts_as_the_samples_it_was_made_of_also_beside_them() {
    let sample = |at| match up(at) {
        Item::Sample(sample) => sample,
        Item::Other(_) => panic!("a sample"),
    };
    let mut summary = Summary::of(&sample(0)).expect("up");
    assert!((1..30).all(|tick| summary.take(&sample(tick * 10_000))));
    let summary = item(&Record::Summary(summary));
    let all: Vec<Item> = (0..30).map(|tick| up(tick * 10_000)).collect();
    let (mut folded, mut whole) = (live(), live());
    absorb(&mut folded, std::slice::from_ref(&summary));
    absorb(&mut whole, &all);
    let track = |live: &Live| live.vantages_of(CheckNo(1)).next().map(|(_, vantage)| vantage.track.clone());
    assert_eq!(track(&folded), track(&whole));
    let read = |items: &[Item]| {
        Track::of_samples(
            Millis(21_000),
            &items.iter().flat_map(states).map(|(_, at, state)| (at, state)).collect::<Vec<_>>(),
        )
    };
    assert_eq!(read(std::slice::from_ref(&summary)), read(&all));
    assert_eq!(read(&[&[summary], &all[..]].concat()), read(&all));
}
