//! The contract judged the slow way: minute by minute, by the letter of formats.md §1, sharing nothing
//! with the real judge but its types. Random contracts, zones and months must give the same figure.
//!
//! All random times are whole minutes (or the zone's own transitions, which are whole minutes too in
//! these zones), so a minute is judged by its first instant. 2100 cases over whole months, 400 more over months
//! that still run or in which the agreement changes; `PEIL_LONG=1` takes ten times as many.

mod puzzles;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use puzzles::{AMERICA, EUROPE_AND_AFRICA, MINUTE, Minute, PACIFIC, PLACES, Puzzle, minutes, puzzle};

use super::calendar::{Month, zone};
use super::exclusion::{Exclusion, ExclusionKind, Refusal};
use super::expr::Expr;
use super::figure::{Figure, Verdict};
use super::percent::Percent;
use super::span::Span;
use super::terms::{CountsAs, Denominator, OutageStarts, Terms, UnknownClause};
use super::track::Track;
use super::window::Window;
use super::{
    Case, Chapter, CheckEvidence, Dated, Docket, Evidence, evaluate, evaluate_to_date, evaluate_with_attribution,
    forecast,
};

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
    agreed: i64,
    lost: i64,
    by_exclusion: Vec<(i64, Option<Refusal>)>,
}

/// What the targets allow, in minutes times millionths of a percent.
#[derive(Debug, Default)]
struct Allowed {
    of_agreed: i64,
    of_judged: i64,
    unknown: i64,
}

impl Allowed {
    fn verdict(&self, tally: &Tally) -> Verdict {
        let full = Percent::FULL.micro();
        let within = |lost: i64, allowed: i64| lost * full <= allowed;
        let straddles = !within(tally.down + tally.unknown, self.of_judged) && within(tally.down, self.of_judged);
        match (tally.agreed, straddles && !within(tally.unknown, self.unknown)) {
            (0, _) => Verdict::NotApplicable,
            (_, true) => Verdict::Undetermined,
            _ if within(tally.lost, self.of_agreed) => Verdict::Met,
            _ => Verdict::Breached,
        }
    }
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

/// The samples of one vantage, with the last answer: minutes that see the same last sample, held or not any
/// more, have the same one, and asking anew for each would take most of the time.
struct Watcher {
    samples: Vec<(i64, State)>,
    answered: Cell<Option<((usize, bool), State)>>,
}

impl Watcher {
    fn new(evidence: &Evidence) -> Self {
        Self { samples: tidy(evidence), answered: Cell::new(None) }
    }

    fn at(&self, hold: i64, terms: &Terms, t: i64) -> State {
        let seen = self.samples.partition_point(|(at, _)| *at <= t);
        let held = seen.checked_sub(1).is_some_and(|last| t < self.samples[last].0 + hold);
        if let Some((sight, state)) = self.answered.get()
            && sight == (seen, held)
        {
            return state;
        }
        let state = vantage_at(&self.samples, hold, terms, t);
        self.answered.set(Some(((seen, held), state)));
        state
    }
}

fn check_at(check: &CheckEvidence, watchers: &[Watcher], terms: &Terms, t: i64) -> State {
    let hold = 2 * check.interval.0 + check.timeout.0;
    let votes: Vec<State> = watchers.iter().map(|watcher| watcher.at(hold, terms, t)).collect();
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
    judge_minutes(&[(i64::MAX, puzzle)], until).0
}

/// A puzzle in force until an instant.
struct Regime<'a> {
    until: i64,
    puzzle: &'a Puzzle,
    watchers: BTreeMap<&'a str, Vec<Watcher>>,
    refusals: Vec<Option<Refusal>>,
}

impl<'a> Regime<'a> {
    fn new(until: i64, puzzle: &'a Puzzle, exclusions: &[Exclusion]) -> Self {
        let watchers_of = |check: &CheckEvidence| check.vantages.values().map(Watcher::new).collect();
        let checks = puzzle.case.checks.iter();
        Self {
            until,
            puzzle,
            watchers: checks.map(|(name, check)| (name.as_str(), watchers_of(check))).collect(),
            refusals: exclusions.iter().map(|e| refusal(e, &puzzle.case.terms)).collect(),
        }
    }

    fn in_window(&self, minute: &Minute, starts: &dyn Fn(jiff::civil::Date) -> bool) -> bool {
        match &self.puzzle.window {
            None => starts(minute.date),
            Some(entries) => entries.iter().any(|entry| entry.has(minute, starts)),
        }
    }

    fn state_at(&self, t: i64) -> State {
        let Case { service, checks, terms, .. } = &self.puzzle.case;
        service_at(service, &|name: &str| check_at(&checks[name], &self.watchers[name], terms, t))
    }
}

/// Minutes that counted for an exclusion, whether it met agreed time, and the first reason against it.
#[derive(Clone, Copy, Default)]
struct Row {
    counted: i64,
    inside: bool,
    refused: Option<Refusal>,
}

