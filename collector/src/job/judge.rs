//! Blocks to live state: reads what was committed since the watermark, folds it, writes what follows.
//!
//! At start the live state is rebuilt from every block that reaches into the horizon (the previous month
//! and this one), so nothing but blocks has to be trusted. Blocks that were judged before only refill
//! memory; newer ones also move the patch clocks. A late sample marks its agent, whose tracks are rebuilt from its
//! blocks at most once a minute.

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::plan::CheckDef;
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;
use tracing::{error, info};

use crate::contract::patch::{Change, OpenFinding, PackageKey};
use crate::live::{Changes, Live, Pass};
use crate::store::blocks::{BlockId, BlockLimit, StoredBlock};
use crate::store::energy::EnergyHourRow;
use crate::store::judgement::Judgement;
use crate::store::patches::FindingRow;
use crate::store::{Store, StoreError};

/// How far back live state reaches: two months and a day, so that this month and the one before are whole.
const HORIZON: Millis = Millis(63 * Millis::DAY.0);
/// A rebuild for late samples happens at most this often.
const REBUILD_EVERY: Millis = Millis::MINUTE;

/// The job.
pub struct Judge {
    store: Store,
    clock: WallClock,
    patch_term: Millis,
    live: Live,
    cursor: BlockId,
    late: BTreeSet<AgentId>,
    rebuilt_at: UtcTime,
}

