//! The contract judged the slow way: minute by minute, by the letter of formats.md §1, sharing nothing
//! with the real judge but its types. Random contracts, zones and months must give the same figure.
//!
//! All random times are whole minutes (or the zone's own transitions, which are whole minutes too in
//! these zones), so a minute is judged by its first instant. `PEIL_LONG=1` raises the number of cases.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use peil_proto::sample::State;
use peil_proto::settings::{Document, Mistakes};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::calendar::{Month, zone};
use super::exclusion::{Exclusion, ExclusionKind, Refusal};
use super::expr::Expr;
use super::figure::Figure;
use super::span::Span;
use super::terms::{Confirm, CountsAs, Coverage, Denominator, Maintenance, OutageStarts, Terms, UnknownClause};
use super::track::Track;
use super::window::Window;
use super::{Case, CheckEvidence, Evidence, evaluate, evaluate_to_date};

const MINUTE: i64 = 60_000;

/// Zones and months with something odd in them.
const PLACES: [(&str, &str); 12] = [
    ("Europe/Amsterdam", "2026-03"),
    ("Europe/Amsterdam", "2026-10"),
    ("Europe/Amsterdam", "2026-04"),
    ("Europe/London", "2026-03"),
    ("America/St_Johns", "2009-11"),
    ("America/St_Johns", "2011-03"),
    ("Australia/Lord_Howe", "2026-04"),
    ("Australia/Lord_Howe", "2026-10"),
    ("America/Santiago", "2026-04"),
    ("America/Santiago", "2026-09"),
    ("Africa/Casablanca", "2026-03"),
    ("Pacific/Apia", "2011-12"),
];

/// One minute of a month: its first instant, and what the wall clock shows then.
struct Minute {
    at: i64,
    date: jiff::civil::Date,
    of_day: i64,
}

/// The minutes of a month, found by asking the wall clock of each minute around it.
fn minutes(place: usize) -> &'static [Minute] {
    static CACHE: [OnceLock<Vec<Minute>>; PLACES.len()] = [const { OnceLock::new() }; PLACES.len()];
    CACHE[place].get_or_init(|| {
        let (zone_name, month) = PLACES[place];
        let zone = zone(zone_name).expect("a known zone");
        let (year, number) = month.split_once('-').expect("a month");
        let first = jiff::civil::date(year.parse().expect("a year"), number.parse().expect("a month"), 1);
        let next = first.checked_add(jiff::Span::new().months(1)).expect("in range");
        let guess = first.at(0, 0, 0, 0).in_tz("UTC").expect("UTC").timestamp().as_millisecond();
        let (mut inside, mut found) = (false, Vec::new());
        for n in -2 * 1_440..35 * 1_440 {
            let at = guess + n * MINUTE;
            let wall = zone.to_datetime(jiff::Timestamp::from_millisecond(at).expect("in range"));
            if wall.date() >= next {
                break;
            }
            inside |= wall.date() >= first;
            if inside {
                found.push(Minute {
                    at,
                    date: wall.date(),
                    of_day: i64::from(wall.hour()) * 60 + i64::from(wall.minute()),
                });
            }
        }
        found
    })
}

/// A window entry in minutes after midnight, as the format writes it.
#[derive(Debug, Clone)]
struct Hours {
    days: Vec<usize>,
    from: i64,
    to: i64,
}

const DAY_NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Hours {
    fn json(&self) -> String {
        let days: Vec<_> = self.days.iter().map(|day| DAY_NAMES[*day]).collect();
        let clock = |m: i64| format!("{:02}:{:02}", m / 60, m % 60);
        format!("{{\"days\": {days:?}, \"from\": \"{}\", \"to\": \"{}\"}}", clock(self.from), clock(self.to))
    }

    fn has(&self, minute: &Minute, starts: &dyn Fn(jiff::civil::Date) -> bool) -> bool {
        let on = |date: jiff::civil::Date| {
            self.days.contains(&usize::try_from(date.weekday().to_monday_zero_offset()).expect("0 to 6"))
                && starts(date)
        };
        let yesterday = minute.date.yesterday().expect("in range");
        if self.to > self.from {
            on(minute.date) && self.from <= minute.of_day && minute.of_day < self.to
        } else {
            (on(minute.date) && minute.of_day >= self.from) || (on(yesterday) && minute.of_day < self.to)
        }
    }
}

