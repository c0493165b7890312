//! Days that are over: many blocks become one per check and one for the rest, and what follows from them is written.
//!
//! A step takes the blocks of one agent, merges them with what was compacted of the same days before, and puts the
//! result in their place: one transaction, in which it is checked again that blocks and days are as they were when they
//! were read (`store/days.rs`). So it does not matter how often a step is begun, in which portions blocks are taken, or
//! when the process dies. Blocks that come late are compacted by the next round.
//!
//! A block that reaches into a day that is not over goes too: its later records begin that day's blocks. Times and
//! states of a day are derived when the day is over, from its day blocks alone.
//!
//! Limits: [`STEP_BLOCKS`] blocks to a step, so that the writer is held for milliseconds; [`LISTED`] blocks of a lane
//! to a round, 32 bytes each in memory. A block that cannot be read stays as it is; a day that does not fit in day
//! blocks keeps its blocks as they came. Both are told once.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use peil_proto::block::day::DayError;
use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::time::{UtcDay, WallClock};
use peil_proto::units::Millis;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::beat::Beat;
use super::derive::rows;
use super::history;
use super::lead::Leading;
use super::progress::Tell;
use crate::agreement::InForce;
use crate::derive::compact::{Compacted, Compaction, Subject};
use crate::derive::period::Period;
use crate::derive::{Came, Fold, Holds};
use crate::store::blocks::{BlockId, Lane, StoredBlock};
use crate::store::days::{DayRow, Step};
use crate::store::latency::{DerivedDays, PeriodRow};
use crate::store::leases::{Duty, Held};
use crate::store::{Store, StoreError};

const EVERY: Duration = Duration::from_secs(300);
/// After the end of a day its last results are still on their way, and late ones would compact it again.
const SETTLE: Millis = Millis(2 * Millis::HOUR.0);
/// Blocks of one step: 240 000 results in batches of 120, a quarter of a second of work outside of the writer.
pub const STEP_BLOCKS: usize = 2_000;
/// Blocks of a lane looked at in one round; the next round takes the next.
const LISTED: u32 = 500_000;

/// The job.
pub struct Compact {
    /// Blocks in, days out.
    pub store: Store,
    /// Wall clock.
    pub clock: WallClock,
    /// What may be written.
    pub leading: Leading,
    /// How long a sample of each check holds.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// Times of days from before this are not kept, so months they lie in stay as they are.
    pub daily_kept: Millis,
    /// Where the lag goes.
    pub progress: Tell,
    /// Blocks of one step: [`STEP_BLOCKS`], but for tests.
    pub step_blocks: usize,
    /// Blocks that cannot be compacted: told once, then left alone until the next start.
    pub stuck: BTreeSet<BlockId>,
}

impl Compact {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut beat = Beat::every(EVERY, stop);
        while beat.next().await {
            let Some(done) = beat.during(self.activate()).await else { return };
            match beat.tell(done, "compaction failed; trying again every five minutes") {
                None | Some(0) => {}
                Some(blocks) => info!(blocks, "blocks of days that are over were compacted"),
            }
        }
    }

    /// One round over the lanes this collector holds; says how many blocks went.
    ///
    /// # Errors
    /// When the store cannot be read or written. Steps taken before stay taken.
    pub async fn activate(&mut self) -> Result<usize, StoreError> {
        let (over, held) = (self.over(), self.leading.borrow().held.clone());
        let mut gone = 0;
        let ours = |lane: &Lane| held.epoch(Duty::Lane(*lane)).is_some();
        for lane in self.store.lanes().filter(ours) {
            match self.lane(lane, over, &held).await {
                Ok(blocks) => gone += blocks,
                // Another collector goes on from what is written.
                Err(StoreError::LeaseLost { name }) => info!(lease = name, "a lane went to another collector"),
                Err(other) => return Err(other),
            }
        }
        let lag = lag(&self.store, over).await?;
        self.progress.send_modify(|progress| progress.compaction_lag = lag);
        Ok(gone)
    }

    /// The first day that is not over.
    fn over(&self) -> UtcDay {
        self.clock.now().plus(Millis(-SETTLE.0)).day()
    }

    async fn lane(&mut self, lane: Lane, over: UtcDay, held: &Held) -> Result<usize, StoreError> {
        let mut of_agents: BTreeMap<AgentId, Vec<BlockId>> = BTreeMap::new();
        for (agent, id) in self.store.closed_blocks(lane, over.start(), LISTED).await? {
            if !self.stuck.contains(&id) {
                of_agents.entry(agent).or_default().push(id);
            }
        }
        let mut gone = 0;
        for (agent, ids) in of_agents {
            for portion in ids.chunks(self.step_blocks.max(1)) {
                gone += self.step(agent, portion.to_vec(), over, held).await?;
            }
        }
        Ok(gone)
    }

    async fn step(
        &mut self,
        agent: AgentId,
        ids: Vec<BlockId>,
        over: UtcDay,
        held: &Held,
    ) -> Result<usize, StoreError> {
        let blocks = self.store.blocks(ids.clone()).await?;
        let (days, unreadable) = about(&blocks);
        self.leave(agent, &unreadable, "a stored block cannot be read; it is not compacted");
        let blocks: Vec<StoredBlock> = blocks.into_iter().filter(|block| !unreadable.contains(&block.id)).collect();
        let sources: Vec<BlockId> = blocks.iter().map(|block| block.id).collect();
        if sources.is_empty() {
            return Ok(0);
        }
        let before = self.store.day_blocks(agent, days.clone()).await?;
        let holds = self.in_force.borrow().holds();
        // Decoding, merging and deriving are a quarter of a second of work: not on a thread that others wait for.
        let merging = move || merged(agent, blocks, &before, &days, over, &holds);
        let Ok(merged) = tokio::task::spawn_blocking(merging).await else { return Ok(0) };
        let (mut step, fresh) = match merged {
            Ok(done) => done,
            Err(cause) => {
                error!(%agent, %cause, "a day cannot be compacted; its blocks stay as they came");
                self.stuck.extend(sources);
                return Ok(0);
            }
        };
        step.derived.months = self.months(agent, &step.derived, &fresh).await?;
        let count = sources.len();
        step.sources = sources;
        Ok(if self.store.compact(step, held.clone()).await? { count } else { 0 })
    }

    fn leave(&mut self, agent: AgentId, blocks: &BTreeSet<BlockId>, why: &'static str) {
        for id in blocks {
            error!(block = %id, %agent, "{why}");
            self.stuck.insert(*id);
        }
    }

    /// The months of these days, whole: the days stored already with the fresh ones in their place.
    async fn months(
        &self,
        agent: AgentId,
        derived: &DerivedDays,
        fresh: &BTreeMap<(CheckNo, UtcDay), Period>,
    ) -> Result<Vec<PeriodRow>, StoreError> {
        let kept_from = self.clock.now().plus(Millis(-self.daily_kept.0)).day();
        let starts: BTreeSet<UtcDay> = derived.days.iter().map(|day| day.month_start()).collect();
        let mut rows = Vec::new();
        for start in starts.into_iter().filter(|start| *start >= kept_from) {
            let next = UtcDay(start.0 + 31).month_start();
            let mut sums: BTreeMap<CheckNo, Period> = BTreeMap::new();
            for row in self.store.latency_days(Some(agent), start, next).await? {
                if !derived.days.contains(&row.from) {
                    let day = rows::opened(&row).map_err(|_| StoreError::Damaged { what: "the times of a day" })?;
                    sums.entry(row.check).or_default().add(&day);
                }
            }
            for ((check, day), period) in fresh {
                if day.month_start() == start {
                    sums.entry(*check).or_default().add(period);
                }
            }
            rows.extend(sums.iter().map(|(check, sum)| rows::period(agent, *check, start, sum)));
        }
        Ok(rows)
    }
}

