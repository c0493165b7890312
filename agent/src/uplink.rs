//! The way to the collector: connect, greet, stream, wait, again. One connection at a time, always outward.
//!
//! Probing knows nothing of this. While the collector is away the spool grows; when it is back the
//! session goes on after the collector's own mark, so nothing is lost and nothing doubled. Waits between
//! attempts have full jitter; the collector's `retry_after` wins over ours. At two thirds of its life the
//! certificate is renewed over the open connection; the next connection uses the new one.

pub mod backoff;
pub mod connect;
mod quarantine;
pub mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peil_proto::time::WallClock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{debug, error, info, warn};

use crate::enrol;
use crate::identity::{Identity, Standing};
use crate::recorder::Chain;
use backoff::{Backoff, HEALTHY_AFTER};
use session::{SessionError, Uplink};

/// A renewal that failed is tried again after this.
const RENEWAL_RETRY: Duration = Duration::from_secs(600);
/// Longest sleep until a renewal; the wall clock is looked at again then.
const RENEWAL_LOOK: Duration = Duration::from_secs(3_600);

/// The task that keeps one stream open.
pub struct Link {
    /// What a session needs.
    pub uplink: Uplink,
    /// `https://host:port`.
    pub collector: String,
    /// The certificate in force.
    pub identity: Identity,
    /// Where it is kept.
    pub identity_dir: PathBuf,
    /// Wall clock.
    pub clock: WallClock,
}

impl Link {
    /// Runs until `stop`, then hands over what is durable and ends.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut told = String::new();
        let mut told_expired = false;
        while !stop.is_cancelled() {
            if let Standing::Expired { at } = self.identity.standing(self.clock.now())
                && !std::mem::replace(&mut told_expired, true)
            {
                error!(%at, "this host's certificate has expired; records wait in the spool: make a token with `peil-collector token create` and run `peil-agent enroll --again`");
            }
            let started = Instant::now();
            let mut wait = Duration::ZERO;
            match self.attempt(&stop).await {
                Ok(()) => break,
                Err(error) => {
                    if let Some(SessionError::RetryAfter { after, .. }) = error.downcast_ref() {
                        wait = *after;
                    }
                    if started.elapsed() >= HEALTHY_AFTER {
                        backoff.reset();
                        told.clear();
                    }
                    // A collector that is away for a day is told once, not once a minute.
                    let cause = Chain(error.as_ref()).to_string();
                    self.uplink.board.disconnected(&cause);
                    if cause == told {
                        debug!(cause, "still not connected to the collector");
                    } else {
                        warn!(cause, "not connected to the collector; records wait in the spool");
                        told = cause;
                    }
                }
            }
            let jittered = backoff.next_wait(getrandom::u64().unwrap_or(1));
            tokio::select! {
                () = tokio::time::sleep(wait + jittered) => {}
                () = stop.cancelled() => {}
            }
        }
        info!("uplink stopped");
    }

    async fn attempt(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let config = Arc::new(self.identity.client_config(&self.clock)?);
        let channel = tokio::select! {
            channel = connect::connect(&self.collector, config, connect::Timeouts::default()) => channel?,
            () = stop.cancelled() => return Ok(()),
        };
        let uplink = self.uplink.clone();
        tokio::select! {
            ended = session::run(&uplink, channel.clone(), stop) => Ok(ended?),
            never = self.keep_renewed(channel) => match never {},
        }
    }

    /// Renews the certificate when it is time, over the open connection, for as long as that lives.
    async fn keep_renewed(&mut self, channel: Channel) -> std::convert::Infallible {
        loop {
            let left = self.identity.renew_at().since(self.clock.now());
            if left.0 > 0 {
                tokio::time::sleep(left.to_duration().min(RENEWAL_LOOK)).await;
                continue;
            }
            match enrol::renew(channel.clone(), &self.identity, &self.identity_dir, &self.clock).await {
                Ok(renewed) => {
                    info!(not_after = %renewed.not_after(), "certificate renewed");
                    self.identity = renewed;
                }
                Err(cause) => {
                    warn!(cause = %Chain(cause.as_ref()), days_left = self.identity.days_left(self.clock.now()), "certificate not renewed; trying again in ten minutes");
                    tokio::time::sleep(RENEWAL_RETRY).await;
                }
            }
        }
    }
}
