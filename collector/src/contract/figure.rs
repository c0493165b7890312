//! From sets of time to the figure: buckets, percentages, verdict and budget.
//!
//! Every millisecond of the month goes into exactly one bucket, and the sum is asserted each time: a
//! figure that does not add up is a fault of this program and must never reach a customer.
//! Percentages are floored; the verdict is decided on whole milliseconds before any division.
//!
//! A month in which the agreement changed is made up of stretches, each judged by its own clauses. Their times
//! add up, and so does what each target allows: the budget of the month is the sum of those of its stretches.

use peil_proto::units::Millis;

use super::calendar::Month;
use super::exclusion::ExclusionRow;
use super::outage::Outage;
use super::percent::{Allowance, Percent};
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

/// Where each instant of a stretch under one agreement stands before anybody looks at evidence.
pub(super) struct Grounds {
    pub(super) span: Span,
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
    pub(super) fn new(span: Span, terms: &Terms) -> Self {
        let scheduled = terms.window.spans(&terms.timezone, span, |_| true);
        let working = match &terms.holidays {
            Some(holidays) => terms.window.spans(&terms.timezone, span, |day| !holidays.include(day)),
            None => scheduled.clone(),
        };
        let covered = Spans::from(span.clip(terms.coverage.span()));
        let agreed = working.intersect(&covered);
        let credited = match terms.denominator {
            Denominator::Covered => Spans::default(),
            Denominator::FullMonth => working.without(&covered),
        };
        Self { span, covered, scheduled, working, agreed, credited }
    }

    /// As if the agreement ended with `end`.
    pub(super) fn until(&self, end: Span) -> Self {
        let end = Spans::from(end);
        Self {
            span: self.span,
            covered: self.covered.intersect(&end),
            scheduled: self.scheduled.clone(),
            working: self.working.clone(),
            agreed: self.agreed.intersect(&end),
            credited: self.credited.intersect(&end),
        }
    }
}

/// The seven buckets of a month, or of a stretch of it, as sets whose lengths are its figures.
#[derive(Clone)]
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
        let whole = Spans::from(grounds.span);
        let not_covered = whole.without(&grounds.covered).without(&grounds.credited);
        let out_of_window = grounds.covered.without(&grounds.scheduled);
        let holiday = grounds.covered.intersect(&grounds.scheduled).without(&grounds.working);
        let excluded = grounds.agreed.intersect(facts.excluded);
        let as_up = grounds.agreed.intersect(facts.as_up);
        let judged = grounds.agreed.without(&excluded).without(&as_up);
        let down = judged.intersect(facts.down);
        let up = judged.intersect(facts.up).union(&as_up).union(&grounds.credited);
        let unknown = judged.intersect(facts.unknown);
        let buckets = Self { not_covered, out_of_window, holiday, excluded, up, down, unknown, judged };
        assert_eq!(buckets.sum(), grounds.span.length(), "the buckets must sum to the month");
        buckets
    }

    /// Those of two stretches as one.
    #[must_use]
    pub(super) fn union(&self, other: &Self) -> Self {
        let of = |set: fn(&Self) -> &Spans| set(self).union(set(other));
        Self {
            not_covered: of(|b| &b.not_covered),
            out_of_window: of(|b| &b.out_of_window),
            holiday: of(|b| &b.holiday),
            excluded: of(|b| &b.excluded),
            up: of(|b| &b.up),
            down: of(|b| &b.down),
            unknown: of(|b| &b.unknown),
            judged: of(|b| &b.judged),
        }
    }

    /// Denominator and loss of the official figure under `terms`.
    pub(super) fn agreed_and_lost(&self, terms: &Terms) -> (Millis, Millis) {
        let (down, unknown) = (self.down.total(), self.unknown.total());
        let known = self.up.total().saturating_add(down);
        let judged = known.saturating_add(unknown);
        match terms.unknown {
            UnknownClause::Down => (judged, down.saturating_add(unknown)),
            UnknownClause::Excluded => (known, down),
            UnknownClause::Up => (judged, down),
        }
    }

    /// In the order of the format.
    fn parts(&self) -> [&Spans; 7] {
        let Self { not_covered, out_of_window, holiday, excluded, up, down, unknown, judged: _ } = self;
        [not_covered, out_of_window, holiday, excluded, up, down, unknown]
    }

    fn sum(&self) -> Millis {
        self.parts().into_iter().fold(Millis::ZERO, |sum, set| sum.saturating_add(set.total()))
    }
}

