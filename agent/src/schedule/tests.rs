//! What the schedule promises.

use std::collections::BTreeMap;

use peil_proto::plan::{CHECKS_MAX, CheckKind, Tcp};
use proptest::prelude::*;

use super::*;

const AGENT: AgentId = AgentId([7; 16]);
const APRIL: i64 = 1_775_000_000_123;
const HOUR: i64 = 3_600_000;

fn check(no: u32, interval_ms: u32) -> CheckDef {
    let kind = CheckKind::Tcp(Tcp { address: "example.org:443".to_owned(), ..Tcp::default() });
    CheckDef { no: CheckNo(no), name: format!("check-{no}"), interval_ms, timeout_ms: interval_ms / 2, kind }
}

fn plan(intervals_ms: &[u32]) -> Plan {
    Plan { version: 1, checks: intervals_ms.iter().zip(1..).map(|(interval, no)| check(no, *interval)).collect() }
}

/// Clocks that run together until a test moves one of them.
#[derive(Clone, Copy)]
struct Clocks(Now);

impl Clocks {
    fn start() -> Self {
        Self(Now { wall: UtcTime(APRIL), mono: Millis(5_000), suspended: Millis(0) })
    }

    fn awake(&mut self, ms: i64) -> Now {
        self.0.mono.0 += ms;
        self.0.wall.0 += ms;
        self.0
    }

    fn asleep(&mut self, ms: i64) -> Now {
        self.0.suspended.0 += ms;
        self.0.wall.0 += ms;
        self.0
    }

    fn step(&mut self, ms: i64) -> Now {
        self.0.wall.0 += ms;
        self.0
    }

    /// Runs for a while the way the agent does, from wake to wake.
    fn run(&mut self, schedule: &mut Schedule, ms: i64) -> Vec<Due> {
        let end = self.0.mono.0 + ms;
        let mut all = Vec::new();
        while let Some(wake) = schedule.next_wake().filter(|wake| wake.0 <= end) {
            let now = self.awake((wake.0 - self.0.mono.0).max(0));
            let taken = schedule.take_due(now);
            assert_eq!(taken.missed, []);
            assert!(!taken.due.is_empty());
            all.extend(taken.due);
        }
        self.awake(end - self.0.mono.0);
        all
    }
}

#[test]
fn a_check_is_due_at_the_same_point_of_every_interval_also_after_a_restart() {
    let mut clocks = Clocks::start();
    let mut schedule = Schedule::new(AGENT, &plan(&[60_000]), clocks.0);
    let first = clocks.run(&mut schedule, 5 * 60_000);
    assert_eq!(first.len(), 5);
    assert!(first.windows(2).all(|pair| pair[1].scheduled_at.0 - pair[0].scheduled_at.0 == 60_000));
    clocks.awake(17_321);
    let mut restarted = Schedule::new(AGENT, &plan(&[60_000]), clocks.0);
    let second = clocks.run(&mut restarted, 60_000);
    assert_eq!((second[0].scheduled_at.0 - first[0].scheduled_at.0) % 60_000, 0);
    assert!(second[0].scheduled_at > first[4].scheduled_at);
}

#[test]
fn two_agents_run_the_same_check_at_different_moments() {
    let due = |agent: u8| Schedule::new(AgentId([agent; 16]), &plan(&[60_000]), Clocks::start().0).next_wake();
    let moments: std::collections::BTreeSet<_> = (0..50).map(due).collect();
    assert!(moments.len() > 45);
}

#[test]
fn checks_of_one_agent_are_spread_evenly() {
    let intervals = vec![60_000; CHECKS_MAX];
    let mut clocks = Clocks::start();
    let mut schedule = Schedule::new(AGENT, &plan(&intervals), clocks.0);
    let due = clocks.run(&mut schedule, 60_000);
    assert_eq!(due.len(), CHECKS_MAX);
    let mut per_second = [0_u32; 60];
    for due in &due {
        per_second[usize::try_from(due.scheduled_at.0.rem_euclid(60_000) / 1_000).unwrap()] += 1;
    }
    // 167 on average; half and one and a half of it are more than six standard deviations away.
    assert!(per_second.iter().all(|checks| (83..=250).contains(checks)), "{per_second:?}");
}

