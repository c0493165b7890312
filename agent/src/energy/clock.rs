//! The three clocks of a tick, and how intervals get wall-clock stamps that stay in order.
//!
//! Energy and durations come from the monotonic clocks alone; the wall clock only dates them. It may
//! be set forward or back while the agent runs, and a reading dated before its predecessor would be
//! counted in an hour that is already closed. So stamps follow elapsed time and never go back:
//! see [`close`].

use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Wall and elapsed time may differ by this much (NTP slewing, rounding) before the clock was "set".
pub const WALL_STEP: Millis = Millis(2_000);

/// One moment on three clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant3 {
    /// Time of day.
    pub wall: UtcTime,
    /// Time awake since boot, ms.
    pub mono_ms: u64,
    /// Time since boot including suspend, ms.
    pub boottime_ms: u64,
}

/// Where the three clocks are read. The agent's shell asks once a tick and passes the answer on.
#[derive(Debug, Clone, Default)]
pub struct Clocks {
    /// Where the time of day comes from.
    pub wall: WallClock,
}

impl Clocks {
    /// The moment now.
    pub fn now(&self) -> Instant3 {
        Instant3 {
            wall: self.wall.now(),
            mono_ms: to_ms(clock_gettime(ClockId::Monotonic)),
            boottime_ms: to_ms(clock_gettime(ClockId::Boottime)),
        }
    }
}

fn to_ms(time: Timespec) -> u64 {
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    secs.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
}

/// How an interval ends on the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Where this interval ends: always after its start.
    pub end: UtcTime,
    /// Where the next one starts: never before `end`.
    pub next_start: UtcTime,
    /// Wall clock minus stamps, when the clock was set by more than [`WALL_STEP`].
    pub off: Option<Millis>,
}

/// Ends an interval that began at `start`, lasted `elapsed` (boot time) and ends when the wall shows `wall`.
///
/// Clock set forward: the interval keeps its length and the next one starts at the new time, so the
/// step is a hole in the stamps. Clock set back: stamps may not go back, so they advance at half speed
/// until the wall clock has caught up with them.
pub fn close(start: UtcTime, elapsed: Millis, wall: UtcTime) -> Closed {
    let expected = start.plus(elapsed);
    let off = wall.since(expected);
    let least = start.plus(Millis(1));
    if off.0.abs() <= WALL_STEP.0 {
        let end = wall.max(least);
        return Closed { end, next_start: end, off: None };
    }
    if off.0 > 0 {
        let end = expected.max(least);
        return Closed { end, next_start: wall.max(end), off: Some(off) };
    }
    let end = wall.max(start.plus(Millis(elapsed.0 / 2))).max(least);
    Closed { end, next_start: end, off: Some(off) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Millis = Millis::MINUTE;

    #[test]
    fn a_steady_clock_is_followed_and_small_drift_absorbed() {
        let closed = close(UtcTime(1_000_000), MINUTE, UtcTime(1_060_150));
        assert_eq!(closed, Closed { end: UtcTime(1_060_150), next_start: UtcTime(1_060_150), off: None });
    }

    #[test]
    fn a_clock_set_forward_leaves_a_hole_and_not_a_long_interval() {
        let closed = close(UtcTime(0), MINUTE, UtcTime(3_660_000));
        assert_eq!(closed.end, UtcTime(60_000));
        assert_eq!(closed.next_start, UtcTime(3_660_000));
        assert_eq!(closed.off, Some(Millis(3_600_000)));
    }

    #[test]
    fn after_a_clock_set_back_an_hour_stamps_stay_in_order_and_meet_it_again() {
        let mut start = UtcTime(10_000_000);
        let mut wall = UtcTime(10_000_000 - 3_600_000);
        let mut minutes = 0;
        loop {
            wall = wall.plus(MINUTE);
            let closed = close(start, MINUTE, wall);
            assert!(closed.end > start && closed.next_start >= closed.end);
            start = closed.next_start;
            minutes += 1;
            if closed.off.is_none() {
                break;
            }
        }
        // An hour at half speed takes two.
        assert_eq!(minutes, 121);
        assert_eq!(start, wall);
    }

    proptest! {
        #[test]
        fn stamps_never_go_back(start in 0..1_i64 << 45, elapsed in 0..1_i64 << 40, wall in 0..1_i64 << 45) {
            let closed = close(UtcTime(start), Millis(elapsed), UtcTime(wall));
            prop_assert!(closed.end > UtcTime(start));
            prop_assert!(closed.next_start >= closed.end);
        }
    }

    #[test]
    fn the_machines_clocks_run() {
        let now = Clocks::default().now();
        assert!(now.boottime_ms >= now.mono_ms.saturating_sub(1));
        assert!(now.mono_ms > 0);
    }
}