/// What the stretches of a month come to, each by its own clauses.
#[derive(Default)]
struct Sums {
    buckets: [Millis; 7],
    agreed: Millis,
    lost: Millis,
    /// Loss the targets allow of what was agreed, and of what was judged with all that is not known.
    allowed: Allowance,
    allowed_judged: Allowance,
    /// What may be unknown.
    allowed_unknown: Allowance,
}

impl Sums {
    fn add(&mut self, terms: &Terms, buckets: &Buckets) {
        let parts = buckets.parts().map(Spans::total);
        let judged = parts[4..].iter().fold(Millis::ZERO, |sum, part| sum.saturating_add(*part));
        for (sum, part) in self.buckets.iter_mut().zip(parts) {
            *sum = sum.saturating_add(part);
        }
        let (agreed, lost) = buckets.agreed_and_lost(terms);
        self.agreed = self.agreed.saturating_add(agreed);
        self.lost = self.lost.saturating_add(lost);
        self.allowed = self.allowed.plus(Allowance::of(agreed, terms.target));
        self.allowed_judged = self.allowed_judged.plus(Allowance::of(judged, terms.target));
        self.allowed_unknown = self.allowed_unknown.plus(Allowance::of(judged, terms.min_known));
    }

    fn verdict(&self, down_ms: Millis, unknown_ms: Millis) -> Verdict {
        let unknown_decides =
            !self.allowed_judged.covers(down_ms.saturating_add(unknown_ms)) && self.allowed_judged.covers(down_ms);
        if self.agreed == Millis::ZERO {
            Verdict::NotApplicable
        } else if unknown_decides && !self.allowed_unknown.covers(unknown_ms) {
            Verdict::Undetermined
        } else if self.allowed.covers(self.lost) {
            Verdict::Met
        } else {
            Verdict::Breached
        }
    }
}

impl Figure {
    /// The figure of a month made up of `parts`, each under its own terms.
    pub(super) fn new(
        month: Month,
        parts: &[(&Terms, Buckets)],
        outages: Vec<Outage>,
        exclusions: Vec<ExclusionRow>,
    ) -> Self {
        let mut sums = Sums::default();
        parts.iter().for_each(|(terms, buckets)| sums.add(terms, buckets));
        let [not_covered_ms, out_of_window_ms, holiday_ms, excluded_ms, up_ms, down_ms, unknown_ms] = sums.buckets;
        let known_ms = up_ms.saturating_add(down_ms);
        let judged_ms = known_ms.saturating_add(unknown_ms);
        let share = |part| if sums.agreed == Millis::ZERO { None } else { Percent::of(part, judged_ms) };
        let budget_ms = sums.allowed.budget();
        Self {
            month,
            month_ms: sums.buckets.iter().fold(Millis::ZERO, |sum, part| sum.saturating_add(*part)),
            not_covered_ms,
            out_of_window_ms,
            holiday_ms,
            excluded_ms,
            up_ms,
            down_ms,
            unknown_ms,
            agreed_ms: sums.agreed,
            counted_down_ms: sums.lost,
            official: Percent::of(sums.agreed.saturating_sub(sums.lost), sums.agreed),
            worst: share(up_ms),
            best: share(up_ms.saturating_add(unknown_ms)),
            known: Percent::of(known_ms, judged_ms),
            verdict: sums.verdict(down_ms, unknown_ms),
            budget_ms,
            budget_left_ms: budget_ms.saturating_sub(sums.lost),
            outages,
            exclusions,
        }
    }
}