/// The answer, what the targets allow, and the bucket of each minute in the words of the format. Each puzzle is in
/// force until its instant; the exclusions are those of the first.
fn judge_minutes(regimes: &[(i64, &Puzzle)], until: i64) -> (Tally, Allowed, Vec<Cow<'static, str>>) {
    let exclusions = &regimes[0].1.case.exclusions;
    let regimes: Vec<_> = regimes.iter().map(|(until, puzzle)| Regime::new(*until, puzzle, exclusions)).collect();
    let in_force = |t: i64| regimes.iter().find(|regime| t < regime.until).unwrap_or(&regimes[regimes.len() - 1]);
    let is_work = |e: &Exclusion| e.kind == ExclusionKind::Maintenance;
    let covers = |e: &Exclusion, t: i64| e.span.from.0 <= t && t < e.span.to.0;
    let mut order: Vec<usize> = (0..exclusions.len()).collect();
    order.sort_by_key(|i| (is_work(&exclusions[*i]), exclusions[*i].span.from, *i));

    let (mut tally, mut allowed, mut words) = (Tally::default(), Allowed::default(), Vec::new());
    let mut rows = vec![Row::default(); exclusions.len()];
    let mut worked = 0;
    for minute in minutes(regimes[0].puzzle.place) {
        let t = minute.at;
        let regime = in_force(t);
        let terms = &regime.puzzle.case.terms;
        let free = &regime.puzzle.free;
        let covered = terms.coverage.from.is_none_or(|from| from.0 <= t) && terms.coverage.to.is_none_or(|to| t < to.0);
        let scheduled = regime.in_window(minute, &|_| true);
        let working = regime.in_window(minute, &|date| free.as_ref().is_none_or(|free| !free.contains(&date)));
        let past = t < until;

        let mut judged = |tally: &mut Tally, state: State| {
            let lost = state == State::Down || (state == State::Unknown && terms.unknown == UnknownClause::Down);
            let agreed = state != State::Unknown || terms.unknown != UnknownClause::Excluded;
            tally.lost += i64::from(lost);
            tally.agreed += i64::from(agreed);
            let may_lose = Percent::FULL.micro() - terms.target.micro();
            allowed.of_agreed += if agreed { may_lose } else { 0 };
            allowed.of_judged += may_lose;
            allowed.unknown += Percent::FULL.micro() - terms.min_known.micro();
        };
        if !covered || !past {
            let credited = past && working && terms.denominator == Denominator::FullMonth;
            if credited {
                judged(&mut tally, State::Up);
            }
            *(if credited { &mut tally.up } else { &mut tally.not_covered }) += 1;
            words.push(if credited { "up" } else { "not_covered" }.into());
        } else if !scheduled {
            tally.out_of_window += 1;
            words.push("out_of_window".into());
        } else if !working {
            tally.holiday += 1;
            words.push("holiday".into());
        }
        if !(covered && working) {
            continue;
        }

        let valid = |i: usize| regime.refusals[i].is_none();
        let here: Vec<usize> = order.iter().copied().filter(|i| covers(&exclusions[*i], t)).collect();
        let any_work = here.iter().any(|i| valid(*i) && is_work(&exclusions[*i]));
        let cap = terms.maintenance.monthly_cap.map_or(i64::MAX, |cap| cap.0 / MINUTE);
        let work_counts = any_work && worked < cap;
        worked += i64::from(work_counts);
        let mut taken = None;
        for i in here {
            let work = is_work(&exclusions[i]);
            let row = &mut rows[i];
            row.inside = true;
            let against = regime.refusals[i].or((work && !work_counts).then_some(Refusal::OverCap));
            row.refused = row.refused.or(against);
            if against.is_none() && taken.is_none() {
                taken = Some((work, i));
                row.counted += i64::from(past);
            }
        }
        if !past {
            continue;
        }
        match taken {
            Some((true, _)) if terms.maintenance.counts_as == CountsAs::Up => {
                judged(&mut tally, State::Up);
                tally.up += 1;
                words.push("up".into());
            }
            Some((_, i)) => {
                tally.excluded += 1;
                words.push(format!("excluded:{}", exclusions[i].id).into());
            }
            None => {
                let state = regime.state_at(t);
                judged(&mut tally, state);
                *(match state {
                    State::Up => &mut tally.up,
                    State::Down => &mut tally.down,
                    State::Unknown => &mut tally.unknown,
                }) += 1;
                words.push(state.word().into());
            }
        }
    }
    let row = |(i, row): (usize, Row)| match row.inside {
        true => (row.counted, row.refused),
        false => (0, in_force(exclusions[i].span.from.0).refusals[i].or(Some(Refusal::OutsideWindow))),
    };
    tally.by_exclusion = rows.into_iter().enumerate().map(row).collect();
    (tally, allowed, words)
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
        agreed: minutes(figure.agreed_ms),
        lost: minutes(figure.counted_down_ms),
        by_exclusion: figure.exclusions.iter().map(|row| (minutes(row.counted_ms), row.refused)).collect(),
    }
}

