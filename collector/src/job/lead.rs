//! Which part of the work is this collector's: tends its leases, and tells the other collectors who is connected here.
//!
//! Every collector folds all blocks and answers for all of them; who may *write* what follows from a lane, and who
//! raises and delivers alerts, is decided by leases in the database ([`crate::store::leases`]). A collector that cannot
//! reach the database any more holds on to what it had until the lease is over, then stops by itself; should it stand
//! still meanwhile, the database refuses what it writes afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use peil_proto::ids::AgentId;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::presence::Presence;
use crate::store::leases::{CollectorRow, Duty, Held, Holder, LEASE};
use crate::store::{Store, StoreError};

/// Connections are told this often where others want to know.
const BEAT: Duration = Duration::from_secs(1);
/// Leases are tended this often: four chances before one is over.
const TEND_EVERY: Duration = Duration::from_secs(5);

/// What this collector may do now.
#[derive(Debug, Clone)]
pub struct Led {
    /// Its leases.
    pub held: Held,
    /// Ids of the collectors that are here.
    pub here: BTreeSet<String>,
    /// Before what was tended last: it holds no longer than [`LEASE`] after this.
    since: Instant,
}

impl Led {
    /// What tending found at `since`, a moment before it was asked.
    pub fn new(held: Held, here: BTreeSet<String>, since: Instant) -> Self {
        Self { held, here, since }
    }

    /// Whether alerts are this collector's to raise and deliver, at this moment.
    pub fn alerts(&self) -> bool {
        self.held.epoch(Duty::Alerts).is_some() && self.since.elapsed() < LEASE.to_duration()
    }
}

/// Asked by the other jobs.
pub type Leading = watch::Receiver<Arc<Led>>;

/// The job.
pub struct Lead {
    store: Store,
    holder: Holder,
    me: CollectorRow,
    presence: Presence,
    publish: watch::Sender<Arc<Led>>,
    /// Connections the database knows of.
    noted: BTreeSet<AgentId>,
}

impl Lead {
    /// Takes what is to be had now, before any other job begins.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn start(
        store: Store,
        holder: Holder,
        me: CollectorRow,
        presence: Presence,
    ) -> Result<(Self, Leading), StoreError> {
        if store.is_shared() {
            store.forget_connections(&holder.id).await?;
        }
        let nothing = Led::new(Held::nothing(holder.clone()), BTreeSet::new(), Instant::now());
        let (publish, leading) = watch::channel(Arc::new(nothing));
        let mut lead = Self { store, holder, me, presence, publish, noted: BTreeSet::new() };
        lead.tend().await?;
        Ok((lead, leading))
    }

    /// Runs until `stop`, then lets go of everything.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut tend_at = Instant::now() + TEND_EVERY;
        let mut failing = false;
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                () = stop.cancelled() => break,
            }
            let outcome = if Instant::now() >= tend_at {
                tend_at = Instant::now() + TEND_EVERY;
                self.tend().await
            } else {
                self.note_connections().await
            };
            if let Err(cause) = &outcome
                && !failing
            {
                warn!(cause = %crate::chain(cause), "leases cannot be tended; trying again every five seconds");
            }
            failing = outcome.is_err();
        }
        if let Err(cause) = self.store.leave(self.holder.clone()).await {
            warn!(cause = %crate::chain(&cause), "leases were not let go; they are free in {} s", LEASE.0 / 1_000);
        }
    }

    /// One round of leases.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn tend(&mut self) -> Result<(), StoreError> {
        let since = Instant::now();
        let tended = self.store.tend_leases(self.holder.clone(), self.me.clone()).await?;
        let here: BTreeSet<String> = tended.here.into_iter().map(|row| row.id).collect();
        let before = self.publish.borrow().clone();
        if before.here != here || before.held != tended.held {
            info!(leases = tended.held.len(), collectors = here.len(), "leases tended");
        }
        self.publish.send_replace(Arc::new(Led::new(tended.held, here, since)));
        Ok(())
    }

    /// Tells the database who came and who left since the last time; nobody else asks where it is not shared.
    async fn note_connections(&mut self) -> Result<(), StoreError> {
        if !self.store.is_shared() {
            return Ok(());
        }
        let contacts = self.presence.contacts();
        let now: BTreeSet<_> =
            contacts.into_iter().filter(|(_, seen)| seen.connected).map(|(agent, _)| agent).collect();
        let (came, left): (Vec<_>, Vec<_>) =
            (now.difference(&self.noted).copied().collect(), self.noted.difference(&now).copied().collect());
        if came.is_empty() && left.is_empty() {
            return Ok(());
        }
        self.store.note_connections(&self.holder.id, came, left).await?;
        self.noted = now;
        Ok(())
    }
}
