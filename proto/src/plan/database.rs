//! `postgres`, `mysql`, `redis`: a ping of a database, in its own protocol and as little of it as tells.
//!
//! | option | kinds | unit, values | standard |
//! |---|---|---|---|
//! | `address` | all | `host:port` | required |
//! | `user`, `password_file` | `postgres`, `redis` | log in; the password is a secret | `postgres`: user `postgres`; none |
//! | `database` | `postgres` | name | that of the user |
//! | `starttls` | `postgres`, `mysql` | go over to TLS before logging in | false |
//! | `implicit_tls` | `redis` | TLS from the first byte | false |
//! | `role` | `redis` | `master` or `replica`: what the server must say it is | not asked |
//! | `server_name`, `ca_file`, … | all | see [`TlsOptions`]; with TLS | |
//! | `family` | all | `any`, `4`, `6`, `both` | `any` |
//!
//! `postgres`: without a password, up when the server asks for one (or for none); with one, up when `SELECT 1` is
//! answered. SCRAM-SHA-256 and, over TLS only, clear text; MD5 is not spoken. `mysql`: up when the server greets and is
//! ready to let somebody log in; nobody does. `redis`: up when `PING` is answered.
//!
//! Fails with: what `tcp` and `tls` fail with, `protocol`, `status` (the server says it cannot serve: starting up, too
//! many connections, no such database), `content` (another role), `permission` (it does not let *us* in, which says
//! nothing about whether it serves others).

use serde::{Deserialize, Serialize};

use super::options::{Family, Options, SecretRef, TlsOptions, address_problem};
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

fn tls_problems(address: &str, tls: &TlsOptions, speaks_tls: bool, key: &str) -> Vec<String> {
    let mut found: Vec<_> = address_problem(address).into_iter().chain(tls.problems()).collect();
    if *tls != TlsOptions::default() && !speaks_tls {
        found.push(format!("options of TLS mean nothing without {key}"));
    }
    found
}

fn word_problem(key: &str, word: &str) -> Option<String> {
    let good = !word.is_empty() && word.len() <= 128 && !word.chars().any(char::is_control);
    (!good).then(|| format!("{key} {word:?} must be 1 to 128 characters"))
}

impl Options for Postgres {
    const TARGET_KEY: &'static str = "address";

    fn target(&self) -> &str {
        &self.address
    }

    fn problems(&self) -> Vec<String> {
        let mut found = tls_problems(&self.address, &self.tls, self.starttls, "starttls");
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

impl Options for Mysql {
    const TARGET_KEY: &'static str = "address";

    fn target(&self) -> &str {
        &self.address
    }

    fn problems(&self) -> Vec<String> {
        tls_problems(&self.address, &self.tls, self.starttls, "starttls")
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let address = fields.need_str("address");
        let starttls = fields.bool_or("starttls", false);
        let (tls, family) = (TlsOptions::read(fields), Family::read(fields));
        Some(Self { address: address?, starttls, tls, family })
    }
}

impl Options for Redis {
    const TARGET_KEY: &'static str = "address";

    fn target(&self) -> &str {
        &self.address
    }

    fn problems(&self) -> Vec<String> {
        let mut found = tls_problems(&self.address, &self.tls, self.implicit_tls, "implicit_tls");
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
