//! The contract judged the slow way: minute by minute, by the letter of formats.md §1, sharing nothing
//! with the real judge but its types. Random contracts, zones and months must give the same figure.
//!
//! All random times are whole minutes (or the zone's own transitions, which are whole minutes too in
//! these zones), so a minute is judged by its first instant. `PEIL_LONG=1` raises the number of cases.

mod puzzles;

use std::collections::BTreeMap;

use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use puzzles::{MINUTE, PLACES, Puzzle, minutes, puzzle};

use super::calendar::{Month, zone};
use super::exclusion::{Exclusion, ExclusionKind, Refusal};
use super::expr::Expr;
use super::figure::Figure;
use super::terms::{CountsAs, Denominator, OutageStarts, Terms, UnknownClause};
use super::track::Track;
use super::window::Window;
use super::{Case, CheckEvidence, Evidence, evaluate, evaluate_to_date, evaluate_with_attribution};

/// The answer in minutes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    not_covered: i64,
    out_of_window: i64,
    holiday: i64,
    excluded: i64,
    up: i64,
    down: i64,
    unknown: i64,
    by_exclusion: Vec<(i64, Option<Refusal>)>,
}

/// What one vantage says at `t`: (what counts, what was seen).
fn vantage_at(samples: &[(i64, State)], hold: i64, terms: &Terms, t: i64) -> State {
    let confirm = usize::from(terms.confirm.get());
    let Some(last) = samples.partition_point(|(at, _)| *at <= t).checked_sub(1) else {
        return State::Unknown;
    };
    // The run of consecutive failures around sample i, as (first, end).
    let run = |i: usize| {
        let first = samples[..i].iter().rposition(|(_, s)| *s != State::Down).map_or(0, |before| before + 1);
        let end = samples[i..].iter().position(|(_, s)| *s != State::Down).map_or(samples.len(), |n| i + n);
        (first, end)
    };
    let since_up = samples[..=last].iter().rposition(|(_, s)| *s == State::Up).map_or(0, |up| up + 1);
    let mut i = since_up;
    while i <= last {
        if samples[i].1 != State::Down {
            i += 1;
            continue;
        }
        let (first, end) = run(i);
        i = end;
        if end - first < confirm {
            continue;
        }
        let start = match terms.outage_starts {
            OutageStarts::FirstFailure => first,
            OutageStarts::Confirmation => first + confirm - 1,
        };
        let inside_run = last < end && samples[start].0 <= t;
        let lost = (start..end).any(|i| samples.get(i + 1).is_none_or(|next| next.0 - samples[i].0 > hold));
        if inside_run || (last >= end && lost) {
            return State::Down;
        }
    }
    let (at, state) = samples[last];
    match state {
        _ if t >= at + hold => State::Unknown,
        // Not confirmed: transient, which counts as up.
        State::Down | State::Up => State::Up,
        State::Unknown => State::Unknown,
    }
}

fn check_at(check: &CheckEvidence, sorted: &[Vec<(i64, State)>], terms: &Terms, t: i64) -> State {
    let hold = 2 * check.interval.0 + check.timeout.0;
    let votes: Vec<State> = sorted.iter().map(|samples| vantage_at(samples, hold, terms, t)).collect();
    let count = |state| votes.iter().filter(|vote| **vote == state).count();
    if count(State::Down) >= check.quorum {
        State::Down
    } else if count(State::Up) >= check.quorum {
        State::Up
    } else {
        State::Unknown
    }
}

/// Kleene logic by trying out: unknown parts once as up, once as down.
fn service_at(expr: &Expr, of: &dyn Fn(&str) -> State) -> State {
    fn works(expr: &Expr, of: &dyn Fn(&str) -> bool) -> bool {
        match expr {
            Expr::Check(name) => of(name),
            Expr::All(parts) => parts.iter().all(|part| works(part, of)),
            Expr::Any(parts) => parts.iter().any(|part| works(part, of)),
            Expr::AtLeast(k, parts) => parts.iter().filter(|part| works(part, of)).count() >= *k,
        }
    }
    if works(expr, &|name| of(name) == State::Up) {
        State::Up
    } else if !works(expr, &|name| of(name) != State::Down) {
        State::Down
    } else {
        State::Unknown
    }
}

/// Sorted samples, one per instant, DOWN before UP before UNKNOWN.
fn tidy(evidence: &Evidence) -> Vec<(i64, State)> {
    let Evidence::Samples(samples) = evidence else { panic!("the puzzles are made of samples") };
    let mut by_time: BTreeMap<i64, State> = BTreeMap::new();
    for (at, state) in samples {
        let known = by_time.entry(at.0).or_insert(*state);
        if *state == State::Down || *known == State::Unknown {
            *known = *state;
        }
    }
    by_time.into_iter().collect()
}

