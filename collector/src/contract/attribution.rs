//! Every millisecond of a month with its bucket and its cause, so that anybody can add up the figure.
//!
//! The intervals are cut from the very sets whose lengths are the figure, follow each other without hole
//! or overlap, and are asserted to give the same sums. An interval ends where the bucket or the cause
//! changes: two checks failing one after the other are two intervals of one outage.
//!
//! Deliberately absent: how it is printed (`evaluate/csv.rs`, `evaluate/explain.rs`).

use std::fmt;

use peil_proto::sample::State;
use peil_proto::units::Millis;

use super::exclusion::{Exclusion, Weighed};
use super::figure::{Buckets, Figure};
use super::outage::Stretch;
use super::span::{Span, Spans};

/// Where an instant of the month counts. Prints as the word of the format, `excluded:CHG-7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bucket {
    /// Outside the coverage.
    NotCovered,
    /// Outside the window.
    OutOfWindow,
    /// In a window that a holiday cancelled.
    Holiday,
    /// Taken out by the exclusion with this id.
    Excluded(String),
    /// Up.
    Up,
    /// Down.
    Down,
    /// Without evidence.
    Unknown,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCovered => f.write_str("not_covered"),
            Self::OutOfWindow => f.write_str("out_of_window"),
            Self::Holiday => f.write_str("holiday"),
            Self::Excluded(id) => write!(f, "excluded:{id}"),
            Self::Up => f.write_str("up"),
            Self::Down => f.write_str("down"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// Why an instant is in its bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The bucket says it all.
    Plain,
    /// These checks, sorted, made the service down or unknown.
    Checks(Vec<String>),
    /// Up, although these checks, sorted, had failed: too few samples in a row to be an outage.
    Unconfirmed(Vec<String>),
    /// The exclusion with this id; in the bucket `up` it is maintenance that the contract counts as up.
    Exclusion(String),
    /// Not covered, and the contract counts the full month.
    FullMonth,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => Ok(()),
            Self::Checks(names) => f.write_str(&names.join("; ")),
            Self::Unconfirmed(names) => write!(f, "unconfirmed: {}", names.join("; ")),
            Self::Exclusion(id) => f.write_str(id),
            Self::FullMonth => f.write_str("full_month"),
        }
    }
}

/// A stretch of the month with one bucket and one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// When.
    pub span: Span,
    /// Where it counts.
    pub bucket: Bucket,
    /// Why there.
    pub cause: Cause,
}

/// What a month was judged from.
pub(super) struct Judged<'a> {
    pub(super) month: Span,
    pub(super) buckets: &'a Buckets,
    /// Uncovered working time that counts as up.
    pub(super) credited: &'a Spans,
    pub(super) weighed: &'a Weighed,
    pub(super) exclusions: &'a [Exclusion],
    /// The service through the month, and the names its stretches speak of.
    pub(super) stretches: &'a [Stretch],
    pub(super) names: &'a [&'a str],
}

/// The month of `figure`, instant by instant.
pub(super) fn attribute(judged: &Judged<'_>, figure: &Figure) -> Vec<Interval> {
    let mut intervals = Vec::new();
    let mut put = |set: &Spans, bucket: &Bucket, cause: &Cause| {
        intervals.extend(set.iter().map(|span| Interval { span, bucket: bucket.clone(), cause: cause.clone() }));
    };
    let Judged { buckets, .. } = judged;
    put(&buckets.not_covered, &Bucket::NotCovered, &Cause::Plain);
    put(&buckets.out_of_window, &Bucket::OutOfWindow, &Cause::Plain);
    put(&buckets.holiday, &Bucket::Holiday, &Cause::Plain);
    put(judged.credited, &Bucket::Up, &Cause::FullMonth);
    for (exclusion, share) in judged.exclusions.iter().zip(&judged.weighed.shares) {
        let cause = Cause::Exclusion(exclusion.id.clone());
        put(&share.intersect(&judged.weighed.excluded), &Bucket::Excluded(exclusion.id.clone()), &cause);
        put(&share.intersect(&judged.weighed.as_up), &Bucket::Up, &cause);
    }
    for stretch in judged.stretches {
        let (bucket, cause) = of_stretch(stretch, judged.names);
        put(&buckets.judged.within(stretch.span), &bucket, &cause);
    }
    let intervals = merge(intervals);
    check(&intervals, judged.month, figure);
    intervals
}

fn of_stretch(stretch: &Stretch, names: &[&str]) -> (Bucket, Cause) {
    let names = || stretch.because.iter().filter_map(|i| names.get(*i).map(|name| (*name).to_owned())).collect();
    match (stretch.reading.counted, stretch.reading.seen) {
        (State::Up, State::Down) => (Bucket::Up, Cause::Unconfirmed(names())),
        (State::Up, _) => (Bucket::Up, Cause::Plain),
        (State::Down, _) => (Bucket::Down, Cause::Checks(names())),
        (State::Unknown, _) => (Bucket::Unknown, Cause::Checks(names())),
    }
}

/// In order of time, neighbours that say the same as one.
fn merge(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_by_key(|interval| interval.span);
    let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
    for next in intervals {
        match merged.last_mut() {
            Some(last) if last.span.to == next.span.from && last.bucket == next.bucket && last.cause == next.cause => {
                last.span.to = next.span.to;
            }
            _ => merged.push(next),
        }
    }
    merged
}

/// An account that does not add up is a fault of this program and must never reach a customer.
fn check(intervals: &[Interval], month: Span, figure: &Figure) {
    let mut at = month.from;
    let mut sums = [Millis::ZERO; 7];
    for interval in intervals {
        assert_eq!(interval.span.from, at, "the intervals must follow each other");
        at = interval.span.to;
        let sum = &mut sums[match &interval.bucket {
            Bucket::NotCovered => 0,
            Bucket::OutOfWindow => 1,
            Bucket::Holiday => 2,
            Bucket::Excluded(_) => 3,
            Bucket::Up => 4,
            Bucket::Down => 5,
            Bucket::Unknown => 6,
        }];
        *sum = sum.saturating_add(interval.span.length());
    }
    assert_eq!(at, month.to, "the intervals must reach the end of the month");
    let expected = [
        figure.not_covered_ms,
        figure.out_of_window_ms,
        figure.holiday_ms,
        figure.excluded_ms,
        figure.up_ms,
        figure.down_ms,
        figure.unknown_ms,
    ];
    assert_eq!(sums, expected, "the intervals must sum to the buckets");
}
