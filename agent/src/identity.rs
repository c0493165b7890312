//! Who this host is: a key made here, a certificate for it, and the authorities to trust.
//!
//! ```text
//! <dir>/gen-000007/{key.pem, cert.pem, ca.pem, agent.json}   one generation, complete
//! <dir>/current -> gen-000007                                the one in force
//! ```
//!
//! A generation is written and synced as a whole before `current` is renamed onto it, so a crash at any
//! moment leaves the former identity or the new one, never a key with the certificate of another. What a
//! crash left behind goes at the next save.
//!
//! There is one authority, and two while the collector replaces its own: then `ca.pem` holds both, the one that issued
//! the certificate first. A program that knows of one only reads the first.
//!
//! Assumes one writer per directory. The private key never leaves this directory except into the TLS
//! library. An expired certificate still loads: the program must be able to say so, and keeps probing and
//! spooling meanwhile; only the collector refuses it.
//!
//! Deliberately absent: talking to the collector (`uplink`), and deciding to enrol.

pub mod files;
pub mod trust;

use std::path::{Path, PathBuf};
use std::time::Duration;

use peil_proto::ids::AgentId;
use peil_proto::keyfile::KeyFileError;
use peil_proto::time::UtcTime;
use peil_proto::token::CaFingerprint;
use peil_proto::units::Millis;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

pub use trust::{PinMismatch, enrol_client_config};

const DAY: i64 = 24 * Millis::HOUR.0;

/// What else is worth keeping with a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The collector that issued it, as a URL.
    pub collector: String,
    /// When it was issued.
    pub issued_at: UtcTime,
}

/// The identity in force.
pub struct Identity {
    agent: AgentId,
    key: KeyPair,
    certificate: CertificateDer<'static>,
    /// Whom this host believes: the one that issued its certificate, and while the collector's authority is being
    /// replaced the other one.
    authorities: Authorities,
    not_before: UtcTime,
    not_after: UtcTime,
    meta: Meta,
}

/// The authorities a host believes, the one that issued its certificate first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities {
    /// It issued our certificate.
    pub issuer: CertificateDer<'static>,
    /// It may have signed the collector's.
    pub others: Vec<CertificateDer<'static>>,
}

/// Authorities believed besides the issuer. A collector names one while it replaces its own; an answer with more than
/// this is refused whole.
pub const OTHERS_MAX: usize = 3;

