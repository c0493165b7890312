//! Everything an agent can say, as values of the domain. `convert.rs` knows how they look on the wire.

use crate::ids::CheckNo;
use crate::sample::{GapReason, Sample};
use crate::summary::Summary;
use crate::time::UtcTime;
use crate::units::{Microjoules, Micros, Millis};

/// One record: it has one sequence number in its agent's spool and is stored exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The result of a due tick.
    Sample(Sample),
    /// Samples known to be missing.
    Gap(Gap),
    /// What stands behind a changed outcome or certificate.
    Detail(ProbeDetail),
    /// The patch level of the host.
    Patch(PatchReport),
    /// The energy of an interval.
    Energy(EnergyReading),
    /// Stable facts about the host.
    Facts(HostFacts),
    /// The agent about itself.
    Vitals(Vitals),
    /// Routine successes that a full spool folded together.
    Summary(Summary),
}

impl Record {
    /// When it is about, or ends; `None` for what holds at any time.
    pub fn about(&self) -> Option<UtcTime> {
        match self {
            Self::Sample(sample) => Some(sample.scheduled_at),
            Self::Gap(gap) => Some(gap.to),
            Self::Detail(detail) => Some(detail.scheduled_at),
            Self::Patch(report) => Some(report.scanned_at),
            Self::Energy(reading) => Some(reading.end),
            Self::Vitals(vitals) => Some(vitals.at),
            Self::Summary(summary) => Some(summary.last()),
            Self::Facts(_) => None,
        }
    }
}

/// Samples known to be missing in `[from, to)`, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// First moment without samples.
    pub from: UtcTime,
    /// First moment with samples again.
    pub to: UtcTime,
    /// Why.
    pub reason: GapReason,
    /// The check it is about; `None` means every check of the agent.
    pub check: Option<CheckNo>,
    /// Records that had numbers and are lost.
    pub records_lost: u64,
    /// Of the ticks lost, how many are known to have been up.
    pub ok_lost: u64,
    /// Of the ticks lost, how many are known not to have been up.
    pub not_ok_lost: u64,
}

impl Gap {
    /// A gap of which nothing was counted: no record had a number yet, or nobody could read it any more.
    pub fn new(from: UtcTime, to: UtcTime, reason: GapReason) -> Self {
        Self { from, to, reason, check: None, records_lost: 0, ok_lost: 0, not_ok_lost: 0 }
    }
}

/// What stands behind a sample, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeDetail {
    /// Which check.
    pub check: CheckNo,
    /// The sample's scheduled time.
    pub scheduled_at: UtcTime,
    /// Address that was tried; empty if none was reached.
    pub peer: String,
    /// What happened, in one sentence without secrets.
    pub text: String,
    /// The certificate presented, also when refused.
    pub certificate: Option<Certificate>,
}

/// Facts of a leaf certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Distinguished name of the holder.
    pub subject: String,
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// Start of validity.
    pub not_before: UtcTime,
    /// End of validity.
    pub not_after: UtcTime,
    /// SHA-256 of the DER.
    pub sha256: [u8; 32],
}

/// The patch level of a host, whole each time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatchReport {
    /// When the scan was made.
    pub scanned_at: UtcTime,
    /// `debian`.
    pub os_id: String,
    /// `12`.
    pub os_version: String,
    /// `bookworm`.
    pub os_codename: String,
    /// Date of the end of life of the release, if known.
    pub end_of_life: Option<String>,
    /// Installed packages.
    pub installed: u32,
    /// Packages with a newer candidate of any kind.
    pub pending: u32,
    /// Security fixes the host lacks.
    pub findings: Vec<Finding>,
    /// The archives the lists came from.
    pub archives: Vec<Archive>,
    /// Whether a restart is needed for fixes to take effect; `None` when nobody can tell.
    pub reboot_required: Option<bool>,
    /// Why a restart is needed.
    pub reboot_reasons: Vec<String>,
    /// What stood in the way of the scan.
    pub errors: Vec<ScanError>,
    /// Whether no error hides fixes. False: the level is unknown, never compliant.
    pub known: bool,
}

