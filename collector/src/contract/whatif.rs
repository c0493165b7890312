//! The same month under another agreement, side by side.
//!
//! Before a contract is signed or a clause is changed: what would the holiday, the cap, the clause about
//! time without evidence have meant? Month, service and evidence stay as they are; both figures come from
//! [`super::evaluate`] and nothing else.

use peil_proto::units::Millis;

use super::exclusion::Exclusion;
use super::figure::{Figure, Verdict};
use super::terms::Terms;
use super::{Case, Dated, evaluate};

/// What the other agreement says; `None` leaves it as it is.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// All clauses.
    pub terms: Option<Terms>,
    /// All exclusions.
    pub exclusions: Option<Vec<Exclusion>>,
}

/// Two figures of one month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// As agreed.
    pub base: Figure,
    /// Under the change.
    pub what_if: Figure,
    /// The second minus the first.
    pub delta: Delta,
}

/// The second figure minus the first, in the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta {
    /// Another zone can make another month of it; the sum of the seven that follow.
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
    /// Denominator.
    pub agreed_ms: Millis,
    /// Loss.
    pub counted_down_ms: Millis,
    /// Loss the contract allows.
    pub budget_ms: Millis,
    /// What is left of it.
    pub budget_left_ms: Millis,
    /// Both verdicts where they differ.
    pub verdict: Option<(Verdict, Verdict)>,
}

impl Delta {
    /// `what_if` minus `base`.
    pub fn between(base: &Figure, what_if: &Figure) -> Self {
        let minus = |of: fn(&Figure) -> Millis| of(what_if).saturating_sub(of(base));
        Self {
            month_ms: minus(|f| f.month_ms),
            not_covered_ms: minus(|f| f.not_covered_ms),
            out_of_window_ms: minus(|f| f.out_of_window_ms),
            holiday_ms: minus(|f| f.holiday_ms),
            excluded_ms: minus(|f| f.excluded_ms),
            up_ms: minus(|f| f.up_ms),
            down_ms: minus(|f| f.down_ms),
            unknown_ms: minus(|f| f.unknown_ms),
            agreed_ms: minus(|f| f.agreed_ms),
            counted_down_ms: minus(|f| f.counted_down_ms),
            budget_ms: minus(|f| f.budget_ms),
            budget_left_ms: minus(|f| f.budget_left_ms),
            verdict: (base.verdict != what_if.verdict).then_some((base.verdict, what_if.verdict)),
        }
    }
}

/// The figure of a month in chapters, and what it would be when each is changed by its own of `changes`, in order.
/// Exclusions are those of the whole month, so any change that has some replaces them all. The zone cuts the month and
/// must stay as it is.
pub fn what_if_dated(mut dated: Dated, changes: Vec<Change>) -> Comparison {
    let base = evaluate(&dated);
    for (chapter, change) in dated.chapters.iter_mut().zip(changes) {
        if let Some(terms) = change.terms {
            chapter.terms = terms;
        }
        if let Some(exclusions) = change.exclusions {
            dated.exclusions = exclusions;
        }
    }
    let what_if = evaluate(&dated);
    let delta = Delta::between(&base, &what_if);
    Comparison { base, what_if, delta }
}

/// The figure of `case`, and what it would be under `change`.
pub fn what_if(mut case: Case, change: Change) -> Comparison {
    let base = evaluate(&case);
    if let Some(terms) = change.terms {
        case.terms = terms;
    }
    if let Some(exclusions) = change.exclusions {
        case.exclusions = exclusions;
    }
    let what_if = evaluate(&case);
    let delta = Delta::between(&base, &what_if);
    Comparison { base, what_if, delta }
}
