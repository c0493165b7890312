//! How far the clocks of agents were off, measured at their greetings: part of how good a figure is.
//!
//! One small row for each agent and day on which it greeted, the largest error of that day. What was measured holds the
//! time the greeting took to come, so it is an upper bound of the error, not the error itself.

use std::collections::BTreeMap;

use peil_proto::ids::AgentId;
use peil_proto::time::{UtcDay, UtcTime};
use peil_proto::units::Millis;

use super::{Store, StoreError, cells};

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSeen {
    /// Whose.
    pub agent: AgentId,
    /// When, by the collector's clock.
    pub at: UtcTime,
    /// The host's clock minus the collector's.
    pub ahead: Millis,
}

impl ClockSeen {
    /// How far it was off.
    pub fn error(self) -> Millis {
        Millis(self.ahead.0.saturating_abs())
    }
}

impl Store {
    /// Notes measurements; of a day the largest stays.
    ///
    /// # Errors
    /// As every write.
    pub async fn note_clocks(&self, seen: Vec<ClockSeen>) -> Result<(), StoreError> {
        self.write("note how far clocks are off", move |db| {
            let mut put = db.prepare_cached(
                "INSERT INTO clock_error (agent, day, ahead_ms) VALUES (?1, ?2, ?3)
                 ON CONFLICT (agent, day) DO UPDATE SET ahead_ms = excluded.ahead_ms
                 WHERE ABS(excluded.ahead_ms) > ABS(clock_error.ahead_ms)",
            )?;
            for ClockSeen { agent, at, ahead } in &seen {
                // The smallest number has no absolute value.
                put.execute((agent.0, at.day().0, ahead.0.max(-i64::MAX)))?;
            }
            Ok(())
        })
        .await
    }

    /// The largest error of each agent on the days `from` to `to`, both included; those that were not measured are
    /// absent.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn clock_errors(&self, from: UtcDay, to: UtcDay) -> Result<BTreeMap<AgentId, Millis>, StoreError> {
        self.read("read how far clocks were off", move |db| {
            let mut ask = db.prepare_cached(
                "SELECT agent, MAX(ABS(ahead_ms)) FROM clock_error WHERE day >= ?1 AND day <= ?2 GROUP BY agent",
            )?;
            let rows = ask.query_map((from.0, to.0), |row| Ok((cells::agent(row, 0)?, Millis(row.get(1)?))))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
