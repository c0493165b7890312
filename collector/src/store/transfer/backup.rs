//! A back-up: one file, made while collectors run, read back before it gets its name.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::partial::Partial;
use super::rows::count;
use super::side::Side;
use super::{Asked, Counted, Progress, TransferError, check, copy, failed};
use crate::store::db::{self, Connection};
use crate::store::tables::kept;
use crate::store::{Place, StoreError, sqlite};

/// Writes a back-up of the store at `place` to the file `to`, or into the directory `to` under a name with the time,
/// `peil-20261125T101500Z.db`. Where it is, and what is in it.
///
/// Consistent: one moment of the store, whatever is written meanwhile. Verified: read back and compared with the store as
/// it was at that moment. For the owner alone.
///
/// # Errors
/// [`TransferError`]; then there is no new back-up, and at most a directory `….partial` beside.
pub fn backup(
    place: &Place,
    to: &Path,
    asked: &Asked,
    tell: &mut dyn FnMut(Progress),
) -> Result<(PathBuf, Vec<Counted>), TransferError> {
    let to = if to.is_dir() { to.join(name(asked)) } else { to.to_owned() };
    let partial = Partial::beside(&to)?;
    let source = Side::source(place)?;
    source.hold()?;
    let counted = match &source.db {
        Connection::Sqlite(pages) => from_file(&source, pages, &partial)?,
        Connection::Postgres(_) => from_server(&source, &partial, asked, tell)?,
    };
    partial.put_in_place()?;
    Ok((to, counted))
}

fn name(asked: &Asked) -> String {
    let at = Timestamp::from_millisecond(asked.at.0).unwrap_or_default();
    format!("peil-{}.db", at.strftime("%Y%m%dT%H%M%SZ"))
}

/// Page by page; what was counted in the same transaction must be there.
fn from_file(source: &Side, pages: &rusqlite::Connection, partial: &Partial) -> Result<Vec<Counted>, TransferError> {
    let rows = |side: &Side| -> Result<Vec<u64>, TransferError> {
        let counts = kept().map(|table| count(&side.db, table.name)).collect::<db::Result<_>>();
        counts.map_err(|error| failed("count rows")(error.into()))
    };
    let path = partial.make_file()?;
    let cannot = |source: rusqlite::Error| StoreError::Open { path: path.clone(), source: source.into() };
    let wanted = rows(source)?;
    sqlite::copy_pages(pages, &path).map_err(cannot)?;
    let file = Side::file(&path)?;
    file.hold()?;
    check::check(&file)?;
    let counted = copy::sums(&file)?;
    for (counted, wanted) in counted.iter().zip(wanted) {
        if counted.rows != wanted {
            let (target, from) = (file.name.clone(), source.name.clone());
            return Err(TransferError::Differs { table: counted.table, target, from });
        }
    }
    Ok(counted)
}

/// Row by row; the digests of both sides must agree.
fn from_server(
    source: &Side,
    partial: &Partial,
    asked: &Asked,
    tell: &mut dyn FnMut(Progress),
) -> Result<Vec<Counted>, TransferError> {
    let target = Side::target(&Place::Directory(partial.dir().to_owned()))?;
    target.take_for(&source.name)?;
    copy::fill(source, &target, tell)?;
    let counted = copy::compare(source, &target)?;
    target.finish(asked, None)?;
    if let Connection::Sqlite(db) = &target.db {
        let path = partial.file();
        sqlite::without_log(db).map_err(|source| StoreError::Open { path, source: source.into() })?;
    }
    drop(target);
    let file = Side::file(&partial.file())?;
    file.hold()?;
    check::check(&file)?;
    Ok(counted)
}
