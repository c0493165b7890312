//! From sets of time to the figure: buckets, percentages, verdict and budget.
//!
//! Every millisecond of the month goes into exactly one bucket, and the sum is asserted each time: a
//! figure that does not add up is a fault of this program and must never reach a customer.
//! Percentages are floored; the verdict is decided on whole milliseconds before any division.

use peil_proto::units::Millis;

use super::calendar::Month;
use super::exclusion::ExclusionRow;
use super::outage::Outage;
use super::percent::Percent;
use super::span::{Span, Spans};
use super::terms::{Denominator, Terms, UnknownClause};

/// What the contract says about the month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The target was reached.
    Met,
    /// It was not.
    Breached,
    /// Too little is known, and what is not known decides.
    Undetermined,
    /// No time was agreed.
    NotApplicable,
}

impl Verdict {
    /// The word of the format.
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Breached => "breached",
            Self::Undetermined => "undetermined",
            Self::NotApplicable => "not_applicable",
        }
    }
}

/// The figure of one service for one month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// Of which month.
    pub month: Month,
    /// Its length: the sum of the seven that follow.
    pub month_ms: Millis,
    /// Outside the coverage.
    pub not_covered_ms: Millis,
    /// Outside the window.
    pub out_of_window_ms: Millis,
    /// In a window that a holiday cancelled.
    pub holiday_ms: Millis,
    /// Taken out by an exclusion.
    pub excluded_ms: Millis,
    /// Up.
    pub up_ms: Millis,
    /// Down.
    pub down_ms: Millis,
    /// Without evidence.
    pub unknown_ms: Millis,
    /// Denominator of the official figure.
    pub agreed_ms: Millis,
    /// Loss of the official figure.
    pub counted_down_ms: Millis,
    /// The figure of the contract; `None` when no time was agreed, as are the next two.
    pub official: Option<Percent>,
    /// If all that is not known was down.
    pub worst: Option<Percent>,
    /// If all that is not known was up.
    pub best: Option<Percent>,
    /// Known share of up + down + unknown; `None` when that is nothing.
    pub known: Option<Percent>,
    /// Met or not.
    pub verdict: Verdict,
    /// Loss the contract allows.
    pub budget_ms: Millis,
    /// What is left of it; negative after a breach.
    pub budget_left_ms: Millis,
    /// Stretches of down, in order.
    pub outages: Vec<Outage>,
    /// What became of each exclusion, in the order given.
    pub exclusions: Vec<ExclusionRow>,
}

/// Where each instant of a month stands before anybody looks at evidence.
pub(super) struct Grounds {
    pub(super) month: Span,
    /// Covered, and in a window with or without holidays.
    covered: Spans,
    scheduled: Spans,
    working: Spans,
    /// Covered working time: the part exclusions act on.
    pub(super) agreed: Spans,
    /// Uncovered working time that the contract counts as up.
    pub(super) credited: Spans,
}

impl Grounds {
    pub(super) fn new(month: Span, terms: &Terms) -> Self {
        let scheduled = terms.window.spans(&terms.timezone, month, |_| true);
        let working = match &terms.holidays {
            Some(holidays) => terms.window.spans(&terms.timezone, month, |day| !holidays.include(day)),
            None => scheduled.clone(),
        };
        let covered = Spans::from(month.clip(terms.coverage.span()));
        let agreed = working.intersect(&covered);
        let credited = match terms.denominator {
            Denominator::Covered => Spans::default(),
            Denominator::FullMonth => working.without(&covered),
        };
        Self { month, covered, scheduled, working, agreed, credited }
    }

    /// As if the agreement ended with `end`.
    pub(super) fn until(&self, end: Span) -> Self {
        let end = Spans::from(end);
        Self {
            month: self.month,
            covered: self.covered.intersect(&end),
            scheduled: self.scheduled.clone(),
            working: self.working.clone(),
            agreed: self.agreed.intersect(&end),
            credited: self.credited.intersect(&end),
        }
    }
}

/// The seven buckets of a month, as sets whose lengths are its figures.
pub(super) struct Buckets {
    pub(super) not_covered: Spans,
    pub(super) out_of_window: Spans,
    pub(super) holiday: Spans,
    pub(super) excluded: Spans,
    pub(super) up: Spans,
    pub(super) down: Spans,
    pub(super) unknown: Spans,
    /// The part of the last three that evidence decided about.
    pub(super) judged: Spans,
}

