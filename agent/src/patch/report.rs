//! What a scan says: the JSON of `peil-agent patch scan --json`, and the record the collector judges.
//!
//! Problems are part of the report. A host whose lists are missing has an entry in `errors` and the level
//! `unknown`; an empty `findings` means "nothing lacks" only beside the level `known`.

use std::collections::BTreeMap;

use serde::Serialize;

/// The patch level of one root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether `findings` can be relied on; see [`ErrorKind::blinds`].
    pub level: Level,
    /// Which distribution, and how long it is maintained.
    pub os: Os,
    /// The package archives whose lists were read.
    pub archives: Vec<Archive>,
    /// How many packages are installed.
    pub installed: usize,
    /// What `apt list --upgradable` prints, without rebuilds of the same version.
    pub pending: Vec<Pending>,
    /// Security fixes this root lacks.
    pub findings: Vec<Finding>,
    /// Whether installed fixes wait for a reboot.
    pub reboot: Reboot,
    /// What could not be read or relied on.
    pub errors: Vec<Problem>,
}

/// Whether an empty list of findings means anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Everything needed was there.
    Known,
    /// At least one problem hides fixes; never to be counted as compliant.
    Unknown,
}

/// From `os-release` and the distribution's own table of dates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Os {
    /// `ID`, such as `debian`.
    pub id: Option<String>,
    /// `VERSION_ID`, such as `12`.
    pub version_id: Option<String>,
    /// `VERSION_CODENAME`, such as `bookworm`.
    pub codename: Option<String>,
    /// Until when fixes come.
    pub end_of_life: EndOfLife,
}

/// Where in its life a release is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EndOfLife {
    /// Last day (`YYYY-MM-DD`) of `phase`; for `ended`, the day it ended.
    pub date: Option<String>,
    /// Which kind of maintenance this root gets today.
    pub phase: Phase,
    /// All dates of this release as the table has them: `eol`, `eol-lts`, `eol-esm` …
    pub dates: BTreeMap<String, String>,
}

/// Kinds of maintenance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// By the distribution, for everybody.
    Standard,
    /// Debian's long-term support: free, fewer architectures and packages.
    Lts,
    /// Paid Debian support after LTS; only when its archive is among the lists.
    Elts,
    /// Ubuntu Pro; only when its archive is among the lists.
    Esm,
    /// Nobody fixes this release for this root any more.
    Ended,
    /// The release or the table is not known here.
    #[default]
    Unknown,
}

/// One package archive: the head of an `InRelease` file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Archive {
    /// `Origin`.
    pub origin: Option<String>,
    /// `Label`.
    pub label: Option<String>,
    /// `Suite`.
    pub suite: Option<String>,
    /// `Codename`.
    pub codename: Option<String>,
    /// Signed `Date`, RFC 3339: up to when this root knows of fixes.
    pub release_date: Option<String>,
    /// Signed `Valid-Until`, RFC 3339.
    pub valid_until: Option<String>,
    /// Whether its packages are security fixes.
    pub security: bool,
    /// Host part of the address; empty for a local directory.
    pub site: String,
    /// Components whose lists were read.
    pub components: Vec<String>,
}

/// A package with a newer candidate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pending {
    /// Binary package.
    pub package: String,
    /// Architecture of the installed package, as apt prints it.
    pub arch: String,
    /// Version now.
    pub installed: String,
    /// Version apt would install.
    pub candidate: String,
}

/// A security fix that is not installed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Source package, which advisories name.
    pub source: String,
    /// Version of the source package that has the fix (differs for binary rebuilds).
    pub source_version: String,
    /// Binary package.
    pub package: String,
    /// Architecture of the installed package.
    pub arch: String,
    /// Version now.
    pub installed: String,
    /// Newest version in a security archive.
    pub security_version: String,
    /// Version apt would install; the installed one when it would do nothing.
    pub candidate: String,
    /// What stands between.
    pub state: State,
    /// Advisory, where the lists name one (dpkg hosts: the collector adds it).
    pub advisory: Option<String>,
    /// When it was issued, RFC 3339 or a date.
    pub issued: Option<String>,
}

/// Whether an upgrade would bring the fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The candidate has it.
    Installable,
    /// Somebody put the package on hold.
    Held,
    /// Preferences keep the candidate below it.
    BlockedPin,
}

/// Whether the root waits for a reboot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reboot {
    /// `None`: not known, or no kernel of this root is running.
    pub required: Option<bool>,
    /// Why, in words; also for "not known".
    pub reasons: Vec<String>,
}

/// What could not be read or relied on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The kind, a fixed word.
    pub kind: ErrorKind,
    /// The file below the root, where one is to blame.
    pub file: Option<String>,
    /// What happened and what to do.
    pub detail: String,
}

/// Kinds of problems. Words, once published, stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Not a system whose package manager is read here.
    Unsupported,
    /// dpkg's status file is not there or cannot be read.
    StatusMissing,
    /// dpkg's status file is damaged.
    StatusDamaged,
    /// Lists of an archive (or all) are absent or empty.
    ListsMissing,
    /// The archive's own `Valid-Until` has passed.
    ListsExpired,
    /// Lists were replaced during both attempts to read them.
    ListsChanging,
    /// A list cannot be read to its end.
    ListUnreadable,
    /// A list is shorter than its archive says.
    ListTruncated,
    /// The head of an archive cannot be read.
    ReleaseDamaged,
    /// No list is from a security archive, so fixes cannot be told from other updates.
    SecurityUnknown,
    /// An archive's date lies in the future: this clock or that one is wrong.
    ClockSkew,
    /// A pin is not understood, so `candidate` and `state` may be off.
    PreferencesInvalid,
    /// A package is half installed.
    PackageBroken,
}

impl ErrorKind {
    /// True when fixes may stay unseen. The others only blur which version apt would choose.
    pub fn blinds(self) -> bool {
        !matches!(self, Self::PreferencesInvalid | Self::PackageBroken)
    }
}

impl Problem {
    /// A problem with `file`.
    pub(crate) fn with(kind: ErrorKind, file: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind, file: Some(file.into()), detail: detail.into() }
    }

    /// A problem of the root as a whole.
    pub(crate) fn general(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, file: None, detail: detail.into() }
    }
}
