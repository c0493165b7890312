//! Routine successes folded into one value: what a full spool keeps of them when it cannot keep all.
//!
//! A [`Summary`] still names every tick ([`Summary::ticks`]): they stand at equal distances from the first, all
//! with the same outcome. So the figures of the contract, which count from the state at each tick, are the same with
//! it as with the samples, also when both arrive. Only the timings are merged: per phase least, most, sum and a
//! histogram whose buckets are at most an eighth wide.
//!
//! Limits: [`TICKS_MAX`] ticks and [`SPAN_MAX`] of time; a further sample begins the next summary.

use std::collections::BTreeMap;

use crate::ids::CheckNo;
use crate::sample::{Outcome, Sample};
use crate::time::UtcTime;
use crate::units::{Micros, Millis};

/// Ticks in one summary.
pub const TICKS_MAX: u32 = 4_096;
/// Time from the first tick of a summary to its last: a histogram over more would hide the bad hour of a day.
pub const SPAN_MAX: Millis = Millis::HOUR;

/// Ticks of one check, at equal distances, all up with the same code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Which check.
    pub check: CheckNo,
    /// The first tick.
    pub first: UtcTime,
    /// From tick to tick; 0 when there is only one.
    pub step: Millis,
    /// How many ticks, 1 to [`TICKS_MAX`].
    pub count: u32,
    /// HTTP status or 0.
    pub code: u16,
    /// Longest delay.
    pub delay_max: Millis,
    /// Times of the phases that took place, in the order of [`crate::sample::PHASES`].
    pub phases: [Option<Timings>; 5],
}

/// The times of one phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timings {
    /// Shortest.
    pub min: Micros,
    /// Longest.
    pub max: Micros,
    /// Sum, µs.
    pub sum_us: u64,
    /// How many fell in each [`bucket`].
    pub buckets: BTreeMap<u16, u32>,
}

impl Summary {
    /// A summary of one sample; `None` when it is not a success.
    pub fn of(sample: &Sample) -> Option<Self> {
        let Outcome::Up { code } = sample.outcome else { return None };
        let phases = sample.phases.to_array().map(|phase| phase.map(Timings::of));
        let (check, first, delay_max) = (sample.check, sample.scheduled_at, sample.delay);
        Some(Self { check, first, step: Millis::ZERO, count: 1, code, delay_max, phases })
    }

    /// The last tick.
    pub fn last(&self) -> UtcTime {
        self.first.plus(Millis(self.step.0.saturating_mul(i64::from(self.count.saturating_sub(1)))))
    }

    /// Takes in the sample that follows. False, and nothing changed, when it does not belong: another check, outcome
    /// or distance, or a limit.
    pub fn take(&mut self, sample: &Sample) -> bool {
        let step = sample.scheduled_at.since(self.last());
        let fits = sample.check == self.check
            && sample.outcome == Outcome::Up { code: self.code }
            && (1..=i64::from(u32::MAX)).contains(&step.0)
            && (self.count == 1 || step == self.step)
            && self.count < TICKS_MAX
            && sample.scheduled_at.since(self.first) <= SPAN_MAX;
        if !fits {
            return false;
        }
        self.step = step;
        self.count += 1;
        self.delay_max = self.delay_max.max(sample.delay);
        for (timings, phase) in self.phases.iter_mut().zip(sample.phases.to_array()) {
            match (timings, phase) {
                (Some(timings), Some(phase)) => timings.add(phase),
                (timings @ None, Some(phase)) => *timings = Some(Timings::of(phase)),
                (_, None) => {}
            }
        }
        true
    }

    /// The ticks, each of them up.
    pub fn ticks(&self) -> impl Iterator<Item = UtcTime> + '_ {
        (0..i64::from(self.count)).map(|tick| self.first.plus(Millis(self.step.0.saturating_mul(tick))))
    }

    /// The outcome of every tick.
    pub fn outcome(&self) -> Outcome {
        Outcome::Up { code: self.code }
    }
}

