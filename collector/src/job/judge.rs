//! Blocks to live state: reads what was committed since the watermark, folds it, writes what follows.
//!
//! At start the live state is rebuilt from every block up to the watermark that reaches into the horizon
//! (the previous month and this one), so nothing but blocks has to be trusted; what came after the
//! watermark is then judged as if it had just come, however old it is. The same is done when the clock was
//! set back so far that memory no longer reaches back to the horizon.
//!
//! Folding moves memory, writing moves the store. Every collector folds every block; what follows from a lane is written
//! by the one that holds it. What a page changed stays *pending*, lane by lane, until this collector has written it or
//! another has (its watermark says so); when a write fails nothing more is read or folded, so no page is folded twice
//! and what waits cannot grow. A lane that comes from another collector is written on only when memory has passed its
//! watermark.
//!
//! Most late samples are folded in as they come. One that breaks a run of its vantage marks its time, and in the same
//! round the samples around it are read again from the blocks: of the marked vantages and times only, a bounded number
//! of samples in memory at once (`late::SAMPLES_AT_ONCE`), and at most a twentieth of the time, so that records go before.
//! What does not fit waits for the next round, its vantage as it was.

mod late;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use peil_proto::block::day::DayBlock;
use peil_proto::block::{self, Item};
use peil_proto::convert;
use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::plan::CheckDef;
use peil_proto::record::{EnergyReading, Record};
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;
use tracing::{error, info, warn};

use super::history::{self, Whole};
use crate::contract::energy;
use crate::job::lead::Leading;
use crate::live::{Changes, Late, Live, Pass};
use crate::store::blocks::{BlockId, BlockLimit, Lane, StoredBlock, Through};
use crate::store::energy::EnergyHourRow;
use crate::store::judgement::Judgement;
use crate::store::leases::{Duty, Held};
use crate::store::{Store, StoreError};

/// How far back live state reaches: two months and a day, so that this month and the one before are whole.
const HORIZON: Millis = Millis(63 * Millis::DAY.0);
/// When memory falls short of the horizon by more than this, because the clock was set back, it is filled again.
const SHORTFALL_MAX: Millis = Millis::HOUR;
/// The watermarks of other collectors are looked at this often while something waits for them.
const LOOK_EVERY: Millis = Millis::SECOND;
/// What lies before the horizon is forgotten this often.
const FORGET_EVERY: Millis = Millis::MINUTE;
/// Reading for late samples takes at most one part in this of the time: records go before.
const REREAD_SHARE: i64 = 20;
/// A block is late when it speaks of a time this long before it came: an agent sends every ten seconds.
const LATE_BY: Millis = Millis(10 * Millis::MINUTE.0);

/// The job.
pub struct Judge {
    store: Store,
    clock: WallClock,
    checks: BTreeMap<CheckNo, CheckDef>,
    patch_term: Millis,
    live: Live,
    /// Folded through here.
    cursor: Through,
    /// Folded, and not written by anybody as far as is known: by lane, the last block and what it and those before it
    /// changed.
    pending: BTreeMap<Lane, VecDeque<(BlockId, Changes)>>,
    /// What may be written.
    leading: Leading,
    /// Lanes whose watermark was looked at under the epoch they are held.
    settled: BTreeMap<Lane, i64>,
    /// When the watermarks of other collectors are looked at next.
    look_at: UtcTime,
    late: Late,
    /// Late blocks came about a month that is over.
    past_changed: bool,
    /// Memory is complete from here on.
    horizon: UtcTime,
    forget: Turn,
    reread: Turn,
}

/// When something was done last, and is due next.
#[derive(Debug, Clone, Copy)]
struct Turn {
    last: UtcTime,
    next: UtcTime,
}

impl Turn {
    fn begin(now: UtcTime, pause: Millis) -> Self {
        Self { last: now, next: now.plus(pause) }
    }

    /// A clock that was set back is no reason to wait.
    fn is_due(self, now: UtcTime) -> bool {
        now >= self.next || now < self.last
    }
}

