//! Stored values against the blocks: a sample every night, all of them when an operator asks (`rebuild`).
//!
//! It looks at compacted days, derives them anew and compares with what is stored of their hours, days and states; and
//! adds up the stored days of each month. A difference is damage, a bug or a hand in the database: the nightly run
//! tells it in the snapshot, from which an alert follows. It writes nothing, so running twice is harmless; `rebuild
//! --write` overwrites, in one transaction per day.
//!
//! What is still changing by itself (an hour to be derived, a late block to be compacted) is passed over, and so is what
//! retention may have removed. States are compared under the rhythm they were derived under, so a changed interval is no
//! difference.
//!
//! Limits: [`SAMPLE`] days a night. Days whose raw data are gone cannot be verified any more.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use peil_proto::ids::AgentId;
use peil_proto::time::{UtcDay, UtcTime, WallClock};
use peil_proto::units::Millis;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::beat::Beat;
use super::derive::rows;
use super::history;
use super::lead::Leading;
use super::progress::{Tell, Verified};
use crate::agreement::InForce;
use crate::derive::period::Period;
use crate::derive::{Derived, Difference, Fold, Holds, Seen, diff, results_of};
use crate::store::latency::{PeriodRow, PieceRow};
use crate::store::retention::Kind;
use crate::store::{Store, StoreError};

const EVERY: Duration = Duration::from_secs(600);
/// Days of agents looked at in a night: with twenty checks each, a few seconds of work.
const SAMPLE: usize = 50;
/// Compacted days listed at a time.
const LISTED: u32 = 1_000;

/// What is compared, and with what.
#[derive(Debug, Clone)]
pub struct Verify {
    /// Blocks and what is stored of them.
    pub store: Store,
    /// How long a sample of each check holds.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// How long each kind is kept: what may be gone is not missed.
    pub kept: BTreeMap<Kind, Millis>,
}

/// A day that was looked at.
#[derive(Debug)]
pub struct Checked {
    /// What does not follow from the blocks.
    pub differences: Vec<Difference>,
    version: u32,
    fresh: Derived,
    holds: Holds,
}

impl Verify {
    /// Compares one day of one agent; `None` while it may still change by itself.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn day(&self, agent: AgentId, day: UtcDay, now: UtcTime) -> Result<Option<Checked>, StoreError> {
        let _still = self.store.hold_still().await;
        let before = self.store.day_blocks(agent, BTreeSet::from([day])).await?;
        let Some(version) = before.iter().find(|row| row.check.is_none()).map(|row| row.version) else {
            return Ok(None);
        };
        let pieces = self.store.state_pieces(agent, day, day.next()).await?;
        let hours = self.store.latency_hours(Some(agent), day.start(), day.next().start()).await?;
        let days = self.store.latency_days(Some(agent), day, day.next()).await?;
        let holds = self.holds_of(&pieces);
        let mut fold = Fold::default();
        for block in before.iter().filter_map(history::opened) {
            results_of(&block).iter().for_each(|sample| fold.sample(agent, sample));
        }
        let mut whole = fold.finish(&holds);
        whole.seen.values_mut().for_each(|seen| seen.months.clear());
        let (mut fresh, mut stored) = (whole.clone(), rows::derived(&hours, &days, &pieces).map_err(damaged)?);
        for seen in fresh.seen.values_mut().chain(stored.seen.values_mut()) {
            self.forget_what_may_be_gone(seen, day, now);
        }
        let differences = diff(&stored, &fresh);
        if !differences.is_empty() {
            let after = self.store.day_blocks(agent, BTreeSet::from([day])).await?;
            if after != before || self.store.is_unsettled(agent, day).await? {
                return Ok(None);
            }
        }
        Ok(Some(Checked { differences, version, fresh: whole, holds }))
    }

    /// Compares one month of one agent with the sum of its stored days.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn month(&self, agent: AgentId, first: UtcDay, now: UtcTime) -> Result<Vec<Difference>, StoreError> {
        if self.may_be_gone(Kind::Daily, first, now) {
            return Ok(Vec::new());
        }
        let _still = self.store.hold_still().await;
        let next = UtcDay(first.0 + 31).month_start();
        let (mut stored, mut fresh) = (Derived::default(), Derived::default());
        for row in self.store.latency_months(Some(agent), first, first.next()).await? {
            let months = &mut stored.seen.entry((agent, row.check)).or_default().months;
            months.insert(first, opened(&row)?);
        }
        for row in self.store.latency_days(Some(agent), first, next).await? {
            let months = &mut fresh.seen.entry((agent, row.check)).or_default().months;
            months.entry(first).or_default().add(&opened(&row)?);
        }
        Ok(diff(&stored, &fresh))
    }

    /// Overwrites what is stored of a day, and of its month, with what follows from its blocks. False when it was
    /// compacted meanwhile.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn repair(&self, agent: AgentId, day: UtcDay, checked: Checked) -> Result<bool, StoreError> {
        let Checked { version, fresh, holds, .. } = checked;
        let mut derived = rows::days(agent, &fresh, vec![day], &holds);
        let first = day.month_start();
        let mut sums: BTreeMap<_, Period> = BTreeMap::new();
        for row in self.store.latency_days(Some(agent), first, UtcDay(first.0 + 31).month_start()).await? {
            if row.from != day {
                sums.entry(row.check).or_default().add(&opened(&row)?);
            }
        }
        for ((_, check), seen) in &fresh.seen {
            seen.days.values().for_each(|value| sums.entry(*check).or_default().add(&value.period));
        }
        derived.months = sums.iter().map(|(check, sum)| rows::period(agent, *check, first, sum)).collect();
        let hours = fresh.seen.iter().flat_map(|((_, check), seen)| {
            seen.hours.iter().map(|(start, hour)| rows::hour(agent, *check, *start, hour))
        });
        let hours = hours.collect();
        self.store.repair_day((agent, day, version), derived, hours).await
    }

    /// The rhythm under which states were derived where there are any, else that of today.
    fn holds_of(&self, pieces: &[PieceRow]) -> Holds {
        let mut holds = self.in_force.borrow().holds();
        holds.extend(pieces.iter().map(|piece| (piece.check, piece.hold)));
        holds
    }

    fn forget_what_may_be_gone(&self, seen: &mut Seen, day: UtcDay, now: UtcTime) {
        if self.may_be_gone(Kind::Hourly, day, now) {
            seen.hours.clear();
        }
        if self.may_be_gone(Kind::Daily, day, now) {
            seen.days.clear();
        }
    }

    /// Retention runs at another moment than this, so a day early.
    fn may_be_gone(&self, kind: Kind, day: UtcDay, now: UtcTime) -> bool {
        self.kept.get(&kind).is_some_and(|age| day <= now.plus(Millis(-age.0)).day().next())
    }
}

