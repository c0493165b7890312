//! Outages of services, as judged. A row is named by its service and its start.
//!
//! Late data can move the start of an outage, join two or undo one. So besides writing single rows a
//! judgement can replace all outages of a service that start within a period: what was judged anew is then
//! exactly what is there.

use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::db::{self, Connection, Row};
use super::error::Fault;
use super::{Store, StoreError, cells};

/// A stretch of DOWN of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutageRow {
    /// Name in the contract.
    pub service: String,
    /// Start.
    pub from: UtcTime,
    /// End; `None` while it lasts.
    pub to: Option<UtcTime>,
    /// What it costs under the contract.
    pub counted: Millis,
    /// The checks that were down.
    pub because: Vec<String>,
}

/// How the outages of a service changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutageChange {
    /// This one is new, or is now like this.
    Put(OutageRow),
    /// There is none that starts here.
    Remove {
        /// Name in the contract.
        service: String,
        /// Start.
        from: UtcTime,
    },
    /// Of those that start in `[since, until)` there are exactly these; rows of another service or start
    /// are written all the same.
    Replace {
        /// Name in the contract.
        service: String,
        /// First start it is about.
        since: UtcTime,
        /// First start it is not about.
        until: UtcTime,
        /// All there are.
        outages: Vec<OutageRow>,
    },
}

impl Store {
    /// Outages of a service that were not over at `since`, in order of start.
    ///
    /// # Errors
    /// [`StoreError::Read`], [`StoreError::Damaged`].
    pub async fn outages(&self, service: &str, since: UtcTime) -> Result<Vec<OutageRow>, StoreError> {
        let service = service.to_owned();
        self.read("read the outages of a service", move |db| {
            let mut ask = db.prepare_cached(
                "SELECT service, from_ms, to_ms, counted_ms, because FROM outage
                 WHERE service = ?1 AND (to_ms IS NULL OR to_ms > ?2) ORDER BY from_ms",
            )?;
            let rows = ask.query_map((&service, since.0), outage_cells)?;
            rows.map(|row| outage_row(row?)).collect()
        })
        .await
    }
}

/// Writes changes in their order, inside the caller's transaction.
pub(super) fn write(db: &Connection, changes: &[OutageChange]) -> Result<(), Fault> {
    for change in changes {
        match change {
            OutageChange::Put(outage) => put(db, outage)?,
            OutageChange::Remove { service, from } => {
                db.prepare_cached("DELETE FROM outage WHERE service = ?1 AND from_ms = ?2")?
                    .execute((service, from.0))?;
            }
            OutageChange::Replace { service, since, until, outages } => {
                db.prepare_cached("DELETE FROM outage WHERE service = ?1 AND from_ms >= ?2 AND from_ms < ?3")?
                    .execute((service, since.0, until.0))?;
                for outage in outages {
                    put(db, outage)?;
                }
            }
        }
    }
    Ok(())
}

fn put(db: &Connection, outage: &OutageRow) -> db::Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO outage (service, from_ms, to_ms, counted_ms, because) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (service, from_ms) DO UPDATE SET
           to_ms = excluded.to_ms, counted_ms = excluded.counted_ms, because = excluded.because",
    )?;
    let because = serde_json::Value::from(outage.because.clone()).to_string();
    upsert.execute((&outage.service, outage.from.0, outage.to.map(|to| to.0), outage.counted.0, because))?;
    Ok(())
}

fn outage_cells(row: &Row<'_>) -> db::Result<(OutageRow, String)> {
    let outage = OutageRow {
        service: row.get(0)?,
        from: cells::time(row, 1)?,
        to: cells::time_or_none(row, 2)?,
        counted: Millis(row.get(3)?),
        because: Vec::new(),
    };
    Ok((outage, row.get(4)?))
}

fn outage_row((outage, because): (OutageRow, String)) -> Result<OutageRow, Fault> {
    match serde_json::from_str(&because) {
        Ok(because) => Ok(OutageRow { because, ..outage }),
        Err(_) => Err(StoreError::Damaged { what: "the cause of an outage" }.into()),
    }
}
