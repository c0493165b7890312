//! The conformance vectors of the step rules, and properties that hold for any counter.

use proptest::prelude::*;

use super::*;

const INTEL: u64 = 262_143_328_850;
const AMD: u64 = 65_532_610_987;
const SERVER_DRAM: u64 = 65_712_999_613;
const J: u64 = 1_000_000;

struct Tick {
    boot: &'static str,
    mono_s: u64,
    boottime_s: u64,
    /// Counter in µJ; `None`: the read failed.
    read: Option<u64>,
}

fn at(mono_s: u64, read: u64) -> Tick {
    Tick { boot: "A", mono_s, boottime_s: mono_s, read: Some(read) }
}

fn failed(mono_s: u64) -> Tick {
    Tick { boot: "A", mono_s, boottime_s: mono_s, read: None }
}

fn run(range_uj: u64, pmax_w: u64, ticks: &[Tick]) -> Vec<(Flag, u64, u64, u64)> {
    let mut zone = ZoneIntegrator::default();
    let step = |tick: &Tick| {
        let moment = Moment { boot_id: tick.boot, mono_ms: tick.mono_s * 1_000, boottime_ms: tick.boottime_s * 1_000 };
        let counter = tick.read.map(|energy_uj| Counter { energy_uj, range_uj, pmax_mw: pmax_w * 1_000 });
        let step = zone.step(&moment, counter.as_ref());
        (step.flag, step.energy.0, step.low.0, step.high.0)
    };
    ticks.iter().map(step).collect()
}

fn exact(flag: Flag, uj: u64) -> (Flag, u64, u64, u64) {
    (flag, uj, uj, uj)
}

const BASELINE: (Flag, u64, u64, u64) = (Flag::Baseline, 0, 0, 0);
const ERROR: (Flag, u64, u64, u64) = (Flag::Error, 0, 0, 0);
const SUSPECT: (Flag, u64, u64, u64) = (Flag::Suspect, 0, 0, 0);

