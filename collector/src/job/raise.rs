//! Snapshot to alerts: opens what is wanted and not open, resolves what is open and over.
//!
//! [`crate::alert::wanted`] and [`crate::alert::is_over`] decide; the store writes an alert and its outbox rows in one transaction. Then the open and
//! recent alerts go into the snapshot, with how each was delivered.

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::units::Millis;
use tracing::{info, warn};

use crate::alert::{AlertKind, Wanted, is_over, wanted};
use crate::job::lead::Leading;
use crate::snapshot::{AlertView, DeliveryView, Snapshot};
use crate::store::alerts::outbox::{Delivery, Progress};
use crate::store::alerts::{AlertChange, AlertRow, NewAlert};
use crate::store::{Store, StoreError};

/// Resolved alerts are shown for a day.
const RECENT: Millis = Millis::DAY;
/// Alerts shown at most; the store keeps all.
const SHOWN_MAX: u32 = 500;

/// The job.
pub struct Raise {
    /// Alerts and outbox.
    pub store: Store,
    /// Channels by name, and the kinds of alert each is told.
    pub channels: BTreeMap<String, BTreeSet<AlertKind>>,
    /// Whose duty alerts are.
    pub leading: Leading,
}

impl Raise {
    /// Brings alerts in line with the snapshot, when that is this collector's duty, and fills them into it. True when there is something to deliver.
    ///
    /// # Errors
    /// When the store cannot be read or written; nothing is then half done.
    pub async fn activate(&self, snapshot: &mut Snapshot) -> Result<bool, StoreError> {
        let open: BTreeMap<String, AlertRow> =
            self.store.alerts_open().await?.into_iter().map(|row| (row.key.clone(), row)).collect();
        let led = self.leading.borrow().clone();
        let changes = if led.alerts() { changes(&open, wanted(snapshot), snapshot) } else { Vec::new() };
        let mut raised = changes.iter().any(|change| !matches!(change, AlertChange::Update { .. }));
        if !changes.is_empty() {
            let audiences = by_audience(changes.clone(), &self.channels);
            for (channels, changes) in audiences {
                match self.store.apply_alerts(changes.clone(), channels, led.held.clone()).await {
                    Ok(_) => tell(&changes),
                    // Another collector raises them now.
                    Err(StoreError::LeaseLost { .. }) => raised = false,
                    Err(other) => return Err(other),
                }
            }
        }
        let mut rows = self.store.alerts_open().await?;
        let recent = self.store.alerts_recent(snapshot.at.plus(Millis(-RECENT.0)), SHOWN_MAX).await?;
        rows.extend(recent);
        let deliveries = self.store.deliveries_of(rows.iter().map(|row| row.id).collect()).await?;
        snapshot.alerts = rows.into_iter().map(|row| view(row, &deliveries)).collect();
        Ok(raised)
    }
}

fn changes(open: &BTreeMap<String, AlertRow>, wanted: Vec<Wanted>, snapshot: &Snapshot) -> Vec<AlertChange> {
    let keys: BTreeSet<_> = wanted.iter().map(|alert| alert.key.clone()).collect();
    let over = open
        .values()
        .filter(|row| !keys.contains(&row.key) && is_over(row, snapshot))
        // A clock that was set back makes no alert end before it began.
        .map(|row| AlertChange::Resolve { key: row.key.clone(), at: snapshot.at.max(row.opened_at) });
    let mut changes: Vec<_> = over.collect();
    for alert in wanted {
        match open.get(&alert.key) {
            None => changes.push(AlertChange::Open(NewAlert {
                key: alert.key,
                kind: alert.kind.word().to_owned(),
                severity: alert.kind.severity().to_owned(),
                subject: alert.subject,
                summary: alert.summary,
                action: alert.action,
                at: alert.since.min(snapshot.at),
            })),
            Some(row) if row.summary != alert.summary => {
                changes.push(AlertChange::Update { key: alert.key, summary: alert.summary });
            }
            Some(_) => {}
        }
    }
    changes
}

/// The changes with the channels that hear of them: one transaction for each audience, so an alert and its
/// deliveries are one. What is no opening goes with any of them.
fn by_audience(
    changes: Vec<AlertChange>,
    channels: &BTreeMap<String, BTreeSet<AlertKind>>,
) -> BTreeMap<Vec<String>, Vec<AlertChange>> {
    let mut audiences: BTreeMap<Vec<String>, Vec<AlertChange>> = BTreeMap::new();
    for change in changes {
        let hears = |kinds: &BTreeSet<AlertKind>| match &change {
            AlertChange::Open(alert) => kinds.iter().any(|kind| kind.word() == alert.kind),
            AlertChange::Update { .. } | AlertChange::Resolve { .. } => false,
        };
        let told = channels.iter().filter(|(_, kinds)| hears(kinds)).map(|(name, _)| name.clone()).collect();
        audiences.entry(told).or_default().push(change);
    }
    audiences
}

fn tell(changes: &[AlertChange]) {
    for change in changes {
        match change {
            AlertChange::Open(alert) => {
                warn!(key = alert.key, severity = alert.severity, summary = alert.summary, "alert opened");
            }
            AlertChange::Resolve { key, .. } => info!(key, "alert resolved"),
            AlertChange::Update { .. } => {}
        }
    }
}

fn view(row: AlertRow, deliveries: &[Delivery]) -> AlertView {
    let own = deliveries.iter().filter(|delivery| delivery.alert.id == row.id);
    let deliveries = own.map(|delivery| DeliveryView {
        channel: delivery.channel.clone(),
        event: delivery.event.word().to_owned(),
        attempts: delivery.attempts,
        sent_at: match delivery.progress {
            Progress::Sent { at } => Some(at),
            Progress::Waiting { .. } | Progress::Abandoned { .. } => None,
        },
        last_error: delivery.last_error.clone(),
    });
    AlertView {
        deliveries: deliveries.collect(),
        id: row.id.0,
        key: row.key,
        kind: row.kind,
        severity: row.severity,
        subject: row.subject,
        summary: row.summary,
        action: row.action,
        opened_at: row.opened_at,
        resolved_at: row.resolved_at,
    }
}

#[cfg(test)]
mod tests;
