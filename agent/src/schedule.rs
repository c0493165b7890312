//! The schedule: which check is due when. Pure: no clock, no timer, no task; the caller sleeps until
//! [`Schedule::next_wake`] and then asks [`Schedule::take_due`].
//!
//! **Phase.** A check with interval `i` is due when wall time mod `i` equals its phase: a hash of the
//! agent's id and the check's name, mod `i`. It is the same after every restart, differs between
//! agents that run the same check, and spreads the checks of one agent evenly.
//!
//! **Rhythm.** The grid is laid on the wall clock once, when the schedule is made (for a new or
//! re-timed check: when the plan is replaced). From then on it runs on *awake time + suspended time*,
//! which nobody can set. A step of the wall clock therefore moves no tick: no burst, no pause, no
//! tick twice. The new grid is taken up at the next start.
//!
//! **Labels.** `scheduled_at` is the wall time of the tick. It is computed with a fixed distance between
//! the two clocks, so that it stands exactly on the grid; when the wall clock has moved by
//! [`STEP_MIN`] or more, the distance is measured anew. Labels of a check strictly increase: after a
//! step *back*, they advance by 1 ms a tick until the wall clock has passed the last label, so that no
//! moment gets two samples. A step back by more than [`STEP_BACK_HELD_MAX`] is different: the clock was
//! plainly wrong, and true labels are worth more than increasing ones; they then start again from
//! the new time.
//!
//! **Missed ticks.** Every due tick is told exactly once: in `due`, or in a `missed` span. Missed are
//! the ticks that fell due while the host was suspended (later than [`LATE_AFTER_SUSPEND_MAX`]), and
//! all of a stall in which more than [`CATCH_UP_MAX`] ticks of a check fell due. They are not made up
//! for: the check goes on at its next tick on the grid, so waking up is no burst.
//!
//! **Not done here**: how many run at once, whether the last run has ended, whether the policy allows
//! the check. Plans come validated; an interval of 0 counts as 1 ms.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::plan::{CheckDef, Plan};
use peil_proto::sample::NotRun;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

#[cfg(test)]
mod tests;

/// A wall clock that differs from the expected time by this much was stepped; less is the jitter of
/// reading two clocks, and drift.
pub const STEP_MIN: Millis = Millis(500);

/// Labels wait for the wall clock after a step back of at most this much.
pub const STEP_BACK_HELD_MAX: Millis = Millis::from_secs(2 * 3_600);

/// Ticks of one check that may be delivered at once after a stall. With more, all of them are missed.
pub const CATCH_UP_MAX: i64 = 2;

/// After a suspension, a tick that is not later than this still runs.
pub const LATE_AFTER_SUSPEND_MAX: Millis = Millis::SECOND;

/// Clock readings are held to ± this, some 100 000 years, so that sums cannot overflow.
const CLOCK_MAX: i64 = 1 << 52;

/// The clocks, read together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Time of day.
    pub wall: UtcTime,
    /// Time awake since boot (`CLOCK_MONOTONIC`).
    pub mono: Millis,
    /// Time suspended since boot, in all (`CLOCK_BOOTTIME` − `CLOCK_MONOTONIC`).
    pub suspended: Millis,
}

/// A tick to be run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// What to run.
    pub check: Arc<CheckDef>,
    /// Wall time of the tick: the label of the sample.
    pub scheduled_at: UtcTime,
    /// When it was due on the clock of [`Now::mono`]: delay is measured from here. For a tick that fell
    /// due just before or during a suspension, time suspended counts as delay.
    pub mono_due: Millis,
}

/// Ticks that were not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// Whose.
    pub check: Arc<CheckDef>,
    /// Label of the first missed tick.
    pub from: UtcTime,
    /// Label of the last missed tick.
    pub to: UtcTime,
    /// How many; at least 1.
    pub ticks: u64,
    /// [`NotRun::Suspended`], or [`NotRun::Overload`] when the agent itself was held up.
    pub reason: NotRun,
}

/// What came due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakeDue {
    /// To be run, in order of the time they were due.
    pub due: Vec<Due>,
    /// Not to be run: one span per check at most.
    pub missed: Vec<Missed>,
}

/// One check in the schedule.
#[derive(Debug)]
struct Entry {
    check: Arc<CheckDef>,
    interval: i64,
    /// Next tick, in awake + suspended time.
    next: i64,
    /// Label of the newest tick told.
    label: Option<i64>,
}

/// See the [module](self). A tick costs O(log checks).
#[derive(Debug)]
pub struct Schedule {
    agent: AgentId,
    entries: Vec<Entry>,
    /// Next tick and index into `entries`; equal times in order of the plan.
    heap: BinaryHeap<Reverse<(i64, usize)>>,
    /// Wall time − (awake + suspended time).
    distance: i64,
    /// Newest reading; readings never go back.
    awake: i64,
    suspended: i64,
}

impl Schedule {
    /// A schedule whose first ticks lie after `now`.
    pub fn new(agent: AgentId, plan: &Plan, now: Now) -> Self {
        let (awake, suspended) = (held(now.mono.0).max(0), held(now.suspended.0).max(0));
        let distance = held(now.wall.0) - (awake + suspended);
        let mut schedule = Self { agent, entries: Vec::new(), heap: BinaryHeap::new(), distance, awake, suspended };
        schedule.adopt(plan);
        schedule
    }

