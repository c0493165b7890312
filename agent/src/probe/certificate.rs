//! Certificates: whom a probe trusts, what a server presented, and what was wrong with it.
//!
//! The usual verifier forgets a chain it refuses; for a monitor that chain is the evidence. So each
//! connection gets a [`Recorder`] in front of rustls' own verifier: it notes the chain, then lets the real
//! one decide. Nothing is ever accepted that rustls would refuse, with one exception: a leaf that stands byte
//! for byte in the operator's own CA file is trusted although it calls itself a CA (what
//! `openssl req -x509` makes), while its dates and names are still checked.
//!
//! - The trust of a CA file (or of the public roots) is built once and kept; a file whose size or time of
//!   change differs is read again at the next probe. Building is synchronous: 145 public roots take about a
//!   millisecond, once.
//! - Sessions are never resumed: each probe measures a full handshake.
//! - A chain is kept as the bytes that came (rustls takes at most 64 KiB of them) and only read when somebody
//!   looks, so a probe that is up pays for a copy and not for parsing.
//! - Time comes from the agent's [`WallClock`].
//!
//! Deliberately absent: revocation (OCSP, CRL), client certificates, TLS below 1.2.

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use peil_proto::sample::FailureKind;
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::Failure;

mod facts;

pub use facts::{Certificate, CertificateFacts};

/// A CA bundle is written by a person or a package (Mozilla's is 220 kB); a larger file is a mistake and is
/// refused.
pub const CA_FILE_BYTES_MAX: u64 = 4 << 20;

/// CA files kept in memory at once. When there are more, all are forgotten and read again as needed.
pub const CA_FILES_MAX: usize = 256;

/// Why a CA file cannot be used. Nothing was learnt about the target then.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file could not be read.
    #[error("cannot read CA file {}", path.display())]
    Read {
        /// As configured.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is over [`CA_FILE_BYTES_MAX`].
    #[error("CA file {} is {bytes} bytes; the limit is {CA_FILE_BYTES_MAX}", path.display())]
    TooLarge {
        /// As configured.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is not PEM, or holds no certificate.
    #[error("CA file {} holds no certificate in PEM", path.display())]
    NoCertificate {
        /// As configured.
        path: PathBuf,
    },
    /// A certificate in it cannot be a root of trust.
    #[error("CA file {} holds a certificate that cannot be used", path.display())]
    Unusable {
        /// As configured.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// rustls refuses our own settings.
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

impl TrustError {
    /// The attempt and its causes, in one line.
    pub(crate) fn chain(&self) -> String {
        match self.source() {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }

    pub(crate) fn into_failure(self) -> Failure {
        let denied = matches!(&self, Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
        let text = self.chain();
        if denied { Failure::judged(FailureKind::Permission, text) } else { Failure::unusable(text) }
    }
}

/// The trust of every CA file in use, built once.
#[derive(Debug)]
pub(crate) struct TlsConfigs {
    clock: WallClock,
    kept: Mutex<HashMap<Option<PathBuf>, Arc<Trusted>>>,
}

/// What one CA file, or the public roots, stands for.
#[derive(Debug)]
pub(crate) struct Trusted {
    config: ClientConfig,
    verifier: Arc<WebPkiServerVerifier>,
    /// The certificates of the CA file; empty for the public roots.
    own: Vec<CertificateDer<'static>>,
    stamp: Option<Stamp>,
}

/// What tells one version of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    changed: Option<SystemTime>,
}

impl TlsConfigs {
    pub(crate) fn new(clock: WallClock) -> Self {
        Self { clock, kept: Mutex::default() }
    }

    /// The trust for `ca_file`; the public roots for `None`.
    ///
    /// # Errors
    /// Why the file cannot be used. Not remembered: the next probe looks again.
    pub(crate) fn trusting(&self, ca_file: Option<&str>) -> Result<Arc<Trusted>, TrustError> {
        let path = ca_file.map(PathBuf::from);
        let stamp = path.as_deref().map(stamp_of).transpose()?;
        // The lock is held while reading, so that a hundred probes at start-up read a file once.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept.get(&path).filter(|found| found.stamp == stamp) {
            return Ok(Arc::clone(found));
        }
        let own = path.as_deref().map(read_bundle).transpose()?.unwrap_or_default();
        let built = Arc::new(Trusted::build(path.as_deref(), own, stamp, &self.clock)?);
        if kept.len() >= CA_FILES_MAX {
            kept.clear();
        }
        kept.insert(path, Arc::clone(&built));
        Ok(built)
    }
}

fn stamp_of(path: &Path) -> Result<Stamp, TrustError> {
    let meta = std::fs::metadata(path).map_err(|source| TrustError::Read { path: path.to_owned(), source })?;
    let (bytes, changed) = (meta.len(), meta.modified().ok());
    if bytes > CA_FILE_BYTES_MAX {
        return Err(TrustError::TooLarge { path: path.to_owned(), bytes });
    }
    Ok(Stamp { bytes, changed })
}

fn read_bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let pem = std::fs::read(path).map_err(|source| TrustError::Read { path: path.to_owned(), source })?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TrustError::NoCertificate { path: path.to_owned() }),
    }
}