#[test]
fn ten_thousand_checks_run_for_an_hour_without_a_tick_too_many_or_too_few() {
    let intervals: Vec<u32> = (0..10_000).map(|n| [30_000, 60_000, 300_000][n % 3]).collect();
    let mut clocks = Clocks::start();
    let mut schedule = Schedule::new(AGENT, &plan(&intervals), clocks.0);
    let due = clocks.run(&mut schedule, HOUR);
    assert!(due.windows(2).all(|pair| pair[0].mono_due <= pair[1].mono_due));
    assert_eq!(due.len(), 3_334 * 120 + 3_333 * 60 + 3_333 * 12);
}

#[test]
fn f12_a_step_of_the_wall_clock_makes_no_burst_no_pause_and_no_label_twice() {
    for step in [HOUR, -HOUR, 400, -400, 17_333, -17_333] {
        let mut clocks = Clocks::start();
        let mut schedule = Schedule::new(AGENT, &plan(&[60_000, 30_000]), clocks.0);
        let mut all = clocks.run(&mut schedule, HOUR);
        clocks.step(step);
        all.extend(clocks.run(&mut schedule, 2 * HOUR));
        assert_eq!(all.len(), 3 * 180, "step of {step} ms");
        for no in [1, 2] {
            let of_check: Vec<&Due> = all.iter().filter(|due| due.check.no == CheckNo(no)).collect();
            let interval = i64::from(of_check[0].check.interval_ms);
            assert!(of_check.windows(2).all(|pair| pair[1].mono_due.0 - pair[0].mono_due.0 == interval));
            assert!(of_check.windows(2).all(|pair| pair[0].scheduled_at < pair[1].scheduled_at), "step of {step} ms");
            let last = of_check[of_check.len() - 1];
            let true_time = clocks.0.wall.0 - (clocks.0.mono.0 - last.mono_due.0);
            assert!((last.scheduled_at.0 - true_time).abs() <= 500, "labels tell the true time again");
        }
    }
}

#[test]
fn f12_a_clock_that_was_plainly_wrong_does_not_bind_the_labels_that_follow() {
    let mut clocks = Clocks::start();
    let mut schedule = Schedule::new(AGENT, &plan(&[60_000]), clocks.0);
    clocks.run(&mut schedule, 10 * 60_000);
    clocks.step(-9 * HOUR);
    let after = clocks.run(&mut schedule, 60_000);
    assert!(after[0].scheduled_at.0 < clocks.0.wall.0);
    let booted_in_1970 = Now { wall: UtcTime(0), mono: Millis(9_000), suspended: Millis(0) };
    let mut clocks = Clocks(booted_in_1970);
    let mut schedule = Schedule::new(AGENT, &plan(&[60_000]), clocks.0);
    let before = clocks.run(&mut schedule, 60_000).len();
    clocks.step(APRIL);
    let after = clocks.run(&mut schedule, 3 * 60_000);
    assert_eq!((before, after.len()), (1, 3));
    assert!(after[0].scheduled_at.0 > APRIL);
}

#[test]
fn f12_a_suspended_host_gets_one_span_per_check_and_no_catching_up() {
    let mut clocks = Clocks::start();
    let mut schedule = Schedule::new(AGENT, &plan(&[60_000, 600_000]), clocks.0);
    let before = clocks.run(&mut schedule, HOUR);
    let taken = schedule.take_due(clocks.asleep(8 * HOUR));
    assert_eq!(taken.due, []);
    let spans: Vec<_> = taken.missed.iter().map(|missed| (missed.check.no.0, missed.ticks, missed.reason)).collect();
    assert_eq!(spans.len(), 2);
    assert!(spans.contains(&(1, 480, NotRun::Suspended)) && spans.contains(&(2, 48, NotRun::Suspended)));
    let missed = taken.missed.iter().find(|missed| missed.check.no == CheckNo(1)).unwrap();
    let last = before.iter().rfind(|due| due.check.no == CheckNo(1)).unwrap();
    assert_eq!(missed.from.0 - last.scheduled_at.0, 60_000);
    assert_eq!(missed.to.0 - missed.from.0, 479 * 60_000);
    let after = clocks.run(&mut schedule, HOUR);
    assert_eq!(after.len(), 66, "on the same grid as before");
    assert_eq!(after.iter().find(|due| due.check.no == CheckNo(1)).unwrap().scheduled_at.0 - missed.to.0, 60_000);
}

