//! The HTTP client: reqwest on rustls with ring, trusting one authority or none.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use peil_proto::tls::provider;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// A single answer never takes this long; [`crate::eventually()`] asks again.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A client that follows no redirect, so that tests see them.
///
/// # Errors
/// When the authority's file cannot be used.
pub fn client(authority: Option<&Path>) -> anyhow::Result<reqwest::Client> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = authority {
        let certificate = CertificateDer::from_pem_file(path);
        roots.add(certificate.with_context(|| format!("cannot read {}", path.display()))?)?;
    }
    let tls = rustls::ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(ANSWER_MAX);
    client.build().context("no HTTP client")
}
