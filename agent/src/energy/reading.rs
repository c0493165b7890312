//! What the energy part tells the rest of the agent: readings, and the state of each source.

use std::fmt;

use peil_proto::record::EnergyReading;
use peil_proto::time::UtcTime;
use peil_proto::units::{Microjoules, Millis};

use super::integrator::{Flag, Flags};

pub use peil_proto::record::{Boundary, Method};

/// Energy of this host over one interval. At most one per report interval; intervals of one agent
/// follow each other and never overlap. Always `low ≤ energy ≤ high`.
///
/// For a measured reading the bounds hold what the counting cannot know (wraps, failed zones, resets);
/// the accuracy of the sensor is a matter of `method` and `boundary` and judged by the collector. A
/// modelled reading has its −50 % and +100 % in the bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// `rapl`, `rapl:psys` or `model`.
    pub source: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// First moment, on the wall clock.
    pub start: UtcTime,
    /// Moment after the last.
    pub end: UtcTime,
    /// Best estimate.
    pub energy: Microjoules,
    /// At least this much.
    pub low: Microjoules,
    /// At most this much.
    pub high: Microjoules,
    /// Time awake; divide by this for a mean power.
    pub active: Millis,
    /// How it came about.
    pub method: Method,
    /// What it encloses.
    pub boundary: Boundary,
    /// What it encloses by name, joined by `+`: `cpu+dram`.
    pub covers: String,
    /// What happened on the way, without the uneventful `ok`; in order and without repeats.
    pub flags: Vec<Flag>,
    /// For a person: zones counted, zones that failed, why a model stands in.
    pub detail: String,
}

impl Reading {
    /// As it goes into the spool.
    pub fn to_record(&self) -> EnergyReading {
        EnergyReading {
            source: self.source.clone(),
            start: self.start,
            end: self.end,
            energy: self.energy,
            low: self.low,
            high: self.high,
            active: self.active,
            method: self.method,
            boundary: self.boundary,
            covers: self.covers.clone(),
            flags: self.flags.iter().map(|flag| flag.word().to_owned()).collect(),
            detail: self.detail.clone(),
        }
    }
}

/// The flags worth telling.
pub fn eventful(flags: &Flags) -> Vec<Flag> {
    flags.iter().copied().filter(|flag| *flag != Flag::Ok).collect()
}

/// Why a source does or does not deliver: "no data" is a fact, not a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceStatus {
    /// It delivers.
    Ok,
    /// Switched off in the settings.
    Off,
    /// It is there and we may not read it; with the remedy.
    Permission(String),
    /// This machine does not have it.
    Absent,
    /// We are a guest: what it counts is another machine's energy.
    Virtual,
    /// It is there and reading fails; with the last reason.
    Failing(String),
    /// It delivers nonsense too often to be believed; with what was seen.
    Unreliable(String),
}

impl SourceStatus {
    /// One word, stable, for records and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Off => "off",
            Self::Permission(_) => "permission",
            Self::Absent => "absent",
            Self::Virtual => "virtual",
            Self::Failing(_) => "failing",
            Self::Unreliable(_) => "unreliable",
        }
    }
}

impl fmt::Display for SourceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission(detail) | Self::Failing(detail) | Self::Unreliable(detail) => {
                write!(f, "{}: {detail}", self.word())
            }
            Self::Virtual => f.write_str("virtual: counters in a guest are another machine's"),
            Self::Ok | Self::Off | Self::Absent => f.write_str(self.word()),
        }
    }
}