fn opened(row: &PeriodRow) -> Result<Period, StoreError> {
    rows::opened(row).map_err(damaged)
}

fn damaged<E>(_: E) -> StoreError {
    StoreError::Damaged { what: "a histogram of times" }
}

/// The job.
pub struct Nightly {
    /// What is compared.
    pub verify: Verify,
    /// Wall clock.
    pub clock: WallClock,
    /// Of several collectors the one that alerts verifies.
    pub leading: Leading,
    /// Where the outcome goes.
    pub progress: Tell,
}

impl Nightly {
    /// Runs until `stop`: after a start, and then once a day.
    pub async fn run(self, stop: CancellationToken) {
        let mut beat = Beat::every(EVERY, stop);
        while beat.next().await {
            let Some(done) = beat.during(self.activate()).await else { return };
            beat.tell(done, "stored values could not be verified; trying again every ten minutes");
        }
    }

    /// One round: nothing when today's is done, or when it is another collector's.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn activate(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let done = self.progress.borrow().verified.as_ref().is_some_and(|last| last.at.day() == now.day());
        if done || !self.leading.borrow().alerts() {
            return Ok(());
        }
        let mut verified = Verified { at: now, ..Verified::default() };
        let mut months = BTreeSet::new();
        for (day, agent) in self.sample(now).await? {
            if let Some(checked) = self.verify.day(agent, day, now).await? {
                verified.days += 1;
                note(&mut verified, &checked.differences);
            }
            months.insert((agent, day.month_start()));
        }
        for (agent, month) in months {
            note(&mut verified, &self.verify.month(agent, month, now).await?);
        }
        info!(days = verified.days, differences = verified.differences, "stored values were compared with the blocks");
        self.progress.send_modify(|progress| progress.verified = Some(verified));
        Ok(())
    }

    /// Days spread over all that are compacted, others every night.
    async fn sample(&self, now: UtcTime) -> Result<Vec<(UtcDay, AgentId)>, StoreError> {
        let all = every_day(&self.verify.store).await?;
        let step = all.len().div_ceil(SAMPLE).max(1);
        let offset = usize::try_from(now.day().0).unwrap_or(0) % step;
        Ok(all.into_iter().skip(offset).step_by(step).collect())
    }
}

fn note(verified: &mut Verified, differences: &[Difference]) {
    for difference in differences {
        error!(%difference, "a stored value does not follow from the blocks");
        if verified.first.is_empty() {
            verified.first = difference.to_string();
        }
    }
    verified.differences += differences.len();
}

/// Every compacted day of every agent, the newest first.
///
/// # Errors
/// When the store cannot be read.
pub async fn every_day(store: &Store) -> Result<Vec<(UtcDay, AgentId)>, StoreError> {
    let mut all = Vec::new();
    loop {
        let page = store.compacted_days(all.last().copied(), LISTED).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}
