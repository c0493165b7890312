//! `tls`: connects to `host:port`, shakes hands and judges the certificate.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `address` | `host:port` | required |
//! | `server_name`, `ca_file`, `cert_days_min`, `whole_chain`, `tls_min`, `client_cert_file`, `client_key_file` | see [`TlsOptions`] | host; public roots; off; false; 1.2; none |
//! | `alpn` | protocols to offer, such as `h2`; one must be agreed | none offered |
//! | `family` | `any`, `4`, `6`, `both` | `any` |
//!
//! Fails with: everything `tcp` fails with, `tls`, `cert_expired`, `cert_not_yet_valid`, `cert_wrong_name`,
//! `cert_untrusted`, `cert_expiring`.

use serde::{Deserialize, Serialize};

use super::options::{Family, Options, TlsOptions, address_problem};
use crate::settings::Fields;

/// Protocols that can be offered at most.
const ALPN_MAX: usize = 8;

/// Options of a `tls` check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// `host:port`; IPv6 in brackets.
    pub address: String,
    /// How TLS is spoken.
    pub tls: TlsOptions,
    /// Protocols offered by ALPN; when there are any, the server must agree on one.
    pub alpn: Vec<String>,
    /// Which addresses are used.
    pub family: Family,
}

impl Options for Tls {
    const TARGET_KEY: &'static str = "address";

    fn target(&self) -> &str {
        &self.address
    }

    fn problems(&self) -> Vec<String> {
        let mut found: Vec<_> = address_problem(&self.address).into_iter().chain(self.tls.problems()).collect();
        if self.alpn.len() > ALPN_MAX || self.alpn.iter().any(|name| name.is_empty() || name.len() > 64) {
            found.push(format!("alpn must be at most {ALPN_MAX} names of 1 to 64 characters"));
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let address = fields.need_str("address");
        let (tls, alpn, family) = (TlsOptions::read(fields), fields.strings("alpn"), Family::read(fields));
        Some(Self { address: address?, tls, alpn, family })
    }
}
