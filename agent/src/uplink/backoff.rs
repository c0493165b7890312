//! How long to wait before the next attempt: full jitter, so a thousand agents that lost the same
//! collector do not come back in the same second.

use std::time::Duration;

/// First wait is drawn from `[0, BASE]`; each failure doubles the range up to [`CAP`].
const BASE: Duration = Duration::from_secs(1);
/// Longest range.
const CAP: Duration = Duration::from_secs(60);
/// A stream this long counts as healthy: the next failure starts from [`BASE`] again.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait before the next attempt; `random` is a uniform draw.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let range = BASE.saturating_mul(1 << self.failures.min(6)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        let micros = u64::try_from(range.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(random % (micros + 1))
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_never_beyond() {
        let mut backoff = Backoff::default();
        let longest: Vec<u64> = (0..10)
            .map(|n| {
                let before = Backoff { failures: n };
                let range = BASE.saturating_mul(1 << before.failures.min(6)).min(CAP);
                range.as_secs()
            })
            .collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        for draw in 0..1_000_u64 {
            assert!(backoff.next_wait(draw.wrapping_mul(0x9e37_79b9_7f4a_7c15)) <= CAP);
        }
        backoff.reset();
        assert!(backoff.next_wait(u64::MAX) <= BASE);
    }

    #[test]
    fn f7_a_thousand_agents_that_lost_the_same_collector_come_back_spread_over_a_minute() {
        let mut arrivals = [0_u32; 60];
        for agent in 0..1_000_u64 {
            // Each has failed for an hour; its draw is its own.
            let mut backoff = Backoff { failures: 60 };
            let wait = backoff.next_wait(agent.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17));
            arrivals[usize::try_from(wait.as_secs()).expect("small").min(59)] += 1;
        }
        assert!(arrivals.iter().all(|in_a_second| (1..=60).contains(in_a_second)), "{arrivals:?}");
    }
}
