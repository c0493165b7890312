//! The collector's own certificate: 90 days, renewed at two thirds, kept so that a restart changes nothing.
//!
//! Key and chain are one file (`server.pem`, mode 0600), so that a crash cannot leave a key with the
//! certificate of another. The chain is leaf and authority: the agent finds the certificate its token
//! names in it. A kept file that is damaged, exposed or for other names is replaced, with a warning.
//!
//! For the web port a certificate from elsewhere can be loaded instead ([`ServerCertificate::load`]).

use std::net::IpAddr;
use std::path::Path;

use peil_proto::keyfile::{self, Readers};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tracing::{info, warn};

use super::{Authority, CertificateFacts, PkiError, crypto, leaf_params};

/// Names in one server certificate; more are refused.
pub const NAMES_MAX: usize = 100;

/// Life of a server certificate.
const LIFE: Millis = Millis(90 * 24 * Millis::HOUR.0);

const FILE: &str = "server.pem";

/// A key and the chain to show with it.
#[derive(Debug)]
pub struct ServerCertificate {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// First moment the leaf holds.
    pub not_before: UtcTime,
    /// Last moment the leaf holds.
    pub not_after: UtcTime,
}

impl ServerCertificate {
    /// Your own: `chain` holds one or more certificates in PEM, leaf first, `key` its private key.
    ///
    /// # Errors
    /// [`PkiError::File`] or [`PkiError::Unreadable`], naming the file. Whether they are a pair is known
    /// when a listener takes them.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, PkiError> {
        let text = keyfile::read_public(chain)?;
        let key_text = keyfile::read_private(key)?;
        Self::from_pem(&text, chain, &key_text, key)
    }

    /// When to have a new one: two thirds of its life.
    pub fn renew_at(&self) -> UtcTime {
        let life = self.not_after.since(self.not_before);
        self.not_before.plus(Millis(life.0 / 3 * 2))
    }

    fn from_pem(chain: &str, chain_path: &Path, key: &str, key_path: &Path) -> Result<Self, PkiError> {
        let unreadable = |path: &Path, wanted, reason| PkiError::Unreadable { path: path.to_owned(), wanted, reason };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| unreadable(chain_path, "certificates", e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|e| unreadable(key_path, "a private key", e.to_string()))?;
        let facts = chain
            .first()
            .and_then(|leaf| CertificateFacts::read(leaf))
            .ok_or_else(|| unreadable(chain_path, "a certificate", "there is none in it".to_owned()))?;
        Ok(Self { chain, key, not_before: facts.not_before, not_after: facts.not_after })
    }
}

impl Authority {
    /// The certificate to serve `names` (DNS names and addresses) with: the kept one while it is for
    /// exactly these names and not due, otherwise a new one, kept from then on.
    ///
    /// # Errors
    /// [`PkiError::Name`] for a name that no client could ask for, or why it cannot be kept.
    pub fn server_certificate(&self, names: &[String], now: UtcTime) -> Result<ServerCertificate, PkiError> {
        let wanted = checked_names(names)?;
        let path = self.directory.join(FILE);
        if let Some(kept) = self.kept(&path, &wanted, now) {
            return Ok(kept);
        }
        let key = KeyPair::generate().map_err(crypto("make the server's key"))?;
        let first = names.first().map_or("", String::as_str);
        let mut params = leaf_params("Peil collector", ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names = wanted.iter().map(|name| subject_name(name)).collect::<Result<_, _>>()?;
        let made = self.sign(params, &key, now, LIFE)?;
        let text = format!("{}{}{}", key.serialize_pem(), keyfile::certificate_pem(&made.der), self.certificate_pem());
        keyfile::write(&path, text.as_bytes(), Readers::OwnerOnly)?;
        info!(name = first, not_after = %made.not_after, "made a new server certificate");
        ServerCertificate::from_pem(&text, &path, &text, &path)
    }

    fn kept(&self, path: &Path, wanted: &[String], now: UtcTime) -> Option<ServerCertificate> {
        let text = match keyfile::read_private(path) {
            Ok(text) => text,
            Err(e) if e.is_absent() => return None,
            Err(error) => {
                warn!(%error, "replacing the kept server certificate");
                return None;
            }
        };
        let kept = match ServerCertificate::from_pem(&text, path, &text, path) {
            Ok(kept) => kept,
            Err(error) => {
                warn!(%error, "replacing the kept server certificate");
                return None;
            }
        };
        let facts = CertificateFacts::read(kept.chain.first()?)?;
        let ours = kept.chain.get(1) == Some(self.certificate());
        let in_force = kept.not_before <= now && now < kept.renew_at();
        (ours && in_force && facts.names == wanted).then_some(kept)
    }
}

/// Sorted and without repetition, each a name that a client can check.
fn checked_names(names: &[String]) -> Result<Vec<String>, PkiError> {
    let refuse = |name: &str, reason: &str| Err(PkiError::Name { name: name.to_owned(), reason: reason.to_owned() });
    if names.is_empty() {
        return refuse("", "the collector needs at least one name or address that agents connect to");
    }
    let mut checked = Vec::with_capacity(names.len());
    for name in names {
        match ServerName::try_from(name.as_str()) {
            Ok(ServerName::DnsName(_)) => checked.push(name.to_ascii_lowercase()),
            // The canonical form, so that two spellings of an address are one name.
            Ok(ServerName::IpAddress(address)) => checked.push(IpAddr::from(address).to_string()),
            _ => return refuse(name, "it is neither a DNS name nor an IP address"),
        }
    }
    checked.sort();
    checked.dedup();
    if checked.len() > NAMES_MAX {
        return refuse(&names[0], "a certificate holds at most 100 names");
    }
    Ok(checked)
}

fn subject_name(name: &str) -> Result<SanType, PkiError> {
    match name.parse() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(name.try_into().map_err(crypto("write the server's name"))?)),
    }
}
