//! Whom a probe trusts: the public roots, or the CA file of its check.
//!
//! - The trust of a CA file (or of the public roots) is built once and kept; a file whose size or time of
//!   change differs is read again at the next probe. Reading and building are synchronous: 145 public roots
//!   take about a millisecond, once.
//! - Sessions are never resumed: each probe measures a full handshake.
//! - One crypto provider (ring), named here and never taken from the process.
//! - Time comes from the agent's [`WallClock`].

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use peil_proto::plan::{TlsOptions, TlsVersion};
use peil_proto::sample::FailureKind;
use peil_proto::time::WallClock;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{ClientConfig, RootCertStore};

use super::super::Failure;
use super::Recorder;

/// A CA bundle is written by a person or a package (Mozilla's is 220 kB); a larger file is a mistake and is
/// refused.
pub(super) const CA_FILE_BYTES_MAX: u64 = 4 << 20;

/// CA files kept in memory at once. When there are more, all are forgotten and read again as needed.
pub(super) const CA_FILES_MAX: usize = 256;

/// Why a CA file cannot be used. Nothing was learnt about the target then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
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
    kept: Mutex<HashMap<Key, Arc<Trusted>>>,
}

/// What one trust differs from another in: the CA file (none: the public roots) and the lowest version.
type Key = (Option<PathBuf>, TlsVersion);

const ONLY_TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// What one CA file, or the public roots, stands for.
#[derive(Debug)]
pub(crate) struct Trusted {
    config: ClientConfig,
    pub(super) verifier: Arc<WebPkiServerVerifier>,
    /// The certificates of the CA file; empty for the public roots.
    pub(super) own: Vec<CertificateDer<'static>>,
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

    /// The trust that `options` name: a CA file or the public roots, and the versions of TLS.
    ///
    /// # Errors
    /// Why the file cannot be used. Not remembered: the next probe looks again.
    pub(crate) fn trusting(&self, options: &TlsOptions) -> Result<Arc<Trusted>, TrustError> {
        let path = options.ca_file.as_deref().map(PathBuf::from);
        let stamp = path.as_deref().map(stamp_of).transpose()?;
        // The lock is held while reading, so that a hundred probes at start-up read a file once.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept.get(&(path.clone(), options.min_version)).filter(|found| found.stamp == stamp) {
            return Ok(Arc::clone(found));
        }
        let own = path.as_deref().map(read_bundle).transpose()?.unwrap_or_default();
        let built = Arc::new(Trusted::build(path.as_deref(), own, stamp, options.min_version, &self.clock)?);
        if kept.len() >= CA_FILES_MAX {
            kept.clear();
        }
        kept.insert((path, options.min_version), Arc::clone(&built));
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
        min_version: TlsVersion,
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
            .with_protocol_versions(match min_version {
                TlsVersion::V12 => rustls::DEFAULT_VERSIONS,
                TlsVersion::V13 => ONLY_TLS13,
            })
            .map_err(|error| TrustError::Setup(error.to_string()))?
            .with_webpki_verifier(Arc::clone(&verifier))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self { config, verifier, own, stamp })
    }

    /// Settings for one connection. A clone copies some pointers; the roots are shared.
    pub(crate) fn config(
        &self,
        recorder: &Arc<Recorder>,
        alpn: Vec<Vec<u8>>,
        client: Option<Arc<dyn ResolvesClientCert>>,
    ) -> ClientConfig {
        let mut config = self.config.clone();
        config.alpn_protocols = alpn;
        if let Some(client) = client {
            config.client_auth_cert_resolver = client;
        }
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

#[cfg(test)]
mod tests {
    use peil_proto::time::UtcTime;

    use super::*;

    fn of(ca_file: Option<&str>) -> TlsOptions {
        TlsOptions { ca_file: ca_file.map(str::to_owned), ..TlsOptions::default() }
    }

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
        let first = configs.trusting(&of(Some(name))).expect("reads");
        assert!(Arc::ptr_eq(&first, &configs.trusting(&of(Some(name))).expect("reads")));
        let two = rcgen::generate_simple_self_signed(["b.test".to_owned()]).expect("a certificate").cert.pem();
        std::fs::write(&path, one + &two).expect("writes");
        assert_eq!(configs.trusting(&of(Some(name))).expect("reads").own.len(), 2);
        let public = configs.trusting(&of(None)).expect("public roots");
        assert!(Arc::ptr_eq(&public, &configs.trusting(&of(None)).expect("public roots")));
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
            let failure = configs.trusting(&of(path.to_str())).expect_err("refused").into_failure();
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
}
