//! The certificate a port shows, exchangeable while it listens: the next handshake shows the new one.

use std::sync::{Arc, PoisonError, RwLock};

use peil_proto::tls::provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::TlsError;
use crate::pki::ServerCertificate;

/// Cheap to clone; clones show the same certificate.
#[derive(Debug, Clone)]
pub struct LiveCertificate {
    shown: Arc<RwLock<Arc<CertifiedKey>>>,
}

impl LiveCertificate {
    /// Shows `certificate` from the start.
    ///
    /// # Errors
    /// [`TlsError::Certificate`] when chain and key are no pair.
    pub fn new(certificate: ServerCertificate) -> Result<Self, TlsError> {
        Ok(Self { shown: Arc::new(RwLock::new(usable(certificate)?)) })
    }

    /// Shows `certificate` from the next handshake on.
    ///
    /// # Errors
    /// [`TlsError::Certificate`]; the former certificate then stays.
    pub fn replace(&self, certificate: ServerCertificate) -> Result<(), TlsError> {
        let new = usable(certificate)?;
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn usable(certificate: ServerCertificate) -> Result<Arc<CertifiedKey>, TlsError> {
    // Also checks that the key belongs to the leaf.
    CertifiedKey::from_der(certificate.chain, certificate.key, &provider()).map(Arc::new).map_err(TlsError::Certificate)
}
