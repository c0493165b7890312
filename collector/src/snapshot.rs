//! What is known now: the one value that dashboard, API, metrics and alerts are made from.
//!
//! The `measure` job builds a [`Snapshot`] from live state and `contract::evaluate_to_date` and publishes
//! it through a `watch` channel; whoever tells (web, alert) only reads it. So the page, the API, the alert
//! and the figure cannot disagree: they are the same value. Amounts are integers, percentages the floored
//! strings of the contract; words are what other programs see in JSON.

use std::sync::Arc;

use peil_proto::ids::AgentId;
use peil_proto::labels::Labels;
use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::{Microjoules, Millis};
use serde::Serialize;
use utoipa::ToSchema;

use crate::contract::calendar::Month;

/// The newest snapshot, shared.
pub type Latest = tokio::sync::watch::Receiver<Arc<Snapshot>>;

/// Everything known at one moment.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Snapshot {
    /// When it was made, ms since 1970 UTC; 0 until the first one.
    #[schema(value_type = i64)]
    pub at: UtcTime,
    /// Services in order of name.
    pub services: Vec<ServiceView>,
    /// Hosts in order of name.
    pub hosts: Vec<HostView>,
    /// Open alerts, newest first, then those resolved within a day.
    pub alerts: Vec<AlertView>,
    /// Figures that are not what they were said to be.
    pub notices: Vec<Notice>,
    /// Exclusions that ended within a month or are still to come, in order of their beginning.
    pub exclusions: Vec<ExclusionView>,
    /// Months that are over, newest first.
    pub months: Vec<MonthView>,
    /// What the last comparison of stored values with the blocks found; null before the first.
    pub verified: Option<VerifiedView>,
    /// The disk of the database is full: no records are taken.
    pub store_full: bool,
}

/// A comparison of stored values with what follows from the blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct VerifiedView {
    /// When it ended.
    #[schema(value_type = i64)]
    pub at: UtcTime,
    /// Days of agents that were looked at.
    pub days: usize,
    /// Values that do not follow from the blocks.
    pub differences: usize,
    /// The first of them in words.
    pub first: String,
}

/// Time that was asked to be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExclusionView {
    /// What people call it.
    pub id: String,
    /// The service it is about.
    pub service: String,
    /// `maintenance`, `force_majeure`, `customer`, `dependency`.
    pub kind: String,
    /// First instant.
    #[schema(value_type = i64)]
    pub from: UtcTime,
    /// First instant after, as it was approved or closed.
    #[schema(value_type = i64)]
    pub to: UtcTime,
    /// What is done or happened.
    pub reason: String,
    /// `proposed`, `approved`, `refused`, `closed`.
    pub progress: String,
    /// Who proposed it.
    pub proposed_by: String,
    /// Who decided; empty while nobody did.
    pub decided_by: String,
    /// How much of it counts in the running month so far; `null` when it lies outside.
    #[schema(value_type = Option<i64>)]
    pub counted_ms: Option<Millis>,
    /// Why the rest does not: `late_notice`, `not_approved`, `over_cap`, `outside_window`.
    pub refused: Option<String>,
    /// The service was down beyond its end since before it: so long, so far.
    #[schema(value_type = Option<i64>)]
    pub overrun_ms: Option<Millis>,
}

/// A month that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MonthView {
    /// Whose.
    pub service: String,
    /// `2026-04`.
    pub month: String,
    /// `draft`, `sealed`.
    pub stage: String,
    /// The newest edition; `null` for a draft.
    pub edition: Option<u32>,
    /// When it was sealed.
    #[schema(value_type = Option<i64>)]
    pub sealed_at: Option<UtcTime>,
    /// By whom; `null` where the agreed day sealed it and nobody approved.
    pub sealed_by: Option<String>,
    /// Availability as the contract counts it, floored.
    pub official: Option<String>,
    /// `met`, `breached`, `undetermined`, `not_applicable`.
    pub verdict: String,
    /// What is known now is not what it was sealed on.
    pub differs: bool,
}

/// A figure that differs from one that was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Notice {
    /// What differs.
    pub kind: NoticeKind,
    /// Whose figure.
    pub service: String,
    /// `2026-04`.
    pub month: String,
    /// What was found, in one sentence.
    pub detail: String,
    /// When.
    #[schema(value_type = i64)]
    pub since: UtcTime,
}

