//! What one scheduled observation found: the record that flows through everything.
//!
//! A failed probe is data. [`Outcome`] says which of four things is known: the target answered as it
//! must, it did not, nobody can tell (our own resolver, descriptors, rights or network failed), or the
//! probe did not run at all. Only [`FailureKind`] knows which failures speak about the target.

use crate::ids::CheckNo;
use crate::time::UtcTime;
use crate::units::{Micros, Millis};

/// Steps of a probe that are timed apart, in order. See [`Phases`].
pub const PHASES: [&str; 5] = ["resolve", "connect", "tls", "first_byte", "transfer"];

/// Time spent per phase in µs; `None` when the phase did not take place (no TLS in a tcp check, or
/// the probe failed earlier). The phase in which a probe failed holds the time until it gave up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// Name to address.
    pub resolve: Option<Micros>,
    /// TCP handshake.
    pub connect: Option<Micros>,
    /// TLS handshake.
    pub tls: Option<Micros>,
    /// Request sent until the first byte of the answer.
    pub first_byte: Option<Micros>,
    /// First byte until the end of the answer.
    pub transfer: Option<Micros>,
}

impl Phases {
    /// In the order of [`PHASES`].
    pub fn to_array(self) -> [Option<Micros>; 5] {
        [self.resolve, self.connect, self.tls, self.first_byte, self.transfer]
    }

    /// From the order of [`PHASES`].
    pub fn from_array([resolve, connect, tls, first_byte, transfer]: [Option<Micros>; 5]) -> Self {
        Self { resolve, connect, tls, first_byte, transfer }
    }

    /// Sum of the phases that took place.
    pub fn total(self) -> Micros {
        self.to_array().into_iter().flatten().fold(Micros::ZERO, Micros::saturating_add)
    }
}

macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in order of its code.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The number on the wire and on disk: never reused, never changed.
            pub fn code(self) -> u8 {
                match self { $($name::$variant => $code),+ }
            }

            /// The value with this number.
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some($name::$variant),)+ _ => None }
            }

            /// The word people and other programs see.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

table!(
    /// Why a probe did not succeed. See [`FailureKind::is_about_target`] for the line between
    /// DOWN and UNKNOWN.
    FailureKind {
        /// The name does not exist, or has no address of the wanted family.
        NoSuchName = 1 "no_such_name",
        /// The resolver failed or did not answer: says nothing about the target.
        Resolver = 2 "resolver",
        /// The target refused the connection.
        Refused = 3 "refused",
        /// No answer before the deadline; the phase tells in which step.
        Timeout = 4 "timeout",
        /// No route to the target, or the network refused.
        Unreachable = 5 "unreachable",
        /// The connection broke off.
        Closed = 6 "closed",
        /// TLS handshake failed for another reason than the certificate.
        Tls = 7 "tls",
        /// Certificate past its end.
        CertExpired = 8 "cert_expired",
        /// Certificate before its start.
        CertNotYetValid = 9 "cert_not_yet_valid",
        /// Certificate for another name.
        CertWrongName = 10 "cert_wrong_name",
        /// Certificate from an issuer we do not trust (self-signed, missing intermediate).
        CertUntrusted = 11 "cert_untrusted",
        /// The answer is not the protocol.
        Protocol = 12 "protocol",
        /// The answer has a status that is not expected.
        Status = 13 "status",
        /// The answer lacks what must be in it.
        Content = 14 "content",
        /// Too many redirects, or one to a forbidden place.
        Redirect = 15 "redirect",
        /// Out of descriptors, ports or memory on this host: says nothing about the target.
        LocalResource = 16 "local_resource",
        /// This host does not let us: says nothing about the target.
        Permission = 17 "permission",
        /// This host's own network is down: says nothing about the target.
        VantageDown = 18 "vantage_down",
        /// The local policy forbids the address: says nothing about the target.
        Denied = 19 "denied",
        /// Certificate will end within the agreed number of days.
        CertExpiring = 20 "cert_expiring",
    }
);