/// How an identity stands at a moment; `Display` says it to the operator, with what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing to do.
    Good {
        /// Whole days until it ends.
        days_left: i64,
    },
    /// Time to ask for the next one.
    RenewDue {
        /// Whole days until it ends.
        days_left: i64,
    },
    /// The collector will refuse it.
    Expired {
        /// Its last moment.
        at: UtcTime,
    },
    /// This machine's clock is behind, or the collector's is ahead.
    NotYet {
        /// Its first moment.
        from: UtcTime,
    },
}

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Never enrolled.
    #[error(
        "this host has no identity yet in {}: make a token on the collector and run `peil-agent enroll` with it",
        directory.display()
    )]
    NotEnrolled {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// A file of it.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// Directories and the pointer.
    #[error("cannot {attempt} {}", path.display())]
    Directory {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Files that do not hold what they should.
    #[error("the identity in {} is damaged ({reason}): enrol this host again with a new token", directory.display())]
    Damaged {
        /// The generation.
        directory: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What the collector sent cannot be an identity of this host; nothing was changed.
    #[error("the certificate from the collector is not usable: {0}")]
    Unusable(String),
    /// The collector's clock and ours disagree.
    #[error(
        "the certificate from the collector holds from {from} on, but this machine's clock says {now}: \
         set the clock and try again"
    )]
    ClockBehind {
        /// First moment of the certificate.
        from: UtcTime,
        /// This machine's time.
        now: UtcTime,
    },
    /// The cryptography itself.
    #[error("cannot make a key and a signing request")]
    Crypto(#[source] rcgen::Error),
    /// rustls will not have it.
    #[error("cannot set up TLS with this identity")]
    Tls(#[source] rustls::Error),
}

/// A fresh key (ECDSA P-256) and the request to certify it, DER. The request names nobody: the collector
/// decides the name.
///
/// # Errors
/// [`IdentityError::Crypto`].
pub fn prepare() -> Result<(KeyPair, Vec<u8>), IdentityError> {
    let key = KeyPair::generate().map_err(IdentityError::Crypto)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(IdentityError::Crypto)?;
    Ok((key, request.der().to_vec()))
}

impl Identity {
    /// The identity in force in `directory`, expired or not.
    ///
    /// # Errors
    /// [`IdentityError::NotEnrolled`] when there is none, otherwise what is wrong with it.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        files::load(directory)
    }

    /// Takes what the collector sent for `key` into force: checked first, then written so that a crash
    /// leaves the former identity or this one.
    ///
    /// # Errors
    /// [`IdentityError::Unusable`] or [`IdentityError::ClockBehind`] before anything is written;
    /// otherwise why it could not be written, with the former identity still in force.
    pub fn save(
        directory: &Path,
        key: KeyPair,
        certificate: CertificateDer<'static>,
        authorities: Authorities,
        meta: Meta,
        now: UtcTime,
    ) -> Result<Self, IdentityError> {
        let identity = Self::assemble(key, certificate, authorities, meta).map_err(IdentityError::Unusable)?;
        if now < identity.not_before {
            return Err(IdentityError::ClockBehind { from: identity.not_before, now });
        }
        trust::check_issued(&identity, now).map_err(|e| IdentityError::Unusable(e.to_string()))?;
        files::save(directory, &identity)?;
        Ok(identity)
    }

    /// This host's id.
    pub fn agent(&self) -> AgentId {
        self.agent
    }

    /// Fingerprints of the authorities it believes, the issuer first: what the collector is told of them.
    pub fn trusted(&self) -> Vec<CaFingerprint> {
        self.authorities.all().map(|authority| CaFingerprint::of(authority)).collect()
    }

    /// The collector it was issued by, and when.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The last moment the collector accepts it.
    pub fn not_after(&self) -> UtcTime {
        self.not_after
    }

    /// Whole days until it ends; negative once it has.
    pub fn days_left(&self, now: UtcTime) -> i64 {
        self.not_after.since(now).0.div_euclid(DAY)
    }

    /// True from two thirds of its life on, a little later for some agents than for others.
    pub fn renew_due(&self, now: UtcTime) -> bool {
        now >= self.renew_at()
    }

    /// When to ask for the next one.
    pub fn renew_at(&self) -> UtcTime {
        renewal_moment(self.not_before, self.not_after, self.agent)
    }

    /// How it stands, in words for the operator.
    pub fn standing(&self, now: UtcTime) -> Standing {
        let days_left = self.days_left(now);
        if now > self.not_after {
            Standing::Expired { at: self.not_after }
        } else if now < self.not_before {
            Standing::NotYet { from: self.not_before }
        } else if self.renew_due(now) {
            Standing::RenewDue { days_left }
        } else {
            Standing::Good { days_left }
        }
    }

    /// Puts the parts together when they belong together.
    fn assemble(
        key: KeyPair,
        certificate: CertificateDer<'static>,
        authorities: Authorities,
        meta: Meta,
    ) -> Result<Self, String> {
        if authorities.others.len() > OTHERS_MAX {
            return Err(format!("it comes with more than {OTHERS_MAX} other authorities"));
        }
        let Ok(([], leaf)) = X509Certificate::from_der(&certificate) else {
            return Err("it is not an X.509 certificate".to_owned());
        };
        if leaf.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err("it is for another key than ours".to_owned());
        }
        let agent = agent_named(&leaf).ok_or("it names no agent")?;
        let seconds = |at: i64| UtcTime(at.saturating_mul(1000));
        let validity = leaf.validity();
        let (not_before, not_after) =
            (seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp()));
        drop(leaf);
        Ok(Self { agent, key, certificate, authorities, not_before, not_after, meta })
    }
}

impl Authorities {
    /// All of them, the issuer first.
    pub fn all(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        std::iter::once(&self.issuer).chain(&self.others)
    }
}

/// A host that believes one only.
impl From<CertificateDer<'static>> for Authorities {
    fn from(issuer: CertificateDer<'static>) -> Self {
        Self { issuer, others: Vec::new() }
    }
}

/// Two thirds of the life, plus up to a twelfth that depends on the agent only: agents enrolled in one go
/// do not renew in one go, and a restart does not move the moment.
fn renewal_moment(not_before: UtcTime, not_after: UtcTime, agent: AgentId) -> UtcTime {
    let life = not_after.since(not_before).0.max(0);
    // The id is random, so its first bytes are an even spread over 0..65536.
    let share = i64::from(u16::from_be_bytes([agent.0[0], agent.0[1]]));
    let spread = (life / 12).saturating_mul(share) / 65_536;
    not_before.plus(Millis(life / 3 * 2 + spread))
}

fn agent_named(leaf: &X509Certificate<'_>) -> Option<AgentId> {
    let names = leaf.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => AgentId::from_urn(uri),
        _ => None,
    })
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Good { days_left } => write!(f, "the certificate is good for {days_left} more days"),
            Self::RenewDue { days_left } => {
                write!(f, "the certificate is due for renewal ({days_left} days left); this happens by itself")
            }
            Self::Expired { at } => write!(
                f,
                "the certificate expired on {at} and the collector refuses it: results are kept on this host until \
                 it is enrolled again. Make a token on the collector and run `peil-agent enroll` with it"
            ),
            Self::NotYet { from } => write!(
                f,
                "the certificate holds from {from} on only: the clock of this machine is behind, set it right"
            ),
        }
    }
}

/// Hides the key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("agent", &self.agent).field("not_after", &self.not_after).finish()
    }
}

fn unix(at: UtcTime) -> rustls::pki_types::UnixTime {
    rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(at.0).unwrap_or(0)))
}

#[cfg(test)]
mod tests;
