//! The way to the collector: connect, greet, stream, wait, again. One connection at a time, always outward.
//!
//! Probing knows nothing of this. While the collector is away the spool grows; when it is back the
//! session goes on after the collector's own mark, so nothing is lost and nothing doubled. Waits between
//! attempts have full jitter; the collector's `retry_after` wins over ours. At two thirds of its life the
//! certificate is renewed over the open connection, and when the collector asks for it, because it replaces its authority.
//! Then the connection is made anew with the new one: the collector sees that this host has moved, and no connection
//! outlives the certificate it was made with, for that one cannot be renewed any more.

pub mod backoff;
pub mod connect;
mod quarantine;
pub mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peil_proto::time::WallClock;
use peil_proto::units::Millis;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{debug, error, info, warn};

use crate::enrol;
use crate::identity::{Identity, Standing};
use crate::local_checks::LocalChecks;
use crate::recorder::Chain;
use backoff::{Backoff, HEALTHY_AFTER};
use session::{SessionError, Uplink};

/// A renewal that failed is tried again after this.
const RENEWAL_RETRY: Duration = Duration::from_secs(600);
/// After a renewal that the collector asked for, its next wish is heard no sooner than this: collectors that disagree
/// must not keep a host busy.
const WISH_PAUSE: Duration = Duration::from_secs(10);
/// Longest time over which the collector may spread a renewal; a longer one is cut to it.
const WISH_SPREAD_MAX: Duration = Duration::from_secs(3_600);
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
    /// Checks of the host's own.
    pub local: LocalChecks,
    /// When a renewal was last made because the collector asked for it.
    pub wish_heard: Option<Instant>,
}

/// Why an attempt ended without trouble.
enum Ended {
    /// We are stopping.
    Stopped,
    /// There is another certificate to connect with, or the host's own checks are others.
    Again,
}

/// Waits until the collector asks for a renewal; gives a moment within the time that it may take.
async fn wished(wish: &mut watch::Receiver<Option<Millis>>) -> Duration {
    match wish.wait_for(Option::is_some).await.map(|within| *within) {
        Ok(within) => {
            let within = within.unwrap_or_default().to_duration().min(WISH_SPREAD_MAX);
            within.mul_f64(f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX))
        }
        // Nobody is left who could ask.
        Err(_) => std::future::pending().await,
    }
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
            let ended = self.attempt(&stop).await;
            if started.elapsed() >= HEALTHY_AFTER {
                backoff.reset();
                told.clear();
            }
            match ended {
                Ok(Ended::Stopped) => break,
                Ok(Ended::Again) => continue,
                Err(error) => {
                    if let Some(SessionError::RetryAfter { after, .. }) = error.downcast_ref() {
                        wait = *after;
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

    async fn attempt(&mut self, stop: &CancellationToken) -> anyhow::Result<Ended> {
        let config = Arc::new(self.identity.client_config(&self.clock)?);
        let channel = tokio::select! {
            channel = connect::connect(&self.collector, config, connect::Timeouts::default()) => channel?,
            () = stop.cancelled() => return Ok(Ended::Stopped),
        };
        self.uplink.trusted = self.identity.trusted();
        let (local, stamp) = (self.local.clone(), self.local.stamp());
        self.uplink.local = local.read();
        let wish = self.uplink.renew.subscribe();
        self.uplink.renew.send_replace(None);
        let uplink = self.uplink.clone();
        tokio::select! {
            ended = session::run(&uplink, channel.clone(), stop) => ended.map(|()| Ended::Stopped).map_err(Into::into),
            () = self.keep_renewed(channel, wish) => Ok(Ended::Again),
            () = local.changed_since(&stamp) => Ok(Ended::Again),
        }
    }

    /// Renews the certificate when it is time or the collector asks for it, over the open connection; ends when that is
    /// done.
    async fn keep_renewed(&mut self, channel: Channel, mut wish: watch::Receiver<Option<Millis>>) {
        loop {
            let left = self.identity.renew_at().since(self.clock.now());
            let mut asked = false;
            if left.0 > 0 {
                tokio::select! {
                    () = tokio::time::sleep(left.to_duration().min(RENEWAL_LOOK)) => continue,
                    within = wished(&mut wish) => {
                        let pause = self.wish_heard.map_or(Duration::ZERO, |at| WISH_PAUSE.saturating_sub(at.elapsed()));
                        tokio::time::sleep(pause + within).await;
                        self.wish_heard = Some(Instant::now());
                        asked = true;
                    }
                }
            }
            match enrol::renew(channel.clone(), &self.identity, &self.identity_dir, &self.clock).await {
                Ok(renewed) => {
                    info!(not_after = %renewed.not_after(), asked, "certificate renewed");
                    self.identity = renewed;
                    return;
                }
                Err(cause) => {
                    warn!(cause = %Chain(cause.as_ref()), days_left = self.identity.days_left(self.clock.now()), "certificate not renewed; trying again in ten minutes");
                    tokio::time::sleep(RENEWAL_RETRY).await;
                }
            }
        }
    }
}
