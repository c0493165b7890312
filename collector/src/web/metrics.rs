//! `/metrics`: the snapshot and the collector itself in OpenMetrics text.
//!
//! What the snapshot holds is told anew at each scrape, so a service or host that went away leaves no
//! series behind. What is not known has no sample (never 0): alert on `peil_service_unknown` or on
//! `absent()`. Other parts of the collector add their own metrics with [`Metrics::register`].
//!
//! Ratios come from the contract's integers and floored strings; the division to a float is the last
//! step, because the format has no other numbers.

mod store;

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use peil_proto::sample::State as Standing;
use peil_proto::units::Millis;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use self::store::{StoreMetrics, SurveyMetrics};
use super::Web;
use crate::job::look::Surveyed;
use crate::job::progress::Progress;
use crate::snapshot::{HostView, Latest, PatchState, ServiceView, Snapshot};
use crate::store::Store;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry all parts share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// A registry that tells this snapshot.
    pub fn new(latest: Latest) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(SnapshotMetrics(latest)));
        Self(Arc::new(Mutex::new(registry)))
    }

    /// Lets another part add its metrics. Names begin with `peil_`.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells how the store is doing, asked anew at each scrape.
    pub fn watch_store(&self, store: Store) {
        self.register(|registry| registry.register_collector(Box::new(StoreMetrics(store))));
    }

    /// Tells the newest survey of the store.
    pub fn watch_survey(&self, surveyed: Surveyed) {
        self.register(|registry| registry.register_collector(Box::new(SurveyMetrics(surveyed))));
    }

    /// Tells how far the jobs that derive, compact and verify are.
    pub fn watch_progress(&self, progress: watch::Receiver<Progress>) {
        self.register(|registry| registry.register_collector(Box::new(ProgressMetrics(progress))));
    }

    /// The text for a scraper.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

/// `GET /metrics`
pub(super) async fn scrape(State(web): State<Web>) -> Response {
    match web.state.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n").into_response()
        }
    }
}

#[derive(Debug)]
struct ProgressMetrics(watch::Receiver<Progress>);

impl Collector for ProgressMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let now = self.0.borrow().clone();
        let mut gauge = |name, help, value: Option<f64>| {
            gauges(&mut encoder, name, help, value.map(|value| (vec![], value)).into_iter().collect())
        };
        gauge(
            "peil_dirty_hours",
            "Hours that wait to be derived, the running ones among them",
            Some(float(now.dirty_hours)),
        )?;
        gauge(
            "peil_compaction_lag_seconds",
            "Age of what should have been compacted and is not",
            Some(seconds(now.compaction_lag)),
        )?;
        gauge(
            "peil_verified_differences",
            "Stored values that did not follow from the blocks at the last verification; no sample before the first",
            now.verified.as_ref().map(|verified| count(verified.differences)),
        )?;
        gauge(
            "peil_verified_timestamp_seconds",
            "When stored values were last compared with the blocks",
            now.verified.as_ref().map(|verified| seconds(Millis(verified.at.0))),
        )
    }
}

#[derive(Debug)]
struct SnapshotMetrics(Latest);

/// One labelled value.
type Sample<'a> = (Vec<(&'static str, &'a str)>, f64);

impl Collector for SnapshotMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let now = Arc::clone(&self.0.borrow());
        let agents: Vec<String> = now.hosts.iter().map(|host| host.agent.to_string()).collect();
        let hosts: Vec<Host<'_>> = now.hosts.iter().zip(&agents).map(|(view, id)| Host { view, id }).collect();
        let mut family = |name, help, samples| gauges(&mut encoder, name, help, samples);
        family(
            "peil_snapshot_timestamp_seconds",
            "When the snapshot was made",
            vec![(vec![], seconds(Millis(now.at.0)))],
        )?;
        for (name, help, value) in SERVICE_GAUGES {
            let samples = now.services.iter().filter_map(|s| Some((vec![("service", s.name.as_str())], value(s)?)));
            family(name, help, samples.collect())?;
        }
        family(
            "peil_service_availability_ratio",
            "Month to date, floored; official, and with unknown time as down (worst) or up (best)",
            availability(&now),
        )?;
        for (name, help, value) in HOST_GAUGES {
            let samples = hosts.iter().filter_map(|host| Some((host.labels(), value(host.view)?)));
            family(name, help, samples.collect())?;
        }
        family("peil_host_patch_findings", "Missing security fixes by standing", findings(&hosts))?;
        family("peil_host_energy_joules", "Energy of this UTC month so far: best figure and bounds", energy(&hosts))?;
        family("peil_patch_hosts", "Hosts by patch standing", patch_states(&now))?;
        family("peil_alerts_open", "Open alerts by severity", open_alerts(&now))
    }
}

fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: Vec<Sample<'_>>,
) -> Result<(), std::fmt::Error> {
    let gauge = ConstGauge::new(0.0_f64);
    let mut metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    for (labels, value) in samples {
        if labels.is_empty() {
            metric.encode_gauge(&value)?;
        } else {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
    }
    Ok(())
}

type Gauge<T> = (&'static str, &'static str, fn(&T) -> Option<f64>);

const SERVICE_GAUGES: &[Gauge<ServiceView>] = &[
    ("peil_service_up", "1 up, 0 down; no sample while unknown", |s| match s.state {
        Standing::Up => Some(1.0),
        Standing::Down => Some(0.0),
        Standing::Unknown => None,
    }),
    ("peil_service_unknown", "1 while nobody knows the state", |s| Some(flag(s.state == Standing::Unknown))),
    ("peil_service_target_ratio", "Agreed availability", |s| ratio(&s.target)),
    ("peil_service_known_ratio", "Known share of the agreed time, month to date", |s| ratio(s.known.as_ref()?)),
    ("peil_service_breached", "1 when the month to date is below its target", |s| Some(flag(s.verdict == "breached"))),
    ("peil_service_breach_certain", "1 when the whole month's budget is spent", |s| Some(flag(s.breach_certain))),
    ("peil_service_budget_seconds", "Loss the whole month may have", |s| Some(seconds(s.budget_ms))),
    ("peil_service_budget_left_seconds", "What is left of it; may be negative", |s| Some(seconds(s.budget_left_ms))),
    ("peil_service_counted_down_seconds", "Loss counted, month to date", |s| Some(seconds(s.counted_down_ms))),
    ("peil_service_unknown_seconds", "Time without evidence, month to date", |s| Some(seconds(s.unknown_ms))),
];

const HOST_GAUGES: &[Gauge<HostView>] = &[
    ("peil_host_last_contact_timestamp_seconds", "Last time anything came from the agent", |h| {
        Some(seconds(Millis(h.last_contact?.0)))
    }),
    ("peil_host_connected", "1 while a stream is open", |h| Some(flag(h.connected))),
    ("peil_host_silent", "1 when silent for longer than agreed", |h| Some(flag(h.silent))),
    ("peil_host_revoked", "1 when its certificate was revoked", |h| Some(flag(h.revoked))),
    ("peil_host_records", "Records committed in this epoch", |h| Some(float(h.records))),
    ("peil_host_records_lost", "Records that had numbers and never came", |h| Some(float(h.records_lost))),
    ("peil_host_backlog_records", "Records waiting in its spool when it last told", |h| Some(float(h.backlog))),
    ("peil_host_agent_resident_bytes", "Resident memory of the agent", |h| {
        (h.rss_bytes > 0).then(|| float(h.rss_bytes))
    }),
    ("peil_host_packages_pending", "Packages with any newer candidate", |h| {
        h.patch.scanned_at.map(|_| f64::from(h.patch.pending))
    }),
    ("peil_host_reboot_required", "1 when a reboot is needed; no sample when nobody can tell", |h| {
        h.patch.reboot_required.map(flag)
    }),
    ("peil_host_power_watts", "Mean power of the last reading", |h| Some(float(h.energy.power_mw?) / 1e3)),
    ("peil_host_energy_covered_seconds", "Seconds of this UTC month that readings cover", |h| {
        (!h.energy.method.is_empty()).then(|| float(h.energy.month_covered_s))
    }),
];

struct Host<'a> {
    view: &'a HostView,
    id: &'a str,
}

