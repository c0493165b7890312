//! `ntp`: asks a time server for the time.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `host` | `host` or `host:port` | required; port 123 |
//! | `offset_max_ms` | ms its clock and this host's may differ, 1 to 86400000 | 1000 |
//! | `stratum_max` | 1 to 15 | 15 |
//! | `family` | `any`, `4`, `6`, `both` | `any` |
//!
//! The offset is good to a millisecond or two (the clock of the agent counts in ms). Which of the two clocks is wrong
//! cannot be told from one server.
//!
//! Fails with: `no_such_name`, `timeout`, `refused`, `unreachable`, `protocol` (not an answer to the question), `status`
//! (a kiss-o'-death: the server sends us away), `content` (not synchronised, stratum, or offset).

use serde::{Deserialize, Serialize};

use super::options::{Family, Options, read_number, split_host};
use crate::settings::Fields;

/// Options of an `ntp` check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ntp {
    /// `host` or `host:port`.
    pub host: String,
    /// ms the clocks may differ.
    pub offset_max_ms: u32,
    /// Highest stratum.
    pub stratum_max: u8,
    /// Which addresses are used.
    pub family: Family,
}

impl Default for Ntp {
    fn default() -> Self {
        Self { host: String::new(), offset_max_ms: 1_000, stratum_max: 15, family: Family::default() }
    }
}

impl Options for Ntp {
    const TARGET_KEY: &'static str = "host";

    fn target(&self) -> &str {
        &self.host
    }

    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if split_host(&self.host, 123).is_none() {
            found.push(format!("host {:?} must be a host or host:port", self.host));
        }
        if !(1..=86_400_000).contains(&self.offset_max_ms) || !(1..=15).contains(&self.stratum_max) {
            found.push("offset_max_ms must lie between 1 and 86400000, stratum_max between 1 and 15".to_owned());
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let host = fields.need_str("host");
        let standard = Self::default();
        let offset_max_ms = read_number(fields, "offset_max_ms", 1..=86_400_000).unwrap_or(standard.offset_max_ms);
        let stratum_max = read_number(fields, "stratum_max", 1..=15).unwrap_or(standard.stratum_max);
        let family = Family::read(fields);
        Some(Self { host: host?, offset_max_ms, stratum_max, family })
    }
}
