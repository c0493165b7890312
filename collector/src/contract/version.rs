//! Objects with effect from a date: a contract, a check, a service, each as a row of versions.
//!
//! A [`Version`] says from when it holds, when it was written down, by whom and why. It holds until the next one
//! begins. A change without a date of its own begins when it is written down and so never touches the past; one
//! that begins earlier is *retroactive* and must say why. Of two versions that begin at the same instant the one
//! written down later is a correction and holds; two that were written down at the same instant as well overlap,
//! and are refused.
//!
//! What somebody knew at an earlier moment is the history without the versions written down since
//! ([`History::as_known_at`]).
//!
//! An object ends with a version that says so ([`Standing::Ended`]) and keeps the value that held before, because the
//! months until then are still judged by it. A version after its end begins it again.
//!
//! Limits: [`VERSIONS_MAX`].

use std::fmt;

use peil_proto::time::UtcTime;

use super::span::Span;

/// Versions one object may have; more is a program that writes in a loop, and is refused.
pub const VERSIONS_MAX: usize = 1_000;

/// What a version says about its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is as the value says.
    InForce,
    /// It has ended; the value is what held last.
    Ended,
}

/// One state of an object and what is known about its making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version<T> {
    /// First instant at which it holds.
    pub valid_from: UtcTime,
    /// When it was written down.
    pub recorded_at: UtcTime,
    /// Who wrote it.
    pub author: String,
    /// Why; a retroactive version without one is refused.
    pub reason: String,
    /// Whether it holds or ends the object.
    pub standing: Standing,
    /// What holds.
    pub value: T,
}

impl<T> Version<T> {
    /// True when it changes what was before it was written down.
    pub fn is_retroactive(&self) -> bool {
        self.valid_from < self.recorded_at
    }
}

/// Why versions are no history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryFault {
    /// There is no version.
    Empty,
    /// More than [`VERSIONS_MAX`].
    TooMany(usize),
    /// Two versions hold from the same instant and were written down at the same instant.
    Overlap(UtcTime),
    /// A version other than the first begins before it was written down, without a reason.
    RetroactiveWithoutReason(UtcTime),
}

impl fmt::Display for HistoryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("has no version; give at least one"),
            Self::TooMany(count) => write!(f, "has {count} versions; the limit is {VERSIONS_MAX}"),
            Self::Overlap(at) => write!(f, "has two versions from {at}; keep one, or let one begin later"),
            Self::RetroactiveWithoutReason(at) => {
                write!(f, "changes the past from {at} without saying why; give a \"reason\", or leave \"from\" out")
            }
        }
    }
}

/// The versions of one object, in the order in which they begin; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History<T>(Vec<Version<T>>);

impl<T> History<T> {
    /// An object that never changed.
    pub fn always(value: T) -> Self {
        let (author, reason) = (String::new(), String::new());
        let (ever, standing) = (Span::ALWAYS.from, Standing::InForce);
        Self(vec![Version { valid_from: ever, recorded_at: ever, author, reason, standing, value }])
    }

    /// The history of `versions`, in any order.
    ///
    /// # Errors
    /// Every [`HistoryFault`], in order of time.
    pub fn new(mut versions: Vec<Version<T>>) -> Result<Self, Vec<HistoryFault>> {
        versions.sort_by_key(|version| (version.valid_from, version.recorded_at));
        let mut faults = Vec::new();
        if versions.is_empty() {
            faults.push(HistoryFault::Empty);
        }
        if versions.len() > VERSIONS_MAX {
            faults.push(HistoryFault::TooMany(versions.len()));
        }
        let begin = |version: &Version<T>| (version.valid_from, version.recorded_at);
        let overlaps = versions.windows(2).filter(|pair| begin(&pair[0]) == begin(&pair[1]));
        faults.extend(overlaps.map(|pair| HistoryFault::Overlap(pair[1].valid_from)));
        // The first one written down changes nothing: there was nothing before it.
        let first = versions.iter().map(|version| version.recorded_at).min();
        let silent = versions.iter().filter(|version| {
            version.is_retroactive() && Some(version.recorded_at) != first && version.reason.trim().is_empty()
        });
        faults.extend(silent.map(|version| HistoryFault::RetroactiveWithoutReason(version.valid_from)));
        if faults.is_empty() { Ok(Self(versions)) } else { Err(faults) }
    }

    /// The same versions of something made from each value.
    #[must_use]
    pub fn map<U>(&self, make: impl Fn(&T) -> U) -> History<U> {
        let version = |version: &Version<T>| Version {
            valid_from: version.valid_from,
            recorded_at: version.recorded_at,
            author: version.author.clone(),
            reason: version.reason.clone(),
            standing: version.standing,
            value: make(&version.value),
        };
        History(self.0.iter().map(version).collect())
    }

    /// What was written down by `at`; `None` when nothing was.
    #[must_use]
    pub fn as_known_at(&self, at: UtcTime) -> Option<Self>
    where
        T: Clone,
    {
        let known: Vec<_> = self.0.iter().filter(|version| version.recorded_at <= at).cloned().collect();
        (!known.is_empty()).then_some(Self(known))
    }

    /// The version that holds at `at`, an end included; `None` before the first.
    pub fn in_force(&self, at: UtcTime) -> Option<&Version<T>> {
        let begun = self.0.partition_point(|version| version.valid_from <= at);
        begun.checked_sub(1).map(|last| &self.0[last])
    }

