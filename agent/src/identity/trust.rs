//! Whom this host believes: before enrolment the one fingerprint in the token, afterwards the
//! authority it was given, and for a while a second one. The system's certificate store plays no part in either.

use std::sync::Arc;

use peil_proto::time::{UtcTime, WallClock};
use peil_proto::tls::{ALPN_H2, TlsClock, provider};
use peil_proto::token::CaFingerprint;
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::{Identity, IdentityError, unix};

/// The server's chain lacks the certificate the token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not the collector that made the token: its certificate chain lacks the authority with fingerprint \
     {wanted}. Check the address; if it is right, somebody stands in between, or the token is of another collector"
)]
pub struct PinMismatch {
    /// What the token says.
    pub wanted: CaFingerprint,
}

impl Identity {
    /// For every connection after enrolment: TLS 1.3, our authorities only, our certificate, HTTP/2.
    ///
    /// # Errors
    /// [`IdentityError::Tls`] when rustls cannot use the key or the authority.
    pub fn client_config(&self, clock: &WallClock) -> Result<ClientConfig, IdentityError> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der())
            .map_err(|reason| IdentityError::Tls(Error::General(reason.to_owned())))?;
        let config = ClientConfig::builder_with_details(provider(), TlsClock::shared(clock))
            .with_protocol_versions(&[&TLS13])
            .map_err(IdentityError::Tls)?
            .with_root_certificates(these(self.authorities.all()).map_err(IdentityError::Tls)?)
            .with_client_auth_cert(vec![self.certificate.clone()], key)
            .map_err(IdentityError::Tls)?;
        Ok(ours(config))
    }
}

/// For the one connection that enrols: TLS 1.3, HTTP/2, no certificate of ours, and a server that shows
/// the authority with exactly this fingerprint and is vouched for by it under the name we dialled.
///
/// # Errors
/// [`IdentityError::Tls`] when rustls cannot be set up.
pub fn enrol_client_config(pin: CaFingerprint, clock: &WallClock) -> Result<ClientConfig, IdentityError> {
    let config = ClientConfig::builder_with_details(provider(), TlsClock::shared(clock))
        .with_protocol_versions(&[&TLS13])
        .map_err(IdentityError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinVerifier { pin, provider: provider() }))
        .with_no_client_auth();
    Ok(ours(config))
}

/// Would a collector with this authority accept the certificate? Asked before it replaces a good one.
pub(super) fn check_issued(identity: &Identity, now: UtcTime) -> Result<(), Error> {
    // One that cannot be read would end every later attempt to connect.
    these(identity.authorities.all())?;
    let roots = these([&identity.authorities.issuer])?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|e| Error::General(e.to_string()))?;
    verifier.verify_client_cert(&identity.certificate, &[], unix(now)).map(|_| ())
}

fn ours(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // The collector offers none, and a connection that lasts for weeks gains nothing by it.
    config.resumption = Resumption::disabled();
    config
}

fn these<'a>(authorities: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(Arc::new(roots))
}

/// Looks for the pinned authority in what the server sent, then lets webpki judge with it as the only root.
#[derive(Debug)]
struct PinVerifier {
    pin: CaFingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authority) = chain.iter().find(|certificate| CaFingerprint::of(certificate) == self.pin) else {
            let mismatch = PinMismatch { wanted: self.pin };
            return Err(CertificateError::Other(OtherError(Arc::new(mismatch))).into());
        };
        let roots = these([&authority.clone().into_owned()])?;
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
            .build()
            .map_err(|e| Error::General(e.to_string()))?
            .verify_server_cert(leaf, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
