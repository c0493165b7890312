//! The outbox to the receivers: at least once, in order per alert and channel, for as long as it takes.
//!
//! A failed attempt is noted with its reason and tried again after 1, 2, 4 … seconds, at most five minutes; nothing is
//! ever given up, but for what was meant for a channel that is not configured any more. Each channel has a
//! lane of its own, so a slow or dead receiver holds up nobody else. Channels that forget are told every minute
//! what is open. A delivery the receiver took but the store did not note is noted before anything else is
//! sent: a failing store does not page somebody every second.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use peil_proto::time::WallClock;
use peil_proto::units::Millis;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::alert::alertmanager::REFRESH_EVERY;
use crate::alert::{AlertKind, Event, Message, Sender};
use crate::job::lead::Leading;
use crate::store::alerts::AlertRow;
use crate::store::alerts::outbox::{Delivery, DeliveryId};
use crate::store::{Store, StoreError};

/// The beat without a nudge: retries come due.
const BEAT: Duration = Duration::from_secs(1);
/// Deliveries looked at for one lane; when all of them are for others, more are looked at.
const LOOKS: [u32; 3] = [200, 20_000, u32::MAX];
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
    /// Whose duty alerts are.
    pub leading: Leading,
}

impl Deliver {
    /// Runs until `stop`; attempts under way are finished.
    pub async fn run(self, stop: CancellationToken) {
        let (wake, woken) = watch::channel(());
        let mut lanes = JoinSet::new();
        for sender in self.senders.values() {
            lanes.spawn(self.lane(sender.clone()).run(woken.clone(), stop.clone()));
        }
        if self.leading.borrow().alerts()
            && let Err(cause) = self.abandon_strangers().await
        {
            warn!(cause = %crate::chain(&cause), "deliveries for channels that are gone could not be given up");
        }
        loop {
            tokio::select! {
                () = self.raised.notified() => wake.send_replace(()),
                () = stop.cancelled() => break,
            }
        }
        while lanes.join_next().await.is_some() {}
    }

    fn lane(&self, sender: Arc<Sender>) -> Lane {
        let Self { store, clock, public_url, leading, .. } = self;
        let (store, clock, public_url, leading) = (store.clone(), clock.clone(), public_url.clone(), leading.clone());
        Lane { store, clock, public_url, sender, leading, unnoted: None }
    }

    /// Gives up what waits for channels that are not configured: nobody would ever send it.
    async fn abandon_strangers(&self) -> Result<(), StoreError> {
        loop {
            let due = self.store.deliveries_due(self.clock.now(), u32::MAX).await?;
            let strangers: Vec<_> = due.into_iter().filter(|row| !self.senders.contains_key(&row.channel)).collect();
            if strangers.is_empty() {
                return Ok(());
            }
            for Delivery { id, channel, alert, .. } in strangers {
                warn!(key = alert.key, channel, "given up: the channel is not configured any more");
                let why = "the channel is not configured any more";
                self.store.delivery_failed(id, self.clock.now(), why, None).await?;
            }
        }
    }
}

/// Everything for one channel, one after the other.
struct Lane {
    store: Store,
    clock: WallClock,
    public_url: String,
    sender: Arc<Sender>,
    leading: Leading,
    /// Taken by the receiver, not noted in the store.
    unnoted: Option<DeliveryId>,
}

