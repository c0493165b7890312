//! The authority: who may call itself an agent, and how an agent knows this collector.
//!
//! One key signs two kinds of certificate: the collector's own (server, 90 days) and one per agent
//! (client, 30 days as a rule). It is made here at the first start, or it is yours ([`Authority::open`]).
//! The subject is always decided here: of a signing request only the public key counts.
//!
//! Assumes one process at a time opens a directory (the store's lock sees to that) and a clock that is
//! right within [`CLOCK_SKEW`]. Certificates say from when they hold; that moment is set back by so much,
//! so that a host whose clock is a little behind is not refused.
//!
//! Limits: a signing request over [`csr::CSR_BYTES_MAX`] and more than [`server::NAMES_MAX`] server names
//! are refused. No certificate outlives the authority: its end is cut to the authority's.
//!
//! Deliberately absent: revocation lists. Only this collector checks agents' certificates, so revocation
//! is a row it keeps ([`crate::tls::Admission`]), effective at the next handshake instead of the next list.

pub mod authorities;
pub mod certificate;
pub mod csr;
pub mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use peil_proto::ids::AgentId;
use peil_proto::keyfile::{self, KeyFileError, Readers};
use peil_proto::time::UtcTime;
use peil_proto::tls::provider;
use peil_proto::token::CaFingerprint;
use peil_proto::units::Millis;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;

pub use authorities::Authorities;
pub use certificate::{CertificateFacts, Serial, agent_of};
pub use csr::RequestError;
pub use server::ServerCertificate;

/// How far back a certificate's first moment lies, for hosts whose clock is behind.
pub const CLOCK_SKEW: Millis = Millis::HOUR;

/// Life of an authority made here: ten years of 365 days. Replacing it: [`authorities`].
const AUTHORITY_LIFE: Millis = Millis(10 * 365 * 24 * Millis::HOUR.0);

/// X.520 allows so many characters in a common name; a longer one is refused.
const NAME_CHARS_MAX: usize = 64;

const CERTIFICATE_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";

/// A key that may sign, and the certificate that says so.
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    not_after: UtcTime,
}

/// A certificate for an agent, ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// Its number, for the audit log and for revoking it.
    pub serial: Serial,
    /// Its last moment.
    pub not_after: UtcTime,
}