impl Timings {
    fn of(phase: Micros) -> Self {
        Self { min: phase, max: phase, sum_us: phase.0.into(), buckets: BTreeMap::from([(bucket(phase), 1)]) }
    }

    fn add(&mut self, phase: Micros) {
        self.min = self.min.min(phase);
        self.max = self.max.max(phase);
        self.sum_us = self.sum_us.saturating_add(phase.0.into());
        *self.buckets.entry(bucket(phase)).or_default() += 1;
    }
}

/// Number of the bucket a time falls in: exact below 8 µs, then eight buckets to every doubling.
pub fn bucket(time: Micros) -> u16 {
    if time.0 < 8 {
        return u16::try_from(time.0).unwrap_or(0);
    }
    let doublings = time.0.ilog2() - 3;
    let eighth = (time.0 >> doublings) & 7;
    u16::try_from(8 * (doublings + 1) + eighth).unwrap_or(u16::MAX)
}

/// The shortest time that falls in a bucket; the longest one possible beyond the last bucket.
pub fn bucket_from(bucket: u16) -> Micros {
    if bucket < 8 {
        return Micros(bucket.into());
    }
    let (doublings, eighth) = (u32::from(bucket / 8 - 1), u32::from(bucket % 8));
    Micros((8 + eighth).checked_shl(doublings).filter(|_| doublings <= 28).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Phases;

    fn up(at: i64) -> Sample {
        Sample {
            check: CheckNo(1),
            scheduled_at: UtcTime(at),
            delay: Millis(at % 7),
            outcome: Outcome::Up { code: 200 },
            phases: Phases { connect: Some(Micros(100)), ..Phases::default() },
        }
    }

    #[test]
    fn every_tick_that_went_in_is_told() {
        let mut summary = Summary::of(&up(1_000)).expect("up");
        for tick in 1..10 {
            assert!(summary.take(&up(1_000 + tick * 5_000)));
        }
        assert!(summary.ticks().eq((0..10).map(|tick| UtcTime(1_000 + tick * 5_000))));
        assert_eq!(summary.phases[1].as_ref().map(|connect| connect.sum_us), Some(1_000));
        assert_eq!(summary.delay_max, Millis(6));
    }

    #[test]
    fn what_does_not_follow_the_rhythm_begins_another_summary() {
        let mut summary = Summary::of(&up(0)).expect("up");
        assert!(summary.take(&up(60_000)));
        let failed = Sample { outcome: Outcome::NotRun(crate::sample::NotRun::Overrun), ..up(120_000) };
        let other_code = Sample { outcome: Outcome::Up { code: 201 }, ..up(120_000) };
        let other_check = Sample { check: CheckNo(2), ..up(120_000) };
        for stranger in [failed, other_code, other_check, up(60_000), up(120_001), up(0)] {
            assert!(!summary.take(&stranger), "{stranger:?}");
        }
        assert_eq!(Summary::of(&failed), None);
        let mut hour = Summary::of(&up(0)).expect("up");
        let taken = (1..200).filter(|minute| hour.take(&up(minute * 60_000))).count();
        assert_eq!((taken, hour.last()), (60, UtcTime(3_600_000)));
    }

    #[test]
    fn buckets_are_at_most_an_eighth_wide_and_in_order() {
        let mut times: Vec<u32> =
            (0..32).flat_map(|bit| [1 << bit, (1 << bit) + 1, (1 << bit) | (1 << bit >> 1)]).collect();
        times.push(u32::MAX);
        times.sort_unstable();
        let mut before = 0;
        for time in times {
            let found = bucket(Micros(time));
            let from = bucket_from(found).0;
            assert!(from <= time && time - from <= from / 8, "{time} in bucket {found} from {from}");
            assert!(found >= before);
            before = found;
        }
    }
}
