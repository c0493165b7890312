//! Certificates: what a server presented, and what was wrong with it.
//!
//! The usual verifier forgets a chain it refuses; for a monitor that chain is the evidence. So each
//! connection gets a `Recorder` in front of rustls' own verifier: it notes the chain, then lets the real
//! one decide. Nothing is ever accepted that rustls would refuse, with one exception: a leaf that stands byte
//! for byte in the operator's own CA file is trusted although it calls itself a CA (what
//! `openssl req -x509` makes), while its dates and names are still checked.
//!
//! A chain is kept as the bytes that came (rustls takes at most 64 KiB of them) and only read when somebody
//! looks, so a probe that is up pays for a copy and not for parsing.
//!
//! Deliberately absent: revocation (OCSP, CRL), TLS below 1.2.

use std::sync::{Arc, OnceLock};

use peil_proto::plan::TlsOptions;
use peil_proto::sample::FailureKind;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConnection, DigitallySignedStruct, SignatureScheme};

use super::Failure;

mod client;
mod facts;
mod trust;

pub(crate) use client::client_auth;
pub use facts::{Certificate, CertificateFacts};
use trust::Trusted;
pub(crate) use trust::{TlsConfigs, TrustError};

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
                // rustls looks at the dates before most of what ends here, but promises no order.
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
    pub(crate) fn of_chain(server_name: String, chain: Vec<CertificateDer<'static>>) -> Self {
        Self { server_name, agreed: None, chain }
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

    /// When the leaf ends; with `whole_chain` when the first of those presented does. `None` when none can be read.
    pub fn not_after(&self, whole_chain: bool) -> Option<UtcTime> {
        let counted = if whole_chain { self.chain.len() } else { 1 };
        self.chain.iter().take(counted).filter_map(facts::validity).map(|(_, until)| until).min()
    }
}

/// The failure of a certificate that ends within `cert_days_min` (that many whole days, inclusive) from `now`.
pub(crate) fn too_short(tls: Option<&TlsFacts>, wanted: &TlsOptions, now: UtcTime) -> Option<Failure> {
    let (ends, days) = (tls?.not_after(wanted.whole_chain)?, wanted.cert_days_min?);
    let limit = now.plus(Millis(Millis::DAY.0 * i64::from(days)));
    (ends <= limit).then(|| {
        let which = if wanted.whole_chain { "a certificate of the chain" } else { "the certificate" };
        let text = format!("{which} ends at {ends}, within {days} days");
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

    #[test]
    fn a_certificate_is_expiring_when_it_ends_within_the_agreed_days() {
        let mut params = rcgen::CertificateParams::new(["a.test".to_owned()]).expect("params");
        params.not_after = rcgen::date_time_ymd(2026, 4, 15);
        let key = rcgen::KeyPair::generate().expect("a key");
        let der = params.self_signed(&key).expect("a certificate").der().clone();
        let facts = TlsFacts::of_chain("a.test".to_owned(), vec![der]);
        let at = |text: &str| UtcTime::parse(text).expect("a time");
        let kind = |cert_days_min, now| {
            let wanted = TlsOptions { cert_days_min, ..TlsOptions::default() };
            too_short(Some(&facts), &wanted, at(now)).map(|failure| failure.kind)
        };
        assert_eq!(kind(Some(14), "2026-04-01T00:00:00Z"), Some(FailureKind::CertExpiring));
        assert_eq!(kind(Some(14), "2026-03-31T23:59:59Z"), None);
        assert_eq!(kind(Some(13), "2026-04-01T00:00:00Z"), None);
        assert_eq!(kind(None, "2026-04-01T00:00:00Z"), None);
    }
}