/// Why the authority cannot be used or will not sign.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A key or certificate file.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The directory for keys.
    #[error("cannot make the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Half of the authority is gone.
    #[error(
        "{} is there but {} is missing: restore it from the back-up. Starting with a new authority instead \
         (move both files away) makes every agent enrol again",
        certificate.display(), key.display()
    )]
    KeyMissing {
        /// The certificate that was found.
        certificate: PathBuf,
        /// The key that was not.
        key: PathBuf,
    },
    /// Not a certificate, not a key, not PEM.
    #[error("{} does not hold {wanted} in PEM form: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The certificate and the key are no pair, or may not sign.
    #[error("{} cannot be the authority: {reason}", path.display())]
    Unfit {
        /// The certificate file.
        path: PathBuf,
        /// Why, with the remedy where there is one.
        reason: String,
    },
    /// The name of the authority or of the server.
    #[error("cannot certify the name {name:?}: {reason}")]
    Name {
        /// As asked for.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Asked to sign for no time at all, or for a time that cannot be written in a certificate.
    #[error("a certificate from {from} to {to} cannot be made: {reason}")]
    Validity {
        /// First moment.
        from: UtcTime,
        /// Last moment.
        to: UtcTime,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The signing request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// None of the pairs in the directory is the one that agents trust.
    #[error(
        "the agents of this database trust the authority {wanted}, and {} does not hold it: copy its two files (ca*.key and ca*.pem) from a collector that has them, or from the back-up",
        directory.display()
    )]
    NotHere {
        /// Where it was looked for.
        directory: PathBuf,
        /// The one in force.
        wanted: CaFingerprint,
    },
    /// rustls cannot verify agents with it.
    #[error("cannot verify agents with this authority: {0}")]
    Verifier(String),
    /// The cryptography itself.
    #[error("cannot {attempt}")]
    Crypto {
        /// What was tried.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: rcgen::Error,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

impl Authority {
    /// The authority in `directory`, made when there is none yet. `name` is the common name of a new one.
    /// A crash between the two files is made good here: a key without certificate gets a new certificate.
    ///
    /// # Errors
    /// [`PkiError`], each variant with what to do.
    pub fn open_or_create(directory: &Path, name: &str, now: UtcTime) -> Result<Self, PkiError> {
        make_directory(directory)?;
        let (certificate, key) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        match keyfile::read_public(&certificate) {
            Ok(_) if key.exists() => return Self::open(directory, &certificate, &key, now),
            Ok(_) => return Err(PkiError::KeyMissing { certificate, key }),
            Err(e) if e.is_absent() => {}
            Err(e) => return Err(e.into()),
        }
        let pair = if key.exists() {
            read_key(&key)?
        } else {
            let pair = KeyPair::generate().map_err(crypto("make the authority's key"))?;
            keyfile::write(&key, pair.serialize_pem().as_bytes(), Readers::OwnerOnly)?;
            pair
        };
        let made = self_signed(&pair, name, now)?;
        keyfile::write(&certificate, made.pem().as_bytes(), Readers::Everybody)?;
        Self::open(directory, &certificate, &key, now)
    }

    /// Your own authority, root or intermediate: `certificate` and `key` are PEM files (the key PKCS#8),
    /// `directory` keeps the server certificate made with them.
    ///
    /// # Errors
    /// [`PkiError`], each variant with what to do. A trial certificate is signed and verified, so an
    /// authority that agents would not accept is refused at start, not at the first enrolment.
    pub fn open(directory: &Path, certificate: &Path, key: &Path, now: UtcTime) -> Result<Self, PkiError> {
        make_directory(directory)?;
        let der = read_certificate(certificate)?;
        let pair = read_key(key)?;
        let unfit = |reason: String| PkiError::Unfit { path: certificate.to_owned(), reason };
        let facts = CertificateFacts::read(&der).ok_or_else(|| unfit("it is not an X.509 certificate".to_owned()))?;
        if !certificate::may_sign(&der) {
            return Err(unfit("it is not a certificate of an authority (CA:TRUE, keyCertSign)".to_owned()));
        }
        if facts.public_key != pair.public_key_raw() {
            return Err(unfit(format!("the key in {} belongs to another certificate", key.display())));
        }
        if facts.not_after <= now {
            return Err(unfit(format!("it expired on {}; make a new one and enrol the agents again", facts.not_after)));
        }
        let issuer = Issuer::from_ca_cert_der(&der, pair).map_err(crypto("use the authority's certificate"))?;
        let authority = Self { directory: directory.to_owned(), issuer, certificate: der, not_after: facts.not_after };
        authority.try_out(now).map_err(|e| unfit(format!("what it signs would not be believed: {e}")))?;
        Ok(authority)
    }

    /// Signs for an agent. Only the request's public key is used, once its self-signature is checked;
    /// subject and names are ours: common name and `urn:peil:agent:<id>`, for client authentication only.
    ///
    /// # Errors
    /// [`PkiError::Request`] when the request or its key is no good, [`PkiError::Validity`] when nothing
    /// is left of the authority's life.
    pub fn sign_agent(
        &self,
        csr_der: &[u8],
        agent: AgentId,
        now: UtcTime,
        valid: Millis,
    ) -> Result<IssuedCertificate, PkiError> {
        self.sign_agent_key(&csr::public_key_of(csr_der)?, agent, now, valid)
    }

    /// SHA-256 of the authority's certificate: goes into every token.
    pub fn fingerprint(&self) -> CaFingerprint {
        CaFingerprint::of(&self.certificate)
    }

    /// The certificate agents trust.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate as PEM, to hand out.
    pub fn certificate_pem(&self) -> String {
        keyfile::certificate_pem(&self.certificate)
    }

    /// The last moment at which anything it signed is good.
    pub fn not_after(&self) -> UtcTime {
        self.not_after
    }

    /// What a verifier needs: this authority and no other.
    ///
    /// # Errors
    /// When rustls cannot use the certificate as a trust anchor.
    pub fn roots(&self) -> Result<Arc<RootCertStore>, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        Ok(Arc::new(roots))
    }

    fn sign_agent_key(
        &self,
        key: &impl PublicKeyData,
        agent: AgentId,
        now: UtcTime,
        valid: Millis,
    ) -> Result<IssuedCertificate, PkiError> {
        let mut params = leaf_params(&agent.to_string(), ExtendedKeyUsagePurpose::ClientAuth);
        let urn = agent.urn();
        let uri = urn.as_str().try_into().map_err(crypto("write the agent's name"))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        self.sign(params, key, now, valid)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        now: UtcTime,
        valid: Millis,
    ) -> Result<IssuedCertificate, PkiError> {
        let not_after = now.plus(valid).min(self.not_after);
        let from = now.plus(Millis(-CLOCK_SKEW.0));
        if not_after <= now {
            return Err(PkiError::Validity { from, to: not_after, reason: "it would end before it begins" });
        }
        set_validity(&mut params, from, not_after)?;
        let number = fresh_serial()?;
        params.serial_number = Some(SerialNumber::from_slice(&number));
        let made = params.signed_by(key, &self.issuer).map_err(crypto("sign a certificate"))?;
        Ok(IssuedCertificate {
            der: made.der().clone(),
            serial: Serial::new(&number),
            not_after: whole_second(not_after),
        })
    }

    /// Signs for a throw-away key and verifies as a collector would.
    fn try_out(&self, now: UtcTime) -> Result<(), String> {
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let trial = self.sign_agent_key(&key, AgentId([0; 16]), now, CLOCK_SKEW).map_err(|e| e.to_string())?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots().map_err(|e| e.to_string())?, provider())
                .build()
                .map_err(|e| e.to_string())?;
        verifier.verify_client_cert(&trial.der, &[], unix(now)).map(|_| ()).map_err(|e| e.to_string())
    }
}