/// A name, range, Pmax in W, ticks, and the step each must give.
type Vector = (&'static str, u64, u64, Vec<Tick>, Vec<(Flag, u64, u64, u64)>);

fn vectors() -> Vec<Vector> {
    let slept = |mono_s, read| Tick { boot: "A", mono_s, boottime_s: mono_s + 3_600, read: Some(read) };
    let rebooted = |mono_s, read| Tick { boot: "B", mono_s, boottime_s: mono_s, read: Some(read) };
    vec![
        ("1 plain", INTEL, 500, vec![at(0, 1_000 * J), at(10, 3_000 * J)], vec![BASELINE, exact(Flag::Ok, 2_000 * J)]),
        (
            "2 wrap",
            INTEL,
            500,
            vec![at(0, 262_143_000_000), at(10, 1_000_000)],
            vec![BASELINE, exact(Flag::Wrap, 1_328_850)],
        ),
        (
            "3 a dram counter wraps by its own range",
            SERVER_DRAM,
            500,
            vec![at(0, 65_712_900_000), at(10, 400_000)],
            vec![BASELINE, exact(Flag::Wrap, 499_613)],
        ),
        (
            "5 missed samples with a history",
            AMD,
            280,
            // 2 800 J in 10 s, then 84 kJ in 300 s: 10 kJ + 84 kJ − range is what the counter shows.
            vec![at(0, 7_200 * J), at(10, 10_000 * J), at(310, 10_000 * J + 84_000 * J - AMD)],
            vec![
                BASELINE,
                exact(Flag::Ok, 2_800 * J),
                (Flag::Ambiguous, 84_000_000_000, 18_467_389_013, 84_000_000_000),
            ],
        ),
        (
            "5 missed samples without a history",
            AMD,
            280,
            vec![at(0, 10_000 * J), at(300, 10_000 * J + 18_467_389_013)],
            vec![BASELINE, (Flag::Ambiguous, 18_467_389_013, 18_467_389_013, 84_000_000_000)],
        ),
        (
            "6 a glitch is stepped over and what it hid is bridged",
            AMD,
            100,
            vec![at(0, 10_000 * J), at(1, 10_006_200_000), at(2, 10_708_610_000), at(3, 10_018_600_000)],
            vec![BASELINE, exact(Flag::Ok, 6_200_000), SUSPECT, exact(Flag::Bridged, 12_400_000)],
        ),
        (
            "7 a counter that was cleared is believed at the third reading",
            INTEL,
            500,
            vec![at(0, 50_000 * J), at(10, 100 * J), at(20, 1_100 * J), at(30, 2_100 * J), at(40, 3_100 * J)],
            vec![BASELINE, SUSPECT, SUSPECT, (Flag::Rebaseline, 0, 0, 15_000 * J), exact(Flag::Ok, 1_000 * J)],
        ),
        (
            "8 reboot",
            INTEL,
            500,
            vec![at(5_000, 200_000 * J), rebooted(30, 3_000 * J), rebooted(40, 4_000 * J)],
            vec![BASELINE, (Flag::ResetBoot, 0, 0, 3_000 * J), exact(Flag::Ok, 1_000 * J)],
        ),
        (
            "8 firmware kept the counter over the reboot: the uptime is the bound",
            INTEL,
            500,
            vec![at(5_000, 200_000 * J), rebooted(30, 201_000 * J)],
            vec![BASELINE, (Flag::ResetBoot, 0, 0, 15_001 * J)],
        ),
        (
            "9 suspend that cleared the counter",
            INTEL,
            500,
            vec![at(0, 50_000 * J), slept(10, 400 * J)],
            vec![BASELINE, exact(Flag::SuspendReset, 400 * J)],
        ),
        (
            "9 suspend that kept the counter",
            INTEL,
            500,
            vec![at(0, 50_000 * J), slept(10, 50_900 * J)],
            vec![BASELINE, exact(Flag::Ok, 900 * J)],
        ),
        (
            "9 suspend near the end of the range: a wrap is possible too",
            INTEL,
            500,
            vec![at(0, 262_143_000_000), slept(10, 1_000_000)],
            vec![BASELINE, (Flag::SuspendReset, 1_000_000, 1_000_000, 1_328_850)],
        ),
        (
            "10 a gap of 40 s within the horizon is exact",
            INTEL,
            500,
            vec![at(0, 10_000 * J), at(40, 14_000 * J)],
            vec![BASELINE, exact(Flag::Ok, 4_000 * J)],
        ),
        (
            "10 a gap of 700 s is beyond the horizon",
            INTEL,
            500,
            vec![at(0, 10_000 * J), at(700, 14_000 * J)],
            vec![BASELINE, (Flag::Ambiguous, 4_000 * J, 4_000 * J, 4_000 * J + INTEL)],
        ),
        (
            "12 without a range a falling counter is a gap",
            0,
            500,
            vec![at(0, 50_000 * J), at(10, 100 * J), at(20, 1_100 * J)],
            vec![BASELINE, (Flag::GapNoRange, 0, 0, 5_000 * J), exact(Flag::Ok, 1_000 * J)],
        ),
        (
            "13 what a failed read hid is credited by the next good one",
            INTEL,
            500,
            vec![at(0, 1_000 * J), failed(10), at(20, 1_200 * J)],
            vec![BASELINE, ERROR, exact(Flag::Bridged, 200 * J)],
        ),
        (
            "14 a zone that first fails starts with its first reading",
            INTEL,
            500,
            vec![failed(0), at(10, 5_000 * J), at(20, 5_010 * J)],
            vec![ERROR, BASELINE, exact(Flag::Ok, 10 * J)],
        ),
        (
            "15 psys that counts in whole joules",
            4_294_967_295_000_000,
            500,
            vec![at(0, 60_293_987_000_000), at(10, 60_294_187_000_000)],
            vec![BASELINE, exact(Flag::Ok, 200 * J)],
        ),
        (
            "a reading beyond its own range is never an underflow",
            1_000,
            500,
            vec![at(0, u64::MAX), at(1, 5)],
            vec![BASELINE, SUSPECT],
        ),
    ]
}

#[test]
fn the_conformance_vectors_hold() {
    for (name, range, pmax, ticks, expected) in vectors() {
        assert_eq!(run(range, pmax, &ticks), expected, "{name}");
    }
}

#[test]
fn f30_two_interleaved_counters_never_make_a_spike() {
    // Two sockets of a host leak into a guest by turns: 113 781 J apart, 1 s between readings.
    let ticks: Vec<_> = (0..100).map(|i| at(i, 10_000 * J + i * 20 * J + (i % 2) * 113_781 * J)).collect();
    let steps = run(AMD, 300, &ticks);
    let total: u64 = steps.iter().map(|step| step.1).sum();
    assert!(steps.iter().all(|step| step.1 <= 601 * J), "{steps:?}");
    assert!(steps.iter().filter(|step| step.0 == Flag::Suspect).count() >= 20);
    assert!(total <= 99 * 301 * J, "{total}");
}

#[test]
fn a_zone_goes_on_after_it_was_written_and_read() {
    let moment = |mono_ms| Moment { boot_id: "A", mono_ms, boottime_ms: mono_ms };
    let counter = |energy_uj| Counter { energy_uj, range_uj: INTEL, pmax_mw: 500_000 };
    let mut zone = ZoneIntegrator::default();
    let _ = zone.step(&moment(0), Some(&counter(10_000 * J)));
    let text = serde_json::to_string(&zone).unwrap();
    let mut again: ZoneIntegrator = serde_json::from_str(&text).unwrap();
    assert_eq!(again, zone);
    again.skip();
    assert_eq!(
        again.step(&moment(40_000), Some(&counter(14_000 * J))),
        Step::exact(Flag::Bridged, 4_000 * u128::from(J))
    );
}

/// A reading in a random trace: time step, suspend, and the counter or a failure.
fn any_read() -> impl Strategy<Value = (u64, u64, Option<u64>)> {
    let counter = prop_oneof![0..AMD, Just(0), Just(AMD), any::<u64>()];
    (0..400_000_u64, prop_oneof![4 => Just(0), 1 => 0..5_000_000_u64], prop::option::weighted(0.9, counter))
}

proptest! {
    #[test]
    fn bounds_always_enclose_the_estimate(
        reads in prop::collection::vec(any_read(), 1..60),
        range in prop_oneof![Just(0), Just(AMD), Just(INTEL), any::<u64>()],
        pmax_mw in prop_oneof![0..1_000_000_u64, any::<u64>()],
    ) {
        let mut zone = ZoneIntegrator::default();
        let (mut mono_ms, mut boottime_ms) = (0, 0);
        for (awake, asleep, read) in reads {
            mono_ms += awake;
            boottime_ms += awake + asleep;
            let counter = read.map(|energy_uj| Counter { energy_uj, range_uj: range, pmax_mw });
            let step = zone.step(&Moment { boot_id: "A", mono_ms, boottime_ms }, counter.as_ref());
            prop_assert!(step.low <= step.energy && step.energy <= step.high, "{:?}", step);
            prop_assert!(step.flag.is_counted() || step.energy == Microjoules::ZERO);
        }
    }

    /// Whatever is read and whatever fails: as long as the gaps stay below the horizon, what is
    /// credited in all is exactly what the zone drew between its first and last good reading.
    #[test]
    fn within_the_horizon_not_a_microjoule_is_lost(
        start in 0..=AMD,
        ticks in prop::collection::vec((0..2_800_000_000_u64, prop::bool::weighted(0.2)), 1..200),
    ) {
        let mut zone = ZoneIntegrator::default();
        let (mut drawn, mut credited, mut pending, mut mono_ms, mut failures) = (0_u64, 0_u64, 0, 0, 0);
        let moment = |mono_ms| Moment { boot_id: "A", mono_ms, boottime_ms: mono_ms };
        let counter = |drawn: u64| Counter { energy_uj: (start + drawn) % AMD, range_uj: AMD, pmax_mw: 280_000 };
        let _ = zone.step(&moment(0), Some(&counter(0)));
        for (energy, fails) in ticks {
            mono_ms += 10_000;
            drawn += energy;
            pending += energy;
            failures = if fails { failures + 1 } else { 0 };
            // 234 s is the horizon of this zone: never that many failures in a row.
            let read = counter(drawn);
            let step = zone.step(&moment(mono_ms), (failures == 0 || failures > 20).then_some(&read));
            if step.flag != Flag::Error {
                failures = 0;
                credited += pending;
                prop_assert_eq!(step.energy.0, pending);
                pending = 0;
            }
        }
        prop_assert_eq!(credited + pending, drawn);
    }
}
