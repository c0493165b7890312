//! What we read out of a certificate, and nothing more: number, validity, key, and whose it is.
//!
//! Reading is not believing. These functions serve certificates that were verified already (handshake)
//! or that we made ourselves.

use std::fmt;

use peil_proto::ids::AgentId;
use peil_proto::time::UtcTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// The number of a certificate, unique per authority: at most 20 bytes (RFC 5280), without leading zeros.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// From big-endian bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
        Self(bytes[start..].to_vec())
    }

    /// Reads the hex that `Display` writes.
    pub fn parse(hex: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?;
        (!bytes.is_empty()).then(|| Self::new(&bytes))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Facts of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its number.
    pub serial: Serial,
    /// First moment it holds.
    pub not_before: UtcTime,
    /// Last moment it holds.
    pub not_after: UtcTime,
    /// The bits of the public key, without the algorithm.
    pub public_key: Vec<u8>,
    /// The DNS names and addresses it is for, sorted.
    pub names: Vec<String>,
    /// The agent it is for, when it is an agent's.
    pub agent: Option<AgentId>,
}

impl CertificateFacts {
    /// `None` when `der` is not one certificate, whole and without anything behind it.
    pub fn read(der: &[u8]) -> Option<Self> {
        let certificate = parse(der)?;
        let validity = certificate.validity();
        Some(Self {
            serial: Serial::new(certificate.raw_serial()),
            not_before: UtcTime(validity.not_before.timestamp().saturating_mul(1000)),
            not_after: UtcTime(validity.not_after.timestamp().saturating_mul(1000)),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            names: server_names(&certificate),
            agent: agent_named(&certificate),
        })
    }
}

/// Whose certificate it is. `None` for a server's, a stranger's, or one that names more than one agent.
pub fn agent_of(der: &[u8]) -> Option<AgentId> {
    agent_named(&parse(der)?)
}

/// True for a certificate whose key may sign others.
pub(super) fn may_sign(der: &[u8]) -> bool {
    let Some(certificate) = parse(der) else { return false };
    let usage = certificate.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
    certificate.is_ca() && usage
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

fn agent_named(certificate: &X509Certificate<'_>) -> Option<AgentId> {
    let names = certificate.subject_alternative_name().ok()??;
    match names.value.general_names.as_slice() {
        [GeneralName::URI(uri)] => AgentId::from_urn(uri),
        _ => None,
    }
}

fn server_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let mut found: Vec<String> = names.value.general_names.iter().filter_map(server_name).collect();
    found.sort();
    found
}

fn server_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_serial_reads_back_and_forgets_leading_zeros() {
        let serial = Serial::new(&[0, 0x8f, 1]);
        assert_eq!(serial.to_string(), "8f01");
        assert_eq!(Serial::parse("8F01"), Some(serial));
        assert_eq!(Serial::parse(""), None);
        assert_eq!(Serial::parse("8f0"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(bytes: Vec<u8>) {
            prop_assert_eq!(CertificateFacts::read(&bytes), None);
            prop_assert_eq!(agent_of(&bytes), None);
        }
    }
}
