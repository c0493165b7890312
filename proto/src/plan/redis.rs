//! `redis`: pings a Redis or Valkey server.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `address` | `host:port` | required |
//! | `user` | user of the access list | the default one |
//! | `password_file` | secret: the password | none |
//! | `role` | `master` or `replica`: what the server must say it is | not asked |
//! | `implicit_tls` | TLS from the first byte | false |
//! | `server_name`, `ca_file`, … | see [`TlsOptions`]; with `implicit_tls` | |
//! | `family` | `any`, `4`, `6`, `both` | `any` |
//!
//! Fails with: what `tcp` and `tls` fail with, `protocol`, `status` (the server says it cannot serve: it loads its data,
//! its master is gone), `content` (another role), `permission` (it does not let *us* in, which says nothing about whether
//! it serves others).

use serde::{Deserialize, Serialize};

use super::options::{Family, Options, SecretRef, TlsOptions, address_and_tls_problems, word_problem};
use crate::settings::Fields;

/// Options of a `redis` check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `host:port`; IPv6 in brackets.
    pub address: String,
    /// User of the access list; the default one when absent.
    pub user: Option<String>,
    /// Password.
    pub password_file: Option<SecretRef>,
    /// What the server must be.
    pub role: Option<RedisRole>,
    /// TLS from the first byte.
    pub implicit_tls: bool,
    /// How TLS is spoken.
    pub tls: TlsOptions,
    /// Which addresses are used.
    pub family: Family,
}

/// What a Redis server is among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisRole {
    /// It takes writes.
    Master,
    /// It follows another.
    Replica,
}

impl Options for Redis {
    const TARGET_KEY: &'static str = "address";

    fn target(&self) -> &str {
        &self.address
    }

    fn problems(&self) -> Vec<String> {
        let mut found = address_and_tls_problems(&self.address, &self.tls, self.implicit_tls, "implicit_tls");
        found.extend(self.user.iter().filter_map(|name| word_problem("user", name)));
        found.extend(self.password_file.iter().filter_map(|secret| secret.problem("password_file")));
        if self.user.is_some() && self.password_file.is_none() {
            found.push("user needs a password_file".to_owned());
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let address = fields.need_str("address");
        let roles = [("master", Some(RedisRole::Master)), ("replica", Some(RedisRole::Replica))];
        let read = Self {
            address: String::new(),
            user: fields.str("user"),
            password_file: SecretRef::read(fields, "password_file"),
            role: fields.word_or("role", &roles, None),
            implicit_tls: fields.bool_or("implicit_tls", false),
            tls: TlsOptions::read(fields),
            family: Family::read(fields),
        };
        Some(Self { address: address?, ..read })
    }
}
