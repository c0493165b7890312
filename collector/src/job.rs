//! DRIVE: reconcilers. Each looks at what is there, decides, writes, and may run twice without harm.
//!
//! | job | looks at | writes | runs |
//! |---|---|---|---|
//! | [`judge`] | blocks after its watermark | findings, energy hours, watermark | after a commit, four times a second at most |
//! | [`measure`] | live state, agents, clock | the snapshot | after `judge`, every second, in a quarter of the time at most |
//! | [`raise`] | snapshot, open alerts | alerts and their outbox rows | after `measure` |
//! | [`deliver`] | the outbox | receipts, next attempts | after `raise`, every second |
//! | [`derive`](mod@derive) | blocks after its watermark, marked hours | marks; times by the hour | every ten seconds |
//! | [`compact`] | blocks of days that are over | day blocks in their place; times and states of days and months | every five minutes |
//! | [`retain`] | ages | nothing: what is old enough goes | every ten minutes |
//! | [`agree`] | applied versions | the agreement in force | every five seconds |
//! | [`month`] | new blocks, agreement, exclusions | drafts of months that are over; editions on the agreed day | every minute, and when late blocks about them were judged |
//! | [`recheck`] | live state and blocks, at night | whether both give the same figures | once a day |
//! | [`lead`] | leases, connections | which duties are this collector's, who is connected here | every five seconds, every second |
//! | [`verify`] | stored values, their blocks | nothing: what differs is told, and raised | once a day |
//! | [`keep`] | agents, sessions, certificates | revocations in force, expired sessions gone, clock errors | every five seconds |
//! | [`look`] | the store as a whole | nothing; a survey for `/metrics` | every half minute |
//!
//! The first three run in this order in one task, because each reads what the one before wrote; delivery has
//! a task of its own, so that a slow receiver never delays a figure. A run that fails is logged once and tried
//! again at the next beat: nothing is lost by it, only late.

pub mod agree;
mod beat;
pub mod compact;
pub mod deliver;
pub mod derive;
pub(crate) mod history;
pub mod judge;
pub mod keep;
pub mod lead;
pub mod look;
pub mod measure;
pub mod month;
pub mod recheck;
pub mod progress;
pub mod raise;
pub mod retain;
#[cfg(test)]
pub(crate) mod trial;
pub mod verify;

use std::sync::Arc;
use std::time::Duration;

use peil_proto::time::{UtcTime, WallClock};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::agreement::InForce;
use crate::contract::calendar::Day;
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
    /// Compares at night.
    pub recheck: mpsc::Sender<recheck::Frozen>,
    /// The day on which that was done last.
    pub rechecked_on: Option<Day>,
    /// Decides when.
    pub clock: WallClock,
    /// What was agreed: decides how samples are folded.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// Wakes the pipeline.
    pub committed: Arc<Notify>,
    /// Wakes delivery.
    pub raised: Arc<Notify>,
    /// Wakes whoever makes the months that are over.
    pub past_changed: Arc<Notify>,
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
        let in_force = Arc::clone(&self.in_force.borrow());
        self.judge.follow(&in_force.checks_to_fold()).await?;
        self.judge.activate().await?;
        if self.judge.take_past_changed() {
            self.past_changed.notify_one();
        }
        let started = Instant::now();
        if started < *figures_due {
            return Ok(());
        }
        self.offer_recheck(&in_force).await?;
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

    /// Hands a copy of live state to whoever compares it with the blocks, once a day. A comparison that is still under
    /// way is not waited for.
    async fn offer_recheck(&mut self, in_force: &Arc<InForce>) -> Result<(), StoreError> {
        let now = self.clock.now();
        if !recheck::is_time(&mut self.rechecked_on, now) {
            return Ok(());
        }
        let Ok(place) = self.recheck.try_reserve() else { return Ok(()) };
        let live = self.judge.live().clone();
        let exclusions = crate::decisions::exclusions(&self.measure.store, UtcTime(i64::MIN)).await?;
        let (through, in_force) = (self.judge.through().clone(), Arc::clone(in_force));
        place.send(recheck::Frozen { now, live, through, in_force, exclusions });
        Ok(())
    }
}
