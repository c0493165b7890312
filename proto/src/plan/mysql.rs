//! `mysql`: waits for the greeting of a MySQL or MariaDB server.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `address` | `host:port` | required |
//! | `starttls` | go over to TLS after the greeting | false |
//! | `server_name`, `ca_file`, … | see [`TlsOptions`]; with `starttls` | |
//! | `family` | `any`, `4`, `6`, `both` | `any` |
//!
//! Up when the server greets and is ready to let somebody log in; nobody does.
//!
//! Fails with: what `tcp` and `tls` fail with, `protocol`, `status` (the server says it cannot serve: too many
//! connections), `permission` (it has blocked this host, which says nothing about whether it serves others).

use serde::{Deserialize, Serialize};

use super::options::{Family, Options, TlsOptions, address_and_tls_problems};
use crate::settings::Fields;

/// Options of a `mysql` check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mysql {
    /// `host:port`; IPv6 in brackets.
    pub address: String,
    /// Go over to TLS after the greeting.
    pub starttls: bool,
    /// How TLS is spoken.
    pub tls: TlsOptions,
    /// Which addresses are used.
    pub family: Family,
}

impl Options for Mysql {
    const TARGET_KEY: &'static str = "address";

    fn target(&self) -> &str {
        &self.address
    }

    fn problems(&self) -> Vec<String> {
        address_and_tls_problems(&self.address, &self.tls, self.starttls, "starttls")
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let address = fields.need_str("address");
        let starttls = fields.bool_or("starttls", false);
        let (tls, family) = (TlsOptions::read(fields), Family::read(fields));
        Some(Self { address: address?, starttls, tls, family })
    }
}