fn judge(puzzle: &Puzzle, until: i64) -> Tally {
    judge_minutes(puzzle, until).0
}

/// The answer, and the bucket of each minute in the words of the format.
fn judge_minutes(puzzle: &Puzzle, until: i64) -> (Tally, Vec<String>) {
    let Puzzle { case, .. } = puzzle;
    let terms = &case.terms;
    let sorted: BTreeMap<&str, Vec<Vec<(i64, State)>>> =
        case.checks.iter().map(|(name, check)| (name.as_str(), check.vantages.values().map(tidy).collect())).collect();
    let refusals: Vec<Option<Refusal>> = case.exclusions.iter().map(|e| refusal(e, terms)).collect();
    let is_work = |e: &Exclusion| e.kind == ExclusionKind::Maintenance;
    let covers = |e: &Exclusion, t: i64| e.span.from.0 <= t && t < e.span.to.0;
    let mut order: Vec<usize> = (0..case.exclusions.len()).collect();
    order.sort_by_key(|i| (is_work(&case.exclusions[*i]), case.exclusions[*i].span.from, *i));

    let (mut tally, mut words) = (Tally::default(), Vec::new());
    let mut rows: Vec<(i64, bool, bool)> = vec![(0, false, false); case.exclusions.len()];
    let mut cap_left = terms.maintenance.monthly_cap.map_or(i64::MAX, |cap| cap.0 / MINUTE);
    for minute in minutes(puzzle.place) {
        let t = minute.at;
        let covered = terms.coverage.from.is_none_or(|from| from.0 <= t) && terms.coverage.to.is_none_or(|to| t < to.0);
        let in_window = |starts: &dyn Fn(jiff::civil::Date) -> bool| match &puzzle.window {
            None => starts(minute.date),
            Some(entries) => entries.iter().any(|entry| entry.has(minute, starts)),
        };
        let scheduled = in_window(&|_| true);
        let working = in_window(&|date| puzzle.free.as_ref().is_none_or(|free| !free.contains(&date)));
        let past = t < until;

        if !covered || !past {
            let credited = past && working && terms.denominator == Denominator::FullMonth;
            *(if credited { &mut tally.up } else { &mut tally.not_covered }) += 1;
            words.push(if credited { "up" } else { "not_covered" }.to_owned());
        } else if !scheduled {
            tally.out_of_window += 1;
            words.push("out_of_window".to_owned());
        } else if !working {
            tally.holiday += 1;
            words.push("holiday".to_owned());
        }
        if !(covered && working) {
            continue;
        }

        let valid = |i: &usize| refusals[*i].is_none() && covers(&case.exclusions[*i], t);
        let any_work = order.iter().any(|i| valid(i) && is_work(&case.exclusions[*i]));
        let work_counts = any_work && cap_left > 0;
        cap_left -= i64::from(any_work && cap_left > 0 && cap_left != i64::MAX);
        let mut taken = None;
        for i in order.iter().filter(|i| valid(i)) {
            let work = is_work(&case.exclusions[*i]);
            rows[*i].1 = true;
            rows[*i].2 |= work && !work_counts;
            if (!work || work_counts) && taken.is_none() {
                taken = Some((work, *i));
                rows[*i].0 += i64::from(past);
            }
        }
        if !past {
            continue;
        }
        match taken {
            Some((true, _)) if terms.maintenance.counts_as == CountsAs::Up => {
                tally.up += 1;
                words.push("up".to_owned());
            }
            Some((_, i)) => {
                tally.excluded += 1;
                words.push(format!("excluded:{}", case.exclusions[i].id));
            }
            None => {
                let of = |name: &str| check_at(&case.checks[name], &sorted[name], terms, t);
                let state = service_at(&case.service, &of);
                *(match state {
                    State::Up => &mut tally.up,
                    State::Down => &mut tally.down,
                    State::Unknown => &mut tally.unknown,
                }) += 1;
                words.push(state.word().to_owned());
            }
        }
    }
    tally.by_exclusion = rows
        .into_iter()
        .zip(refusals)
        .map(|((counted, inside, over_cap), refused)| match refused {
            Some(why) => (0, Some(why)),
            None if !inside => (0, Some(Refusal::OutsideWindow)),
            None => (counted, over_cap.then_some(Refusal::OverCap)),
        })
        .collect();
    (tally, words)
}