    /// When the object ended, if it has at `at`.
    pub fn ended_at(&self, at: UtcTime) -> Option<UtcTime> {
        let begun = self.0.partition_point(|version| version.valid_from <= at);
        let mut since = None;
        for version in self.0[..begun].iter().rev() {
            // Of those that begin together the last one holds.
            if since != Some(version.valid_from) && version.standing == Standing::InForce {
                break;
            }
            since = Some(version.valid_from);
        }
        since
    }

    /// The version that holds first.
    pub fn first(&self) -> Option<&Version<T>> {
        let opening = self.0.first()?;
        self.in_force(opening.valid_from)
    }

    /// All versions, those corrected by another one included.
    pub fn versions(&self) -> &[Version<T>] {
        &self.0
    }

    /// The instants inside `within` at which another version begins to hold, in order.
    pub fn changes(&self, within: Span) -> impl Iterator<Item = UtcTime> + '_ {
        let begins = self.0.iter().map(|version| version.valid_from);
        begins.filter(move |at| within.from < *at && *at < within.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(valid_from: i64, recorded_at: i64, reason: &str, value: i64) -> Version<i64> {
        let (valid_from, recorded_at) = (UtcTime(valid_from), UtcTime(recorded_at));
        let (author, standing) = ("sdm".to_owned(), Standing::InForce);
        Version { valid_from, recorded_at, author, reason: reason.to_owned(), standing, value }
    }

    fn end(valid_from: i64, recorded_at: i64) -> Version<i64> {
        Version { standing: Standing::Ended, ..version(valid_from, recorded_at, "over", 0) }
    }

    fn value(history: &History<i64>, at: i64) -> Option<i64> {
        history.in_force(UtcTime(at)).map(|version| version.value)
    }

    #[test]
    fn a_version_holds_from_its_first_instant_to_that_of_the_next() {
        let history = History::new(vec![version(50, 50, "", 2), version(10, 10, "", 1)]).expect("a history");
        let seen = [9, 10, 49, 50, 1_000].map(|at| value(&history, at));
        assert_eq!(seen, [None, Some(1), Some(1), Some(2), Some(2)]);
        let inside = Span::new(UtcTime(10), UtcTime(60));
        assert_eq!(history.changes(inside).collect::<Vec<_>>(), [UtcTime(50)]);
    }

    #[test]
    fn a_correction_holds_where_it_was_known_and_the_past_stays_as_it_was_known() {
        let history = History::new(vec![version(10, 10, "", 1), version(10, 90, "a wrong holiday", 2)]);
        let history = history.expect("a correction is no overlap");
        assert_eq!(value(&history, 20), Some(2));
        let before = history.as_known_at(UtcTime(89)).expect("something was known");
        assert_eq!(value(&before, 20), Some(1));
        assert_eq!(history.as_known_at(UtcTime(9)), None);
    }

    #[test]
    fn overlaps_and_changes_of_the_past_without_a_reason_are_refused_together() {
        let faults = History::new(vec![
            version(10, 10, "", 1),
            version(40, 20, "", 2),
            version(40, 20, "", 3),
            version(15, 30, " ", 4),
        ]);
        let expected = vec![HistoryFault::Overlap(UtcTime(40)), HistoryFault::RetroactiveWithoutReason(UtcTime(15))];
        assert_eq!(faults, Err(expected));
        assert_eq!(History::<i64>::new(Vec::new()), Err(vec![HistoryFault::Empty]));
        assert!(History::new(vec![version(5, 10, "", 1)]).is_ok(), "the first version changes nothing");
    }

    #[test]
    fn an_object_ends_once_and_can_begin_again_or_have_its_end_taken_back() {
        let ended = |versions: Vec<Version<i64>>| {
            let history = History::new(versions).expect("a history");
            [19, 20, 30, 45, 60].map(|at| history.ended_at(UtcTime(at)).map(|at| at.0))
        };
        let first = || version(10, 10, "", 1);
        assert_eq!(ended(vec![first(), end(20, 11)]), [None, Some(20), Some(20), Some(20), Some(20)]);
        assert_eq!(ended(vec![first(), end(20, 11), end(40, 12)]), [None, Some(20), Some(20), Some(20), Some(20)]);
        let again = version(40, 12, "", 2);
        assert_eq!(ended(vec![first(), end(20, 11), again]), [None, Some(20), Some(20), None, None]);
        let taken_back = version(20, 12, "", 1);
        assert_eq!(ended(vec![first(), end(20, 11), taken_back, end(50, 12)]), [None, None, None, None, Some(50)]);
        let silent = Version { reason: String::new(), ..end(5, 30) };
        assert_eq!(
            History::new(vec![first(), silent]),
            Err(vec![HistoryFault::RetroactiveWithoutReason(UtcTime(5))]),
            "an end in the past says why"
        );
    }

    proptest! {
        #[test]
        fn a_change_without_a_date_of_its_own_leaves_the_past_alone(
            begins in prop::collection::btree_set(0_i64..100, 1..6), change in 100_i64..200, at in 0_i64..300,
        ) {
            let mut versions: Vec<_> = begins.iter().map(|at| version(*at, *at, "", *at)).collect();
            let before = History::new(versions.clone()).expect("a history");
            versions.push(version(change, change, "", -1));
            let after = History::new(versions).expect("a history");
            let expected = if at < change { value(&before, at) } else { Some(-1) };
            prop_assert_eq!(value(&after, at), expected);
        }
    }
}
