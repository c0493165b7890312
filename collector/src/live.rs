//! What the blocks say, folded: the state of every vantage and host in memory.
//!
//! A pure function of the blocks absorbed so far (and, for the patch clock, of the findings stored before
//! them), so a restart, or another collector, rebuilds it by reading blocks again. Nothing here does I/O or reads a clock.
//! Of what a host or check tells about itself the newest by its own time stays, whatever came last.
//!
//! A sample that is older than the newest of its vantage and breaks a run of it is *late*: its time is marked, and the
//! `judge` job reads the samples around it again from the blocks. Energy of hours that are no longer in memory is
//! not started anew from nothing either: such an hour is marked and computed from the blocks.
//!
//! Limits: memory follows the number of changes and hours within the horizon, not the number of samples.
//! Deliberately absent: gaps; they stand in the blocks, and time without samples is unknown by itself.

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::block::day::DayBlock;
use peil_proto::block::{self, BlockError, Item};
use peil_proto::convert;
use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::plan::CheckDef;
use peil_proto::record::{EnergyReading, HostFacts, PatchReport, ProbeDetail, Record, Vitals};
use peil_proto::sample::{Phases, Sample, State};
use peil_proto::summary::Summary;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use crate::contract;
use crate::contract::energy::{self, HourEnergy};
use crate::contract::patch::{self, Change, OpenFinding, PackageKey};
use crate::contract::span::Span;
use crate::contract::track::{Pushed, Track};

/// One check as one agent sees it.
#[derive(Debug, Clone)]
pub struct Vantage {
    /// Its samples, compressed.
    pub track: Track,
    /// The last sample.
    pub last: Option<Sample>,
    /// What was behind the last change.
    pub detail: Option<ProbeDetail>,
    /// End of the certificate last presented.
    pub cert_not_after: Option<UtcTime>,
    /// When that certificate was presented.
    cert_seen: UtcTime,
}

impl Vantage {
    fn new(check: &CheckDef) -> Self {
        let hold = contract::hold(Millis(check.interval_ms.into()), Millis(check.timeout_ms.into()));
        Self { track: Track::new(hold), last: None, detail: None, cert_not_after: None, cert_seen: UtcTime(i64::MIN) }
    }

    fn tell(&mut self, detail: ProbeDetail) {
        if let Some(certificate) = detail.certificate.as_ref().filter(|_| self.cert_seen <= detail.scheduled_at) {
            self.cert_not_after = Some(certificate.not_after);
            self.cert_seen = detail.scheduled_at;
        }
        if self.detail.as_ref().is_none_or(|before| before.scheduled_at <= detail.scheduled_at) {
            self.detail = Some(detail);
        }
    }
}

/// One agent's host.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Last facts told.
    pub facts: Option<HostFacts>,
    /// Last vitals told.
    pub vitals: Option<Vitals>,
    /// Last patch report.
    pub patch: Option<PatchReport>,
    /// Missing fixes with their clocks.
    pub findings: BTreeMap<PackageKey, OpenFinding>,
    /// Energy per hour and source.
    pub hours: BTreeMap<(UtcTime, String), HourEnergy>,
    /// Last energy reading.
    pub reading: Option<EnergyReading>,
    /// When the newest report was made that hides nothing.
    level_known_at: Option<UtcTime>,
}

/// What absorbing a block changed that must be stored.
#[derive(Debug, Default)]
pub struct Changes {
    /// Patch findings, in order.
    pub findings: Vec<(AgentId, Change)>,
    /// Hours whose energy changed.
    pub hours: BTreeSet<(AgentId, UtcTime)>,
    /// Hours whose energy changed but that are no longer in memory: to be computed from the blocks.
    pub forgotten_hours: BTreeSet<(AgentId, UtcTime)>,
    /// When late samples were due.
    pub late: Late,
}

/// By vantage, the time in which samples were due that could not be folded in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Late(BTreeMap<(CheckNo, AgentId), Span>);

impl Late {
    /// Marks a time of a vantage.
    pub fn mark(&mut self, check: CheckNo, agent: AgentId, due: Span) {
        let marked = self.0.entry((check, agent)).or_insert(due);
        *marked = Span::new(marked.from.min(due.from), marked.to.max(due.to));
    }

    /// Marks what another marks.
    pub fn join(&mut self, other: Self) {
        other.0.into_iter().for_each(|((check, agent), due)| self.mark(check, agent, due));
    }

    /// The samples of this vantage are as they should be.
    pub fn settle(&mut self, check: CheckNo, agent: AgentId) {
        self.0.remove(&(check, agent));
    }

