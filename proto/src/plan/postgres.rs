//! `postgres`: pings a PostgreSQL server, in its own protocol and as little of it as tells.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `address` | `host:port` | required |
//! | `user` | user to log in as | `postgres` |
//! | `password_file` | secret: the password of the user | none |
//! | `database` | name | that of the user |
//! | `starttls` | go over to TLS before logging in | false |
//! | `server_name`, `ca_file`, … | see [`TlsOptions`]; with `starttls` | |
//! | `family` | `any`, `4`, `6`, `both` | `any` |
//!
//! Without a password, up when the server asks for one (or for none); with one, up when `SELECT 1` is answered.
//! SCRAM-SHA-256 and, over TLS only, clear text; MD5 is not spoken.
//!
//! Fails with: what `tcp` and `tls` fail with, `protocol`, `status` (the server says it cannot serve: starting up, too
//! many connections, no such database), `permission` (it does not let *us* in, which says nothing about whether it
//! serves others).

use serde::{Deserialize, Serialize};

use super::options::{Family, Options, SecretRef, TlsOptions, address_and_tls_problems, word_problem};
use crate::settings::Fields;

/// Options of a `postgres` check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// `host:port`; IPv6 in brackets.
    pub address: String,
    /// User to log in as.
    pub user: String,
    /// Password of the user.
    pub password_file: Option<SecretRef>,
    /// Database; that of the user's name when absent.
    pub database: Option<String>,
    /// Go over to TLS first.
    pub starttls: bool,
    /// How TLS is spoken.
    pub tls: TlsOptions,
    /// Which addresses are used.
    pub family: Family,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            address: String::new(),
            user: "postgres".to_owned(),
            password_file: None,
            database: None,
            starttls: false,
            tls: TlsOptions::default(),
            family: Family::default(),
        }
    }
}

impl Options for Postgres {
    const TARGET_KEY: &'static str = "address";

    fn target(&self) -> &str {
        &self.address
    }

    fn problems(&self) -> Vec<String> {
        let mut found = address_and_tls_problems(&self.address, &self.tls, self.starttls, "starttls");
        found.extend(word_problem("user", &self.user));
        found.extend(self.database.iter().filter_map(|name| word_problem("database", name)));
        found.extend(self.password_file.iter().filter_map(|secret| secret.problem("password_file")));
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let address = fields.need_str("address");
        let read = Self {
            address: String::new(),
            user: fields.str_or("user", "postgres"),
            password_file: SecretRef::read(fields, "password_file"),
            database: fields.str("database"),
            starttls: fields.bool_or("starttls", false),
            tls: TlsOptions::read(fields),
            family: Family::read(fields),
        };
        Some(Self { address: address?, ..read })
    }
}