#[test]
fn f31_a_short_stall_is_caught_up_and_a_long_one_is_a_span() {
    for (stall, due, missed) in [(60_000, 1, None), (120_000, 2, None), (180_000, 0, Some(3)), (HOUR, 0, Some(60))] {
        let mut clocks = Clocks::start();
        let mut schedule = Schedule::new(AGENT, &plan(&[60_000]), clocks.0);
        clocks.run(&mut schedule, 60_000);
        let taken = schedule.take_due(clocks.awake(stall));
        assert_eq!(taken.due.len(), due);
        assert_eq!(
            taken.missed.first().map(|missed| (missed.ticks, missed.reason)),
            missed.map(|n| (n, NotRun::Overload))
        );
        assert_eq!(clocks.run(&mut schedule, HOUR).len(), 60);
    }
}

#[test]
fn a_new_plan_leaves_the_rhythm_of_the_checks_that_stay() {
    let mut clocks = Clocks::start();
    let mut schedule = Schedule::new(AGENT, &plan(&[60_000, 60_000, 60_000]), clocks.0);
    let before = clocks.run(&mut schedule, 10 * 60_000);
    let now = clocks.awake(59_000);
    let mut changed = plan(&[60_000, 30_000]);
    changed.checks[0].timeout_ms = 1_234;
    changed.checks.push(check(9, 60_000));
    let owed = schedule.replace(&changed, now);
    assert!(owed.due.len() >= 2, "ticks due before the change are told by it: {owed:?}");
    assert!(owed.due.iter().all(|due| due.check.timeout_ms == 30_000), "as they were planned");
    let after = clocks.run(&mut schedule, 10 * 60_000);
    let labels = |dues: &[Due], no: u32| -> Vec<i64> {
        dues.iter().filter(|due| due.check.no == CheckNo(no)).map(|due| due.scheduled_at.0).collect()
    };
    let kept = [labels(&before, 1), labels(&owed.due, 1), labels(&after, 1)].concat();
    assert!(kept.windows(2).all(|pair| pair[1] - pair[0] == 60_000), "{kept:?}");
    let retimed = [labels(&before, 2), labels(&owed.due, 2), labels(&after, 2)].concat();
    assert!(retimed.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!((labels(&after, 2).len(), labels(&after, 3).len(), labels(&after, 9).len()), (20, 0, 10));
    assert!(after.iter().filter(|due| due.check.no == CheckNo(1)).all(|due| due.check.timeout_ms == 1_234));
    assert_eq!(schedule.replace(&Plan::default(), clocks.0).due, []);
    assert_eq!((schedule.next_wake(), schedule.checks()), (None, 0));
}

#[derive(Debug, Clone)]
enum Event {
    Wake,
    Awake(i64),
    Asleep(i64),
    /// Sets the wall clock to this distance from the true time.
    WallOff(i64),
    Replace,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => Just(Event::Wake),
        4 => (0_i64..200_000).prop_map(Event::Awake),
        1 => (200_000_i64..20_000_000).prop_map(Event::Awake),
        1 => (0_i64..40_000_000).prop_map(Event::Asleep),
        2 => (-HOUR..=HOUR).prop_map(Event::WallOff),
        1 => Just(Event::Replace),
    ]
}

