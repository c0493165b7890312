//! What is kept of an hour, a day, a month of one check from one vantage.
//!
//! An hour keeps the total duration only; a day and a month keep the total and each phase. The reason is arithmetic: at
//! a result a minute a histogram of an hour takes 113 bytes, 1.9 for each result; six of them would be 11 bytes a
//! result, more than the result itself with everything in it. A day's six take 1 byte a result, a month's 0.06.
//!
//! Only successes are timed, those that have a phase at all: how long a failure took says when we gave up. A phase that took no measurable time
//! counts as the shortest there is; a total beyond the range is counted in [`Counts::held`].

use peil_proto::sample::{Outcome, PHASES, Phases, Sample};
use peil_proto::units::Micros;

use super::histogram::{Accumulator, Histogram};
use crate::contract::track::Piece;

/// How many samples came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The target answered as it must.
    pub up: u64,
    /// It did not, or we could not tell.
    pub failed: u64,
    /// Nobody asked.
    pub not_run: u64,
    /// Of those that were up, how many took a total time that the histogram holds at an end of its range.
    pub held: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.up = self.up.saturating_add(other.up);
        self.failed = self.failed.saturating_add(other.failed);
        self.not_run = self.not_run.saturating_add(other.not_run);
        self.held = self.held.saturating_add(other.held);
    }
}

/// An hour.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hour {
    /// Samples by outcome.
    pub counts: Counts,
    /// From the start of the first phase to the end of the last.
    pub total: Histogram,
}

/// A day's or a month's figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Period {
    /// Samples by outcome.
    pub counts: Counts,
    /// From the start of the first phase to the end of the last.
    pub total: Histogram,
    /// Each phase, in the order of [`PHASES`].
    pub phases: [Histogram; PHASES.len()],
}

impl Hour {
    /// Counts the samples of another hour too.
    pub fn add(&mut self, other: &Self) {
        self.counts.add(other.counts);
        self.total.add(&other.total);
    }
}

impl Period {
    /// Counts the samples of another day too.
    pub fn add(&mut self, other: &Self) {
        self.counts.add(other.counts);
        self.total.add(&other.total);
        for (phase, more) in self.phases.iter_mut().zip(&other.phases) {
            phase.add(more);
        }
    }
}

/// A day: its figures, and when the state changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Day {
    /// Samples and times.
    pub period: Period,
    /// The states of the day's own samples (`contract::track`); empty when the rhythm of the check is not known.
    pub pieces: Vec<Piece>,
}

/// An hour whose samples are still coming.
#[derive(Debug, Clone, Default)]
pub(super) struct HourFold {
    counts: Counts,
    total: Accumulator,
}

/// A day whose samples are still coming.
#[derive(Debug, Clone, Default)]
pub(super) struct DayFold {
    hour: HourFold,
    phases: [Accumulator; PHASES.len()],
}

impl HourFold {
    pub(super) fn record(&mut self, sample: &Sample) {
        match sample.outcome {
            Outcome::Up { .. } => {
                self.counts.up += 1;
                if sample.phases != Phases::default() {
                    self.counts.held += u64::from(!self.total.record(sample.phases.total()));
                }
            }
            Outcome::Failed { .. } => self.counts.failed += 1,
            Outcome::NotRun(_) => self.counts.not_run += 1,
        }
    }

    pub(super) fn finish(self) -> Hour {
        Hour { counts: self.counts, total: self.total.finish() }
    }
}

impl DayFold {
    pub(super) fn record(&mut self, sample: &Sample) {
        self.hour.record(sample);
        if let Outcome::Up { .. } = sample.outcome {
            for (phase, time) in self.phases.iter_mut().zip(sample.phases.to_array()) {
                time.map(|time: Micros| phase.record(time));
            }
        }
    }

    pub(super) fn finish(self) -> Period {
        let Hour { counts, total } = self.hour.finish();
        Period { counts, total, phases: self.phases.map(Accumulator::finish) }
    }
}