impl Trusted {
    fn build(
        path: Option<&Path>,
        own: Vec<CertificateDer<'static>>,
        stamp: Option<Stamp>,
        clock: &WallClock,
    ) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        match path {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                for certificate in &own {
                    let unusable = |source| TrustError::Unusable { path: path.to_owned(), source };
                    roots.add(certificate.clone()).map_err(unusable)?;
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| TrustError::Setup(error.to_string()))?;
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(TlsClock(clock.clone())))
            .with_safe_default_protocol_versions()
            .map_err(|error| TrustError::Setup(error.to_string()))?
            .with_webpki_verifier(Arc::clone(&verifier))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self { config, verifier, own, stamp })
    }

    /// Settings for one connection. A clone copies some pointers; the roots are shared.
    pub(crate) fn config(&self, recorder: &Arc<Recorder>, alpn: Option<&'static [u8]>) -> ClientConfig {
        let mut config = self.config.clone();
        config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
        let verifier: Arc<dyn ServerCertVerifier> = Arc::<Recorder>::clone(recorder);
        config.dangerous().set_certificate_verifier(verifier);
        config
    }
}

/// The agent's clock, as rustls asks for it.
#[derive(Debug)]
struct TlsClock(WallClock);

impl rustls::time_provider::TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(self.0.now().0).ok()?)))
    }
}

/// Notes the chain a server presents, then lets the real verifier decide. One per connection.
#[derive(Debug)]
pub(crate) struct Recorder {
    trusted: Arc<Trusted>,
    presented: OnceLock<Vec<CertificateDer<'static>>>,
}

impl Recorder {
    pub(crate) fn new(trusted: &Arc<Trusted>) -> Self {
        Self { trusted: Arc::clone(trusted), presented: OnceLock::new() }
    }

    /// The chain, leaf first; `None` when the handshake did not get as far.
    pub(crate) fn presented(&self) -> Option<Vec<CertificateDer<'static>>> {
        self.presented.get().cloned()
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(leaf).chain(intermediates).map(|der| der.clone().into_owned()).collect();
        // A second call on one connection cannot happen; if it did, the first chain is the evidence.
        let _ = self.presented.set(chain);
        let verdict = self.trusted.verifier.verify_server_cert(leaf, intermediates, name, ocsp, now);
        match verdict {
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_))) if self.trusted.own.contains(leaf) => {
                facts::valid_at(leaf, now)?;
                let parsed = rustls::server::ParsedCertificate::try_from(leaf)?;
                rustls::client::verify_server_name(&parsed, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trusted.verifier.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trusted.verifier.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.verifier.supported_verify_schemes()
    }
}

/// What was learnt in a TLS handshake, whether it succeeded or not.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// The name that was sent and had to be in the certificate.
    pub server_name: String,
    /// What was agreed; `None` when the handshake failed.
    pub agreed: Option<Agreed>,
    chain: Vec<CertificateDer<'static>>,
}

/// What client and server agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// `TLSv1_3`.
    pub version: &'static str,
    /// `TLS13_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
    /// `http/1.1`, when one was agreed.
    pub alpn: Option<String>,
}

impl TlsFacts {
    pub(crate) fn of_chain(server_name: &str, chain: Vec<CertificateDer<'static>>) -> Self {
        Self { server_name: server_name.to_owned(), agreed: None, chain }
    }

    pub(crate) fn note_agreed(&mut self, session: &ClientConnection) {
        let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("unknown");
        let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown");
        let alpn = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        self.agreed = Some(Agreed { version, cipher, alpn });
    }

    /// The chain as presented, leaf first, read now.
    pub fn certificates(&self) -> Vec<Certificate> {
        self.chain.iter().map(Certificate::read).collect()
    }

