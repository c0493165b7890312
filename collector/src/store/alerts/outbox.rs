//! The outbox: what is to be told to which channel, until it is taken or given up.
//!
//! At least once: a delivery is due until somebody says that the receiver took it. A receiver can tell a
//! repetition by [`Delivery::dedup_key`] and the event. In order: a delivery is due only when every earlier
//! one about the same key on the same channel is done, so "resolved" never overtakes its "firing", also
//! when the trouble was over before the first attempt.

use std::collections::BTreeSet;

use peil_proto::time::UtcTime;

use super::{AlertId, AlertRow, COLUMNS, alert_row};
use crate::store::db::{self, Connection, Row};
use crate::store::{Store, StoreError, cells};

/// Number of a delivery: rising, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub i64);

/// What a delivery tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// It began.
    Firing,
    /// It is over.
    Resolved,
}

impl Event {
    /// The word other programs see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Firing, Self::Resolved].into_iter().find(|event| event.word() == word)
    }
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// To be tried at this time, when those before it are done.
    Waiting {
        /// Not before.
        due_at: UtcTime,
    },
    /// The receiver took it.
    Sent {
        /// When.
        at: UtcTime,
    },
    /// It will not be tried again.
    Abandoned {
        /// When.
        at: UtcTime,
    },
}

/// One delivery, with the alert as it is worded now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its number.
    pub id: DeliveryId,
    /// What it is about.
    pub alert: AlertRow,
    /// Name of the channel.
    pub channel: String,
    /// What it tells.
    pub event: Event,
    /// When it was put here.
    pub created_at: UtcTime,
    /// Attempts so far.
    pub attempts: u32,
    /// When the last one was.
    pub last_at: Option<UtcTime>,
    /// Why the last one failed; empty when none did.
    pub last_error: String,
    /// How far it is.
    pub progress: Progress,
}

impl Delivery {
    /// The same for the firing and the resolved of one alert, and for every repetition; another alert with
    /// the same key has another one.
    pub fn dedup_key(&self) -> String {
        format!("peil/{}/{}", self.alert.key, self.alert.id.0)
    }
}

const DELIVERY: &str =
    "d.id, d.channel, d.event, d.created_at, d.due_at, d.attempts, d.last_at, d.last_error, d.sent_at, d.abandoned_at";

impl Store {
    /// Deliveries to be tried now, the longest waiting first. Trying one does not take it: say how it ended
    /// by [`Store::delivery_sent`] or [`Store::delivery_failed`].
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn deliveries_due(&self, now: UtcTime, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        self.read("list the deliveries that are due", move |db| {
            let mut ask = db.prepare_cached(&format!(
                "SELECT {COLUMNS}, {DELIVERY} FROM delivery d JOIN alert a ON a.id = d.alert
                 WHERE d.sent_at IS NULL AND d.abandoned_at IS NULL AND d.due_at <= ?1
                   AND NOT EXISTS (SELECT 1 FROM delivery e WHERE e.alert_key = d.alert_key
                     AND e.channel = d.channel AND e.id < d.id AND e.sent_at IS NULL AND e.abandoned_at IS NULL)
                 ORDER BY d.due_at, d.id LIMIT ?2"
            ))?;
            let rows = ask.query_map((now.0, limit), delivery_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The receiver took it. Said twice, the first time stands.
    ///
    /// # Errors
    /// As every write.
    pub async fn delivery_sent(&self, id: DeliveryId, at: UtcTime) -> Result<(), StoreError> {
        self.write("note that a delivery was taken", move |db| {
            db.prepare_cached(
                "UPDATE delivery SET sent_at = ?2, last_at = ?2, attempts = attempts + 1, last_error = ''
                 WHERE id = ?1 AND sent_at IS NULL AND abandoned_at IS NULL",
            )?
            .execute((id.0, at.0))?;
            Ok(())
        })
        .await
    }

    /// The attempt failed. With `retry_at` it is due again then; without, it is given up, and those behind
    /// it on the channel move on.
    ///
    /// # Errors
    /// As every write.
    pub async fn delivery_failed(
        &self,
        id: DeliveryId,
        at: UtcTime,
        error: &str,
        retry_at: Option<UtcTime>,
    ) -> Result<(), StoreError> {
        let error = error.to_owned();
        self.write("note that a delivery failed", move |db| {
            let abandoned_at = retry_at.is_none().then_some(at.0);
            db.prepare_cached(
                "UPDATE delivery SET due_at = ?3, last_at = ?2, attempts = attempts + 1, last_error = ?4,
                   abandoned_at = ?5
                 WHERE id = ?1 AND sent_at IS NULL AND abandoned_at IS NULL",
            )?
            .execute((id.0, at.0, retry_at.unwrap_or(at).0, &error, abandoned_at))?;
            Ok(())
        })
        .await
    }

    /// All deliveries of these alerts, in order of making.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn deliveries_of(&self, alerts: Vec<AlertId>) -> Result<Vec<Delivery>, StoreError> {
        self.read("list the deliveries of alerts", move |db| {
            let mut ask = db.prepare_cached(&format!(
                "SELECT {COLUMNS}, {DELIVERY} FROM delivery d JOIN alert a ON a.id = d.alert WHERE d.alert = ?1
                 ORDER BY d.id"
            ))?;
            let mut deliveries = Vec::new();
            for alert in alerts.iter().copied().collect::<BTreeSet<_>>() {
                for delivery in ask.query_map([alert.0], delivery_row)? {
                    deliveries.push(delivery?);
                }
            }
            Ok(deliveries)
        })
        .await
    }
}

/// Makes a delivery that is due at once, inside the caller's transaction.
pub(super) fn put(
    db: &Connection,
    alert: AlertId,
    key: &str,
    channel: &str,
    event: Event,
    at: UtcTime,
) -> db::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO delivery (id, alert, alert_key, channel, event, created_at, due_at, attempts, last_error)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, 0, '') ON CONFLICT (alert, channel, event) DO NOTHING",
    )?;
    insert.execute((super::next_number(db, "delivery")?, alert.0, key, channel, event.word(), at.0))?;
    Ok(())
}

fn delivery_row(row: &Row<'_>) -> db::Result<Delivery> {
    let waiting = Progress::Waiting { due_at: cells::time(row, 13)? };
    let sent = cells::time_or_none(row, 17)?.map(|at| Progress::Sent { at });
    let abandoned = cells::time_or_none(row, 18)?.map(|at| Progress::Abandoned { at });
    Ok(Delivery {
        alert: alert_row(row)?,
        id: DeliveryId(row.get(9)?),
        channel: row.get(10)?,
        event: cells::word(row, 11, Event::of)?,
        created_at: cells::time(row, 12)?,
        attempts: row.get(14)?,
        last_at: cells::time_or_none(row, 15)?,
        last_error: row.get(16)?,
        progress: sent.or(abandoned).unwrap_or(waiting),
    })
}
