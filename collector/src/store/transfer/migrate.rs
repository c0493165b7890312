//! Moving to another engine, or another server: a store that stands still into an empty one.

use super::side::Side;
use super::{Asked, Counted, Progress, TransferError, copy};
use crate::store::Place;

/// Fills the store at `to`, which must be empty, from the one at `from`. No collector may run on either; agents lose
/// nothing meanwhile, their spools wait. Ended at any moment, the same call goes on where it was. What both hold.
///
/// The source is left as it is.
///
/// # Errors
/// [`TransferError`]; the target is then empty or half filled, and says so to collectors.
pub fn migrate(
    from: &Place,
    to: &Place,
    asked: &Asked,
    tell: &mut dyn FnMut(Progress),
) -> Result<Vec<Counted>, TransferError> {
    let source = Side::source(from)?;
    let target = Side::target(to)?;
    source.require_unused()?;
    target.require_unused()?;
    target.take_for(&source.name)?;
    source.hold()?;
    copy::fill(&source, &target, tell)?;
    source.release()?;
    // What a collector that was started meanwhile wrote is seen now: by its lease, or in the rows.
    source.require_unused()?;
    source.hold()?;
    let counted = copy::compare(&source, &target)?;
    target.finish(asked, Some(("store.migrate", &source.name)))?;
    Ok(counted)
}