/// Kinds of [`Notice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// What is known about a sealed month is not what it was sealed on.
    MonthDiffers,
    /// The figure shown is not the one that the blocks give.
    FigureDiffers,
}

impl Notice {
    /// About a sealed month.
    pub fn month_differs(service: &str, month: Month, version: u32, since: UtcTime) -> Self {
        let detail = format!("what is known about {month} is not what edition {version} was sealed on");
        let (service, month) = (service.to_owned(), month.to_string());
        Self { kind: NoticeKind::MonthDiffers, service, month, detail, since }
    }

    /// About the figure of a running month.
    pub fn figure_differs(service: &str, month: &str, shown: &str, again: &str, since: UtcTime) -> Self {
        let detail = format!("the figure shown was {shown}, the blocks gave {again}");
        let (service, month) = (service.to_owned(), month.to_owned());
        Self { kind: NoticeKind::FigureDiffers, service, month, detail, since }
    }
}

/// A service: its state now and its month to date.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ServiceView {
    /// Name in the contract.
    pub name: String,
    /// State now, by quorum and expression.
    #[schema(value_type = String, example = "up")]
    pub state: State,
    /// Since when it is in that state, as far as known.
    #[schema(value_type = Option<i64>)]
    pub since: Option<UtcTime>,
    /// The checks that make it so, when it is not up.
    pub because: Vec<String>,
    /// Whether now lies in the agreed service window.
    pub in_window: bool,
    /// `2026-11`, in the contract's zone.
    pub month: String,
    /// IANA zone of the contract.
    pub timezone: String,
    /// Agreed percentage.
    #[schema(example = "99.5")]
    pub target: String,
    /// Month-to-date availability as the contract counts it, floored; `null` without agreed time yet.
    #[schema(example = "99.981234")]
    pub official: Option<String>,
    /// The same with all unknown time as down.
    pub worst: Option<String>,
    /// The same with all unknown time as up.
    pub best: Option<String>,
    /// Share of the agreed time that is known.
    pub known: Option<String>,
    /// `met`, `breached`, `undetermined`, `not_applicable`: of the month to date.
    pub verdict: String,
    /// The loss is already larger than the whole month's budget: nothing can mend it.
    pub breach_certain: bool,
    /// Loss the whole month may have.
    #[schema(value_type = i64)]
    pub budget_ms: Millis,
    /// What is left of it; may be negative.
    #[schema(value_type = i64)]
    pub budget_left_ms: Millis,
    /// Loss counted so far.
    #[schema(value_type = i64)]
    pub counted_down_ms: Millis,
    /// Time without evidence so far.
    #[schema(value_type = i64)]
    pub unknown_ms: Millis,
    /// What the month so far says about its end.
    pub forecast: ForecastView,
    /// The whole evaluation, exactly as `sla evaluate` prints it.
    #[schema(value_type = Object)]
    pub figure: serde_json::Value,
    /// Outages of the month, newest first.
    pub outages: Vec<OutageView>,
    /// What it is made of.
    pub checks: Vec<CheckView>,
}

/// The budget as it burns, in service time.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct ForecastView {
    /// Share of the service time so far that was lost, divided by the share that may be; at 1 the month ends with an
    /// empty budget. `null` before the first service time.
    #[schema(example = "1.327")]
    pub burn: Option<String>,
    /// `lasts`, `ahead` or `past`: whether the budget is used up before the end of the month at this rate.
    pub exhausted: String,
    /// When.
    #[schema(value_type = Option<i64>)]
    pub exhausted_at: Option<UtcTime>,
    /// Availability at the end of the month at this rate, floored.
    pub projected: Option<String>,
    /// Availability at the end of the month without any further loss, floored.
    pub best: Option<String>,
    /// Service time so far.
    #[schema(value_type = i64)]
    pub elapsed_ms: Millis,
    /// Fast, middle and slow.
    pub tiers: Vec<BurnTierView>,
}

/// How fast the budget burned lately.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BurnTierView {
    /// Service time looked back on.
    #[schema(value_type = i64)]
    pub window_ms: Millis,
    /// Loss in it.
    #[schema(value_type = i64)]
    pub lost_ms: Millis,
    /// The burn above which it fires.
    #[schema(example = "14.4")]
    pub threshold: String,
    /// It burns faster, also in the last twelfth of the window.
    pub fires: bool,
}

