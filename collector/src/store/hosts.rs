//! The newest of what each host told about itself: facts, vitals, patch level, energy.
//!
//! Kept as the record it came in, so nothing is lost or translated; what came before it is in the blocks.
//! An older one never replaces a newer one: the row is the newest by its time, whatever the order of
//! arrival.

use std::collections::BTreeMap;

use peil_proto::convert;
use peil_proto::ids::AgentId;
use peil_proto::record::{EnergyReading, HostFacts, PatchReport, Record, Vitals};
use peil_proto::time::UtcTime;

use super::db::{self, Connection};
use super::error::Fault;
use super::{Store, StoreError, cells};

/// Something a host told about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// Who told it.
    pub agent: AgentId,
    /// The time it is about.
    pub at: UtcTime,
    /// What it told.
    pub told: Told,
}

/// The kinds of which the newest is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Stable facts. They carry no time: use that of the block.
    Facts(HostFacts),
    /// The agent about itself.
    Vitals(Vitals),
    /// The patch level.
    Patch(PatchReport),
    /// The last interval of energy.
    Energy(EnergyReading),
}

/// The newest of each kind, with its time; `None` for what was never told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostRow {
    /// Stable facts.
    pub facts: Option<(UtcTime, HostFacts)>,
    /// The agent about itself.
    pub vitals: Option<(UtcTime, Vitals)>,
    /// The patch level.
    pub patch: Option<(UtcTime, PatchReport)>,
    /// The last interval of energy.
    pub energy: Option<(UtcTime, EnergyReading)>,
}

impl Store {
    /// What every host told last. Hosts that never told anything are not in it.
    ///
    /// # Errors
    /// [`StoreError::Read`], [`StoreError::Damaged`].
    pub async fn hosts(&self) -> Result<BTreeMap<AgentId, HostRow>, StoreError> {
        self.read("read what hosts told", |db| {
            let mut ask = db.prepare_cached("SELECT agent, at, record FROM host_report")?;
            let mut rows = ask.query(())?;
            let mut hosts = BTreeMap::<AgentId, HostRow>::new();
            while let Some(row) = rows.next()? {
                let (agent, at) = (cells::agent(&row, 0)?, cells::time(&row, 1)?);
                hosts.entry(agent).or_default().take(at, row.get_ref(2)?.as_blob()?)?;
            }
            Ok(hosts)
        })
        .await
    }
}

impl HostRow {
    fn take(&mut self, at: UtcTime, record: &[u8]) -> Result<(), Fault> {
        match cells::record(record, "what a host told")? {
            Record::Facts(facts) => self.facts = Some((at, facts)),
            Record::Vitals(vitals) => self.vitals = Some((at, vitals)),
            Record::Patch(patch) => self.patch = Some((at, patch)),
            Record::Energy(energy) => self.energy = Some((at, energy)),
            Record::Sample(_) | Record::Gap(_) | Record::Detail(_) | Record::Summary(_) => {
                return Err(StoreError::Damaged { what: "what a host told" }.into());
            }
        }
        Ok(())
    }
}

/// Writes reports that are not older than what is there, inside the caller's transaction.
pub(super) fn write(db: &Connection, reports: &[HostReport]) -> db::Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO host_report (agent, kind, at, record) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (agent, kind) DO UPDATE SET at = excluded.at, record = excluded.record
         WHERE excluded.at >= host_report.at",
    )?;
    for report in reports {
        let (kind, record) = match &report.told {
            Told::Facts(facts) => ("facts", Record::Facts(facts.clone())),
            Told::Vitals(vitals) => ("vitals", Record::Vitals(vitals.clone())),
            Told::Patch(patch) => ("patch", Record::Patch(patch.clone())),
            Told::Energy(energy) => ("energy", Record::Energy(energy.clone())),
        };
        upsert.execute((report.agent.0, kind, report.at.0, convert::to_spool(&record)))?;
    }
    Ok(())
}
