//! A first failure is looked at again soon, so that it is known within seconds whether it lasts. Pure.
//!
//! The further attempts are samples like any other, each under its own time: none replaces the first, so an outage still
//! starts where it started, and a contract that asks for several failures in a row (`confirm`) has them sooner. They are
//! not due ticks: one that cannot run (its check is still under way) is left out and leaves no record.
//!
//! Attempts end with the first answer, after [`Confirm::attempts`] of them, or one [`Confirm::every`] before the
//! check's next tick; a check that is due often enough anyway has none.

use std::collections::BTreeMap;

use peil_proto::ids::CheckNo;
use peil_proto::sample::State;
use peil_proto::units::Millis;

use crate::schedule::Due;

/// How a failure is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirm {
    /// How often at most; 0 turns it off.
    pub attempts: u32,
    /// From one attempt to the next.
    pub every: Millis,
}

/// A failure that is being looked at again.
struct Doubt {
    /// The tick that failed first.
    tick: Due,
    /// Attempts made or under way.
    made: u32,
    /// The next one is wanted.
    waiting: bool,
}

/// See the [module](self).
pub(super) struct Confirmations {
    how: Confirm,
    doubts: BTreeMap<CheckNo, Doubt>,
}

impl Confirmations {
    pub(super) fn new(how: Confirm) -> Self {
        Self { how, doubts: BTreeMap::new() }
    }

    /// When the next attempt is due, on the monotonic clock of the schedule.
    pub(super) fn next_wake(&self) -> Option<Millis> {
        self.doubts.values().filter(|doubt| doubt.waiting).map(|doubt| self.attempt(doubt).mono_due).min()
    }

    /// Attempts that are due at `mono`.
    pub(super) fn take_due(&mut self, mono: Millis) -> Vec<Due> {
        let how = self.how;
        let mut due = Vec::new();
        for doubt in self.doubts.values_mut().filter(|doubt| doubt.waiting) {
            let attempt = attempt(how, doubt);
            if attempt.mono_due <= mono {
                doubt.made += 1;
                doubt.waiting = false;
                due.push(attempt);
            }
        }
        due
    }

    /// A tick of the schedule is due: whatever was in doubt is answered by it.
    pub(super) fn tick(&mut self, check: CheckNo) {
        self.doubts.remove(&check);
    }

    /// What came of a tick or an attempt, and what the check's state was before.
    pub(super) fn told(&mut self, due: &Due, before: Option<State>, now: State) {
        let no = due.check.no;
        if now != State::Down {
            self.doubts.remove(&no);
            return;
        }
        if before != Some(State::Down) {
            let tick = due.clone();
            self.doubts.entry(no).or_insert(Doubt { tick, made: 0, waiting: false });
        }
        let how = self.how;
        if let Some(doubt) = self.doubts.get_mut(&no) {
            doubt.waiting = doubt.made < how.attempts && fits(how, doubt);
        }
    }

    fn attempt(&self, doubt: &Doubt) -> Due {
        attempt(self.how, doubt)
    }
}

/// The attempt after those that were made, at its place between two ticks.
fn attempt(how: Confirm, doubt: &Doubt) -> Due {
    let after = Millis(how.every.0.saturating_mul(i64::from(doubt.made) + 1));
    Due {
        check: doubt.tick.check.clone(),
        scheduled_at: doubt.tick.scheduled_at.plus(after),
        mono_due: Millis(doubt.tick.mono_due.0.saturating_add(after.0)),
    }
}

/// Whether there is room for the next attempt before the next tick.
fn fits(how: Confirm, doubt: &Doubt) -> bool {
    let end = how.every.0.saturating_mul(i64::from(doubt.made) + 2);
    end <= i64::from(doubt.tick.check.interval_ms)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use peil_proto::plan::{CheckDef, CheckKind};
    use peil_proto::time::UtcTime;

    use super::*;

    const HOW: Confirm = Confirm { attempts: 2, every: Millis(5_000) };

    fn tick(interval_ms: u32) -> Due {
        let kind = CheckKind::Tcp(peil_proto::plan::Tcp { address: "h:1".into(), ..peil_proto::plan::Tcp::default() });
        let check = CheckDef { no: CheckNo(1), name: "a".into(), interval_ms, timeout_ms: 1_000, kind };
        Due { check: Arc::new(check), scheduled_at: UtcTime(1_000_000), mono_due: Millis(100) }
    }

    /// Lets every attempt fail; their labels.
    fn attempts(how: Confirm, interval_ms: u32) -> Vec<i64> {
        let mut confirmations = Confirmations::new(how);
        confirmations.told(&tick(interval_ms), Some(State::Up), State::Down);
        let mut labels = Vec::new();
        while let Some(wake) = confirmations.next_wake() {
            for due in confirmations.take_due(wake) {
                labels.push(due.scheduled_at.0 - 1_000_000);
                assert_eq!(due.mono_due.0 - 100, due.scheduled_at.0 - 1_000_000);
                confirmations.told(&due, Some(State::Down), State::Down);
            }
        }
        labels
    }

    #[test]
    fn a_first_failure_is_tried_again_at_a_short_distance_and_not_for_ever() {
        assert_eq!(attempts(HOW, 60_000), [5_000, 10_000]);
        assert_eq!(attempts(HOW, 15_000), [5_000, 10_000]);
        assert_eq!(attempts(HOW, 12_000), [5_000], "the tick itself comes soon enough");
        assert_eq!(attempts(HOW, 9_000), [0_i64; 0]);
        assert_eq!(attempts(Confirm { attempts: 0, ..HOW }, 60_000), [0_i64; 0]);
    }

    #[test]
    fn an_answer_a_tick_or_a_failure_that_lasted_ends_it() {
        let mut confirmations = Confirmations::new(HOW);
        confirmations.told(&tick(60_000), Some(State::Down), State::Down);
        assert_eq!(confirmations.next_wake(), None, "it was down before");
        confirmations.told(&tick(60_000), Some(State::Up), State::Unknown);
        assert_eq!(confirmations.next_wake(), None, "our own trouble is not confirmed");
        confirmations.told(&tick(60_000), None, State::Down);
        assert!(confirmations.next_wake().is_some());
        confirmations.tick(CheckNo(1));
        assert_eq!(confirmations.next_wake(), None);
        confirmations.told(&tick(60_000), Some(State::Unknown), State::Down);
        let due = confirmations.take_due(Millis(i64::MAX)).pop().expect("due");
        confirmations.told(&due, Some(State::Down), State::Up);
        assert_eq!(confirmations.next_wake(), None);
    }
}