/// Whether a fix can be installed as things are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingState {
    /// apt would install it.
    #[default]
    Installable,
    /// The package is on hold.
    Held,
    /// A pin keeps a lower candidate.
    BlockedPin,
}

/// A security fix the host lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// Source package: the unit of advisories.
    pub source: String,
    /// Binary package.
    pub package: String,
    /// Architecture.
    pub arch: String,
    /// Version on the host.
    pub installed: String,
    /// Version in the security archive.
    pub security_version: String,
    /// What apt would install; empty when nothing.
    pub candidate: String,
    /// Whether it can be installed as things are.
    pub state: FindingState,
}

/// An archive and how fresh its lists are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archive {
    /// `Debian`.
    pub origin: String,
    /// `Debian-Security`.
    pub label: String,
    /// `oldstable-security`.
    pub suite: String,
    /// `bookworm-security`.
    pub codename: String,
    /// Date of the Release file.
    pub release_at: Option<UtcTime>,
    /// When it stops being trustworthy.
    pub valid_until: Option<UtcTime>,
    /// Whether it is a security archive.
    pub security: bool,
}

/// Something that stood in the way of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanError {
    /// `lists_missing`, `lists_expired`, …
    pub kind: String,
    /// Which file, if any.
    pub file: String,
    /// For people.
    pub detail: String,
}

/// How a figure of energy was come by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// A counter or meter.
    Measured,
    /// A counter, scaled or bridged by calibration.
    Estimated,
    /// Computed from utilisation.
    #[default]
    Modelled,
}

/// How much of the machine a figure of energy encloses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Boundary {
    /// Parts of it (CPU package, memory).
    #[default]
    Component,
    /// The board.
    Platform,
    /// At the plug.
    Wall,
}

impl Method {
    /// The word people and other programs see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Estimated => "estimated",
            Self::Modelled => "modelled",
        }
    }
}

impl Boundary {
    /// The word people and other programs see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Platform => "platform",
            Self::Wall => "wall",
        }
    }
}

/// The energy of an interval; `low ≤ energy ≤ high` encloses the truth as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnergyReading {
    /// Stable name of the source.
    pub source: String,
    /// Start of the interval.
    pub start: UtcTime,
    /// End of the interval.
    pub end: UtcTime,
    /// Best figure.
    pub energy: Microjoules,
    /// Lower bound.
    pub low: Microjoules,
    /// Upper bound.
    pub high: Microjoules,
    /// Part of the interval the host was awake.
    pub active: Millis,
    /// How it was come by.
    pub method: Method,
    /// How much of the machine it encloses.
    pub boundary: Boundary,
    /// What is inside, in words.
    pub covers: String,
    /// Flags of the integrator, in words.
    pub flags: Vec<String>,
    /// Why this source and not a better one.
    pub detail: String,
}

/// Stable facts about the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Name of the host.
    pub hostname: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// `x86_64`.
    pub arch: String,
    /// Logical processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Version of the agent.
    pub agent_version: String,
    /// Changes with every boot.
    pub boot_id: String,
}

/// The agent about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vitals {
    /// When.
    pub at: UtcTime,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// CPU time since the last vitals.
    pub cpu: Micros,
    /// Unacked records in the spool.
    pub spool_records: u64,
    /// Bytes of the spool on disk.
    pub spool_bytes: u64,
    /// Ticks due since the last vitals.
    pub ticks_due: u32,
    /// Of those, started more than a second late.
    pub ticks_late: u32,
    /// Of those, not run.
    pub ticks_not_run: u32,
    /// True when the spool could not write.
    pub spool_degraded: bool,
    /// The plan in force.
    pub plan_version: u64,
    /// Of the ticks due, those that waited for more than a tenth of their interval.
    pub ticks_tainted: u32,
    /// Only one of this many ticks runs, because the agent is overloaded; 0 or 1: all.
    pub stretch: u32,
}
