//! What is old enough goes: each kind at its own age, a few rows at a time.
//!
//! It looks at the clock and the ages, writes nothing, and removes; what is gone is gone the second time as well. A step is
//! one short transaction of [`ROWS`] rows per table, and between two steps whoever waits for the writer comes first.

use std::collections::BTreeMap;
use std::time::Duration;

use peil_proto::time::WallClock;
use peil_proto::units::Millis;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::beat::Beat;
use super::lead::Leading;
use crate::store::retention::Kind;
use crate::store::{Store, StoreError};

const EVERY: Duration = Duration::from_secs(600);
/// Rows of a table removed in one transaction: some ms.
const ROWS: u32 = 500;

/// The job.
pub struct Retain {
    /// What is removed from.
    pub store: Store,
    /// Wall clock.
    pub clock: WallClock,
    /// Of several collectors the one that alerts removes, too; should two do it, it does no harm.
    pub leading: Leading,
    /// How long each kind is kept; one that is missing is kept for ever.
    pub ages: BTreeMap<Kind, Millis>,
}

impl Retain {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut beat = Beat::every(EVERY, stop);
        while beat.next().await {
            let Some(done) = beat.during(self.activate()).await else { return };
            beat.tell(done, "old data stays for now; trying again every ten minutes");
        }
    }

    /// One round: everything that is old enough goes.
    ///
    /// # Errors
    /// When the store cannot be written. What went before has gone.
    pub async fn activate(&self) -> Result<(), StoreError> {
        if !self.leading.borrow().alerts() {
            return Ok(());
        }
        for (kind, age) in &self.ages {
            let before = self.clock.now().plus(Millis(-age.0)).day();
            let mut gone = 0;
            loop {
                let rows = self.store.prune(*kind, before, ROWS).await?;
                gone += rows;
                if rows == 0 {
                    break;
                }
            }
            if gone > 0 {
                info!(kind = kind.word(), rows = gone, %before, "what was old enough is gone");
            }
        }
        Ok(())
    }
}