    /// When the leaf ends; `None` when it cannot be read.
    pub fn leaf_not_after(&self) -> Option<UtcTime> {
        Some(facts::validity(self.chain.first()?)?.1)
    }
}

/// The failure of a leaf that ends within `days` (that many whole days, inclusive) from `now`.
pub(crate) fn too_short(tls: Option<&TlsFacts>, days: Option<u16>, now: UtcTime) -> Option<Failure> {
    let (ends, days) = (tls?.leaf_not_after()?, days?);
    let limit = now.plus(Millis(Millis::DAY.0 * i64::from(days)));
    (ends <= limit).then(|| {
        let text = format!("the certificate ends at {ends}, within {days} days");
        Failure::judged(FailureKind::CertExpiring, text)
    })
}

/// Which certificate mistake, or TLS trouble, an error of rustls is.
pub(crate) fn failure_kind_of_tls(error: &rustls::Error) -> FailureKind {
    match error {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => FailureKind::CertExpired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => FailureKind::CertNotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                FailureKind::CertWrongName
            }
            _ => FailureKind::CertUntrusted,
        },
        rustls::Error::FailedToGetRandomBytes | rustls::Error::FailedToGetCurrentTime => FailureKind::LocalResource,
        _ => FailureKind::Tls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> WallClock {
        WallClock::manual(UtcTime::parse("2026-04-01T00:00:00Z").expect("a time"))
    }

    #[test]
    fn trust_is_built_once_and_again_when_the_file_changes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ca.pem");
        let name = path.to_str().expect("utf-8");
        let one = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a certificate").cert.pem();
        std::fs::write(&path, &one).expect("writes");
        let configs = TlsConfigs::new(clock());
        let first = configs.trusting(Some(name)).expect("reads");
        assert!(Arc::ptr_eq(&first, &configs.trusting(Some(name)).expect("reads")));
        let two = rcgen::generate_simple_self_signed(["b.test".to_owned()]).expect("a certificate").cert.pem();
        std::fs::write(&path, one + &two).expect("writes");
        assert_eq!(configs.trusting(Some(name)).expect("reads").own.len(), 2);
        let public = configs.trusting(None).expect("public roots");
        assert!(Arc::ptr_eq(&public, &configs.trusting(None).expect("public roots")));
    }

    #[test]
    fn an_unusable_ca_file_says_what_is_wrong_and_never_counts_as_down() {
        let dir = tempfile::tempdir().expect("a directory");
        let configs = TlsConfigs::new(clock());
        let refuse = |name: &str, content: Option<&[u8]>| {
            let path = dir.path().join(name);
            if let Some(content) = content {
                std::fs::write(&path, content).expect("writes");
            }
            let failure = configs.trusting(path.to_str()).expect_err("refused").into_failure();
            assert!(!failure.kind.is_about_target(), "{failure:?}");
            failure.text
        };
        assert!(refuse("missing", None).contains("No such file"), "names the cause");
        assert!(refuse("empty", Some(b"")).contains("no certificate in PEM"));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(refuse("broken", Some(broken)).contains("cannot be used"));
        let huge = vec![b'\n'; usize::try_from(CA_FILE_BYTES_MAX).expect("fits") + 1];
        assert!(refuse("huge", Some(&huge)).contains("the limit is"));
    }

    #[test]
    fn a_certificate_is_expiring_when_it_ends_within_the_agreed_days() {
        let mut params = rcgen::CertificateParams::new(["a.test".to_owned()]).expect("params");
        params.not_after = rcgen::date_time_ymd(2026, 4, 15);
        let key = rcgen::KeyPair::generate().expect("a key");
        let der = params.self_signed(&key).expect("a certificate").der().clone();
        let facts = TlsFacts::of_chain("a.test", vec![der]);
        let at = |text: &str| UtcTime::parse(text).expect("a time");
        let kind = |days, now| too_short(Some(&facts), days, at(now)).map(|failure| failure.kind);
        assert_eq!(kind(Some(14), "2026-04-01T00:00:00Z"), Some(FailureKind::CertExpiring));
        assert_eq!(kind(Some(14), "2026-03-31T23:59:59Z"), None);
        assert_eq!(kind(Some(13), "2026-04-01T00:00:00Z"), None);
        assert_eq!(kind(None, "2026-04-01T00:00:00Z"), None);
    }
}
