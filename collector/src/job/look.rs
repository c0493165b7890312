//! A look at the store now and then, for `/metrics`: how far watermarks are behind, leases, what is unsent, how durable.
//!
//! Looks at what `doctor` looks at, changes nothing, so running twice is harmless. Every half minute, whoever scrapes
//! how often: the questions are small, but some go over every lease and every lane.

use std::sync::Arc;
use std::time::Duration;

use peil_proto::time::WallClock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::beat::Beat;
use crate::store::survey::Survey;
use crate::store::{Store, StoreError};

const EVERY: Duration = Duration::from_secs(30);

/// The newest survey; nothing before the first one, and while none succeeds.
pub type Surveyed = watch::Receiver<Option<Arc<Survey>>>;

/// The job.
pub struct Look {
    store: Store,
    clock: WallClock,
    publish: watch::Sender<Option<Arc<Survey>>>,
}

impl Look {
    /// The job, and where its surveys are found.
    pub fn new(store: Store, clock: WallClock) -> (Self, Surveyed) {
        let (publish, surveyed) = watch::channel(None);
        (Self { store, clock, publish }, surveyed)
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut beat = Beat::every(EVERY, stop);
        while beat.next().await {
            let done = self.activate().await;
            beat.tell(done, "the store cannot be looked at; trying again every half minute");
        }
    }

    /// One look. One that fails takes the last one away: an old figure would look like a new one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn activate(&self) -> Result<(), StoreError> {
        let survey = self.store.survey(self.clock.clone()).await.map(Arc::new);
        self.publish.send_replace(survey.as_ref().ok().cloned());
        survey.map(drop)
    }
}