    /// Drops what was due before `horizon`.
    pub fn forget_before(&mut self, horizon: UtcTime) {
        self.0.retain(|_, due| due.to > horizon);
    }

    /// Whether nothing is marked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is marked.
    pub fn iter(&self) -> impl Iterator<Item = (CheckNo, AgentId, Span)> {
        self.0.iter().map(|((check, agent), due)| (*check, *agent, *due))
    }
}

/// Whether a block is new, or read again to rebuild memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// First time: patch findings are folded.
    New,
    /// Read before: findings stand in the store already.
    Again,
}

/// Everything known, by agent and check.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Checks by number, for hold times. Samples of unknown checks are kept out of figures.
    checks: BTreeMap<CheckNo, CheckDef>,
    vantages: BTreeMap<(CheckNo, AgentId), Vantage>,
    hosts: BTreeMap<AgentId, Host>,
    /// Energy of hours that start before this is not in memory.
    hours_from: UtcTime,
}

impl Live {
    /// Empty, for these checks. What is going to be absorbed is complete from `horizon` on.
    pub fn new(checks: BTreeMap<CheckNo, CheckDef>, horizon: UtcTime) -> Self {
        Self { checks, hours_from: first_whole_hour(horizon), ..Self::default() }
    }

    /// Findings that were stored before, so that their clocks go on.
    pub fn remember(&mut self, agent: AgentId, key: PackageKey, finding: OpenFinding) {
        self.hosts.entry(agent).or_default().findings.insert(key, finding);
    }

    /// Folds in one stored block, without its first `skip` records (stored before in another block).
    ///
    /// # Errors
    /// [`BlockError`] when the store hands out what ingest never accepted: damage on disk.
    pub fn absorb(
        &mut self,
        agent: AgentId,
        bytes: &[u8],
        skip: usize,
        pass: Pass,
        changes: &mut Changes,
    ) -> Result<(), BlockError> {
        let block = block::decode(bytes)?;
        for item in block.items.iter().skip(skip) {
            match item {
                Item::Sample(sample) => self.sample(agent, sample, changes),
                Item::Other(_) => {
                    // Kinds of a newer agent are skipped; malformed ones never passed ingest.
                    if let Ok(Some(record)) = convert::from_item(item) {
                        self.record(agent, record, pass, changes);
                    }
                }
            }
        }
        Ok(())
    }

    /// Folds in a compacted day: read before all blocks that were not compacted.
    pub fn absorb_day(&mut self, agent: AgentId, block: &DayBlock, changes: &mut Changes) {
        match block {
            DayBlock::Check(day) => day.samples.iter().for_each(|sample| self.sample(agent, sample, changes)),
            DayBlock::Rest(ledger) => {
                for record in ledger.in_order().filter_map(|bytes| convert::from_spool(bytes).ok().flatten()) {
                    self.record(agent, record, Pass::Again, changes);
                }
            }
        }
    }

    fn sample(&mut self, agent: AgentId, sample: &Sample, changes: &mut Changes) {
        let Some(check) = self.checks.get(&sample.check) else { return };
        let vantage = self.vantages.entry((sample.check, agent)).or_insert_with(|| Vantage::new(check));
        match vantage.track.push(sample.scheduled_at, sample.outcome.state()) {
            Pushed::Appended => vantage.last = Some(*sample),
            Pushed::Inserted | Pushed::Duplicate => {}
            Pushed::Late => {
                let due = Span::new(sample.scheduled_at, sample.scheduled_at.plus(Millis(1)));
                changes.late.mark(sample.check, agent, due);
            }
        }
    }

    /// The ticks that a full spool folded together count as the samples they were.
    fn summary(&mut self, agent: AgentId, summary: &Summary, changes: &mut Changes) {
        for scheduled_at in summary.ticks() {
            let (delay, phases) = (Millis::ZERO, Phases::default());
            let sample = Sample { check: summary.check, scheduled_at, delay, outcome: summary.outcome(), phases };
            self.sample(agent, &sample, changes);
        }
    }

    fn record(&mut self, agent: AgentId, record: Record, pass: Pass, changes: &mut Changes) {
        match record {
            Record::Sample(sample) => self.sample(agent, &sample, changes),
            Record::Detail(detail) => {
                if let Some(check) = self.checks.get(&detail.check) {
                    self.vantages.entry((check.no, agent)).or_insert_with(|| Vantage::new(check)).tell(detail);
                }
            }
            Record::Gap(_) => {}
            Record::Summary(summary) => self.summary(agent, &summary, changes),
            Record::Patch(report) => self.patch(agent, report, pass, changes),
            Record::Energy(reading) => self.energy(agent, reading, changes),
            Record::Facts(facts) => self.hosts.entry(agent).or_default().facts = Some(facts),
            Record::Vitals(vitals) => {
                let host = self.hosts.entry(agent).or_default();
                if host.vitals.as_ref().is_none_or(|before| before.at <= vitals.at) {
                    host.vitals = Some(vitals);
                }
            }
        }
    }