/// A stretch of DOWN.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OutageView {
    /// Start.
    #[schema(value_type = i64)]
    pub from: UtcTime,
    /// End; `null` while it lasts.
    #[schema(value_type = Option<i64>)]
    pub to: Option<UtcTime>,
    /// What it costs under the contract.
    #[schema(value_type = i64)]
    pub counted_ms: Millis,
    /// The checks that were down.
    pub because: Vec<String>,
}

/// A check and what each vantage sees.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CheckView {
    /// Name.
    pub name: String,
    /// `http`, `tcp`, `tls`.
    pub kind: String,
    /// What is probed.
    pub target: String,
    /// Rhythm.
    #[schema(value_type = i64)]
    pub interval_ms: Millis,
    /// One per agent that runs it.
    pub vantages: Vec<VantageView>,
    /// Total times of the successes of this UTC month to date, all vantages together; null before the first hour.
    pub times: Option<TimesView>,
}

/// Times as a histogram of two digits tells them: at most 0.78 % above the exact value.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct TimesView {
    /// Successes.
    pub count: u64,
    /// Half of them took at most this.
    pub p50_us: u32,
    /// 95 % took at most this.
    pub p95_us: u32,
    /// 99 % took at most this.
    pub p99_us: u32,
}

/// The last thing one agent saw of one check.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct VantageView {
    /// The agent.
    #[schema(value_type = String)]
    pub agent: AgentId,
    /// Its host.
    pub host: String,
    /// State now: that of the last sample while it holds, unknown after.
    #[schema(value_type = String)]
    pub state: State,
    /// Scheduled time of the last sample.
    #[schema(value_type = Option<i64>)]
    pub last_at: Option<UtcTime>,
    /// Its outcome in a word: `up`, `refused`, `status:503`.
    pub outcome: String,
    /// Its phases in µs: resolve, connect, tls, first_byte, transfer; `null` where none took place.
    pub phases_us: [Option<u32>; 5],
    /// What was behind the last change, in one sentence.
    pub detail: String,
    /// End of the certificate last seen.
    #[schema(value_type = Option<i64>)]
    pub cert_not_after: Option<UtcTime>,
}

/// A host and its agent.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HostView {
    /// The agent's identity.
    #[schema(value_type = String)]
    pub agent: AgentId,
    /// Name of the host.
    pub host: String,
    /// What the host is for, as it says itself.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub labels: Labels,
    /// Operating system in words; empty until the agent told.
    pub os: String,
    /// Version of the agent.
    pub agent_version: String,
    /// A stream is open now.
    pub connected: bool,
    /// The agent has been silent longer than agreed.
    pub silent: bool,
    /// The certificate was revoked.
    pub revoked: bool,
    /// Last time anything came from it.
    #[schema(value_type = Option<i64>)]
    pub last_contact: Option<UtcTime>,
    /// Records committed from it in this epoch.
    pub records: u64,
    /// Records that had numbers and never came (damaged or dropped spool).
    pub records_lost: u64,
    /// What is missing and why, the newest first; the last few only.
    pub losses: Vec<LossView>,
    /// Records waiting in its spool when it last told.
    pub backlog: u64,
    /// It was seen to run from a copy of its state within the last day, and nobody has seen to it.
    pub copied: Option<CopiedView>,
    /// Why it refused the last plan; empty when it runs it.
    pub plan_refused: Vec<String>,
    /// Checks of the host's own (`conf.d`), with what the host saw last. No service counts them unless it names them.
    pub local_checks: Vec<CheckView>,
    /// What is wrong with the files of such checks; their last good ones run.
    pub local_problems: Vec<String>,
    /// Resident memory of the agent, bytes.
    pub rss_bytes: u64,
    /// Patch level.
    pub patch: PatchView,
    /// Energy.
    pub energy: EnergyView,
}

/// An agent that runs from a copy of its state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CopiedView {
    /// When it was last seen.
    #[schema(value_type = i64)]
    pub at: UtcTime,
    /// `twin` or `rewound`.
    pub how: String,
    /// What that is, in a sentence.
    pub explanation: String,
}

/// Records of a host that are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LossView {
    /// They speak about this time, at most; it is unknown.
    #[schema(value_type = i64)]
    pub from: UtcTime,
    /// Its end.
    #[schema(value_type = i64)]
    pub to: UtcTime,
    /// How many.
    pub records: u64,
    /// `never_came` or `acked_before`.
    pub reason: String,
    /// The same for people.
    pub explanation: String,
}