impl Judge {
    /// Rebuilds live state from the store and judges what was not judged yet.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn start(
        store: Store,
        clock: WallClock,
        checks: BTreeMap<CheckNo, CheckDef>,
        patch_term: Millis,
        leading: Leading,
    ) -> Result<Self, StoreError> {
        let now = clock.now();
        let mut judge = Self {
            store,
            clock,
            patch_term,
            live: Live::default(),
            checks,
            cursor: Through::default(),
            pending: BTreeMap::new(),
            leading,
            settled: BTreeMap::new(),
            look_at: now,
            late: Late::default(),
            past_changed: false,
            horizon: now,
            forget: Turn::begin(now, FORGET_EVERY),
            reread: Turn::begin(now, Millis::ZERO),
        };
        judge.refill(now).await?;
        match judge.judge_new().await {
            // What could not be written because others write waits in memory for the first round, as in any other.
            Err(cause @ StoreError::Busy { .. }) => {
                warn!(cause = %crate::chain(&cause), "what came meanwhile is judged in the first round");
            }
            judged => judged?,
        }
        while !judge.late.is_empty() {
            judge.read_late_again(now).await?;
        }
        Ok(judge)
    }

    /// What is known now.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Folds under these checks from now on; where they are others than before, all live state is read again.
    ///
    /// # Errors
    /// When the store cannot be read or written; then everything is as it was.
    pub async fn follow(&mut self, checks: &BTreeMap<CheckNo, CheckDef>) -> Result<(), StoreError> {
        if self.checks == *checks {
            return Ok(());
        }
        self.write_pending().await?;
        let before = std::mem::replace(&mut self.checks, checks.clone());
        let now = self.clock.now();
        match self.refill(now).await {
            Ok(()) => {
                self.judge_new().await?;
                self.read_late_again(now).await
            }
            Err(error) => {
                self.checks = before;
                Err(error)
            }
        }
    }

    /// How far blocks are folded.
    pub fn through(&self) -> &Through {
        &self.cursor
    }

    /// Folds everything committed since the last time.
    ///
    /// # Errors
    /// When the store cannot be read or written; the next run goes on where this one stopped.
    pub async fn activate(&mut self) -> Result<(), StoreError> {
        self.judge_new().await?;
        let now = self.clock.now();
        if self.horizon.since(now.plus(Millis(-HORIZON.0))) > SHORTFALL_MAX {
            info!("the clock was set back; live state is read again");
            self.refill(now).await?;
        }
        if self.forget.is_due(now) {
            self.horizon = self.horizon.max(now.plus(Millis(-HORIZON.0)));
            self.live.forget_before(self.horizon);
            self.forget = Turn::begin(now, FORGET_EVERY);
        }
        if !self.late.is_empty() && self.reread.is_due(now) {
            let began = Instant::now();
            self.read_late_again(now).await?;
            let pause = Millis(Millis::from(began.elapsed()).0.saturating_mul(REREAD_SHARE));
            self.reread = Turn::begin(now, pause);
        }
        Ok(())
    }

    /// Whether late blocks about a month that is over were judged since this was asked last.
    pub fn take_past_changed(&mut self) -> bool {
        std::mem::take(&mut self.past_changed)
    }

    /// Live state from nothing but what is stored, up to the watermark.
    async fn refill(&mut self, now: UtcTime) -> Result<(), StoreError> {
        let horizon = now.plus(Millis(-HORIZON.0));
        let store = self.store.clone();
        let mut reading = Whole::begin(&store).await?;
        let (live, judged, late, blocks) = loop {
            let read = self.read_again(horizon).await?;
            if reading.is_whole().await? {
                break read;
            }
        };
        info!(blocks, through = judged.blocks(), "live state rebuilt from blocks");
        (self.live, self.horizon, self.cursor, self.late) = (live, horizon, judged, late);
        self.pending.clear();
        self.settled.clear();
        Ok(())
    }

    /// Live state from everything up to the watermark that reaches `horizon`: days first, then blocks as they came.
    async fn read_again(&self, horizon: UtcTime) -> Result<(Live, Through, Late, usize), StoreError> {
        let mut live = Live::new(self.checks.clone(), horizon);
        let (judged, findings) = self.store.judged().await?;
        for row in findings {
            let (agent, key, finding) = rows::finding(row);
            live.remember(agent, key, finding);
        }
        let (mut blocks, mut changes) = (0_usize, Changes::default());
        history::each_day(&self.store, horizon.day(), |agent, day| {
            blocks += 1;
            live.absorb_day(agent, &day, &mut changes);
        })
        .await?;
        history::each_block(&self.store, horizon, Some(&judged), |block| {
            blocks += 1;
            absorb(&mut live, &block, Pass::Again, &mut changes);
        })
        .await?;
        Ok((live, judged, changes.late, blocks))
    }

    /// Folds page after page, each written before the next is read.
    async fn judge_new(&mut self) -> Result<(), StoreError> {
        loop {
            self.write_pending().await?;
            let page = self.store.blocks_after(self.cursor.clone(), BlockLimit::default()).await?;
            if page.is_empty() {
                return Ok(());
            }
            if self.was_overtaken(&page).await? {
                info!("blocks were compacted before this collector read them; live state is read again");
                self.refill(self.clock.now()).await?;
                continue;
            }
            let mut by_lane: BTreeMap<Lane, (BlockId, Changes)> = BTreeMap::new();
            for block in &page {
                let (last, changes) = by_lane.entry(block.id.lane).or_default();
                absorb(&mut self.live, block, Pass::New, changes);
                self.past_changed |= is_about_the_past(block);
                self.cursor.pass(block.id);
                *last = block.id;
            }
            for (lane, (last, mut changes)) in by_lane {
                self.late.join(std::mem::take(&mut changes.late));
                self.pending.entry(lane).or_default().push_back((last, changes));
            }
        }
    }

    /// Whether blocks after the cursor are gone because another collector judged and compacted them already: numbers of
    /// a lane have no holes otherwise.
    async fn was_overtaken(&self, page: &[StoredBlock]) -> Result<bool, StoreError> {
        let mut at = self.cursor.clone();
        let mut holes = Vec::new();
        for block in page {
            if block.id.no > at.of(block.id.lane).saturating_add(1) {
                holes.push(block.id.lane);
            }
            at.pass(block.id);
        }
        if holes.is_empty() {
            return Ok(false);
        }
        let judged = self.store.judged_through().await?;
        Ok(holes.into_iter().any(|lane| judged.of(lane) > self.cursor.of(lane)))
    }

    /// Writes what follows from the pages of the lanes this collector holds, with their watermarks. Whole rows, so that
    /// a write that may have happened can be repeated.
    async fn write_pending(&mut self) -> Result<(), StoreError> {
        let held = self.leading.borrow().held.clone();
        self.settle(&held).await?;
        let ours = self.ours(&held);
        if ours.is_empty() {
            return Ok(());
        }
        let (mut judgement, forgotten) = self.drawn_from(&ours);
        judgement.energy_hours.extend(self.forgotten_hours(&forgotten).await?);
        match self.store.commit_judgement(judgement, held).await {
            Ok(()) => self.pending.retain(|lane, _| !ours.contains(lane)),
            // Whoever has it now writes this, too; what is pending goes when its watermark says so.
            Err(StoreError::LeaseLost { name }) => {
                info!(lease = name, "a lane went to another collector");
                self.settled.clear();
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Lanes of which something is pending that this collector may write.
    fn ours(&self, held: &Held) -> Vec<Lane> {
        let settled = |lane: &Lane| held.epoch(Duty::Lane(*lane)).is_some_and(|at| self.settled.get(lane) == Some(&at));
        self.pending.keys().copied().filter(settled).collect()
    }

    /// What follows from the pages of these lanes, and the hours that memory does not have.
    fn drawn_from(&self, lanes: &[Lane]) -> (Judgement, BTreeSet<(AgentId, UtcTime)>) {
        let pages = || lanes.iter().filter_map(|lane| self.pending.get(lane)).flatten();
        let hours: BTreeSet<_> = pages().flat_map(|(_, changes)| changes.hours.iter().copied()).collect();
        let forgotten = pages().flat_map(|(_, changes)| changes.forgotten_hours.iter().copied()).collect();
        let findings = pages().flat_map(|(_, changes)| changes.findings.iter().cloned());
        let judgement = Judgement {
            through: pages().map(|(last, _)| *last).collect(),
            findings: findings.map(|(agent, change)| rows::finding_row(agent, change, self.patch_term)).collect(),
            energy_hours: rows::energy_hours(&self.live, &hours),
            ..Judgement::default()
        };
        (judgement, forgotten)
    }

    /// Looks at the watermarks where others may have moved them: forgets what they have written, and takes up lanes
    /// that came to this collector once memory has passed what was written before.
    async fn settle(&mut self, held: &Held) -> Result<(), StoreError> {
        let now = self.clock.now();
        let epoch = |lane: Lane| held.epoch(Duty::Lane(lane));
        let came =
            self.pending.keys().any(|lane| epoch(*lane).is_some_and(|epoch| self.settled.get(lane) != Some(&epoch)));
        let others = self.pending.keys().any(|lane| epoch(*lane).is_none());
        let is_time = now >= self.look_at || self.look_at.since(now) > LOOK_EVERY;
        let must_look = came || (others && is_time);
        if !must_look {
            return Ok(());
        }
        self.look_at = now.plus(LOOK_EVERY);
        let judged = self.store.judged_through().await?;
        self.pending.retain(|_, pages| {
            while pages.front().is_some_and(|(last, _)| judged.covers(*last)) {
                pages.pop_front();
            }
            !pages.is_empty()
        });
        self.settled = self
            .pending
            .keys()
            .filter(|lane| self.cursor.of(**lane) >= judged.of(**lane))
            .filter_map(|lane| Some((*lane, epoch(*lane)?)))
            .chain(
                self.settled.iter().map(|(lane, epoch)| (*lane, *epoch)).filter(|(lane, at)| epoch(*lane) == Some(*at)),
            )
            .collect();
        Ok(())
    }

    /// Hours that are no longer in memory, computed from all blocks that speak about them.
    async fn forgotten_hours(&self, wanted: &BTreeSet<(AgentId, UtcTime)>) -> Result<Vec<EnergyHourRow>, StoreError> {
        let Some(since) = wanted.iter().map(|(_, hour)| *hour).min() else { return Ok(Vec::new()) };
        let agents: BTreeSet<AgentId> = wanted.iter().map(|(agent, _)| *agent).collect();
        let mut reading = Whole::begin(&self.store).await?;
        let hours = loop {
            let mut hours: BTreeMap<AgentId, BTreeMap<_, _>> = BTreeMap::new();
            self.each_item(since, |agent, item| {
                if !agents.contains(&agent) {
                    return;
                }
                if let Some(reading) = energy_reading(item) {
                    energy::add(hours.entry(agent).or_default(), &reading);
                }
            })
            .await?;
            if reading.is_whole().await? {
                break hours;
            }
        };
        let of_agents = hours.into_iter().flat_map(|(agent, hours)| hours.into_iter().map(move |hour| (agent, hour)));
        let asked = of_agents.filter(|(agent, ((hour, _), _))| wanted.contains(&(*agent, *hour)));
        Ok(asked.map(|(agent, ((hour, source), energy))| rows::energy_hour(agent, hour, &source, &energy)).collect())
    }

    /// Every record folded so far of the blocks that reach `since`. Blocks that cannot be read are passed over:
    /// it was told when they were folded.
    async fn each_item(&self, since: UtcTime, mut visit: impl FnMut(AgentId, &Item)) -> Result<(), StoreError> {
        history::each_day(&self.store, since.day(), |agent, day| match day {
            DayBlock::Check(day) => day.samples.into_iter().for_each(|sample| visit(agent, &Item::Sample(sample))),
            DayBlock::Rest(ledger) => ledger.in_order().for_each(|bytes| visit(agent, &Item::Other(bytes.clone()))),
        })
        .await?;
        history::each_block(&self.store, since, Some(&self.cursor), |stored| {
            let Ok(block) = block::decode(&stored.bytes) else { return };
            block.items.iter().skip(skipped(&stored)).for_each(|item| visit(stored.agent, item));
        })
        .await
    }
}

/// Whether it is late and speaks of a time that is before this month in some zone of the world.
fn is_about_the_past(block: &StoredBlock) -> bool {
    const LAST_ZONE_BEGINS: Millis = Millis(12 * Millis::HOUR.0);
    let this_month = block.received_at.day().month_start().start().plus(LAST_ZONE_BEGINS);
    block.received_at.since(block.from) > LATE_BY && block.from < this_month
}

fn absorb(live: &mut Live, block: &StoredBlock, pass: Pass, changes: &mut Changes) {
    if let Err(cause) = live.absorb(block.agent, &block.bytes, skipped(block), pass, changes) {
        error!(block = %block.id, agent = %block.agent, first = %block.first, %cause, "a stored block cannot be read; its time is unknown");
    }
}

fn skipped(block: &StoredBlock) -> usize {
    usize::try_from(block.skip).unwrap_or(usize::MAX)
}

fn energy_reading(item: &Item) -> Option<EnergyReading> {
    match (item, convert::from_item(item)) {
        (Item::Other(_), Ok(Some(Record::Energy(reading)))) => Some(reading),
        _ => None,
    }
}