impl FailureKind {
    /// True when the failure is the target's (DOWN); false when it is ours (UNKNOWN).
    pub fn is_about_target(self) -> bool {
        use FailureKind::{Denied, LocalResource, Permission, Resolver, VantageDown};
        !matches!(self, Resolver | LocalResource | Permission | VantageDown | Denied)
    }
}

table!(
    /// Why a due tick was not probed.
    NotRun {
        /// The previous run of the same check had not ended.
        Overrun = 1 "overrun",
        /// No free slot before the deadline: too many probes in flight.
        Overload = 2 "overload",
        /// The host was suspended.
        Suspended = 3 "suspended",
        /// The agent was stopping.
        Shutdown = 4 "shutdown",
        /// The local policy does not allow this check.
        Policy = 5 "policy",
    }
);

table!(
    /// Why samples are missing for a stretch of time.
    GapReason {
        /// The agent was not running.
        AgentStopped = 1 "agent_stopped",
        /// The spool was full and dropped its oldest records.
        SpoolFull = 2 "spool_full",
        /// Records on disk were damaged and could not be read back.
        SpoolDamaged = 3 "spool_damaged",
        /// The host was suspended.
        Suspended = 4 "suspended",
        /// The agent itself was held up for longer than its ticks are caught up.
        Stalled = 5 "stalled",
    }
);

/// The result of one due tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The target answered as it must. `code` is the protocol's own number (HTTP status), 0 if none.
    Up {
        /// HTTP status or 0.
        code: u16,
    },
    /// The probe ran and did not succeed.
    Failed {
        /// What went wrong.
        kind: FailureKind,
        /// HTTP status or 0.
        code: u16,
    },
    /// The probe did not run.
    NotRun(NotRun),
}

/// What a sample says about its target: the vote in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Up,
    /// It does not.
    Down,
    /// Nobody knows.
    Unknown,
}

impl State {
    /// The word people and other programs see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

impl Outcome {
    /// Up, down, or unknown when the failure is ours or nothing ran.
    pub fn state(self) -> State {
        match self {
            Self::Up { .. } => State::Up,
            Self::Failed { kind, .. } if kind.is_about_target() => State::Down,
            Self::Failed { .. } | Self::NotRun(_) => State::Unknown,
        }
    }

    /// One word for logs and pages: `up`, `refused`, `not_run:overload`.
    pub fn word(self) -> String {
        match self {
            Self::Up { .. } => "up".to_owned(),
            Self::Failed { kind, code: 0 } => kind.word().to_owned(),
            Self::Failed { kind, code } => format!("{kind}:{code}"),
            Self::NotRun(why) => format!("not_run:{why}"),
        }
    }
}

/// One scheduled observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Which check.
    pub check: CheckNo,
    /// When the tick was due (wall clock): the moment the state counts from.
    pub scheduled_at: UtcTime,
    /// From due to the start of the first phase: queueing and lateness, kept apart from latency.
    pub delay: Millis,
    /// What came of it.
    pub outcome: Outcome,
    /// Time per phase.
    pub phases: Phases,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_failures_are_unknown_never_down() {
        for kind in
            [FailureKind::Resolver, FailureKind::LocalResource, FailureKind::Permission, FailureKind::VantageDown]
        {
            assert_eq!(Outcome::Failed { kind, code: 0 }.state(), State::Unknown, "{kind}");
        }
        assert_eq!(Outcome::Failed { kind: FailureKind::Refused, code: 0 }.state(), State::Down);
        assert_eq!(Outcome::NotRun(NotRun::Overload).state(), State::Unknown);
    }

    #[test]
    fn codes_are_unique_and_read_back() {
        for kind in FailureKind::ALL {
            assert_eq!(FailureKind::from_code(kind.code()), Some(*kind));
        }
        for why in NotRun::ALL {
            assert_eq!(NotRun::from_code(why.code()), Some(*why));
        }
    }
}
