//! What was judged, as rows, and back.

use std::collections::BTreeSet;

use peil_proto::ids::AgentId;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use crate::contract::energy::HourEnergy;
use crate::contract::patch::{Change, OpenFinding, PackageKey};
use crate::live::Live;
use crate::store::energy::EnergyHourRow;
use crate::store::patches::FindingRow;

/// The hours `touched` as they are in memory, all sources of each.
pub(super) fn energy_hours(live: &Live, touched: &BTreeSet<(AgentId, UtcTime)>) -> Vec<EnergyHourRow> {
    let rows = touched.iter().flat_map(|(agent, hour)| {
        let hours = live.host(*agent).map(|host| &host.hours);
        let of_hour = hours
            .into_iter()
            .flat_map(|hours| hours.range((*hour, String::new())..(hour.plus(Millis(1)), String::new())));
        of_hour.map(|((hour, source), energy)| energy_hour(*agent, *hour, source, energy))
    });
    rows.collect()
}

/// One hour of one source.
pub(super) fn energy_hour(agent: AgentId, hour: UtcTime, source: &str, energy: &HourEnergy) -> EnergyHourRow {
    EnergyHourRow {
        agent,
        source: source.to_owned(),
        hour,
        energy: energy.energy,
        low: energy.low,
        high: energy.high,
        covered: energy.covered,
        active: energy.active,
        method: energy.method,
        boundary: energy.boundary,
        covers: energy.covers.clone(),
    }
}

/// A change of a finding as it is stored.
pub(super) fn finding_row(agent: AgentId, change: Change, term: Millis) -> FindingRow {
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

/// A stored finding as the contract folds it.
pub(super) fn finding(row: FindingRow) -> (AgentId, PackageKey, OpenFinding) {
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
