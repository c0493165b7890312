//! What each port demands of a connection.

use std::sync::Arc;

use peil_proto::time::WallClock;
use peil_proto::tls::{ALPN_H2, ALPN_HTTP_1_1, TlsClock, provider};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use tokio::sync::watch;

use super::{Admission, LiveCertificate, TlsError};
use crate::pki::{Authorities, CertificateFacts};

/// Agents: TLS 1.3, HTTP/2, a certificate of one of the `authorities` of the moment that `admission` admits, or none at
/// all.
///
/// # Errors
/// [`TlsError::Setup`].
pub fn agents(
    authorities: watch::Receiver<Arc<Authorities>>,
    admission: Admission,
    certificate: LiveCertificate,
    clock: &WallClock,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_details(provider(), TlsClock::shared(clock))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(Arc::new(AgentVerifier { authorities, admission }))
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // A resumed session would skip the verifier, and with it revocation.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// People and scripts: TLS 1.2 or 1.3, HTTP/2 or 1.1, no client certificate.
///
/// # Errors
/// [`TlsError::Setup`].
pub fn web(certificate: LiveCertificate, clock: &WallClock) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_details(provider(), TlsClock::shared(clock))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP_1_1.to_vec()];
    Ok(Arc::new(config))
}

/// webpki's verdict, then: does it name an agent, and is that agent welcome?
#[derive(Debug)]
struct AgentVerifier {
    authorities: watch::Receiver<Arc<Authorities>>,
    admission: Admission,
}

impl AgentVerifier {
    fn inner(&self) -> Arc<dyn ClientCertVerifier> {
        self.authorities.borrow().verifier()
    }
}

impl ClientCertVerifier for AgentVerifier {
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner().verify_client_cert(leaf, chain, now)?;
        let facts = CertificateFacts::read(leaf).ok_or(CertificateError::BadEncoding)?;
        // Your own authority may sign for others than agents: those get "access denied".
        let agent = facts.agent.ok_or(CertificateError::ApplicationVerificationFailure)?;
        if !self.admission.admits(agent, &facts.serial) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(verified)
    }

    fn offer_client_auth(&self) -> bool {
        true
    }

    /// A host that enrols has no certificate yet.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: an agent has one certificate to show, and the authorities change while the port is open.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner().supported_verify_schemes()
    }
}
