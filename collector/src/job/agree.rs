//! What was applied comes into force: stored versions to the agreement everybody works with.
//!
//! `peil-collector apply` and the API write versions to the store, perhaps from another process. This job asks every
//! five seconds whether there are new ones, makes the agreement anew and gives numbers to new checks. Running twice
//! makes the same value twice. An agreement this program cannot read (a newer one wrote it) is told once, and the one
//! before stays in force.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::beat::Beat;
use crate::agreement::{Agreement, InForce};
use crate::config::Config;
use crate::store::objects::Generation;
use crate::store::{Store, StoreError};

const EVERY: Duration = Duration::from_secs(5);

/// The job.
pub struct Agree {
    /// Versions and numbers.
    pub store: Store,
    /// What the settings file says.
    pub config: Config,
    /// Where the agreement goes.
    pub publish: watch::Sender<Arc<InForce>>,
    /// What was read last.
    pub seen: Generation,
}

/// Why there is no new agreement.
#[derive(Debug, thiserror::Error)]
pub enum AgreeError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was applied makes no sense.
    #[error("what was applied cannot be brought into force")]
    Refused(#[from] peil_proto::settings::Refused),
}

impl Agree {
    /// The agreement as it stands, and its generation.
    ///
    /// # Errors
    /// [`AgreeError`].
    pub async fn read(store: &Store, config: &Config) -> Result<(InForce, Generation), AgreeError> {
        let (generation, versions) = store.object_versions().await?;
        let agreement = Agreement::new(config, &versions)?;
        let numbers = store.assign_checks(agreement.check_names()).await?;
        Ok((InForce { agreement, numbers }, generation))
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut beat = Beat::every(EVERY, stop);
        while beat.next().await {
            let done = self.activate().await;
            beat.tell(done, "the agreement stays as it was; trying again every five seconds");
        }
    }

    /// One round.
    ///
    /// # Errors
    /// [`AgreeError`]; the agreement stays as it was.
    pub async fn activate(&mut self) -> Result<(), AgreeError> {
        if self.store.object_generation().await? == self.seen {
            return Ok(());
        }
        let (in_force, generation) = Self::read(&self.store, &self.config).await?;
        self.publish.send_replace(Arc::new(in_force));
        self.seen = generation;
        info!(versions = generation.0, "the agreement was read again");
        Ok(())
    }
}
