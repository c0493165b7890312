//! Times by the hour: blocks mark hours, marked hours are derived from all blocks that speak about them.
//!
//! An hour is derived when it is over, and again whenever something late marks it; it is overwritten whole, so running
//! twice is harmless and there is nothing to add up or to double. Marks move with the watermark in one transaction,
//! hours with the end of their marks in another: a crash in between derives an hour once more.
//!
//! Days, states and months follow when the day is compacted (`compact.rs`).
//!
//! Limits: [`HOURS_AT_ONCE`] hours of agents in memory; the next round takes the next.

pub(super) mod rows;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::time::{UtcDay, UtcTime, WallClock};
use peil_proto::units::Millis;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::history::{self, Whole};
use super::lead::Leading;
use super::progress::{Tell, Times};
use crate::derive::histogram::Histogram;
use crate::derive::{Depth, Fold, Holds, results_of};
use crate::store::blocks::{BlockId, BlockLimit, Through};
use crate::store::dirty::DirtyHour;
use crate::store::leases::{Duty, Held};
use crate::store::{Store, StoreError};

const EVERY: Duration = Duration::from_secs(10);
/// Times of the month change by the hour; summing them up reads a row per vantage and a few per day.
const TELL_EVERY: Duration = Duration::from_secs(600);
/// Times of days that are not compacted are summed up by the hour, this far back. Compaction that lags further lacks in
/// the sum, and its lag is told.
const HOURS_SUMMED: Millis = Millis(31 * Millis::DAY.0);
/// After the end of an hour its last results are still on their way.
const SETTLE: Millis = Millis(2 * Millis::MINUTE.0);
/// Hours of agents derived in one round: with twenty checks each, some 10 MiB.
const HOURS_AT_ONCE: u32 = 1_024;

/// The job.
pub struct Derive {
    /// Blocks in, hours out.
    pub store: Store,
    /// Wall clock.
    pub clock: WallClock,
    /// What may be written.
    pub leading: Leading,
    /// Where times of the month go, and how many hours wait.
    pub progress: Tell,
}

