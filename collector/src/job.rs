//! DRIVE: reconcilers. Each looks at what is there, decides, writes, and may run twice without harm.
//!
//! | job | looks at | writes | runs |
//! |---|---|---|---|
//! | [`judge`] | blocks after its watermark | findings, energy hours, watermark | after every commit |
//! | [`measure`] | live state, agents, clock | the snapshot | after `judge`, every second |
//! | [`raise`] | snapshot, open alerts | alerts and their outbox rows | after `measure` |
//! | [`deliver`] | the outbox | receipts, next attempts | after `raise`, every second |
//! | [`keep`] | agents, sessions, certificates | revocations in force, expired sessions gone | every five seconds |
//!
//! The first three run in this order in one task, because each reads what the one before wrote; delivery has
//! a task of its own, so that a slow receiver never delays a figure. A run that fails is logged once and tried
//! again at the next beat: nothing is lost by it, only late.

pub mod deliver;
pub mod judge;
pub mod keep;
pub mod measure;
pub mod raise;
#[cfg(test)]
mod trial;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::snapshot::Snapshot;

/// The beat without any nudge: time passes even when no block comes.
const BEAT: Duration = Duration::from_secs(1);
/// Rounds begin at least this far apart: with thousands of agents there is always a new block, and the figures
/// of all services would be computed without a pause. Short beside the ten seconds a page may take.
const ROUND_EVERY: Duration = Duration::from_millis(200);

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
        loop {
            tokio::select! {
                () = self.committed.notified() => {}
                _ = beat.tick() => {}
                () = stop.cancelled() => return,
            }
            let pause = tokio::time::sleep(ROUND_EVERY);
            match self.round().await {
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
            tokio::select! {
                () = pause => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn round(&mut self) -> Result<(), crate::store::StoreError> {
        self.judge.activate().await?;
        let mut snapshot = self.measure.activate(self.judge.live()).await?;
        let raised = self.raise.activate(&mut snapshot).await?;
        if raised {
            self.raised.notify_one();
        }
        self.publish.send_replace(Arc::new(snapshot));
        Ok(())
    }
}