/// What evidence and exclusions say, as sets.
pub(super) struct Facts<'a> {
    pub(super) excluded: &'a Spans,
    pub(super) as_up: &'a Spans,
    pub(super) up: &'a Spans,
    pub(super) down: &'a Spans,
    pub(super) unknown: &'a Spans,
}

impl Buckets {
    /// Sorts every instant into its bucket.
    pub(super) fn new(grounds: &Grounds, facts: &Facts<'_>) -> Self {
        let month = Spans::from(grounds.month);
        let not_covered = month.without(&grounds.covered).without(&grounds.credited);
        let out_of_window = grounds.covered.without(&grounds.scheduled);
        let holiday = grounds.covered.intersect(&grounds.scheduled).without(&grounds.working);
        let excluded = grounds.agreed.intersect(facts.excluded);
        let as_up = grounds.agreed.intersect(facts.as_up);
        let judged = grounds.agreed.without(&excluded).without(&as_up);
        let down = judged.intersect(facts.down);
        let up = judged.intersect(facts.up).union(&as_up).union(&grounds.credited);
        let unknown = judged.intersect(facts.unknown);
        let buckets = Self { not_covered, out_of_window, holiday, excluded, up, down, unknown, judged };
        assert_eq!(buckets.sum(), grounds.month.length(), "the buckets must sum to the month");
        buckets
    }

    fn sum(&self) -> Millis {
        let parts = [&self.not_covered, &self.out_of_window, &self.holiday, &self.excluded];
        let judged = [&self.up, &self.down, &self.unknown];
        parts.into_iter().chain(judged).fold(Millis::ZERO, |sum, set| sum.saturating_add(set.total()))
    }
}

impl Figure {
    /// The figure of `buckets` under `terms`.
    pub(super) fn new(
        month: Month,
        terms: &Terms,
        buckets: &Buckets,
        outages: Vec<Outage>,
        exclusions: Vec<ExclusionRow>,
    ) -> Self {
        let (up_ms, down_ms, unknown_ms) = (buckets.up.total(), buckets.down.total(), buckets.unknown.total());
        let known_ms = up_ms.saturating_add(down_ms);
        let judged_ms = known_ms.saturating_add(unknown_ms);
        let (agreed_ms, counted_down_ms) = match terms.unknown {
            UnknownClause::Down => (judged_ms, down_ms.saturating_add(unknown_ms)),
            UnknownClause::Excluded => (known_ms, down_ms),
            UnknownClause::Up => (judged_ms, down_ms),
        };
        let share = |part| if agreed_ms == Millis::ZERO { None } else { Percent::of(part, judged_ms) };
        let kept_ms = agreed_ms.saturating_sub(counted_down_ms);
        let best_ms = up_ms.saturating_add(unknown_ms);
        let reached = |part, whole| terms.target.is_reached_by(part, whole);
        let unknown_decides = !reached(up_ms, judged_ms) && reached(best_ms, judged_ms);
        let verdict = if agreed_ms == Millis::ZERO {
            Verdict::NotApplicable
        } else if unknown_decides && !terms.min_known.is_reached_by(known_ms, judged_ms) {
            Verdict::Undetermined
        } else if reached(kept_ms, agreed_ms) {
            Verdict::Met
        } else {
            Verdict::Breached
        };
        let budget_ms = terms.target.budget_of(agreed_ms);
        Self {
            month,
            month_ms: buckets.sum(),
            not_covered_ms: buckets.not_covered.total(),
            out_of_window_ms: buckets.out_of_window.total(),
            holiday_ms: buckets.holiday.total(),
            excluded_ms: buckets.excluded.total(),
            up_ms,
            down_ms,
            unknown_ms,
            agreed_ms,
            counted_down_ms,
            official: Percent::of(kept_ms, agreed_ms),
            worst: share(up_ms),
            best: share(best_ms),
            known: Percent::of(known_ms, judged_ms),
            verdict,
            budget_ms,
            budget_left_ms: budget_ms.saturating_sub(counted_down_ms),
            outages,
            exclusions,
        }
    }
}
