//! What is stored against what the blocks say, in words.
//!
//! A difference means that the stored value is wrong: damage, a bug, or a hand in the database. The blocks are right
//! by definition. Limits: none here; whoever prints them decides how many a person reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::sample::PHASES;
use peil_proto::time::{UtcDay, UtcTime};

use super::histogram::{Histogram, PerMille};
use super::period::{Counts, Day, Hour, Period};
use super::{Derived, Seen};

/// One stored value that does not follow from the blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Who saw it.
    pub agent: AgentId,
    /// Of which check.
    pub check: CheckNo,
    /// When.
    pub period: Which,
    /// What is wrong.
    pub what: What,
}

/// The stretch of time a value is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// By its start.
    Hour(UtcTime),
    /// A day.
    Day(UtcDay),
    /// By its first day.
    Month(UtcDay),
}

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The blocks have samples and nothing is stored.
    Missing(Counts),
    /// Something is stored and the blocks have no samples.
    Surplus(Counts),
    /// Another number of samples.
    Counts {
        /// As stored.
        stored: Counts,
        /// As the blocks have it.
        fresh: Counts,
    },
    /// Other times; `0` is `total` or a phase.
    Times(&'static str, Times, Times),
    /// Other changes of state: the number of pieces stored, and in the blocks; the first that differs begins then.
    States {
        /// Pieces stored.
        stored: usize,
        /// Pieces that follow from the blocks.
        fresh: usize,
        /// From when on they differ.
        from: Option<UtcTime>,
    },
}

/// Enough of a histogram to see that two differ, and by how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    count: u64,
    p50_us: Option<u32>,
    p99_us: Option<u32>,
}

impl Times {
    fn of(histogram: &Histogram) -> Self {
        let [p50, p99] = histogram.quantiles([PerMille::P50, PerMille::P99]);
        Self { count: histogram.count(), p50_us: p50.map(|time| time.0), p99_us: p99.map(|time| time.0) }
    }
}

/// Everything in which `stored` is not what it should be.
pub fn diff(stored: &Derived, fresh: &Derived) -> Vec<Difference> {
    let nothing = Seen::default();
    let vantages: BTreeSet<_> = stored.seen.keys().chain(fresh.seen.keys()).collect();
    let mut found = Vec::new();
    for vantage in vantages {
        let old = stored.seen.get(vantage).unwrap_or(&nothing);
        let new = fresh.seen.get(vantage).unwrap_or(&nothing);
        let mut note = |period, what| {
            found.push(Difference { agent: vantage.0, check: vantage.1, period, what });
        };
        each(&old.hours, &new.hours, |hour: &Hour| hour.counts, hours, |at, what| note(Which::Hour(at), what));
        each(&old.days, &new.days, |day: &Day| day.period.counts, days, |day, what| note(Which::Day(day), what));
        each(&old.months, &new.months, |month: &Period| month.counts, periods, |at, what| note(Which::Month(at), what));
    }
    found
}

/// Compares the values of two maps, key by key.
fn each<K: Ord + Copy, V: PartialEq>(
    stored: &BTreeMap<K, V>,
    fresh: &BTreeMap<K, V>,
    counts: impl Fn(&V) -> Counts,
    compare: impl Fn(&V, &V) -> Vec<What>,
    mut note: impl FnMut(K, What),
) {
    let keys: BTreeSet<_> = stored.keys().chain(fresh.keys()).collect();
    for key in keys {
        match (stored.get(key), fresh.get(key)) {
            (Some(stored), Some(fresh)) if stored != fresh => {
                compare(stored, fresh).into_iter().for_each(|what| note(*key, what));
            }
            (Some(stored), None) => note(*key, What::Surplus(counts(stored))),
            (None, Some(fresh)) => note(*key, What::Missing(counts(fresh))),
            _ => {}
        }
    }
}

fn hours(stored: &Hour, fresh: &Hour) -> Vec<What> {
    let mut found = Vec::from_iter(unequal(stored.counts, fresh.counts));
    found.extend(times("total", &stored.total, &fresh.total));
    found
}

fn periods(stored: &Period, fresh: &Period) -> Vec<What> {
    let mut found = Vec::from_iter(unequal(stored.counts, fresh.counts));
    found.extend(times("total", &stored.total, &fresh.total));
    for (name, (old, new)) in PHASES.into_iter().zip(stored.phases.iter().zip(&fresh.phases)) {
        found.extend(times(name, old, new));
    }
    found
}

fn days(stored: &Day, fresh: &Day) -> Vec<What> {
    let mut found = periods(&stored.period, &fresh.period);
    if stored.pieces != fresh.pieces {
        let at = stored.pieces.iter().zip(&fresh.pieces).take_while(|(old, new)| old == new).count();
        let from = fresh.pieces.get(at).or(stored.pieces.get(at)).map(|piece| piece.first);
        found.push(What::States { stored: stored.pieces.len(), fresh: fresh.pieces.len(), from });
    }
    found
}

fn unequal(stored: Counts, fresh: Counts) -> Option<What> {
    (stored != fresh).then_some(What::Counts { stored, fresh })
}

fn times(name: &'static str, stored: &Histogram, fresh: &Histogram) -> Option<What> {
    (stored != fresh).then(|| What::Times(name, Times::of(stored), Times::of(fresh)))
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "check {} as agent {} saw it, {}: {}", self.check, self.agent, self.period, self.what)
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hour(start) => write!(f, "hour from {start}"),
            Self::Day(day) => write!(f, "day {day}"),
            Self::Month(first) => write!(f, "month from {first}"),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(fresh) => write!(f, "nothing is stored, the blocks have {fresh}"),
            Self::Surplus(stored) => write!(f, "{stored} are stored, the blocks have nothing"),
            Self::Counts { stored, fresh } => write!(f, "{stored} are stored, the blocks have {fresh}"),
            Self::Times(name, stored, fresh) => {
                write!(f, "the times of {name} are stored as {stored}, the blocks have {fresh}")
            }
            Self::States { stored, fresh, from: Some(from) } => {
                write!(
                    f,
                    "the states are stored in {stored} pieces, the blocks have {fresh}; they differ from {from} on"
                )
            }
            Self::States { stored, fresh, from: None } => {
                write!(f, "the states are stored in {stored} pieces, the blocks have {fresh}")
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} up, {} failed, {} not run", self.up, self.failed, self.not_run)?;
        if self.held > 0 { write!(f, " ({} out of range)", self.held) } else { Ok(()) }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values", self.count)?;
        if let (Some(p50), Some(p99)) = (self.p50_us, self.p99_us) {
            write!(f, " (half within {p50} µs, 99 % within {p99} µs)")?;
        }
        Ok(())
    }
}