    /// The newest label an earlier run gave to a tick of this check: labels go on increasing after it. What stands in the plan
    /// already keeps what it knows itself.
    pub fn resume(&mut self, check: CheckNo, label: UtcTime) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.check.no == check) {
            entry.label = entry.label.or(Some(label.0));
        }
    }

    /// When the next tick is due on the clock of [`Now::mono`]; `None` without checks. May lie in the past.
    pub fn next_wake(&self) -> Option<Millis> {
        self.heap.peek().map(|Reverse((next, _))| Millis(next - self.suspended))
    }

    /// Every tick that fell due since the last call, each exactly once.
    pub fn take_due(&mut self, now: Now) -> TakeDue {
        let slept = self.read_clocks(now);
        let elapsed = self.elapsed();
        let mut taken = TakeDue::default();
        while let Some(Reverse((next, at))) = self.heap.peek().copied()
            && next <= elapsed
        {
            self.heap.pop();
            self.take_one(at, slept, &mut taken);
            self.heap.push(Reverse((self.entries[at].next, at)));
        }
        taken.due.sort_by_key(|due| due.mono_due);
        taken
    }

    /// Changes to another plan, and returns what was due under the old one until `now`: no tick falls
    /// between two plans. A check that keeps number, name and interval keeps its rhythm and its labels go
    /// on increasing; a new or re-timed one starts on its grid after `now`.
    #[must_use = "these ticks were due and are told only here"]
    pub fn replace(&mut self, plan: &Plan, now: Now) -> TakeDue {
        let taken = self.take_due(now);
        self.adopt(plan);
        taken
    }

    /// Wall time of each check's next tick, as things stand.
    pub fn upcoming(&self) -> impl Iterator<Item = (CheckNo, UtcTime)> + '_ {
        self.entries.iter().map(|entry| (entry.check.no, UtcTime(entry.next + self.distance)))
    }

    /// How many checks there are.
    pub fn checks(&self) -> usize {
        self.entries.len()
    }

    /// Takes all ticks of one check that are due.
    fn take_one(&mut self, at: usize, slept: bool, taken: &mut TakeDue) {
        let (elapsed, distance, suspended) = (self.elapsed(), self.distance, self.suspended);
        let entry = &mut self.entries[at];
        let ticks = (elapsed - entry.next) / entry.interval + 1;
        let late = elapsed - entry.next;
        let reason = match (slept, ticks) {
            (true, _) if late > LATE_AFTER_SUSPEND_MAX.0 => Some(NotRun::Suspended),
            (false, _) if ticks > CATCH_UP_MAX => Some(NotRun::Overload),
            _ => None,
        };
        let Some(reason) = reason else {
            for _ in 0..ticks {
                let mono_due = Millis(entry.next - suspended);
                let scheduled_at = UtcTime(entry.tell(distance));
                taken.due.push(Due { check: entry.check.clone(), scheduled_at, mono_due });
            }
            return;
        };
        let from = entry.tell(distance);
        entry.next += (ticks - 2).max(0) * entry.interval;
        let to = if ticks > 1 { entry.tell(distance) } else { from };
        let (check, ticks) = (entry.check.clone(), ticks.unsigned_abs());
        taken.missed.push(Missed { check, from: UtcTime(from), to: UtcTime(to), ticks, reason });
    }

    /// Awake + suspended time: runs on whatever happens to the wall clock or the lid.
    fn elapsed(&self) -> i64 {
        self.awake + self.suspended
    }

    /// Takes over a reading. True when the host was suspended since the last one.
    fn read_clocks(&mut self, now: Now) -> bool {
        let suspended_before = self.suspended;
        self.awake = self.awake.max(held(now.mono.0));
        self.suspended = self.suspended.max(held(now.suspended.0));
        let measured = held(now.wall.0) - self.elapsed();
        if (measured - self.distance).abs() >= STEP_MIN.0 {
            self.distance = measured;
        }
        // Reading two clocks one after the other makes a millisecond or two of apparent suspension.
        self.suspended - suspended_before >= LATE_AFTER_SUSPEND_MAX.0
    }

    /// Takes over a plan: entries that stay as they are keep their next tick and label.
    fn adopt(&mut self, plan: &Plan) {
        let mut old: BTreeMap<CheckNo, Entry> = self.entries.drain(..).map(|entry| (entry.check.no, entry)).collect();
        self.entries = plan.checks.iter().map(|check| self.entry(check, old.remove(&check.no))).collect();
        self.heap = self.entries.iter().enumerate().map(|(at, entry)| Reverse((entry.next, at))).collect();
    }

    fn entry(&self, check: &CheckDef, old: Option<Entry>) -> Entry {
        let interval = i64::from(check.interval_ms.max(1));
        let label = old.as_ref().and_then(|old| old.label);
        let next = match old {
            Some(old) if old.check.name == check.name && old.interval == interval => old.next,
            _ => {
                let elapsed = self.elapsed();
                let wall = elapsed + self.distance;
                let since_tick = (wall - phase(self.agent, &check.name, interval)).rem_euclid(interval);
                elapsed + interval - since_tick
            }
        };
        Entry { check: Arc::new(check.clone()), interval, next, label }
    }
}

impl Entry {
    /// Labels the next tick and moves on to the one after.
    fn tell(&mut self, distance: i64) -> i64 {
        let wall = self.next + distance;
        let label = match self.label {
            Some(told) if told >= wall && told - wall <= STEP_BACK_HELD_MAX.0 => told + 1,
            _ => wall,
        };
        self.label = Some(label);
        self.next += self.interval;
        label
    }
}

/// Where in its interval a check is due, in ms.
fn phase(agent: AgentId, name: &str, interval: i64) -> i64 {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(&agent.0);
    hash.update(name.as_bytes());
    let hash = hash.finish();
    let number = hash.as_ref().first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
    number.rem_euclid(interval)
}

/// A clock reading within ± [`CLOCK_MAX`].
fn held(reading: i64) -> i64 {
    reading.clamp(-CLOCK_MAX, CLOCK_MAX)
}