impl Judge {
    /// Rebuilds live state from the store.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn start(
        store: Store,
        clock: WallClock,
        checks: BTreeMap<CheckNo, CheckDef>,
        patch_term: Millis,
    ) -> Result<Self, StoreError> {
        let now = clock.now();
        let mut live = Live::new(checks);
        for row in store.open_findings().await? {
            let (agent, key, finding) = from_row(row);
            live.remember(agent, key, finding);
        }
        let judged = store.judged_through().await?;
        let mut judge =
            Self { store, clock, patch_term, live, cursor: BlockId(0), late: BTreeSet::new(), rebuilt_at: now };
        let mut blocks = 0_usize;
        loop {
            let page =
                judge.store.blocks_reaching(now.plus(Millis(-HORIZON.0)), judge.cursor, BlockLimit::default()).await?;
            if page.is_empty() {
                break;
            }
            blocks += page.len();
            let (again, new): (Vec<_>, Vec<_>) = page.into_iter().partition(|block| block.id <= judged);
            judge.fold(&again, Pass::Again);
            if let Some(last) = again.last() {
                judge.cursor = last.id;
            }
            judge.judge(&new).await?;
        }
        judge.cursor = judge.cursor.max(judged);
        judge.rebuild_late().await?;
        info!(blocks, through = judge.cursor.0, "live state rebuilt from blocks");
        Ok(judge)
    }

    /// What is known now.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Folds everything committed since the last time.
    ///
    /// # Errors
    /// When the store cannot be read or written; the next run starts at the same block.
    pub async fn activate(&mut self) -> Result<(), StoreError> {
        loop {
            let page = self.store.blocks_after(self.cursor, BlockLimit::default()).await?;
            if page.is_empty() {
                break;
            }
            self.judge(&page).await?;
        }
        let now = self.clock.now();
        if now.since(self.rebuilt_at) >= REBUILD_EVERY {
            self.rebuilt_at = now;
            self.live.forget_before(now.plus(Millis(-HORIZON.0)));
            self.rebuild_late().await?;
        }
        Ok(())
    }

    /// Folds new blocks and writes what follows, with the watermark. When writing fails, live state is ahead of the store;
    /// what was not written is part of the next judgement because rows are always written whole.
    async fn judge(&mut self, blocks: &[StoredBlock]) -> Result<(), StoreError> {
        let Some(last) = blocks.last() else { return Ok(()) };
        let changes = self.fold(blocks, Pass::New);
        let judgement = Judgement {
            through: last.id,
            findings: changes
                .findings
                .into_iter()
                .map(|(agent, change)| to_row(agent, change, self.patch_term))
                .collect(),
            energy_hours: self.hours(&changes.hours),
            ..Judgement::default()
        };
        self.store.commit_judgement(judgement).await?;
        self.cursor = last.id;
        Ok(())
    }

    fn fold(&mut self, blocks: &[StoredBlock], pass: Pass) -> Changes {
        let mut changes = Changes::default();
        for block in blocks {
            let skip = usize::try_from(block.skip).unwrap_or(usize::MAX);
            if let Err(cause) = self.live.absorb(block.agent, &block.bytes, skip, pass, &mut changes) {
                error!(block = block.id.0, agent = %block.agent, first = %block.first, %cause, "a stored block cannot be read; its time is unknown");
            }
        }
        self.late.extend(&changes.late);
        changes
    }

    fn hours(&self, touched: &BTreeSet<(AgentId, UtcTime)>) -> Vec<EnergyHourRow> {
        let rows = touched.iter().flat_map(|(agent, hour)| {
            let hours = self.live.host(*agent).map(|host| &host.hours);
            let of_hour = hours
                .into_iter()
                .flat_map(|hours| hours.range((*hour, String::new())..(hour.plus(Millis(1)), String::new())));
            of_hour.map(|((hour, source), energy)| EnergyHourRow {
                agent: *agent,
                source: source.clone(),
                hour: *hour,
                energy: energy.energy,
                low: energy.low,
                high: energy.high,
                covered: energy.covered,
                active: energy.active,
                method: energy.method,
                boundary: energy.boundary,
                covers: energy.covers.clone(),
            })
        });
        rows.collect()
    }

    /// Rebuilds agents with late samples from all their blocks within the horizon, samples in order of time.
    async fn rebuild_late(&mut self) -> Result<(), StoreError> {
        if self.late.is_empty() {
            return Ok(());
        }
        let since = self.clock.now().plus(Millis(-HORIZON.0));
        let (mut at, mut items) = (BlockId(0), BTreeMap::<AgentId, Vec<StoredBlock>>::new());
        loop {
            let page = self.store.blocks_reaching(since, at, BlockLimit::default()).await?;
            let Some(last) = page.last() else { break };
            at = last.id;
            for block in page.into_iter().filter(|block| block.id <= self.cursor && self.late.contains(&block.agent)) {
                items.entry(block.agent).or_default().push(block);
            }
        }
        for (agent, blocks) in items {
            let samples: usize =
                self.live.rebuild_tracks(agent, blocks.iter().map(|block| (&block.bytes[..], block.skip)));
            info!(%agent, samples, "late samples folded in");
        }
        self.late.clear();
        Ok(())
    }
}

fn to_row(agent: AgentId, change: Change, term: Millis) -> FindingRow {
    let (key, finding, closed_at) = match change {
        Change::Open(key, finding) => (key, finding, None),
        Change::Closed(key, finding, at) => (key, finding, Some(at)),
    };
    FindingRow {
        agent,
        due_at: finding.due_at(term),
        source: finding.source,
        package: key.package,
        arch: key.arch,
        installed: finding.installed,
        security_version: finding.security_version,
        candidate: finding.candidate,
        state: finding.state,
        first_seen: finding.first_seen,
        version_seen: finding.version_seen,
        last_seen: finding.last_seen,
        closed_at,
    }
}

fn from_row(row: FindingRow) -> (AgentId, PackageKey, OpenFinding) {
    let key = PackageKey { package: row.package, arch: row.arch };
    let finding = OpenFinding {
        source: row.source,
        installed: row.installed,
        security_version: row.security_version,
        candidate: row.candidate,
        state: row.state,
        first_seen: row.first_seen,
        version_seen: row.version_seen,
        last_seen: row.last_seen,
    };
    (row.agent, key, finding)
}