impl Lane {
    async fn run(mut self, mut woken: watch::Receiver<()>, stop: CancellationToken) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut refresh_at = Instant::now();
        let mut failing = false;
        loop {
            tokio::select! {
                Ok(()) = woken.changed() => {}
                _ = beat.tick() => {}
                () = stop.cancelled() => return,
            }
            if !self.leading.borrow().alerts() {
                continue;
            }
            let mut outcome = self.activate(&stop).await;
            if outcome.is_ok() && Instant::now() >= refresh_at {
                refresh_at = Instant::now() + REFRESH_EVERY.to_duration();
                outcome = self.refresh().await;
            }
            if let Err(cause) = &outcome
                && !failing
            {
                let channel = &self.sender.channel().name;
                warn!(channel, cause = %crate::chain(cause), "the outbox cannot be read or written; trying again every second");
            }
            failing = outcome.is_err();
        }
    }

    /// Sends what is due, in order; stops at the first failure so that order is kept, and between two when told to.
    async fn activate(&mut self, stop: &CancellationToken) -> Result<(), StoreError> {
        self.note().await?;
        for delivery in self.due().await? {
            let is_ours = self.leading.borrow().alerts();
            if stop.is_cancelled() || !is_ours || !self.deliver(&delivery).await? {
                break;
            }
        }
        Ok(())
    }

    /// Notes what the receiver took.
    async fn note(&mut self) -> Result<(), StoreError> {
        if let Some(id) = self.unnoted {
            self.store.delivery_sent(id, self.clock.now()).await?;
            self.unnoted = None;
        }
        Ok(())
    }

    async fn due(&self) -> Result<Vec<Delivery>, StoreError> {
        for look in LOOKS {
            let all = self.store.deliveries_due(self.clock.now(), look).await?;
            let complete = u32::try_from(all.len()).is_ok_and(|seen| seen < look);
            let own: Vec<_> = all.into_iter().filter(|row| row.channel == self.sender.channel().name).collect();
            if complete || !own.is_empty() {
                return Ok(own);
            }
        }
        Ok(Vec::new())
    }

    /// One attempt; true when the receiver took it.
    async fn deliver(&mut self, delivery: &Delivery) -> Result<bool, StoreError> {
        let alert = &delivery.alert;
        let message = message(alert, delivery.event, delivery.dedup_key(), &self.public_url);
        let Err(cause) = self.sender.send(&message, self.clock.now()).await else {
            info!(key = alert.key, event = delivery.event.word(), channel = delivery.channel, "alert delivered");
            self.unnoted = Some(delivery.id);
            self.note().await?;
            return Ok(true);
        };
        let now = self.clock.now();
        let why = crate::chain(&cause);
        warn!(
            key = alert.key,
            channel = delivery.channel,
            attempt = delivery.attempts.saturating_add(1),
            cause = why,
            "alert not delivered; trying again"
        );
        let retry_at = now.plus(retry_after(delivery.attempts));
        self.store.delivery_failed(delivery.id, now, &why, Some(retry_at)).await?;
        Ok(false)
    }

    /// Repeats what is open to a channel that forgets.
    async fn refresh(&self) -> Result<(), StoreError> {
        let open = self.store.alerts_open().await?;
        if open.is_empty() {
            return Ok(());
        }
        let hears = &self.sender.channel().kinds;
        let told = open.iter().filter(|alert| hears.iter().any(|kind| kind.word() == alert.kind));
        let messages: Vec<_> =
            told.map(|alert| message(alert, Event::Firing, "refresh".to_owned(), &self.public_url)).collect();
        if let Err(cause) = self.sender.refresh(&messages, self.clock.now()).await {
            let channel = &self.sender.channel().name;
            warn!(channel, cause = %crate::chain(&cause), "open alerts could not be repeated");
        }
        Ok(())
    }
}

/// The wait after one more failure than `attempts`.
fn retry_after(attempts: u32) -> Millis {
    Millis(1_000_i64 << attempts.min(10)).min(RETRY_MAX)
}

fn message(alert: &AlertRow, event: Event, delivery: String, public_url: &str) -> Message {
    let kind = AlertKind::WORDS.iter().find(|(word, _)| *word == alert.kind).map(|(_, kind)| *kind);
    let path = match kind {
        Some(AlertKind::MonthDiffers) => "/months".to_owned(),
        Some(AlertKind::StoreDiffers) => "/alerts".to_owned(),
        Some(
            AlertKind::Outage
            | AlertKind::SlaBreach
            | AlertKind::BudgetBurn
            | AlertKind::SlaForecast
            | AlertKind::FigureDiffers,
        ) => {
            format!("/services/{}", alert.subject)
        }
        Some(AlertKind::PatchOverdue | AlertKind::AgentSilent | AlertKind::AgentCopied) => {
            alert.key.split_once('/').map_or(String::new(), |(_, agent)| format!("/hosts/{agent}"))
        }
        Some(AlertKind::StoreFull) | None => "/alerts".to_owned(),
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
