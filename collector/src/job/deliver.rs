//! The outbox to the receivers: at least once, in order per alert and channel, for as long as it takes.
//!
//! A failed attempt is noted with its reason and tried again after 1, 2, 4 … seconds, at most five minutes; nothing is
//! ever given up. Channels do not wait for each other. Channels that forget are told every minute what is open.

use std::collections::BTreeMap;
use std::time::Duration;

use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::alert::alertmanager::REFRESH_EVERY;
use crate::alert::{AlertKind, Event, Message, Sender};
use crate::store::alerts::AlertRow;
use crate::store::alerts::outbox::Delivery;
use crate::store::{Store, StoreError};

/// The beat without a nudge: retries come due.
const BEAT: Duration = Duration::from_secs(1);
/// Deliveries taken up at once.
const BATCH: u32 = 200;
/// Longest wait between attempts.
const RETRY_MAX: Millis = Millis(5 * Millis::MINUTE.0);

/// The job.
pub struct Deliver {
    /// The outbox.
    pub store: Store,
    /// By name of the channel.
    pub senders: BTreeMap<String, Arc<Sender>>,
    /// Wall clock.
    pub clock: WallClock,
    /// Base of links.
    pub public_url: String,
    /// Wakes this job.
    pub raised: Arc<Notify>,
}

impl Deliver {
    /// Runs until `stop`; an attempt under way is finished.
    pub async fn run(self, stop: CancellationToken) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut refreshed_at = UtcTime(0);
        loop {
            tokio::select! {
                () = self.raised.notified() => {}
                _ = beat.tick() => {}
                () = stop.cancelled() => return,
            }
            let now = self.clock.now();
            let refresh = now.since(refreshed_at) >= REFRESH_EVERY;
            if refresh {
                refreshed_at = now;
            }
            if let Err(cause) = self.activate(now, refresh).await {
                warn!(cause = %crate::chain(&cause), "the outbox cannot be read or written; trying again in a second");
            }
        }
    }

    async fn activate(&self, now: UtcTime, refresh: bool) -> Result<(), StoreError> {
        let due = self.store.deliveries_due(now, BATCH).await?;
        let mut by_channel: BTreeMap<String, Vec<Delivery>> = BTreeMap::new();
        for delivery in due {
            by_channel.entry(delivery.channel.clone()).or_default().push(delivery);
        }
        let mut channels = JoinSet::new();
        for (channel, deliveries) in by_channel {
            let Some(sender) = self.senders.get(&channel).cloned() else { continue };
            channels.spawn(send_all(
                self.store.clone(),
                sender,
                deliveries,
                self.public_url.clone(),
                self.clock.clone(),
            ));
        }
        let mut outcome = Ok(());
        while let Some(joined) = channels.join_next().await {
            if let Ok(Err(error)) = joined {
                outcome = Err(error);
            }
        }
        if refresh {
            self.refresh(now).await?;
        }
        outcome
    }

    async fn refresh(&self, now: UtcTime) -> Result<(), StoreError> {
        let open = self.store.alerts_open().await?;
        if open.is_empty() {
            return Ok(());
        }
        let messages: Vec<_> =
            open.iter().map(|alert| message(alert, Event::Firing, "refresh".to_owned(), &self.public_url)).collect();
        for sender in self.senders.values() {
            if let Err(cause) = sender.refresh(&messages, now).await {
                warn!(channel = sender.channel().name, cause = %crate::chain(&cause), "open alerts could not be repeated");
            }
        }
        Ok(())
    }
}

/// Sends what is due for one channel, in order; stops at the first failure so that order is kept.
async fn send_all(
    store: Store,
    sender: Arc<Sender>,
    deliveries: Vec<Delivery>,
    public_url: String,
    clock: WallClock,
) -> Result<(), StoreError> {
    for delivery in deliveries {
        let alert = &delivery.alert;
        let message = message(alert, delivery.event, delivery.dedup_key(), &public_url);
        match sender.send(&message, clock.now()).await {
            Ok(()) => {
                info!(key = alert.key, event = delivery.event.word(), channel = delivery.channel, "alert delivered");
                store.delivery_sent(delivery.id, clock.now()).await?;
            }
            Err(cause) => {
                let now = clock.now();
                let wait = Millis(1_000_i64.saturating_mul(1 << delivery.attempts.min(10))).min(RETRY_MAX);
                let why = crate::chain(&cause).to_string();
                warn!(
                    key = alert.key,
                    channel = delivery.channel,
                    attempt = delivery.attempts + 1,
                    cause = why,
                    "alert not delivered; trying again"
                );
                store.delivery_failed(delivery.id, now, &why, Some(now.plus(wait))).await?;
                return Ok(());
            }
        }
    }
    Ok(())
}

fn message(alert: &AlertRow, event: Event, delivery: String, public_url: &str) -> Message {
    let kind = [AlertKind::Outage, AlertKind::SlaBreach, AlertKind::PatchOverdue, AlertKind::AgentSilent];
    let kind = kind.into_iter().find(|kind| kind.word() == alert.kind);
    let path = match kind {
        Some(AlertKind::Outage | AlertKind::SlaBreach) => format!("/services/{}", alert.subject),
        Some(AlertKind::PatchOverdue | AlertKind::AgentSilent) => {
            alert.key.split_once('/').map_or(String::new(), |(_, agent)| format!("/hosts/{agent}"))
        }
        None => "/alerts".to_owned(),
    };
    Message {
        key: alert.key.clone(),
        kind: alert.kind.clone(),
        title: kind.map_or("PeilAlert", AlertKind::title).to_owned(),
        severity: alert.severity.clone(),
        subject: alert.subject.clone(),
        summary: alert.summary.clone(),
        action: alert.action.clone(),
        link: format!("{public_url}{path}"),
        opened_at: alert.opened_at,
        resolved_at: alert.resolved_at,
        event,
        delivery,
    }
}
