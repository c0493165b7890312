//! Restoring: a back-up into an empty place, of either engine.

use std::path::Path;

use super::partial::Partial;
use super::side::Side;
use super::{Asked, Counted, Progress, TransferError, check, copy};
use crate::store::db::Connection;
use crate::store::{Place, StoreError, sqlite};

/// Fills the store at `place`, which must be empty, from the back-up `from`. What is in it by then.
///
/// The back-up is checked from end to end before anything is written, and what was written is read again. A directory
/// gets the file in one step, also from an older schema, which is brought up to date; a server is filled page by page,
/// and the same command goes on after it was ended.
///
/// # Errors
/// [`TransferError`]; a directory is untouched then, a server is empty or half filled and says so to collectors.
pub fn restore(
    from: &Path,
    place: &Place,
    asked: &Asked,
    tell: &mut dyn FnMut(Progress),
) -> Result<Vec<Counted>, TransferError> {
    let file = Side::file(from)?;
    file.hold()?;
    check::check(&file)?;
    match place {
        Place::Directory(dir) => into_directory(&file, dir, asked),
        Place::Server(_) => {
            file.require_schema()?;
            into_server(&file, place, asked, tell)
        }
    }
}

fn into_directory(file: &Side, dir: &Path, asked: &Asked) -> Result<Vec<Counted>, TransferError> {
    let to = sqlite::database_file(dir);
    let partial = Partial::beside(&to)?;
    if let Connection::Sqlite(pages) = &file.db {
        let path = partial.make_file()?;
        sqlite::copy_pages(pages, &path)
            .map_err(|source| StoreError::Open { path: path.clone(), source: source.into() })?;
    }
    let made = Side::target(&Place::Directory(partial.dir().to_owned()))?;
    check::check(&made)?;
    let counted = if file.is_ours()? { copy::compare(file, &made)? } else { copy::sums(&made)? };
    made.forget_collectors()?;
    made.finish(asked, Some(("store.restore", &file.name)))?;
    if let Connection::Sqlite(db) = &made.db {
        sqlite::without_log(db).map_err(|source| StoreError::Open { path: to.clone(), source: source.into() })?;
    }
    drop(made);
    partial.put_in_place()?;
    Ok(counted)
}

fn into_server(
    file: &Side,
    place: &Place,
    asked: &Asked,
    tell: &mut dyn FnMut(Progress),
) -> Result<Vec<Counted>, TransferError> {
    let target = Side::target(place)?;
    target.require_unused()?;
    target.take_for(&file.name)?;
    copy::fill(file, &target, tell)?;
    let counted = copy::compare(file, &target)?;
    target.finish(asked, Some(("store.restore", &file.name)))?;
    Ok(counted)
}
