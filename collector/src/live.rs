//! What the blocks say, folded: the state of every vantage and host in memory.
//!
//! A pure function of the blocks absorbed so far (and, for the patch clock, of the findings stored before
//! them), so a restart, or another collector, rebuilds it by reading blocks again. Nothing here does I/O or reads a clock.
//!
//! A sample older than the newest of its vantage is *late*: it cannot be folded in, so the agent is
//! marked and the `judge` job rebuilds it from its blocks.

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::block::{self, BlockError, Item};
use peil_proto::convert;
use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::plan::CheckDef;
use peil_proto::record::{EnergyReading, Gap, HostFacts, PatchReport, ProbeDetail, Record, Vitals};
use peil_proto::sample::{Sample, State};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use crate::contract::energy::{self, HourEnergy};
use crate::contract::patch::{self, Change, OpenFinding, PackageKey};
use crate::contract::track::{Pushed, Track};

/// Gaps kept per agent for people to look at; older ones stand in the blocks.
const GAPS_KEPT: usize = 64;

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
    /// Newest gaps, newest last.
    pub gaps: Vec<Gap>,
}

/// What absorbing a block changed that must be stored.
#[derive(Debug, Default)]
pub struct Changes {
    /// Patch findings, in order.
    pub findings: Vec<(AgentId, Change)>,
    /// Hours whose energy changed.
    pub hours: BTreeSet<(AgentId, UtcTime)>,
    /// Agents with late samples.
    pub late: BTreeSet<AgentId>,
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
}