    fn patch(&mut self, agent: AgentId, report: PatchReport, pass: Pass, changes: &mut Changes) {
        let host = self.hosts.entry(agent).or_default();
        if pass == Pass::New {
            let folded = patch::fold(&mut host.findings, &report, host.level_known_at);
            changes.findings.extend(folded.into_iter().map(|change| (agent, change)));
        }
        if report.known {
            host.level_known_at = host.level_known_at.max(Some(report.scanned_at));
        }
        if host.patch.as_ref().is_none_or(|before| before.scanned_at <= report.scanned_at) {
            host.patch = Some(report);
        }
    }

    fn energy(&mut self, agent: AgentId, reading: EnergyReading, changes: &mut Changes) {
        let host = self.hosts.entry(agent).or_default();
        for hour in energy::add(&mut host.hours, &reading) {
            if hour < self.hours_from {
                host.hours.remove(&(hour, reading.source.clone()));
                changes.forgotten_hours.insert((agent, hour));
            } else {
                changes.hours.insert((agent, hour));
            }
        }
        if host.reading.as_ref().is_none_or(|before| before.end <= reading.end) {
            host.reading = Some(reading);
        }
    }

    /// Puts the track of `samples`, in any order, in the place of what one vantage said so far.
    pub fn replace_track(&mut self, check: CheckNo, agent: AgentId, samples: &[(UtcTime, State)]) {
        if let Some(vantage) = self.vantages.get_mut(&(check, agent)) {
            vantage.track = Track::of_samples(vantage.track.hold(), samples);
        }
    }

    /// Which samples must be read again to fold in late ones that were due in `late`; `None` for an unknown vantage.
    pub fn window(&self, check: CheckNo, agent: AgentId, late: Span) -> Option<Span> {
        self.vantages.get(&(check, agent)).map(|vantage| vantage.track.window(late))
    }

    /// Puts `samples`, all of one vantage that were due in `window`, in their place. False, and nothing has changed,
    /// when they do not fit: then [`Live::replace_track`] it with all.
    pub fn splice_track(&mut self, check: CheckNo, agent: AgentId, window: Span, samples: &[(UtcTime, State)]) -> bool {
        let vantage = self.vantages.get_mut(&(check, agent));
        vantage.is_none_or(|vantage| vantage.track.splice(window, samples))
    }

    /// Drops what lies before `horizon`, keeping what holds there.
    pub fn forget_before(&mut self, horizon: UtcTime) {
        for vantage in self.vantages.values_mut() {
            vantage.track.forget_before(horizon);
        }
        self.hours_from = self.hours_from.max(first_whole_hour(horizon));
        for host in self.hosts.values_mut() {
            host.hours = host.hours.split_off(&(self.hours_from, String::new()));
        }
    }

    /// How often a check is due; `None` for one that is not configured.
    pub fn interval(&self, check: CheckNo) -> Option<Millis> {
        self.checks.get(&check).map(|check| Millis(check.interval_ms.into()))
    }

    /// What the agents see of one check.
    pub fn vantages_of(&self, check: CheckNo) -> impl Iterator<Item = (AgentId, &Vantage)> {
        self.vantages
            .range((check, AgentId([0; 16]))..=(check, AgentId([255; 16])))
            .map(|((_, agent), vantage)| (*agent, vantage))
    }

    /// What is known of a host.
    pub fn host(&self, agent: AgentId) -> Option<&Host> {
        self.hosts.get(&agent)
    }
}

/// What a record says about its check: one state of a sample, as many as it has ticks of a summary.
pub fn states(item: &Item) -> Vec<(CheckNo, UtcTime, State)> {
    match convert::from_item(item) {
        Ok(Some(Record::Sample(sample))) => vec![(sample.check, sample.scheduled_at, sample.outcome.state())],
        Ok(Some(Record::Summary(summary))) => {
            summary.ticks().map(|at| (summary.check, at, summary.outcome().state())).collect()
        }
        _ => Vec::new(),
    }
}

/// An hour that began before the horizon may have readings in blocks that are not read.
fn first_whole_hour(horizon: UtcTime) -> UtcTime {
    let hour = horizon.hour_start();
    if hour == horizon { hour } else { hour.plus(Millis::HOUR) }
}

#[cfg(test)]
mod tests;
