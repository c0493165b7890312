//! Overload: when probes of this host hold each other up, the less important run less often, and that is told. Pure.
//!
//! Every minute the share of *strained* ticks is looked at: those that waited for more than a tenth of their interval, or
//! found no slot at all. A tenth or more of them strained: only every second tick of a check runs, then every fourth, then
//! every eighth. Below a fiftieth: one step back. Ticks that are left out leave `not_run` records like any other
//! overload, so their time is unknown and nobody takes it for up. Checks that `[probing] always` names run at every tick.

use peil_proto::units::Millis;

/// How long ticks are counted before anything changes.
const WINDOW: Millis = Millis::MINUTE;
/// Fewer ticks than this in a window say nothing.
const TICKS_MIN: u32 = 10;
/// One of this many ticks strained: step up.
const STRAINED: u32 = 10;
/// Fewer than one of this many: step down.
const EASY: u32 = 50;
/// Most steps: one tick in eight.
const STEPS_MAX: u32 = 3;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Load {
    since: Option<Millis>,
    due: u32,
    strained: u32,
    steps: u32,
}

/// Whether waiting that long taints what was measured: more than a tenth of the interval.
pub(super) fn is_tainted(delay: Millis, interval_ms: u32) -> bool {
    delay.0.saturating_mul(10) > i64::from(interval_ms)
}

impl Load {
    /// Only one of this many ticks runs.
    pub(super) fn stretch(&self) -> u32 {
        1 << self.steps
    }

    /// Whether the tick that is due at `label` runs, for a check that may be stretched.
    pub(super) fn runs(&self, label: i64, interval_ms: u32) -> bool {
        label.div_euclid(i64::from(interval_ms.max(1))).rem_euclid(i64::from(self.stretch())) == 0
    }

    /// Counts one tick that ran or should have. The new stretch, when it changed.
    pub(super) fn count(&mut self, mono: Millis, strained: bool) -> Option<u32> {
        let since = *self.since.get_or_insert(mono);
        self.due = self.due.saturating_add(1);
        self.strained = self.strained.saturating_add(u32::from(strained));
        if mono.0.saturating_sub(since.0) < WINDOW.0 || self.due < TICKS_MIN {
            return None;
        }
        let before = self.steps;
        if self.strained.saturating_mul(STRAINED) >= self.due {
            self.steps = (self.steps + 1).min(STEPS_MAX);
        } else if self.strained.saturating_mul(EASY) < self.due {
            self.steps = self.steps.saturating_sub(1);
        }
        (self.since, self.due, self.strained) = (Some(mono), 0, 0);
        (self.steps != before).then(|| self.stretch())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minute with `strained` of 100 ticks strained, from `minute` on.
    fn minute(load: &mut Load, minute: i64, strained: u32) -> u32 {
        for tick in 0..100 {
            load.count(Millis(minute * 60_000 + i64::from(tick) * 600), tick < strained);
        }
        load.stretch()
    }

    #[test]
    fn strain_stretches_step_by_step_and_ease_takes_it_back() {
        let mut load = Load::default();
        let shares = [0, 5, 20, 90, 90, 90, 90, 5, 0, 0, 0, 0, 0];
        let stretches: Vec<u32> = (0..).zip(shares).map(|(at, strained)| minute(&mut load, at, strained)).collect();
        assert_eq!(stretches.iter().max(), Some(&8));
        assert!(stretches.windows(2).all(|pair| pair[1] <= 2 * pair[0] && pair[0] <= 2 * pair[1]), "{stretches:?}");
        assert_eq!((stretches[1], stretches[12]), (1, 1), "{stretches:?}");
    }

    #[test]
    fn a_few_ticks_say_nothing() {
        let mut load = Load::default();
        for tick in 0..9 {
            assert_eq!(load.count(Millis(tick * 600_000), true), None);
        }
    }

    #[test]
    fn stretched_checks_run_at_every_second_fourth_or_eighth_tick() {
        let load = Load { steps: 2, ..Load::default() };
        let ran: Vec<i64> = (0..12).filter(|tick| load.runs(tick * 10_000 + 77, 10_000)).collect();
        assert_eq!(ran, [0, 4, 8]);
        assert!((0..12).all(|tick| Load::default().runs(tick * 10_000, 10_000)));
    }

    #[test]
    fn a_tenth_of_the_interval_is_the_limit() {
        assert!(!is_tainted(Millis(1_000), 10_000) && is_tainted(Millis(1_001), 10_000));
    }
}
