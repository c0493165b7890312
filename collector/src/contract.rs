//! JUDGE: the arithmetic of the contract.
//!
//! One function, [`evaluate`], turns evidence and terms into the figure of a month. The dashboard, the
//! API, the report and `peil-collector sla evaluate` all call it, so they cannot differ; the rules are
//! those of formats.md §1. [`evaluate_to_date`] asks the same of a month that is still running.
//!
//! *Architecture invariant:* pure. Nothing in this directory waits, stores, reads a clock or a file; it
//! depends on `peil_proto` and on jiff with its bundled zones, and `tests/layers.rs` keeps it so.
//! Everything is whole milliseconds; the result does not depend on the order or repetition of samples.
//!
//! How a month is judged: evidence → a timeline per check → the service ([`expr`]) → sets of down, up
//! and unknown time ([`span`]); window, holidays and coverage → agreed time; [`exclusion`]s → what is
//! taken out; then the [`figure`] is lengths of intersections. Reading order is the order below.

pub mod percent;
pub mod span;
pub mod calendar;
pub mod holiday;
pub mod window;
pub mod terms;
pub mod track;
mod timeline;
pub mod expr;
pub mod exclusion;
pub mod outage;
pub mod figure;
pub mod attribution;
pub mod ratio;
pub mod forecast;
pub mod whatif;
pub mod workday;
pub mod support;
pub mod patch;
pub mod energy;

#[cfg(test)]
mod brute;
#[cfg(test)]
mod properties;

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use attribution::{Interval, Judged};
use calendar::Month;
use exclusion::{Exclusion, Weighed, weigh};
use expr::{Expr, Judge};
use figure::{Buckets, Facts, Figure, Grounds};
use forecast::{Course, Forecast};
use outage::Outage;
use span::Span;
use terms::{Terms, UnknownClause};
use timeline::Timeline;
use track::Track;

/// What one vantage knows about one check.
#[derive(Debug, Clone)]
pub enum Evidence {
    /// Ready intervals, half-open, in order and apart; the rest of time is `otherwise`.
    States {
        /// From, to, state.
        intervals: Vec<(UtcTime, UtcTime, State)>,
        /// What holds outside them.
        otherwise: State,
    },
    /// Samples in any order, with any repetitions: (scheduled time, state).
    Samples(Vec<(UtcTime, State)>),
    /// Samples folded as they came; its own hold time applies.
    Track(Track),
}

/// What is known about one check.
#[derive(Debug, Clone)]
pub struct CheckEvidence {
    /// Time between samples.
    pub interval: Millis,
    /// How long a probe may take.
    pub timeout: Millis,
    /// Votes that decide.
    pub quorum: usize,
    /// By vantage.
    pub vantages: BTreeMap<String, Evidence>,
}

impl CheckEvidence {
    /// How long a sample holds without a next one.
    pub fn hold(&self) -> Millis {
        hold(self.interval, self.timeout)
    }
}

/// How long a sample holds without a next one: 2 × interval + timeout.
pub fn hold(interval: Millis, timeout: Millis) -> Millis {
    interval.saturating_add(interval).saturating_add(timeout)
}

/// Everything a figure depends on.
#[derive(Debug, Clone)]
pub struct Case {
    /// Which month, in the contract's zone.
    pub month: Month,
    /// What was agreed.
    pub terms: Terms,
    /// What must work.
    pub service: Expr,
    /// What is known, by the names the service uses.
    pub checks: BTreeMap<String, CheckEvidence>,
    /// What was approved.
    pub exclusions: Vec<Exclusion>,
}

/// The figure of a running month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToDate {
    /// As if the agreement ended now: the rest of the month is in `not_covered_ms`.
    pub figure: Figure,
    /// Agreed time of the whole month, with the exclusions known now and all that is ahead as known.
    pub month_agreed_ms: Millis,
    /// Loss allowed over the whole month.
    pub budget_ms: Millis,
    /// What is left of it; negative after a breach.
    pub budget_left_ms: Millis,
    /// The loss already exceeds the largest budget the month can still have: no later hour can mend it.
    pub breach_certain: bool,
    /// How the service is now.
    pub state_now: State,
    /// Names of the checks that make it so, sorted; empty when it is up.
    pub because: Vec<String>,
}

/// The figure of a whole month.
pub fn evaluate(case: &Case) -> Figure {
    let month = case.month.span(&case.terms.timezone);
    Docket::new(case).figure(month)
}

/// The month of a case instant by instant: each with its bucket and its cause, in order, without hole or
/// overlap. The sums are those of [`evaluate`].
pub fn attribution(case: &Case) -> Vec<Interval> {
    evaluate_with_attribution(case).1
}

/// [`evaluate`] and [`attribution()`] in one go.
pub fn evaluate_with_attribution(case: &Case) -> (Figure, Vec<Interval>) {
    let docket = Docket::new(case);
    let month = docket.grounds.month;
    let settled = docket.settle(month);
    let judged = Judged {
        month,
        buckets: &settled.buckets,
        credited: &docket.grounds.credited,
        weighed: &settled.weighed,
        exclusions: &case.exclusions,
        counts_as: case.terms.maintenance.counts_as,
        stretches: &outage::stretches(&docket.judge, &docket.checks, month),
        names: &docket.names,
    };
    let figure = Figure::new(case.month, &case.terms, &settled.buckets, settled.outages, settled.weighed.rows.clone());
    let intervals = attribution::attribute(&judged, &figure);
    (figure, intervals)
}