impl Derive {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut beat = interval(EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut failing, mut tell_at) = (false, Instant::now());
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                () = stop.cancelled() => return,
            }
            let round = async {
                self.activate().await?;
                if Instant::now() >= tell_at {
                    self.tell().await?;
                    tell_at = Instant::now() + TELL_EVERY;
                }
                Ok(())
            };
            let done: Result<(), StoreError> = tokio::select! {
                done = round => done,
                () = stop.cancelled() => return,
            };
            match &done {
                Ok(()) if failing => info!("times by the hour are derived again"),
                Err(cause) if !failing => {
                    error!(cause = %crate::chain(cause), "times by the hour stand still; trying again every ten seconds");
                }
                _ => {}
            }
            failing = done.is_err();
        }
    }

    /// One round: everything new marked, everything due derived, in the lanes this collector holds.
    ///
    /// # Errors
    /// When the store cannot be read or written; the next round goes on where this one stopped.
    pub async fn activate(&self) -> Result<(), StoreError> {
        let held = self.leading.borrow().held.clone();
        match self.round(&held).await {
            // Another collector goes on from what is written.
            Err(StoreError::LeaseLost { name }) => {
                info!(lease = name, "a lane went to another collector");
                Ok(())
            }
            done => done,
        }
    }

    /// Tells the times of the month to date, from what is stored.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn tell(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut sums: BTreeMap<CheckNo, Histogram> = BTreeMap::new();
        let hours_from = now.plus(Millis(-HOURS_SUMMED.0));
        for (check, bytes) in self.store.month_totals(now.day().month_start(), hours_from).await? {
            let total = rows::histogram(&bytes).map_err(|_| StoreError::Damaged { what: "a histogram of times" })?;
            sums.entry(check).or_default().add(&total);
        }
        let times = sums.into_iter().filter_map(|(check, sum)| Some((check, Times::of(&sum)?))).collect();
        let dirty_hours = self.store.dirty_count().await?;
        self.progress.send_modify(|progress| {
            progress.times = Arc::new(times);
            progress.dirty_hours = dirty_hours;
        });
        Ok(())
    }

    async fn round(&self, held: &Held) -> Result<(), StoreError> {
        self.mark(held).await?;
        // An hour that began before this moment has been over for a while.
        let before = self.clock.now().plus(Millis(1 - Millis::HOUR.0 - SETTLE.0));
        let lanes = self.store.dirty_lanes(before).await?;
        for lane in lanes.into_iter().filter(|lane| held.epoch(Duty::Lane(*lane)).is_some()) {
            loop {
                let due = self.store.dirty_hours(lane, before, HOURS_AT_ONCE).await?;
                if due.is_empty() {
                    break;
                }
                self.derive(due, held).await?;
            }
        }
        Ok(())
    }

    /// Marks the hours of every block that came since the last round.
    async fn mark(&self, held: &Held) -> Result<(), StoreError> {
        let mut through = self.store.marked_through().await?;
        let mut ours = Through::default();
        for lane in self.store.lanes() {
            if held.epoch(Duty::Lane(lane)).is_some() {
                ours.pass(BlockId { lane, no: through.of(lane) });
            } else {
                // Not ours to read.
                through.pass(BlockId { lane, no: i64::MAX });
            }
        }
        loop {
            let page = self.store.blocks_after(through.clone(), BlockLimit::default()).await?;
            if page.is_empty() {
                return Ok(());
            }
            let mut hours = BTreeSet::new();
            for block in page {
                through.pass(block.id);
                ours.pass(block.id);
                let agent = block.agent;
                // One that cannot be read was told by whoever judged it.
                let samples = history::came(block).samples().unwrap_or_default();
                hours.extend(samples.iter().map(|sample| (agent, sample.scheduled_at.hour_start())));
            }
            self.store.mark_dirty(hours, ours.clone(), held.clone()).await?;
        }
    }

    /// Derives these hours from all there is about them.
    async fn derive(&self, due: Vec<DirtyHour>, held: &Held) -> Result<(), StoreError> {
        let wanted: BTreeSet<DirtyHour> = due.iter().copied().collect();
        let mut reading = Whole::begin(&self.store).await?;
        let fold = loop {
            let mut fold = Fold::new(Depth::Hours);
            self.compacted(&wanted, &mut fold).await?;
            self.not_compacted(&wanted, &mut fold).await?;
            if reading.is_whole().await? {
                break fold;
            }
        };
        drop(reading);
        let derived = fold.finish(&Holds::new());
        let rows = derived.seen.iter().flat_map(|((agent, check), seen)| {
            seen.hours.iter().map(|(start, hour)| rows::hour(*agent, *check, *start, hour))
        });
        let rows = rows.collect();
        self.store.write_hours(due, rows, held.clone()).await
    }

    async fn compacted(&self, wanted: &BTreeSet<DirtyHour>, fold: &mut Fold) -> Result<(), StoreError> {
        let mut days: BTreeMap<AgentId, BTreeSet<UtcDay>> = BTreeMap::new();
        for (agent, hour) in wanted {
            days.entry(*agent).or_default().insert(hour.day());
        }
        for (agent, days) in days {
            for block in self.store.day_blocks(agent, days).await?.iter().filter_map(history::opened) {
                let results = results_of(&block);
                let asked = results.iter().filter(|s| wanted.contains(&(agent, s.scheduled_at.hour_start())));
                asked.for_each(|sample| fold.sample(agent, sample));
            }
        }
        Ok(())
    }

    async fn not_compacted(&self, wanted: &BTreeSet<DirtyHour>, fold: &mut Fold) -> Result<(), StoreError> {
        let since = wanted.iter().map(|(_, hour)| *hour).min().unwrap_or(UtcTime(i64::MAX));
        let agents: BTreeSet<AgentId> = wanted.iter().map(|(agent, _)| *agent).collect();
        history::each_block(&self.store, since, None, |block| {
            let agent = block.agent;
            if !agents.contains(&agent) {
                return;
            }
            let samples = history::came(block).samples().unwrap_or_default();
            let asked = samples.iter().filter(|s| wanted.contains(&(agent, s.scheduled_at.hour_start())));
            asked.for_each(|sample| fold.sample(agent, sample));
        })
        .await
    }
}
