//! Random cases: contracts, zones with something odd in their months, and evidence in bursts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

use peil_proto::sample::State;
use peil_proto::settings::{Document, Mistakes};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use proptest::prelude::*;

use crate::contract::calendar::{Month, zone};
use crate::contract::exclusion::{Exclusion, ExclusionKind};
use crate::contract::expr::Expr;
use crate::contract::percent::Percent;
use crate::contract::span::Span;
use crate::contract::terms::{
    Confirm, CountsAs, Coverage, Denominator, Maintenance, OutageStarts, Terms, UnknownClause,
};
use crate::contract::{Case, CheckEvidence, Evidence};

pub(super) const MINUTE: i64 = 60_000;

/// Zones and months with something odd in them, by part of the world.
pub(super) const PLACES: [(&str, &str); 13] = [
    ("Europe/Amsterdam", "2026-03"),
    ("Europe/Amsterdam", "2026-10"),
    ("Europe/Amsterdam", "2026-04"),
    ("Europe/London", "2026-03"),
    ("Europe/London", "2026-10"),
    ("Africa/Casablanca", "2026-03"),
    ("America/St_Johns", "2009-11"),
    ("America/St_Johns", "2011-03"),
    ("America/Santiago", "2026-04"),
    ("America/Santiago", "2026-09"),
    ("Australia/Lord_Howe", "2026-04"),
    ("Australia/Lord_Howe", "2026-10"),
    ("Pacific/Apia", "2011-12"),
];
pub(super) const EUROPE_AND_AFRICA: Range<usize> = 0..6;
pub(super) const AMERICA: Range<usize> = 6..10;
pub(super) const PACIFIC: Range<usize> = 10..13;

/// One minute of a month: its first instant, and what the wall clock shows then.
pub(super) struct Minute {
    pub(super) at: i64,
    pub(super) date: jiff::civil::Date,
    pub(super) of_day: i64,
}

/// The minutes of a month, found by asking the wall clock of each minute around it.
pub(super) fn minutes(place: usize) -> &'static [Minute] {
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
pub(super) struct Hours {
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

    pub(super) fn has(&self, minute: &Minute, starts: &dyn Fn(jiff::civil::Date) -> bool) -> bool {
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
pub(super) struct Puzzle {
    pub(super) place: usize,
    pub(super) window: Option<Vec<Hours>>,
    pub(super) free: Option<Vec<jiff::civil::Date>>,
    pub(super) case: Case,
    pub(super) now: UtcTime,
}

/// A moment in or around the month, in minutes from its start.
fn moment() -> impl Strategy<Value = i64> {
    -3_000_i64..48_000
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![4 => Just(State::Up), 4 => Just(State::Down), 1 => Just(State::Unknown)]
}

/// Bursts of samples with silence between them, in no order, some twice; now and then a run that is
/// longer than a track keeps sample by sample.
fn samples() -> impl Strategy<Value = Vec<(i64, State)>> {
    let burst =
        (moment(), prop::collection::vec((1_i64..7, state(), prop_oneof![9 => 1_usize..5, 1 => 60_usize..140]), 1..12))
            .prop_map(|(start, steps)| {
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
    let percent = || prop::sample::select(vec!["99.5", "0", "40", "99.999999", "100"]);
    let percents = (percent(), percent());
    (coverage, any::<bool>(), unknown, maintenance, (1_u8..4, any::<bool>()), percents).prop_map(
        |((from, to), covered, unknown, (up, notice, cap), (confirm, first), (target, min_known))| Terms {
            target: Percent::parse(target).expect("a percentage"),
            min_known: Percent::parse(min_known).expect("a percentage"),
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

/// A case in one of these places.
pub(super) fn puzzle(places: Range<usize>) -> impl Strategy<Value = Puzzle> {
    let window = prop::option::weighted(0.8, prop::collection::vec(hours(), 1..4));
    let free = prop::option::of(prop::collection::vec(0_usize..31, 0..4));
    let case = (terms(), service(), checks(), exclusions(), moment());
    (places, window, free, case).prop_map(|(place, window, free, (terms, service, mut checks, mut exclusions, now))| {
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
        for (i, exclusion) in exclusions.iter_mut().enumerate() {
            exclusion.id = format!("X{i}");
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
    })
}
