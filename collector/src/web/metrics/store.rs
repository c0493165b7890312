//! The store in `/metrics`: its counters, asked at each scrape, and the survey, which is made twice a minute.

use peil_proto::units::Millis;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{Sample, count, flag, float, gauges, seconds};
use crate::job::look::Surveyed;
use crate::store::Store;
use crate::store::survey::Survey;

/// Counters since start and sizes of files: no question to the database.
#[derive(Debug)]
pub(super) struct StoreMetrics(pub(super) Store);

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let health = self.0.health();
        let mut gauge = |name, help, value: u64| gauges(&mut encoder, name, help, vec![(vec![], float(value))]);
        gauge("peil_store_ok", "1 when the store takes writes", u64::from(health.ok))?;
        gauge("peil_store_bytes", "Size of the database file", health.db_bytes)?;
        gauge("peil_store_wal_bytes", "Size of the write-ahead log", health.wal_bytes)?;
        if let Some(kept) = health.reserve_bytes {
            gauge(
                "peil_store_reserve_bytes",
                "Room kept for alerts; 0 while the disk is full and no records are taken",
                kept,
            )?;
        }
        gauge("peil_store_queue_depth", "Pieces of work that wait for the writer", health.queue_depth as u64)?;
        gauge("peil_store_commits", "Groups committed since start", health.commits)?;
        gauge("peil_store_failed_commits", "Groups that failed since start", health.failed_commits)?;
        gauge("peil_store_blocks", "Blocks stored since start", health.blocks)?;
        gauge("peil_store_duplicate_blocks", "Blocks that came again since start", health.duplicates)?;
        gauge("peil_store_records", "Records stored since start", health.records)?;
        gauge("peil_store_lost_records", "Records that had numbers and never came, since start", health.lost)
    }
}

/// What `doctor` looks at. Without a survey there are no samples.
#[derive(Debug)]
pub(super) struct SurveyMetrics(pub(super) Surveyed);

impl Collector for SurveyMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let survey = self.0.borrow().clone();
        let Some(s) = survey.as_deref() else { return Ok(()) };
        for (name, help, value) in SURVEY_GAUGES {
            gauges(&mut encoder, name, help, value(s).map(|value| (vec![], value)).into_iter().collect())?;
        }
        let behind = s.behind.iter().map(|(job, blocks)| (vec![("job", job.as_str())], float(*blocks)));
        gauges(&mut encoder, "peil_store_behind_blocks", "Blocks a job has not been through", behind.collect())?;
        let settings = s
            .durability
            .iter()
            .map(|(setting, value)| -> Sample<'_> { (vec![("setting", *setting), ("value", value.as_str())], 1.0) });
        let help = "1 for each setting that decides whether a commit survives, as it is";
        gauges(&mut encoder, "peil_store_durability", help, settings.collect())
    }
}

type Gauge = (&'static str, &'static str, fn(&Survey) -> Option<f64>);

const SURVEY_GAUGES: &[Gauge] = &[
    ("peil_store_survey_timestamp_seconds", "When the store was looked at", |s| Some(seconds(Millis(s.at.0)))),
    ("peil_store_schema", "Number of the schema", |s| Some(f64::from(s.schema))),
    ("peil_store_database_bytes", "Size of the database, also on a server", |s| Some(float(s.bytes))),
    ("peil_store_free_bytes", "Room left on the disk of the database file", |s| Some(float(s.free_bytes?))),
    ("peil_store_standbys", "Servers that have a commit before it is told", |s| Some(float(s.standbys))),
    ("peil_store_unjudged_seconds", "Age of the oldest block that is not judged", |s| {
        Some(s.unjudged_since.map_or(0.0, |since| seconds(s.at.since(since))))
    }),
    ("peil_store_leases_held", "Leases that are held", |s| Some(count(s.leases.iter().filter(|l| !l.over).count()))),
    ("peil_store_leases_over", "Leases that are over", |s| Some(count(s.leases.iter().filter(|l| l.over).count()))),
    ("peil_store_collectors", "Collectors that did not say good-bye", |s| Some(count(s.collectors.len()))),
    ("peil_store_unsent_deliveries", "Deliveries that were neither taken nor given up", |s| Some(float(s.unsent))),
    ("peil_store_unsent_seconds", "Age of the oldest of them", |s| {
        Some(s.unsent_since.map_or(0.0, |since| seconds(s.at.since(since))))
    }),
    ("peil_store_clock_ahead_seconds", "The database's clock minus this machine's", |s| Some(seconds(s.ahead))),
    ("peil_store_bi_ready", "1 when the views for reports and their role are there; no sample without roles", |s| {
        Some(flag(s.bi.as_ref()?.remedy().is_none()))
    }),
];
