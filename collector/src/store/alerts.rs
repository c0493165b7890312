//! Alerts, and what changes about them. The outbox that carries them out is in [`outbox`].
//!
//! The same trouble has the same key, and a key has at most one open alert: opening it again is no news.
//! An alert that opens or resolves leaves its deliveries in the same transaction, one per channel, so none
//! is forgotten by a crash and none is made twice by a repetition.

pub mod outbox;

use peil_proto::time::UtcTime;

use self::outbox::Event;
use super::db::{self, Connection, OptionalExtension, Row};
use super::leases::{self, Duty, Held};
use super::{Store, StoreError, cells};

/// Number of an alert: rising, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertId(pub i64);

/// What an alert says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAlert {
    /// Stable key: the same trouble has the same key.
    pub key: String,
    /// `outage`, `sla_breach`, `patch_overdue`, `agent_silent`, …
    pub kind: String,
    /// `critical`, `warning`.
    pub severity: String,
    /// A service or a host.
    pub subject: String,
    /// What happened, in one sentence.
    pub summary: String,
    /// What to do.
    pub action: String,
    /// When it began.
    pub at: UtcTime,
}

/// An alert, open or resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRow {
    /// Its number.
    pub id: AlertId,
    /// Stable key: the same trouble has the same key.
    pub key: String,
    /// `outage`, `sla_breach`, `patch_overdue`, `agent_silent`, …
    pub kind: String,
    /// `critical`, `warning`.
    pub severity: String,
    /// A service or a host.
    pub subject: String,
    /// What happened, in one sentence; the newest wording.
    pub summary: String,
    /// What to do.
    pub action: String,
    /// When it began.
    pub opened_at: UtcTime,
    /// When it was over; `None` while it lasts.
    pub resolved_at: Option<UtcTime>,
}

/// What became of a trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertChange {
    /// It is there. No news when an alert with this key is open.
    Open(NewAlert),
    /// It is described better now. Tells nobody; no news when none is open.
    Update {
        /// Which.
        key: String,
        /// The new wording.
        summary: String,
    },
    /// It is over. No news when none is open. Goes to the channels its opening went to.
    Resolve {
        /// Which.
        key: String,
        /// When.
        at: UtcTime,
    },
}

/// Alerts that really opened and resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// New ones.
    pub opened: Vec<AlertId>,
    /// Ended ones.
    pub resolved: Vec<AlertId>,
}

/// Columns of an alert, in the order of [`alert_row`].
const COLUMNS: &str =
    "a.id, a.alert_key, a.kind, a.severity, a.subject, a.summary, a.action, a.opened_at, a.resolved_at";

impl Store {
    /// Applies changes in their order, with a delivery to each of `channels` for every alert that opens. Only the
    /// collector whose duty alerts are may.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] with nothing written, and as every write.
    pub async fn apply_alerts(
        &self,
        changes: Vec<AlertChange>,
        channels: Vec<String>,
        held: Held,
    ) -> Result<Applied, StoreError> {
        self.write("write alerts", move |db| {
            leases::require(db, &held, [Duty::Alerts])?;
            let mut applied = Applied::default();
            for change in &changes {
                match change {
                    AlertChange::Open(alert) => applied.opened.extend(open(db, alert, &channels)?),
                    AlertChange::Update { key, summary } => {
                        db.prepare_cached(
                            "UPDATE alert SET summary = ?2 WHERE alert_key = ?1 AND resolved_at IS NULL",
                        )?
                        .execute((key, summary))?;
                    }
                    AlertChange::Resolve { key, at } => applied.resolved.extend(resolve(db, key, *at)?),
                }
            }
            Ok(applied)
        })
        .await
    }

    /// Alerts that last, newest first.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn alerts_open(&self) -> Result<Vec<AlertRow>, StoreError> {
        self.read("list the open alerts", |db| {
            let mut ask = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM alert a WHERE a.resolved_at IS NULL ORDER BY a.opened_at DESC, a.id DESC"
            ))?;
            let rows = ask.query_map((), alert_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Alerts resolved at `since` or later, newest end first.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn alerts_recent(&self, since: UtcTime, limit: u32) -> Result<Vec<AlertRow>, StoreError> {
        self.read("list the recent alerts", move |db| {
            let mut ask = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM alert a WHERE a.resolved_at >= ?1
                 ORDER BY a.resolved_at DESC, a.id DESC LIMIT ?2"
            ))?;
            let rows = ask.query_map((since.0, limit), alert_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

fn open(db: &Connection, alert: &NewAlert, channels: &[String]) -> db::Result<Option<AlertId>> {
    if open_alert(db, &alert.key)?.is_some() {
        return Ok(None);
    }
    let id = AlertId(next_number(db, "alert")?);
    let mut insert = db.prepare_cached(
        "INSERT INTO alert (id, alert_key, kind, severity, subject, summary, action, opened_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    insert.execute((
        id.0,
        &alert.key,
        &alert.kind,
        &alert.severity,
        &alert.subject,
        &alert.summary,
        &alert.action,
        alert.at.0,
    ))?;
    for channel in channels {
        outbox::put(db, id, &alert.key, channel, Event::Firing, alert.at)?;
    }
    Ok(Some(id))
}

/// The next number of a kind: rising, never reused.
fn next_number(db: &Connection, name: &str) -> db::Result<i64> {
    let mut next = db.prepare_cached(
        "INSERT INTO counter (name, last) VALUES (?1, 1)
         ON CONFLICT (name) DO UPDATE SET last = counter.last + 1 RETURNING last",
    )?;
    next.query_row([name], |row| row.get(0))
}

fn resolve(db: &Connection, key: &str, at: UtcTime) -> db::Result<Option<AlertId>> {
    let Some(id) = open_alert(db, key)? else { return Ok(None) };
    db.prepare_cached("UPDATE alert SET resolved_at = ?2 WHERE id = ?1")?.execute((id.0, at.0))?;
    // Whoever was told that it began must be told that it ended, and nobody else.
    let mut told = db.prepare_cached("SELECT channel FROM delivery WHERE alert = ?1 AND event = ?2 ORDER BY id")?;
    let channels = told.query_map((id.0, Event::Firing.word()), |row| row.get(0))?;
    let channels: Vec<String> = channels.collect::<Result<_, _>>()?;
    for channel in &channels {
        outbox::put(db, id, key, channel, Event::Resolved, at)?;
    }
    Ok(Some(id))
}

fn open_alert(db: &Connection, key: &str) -> db::Result<Option<AlertId>> {
    let mut ask = db.prepare_cached("SELECT id FROM alert WHERE alert_key = ?1 AND resolved_at IS NULL")?;
    ask.query_row([key], |row| Ok(AlertId(row.get(0)?))).optional()
}

fn alert_row(row: &Row<'_>) -> db::Result<AlertRow> {
    Ok(AlertRow {
        id: AlertId(row.get(0)?),
        key: row.get(1)?,
        kind: row.get(2)?,
        severity: row.get(3)?,
        subject: row.get(4)?,
        summary: row.get(5)?,
        action: row.get(6)?,
        opened_at: cells::time(row, 7)?,
        resolved_at: cells::time_or_none(row, 8)?,
    })
}