impl<'a> Host<'a> {
    fn labels(&self) -> Vec<(&'static str, &'a str)> {
        vec![("host", self.view.host.as_str()), ("agent", self.id)]
    }

    fn labels_and(&self, name: &'static str, value: &'a str) -> Vec<(&'static str, &'a str)> {
        let mut labels = self.labels();
        labels.push((name, value));
        labels
    }
}

fn availability(now: &Snapshot) -> Vec<Sample<'_>> {
    let mut samples = Vec::new();
    for s in &now.services {
        for (bound, text) in [("official", &s.official), ("worst", &s.worst), ("best", &s.best)] {
            if let Some(value) = text.as_deref().and_then(ratio) {
                samples.push((vec![("service", s.name.as_str()), ("bound", bound)], value));
            }
        }
    }
    samples
}

/// A host whose patch level is unknown has no counts: 0 would say "nothing is missing".
fn findings<'a>(hosts: &[Host<'a>]) -> Vec<Sample<'a>> {
    let mut samples = Vec::new();
    for host in hosts.iter().filter(|host| host.view.patch.state != PatchState::Unknown) {
        let overdue = host.view.patch.findings.iter().filter(|finding| finding.overdue).count();
        let due = host.view.patch.findings.len() - overdue;
        samples.push((host.labels_and("standing", "due"), count(due)));
        samples.push((host.labels_and("standing", "overdue"), count(overdue)));
    }
    samples
}

fn energy<'a>(hosts: &[Host<'a>]) -> Vec<Sample<'a>> {
    let mut samples = Vec::new();
    for host in hosts.iter().filter(|host| host.view.energy.month_covered_s > 0) {
        let energy = &host.view.energy;
        for (bound, amount) in [("best", energy.month_uj), ("low", energy.month_low_uj), ("high", energy.month_high_uj)]
        {
            let mut labels = host.labels_and("method", energy.method.as_str());
            labels.extend([("boundary", energy.boundary.as_str()), ("bound", bound)]);
            samples.push((labels, float(amount.0) / 1e6));
        }
    }
    samples
}

fn patch_states(now: &Snapshot) -> Vec<Sample<'_>> {
    let states = [
        ("ok", PatchState::Ok),
        ("due", PatchState::Due),
        ("overdue", PatchState::Overdue),
        ("unknown", PatchState::Unknown),
    ];
    let of = |state| count(now.hosts.iter().filter(|host| host.patch.state == state).count());
    states.map(|(word, state)| (vec![("state", word)], of(state))).to_vec()
}

fn open_alerts(now: &Snapshot) -> Vec<Sample<'_>> {
    let open = || now.alerts.iter().filter(|alert| alert.resolved_at.is_none());
    let of = |severity: &str| count(open().filter(|alert| alert.severity == severity).count());
    ["critical", "warning"].map(|severity| (vec![("severity", severity)], of(severity))).to_vec()
}

/// `99.981234` % as 0.99981234, by way of an integer.
fn ratio(percent: &str) -> Option<f64> {
    let (whole, fraction) = percent.split_once('.').unwrap_or((percent, ""));
    if whole.is_empty() || fraction.len() > 6 {
        return None;
    }
    let micro: u32 = format!("{whole}{fraction:0<6}").parse().ok()?;
    Some(f64::from(micro) / 1e8)
}

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and the format has no integers for gauges")]
fn float(n: u64) -> f64 {
    n as f64
}

fn count(n: usize) -> f64 {
    float(u64::try_from(n).unwrap_or(u64::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 ms, 285 000 years")]
fn seconds(millis: Millis) -> f64 {
    millis.0 as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_become_ratios_without_losing_a_digit() {
        assert_eq!(ratio("99.981234"), Some(0.999_812_34));
        assert_eq!(ratio("99.5"), Some(0.995));
        assert_eq!(ratio("100.000000"), Some(1.0));
        assert_eq!(ratio("100"), Some(1.0));
        for wrong in ["", "x", "1.2345678", "-1"] {
            assert_eq!(ratio(wrong), None, "{wrong:?}");
        }
    }
}
