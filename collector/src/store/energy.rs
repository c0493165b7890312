//! Energy per UTC hour and source, overwritten whole whenever the hour is computed again. CO2 is not
//! kept: it is a view over these and dated factors.

use peil_proto::ids::AgentId;
use peil_proto::record::{Boundary, Method};
use peil_proto::time::UtcTime;
use peil_proto::units::{Microjoules, Millis};

use super::db::{self, Connection, Row};
use super::{Store, StoreError, cells};

/// The energy of one source in one UTC hour; `low ≤ energy ≤ high`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnergyHourRow {
    /// The host's agent.
    pub agent: AgentId,
    /// Stable name of the source.
    pub source: String,
    /// Start of the hour.
    pub hour: UtcTime,
    /// Best figure.
    pub energy: Microjoules,
    /// Lower bound.
    pub low: Microjoules,
    /// Upper bound.
    pub high: Microjoules,
    /// Part of the hour that readings cover; the rest is missing, not zero.
    pub covered: Millis,
    /// Part of the hour the host was awake.
    pub active: Millis,
    /// How it was come by: the weakest of the hour.
    pub method: Method,
    /// How much of the machine it encloses: the narrowest of the hour.
    pub boundary: Boundary,
    /// What is inside, in words.
    pub covers: String,
}

impl Store {
    /// The hours from `since` on, by agent, source and time.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn energy_hours(&self, since: UtcTime) -> Result<Vec<EnergyHourRow>, StoreError> {
        self.read("read the energy of hours", move |db| {
            let mut ask = db.prepare_cached(
                "SELECT agent, source, hour_ms, energy_uj, low_uj, high_uj, covered_ms, active_ms, method, boundary,
                   covers
                 FROM energy_hour WHERE hour_ms >= ?1 ORDER BY agent, source, hour_ms",
            )?;
            let rows = ask.query_map([since.0], hour_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// Overwrites hours, inside the caller's transaction.
pub(super) fn write(db: &Connection, hours: &[EnergyHourRow]) -> db::Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO energy_hour (agent, source, hour_ms, energy_uj, low_uj, high_uj, covered_ms, active_ms, method,
           boundary, covers)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (agent, source, hour_ms) DO UPDATE SET
           energy_uj = excluded.energy_uj, low_uj = excluded.low_uj, high_uj = excluded.high_uj,
           covered_ms = excluded.covered_ms, active_ms = excluded.active_ms, method = excluded.method,
           boundary = excluded.boundary, covers = excluded.covers",
    )?;
    for hour in hours {
        upsert.execute((
            hour.agent.0,
            &hour.source,
            hour.hour.0,
            cells::bits(hour.energy.0),
            cells::bits(hour.low.0),
            cells::bits(hour.high.0),
            hour.covered.0,
            hour.active.0,
            hour.method.word(),
            hour.boundary.word(),
            &hour.covers,
        ))?;
    }
    Ok(())
}

fn hour_row(row: &Row<'_>) -> db::Result<EnergyHourRow> {
    Ok(EnergyHourRow {
        agent: cells::agent(row, 0)?,
        source: row.get(1)?,
        hour: cells::time(row, 2)?,
        energy: Microjoules(cells::number(row, 3)?),
        low: Microjoules(cells::number(row, 4)?),
        high: Microjoules(cells::number(row, 5)?),
        covered: Millis(row.get(6)?),
        active: Millis(row.get(7)?),
        method: cells::word(row, 8, cells::method)?,
        boundary: cells::word(row, 9, cells::boundary)?,
        covers: row.get(10)?,
    })
}
