//! Sets of time: sorted, disjoint, half-open spans, and the algebra on them.
//!
//! Every clause of a contract is a set (covered, in the window, excluded, down), so a month is judged
//! by union, intersection and difference, each one pass over sorted boundaries. Lengths are exact.
//!
//! Deliberately absent: anything that knows what a set means.

use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

/// `[from, to)`; empty when `to` is not after `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First instant inside.
    pub from: UtcTime,
    /// First instant after.
    pub to: UtcTime,
}

impl Span {
    /// All of time.
    pub const ALWAYS: Self = Self { from: UtcTime(i64::MIN), to: UtcTime(i64::MAX) };

    /// `[from, to)`.
    pub fn new(from: UtcTime, to: UtcTime) -> Self {
        Self { from, to }
    }

    /// True when no instant lies inside.
    pub fn is_empty(self) -> bool {
        self.to <= self.from
    }

    /// The part inside both; possibly empty.
    #[must_use]
    pub fn clip(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }

    /// How long; never negative.
    pub fn length(self) -> Millis {
        Millis(self.to.since(self.from).0.max(0))
    }
}

/// A set of instants: spans in order, none empty, none touching the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(Vec<Span>);

impl FromIterator<Span> for Spans {
    /// The union of spans in any order.
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        let mut spans: Vec<Span> = spans.into_iter().filter(|span| !span.is_empty()).collect();
        spans.sort_unstable();
        let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match merged.last_mut() {
                Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
                _ => merged.push(span),
            }
        }
        Self(merged)
    }
}

impl From<Span> for Spans {
    fn from(span: Span) -> Self {
        Self::from_iter([span])
    }
}

impl Spans {
    /// In order of time.
    pub fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.0.iter().copied()
    }

    /// True when no instant is inside.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// In both.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            let part = x.clip(**y);
            if !part.is_empty() {
                both.push(part);
            }
            if x.to <= y.to {
                a.next();
            } else {
                b.next();
            }
        }
        Self(both)
    }

    /// In this set and not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.intersect(&other.complement())
    }

    /// Every instant that is not in this set.
    fn complement(&self) -> Self {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut from = Span::ALWAYS.from;
        for span in &self.0 {
            gaps.push(Span::new(from, span.from));
            from = span.to;
        }
        gaps.push(Span::new(from, Span::ALWAYS.to));
        gaps.retain(|gap| !gap.is_empty());
        Self(gaps)
    }

    /// How long altogether.
    pub fn total(&self) -> Millis {
        self.iter().fold(Millis::ZERO, |sum, span| sum.saturating_add(span.length()))
    }

    /// The part inside `span`; looks only at the spans that meet it.
    #[must_use]
    pub fn within(&self, span: Span) -> Self {
        let start = self.0.partition_point(|mine| mine.to <= span.from);
        let meeting = self.0[start..].iter().take_while(|mine| mine.from < span.to);
        Self(meeting.map(|mine| mine.clip(span)).filter(|part| !part.is_empty()).collect())
    }

    /// How long inside `span`; looks only at the spans that meet it.
    pub fn total_within(&self, span: Span) -> Millis {
        let start = self.0.partition_point(|mine| mine.to <= span.from);
        self.0[start..]
            .iter()
            .take_while(|mine| mine.from < span.to)
            .fold(Millis::ZERO, |sum, mine| sum.saturating_add(mine.clip(span).length()))
    }

    /// The earliest part of this set, at most `length` long.
    #[must_use]
    pub fn first(&self, length: Millis) -> Self {
        let mut left = length;
        let mut kept = Vec::new();
        for span in &self.0 {
            if left.0 <= 0 {
                break;
            }
            let part = Span::new(span.from, span.to.min(span.from.plus(left)));
            left = left.saturating_sub(part.length());
            kept.push(part);
        }
        Self(kept)
    }

    /// The latest part of this set, at most `length` long.
    #[must_use]
    pub fn last(&self, length: Millis) -> Self {
        let skipped = self.total().saturating_sub(length);
        self.without(&self.first(skipped))
    }

    /// The earliest instant at which `length` of this set has passed; `None` when it is not that long.
    /// Nothing has passed already at the beginning of the set.
    pub fn passed(&self, length: Millis) -> Option<UtcTime> {
        let mut left = length;
        for span in &self.0 {
            if left <= span.length() {
                return Some(span.from.plus(left));
            }
            left = left.saturating_sub(span.length());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set() -> impl Strategy<Value = Spans> {
        prop::collection::vec((0_i64..200, 0_i64..30), 0..12).prop_map(|pairs| {
            pairs.into_iter().map(|(from, length)| Span::new(UtcTime(from), UtcTime(from + length))).collect()
        })
    }

    fn holds(set: &Spans, at: i64) -> bool {
        set.iter().any(|span| (span.from.0..span.to.0).contains(&at))
    }

    proptest! {
        #[test]
        fn the_algebra_is_membership(a in set(), b in set(), length in 0_i64..80) {
            let (union, both, less) = (a.union(&b), a.intersect(&b), a.without(&b));
            let (first, last) = (a.first(Millis(length)), a.last(Millis(length)));
            let passed = (!a.is_empty() && length <= a.total().0).then(|| {
                (-5..240).find(|at| a.total_within(Span::new(UtcTime(-5), UtcTime(*at))).0 == length)
            });
            // Nothing has passed long before the set begins; asked is the beginning.
            let passed = if length == 0 { passed.map(|_| a.iter().next().map(|span| span.from.0)) } else { passed };
            prop_assert_eq!(a.passed(Millis(length)).map(|at| at.0), passed.flatten());
            let mut seen = 0;
            for at in -5..240 {
                prop_assert_eq!(holds(&union, at), holds(&a, at) || holds(&b, at));
                prop_assert_eq!(holds(&both, at), holds(&a, at) && holds(&b, at));
                prop_assert_eq!(holds(&less, at), holds(&a, at) && !holds(&b, at));
                prop_assert_eq!(holds(&first, at), holds(&a, at) && seen < length);
                prop_assert_eq!(holds(&last, at), holds(&a, at) && seen >= a.total().0 - length);
                seen += i64::from(holds(&a, at));
            }
            prop_assert_eq!(a.total().0, (-5..240).map(|at| i64::from(holds(&a, at))).sum::<i64>());
            let part = Span::new(UtcTime(30), UtcTime(90));
            prop_assert_eq!(a.total_within(part), a.intersect(&part.into()).total());
            prop_assert_eq!(a.within(part), a.intersect(&part.into()));
        }
    }
}