/// Hides the key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("fingerprint", &self.fingerprint())
            .field("not_after", &self.not_after)
            .finish()
    }
}

fn self_signed(pair: &KeyPair, name: &str, now: UtcTime) -> Result<rcgen::Certificate, PkiError> {
    let wrong = |reason: &str| PkiError::Name { name: name.to_owned(), reason: reason.to_owned() };
    if name.trim().is_empty() {
        return Err(wrong("an authority needs a name"));
    }
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(wrong("a common name has at most 64 characters"));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    // It signs leaves only: a certificate it made cannot make others.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from_slice(&fresh_serial()?));
    set_validity(&mut params, now.plus(Millis(-CLOCK_SKEW.0)), now.plus(AUTHORITY_LIFE))?;
    params.self_signed(pair).map_err(crypto("make the authority's certificate"))
}

fn leaf_params(name: &str, purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// Certificates count whole seconds; the years they can write are 1970 to 9999 here.
fn set_validity(params: &mut CertificateParams, from: UtcTime, to: UtcTime) -> Result<(), PkiError> {
    const LAST_SECOND: u64 = 253_402_300_799;
    let seconds = |at: UtcTime| u64::try_from(at.0 / 1000).ok().filter(|s| *s <= LAST_SECOND);
    let (Some(first), Some(last)) = (seconds(from), seconds(to)) else {
        return Err(PkiError::Validity { from, to, reason: "is the clock of this machine right?" });
    };
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(first);
    params.not_after = epoch + Duration::from_secs(last);
    Ok(())
}

fn unix(at: UtcTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(at.0).unwrap_or(0)))
}

fn whole_second(at: UtcTime) -> UtcTime {
    UtcTime(at.0 - at.0.rem_euclid(1000))
}

/// 126 random bits: positive and of one length, as RFC 5280 4.1.2.2 wants it.
fn fresh_serial() -> Result<[u8; 16], PkiError> {
    let mut number = [0; 16];
    getrandom::fill(&mut number).map_err(PkiError::Random)?;
    number[0] = number[0] & 0x3f | 0x40;
    Ok(number)
}

fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, PkiError> {
    let text = keyfile::read_public(path)?;
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|e| PkiError::Unreadable {
        path: path.to_owned(),
        wanted: "a certificate",
        reason: e.to_string(),
    })
}

fn read_key(path: &Path) -> Result<KeyPair, PkiError> {
    let text = keyfile::read_private(path)?;
    KeyPair::from_pem(&text).map_err(|e| PkiError::Unreadable {
        path: path.to_owned(),
        wanted: "a private key (PKCS#8: ECDSA P-256 or P-384, Ed25519, RSA of 2048 bits or more)",
        reason: e.to_string(),
    })
}

fn make_directory(path: &Path) -> Result<(), PkiError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| PkiError::Directory { path: path.to_owned(), source })
}

fn crypto(attempt: &'static str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Crypto { attempt, source }
}

#[cfg(test)]
mod tests;
