//! DRIVE: reconcilers. Each looks at what is there, decides, writes, and may run twice without harm.
//!
//! | job | looks at | writes | runs |
//! |---|---|---|---|
//! | [`judge`] | blocks after its watermark | findings, energy hours, watermark | after a commit, four times a second at most |
//! | [`measure`] | live state, agents, clock | the snapshot | after `judge`, every second, in a quarter of the time at most |
//! | [`raise`] | snapshot, open alerts | alerts and their outbox rows | after `measure` |
//! | [`deliver`] | the outbox | receipts, next attempts | after `raise`, every second |
//! | [`lead`] | leases, connections | which duties are this collector's, who is connected here | every five seconds, every second |
//! | [`keep`] | agents, sessions, certificates | revocations in force, expired sessions gone | every five seconds |
//! | [`look`] | the store as a whole | nothing; a survey for `/metrics` | every half minute |
//!
//! The first three run in this order in one task, because each reads what the one before wrote; delivery has
//! a task of its own, so that a slow receiver never delays a figure. A run that fails is logged once and tried
//! again at the next beat: nothing is lost by it, only late.

pub mod deliver;
pub mod judge;
pub mod keep;
pub mod lead;
pub mod look;
pub mod measure;
pub mod raise;
#[cfg(test)]
mod trial;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::snapshot::Snapshot;
use crate::store::StoreError;

/// The beat without any nudge: time passes even when no block comes.
const BEAT: Duration = Duration::from_secs(1);
/// From the start of one round to the start of the next, at least. Under load there is a commit every few ms, and a
/// round has a cost of its own however few blocks came; a nudge within this time waits for its end.
const ROUNDS_APART: Duration = Duration::from_millis(250);
/// Figures take at most one part in so many of the time: their cost follows services, hosts and outages (10 ms for
/// 400 services on 200 hosts at the start of a month, half a second for 1000 services at the end of a bad one). Until
/// they are due again, rounds only judge, so that figures become older but judging never falls behind.
const FIGURES_SHARE: u32 = 4;

/// Judge, measure, raise: in this order, for ever.
pub struct Pipeline {
    /// Blocks to live state.
    pub judge: judge::Judge,
    /// Live state to snapshot.
    pub measure: measure::Measure,
    /// Snapshot to alerts.
    pub raise: raise::Raise,
    /// Where the snapshot goes.
    pub publish: watch::Sender<Arc<Snapshot>>,
    /// Wakes the pipeline.
    pub committed: Arc<Notify>,
    /// Wakes delivery.
    pub raised: Arc<Notify>,
}

impl Pipeline {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut failing = false;
        let (mut not_before, mut figures_due) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                () = self.committed.notified() => {}
                _ = beat.tick() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = sleep_until(not_before) => {}
                () = stop.cancelled() => return,
            }
            not_before = Instant::now() + ROUNDS_APART;
            match self.round(&mut figures_due).await {
                Ok(()) if failing => {
                    failing = false;
                    info!("figures follow the records again");
                }
                Ok(()) => {}
                Err(cause) if !failing => {
                    failing = true;
                    error!(cause = %crate::chain(&cause), "figures stand still; trying again every second");
                }
                Err(_) => {}
            }
        }
    }

    async fn round(&mut self, figures_due: &mut Instant) -> Result<(), StoreError> {
        self.judge.activate().await?;
        let started = Instant::now();
        if started < *figures_due {
            return Ok(());
        }
        let mut snapshot = self.measure.activate(self.judge.live()).await?;
        let raised = self.raise.activate(&mut snapshot).await?;
        self.publish.send_replace(Arc::new(snapshot));
        // After the page knows: whoever follows a message finds what it tells of.
        if raised {
            self.raised.notify_one();
        }
        *figures_due = started + started.elapsed() * FIGURES_SHARE;
        Ok(())
    }
}