proptest! {
    #[test]
    fn every_tick_is_told_exactly_once_whatever_the_clocks_do(
        intervals in prop::collection::vec(1_000_u32..900_000, 1..8),
        events in prop::collection::vec(event(), 1..60),
    ) {
        let plan = plan(&intervals);
        let mut clocks = Clocks::start();
        let mut schedule = Schedule::new(AGENT, &plan, clocks.0);
        let firsts: BTreeMap<u32, i64> =
            schedule.entries.iter().map(|entry| (entry.check.no.0, entry.next)).collect();
        let mut told: BTreeMap<u32, u64> = BTreeMap::new();
        let mut labels: BTreeMap<u32, i64> = BTreeMap::new();
        let mut off = 0;
        for event in events {
            let mut replace = false;
            match event {
                Event::Wake => drop(clocks.awake((schedule.next_wake().unwrap().0 - clocks.0.mono.0).max(0))),
                Event::Awake(ms) => drop(clocks.awake(ms)),
                Event::Asleep(ms) => drop(clocks.asleep(ms)),
                Event::WallOff(to) => {
                    clocks.step(to - off);
                    off = to;
                }
                Event::Replace => replace = true,
            }
            let taken = if replace { schedule.replace(&plan, clocks.0) } else { schedule.take_due(clocks.0) };
            prop_assert!(taken.due.windows(2).all(|pair| pair[0].mono_due <= pair[1].mono_due));
            for due in taken.due {
                let no = due.check.no.0;
                let nth = told.entry(no).or_default();
                let expected = firsts[&no] + i64::from(due.check.interval_ms) * i64::try_from(*nth).unwrap();
                prop_assert_eq!(due.mono_due.0 + clocks.0.suspended.0, expected);
                *nth += 1;
                if let Some(before) = labels.insert(no, due.scheduled_at.0) {
                    prop_assert!(before < due.scheduled_at.0);
                }
            }
            let mut spans = std::collections::BTreeSet::new();
            for missed in taken.missed {
                let no = missed.check.no.0;
                prop_assert!(spans.insert(no), "two spans for one check");
                prop_assert!(missed.ticks > 0 && missed.from <= missed.to);
                prop_assert!(labels.get(&no).is_none_or(|before| *before < missed.from.0));
                labels.insert(no, missed.to.0);
                *told.entry(no).or_default() += missed.ticks;
            }
        }
        let elapsed = clocks.0.mono.0 + clocks.0.suspended.0;
        for (no, first) in firsts {
            let interval = i64::from(intervals[no as usize - 1]);
            let expected = if elapsed < first { 0 } else { (elapsed - first) / interval + 1 };
            prop_assert_eq!(told.get(&no).copied().unwrap_or(0), expected.unsigned_abs(), "check {}", no);
        }
    }

    #[test]
    fn phases_are_the_same_whenever_the_agent_starts(
        intervals in prop::collection::vec(1_000_u32..90_000_000, 1..8),
        starts in prop::collection::vec(0_i64..4_000_000_000_000, 2..5),
    ) {
        let mut phases: BTreeMap<u32, i64> = BTreeMap::new();
        for start in starts {
            let now = Now { wall: UtcTime(start), mono: Millis(start % 77_777), suspended: Millis(start % 999) };
            let schedule = Schedule::new(AGENT, &plan(&intervals), now);
            for entry in &schedule.entries {
                let wall = entry.next - now.mono.0 - now.suspended.0 + start;
                prop_assert!(wall > start && wall <= start + entry.interval);
                let phase = wall % entry.interval;
                prop_assert_eq!(*phases.entry(entry.check.no.0).or_insert(phase), phase);
            }
        }
    }

    #[test]
    fn no_reading_of_any_clock_makes_it_panic_or_hang(
        intervals in prop::collection::vec(0_u32..=u32::MAX, 1..4),
        readings in prop::collection::vec((any::<i64>(), any::<i64>(), any::<i64>()), 1..10),
    ) {
        let mut schedule: Option<Schedule> = None;
        let plan = plan(&intervals);
        for (wall, mono, suspended) in readings {
            let now = Now { wall: UtcTime(wall), mono: Millis(mono), suspended: Millis(suspended) };
            match &mut schedule {
                None => schedule = Some(Schedule::new(AGENT, &plan, now)),
                Some(schedule) => drop(schedule.take_due(now)),
            }
        }
        prop_assert!(schedule.and_then(|schedule| schedule.next_wake()).is_some());
    }
}

#[test]
fn f12_after_a_restart_and_a_clock_set_back_no_moment_gets_two_samples() {
    let mut clocks = Clocks::start();
    let mut schedule = Schedule::new(AGENT, &plan(&[60_000]), clocks.0);
    let told = clocks.run(&mut schedule, 10 * 60_000);
    let newest = told.last().expect("ticks").scheduled_at;
    clocks.step(-5 * 60_000);
    let mut restarted = Schedule::new(AGENT, &plan(&[60_000]), clocks.0);
    restarted.resume(CheckNo(1), newest);
    restarted.resume(CheckNo(2), newest);
    let again = clocks.run(&mut restarted, 10 * 60_000);
    assert!(again[0].scheduled_at > newest);
    assert!(again.windows(2).all(|pair| pair[0].scheduled_at < pair[1].scheduled_at));
    restarted.resume(CheckNo(1), newest);
    let later = clocks.run(&mut restarted, 60_000);
    assert!(later[0].scheduled_at > again[9].scheduled_at, "a schedule that runs knows better");
}