/// Random cases per test; `PEIL_LONG=1` for a long night.
fn cases(normal: u32) -> Config {
    let long = std::env::var_os("PEIL_LONG").is_some_and(|value| value == "1");
    Config { cases: if long { normal * 10 } else { normal }, failure_persistence: None, ..Config::default() }
}

/// Figure and attribution of `case` against counting the minutes of its regimes.
fn is_counted<'a>(case: impl Into<Docket<'a>> + Copy, regimes: &[(i64, &Puzzle)]) -> Result<(), TestCaseError> {
    let (figure, intervals) = evaluate_with_attribution(case);
    prop_assert_eq!(&figure, &evaluate(case));
    let (tally, allowed, words) = judge_minutes(regimes, i64::MAX);
    prop_assert_eq!(figure.verdict, allowed.verdict(&tally));
    let budget = i128::from(allowed.of_agreed) * i128::from(MINUTE) / i128::from(Percent::FULL.micro());
    prop_assert_eq!(i128::from(figure.budget_ms.0), budget);
    prop_assert_eq!(tally_of(&figure), tally);
    let mut words = minutes(regimes[0].1.place).iter().zip(words).peekable();
    for interval in &intervals {
        let bucket = interval.bucket.to_string();
        while let Some((minute, word)) = words.next_if(|(minute, _)| minute.at < interval.span.to.0) {
            prop_assert_eq!(&bucket, &word, "at {}", UtcTime(minute.at));
        }
    }
    prop_assert!(words.next().is_none(), "the intervals reach the end of the month");
    Ok(())
}

/// 700 random cases in these places.
fn agrees_with_counting_minutes(places: Range<usize>) {
    TestRunner::new(cases(700))
        .run(&puzzle(places), |puzzle| is_counted(&puzzle.case, &[(i64::MAX, &puzzle)]))
        .unwrap_or_else(|error| panic!("{error}"));
}

/// A month in which everything changes at `cut`: terms, service, checks and evidence.
fn dated(first: &Puzzle, second: &Puzzle, cut: UtcTime) -> Dated {
    let month = first.case.month.span(&first.case.terms.timezone);
    let chapter = |puzzle: &Puzzle, span: Span| Chapter {
        span,
        terms: puzzle.case.terms.clone(),
        service: puzzle.case.service.clone(),
        checks: puzzle.case.checks.clone(),
    };
    let chapters = vec![chapter(first, Span::new(month.from, cut)), chapter(second, Span::new(cut, month.to))];
    Dated { month: first.case.month, chapters, exclusions: first.case.exclusions.clone() }
}

/// Two puzzles in one place, and an instant inside their month.
fn change() -> impl Strategy<Value = (Puzzle, Puzzle, UtcTime)> {
    (0..PLACES.len()).prop_flat_map(|place| {
        let within = 1..i64::try_from(minutes(place).len()).expect("few");
        (puzzle(place..place + 1), puzzle(place..place + 1), within)
            .prop_map(move |(a, b, cut)| (a, b, UtcTime(minutes(place)[0].at + cut * MINUTE)))
    })
}

#[test]
fn an_agreement_that_changes_within_the_month_is_counted_minute_by_minute_under_the_one_in_force() {
    TestRunner::new(cases(200))
        .run(&change(), |(first, second, cut)| {
            let dated = dated(&first, &second, cut);
            is_counted(&dated, &[(cut.0, &first), (i64::MAX, &second)])?;
            let now = first.now;
            let counted = judge_minutes(&[(cut.0, &first), (i64::MAX, &second)], now.0).0;
            prop_assert_eq!(tally_of(&evaluate_to_date(&dated, now).figure), counted);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_change_that_changes_nothing_leaves_figure_outages_and_account_as_they_were() {
    TestRunner::new(cases(100))
        .run(&change(), |(puzzle, _, cut)| {
            let dated = dated(&puzzle, &puzzle, cut);
            prop_assert_eq!(evaluate_with_attribution(&dated), evaluate_with_attribution(&puzzle.case));
            prop_assert_eq!(evaluate_to_date(&dated, puzzle.now), evaluate_to_date(&puzzle.case, puzzle.now));
            prop_assert_eq!(forecast(&dated, puzzle.now), forecast(&puzzle.case, puzzle.now));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_judge_agrees_with_counting_minutes_in_europe_and_africa() {
    agrees_with_counting_minutes(EUROPE_AND_AFRICA);
}

#[test]
fn the_judge_agrees_with_counting_minutes_in_america() {
    agrees_with_counting_minutes(AMERICA);
}

#[test]
fn the_judge_agrees_with_counting_minutes_in_the_pacific() {
    agrees_with_counting_minutes(PACIFIC);
}

#[test]
fn the_month_to_date_agrees_with_counting_minutes_until_now() {
    TestRunner::new(cases(100))
        .run(&puzzle(0..PLACES.len()), |puzzle| {
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
pub(crate) fn any_case() -> impl Strategy<Value = (Case, UtcTime)> {
    puzzle(0..PLACES.len()).prop_map(|puzzle| (puzzle.case, puzzle.now))
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