fn refusal(exclusion: &Exclusion, terms: &Terms) -> Option<Refusal> {
    if exclusion.approved_by.is_none() {
        return Some(Refusal::NotApproved);
    }
    let notice = terms.maintenance.notice.0;
    let late = match exclusion.announced_at {
        Some(at) => at.0 + notice > exclusion.span.from.0,
        None => notice > 0,
    };
    (exclusion.kind == ExclusionKind::Maintenance && late).then_some(Refusal::LateNotice)
}

fn tally_of(figure: &Figure) -> Tally {
    let minutes = |ms: Millis| {
        assert_eq!(ms.0 % MINUTE, 0, "{figure:?}");
        ms.0 / MINUTE
    };
    Tally {
        not_covered: minutes(figure.not_covered_ms),
        out_of_window: minutes(figure.out_of_window_ms),
        holiday: minutes(figure.holiday_ms),
        excluded: minutes(figure.excluded_ms),
        up: minutes(figure.up_ms),
        down: minutes(figure.down_ms),
        unknown: minutes(figure.unknown_ms),
        by_exclusion: figure.exclusions.iter().map(|row| (minutes(row.counted_ms), row.refused)).collect(),
    }
}

/// Random cases per test; `PEIL_LONG=1` for a long night.
fn cases(normal: u32) -> Config {
    let long = std::env::var_os("PEIL_LONG").is_some_and(|value| value == "1");
    Config { cases: if long { 2_400 } else { normal }, failure_persistence: None, ..Config::default() }
}

#[test]
fn the_judge_agrees_with_counting_minutes() {
    TestRunner::new(cases(200))
        .run(&puzzle(), |puzzle| {
            let (figure, intervals) = evaluate_with_attribution(&puzzle.case);
            prop_assert_eq!(&figure, &evaluate(&puzzle.case));
            let (tally, words) = judge_minutes(&puzzle, i64::MAX);
            prop_assert_eq!(tally_of(&figure), tally);
            let mut left = intervals.iter().peekable();
            for (minute, word) in minutes(puzzle.place).iter().zip(words) {
                while left.next_if(|interval| interval.span.to.0 <= minute.at).is_some() {}
                let interval = left.peek().expect("the intervals reach the end of the month");
                prop_assert_eq!(interval.bucket.to_string(), word, "at {}", UtcTime(minute.at));
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_month_to_date_agrees_with_counting_minutes_until_now() {
    TestRunner::new(cases(100))
        .run(&puzzle(), |puzzle| {
            let to_date = evaluate_to_date(&puzzle.case, puzzle.now);
            prop_assert_eq!(tally_of(&to_date.figure), judge(&puzzle, puzzle.now.0));
            let whole = judge(&puzzle, i64::MAX);
            let mut agreed = whole.up + whole.down + whole.unknown;
            if puzzle.case.terms.unknown == UnknownClause::Excluded {
                agreed -= to_date.figure.unknown_ms.0 / MINUTE;
            }
            prop_assert_eq!(to_date.month_agreed_ms.0, agreed * MINUTE);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_minutes_of_a_month_are_its_length() {
    for (place, (zone_name, month)) in PLACES.iter().enumerate() {
        let span = Month::parse(month).expect("a month").span(&zone(zone_name).expect("a zone"));
        let minutes = minutes(place);
        assert_eq!(minutes[0].at, span.from.0, "{zone_name} {month}");
        assert_eq!(i64::try_from(minutes.len()), Ok(span.length().0 / MINUTE), "{zone_name} {month}");
    }
}

/// A puzzle for the properties next door.
pub(super) fn any_case() -> impl Strategy<Value = (Case, UtcTime)> {
    puzzle().prop_map(|puzzle| (puzzle.case, puzzle.now))
}

/// The same case with every vantage's samples folded into a track, in order of time.
pub(super) fn with_tracks(case: &Case, prune: Option<UtcTime>) -> Case {
    let mut case = case.clone();
    for check in case.checks.values_mut() {
        let hold = check.hold();
        for evidence in check.vantages.values_mut() {
            let Evidence::Samples(samples) = evidence else { continue };
            samples.sort();
            let mut track = Track::new(hold);
            for (i, (at, state)) in samples.iter().enumerate() {
                // Pruned while it grows, as the collector does it.
                if let Some(prune) = prune.filter(|prune| i % 5 == 4 && *prune <= *at) {
                    track.forget_before(prune);
                }
                track.push(*at, *state);
            }
            if let Some(prune) = prune {
                track.forget_before(prune);
            }
            *evidence = Evidence::Track(track);
        }
    }
    case
}

/// The window of `Always`, for properties that need a plain contract.
pub(super) fn plain(case: Case) -> Case {
    Case { terms: Terms { window: Window::Always, holidays: None, ..case.terms }, exclusions: Vec::new(), ..case }
}