/// A random case, with its window kept as the format writes it.
#[derive(Debug, Clone)]
struct Puzzle {
    place: usize,
    window: Option<Vec<Hours>>,
    free: Option<Vec<jiff::civil::Date>>,
    case: Case,
    now: UtcTime,
}

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
    for i in since_up..=last {
        if samples[i].1 != State::Down {
            continue;
        }
        let (first, end) = run(i);
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
    let Puzzle { case, .. } = puzzle;
    let terms = &case.terms;
    let sorted: BTreeMap<&str, Vec<Vec<(i64, State)>>> =
        case.checks.iter().map(|(name, check)| (name.as_str(), check.vantages.values().map(tidy).collect())).collect();
    let refusals: Vec<Option<Refusal>> = case.exclusions.iter().map(|e| refusal(e, terms)).collect();
    let is_work = |e: &Exclusion| e.kind == ExclusionKind::Maintenance;
    let covers = |e: &Exclusion, t: i64| e.span.from.0 <= t && t < e.span.to.0;
    let mut order: Vec<usize> = (0..case.exclusions.len()).collect();
    order.sort_by_key(|i| (is_work(&case.exclusions[*i]), case.exclusions[*i].span.from, *i));

    let mut tally = Tally::default();
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
        } else if !scheduled {
            tally.out_of_window += 1;
        } else if !working {
            tally.holiday += 1;
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
                taken = Some(work);
                rows[*i].0 += i64::from(past);
            }
        }
        if !past {
            continue;
        }
        match taken {
            Some(true) if terms.maintenance.counts_as == CountsAs::Up => tally.up += 1,
            Some(_) => tally.excluded += 1,
            None => {
                let of = |name: &str| check_at(&case.checks[name], &sorted[name], terms, t);
                *(match service_at(&case.service, &of) {
                    State::Up => &mut tally.up,
                    State::Down => &mut tally.down,
                    State::Unknown => &mut tally.unknown,
                }) += 1;
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
    tally
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

/// A moment in or around the month, in minutes from its start.
fn moment() -> impl Strategy<Value = i64> {
    -3_000_i64..48_000
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![4 => Just(State::Up), 4 => Just(State::Down), 1 => Just(State::Unknown)]
}

/// Bursts of samples with silence between them, in no order, some twice.
pub(super) fn samples() -> impl Strategy<Value = Vec<(i64, State)>> {
    let burst = (moment(), prop::collection::vec((1_i64..7, state(), 1_usize..5), 1..12)).prop_map(|(start, steps)| {
        let mut at = start;
        let mut made = Vec::new();
        for (step, state, times) in steps {
            for _ in 0..times {
                made.push((at, state));
                at += step;
            }
        }
        made
    });
    prop::collection::vec(burst, 0..12).prop_map(|bursts| bursts.concat()).prop_shuffle()
}

fn checks() -> impl Strategy<Value = BTreeMap<String, CheckEvidence>> {
    let check = (1_i64..4, 0_i64..3, prop::collection::vec(samples(), 1..4), any::<prop::sample::Index>()).prop_map(
        |(interval, timeout, vantages, quorum)| CheckEvidence {
            interval: Millis(interval * MINUTE),
            timeout: Millis(timeout * MINUTE),
            quorum: quorum.index(vantages.len()) + 1,
            vantages: vantages
                .into_iter()
                .enumerate()
                .map(|(i, samples)| {
                    let samples = samples.into_iter().map(|(at, state)| (UtcTime(at), state)).collect();
                    (format!("v{i}"), Evidence::Samples(samples))
                })
                .collect(),
        },
    );
    prop::collection::vec(check, 3).prop_map(|list| ["a", "b", "c"].map(str::to_owned).into_iter().zip(list).collect())
}

fn service() -> impl Strategy<Value = Expr> {
    let leaf = prop::sample::select(vec!["a", "b", "c"]).prop_map(|name| Expr::Check(name.to_owned()));
    leaf.prop_recursive(3, 12, 3, |inner| {
        let parts = prop::collection::vec(inner, 1..4);
        (parts, 0..3, any::<prop::sample::Index>()).prop_map(|(parts, form, k)| match form {
            0 => Expr::All(parts),
            1 => Expr::Any(parts),
            _ => Expr::AtLeast(k.index(parts.len()) + 1, parts),
        })
    })
}

fn exclusions() -> impl Strategy<Value = Vec<Exclusion>> {
    let kinds = ExclusionKind::WORDS.map(|(_, kind)| kind).to_vec();
    let kind = prop_oneof![Just(ExclusionKind::Maintenance), prop::sample::select(kinds)];
    let one = (kind, moment(), 1_i64..3_000, prop::option::of(0_i64..4_000), prop::bool::weighted(0.85));
    let made = one.prop_map(|(kind, from, length, ahead, approved)| Exclusion {
        id: "X".to_owned(),
        kind,
        span: Span::new(UtcTime(from), UtcTime(from + length)),
        announced_at: ahead.map(|ahead| UtcTime(from - ahead)),
        approved_by: approved.then(|| "sdm@example.org".to_owned()),
    });
    prop::collection::vec(made, 0..6)
}

fn hours() -> impl Strategy<Value = Hours> {
    let days = prop::sample::subsequence((0..7).collect::<Vec<_>>(), 1..=7);
    (days, 0_i64..1_440, 0_i64..=1_440).prop_map(|(days, from, to)| Hours { days, from, to })
}

fn terms() -> impl Strategy<Value = Terms> {
    let coverage = (prop::option::weighted(0.3, moment()), prop::option::weighted(0.3, moment()));
    let unknown = prop::sample::select(vec![UnknownClause::Down, UnknownClause::Excluded, UnknownClause::Up]);
    let maintenance = (any::<bool>(), 0_i64..3, prop::option::of(0_i64..3_000));
    (coverage, any::<bool>(), unknown, maintenance, 1_u8..4, any::<bool>()).prop_map(
        |((from, to), covered, unknown, (up, notice, cap), confirm, first)| Terms {
            coverage: Coverage { from: from.map(UtcTime), to: to.map(UtcTime) },
            denominator: if covered { Denominator::Covered } else { Denominator::FullMonth },
            unknown,
            maintenance: Maintenance {
                counts_as: if up { CountsAs::Up } else { CountsAs::Excluded },
                notice: Millis(notice * Millis::DAY.0),
                monthly_cap: cap.map(|minutes| Millis(minutes * MINUTE)),
            },
            confirm: Confirm::new(confirm).expect("in range"),
            outage_starts: if first { OutageStarts::FirstFailure } else { OutageStarts::Confirmation },
            ..Terms::default()
        },
    )
}

/// Reads what the format says, so that the window and holidays take the front door too.
fn read_window(window: Option<&[Hours]>, free: Option<&[jiff::civil::Date]>) -> Terms {
    let window = match window {
        None => "\"always\"".to_owned(),
        Some(hours) => format!("[{}]", hours.iter().map(Hours::json).collect::<Vec<_>>().join(",")),
    };
    let holidays = free.map_or("null".to_owned(), |free| {
        let also: Vec<String> = free.iter().map(ToString::to_string).collect();
        format!("{{\"also\": {also:?}, \"not\": []}}")
    });
    let mistakes = Mistakes::new("puzzle");
    let text = format!("{{\"window\": {window}, \"holidays\": {holidays}}}");
    let mut fields = Document::json(&text, &mistakes).fields(&mistakes);
    let terms = Terms::read(&mut fields);
    fields.finish();
    mistakes.into_result(terms).expect("a readable window")
}

/// Dutch holidays in the months of [`PLACES`], from the almanac.
const ALMANAC: [(i16, i8, i8); 4] = [(2026, 4, 5), (2026, 4, 6), (2026, 4, 27), (2011, 12, 25)];

fn free_days(place: usize, extra: &[usize]) -> Vec<jiff::civil::Date> {
    let dates: Vec<_> = minutes(place).iter().map(|minute| minute.date).collect();
    let mut free: Vec<_> = ALMANAC.iter().map(|(y, m, d)| jiff::civil::date(*y, *m, *d)).collect();
    free.push(jiff::civil::date(2011, 12, 26));
    free.extend(extra.iter().map(|i| dates[i * 1_440 % dates.len()]));
    free.sort();
    free.dedup();
    free
}

fn puzzle() -> impl Strategy<Value = Puzzle> {
    let window = prop::option::weighted(0.8, prop::collection::vec(hours(), 1..4));
    let free = prop::option::of(prop::collection::vec(0_usize..31, 0..4));
    let case = (terms(), service(), checks(), exclusions(), moment());
    (0..PLACES.len(), window, free, case).prop_map(
        |(place, window, free, (terms, service, mut checks, mut exclusions, now))| {
            let (zone_name, month) = PLACES[place];
            let start = minutes(place)[0].at;
            let moved = |at: UtcTime| UtcTime(start + at.0 * MINUTE);
            for check in checks.values_mut() {
                for evidence in check.vantages.values_mut() {
                    if let Evidence::Samples(samples) = evidence {
                        samples.iter_mut().for_each(|(at, _)| *at = moved(*at));
                    }
                }
            }
            for exclusion in &mut exclusions {
                exclusion.span = Span::new(moved(exclusion.span.from), moved(exclusion.span.to));
                exclusion.announced_at = exclusion.announced_at.map(moved);
            }
            let free = free.map(|extra| free_days(place, &extra));
            let read = read_window(window.as_deref(), free.as_deref());
            let coverage = Coverage { from: terms.coverage.from.map(moved), to: terms.coverage.to.map(moved) };
            let timezone = zone(zone_name).expect("a known zone");
            let terms = Terms { timezone, window: read.window, holidays: read.holidays, coverage, ..terms };
            let month = Month::parse(month).expect("a month");
            let case = Case { month, terms, service, checks, exclusions };
            Puzzle { place, window, free, case, now: moved(UtcTime(now)) }
        },
    )
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
            let figure = evaluate(&puzzle.case);
            prop_assert_eq!(tally_of(&figure), judge(&puzzle, i64::MAX));
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
