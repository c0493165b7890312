//! Reading a back-up back: is everything in it what it must be?

use std::path::Path;

use peil_proto::block::{self, day};
use peil_proto::time::UtcDay;

use super::side::{Side, filled_from};
use super::{Counted, TransferError, copy, failed, log};
use crate::store::audit::{self, AuditVerdict};
use crate::store::db::Connection;
use crate::store::error::Fault;
use crate::store::{cells, migrate};

/// Reads a back-up from the first page to the last: the database's own integrity and references, the checksum of every
/// block, every compacted day, the chain of the audit log. Changes nothing. What is in it, table by table.
///
/// # Errors
/// [`TransferError::Damaged`] with what is wrong; [`TransferError::Schema`] for one by another version.
pub fn check_file(path: &Path) -> Result<Vec<Counted>, TransferError> {
    let file = Side::file(path)?;
    file.hold()?;
    file.require_schema()?;
    check(&file)?;
    copy::sums(&file)
}

/// As [`check_file`], without the sums.
pub(super) fn check(file: &Side) -> Result<(), TransferError> {
    let damaged = |what: String| TransferError::Damaged { place: file.name.clone(), what };
    let found = faults(&file.db).map_err(failed("check the database"))?;
    if let Some(what) = found {
        return Err(damaged(what));
    }
    let block = |no: i64, bytes: &[u8]| block::header(bytes).err().map(|error| damaged(format!("block {no}: {error}")));
    if let Some(found) = log::each(&file.db, block)? {
        return Err(found);
    }
    match day(&file.db).map_err(failed("read compacted days"))? {
        Some(what) => Err(damaged(what)),
        None => Ok(()),
    }
}

/// The first compacted day that is not what was written.
fn day(db: &Connection) -> Result<Option<String>, Fault> {
    let mut ask = db.prepare_cached("SELECT agent, day, check_no, bytes FROM day_block")?;
    let mut rows = ask.query(())?;
    while let Some(row) = rows.next()? {
        let Err(error) = day::decode(&row.get::<Vec<u8>>(3)?) else { continue };
        let (agent, day, check) = (cells::agent(&row, 0)?, UtcDay(row.get(1)?), row.get::<i64>(2)?);
        return Ok(Some(format!("the compacted {day} of agent {agent}, check {check}: {error}")));
    }
    Ok(None)
}

/// The first thing that is wrong, but for blocks.
fn faults(db: &Connection) -> Result<Option<String>, Fault> {
    let said: String = db.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))?;
    if said != "ok" {
        return Ok(Some(said));
    }
    let mut astray = db.prepare_cached("PRAGMA foreign_key_check")?;
    if let Some(row) = astray.query(())?.next()? {
        return Ok(Some(format!("a row of {:?} refers to one that is not there", row.get::<String>(0)?)));
    }
    // A back-up of an older version cannot be half filled.
    if migrate::version(db)? == migrate::newest()
        && let Some(from) = filled_from(db)?
    {
        return Ok(Some(format!("it is half filled from {from}")));
    }
    Ok(match audit::verify(db)? {
        AuditVerdict::Whole { .. } => None,
        AuditVerdict::Broken { seq, fault } => Some(format!("the audit log is broken at entry {seq}: {fault:?}")),
    })
}
