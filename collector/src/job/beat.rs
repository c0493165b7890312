//! The beat of a job that has a task of its own, and what it says when a round fails.
//!
//! The first beat comes at once; one that was missed because a round took long is left out. The same trouble is told
//! once, not at every beat; its end is the next round's silence.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Beats until the end.
pub(super) struct Beat {
    interval: Interval,
    stop: CancellationToken,
    told: String,
}

impl Beat {
    pub(super) fn every(period: Duration, stop: CancellationToken) -> Self {
        let mut interval = interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self { interval, stop, told: String::new() }
    }

    /// Waits for the next beat; false when there is none any more.
    pub(super) async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.interval.tick() => true,
            () = self.stop.cancelled() => false,
        }
    }

    /// As [`Beat::next`], or sooner when somebody has nudged.
    pub(super) async fn next_or(&mut self, nudge: &Notify) -> bool {
        tokio::select! {
            _ = self.interval.tick() => true,
            () = nudge.notified() => true,
            () = self.stop.cancelled() => false,
        }
    }

    /// Does the work, or drops it half-way when the end comes: for rounds that take longer than anybody waits at a stop.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.stop.cancelled() => None,
        }
    }

    /// Tells a failure once for as long as it is the same; `consequence` says what it means and what happens next.
    pub(super) fn tell<T, E>(&mut self, outcome: Result<T, E>, consequence: &'static str) -> Option<T>
    where
        E: std::error::Error + 'static,
    {
        let (done, trouble) = match outcome {
            Ok(done) => (Some(done), String::new()),
            Err(cause) => (None, crate::chain(&cause)),
        };
        if !trouble.is_empty() && trouble != self.told {
            warn!(cause = trouble, "{consequence}");
        }
        self.told = trouble;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_beats_at_once_and_ends_a_round_that_nobody_waits_for() {
        let stop = CancellationToken::new();
        let mut beat = Beat::every(Duration::from_secs(3_600), stop.clone());
        assert!(beat.next().await);
        assert_eq!(beat.during(async { 7 }).await, Some(7));
        stop.cancel();
        assert_eq!(beat.during(std::future::pending::<()>()).await, None);
        assert!(!beat.next().await);
    }

    #[tokio::test]
    async fn a_trouble_is_remembered_until_it_is_another_or_over() {
        let mut beat = Beat::every(Duration::from_secs(5), CancellationToken::new());
        let trouble = |text: &'static str| Err::<(), _>(std::io::Error::other(text));
        let mut remembered = Vec::new();
        for outcome in [trouble("away"), trouble("full"), Ok(())] {
            beat.tell(outcome, "trying again");
            remembered.push(beat.told.clone());
        }
        assert_eq!(remembered, ["away", "full", ""]);
    }
}
