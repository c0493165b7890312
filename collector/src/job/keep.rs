//! Small upkeep: revocations made elsewhere come into force, old sessions go, certificates stay fresh.
//!
//! `peil-collector agent revoke` writes to the store from another process; within five seconds the open
//! stream is ended and the next handshake refused. The same holds for `ca rotate` and `ca retire`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peil_proto::time::WallClock;
use peil_proto::units::Millis;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::access::SESSION_IDLE;
use crate::agreement::InForce;
use crate::pki::Authorities;
use crate::plans::{Plans, placed};
use crate::presence::Presence;
use crate::store::{Store, StoreError};
use crate::tls::{Admission, LiveCertificate};

const EVERY: Duration = Duration::from_secs(5);

/// The job.
pub struct Keep {
    /// Agents and sessions.
    pub store: Store,
    /// Asked at every handshake.
    pub admission: Admission,
    /// Ends open streams.
    pub presence: Presence,
    /// Wall clock.
    pub clock: WallClock,
    /// Directory of the authorities.
    pub pki: PathBuf,
    /// Told when another command replaces the authority. The one in force renews the server certificate at two thirds of
    /// its life.
    pub authorities: Arc<watch::Sender<Arc<Authorities>>>,
    /// The certificate in use.
    pub certificate: LiveCertificate,
    /// Names in it.
    pub names: Vec<String>,
    /// Told when an agent with a group enrols, and when a host has other labels.
    pub plans: Arc<watch::Sender<Arc<Plans>>>,
    /// What was agreed: the checks agents run.
    pub in_force: watch::Receiver<Arc<InForce>>,
}

impl Keep {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut beat = interval(EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The same trouble is told once, not every five seconds.
        let mut told = String::new();
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                () = stop.cancelled() => return,
            }
            let upkeep = self.activate().await.err().map(|cause| crate::chain(&cause));
            let trust = match upkeep {
                Some(trouble) => Err(trouble),
                // The server's certificate is kept fresh also while files of the next authority are missing.
                None => {
                    let followed = self.follow_authorities().await;
                    followed.and(self.renew_certificate())
                }
            };
            let trouble = trust.err().unwrap_or_default();
            if !trouble.is_empty() && trouble != told {
                warn!(cause = trouble, "upkeep failed; trying again every five seconds");
            }
            told = trouble;
        }
    }

    /// One round. Also run before the ports open, so that a revoked agent is refused from the first handshake.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn activate(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let agents = self.store.agents().await?;
        let revoked: Vec<_> = agents.iter().filter(|row| row.revoked_at.is_some()).map(|row| row.agent).collect();
        for agent in revoked {
            self.admission.revoke(agent);
            self.presence.expel(agent);
        }
        let in_force = Arc::clone(&self.in_force.borrow());
        let plans = Plans::new(&in_force.agreement.checks_at(now), &in_force.numbers, placed(agents));
        self.plans.send_if_modified(|current| {
            let changed = **current != plans;
            if changed {
                *current = Arc::new(plans);
            }
            changed
        });
        self.store.expire_sessions(now, now.plus(Millis(-SESSION_IDLE.0))).await?;
        self.keep_clocks().await
    }

    /// Writes down how far clocks were off when agents greeted.
    async fn keep_clocks(&self) -> Result<(), StoreError> {
        let seen = self.presence.take_clocks();
        if seen.is_empty() {
            return Ok(());
        }
        let kept = self.store.note_clocks(seen.clone()).await;
        if kept.is_err() {
            self.presence.give_back_clocks(seen);
        }
        kept
    }

    /// Takes up what `ca rotate` and `ca retire` decided, here or at another collector of this database.
    async fn follow_authorities(&self) -> Result<(), String> {
        let named = self.store.authorities().await.map_err(|cause| crate::chain(&cause))?;
        let Some(named) = named else { return Ok(()) };
        let current = Arc::clone(&self.authorities.borrow());
        if current.named() != named || current.lacks().is_some() {
            let found = Authorities::open(&self.pki, named, self.clock.now()).map_err(|cause| crate::chain(&cause))?;
            let lacks = found.lacks();
            if current.named() != named || lacks.is_none() {
                info!(in_force = %named.in_force, next = named.next.map(|next| next.to_string()), "took up other authorities");
                self.authorities.send_replace(Arc::new(found));
            }
            if let Some(next) = lacks {
                return Err(format!(
                    "agents are being moved to the authority {next}, and {} does not hold it: copy its two files from the collector where `ca rotate` was run",
                    self.pki.display()
                ));
            }
        }
        Ok(())
    }

    /// Puts the certificate in use that is right now; it is a new one at two thirds of the life of the last.
    fn renew_certificate(&self) -> Result<(), String> {
        let authorities = Arc::clone(&self.authorities.borrow());
        let renewed = authorities.in_force().server_certificate(&self.names, self.clock.now());
        let certificate = renewed.map_err(|cause| crate::chain(&cause))?;
        self.certificate.replace(certificate).map_err(|cause| crate::chain(&cause))
    }
}