/// The days that blocks speak about, and the blocks that cannot be read.
fn about(blocks: &[StoredBlock]) -> (BTreeSet<UtcDay>, BTreeSet<BlockId>) {
    let (mut days, mut unreadable) = (BTreeSet::new(), BTreeSet::new());
    for block in blocks {
        let mut alone = Compaction::default();
        match alone.take(&history::came(block.clone())) {
            Ok(()) => days.extend(alone.subjects().map(|(day, _)| day)),
            Err(_) => {
                unreadable.insert(block.id);
            }
        }
    }
    (days, unreadable)
}

type Merged = (Step, BTreeMap<(CheckNo, UtcDay), Period>);

/// Blocks and what was compacted before, as one; and what follows for the days that are over.
fn merged(
    agent: AgentId,
    blocks: Vec<StoredBlock>,
    before: &[DayRow],
    days: &BTreeSet<UtcDay>,
    over: UtcDay,
    holds: &Holds,
) -> Result<Merged, DayError> {
    let mut compaction = Compaction::default();
    let came: Vec<Came> = blocks.into_iter().map(history::came).collect();
    for block in &came {
        // Those that cannot be read were taken out.
        let _ = compaction.take(block);
    }
    for row in before {
        compaction.take_day(peil_proto::block::day::decode(&row.bytes)?);
    }
    let mut fold = Fold::default();
    compaction.fold(agent, over, &mut fold);
    let derived = fold.finish(holds);
    let closed: Vec<UtcDay> = days.iter().copied().filter(|day| *day < over).collect();
    let fresh = derived
        .seen
        .iter()
        .flat_map(|((_, check), seen)| seen.days.iter().map(|(day, value)| ((*check, *day), value.period.clone())));
    let fresh = fresh.collect();
    let version =
        |day: &UtcDay| before.iter().find(|row| row.day == *day && row.check.is_none()).map_or(0, |r| r.version);
    let step = Step {
        agent,
        sources: Vec::new(),
        days: days.iter().map(|day| (*day, version(day))).collect(),
        blocks: compaction.finish()?.into_iter().map(|block| day_row(agent, block)).collect(),
        derived: rows::days(agent, &derived, closed, holds),
    };
    Ok((step, fresh))
}

/// A compacted block as a row; its version is given by the step that stores it.
pub fn day_row(agent: AgentId, block: Compacted) -> DayRow {
    DayRow {
        agent,
        day: block.day,
        check: match block.subject {
            Subject::Rest => None,
            Subject::Check(check) => Some(check),
        },
        version: 0,
        records: u32::try_from(block.records).unwrap_or(u32::MAX),
        bytes: block.bytes.into(),
    }
}

/// How far back the oldest block reaches before the first day that is not over; 0 when nothing waits.
async fn lag(store: &Store, over: UtcDay) -> Result<Millis, StoreError> {
    let waiting = store.oldest_block().await?.filter(|oldest| *oldest < over.start());
    Ok(waiting.map_or(Millis::ZERO, |oldest| over.start().since(oldest)))
}