/// How a host stands to the patch policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PatchState {
    /// Nobody knows: no report, a stale one, or one with errors. Never compliant.
    #[default]
    Unknown,
    /// No security fix is missing.
    Ok,
    /// Fixes are missing, all within their term.
    Due,
    /// At least one fix is missing for longer than the policy allows.
    Overdue,
}

/// Patch level of a host.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct PatchView {
    /// Standing.
    pub state: PatchState,
    /// When the host was scanned last.
    #[schema(value_type = Option<i64>)]
    pub scanned_at: Option<UtcTime>,
    /// Installed packages.
    pub installed: u32,
    /// Packages with any newer candidate.
    pub pending: u32,
    /// Missing security fixes, the most urgent first.
    pub findings: Vec<FindingView>,
    /// `null` when nobody can tell.
    pub reboot_required: Option<bool>,
    /// What stands in the way of knowing.
    pub errors: Vec<String>,
}

/// A security fix a host lacks, with its clock.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FindingView {
    /// Source package.
    pub source: String,
    /// Binary package.
    pub package: String,
    /// Architecture.
    pub arch: String,
    /// Version on the host.
    pub installed: String,
    /// Version in the security archive.
    pub security_version: String,
    /// `installable`, `held`, `blocked_pin`.
    pub state: String,
    /// When the lack was first seen; the clock runs from here.
    #[schema(value_type = i64)]
    pub first_seen: UtcTime,
    /// When the term ends.
    #[schema(value_type = i64)]
    pub due_at: UtcTime,
    /// The term has ended.
    pub overdue: bool,
}

/// Energy of a host.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct EnergyView {
    /// `measured`, `estimated`, `modelled`; empty without any reading.
    pub method: String,
    /// `component`, `platform`, `wall`.
    pub boundary: String,
    /// What is inside the boundary.
    pub covers: String,
    /// Why this source.
    pub detail: String,
    /// Mean power of the last reading, mW.
    pub power_mw: Option<u64>,
    /// This UTC month so far: best figure and bounds.
    #[schema(value_type = u64)]
    pub month_uj: Microjoules,
    /// Lower bound.
    #[schema(value_type = u64)]
    pub month_low_uj: Microjoules,
    /// Upper bound.
    #[schema(value_type = u64)]
    pub month_high_uj: Microjoules,
    /// Seconds of this month that readings cover; the rest is missing, not zero.
    pub month_covered_s: u64,
    /// The last 24 hours that have readings, oldest first.
    pub hours: Vec<EnergyHourView>,
}

/// Energy of one UTC hour.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EnergyHourView {
    /// Start of the hour.
    #[schema(value_type = i64)]
    pub hour: UtcTime,
    /// Best figure and bounds.
    #[schema(value_type = u64)]
    pub energy_uj: Microjoules,
    /// Lower bound.
    #[schema(value_type = u64)]
    pub low_uj: Microjoules,
    /// Upper bound.
    #[schema(value_type = u64)]
    pub high_uj: Microjoules,
    /// Seconds covered.
    pub covered_s: u64,
}

/// An alert.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AlertView {
    /// Number of the alert.
    pub id: i64,
    /// Stable key: the same trouble has the same key.
    pub key: String,
    /// `outage`, `sla_breach`, `patch_overdue`, `agent_silent`, …
    pub kind: String,
    /// `critical`, `warning`.
    pub severity: String,
    /// What it is about: a service or a host.
    pub subject: String,
    /// What happened, in one sentence.
    pub summary: String,
    /// What to do, in one or two sentences.
    pub action: String,
    /// When it began.
    #[schema(value_type = i64)]
    pub opened_at: UtcTime,
    /// When it was over; `null` while it lasts.
    #[schema(value_type = Option<i64>)]
    pub resolved_at: Option<UtcTime>,
    /// How it was delivered, per channel.
    pub deliveries: Vec<DeliveryView>,
}

/// One delivery of an alert to one channel.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeliveryView {
    /// Name of the channel.
    pub channel: String,
    /// `firing` or `resolved`.
    pub event: String,
    /// Attempts so far.
    pub attempts: u32,
    /// When the receiver took it; `null` while it is on its way.
    #[schema(value_type = Option<i64>)]
    pub sent_at: Option<UtcTime>,
    /// Why the last attempt failed; empty when none did.
    pub last_error: String,
}
