//! The certificate a probe presents when the server asks for one.
//!
//! Chain and key are read at each probe, so a renewed one is taken up at once; both are small. The key is a secret
//! ([`super::super::secret`]): it must lie where the policy of this host keeps secrets.

use std::sync::Arc;

use peil_proto::plan::TlsOptions;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::super::{Failure, ProbeContext};

/// A chain of client certificates is some kilobytes; a larger file is a mistake and is refused.
const CHAIN_BYTES_MAX: u64 = 1 << 20;

/// What to present; `None` when the check names nothing.
///
/// # Errors
/// Why it cannot be used. Says nothing about the target.
pub(crate) fn client_auth(
    options: &TlsOptions,
    ctx: &ProbeContext,
) -> Result<Option<Arc<dyn ResolvesClientCert>>, Failure> {
    let (Some(path), Some(key)) = (&options.client_cert_file, &options.client_key_file) else { return Ok(None) };
    let unusable = |why: String| Failure::unusable(format!("client certificate {path}: {why}"));
    let bytes = std::fs::metadata(path).map_err(|error| unusable(error.to_string()))?.len();
    if bytes > CHAIN_BYTES_MAX {
        return Err(unusable(format!("is {bytes} bytes; the limit is {CHAIN_BYTES_MAX}")));
    }
    let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| unusable(error.to_string()))?;
    let key = ctx.secrets.read(key)?;
    let key = PrivateKeyDer::from_pem_slice(key.bytes())
        .map_err(|_| Failure::unusable("the client key holds no private key in PEM"))?;
    let signer = rustls::crypto::ring::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|_| Failure::unusable("the client key is of a kind that cannot be used"))?;
    let both = CertifiedKey::new(chain, signer);
    both.keys_match().map_err(|error| unusable(format!("does not go with its key: {error}")))?;
    Ok(Some(Arc::new(SingleCertAndKey::from(both))))
}
