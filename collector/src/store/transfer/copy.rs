//! The walk: every table from one database into another, and the proof that they are the same.

use super::rows::{Shape, Sum, insert};
use super::side::Side;
use super::{Counted, Progress, TransferError, failed, log};
use crate::store::db;
use crate::store::tables::{How, Table, kept};

/// Fills `target` from `source`, going on where an earlier run was ended.
pub(super) fn fill(source: &Side, target: &Side, tell: &mut dyn FnMut(Progress)) -> Result<(), TransferError> {
    for table in kept() {
        match table.how {
            How::Log => log::fill(source, target, tell)?,
            _ => fill_table(source, target, table, tell)?,
        }
    }
    Ok(())
}

/// Rows come in order of their key, so the last one that is there tells where to go on.
fn fill_table(
    source: &Side,
    target: &Side,
    table: &Table,
    tell: &mut dyn FnMut(Progress),
) -> Result<(), TransferError> {
    let read = |error: db::Error| failed("read a table")(error.into());
    let shape = Shape::of(&source.db, table).map_err(read)?;
    let mut after = Shape::of(&target.db, table).and_then(|shape| shape.last(&target.db)).map_err(read)?;
    let mut rows = 0;
    loop {
        let page = shape.page(&source.db, after.as_deref()).map_err(read)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(shape.key_of(last));
        rows += page.len() as u64;
        target.transact("fill a table", |db| match table.how {
            How::ByLane => log::insert_by_lane(db, table.name, &shape.columns, page),
            _ => Ok(insert(db, table.name, &shape.columns, &page)?),
        })?;
        tell(Progress { table: table.name, rows });
    }
}

/// Reads both and compares; what both hold.
pub(super) fn compare(source: &Side, target: &Side) -> Result<Vec<Counted>, TransferError> {
    let (wanted, found) = (sums(source)?, sums(target)?);
    for (wanted, found) in wanted.iter().zip(&found) {
        if wanted != found {
            let (target, from) = (target.name.clone(), source.name.clone());
            return Err(TransferError::Differs { table: wanted.table, target, from });
        }
    }
    Ok(found)
}

/// Every table with its rows and their digest.
pub(super) fn sums(side: &Side) -> Result<Vec<Counted>, TransferError> {
    kept().map(|table| sum(side, table).map_err(|error| failed("sum up a table")(error.into()))).collect()
}

fn sum(side: &Side, table: &'static Table) -> db::Result<Counted> {
    let sum = match table.how {
        How::Log => log::sum(&side.db)?,
        _ => {
            let shape = Shape::of(&side.db, table)?;
            let (mut sum, mut after) = (Sum::new(), None);
            loop {
                let page = shape.page(&side.db, after.as_deref())?;
                page.iter().for_each(|row| sum.add(row));
                let Some(last) = page.last() else { break sum };
                after = Some(shape.key_of(last));
            }
        }
    };
    Ok(Counted { table: table.name, rows: sum.rows, digest: sum.finish() })
}
