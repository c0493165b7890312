//! What is old enough goes, a few rows at a time.
//!
//! Each kind has an age of its own. A step removes at most so many rows in one short transaction, so ingest, which has
//! the same writer, waits for milliseconds at most; a crash leaves some rows for the next step. Months, energy by
//! the hour, the audit log and blocks that are not compacted yet are never removed here.

use peil_proto::time::{UtcDay, UtcTime};

use super::{Store, StoreError};

/// What has an age of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Compacted days: every result with its times.
    Raw,
    /// Times by the hour.
    Hourly,
    /// Times by the day, and states.
    Daily,
    /// What stood behind changed outcomes, closed findings, outages that are over, what is told of lost records.
    Evidence,
}

impl Kind {
    /// All of them, in the order in which they are looked at.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Hourly, Self::Daily, Self::Evidence];

    /// The word people see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Evidence => "evidence",
        }
    }

    /// Statements that remove rows older than `?1`, at most `?2` of them.
    fn statements(self) -> &'static [&'static str] {
        match self {
            Self::Raw => &["DELETE FROM day_block WHERE (agent, day, check_no) IN (
                SELECT agent, day, check_no FROM day_block WHERE day < ?1 ORDER BY day LIMIT ?2)"],
            Self::Hourly => &["DELETE FROM latency_hour WHERE (agent, check_no, hour_ms) IN (
                SELECT agent, check_no, hour_ms FROM latency_hour WHERE hour_ms < ?1 ORDER BY hour_ms LIMIT ?2)"],
            Self::Daily => &[
                "DELETE FROM latency_day WHERE (agent, check_no, day) IN (
                SELECT agent, check_no, day FROM latency_day WHERE day < ?1 ORDER BY day LIMIT ?2)",
                "DELETE FROM state_piece WHERE (agent, check_no, day, first_ms) IN (
                SELECT agent, check_no, day, first_ms FROM state_piece WHERE day < ?1 ORDER BY day LIMIT ?2)",
            ],
            Self::Evidence => &[
                "DELETE FROM detail WHERE (agent, check_no, scheduled_at) IN (
                SELECT agent, check_no, scheduled_at FROM detail WHERE scheduled_at < ?1 LIMIT ?2)",
                "DELETE FROM outage WHERE (service, from_ms) IN (
                SELECT service, from_ms FROM outage WHERE to_ms < ?1 LIMIT ?2)",
                "DELETE FROM finding WHERE (agent, package, arch) IN (
                SELECT agent, package, arch FROM finding WHERE closed_at < ?1 LIMIT ?2)",
                "DELETE FROM lost_range WHERE (agent, epoch, after_seq) IN (
                SELECT agent, epoch, after_seq FROM lost_range WHERE noticed_at < ?1 LIMIT ?2)",
            ],
        }
    }

    /// How the tables of this kind tell time.
    fn cell(self, before: UtcDay) -> i64 {
        let UtcTime(moment) = before.start();
        match self {
            Self::Raw | Self::Daily => before.0,
            Self::Hourly | Self::Evidence => moment,
        }
    }
}

impl Store {
    /// Removes at most `limit` rows per table that are from before `before`; says how many went. 0: nothing is left.
    ///
    /// # Errors
    /// As every write.
    pub async fn prune(&self, kind: Kind, before: UtcDay, limit: u32) -> Result<usize, StoreError> {
        self.write("remove what is old enough", move |db| {
            let mut gone = 0;
            for statement in kind.statements() {
                gone += db.execute(statement, (kind.cell(before), limit))?;
            }
            Ok(gone)
        })
        .await
    }
}
