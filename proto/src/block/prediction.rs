//! What the next value is expected to be, and how far off it may be: the same on both sides of the wire.

use super::bits::{BitReader, BitWriter};

/// What both sides know after each sample; they must move in step.
pub(super) struct Model {
    pub(super) checks: Vec<CheckContext>,
    pub(super) previous: usize,
    pub(super) time: TimeColumn,
    pub(super) delay: Column,
    pub(super) phases: [Column; 5],
}

#[derive(Clone, Default)]
pub(super) struct CheckContext {
    pub(super) follower: usize,
    pub(super) outcome: usize,
    pub(super) time: TimeContext,
    pub(super) delay: Context,
    pub(super) phases: [Context; 5],
}

impl Model {
    pub(super) fn new(checks: usize) -> Self {
        Self {
            checks: vec![CheckContext::default(); checks],
            previous: 0,
            time: TimeColumn::default(),
            delay: Column::default(),
            phases: Default::default(),
        }
    }

    pub(super) fn put_index(&mut self, bits: &mut BitWriter, check: usize, outcome: usize, outcomes: usize) {
        bits.put_or(check, self.checks[self.previous].follower, self.checks.len());
        bits.put_or(outcome, self.checks[check].outcome, outcomes);
        self.settle(check, outcome);
    }

    pub(super) fn get_index(
        &mut self,
        bits: &mut BitReader<'_>,
        checks: usize,
        outcomes: usize,
    ) -> Option<(usize, usize)> {
        let check = bits.get_or(self.checks[self.previous].follower, checks)?;
        let outcome = bits.get_or(self.checks[check].outcome, outcomes)?;
        self.settle(check, outcome);
        Some((check, outcome))
    }

    pub(super) fn settle(&mut self, check: usize, outcome: usize) {
        self.checks[self.previous].follower = check;
        self.checks[check].outcome = outcome;
        self.previous = check;
    }
}

/// Recent size of residuals, from which the Rice parameter follows.
#[derive(Clone)]
pub(super) struct Spread {
    pub(super) sum: u64,
    pub(super) count: u64,
}

impl Default for Spread {
    /// Starts as if one residual of 16 had been seen.
    fn default() -> Self {
        Self { sum: 16, count: 1 }
    }
}

impl Spread {
    pub(super) fn parameter(&self) -> u32 {
        let mean = self.sum / self.count;
        (64 - mean.leading_zeros()).min(62)
    }

    pub(super) fn learn(&mut self, coded: u64) {
        self.sum = self.sum.saturating_add(coded / 2);
        self.count += 1;
        if self.count == 16 {
            self.sum /= 2;
            self.count /= 2;
        }
    }
}

/// Block-wide state of a column: predicts the first value of each context.
#[derive(Default)]
pub(super) struct Column {
    pub(super) last: i64,
    pub(super) first: Spread,
    pub(super) spread: Spread,
}

/// State of one (check, column).
#[derive(Clone, Default)]
pub(super) struct Context {
    pub(super) mean: Option<i64>,
    pub(super) spread: Option<Spread>,
}

impl Context {
    pub(super) fn put(&mut self, bits: &mut BitWriter, column: &mut Column, value: i64) {
        match self.mean {
            None => bits.put_residual(&mut column.first, value.wrapping_sub(column.last)),
            Some(mean) => {
                bits.put_residual(self.spread.get_or_insert_with(|| column.spread.clone()), value.wrapping_sub(mean));
            }
        }
        self.settle(column, value);
    }

    pub(super) fn get(&mut self, bits: &mut BitReader<'_>, column: &mut Column) -> i64 {
        let value = match self.mean {
            None => bits.get_residual(&mut column.first).wrapping_add(column.last),
            Some(mean) => {
                bits.get_residual(self.spread.get_or_insert_with(|| column.spread.clone())).wrapping_add(mean)
            }
        };
        self.settle(column, value);
        value
    }

    pub(super) fn settle(&mut self, column: &mut Column, value: i64) {
        column.last = value;
        if let Some(spread) = &self.spread {
            column.spread = spread.clone();
        }
        self.mean = Some(self.mean.map_or(value, |mean| mean.wrapping_add(value.wrapping_sub(mean) / 4)));
    }
}

/// Block-wide state of the time column.
#[derive(Default)]
pub(super) struct TimeColumn {
    pub(super) last: i64,
    pub(super) step: i64,
    pub(super) first: Spread,
    pub(super) second: Spread,
    pub(super) spread: Spread,
}

/// Time of one check: the next tick is the last one plus the last step.
#[derive(Clone, Default)]
pub(super) struct TimeContext {
    pub(super) last: Option<i64>,
    pub(super) step: Option<i64>,
}

impl TimeContext {
    pub(super) fn predict<'c>(&self, column: &'c mut TimeColumn) -> (i64, &'c mut Spread) {
        match (self.last, self.step) {
            (None, _) => (column.last, &mut column.first),
            (Some(last), None) => (last.wrapping_add(column.step), &mut column.second),
            (Some(last), Some(step)) => (last.wrapping_add(step), &mut column.spread),
        }
    }

    pub(super) fn put(&mut self, bits: &mut BitWriter, column: &mut TimeColumn, value: i64) {
        let (predicted, spread) = self.predict(column);
        bits.put_residual(spread, value.wrapping_sub(predicted));
        self.settle(column, value);
    }

    pub(super) fn get(&mut self, bits: &mut BitReader<'_>, column: &mut TimeColumn) -> i64 {
        let (predicted, spread) = self.predict(column);
        let value = bits.get_residual(spread).wrapping_add(predicted);
        self.settle(column, value);
        value
    }

    pub(super) fn settle(&mut self, column: &mut TimeColumn, value: i64) {
        if let Some(last) = self.last {
            column.step = value.wrapping_sub(last);
            self.step = Some(column.step);
        }
        self.last = Some(value);
        column.last = value;
    }
}