/// The figure of the month up to `now`, and what it means for the rest of the month.
///
/// `now` before or after the month is held at its ends, except for the state, which is that of `now`.
pub fn evaluate_to_date(case: &Case, now: UtcTime) -> ToDate {
    let docket = Docket::new(case);
    let month = docket.grounds.month;
    let past = Span::new(month.from, now.clamp(month.from, month.to));
    let figure = docket.figure(past);

    let (month_agreed_ms, most_agreed_ms) = docket.month_agreed(&figure, past.to);
    let budget_ms = case.terms.target.budget_of(month_agreed_ms);

    let readings: Vec<_> = docket.checks.iter().map(|check| check.at(now)).collect();
    let state_now = docket.judge.read(&readings).counted;
    let mut because = BTreeSet::new();
    if state_now != State::Up {
        docket.judge.blame(&readings, |reading| reading.counted, state_now, &mut because);
    }
    ToDate {
        month_agreed_ms,
        budget_ms,
        budget_left_ms: budget_ms.saturating_sub(figure.counted_down_ms),
        breach_certain: figure.counted_down_ms > case.terms.target.budget_of(most_agreed_ms),
        state_now,
        because: because.into_iter().filter_map(|i| docket.names.get(i).map(|name| (*name).to_owned())).collect(),
        figure,
    }
}

/// What the month up to `now` says about its end. `now` before or after the month is held at its ends.
pub fn forecast(case: &Case, now: UtcTime) -> Forecast {
    let docket = Docket::new(case);
    let month = docket.grounds.month;
    let now = now.clamp(month.from, month.to);
    let Settled { weighed, buckets, outages } = docket.settle(Span::new(month.from, now));
    let (_, ahead) = forecast::split(&docket.grounds.agreed, now);
    let ahead = ahead.without(&weighed.excluded).without(&weighed.as_up);
    let (elapsed, lost) = match case.terms.unknown {
        UnknownClause::Down => (buckets.judged.clone(), buckets.down.union(&buckets.unknown)),
        UnknownClause::Excluded => (buckets.judged.without(&buckets.unknown), buckets.down.clone()),
        UnknownClause::Up => (buckets.judged.clone(), buckets.down.clone()),
    };
    let figure = Figure::new(case.month, &case.terms, &buckets, outages, weighed.rows);
    let (month_agreed_ms, most_agreed_ms) = docket.month_agreed(&figure, now);
    Course { target: case.terms.target, elapsed, lost, ahead, month_agreed_ms, most_agreed_ms }.forecast()
}

/// A case with its names resolved, its evidence as timelines and its calendar laid out.
struct Docket<'a> {
    case: &'a Case,
    grounds: Grounds,
    names: Vec<&'a str>,
    judge: Judge,
    /// By place in `names`.
    checks: Vec<Timeline>,
}

impl<'a> Docket<'a> {
    fn new(case: &'a Case) -> Self {
        let names: Vec<&str> = case.service.names().into_iter().collect();
        let of_check = |name: &&str| match case.checks.get(*name) {
            Some(check) => timeline::of_check(check, &case.terms),
            None => Timeline::starting(Span::ALWAYS.from, timeline::Reading::UNKNOWN),
        };
        Self {
            case,
            grounds: Grounds::new(case.month.span(&case.terms.timezone), &case.terms),
            judge: Judge::new(&case.service, &names),
            checks: names.iter().map(of_check).collect(),
            names,
        }
    }

    /// The figure as if the agreement ended with `past`, which starts with the month.
    fn figure(&self, past: Span) -> Figure {
        let Settled { weighed, buckets, outages } = self.settle(past);
        Figure::new(self.case.month, &self.case.terms, &buckets, outages, weighed.rows)
    }

    /// The denominator of the whole month when `to_date` is its figure until `now`: as the exclusions ahead
    /// are known now, and the largest it can still become, if all of them are called off.
    fn month_agreed(&self, to_date: &Figure, now: UtcTime) -> (Millis, Millis) {
        let Grounds { month, agreed, credited, .. } = &self.grounds;
        let weighed = weigh(&self.case.exclusions, &self.case.terms.maintenance, agreed, *month);
        let ahead = Span::new(now, month.to);
        let credited_ms = credited.total_within(ahead);
        let known = agreed.without(&weighed.excluded).total_within(ahead).saturating_add(credited_ms);
        let most = agreed.total_within(ahead).saturating_add(credited_ms);
        (to_date.agreed_ms.saturating_add(known), to_date.agreed_ms.saturating_add(most))
    }

    /// Everything in its bucket, as if the agreement ended with `past`, which starts with the month.
    fn settle(&self, past: Span) -> Settled {
        let terms = &self.case.terms;
        let weighed = weigh(&self.case.exclusions, &terms.maintenance, &self.grounds.agreed, past);
        let judged = outage::follow(&self.judge, &self.checks, &self.names, past);
        let when = |state| judged.timeline.spans(state, past.to);
        let (up, down, unknown) = (when(State::Up), when(State::Down), when(State::Unknown));
        let facts =
            Facts { excluded: &weighed.excluded, as_up: &weighed.as_up, up: &up, down: &down, unknown: &unknown };
        let buckets = Buckets::new(&self.grounds.until(past), &facts);
        let mut outages = judged.outages;
        outage::count(&mut outages, &buckets.down);
        Settled { weighed, buckets, outages }
    }
}

/// A month whose instants all have their bucket.
struct Settled {
    weighed: Weighed,
    buckets: Buckets,
    outages: Vec<Outage>,
}
