//! What the jobs that derive, compact and verify tell about themselves: read by metrics and by the snapshot.
//!
//! One value that whoever knows it overwrites; nothing waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use peil_proto::ids::CheckNo;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use tokio::sync::watch;

use crate::derive::histogram::{Histogram, PerMille};

/// How far the jobs are.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Hours that wait to be derived, those that are not over among them.
    pub dirty_hours: u64,
    /// Age of what should have been compacted and is not; 0 when nothing waits.
    pub compaction_lag: Millis,
    /// What the last verification found.
    pub verified: Option<Verified>,
    /// Times of this UTC month to date, by check, all vantages together.
    pub times: Arc<BTreeMap<CheckNo, Times>>,
}

/// What a verification of stored values against the blocks found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// When it ended.
    pub at: UtcTime,
    /// Days of agents that were looked at.
    pub days: usize,
    /// Values that do not follow from the blocks.
    pub differences: usize,
    /// The first of them in words; empty when there are none.
    pub first: String,
}

/// The total times of successes, as far as a histogram tells them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Successes.
    pub count: u64,
    /// Half of them took at most this, µs.
    pub p50_us: u32,
    /// 95 % took at most this, µs.
    pub p95_us: u32,
    /// 99 % took at most this, µs.
    pub p99_us: u32,
}

impl Times {
    /// `None` without values.
    pub fn of(histogram: &Histogram) -> Option<Self> {
        let [p50, p95, p99] = histogram.quantiles([PerMille::P50, PerMille::P95, PerMille::P99]);
        Some(Self { count: histogram.count(), p50_us: p50?.0, p95_us: p95?.0, p99_us: p99?.0 })
    }
}

/// Shared by the jobs.
pub type Tell = Arc<watch::Sender<Progress>>;
