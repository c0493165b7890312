//! What was derived from blocks, with the watermark that says how far: one transaction.
//!
//! Derived rows are a pure function of blocks and configuration, so a judgement only ever overwrites: the
//! same one twice, or one made again after a crash from the same blocks, leaves the same rows. The
//! watermark rises or stays; a judgement made again from older blocks does not take it back.

use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::record::{ProbeDetail, Record};
use peil_proto::time::UtcTime;

use super::blocks::{BlockId, Lane, Through};
use super::db::{self, Connection};
use super::energy::EnergyHourRow;
use super::error::Fault;
use super::hosts::HostReport;
use super::leases::{self, Duty, Held};
use super::outages::OutageChange;
use super::patches::FindingRow;
use super::{Store, StoreError, cells, energy, hosts, outages, patches};

/// Everything that follows from the blocks up to `through` and was not yet written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The last block of each lane it takes into account.
    pub through: Through,
    /// Outages that came, changed or went.
    pub outages: Vec<OutageChange>,
    /// Findings that came, changed or closed.
    pub findings: Vec<FindingRow>,
    /// Hours whose energy changed, whole.
    pub energy_hours: Vec<EnergyHourRow>,
    /// What stands behind changed outcomes.
    pub details: Vec<DetailRow>,
    /// The newest of what hosts told about themselves.
    pub reports: Vec<HostReport>,
}

/// What stood behind one sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetailRow {
    /// Who saw it.
    pub agent: AgentId,
    /// What it saw; names the check and the scheduled time.
    pub detail: ProbeDetail,
}

/// Under what its watermarks are kept.
pub(super) const JOB: &str = "judge";

impl Store {
    /// What has been judged, lane by lane.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn judged_through(&self) -> Result<Through, StoreError> {
        self.read("read how far blocks are judged", |db| Ok(judged_through(db)?)).await
    }

    /// What has been judged, lane by lane, and the findings that are open by then: one moment.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn judged(&self) -> Result<(Through, Vec<FindingRow>), StoreError> {
        self.read("read what is judged", |db| Ok((judged_through(db)?, patches::open(db)?))).await
    }

    /// Writes a judgement and moves the watermarks, all or nothing, by whoever holds its lanes. Writing it twice does
    /// no harm.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] with nothing written, and as every write.
    pub async fn commit_judgement(&self, judgement: Judgement, held: Held) -> Result<(), StoreError> {
        self.write("write what was judged", move |db| {
            leases::require(db, &held, judgement.through.lanes().map(|(lane, _)| Duty::Lane(lane)))?;
            outages::write(db, &judgement.outages)?;
            patches::write(db, &judgement.findings)?;
            energy::write(db, &judgement.energy_hours)?;
            hosts::write(db, &judgement.reports)?;
            write_details(db, &judgement.details)?;
            let mut mark = db.prepare_cached(
                "INSERT INTO watermark (job, lane, through) VALUES (?1, ?2, ?3)
                 ON CONFLICT (job, lane) DO UPDATE SET through = excluded.through
                 WHERE excluded.through > watermark.through",
            )?;
            let judged = judged_through(db)?;
            for (lane, no) in judgement.through.lanes().filter(|(lane, no)| *no > judged.of(*lane)) {
                mark.execute((JOB, lane.0, no))?;
            }
            Ok(())
        })
        .await
    }

    /// The newest detail of every (agent, check).
    ///
    /// # Errors
    /// [`StoreError::Read`], [`StoreError::Damaged`].
    pub async fn latest_details(&self) -> Result<Vec<DetailRow>, StoreError> {
        self.read("read the newest details", |db| {
            let mut ask = db.prepare_cached(
                "SELECT d.agent, d.record FROM detail d WHERE d.scheduled_at =
                   (SELECT MAX(e.scheduled_at) FROM detail e WHERE e.agent = d.agent AND e.check_no = d.check_no)
                 ORDER BY d.agent, d.check_no",
            )?;
            let rows = ask.query_map((), |row| Ok((cells::agent(row, 0)?, row.get(1)?)))?;
            rows.map(|row| detail_row(row?)).collect()
        })
        .await
    }

    /// The details one agent gave of one check from `since` on, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Read`], [`StoreError::Damaged`].
    pub async fn details(&self, agent: AgentId, check: CheckNo, since: UtcTime) -> Result<Vec<DetailRow>, StoreError> {
        self.read("read the details of a check", move |db| {
            let mut ask = db.prepare_cached(
                "SELECT agent, record FROM detail WHERE agent = ?1 AND check_no = ?2 AND scheduled_at >= ?3
                 ORDER BY scheduled_at",
            )?;
            let rows = ask.query_map((agent.0, check.0, since.0), |row| Ok((cells::agent(row, 0)?, row.get(1)?)))?;
            rows.map(|row| detail_row(row?)).collect()
        })
        .await
    }
}

fn judged_through(db: &Connection) -> db::Result<Through> {
    let mut ask = db.prepare_cached("SELECT lane, through FROM watermark WHERE job = ?1")?;
    ask.query_map([JOB], |row| Ok(BlockId { lane: Lane(row.get(0)?), no: row.get(1)? }))?.collect()
}

fn write_details(db: &Connection, details: &[DetailRow]) -> db::Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO detail (agent, check_no, scheduled_at, record) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (agent, check_no, scheduled_at) DO UPDATE SET record = excluded.record",
    )?;
    for DetailRow { agent, detail } in details {
        let record = peil_proto::convert::to_spool(&Record::Detail(detail.clone()));
        upsert.execute((agent.0, detail.check.0, detail.scheduled_at.0, record))?;
    }
    Ok(())
}

fn detail_row((agent, record): (AgentId, Vec<u8>)) -> Result<DetailRow, Fault> {
    match cells::record(&record, "a detail")? {
        Record::Detail(detail) => Ok(DetailRow { agent, detail }),
        _ => Err(StoreError::Damaged { what: "a detail" }.into()),
    }
}
