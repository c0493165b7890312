//! What is kept of a period, compacted days first.
//!
//! Whoever reads days and then blocks does it within [`Whole`], so that no record is met twice or missed.

use peil_proto::block::day::{self, DayBlock, DayError, Skimmed};
use peil_proto::ids::AgentId;
use peil_proto::time::{UtcDay, UtcTime};
use tracing::{error, info};

use crate::derive::Came;
use crate::store::blocks::{BlockLimit, StoredBlock, Through};
use crate::store::days::{DayRow, Still};
use crate::store::{Store, StoreError};

/// Bytes of day blocks read at a time: a million results.
const PAGE_BYTES: usize = 8 << 20;

/// A reading of days and blocks that is to be whole: while it lasts this process compacts nothing, and at its end it
/// tells whether another collector did.
pub(crate) struct Whole<'s> {
    store: &'s Store,
    steps_before: i64,
    _still: Still,
}

impl<'s> Whole<'s> {
    pub(crate) async fn begin(store: &'s Store) -> Result<Self, StoreError> {
        let still = store.hold_still().await;
        Ok(Self { store, steps_before: store.compactions().await?, _still: still })
    }

    /// Whether what was read since it began is whole; otherwise it begins anew, and so must the reader, from nothing.
    pub(crate) async fn is_whole(&mut self) -> Result<bool, StoreError> {
        let before = std::mem::replace(&mut self.steps_before, self.store.compactions().await?);
        if before != self.steps_before {
            info!("another collector compacted blocks that were being read; they are read again");
        }
        Ok(before == self.steps_before)
    }
}

/// Every compacted day from `since` on, by agent and in order of time. One that cannot be read is told and passed over:
/// its time is unknown.
pub(crate) async fn each_day(
    store: &Store,
    since: UtcDay,
    visit: impl FnMut(AgentId, DayBlock),
) -> Result<(), StoreError> {
    each_row(store, since, opened, visit).await
}

/// As [`each_day`], of those blocks only that are `wanted`, and of them what a figure is made from.
pub(crate) async fn skim_days(
    store: &Store,
    since: UtcDay,
    wanted: impl Fn(&DayRow) -> bool,
    visit: impl FnMut(AgentId, Skimmed),
) -> Result<(), StoreError> {
    let skimmed = |row: &DayRow| wanted(row).then(|| day::skim(&row.bytes).map_err(|cause| tell(row, cause)).ok());
    each_row(store, since, |row| skimmed(row).flatten(), visit).await
}

async fn each_row<T>(
    store: &Store,
    since: UtcDay,
    read: impl Fn(&DayRow) -> Option<T>,
    mut visit: impl FnMut(AgentId, T),
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = store.day_blocks_from(since, after, PAGE_BYTES).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.key());
        for row in &page {
            if let Some(read) = read(row) {
                visit(row.agent, read);
            }
        }
    }
}

/// Every block as it came that reaches `since`, in the order of the log: of those inside the cut, or of all there are.
pub(crate) async fn each_block(
    store: &Store,
    since: UtcTime,
    cut: Option<&Through>,
    mut visit: impl FnMut(StoredBlock),
) -> Result<(), StoreError> {
    let mut at = Through::default();
    while !cut.is_some_and(|cut| at.covers_all(cut)) {
        let page = store.blocks_reaching(since, at.clone(), BlockLimit::default()).await?;
        if page.is_empty() {
            break;
        }
        for block in page {
            at.pass(block.id);
            if cut.is_none_or(|cut| cut.covers(block.id)) {
                visit(block);
            }
        }
    }
    Ok(())
}

/// The day block of a row; what cannot be read is told.
pub(crate) fn opened(row: &DayRow) -> Option<DayBlock> {
    day::decode(&row.bytes).map_err(|cause| tell(row, cause)).ok()
}

fn tell(row: &DayRow, cause: DayError) {
    let check = row.check.map(|check| check.0);
    error!(agent = %row.agent, day = %row.day, check, %cause, "a compacted day cannot be read; its time is unknown");
}

/// A stored block as the derivation takes it.
pub(crate) fn came(block: StoredBlock) -> Came {
    Came {
        place: block.id.no.unsigned_abs(),
        epoch: block.epoch,
        first: block.first,
        skip: block.skip,
        received_at: block.received_at,
        bytes: block.bytes,
    }
}
