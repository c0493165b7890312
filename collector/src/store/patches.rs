//! Findings: security fixes hosts lack, each with its clock. The rule of the clock is the contract's.
//!
//! A finding is named by agent, package, architecture and the version it lacks. When it is mended it is
//! closed, not removed; when it comes back, the same row opens again with what the contract says of it.

use peil_proto::ids::AgentId;
use peil_proto::record::FindingState;
use peil_proto::time::UtcTime;

use super::db::{self, Connection, Row};
use super::{Store, StoreError, cells};

/// A security fix a host lacks, or lacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindingRow {
    /// The host's agent.
    pub agent: AgentId,
    /// Source package: the unit of advisories.
    pub source: String,
    /// Binary package.
    pub package: String,
    /// Architecture.
    pub arch: String,
    /// Version on the host when last seen.
    pub installed: String,
    /// Version it lacks.
    pub security_version: String,
    /// What would be installed; empty when nothing.
    pub candidate: String,
    /// Whether it can be installed as things are.
    pub state: FindingState,
    /// When the lack was first proven.
    pub first_seen: UtcTime,
    /// When the version it lacks now was first seen.
    pub version_seen: UtcTime,
    /// When the term ends.
    pub due_at: UtcTime,
    /// The last scan that had it.
    pub last_seen: UtcTime,
    /// The scan that no longer had it.
    pub closed_at: Option<UtcTime>,
}

const COLUMNS: &str = "agent, source, package, arch, installed, security_version, candidate, state, first_seen,
                       version_seen, due_at, last_seen, closed_at";

impl Store {
    /// What all hosts lack now, by agent and then the earliest due first.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn open_findings(&self) -> Result<Vec<FindingRow>, StoreError> {
        self.read("read the open findings", |db| Ok(open(db)?)).await
    }

    /// What one host lacks and lacked, open ones first.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn findings_of(&self, agent: AgentId) -> Result<Vec<FindingRow>, StoreError> {
        self.read("read the findings of a host", move |db| {
            let mut ask = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM finding WHERE agent = ?1
                 ORDER BY CASE WHEN closed_at IS NULL THEN 0 ELSE 1 END, due_at, package, arch"
            ))?;
            let rows = ask.query_map([agent.0], finding_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// What all hosts lack now, inside the caller's transaction.
pub(super) fn open(db: &Connection) -> db::Result<Vec<FindingRow>> {
    let mut ask = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM finding WHERE closed_at IS NULL ORDER BY agent, due_at, package, arch"
    ))?;
    ask.query_map((), finding_row)?.collect()
}

/// Overwrites findings, inside the caller's transaction.
pub(super) fn write(db: &Connection, findings: &[FindingRow]) -> db::Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO finding (agent, source, package, arch, installed, security_version, candidate, state,
           first_seen, version_seen, due_at, last_seen, closed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (agent, package, arch) DO UPDATE SET
           source = excluded.source, installed = excluded.installed,
           security_version = excluded.security_version, candidate = excluded.candidate,
           state = excluded.state, first_seen = excluded.first_seen,
           version_seen = excluded.version_seen, due_at = excluded.due_at,
           last_seen = excluded.last_seen, closed_at = excluded.closed_at",
    )?;
    for finding in findings {
        upsert.execute((
            finding.agent.0,
            &finding.source,
            &finding.package,
            &finding.arch,
            &finding.installed,
            &finding.security_version,
            &finding.candidate,
            cells::finding_state_word(finding.state),
            finding.first_seen.0,
            finding.version_seen.0,
            finding.due_at.0,
            finding.last_seen.0,
            finding.closed_at.map(|at| at.0),
        ))?;
    }
    Ok(())
}

fn finding_row(row: &Row<'_>) -> db::Result<FindingRow> {
    Ok(FindingRow {
        agent: cells::agent(row, 0)?,
        source: row.get(1)?,
        package: row.get(2)?,
        arch: row.get(3)?,
        installed: row.get(4)?,
        security_version: row.get(5)?,
        candidate: row.get(6)?,
        state: cells::word(row, 7, cells::finding_state)?,
        first_seen: cells::time(row, 8)?,
        version_seen: cells::time(row, 9)?,
        due_at: cells::time(row, 10)?,
        last_seen: cells::time(row, 11)?,
        closed_at: cells::time_or_none(row, 12)?,
    })
}