impl Live {
    /// Empty, for these checks.
    pub fn new(checks: BTreeMap<CheckNo, CheckDef>) -> Self {
        Self { checks, ..Self::default() }
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

    fn sample(&mut self, agent: AgentId, sample: &Sample, changes: &mut Changes) {
        let Some(check) = self.checks.get(&sample.check) else { return };
        let hold = Millis(2 * i64::from(check.interval_ms) + i64::from(check.timeout_ms));
        let vantage = self.vantages.entry((sample.check, agent)).or_insert_with(|| Vantage {
            track: Track::new(hold),
            last: None,
            detail: None,
            cert_not_after: None,
        });
        match vantage.track.push(sample.scheduled_at, sample.outcome.state()) {
            Pushed::Appended => vantage.last = Some(*sample),
            Pushed::Duplicate => {}
            Pushed::Late => {
                changes.late.insert(agent);
            }
        }
    }

    fn record(&mut self, agent: AgentId, record: Record, pass: Pass, changes: &mut Changes) {
        let host = self.hosts.entry(agent).or_default();
        match record {
            Record::Sample(sample) => self.sample(agent, &sample, changes),
            Record::Detail(detail) => {
                if let Some(vantage) = self.vantages.get_mut(&(detail.check, agent)) {
                    vantage.cert_not_after =
                        detail.certificate.as_ref().map(|c| c.not_after).or(vantage.cert_not_after);
                    vantage.detail = Some(detail);
                } else if let Some(check) = self.checks.get(&detail.check) {
                    let hold = Millis(2 * i64::from(check.interval_ms) + i64::from(check.timeout_ms));
                    let cert_not_after = detail.certificate.as_ref().map(|c| c.not_after);
                    let vantage = Vantage { track: Track::new(hold), last: None, cert_not_after, detail: Some(detail) };
                    self.vantages.insert((check.no, agent), vantage);
                }
            }
            Record::Gap(gap) => {
                host.gaps.push(gap);
                if host.gaps.len() > GAPS_KEPT {
                    host.gaps.remove(0);
                }
            }
            Record::Patch(report) => {
                if pass == Pass::New {
                    let folded = patch::fold(&mut host.findings, &report);
                    changes.findings.extend(folded.into_iter().map(|change| (agent, change)));
                }
                if host.patch.as_ref().is_none_or(|before| before.scanned_at <= report.scanned_at) {
                    host.patch = Some(report);
                }
            }
            Record::Energy(reading) => {
                let touched = energy::add(&mut host.hours, &reading);
                changes.hours.extend(touched.into_iter().map(|hour| (agent, hour)));
                host.reading = Some(reading);
            }
            Record::Facts(facts) => host.facts = Some(facts),
            Record::Vitals(vitals) => host.vitals = Some(vitals),
        }
    }

    /// Builds the tracks of one agent anew from all its blocks, in order of time; returns how many samples.
    /// Blocks that cannot be read are passed over: `absorb` has told of them.
    pub fn rebuild_tracks<'b>(&mut self, agent: AgentId, blocks: impl Iterator<Item = (&'b [u8], u32)>) -> usize {
        let mut samples: Vec<Sample> = Vec::new();
        for (bytes, skip) in blocks {
            let Ok(block) = block::decode(bytes) else { continue };
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            samples.extend(block.items.iter().skip(skip).filter_map(|item| match item {
                Item::Sample(sample) => Some(*sample),
                Item::Other(_) => None,
            }));
        }
        // Two outcomes for one moment: DOWN wins, so it must come first.
        samples.sort_by_key(|sample| (sample.scheduled_at, sample.outcome.state() != State::Down));
        for ((_, of), vantage) in &mut self.vantages {
            if *of == agent {
                vantage.track = Track::new(vantage.track.hold());
            }
        }
        let mut ignored = Changes::default();
        for sample in &samples {
            self.sample(agent, sample, &mut ignored);
        }
        samples.len()
    }

    /// Drops what lies before `horizon`, keeping what holds there.
    pub fn forget_before(&mut self, horizon: UtcTime) {
        for vantage in self.vantages.values_mut() {
            vantage.track.forget_before(horizon);
        }
        for host in self.hosts.values_mut() {
            host.hours = host.hours.split_off(&(horizon, String::new()));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use peil_proto::ids::Seq;
    use peil_proto::plan::CheckKind;
    use peil_proto::sample::{Outcome, Phases};

    const AGENT: AgentId = AgentId([7; 16]);

    fn live() -> Live {
        let kind = CheckKind::Tcp { address: "h:1".into() };
        let check = CheckDef { no: CheckNo(1), name: "a".into(), interval_ms: 10_000, timeout_ms: 1_000, kind };
        Live::new(BTreeMap::from([(CheckNo(1), check)]))
    }

    fn up(at: i64) -> Item {
        let outcome = Outcome::Up { code: 0 };
        Item::Sample(Sample {
            check: CheckNo(1),
            scheduled_at: UtcTime(at),
            delay: Millis(0),
            outcome,
            phases: Phases::default(),
        })
    }

    #[test]
    fn skipped_records_are_not_folded_twice() {
        let mut live = live();
        let mut changes = Changes::default();
        live.absorb(AGENT, &block::encode(Seq(1), &[up(0), up(10_000)]), 0, Pass::New, &mut changes).expect("a block");
        live.absorb(AGENT, &block::encode(Seq(2), &[up(10_000), up(20_000)]), 1, Pass::New, &mut changes)
            .expect("a block");
        let (_, vantage) = live.vantages_of(CheckNo(1)).next().expect("one vantage");
        assert_eq!(vantage.track.newest(), Some((UtcTime(20_000), State::Up)));
        assert!(changes.late.is_empty());
    }

    #[test]
    fn a_late_sample_marks_its_agent() {
        let mut live = live();
        let mut changes = Changes::default();
        live.absorb(AGENT, &block::encode(Seq(1), &[up(20_000), up(10_000)]), 0, Pass::New, &mut changes)
            .expect("a block");
        assert!(changes.late.contains(&AGENT));
        let blocks = [block::encode(Seq(1), &[up(20_000), up(10_000)]), block::encode(Seq(3), &[up(0)])];
        assert_eq!(live.rebuild_tracks(AGENT, blocks.iter().map(|block| (&block[..], 0))), 3);
        let (_, vantage) = live.vantages_of(CheckNo(1)).next().expect("one vantage");
        assert_eq!(vantage.track.newest(), Some((UtcTime(20_000), State::Up)));
    }
}
