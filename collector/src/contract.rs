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
pub mod approval;
pub mod outage;
pub mod figure;
pub mod attribution;
mod docket;
pub mod ratio;
pub mod forecast;
pub mod whatif;
pub mod version;
pub mod dossier;
pub mod sealing;
pub mod quality;
pub mod workday;
pub mod support;
pub mod patch;
pub mod energy;

#[cfg(test)]
mod brute;
#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) use brute::any_case;

use std::collections::BTreeMap;

use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use attribution::{Interval, Judged};
use calendar::Month;
pub use docket::Docket;
use docket::{Outlook, Settled};
use exclusion::Exclusion;
use expr::Expr;
use figure::Figure;
use forecast::{Course, Forecast};
use percent::Percent;
use span::{Span, Spans};
use terms::{Terms, UnknownClause};
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

impl Evidence {
    /// The same evidence in its smallest portable form, cut to what `month` needs: the fewest samples, or ready
    /// intervals where samples cannot say it (a vantage from which nobody looks any more).
    #[must_use]
    pub fn portable(&self, hold: Millis, terms: &Terms, month: Span) -> Self {
        let folded = match self {
            Self::States { .. } => return timeline::as_states(self, hold, terms, month),
            Self::Samples(samples) => Track::of_samples(hold, samples),
            Self::Track(track) if timeline::is_cut_off(track, terms, month.to) => {
                return timeline::as_states(self, hold, terms, month);
            }
            Self::Track(track) => track.clone(),
        };
        let mut needed = folded;
        needed.forget_before(month.from);
        Self::Samples(needed.samples())
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

/// A stretch of a month in which nothing of the agreement changed.
#[derive(Debug, Clone)]
pub struct Chapter {
    /// When.
    pub span: Span,
    /// What was agreed then.
    pub terms: Terms,
    /// What had to work.
    pub service: Expr,
    /// What is known, under the rhythm and quorum that each check had then.
    pub checks: BTreeMap<String, CheckEvidence>,
}

/// A [`Case`] whose agreement changed within the month.
#[derive(Debug, Clone)]
pub struct Dated {
    /// Which month.
    pub month: Month,
    /// In order, each beginning where the one before ends, together the month.
    pub chapters: Vec<Chapter>,
    /// What was approved.
    pub exclusions: Vec<Exclusion>,
}

impl From<Case> for Dated {
    /// One chapter: nothing changed.
    fn from(case: Case) -> Self {
        let Case { month, terms, service, checks, exclusions } = case;
        let span = month.span(&terms.timezone);
        Self { month, chapters: vec![Chapter { span, terms, service, checks }], exclusions }
    }
}

/// The figure of a whole month: of a [`Case`] or a [`Dated`] one, as everything below.
pub fn evaluate<'a>(case: impl Into<Docket<'a>>) -> Figure {
    let docket = case.into();
    docket.figure(docket.settle(docket.span))
}

/// The month of a case instant by instant: each with its bucket and its cause, in order, without hole or
/// overlap. The sums are those of [`evaluate`].
pub fn attribution<'a>(case: impl Into<Docket<'a>>) -> Vec<Interval> {
    evaluate_with_attribution(case).1
}

/// [`evaluate`] and [`attribution()`] in one go.
pub fn evaluate_with_attribution<'a>(case: impl Into<Docket<'a>>) -> (Figure, Vec<Interval>) {
    let docket = case.into();
    let settled = docket.settle(docket.span);
    let (buckets, weighed) = (settled.buckets(), settled.weighed.clone());
    let figure = docket.figure(settled);
    let Some(buckets) = buckets else { return (figure, Vec::new()) };
    let judged = Judged {
        month: docket.span,
        buckets: &buckets,
        credited: &docket.credited(),
        weighed: &weighed,
        exclusions: docket.exclusions,
        stretches: &outage::stretches(&docket.scenes(), docket.span),
        names: &docket.names,
    };
    let intervals = attribution::attribute(&judged, &figure);
    (figure, intervals)
}

/// The figure of the month up to `now`, and what it means for the rest of the month.
///
/// `now` before or after the month is held at its ends, except for the state, which is that of `now`.
pub fn evaluate_to_date<'a>(case: impl Into<Docket<'a>>, now: UtcTime) -> ToDate {
    let docket = case.into();
    let past = docket.until(now);
    to_date(&docket, docket.settle(past), now)
}

/// What the month up to `now` says about its end. `now` before or after the month is held at its ends.
pub fn forecast<'a>(case: impl Into<Docket<'a>>, now: UtcTime) -> Forecast {
    let docket = case.into();
    let past = docket.until(now);
    course(&docket, &docket.settle(past), past.to).forecast()
}

/// [`evaluate_to_date`] and [`forecast`](forecast()) for the price of one.
pub fn evaluate_and_forecast<'a>(case: impl Into<Docket<'a>>, now: UtcTime) -> (ToDate, Forecast) {
    let docket = case.into();
    let past = docket.until(now);
    let settled = docket.settle(past);
    let forecast = course(&docket, &settled, past.to).forecast();
    (to_date(&docket, settled, now), forecast)
}

fn to_date(docket: &Docket<'_>, settled: Settled<'_>, now: UtcTime) -> ToDate {
    let Outlook { agreed_ms, budget_ms, most_budget_ms } = docket.outlook(&settled, docket.until(now).to);
    let figure = docket.figure(settled);
    let (state_now, because) = docket.reading_at(now);
    ToDate {
        month_agreed_ms: agreed_ms,
        budget_ms,
        budget_left_ms: budget_ms.saturating_sub(figure.counted_down_ms),
        breach_certain: figure.counted_down_ms > most_budget_ms,
        state_now,
        because,
        figure,
    }
}

/// Service time so far and to come, when `settled` is all until `now`, which lies in the month.
fn course(docket: &Docket<'_>, settled: &Settled<'_>, now: UtcTime) -> Course {
    let (_, ahead) = forecast::split(&docket.agreed, now);
    let ahead = ahead.without(&settled.weighed.excluded).without(&settled.weighed.as_up);
    let (mut elapsed, mut lost) = (Spans::default(), Spans::default());
    for (terms, buckets) in &settled.parts {
        let (served, missed) = match terms.unknown {
            UnknownClause::Down => (buckets.judged.clone(), buckets.down.union(&buckets.unknown)),
            UnknownClause::Excluded => (buckets.judged.without(&buckets.unknown), buckets.down.clone()),
            UnknownClause::Up => (buckets.judged.clone(), buckets.down.clone()),
        };
        (elapsed, lost) = (elapsed.union(&served), lost.union(&missed));
    }
    let Outlook { agreed_ms, budget_ms, most_budget_ms } = docket.outlook(settled, now);
    let target = docket.terms_at(now).map_or(Percent::FULL, |terms| terms.target);
    Course { target, elapsed, lost, ahead, month_agreed_ms: agreed_ms, budget_ms, most_budget_ms }
}
