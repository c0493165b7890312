//! `icmp`: pings a host.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `host` | name or address | required |
//! | `count` | packets, 1 to 20 | 3 |
//! | `every_ms` | ms between packets, 10 to 5000 | 200 |
//! | `wait_ms` | ms after which a packet is lost, 10 to 10000 | 1000 |
//! | `size` | bytes of payload, 16 to 1400 | 56 |
//! | `loss_max` | percent that may be lost, 0 to 99 | 99: one answer is enough |
//! | `rtt_max_ms` | ms the average may take, 1 to 10000 | none |
//! | `jitter_max_ms` | ms answers may differ from the one before, on average, 1 to 10000 | none |
//! | `family` | `any`, `4`, `6`, `both` | `any` |
//!
//! The phase `first_byte` is the average round trip. Needs `net.ipv4.ping_group_range` to hold the agent's group, or
//! CAP_NET_RAW; without either it fails with `permission`, which says nothing about the target.
//!
//! Fails with: `no_such_name`, `timeout` (nothing came back), `unreachable`, `content` (loss, round trip or jitter).

use serde::{Deserialize, Serialize};

use super::options::{Family, Options, read_number};
use crate::settings::Fields;

/// Options of an `icmp` check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Icmp {
    /// Name or address.
    pub host: String,
    /// Packets.
    pub count: u16,
    /// ms between packets.
    pub every_ms: u32,
    /// ms after which a packet is lost.
    pub wait_ms: u32,
    /// Bytes of payload.
    pub size: u16,
    /// Percent that may be lost.
    pub loss_max: u8,
    /// ms the average may take.
    pub rtt_max_ms: Option<u32>,
    /// ms of jitter.
    pub jitter_max_ms: Option<u32>,
    /// Which addresses are used.
    pub family: Family,
}

impl Default for Icmp {
    fn default() -> Self {
        Self {
            host: String::new(),
            count: 3,
            every_ms: 200,
            wait_ms: 1_000,
            size: 56,
            loss_max: 99,
            rtt_max_ms: None,
            jitter_max_ms: None,
            family: Family::default(),
        }
    }
}

impl Options for Icmp {
    const TARGET_KEY: &'static str = "host";

    fn target(&self) -> &str {
        &self.host
    }

    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.host.is_empty() || self.host.contains(['/', ' ', '@']) {
            found.push(format!("host {:?} is neither a name nor an address", self.host));
        }
        let within = [
            ("count", u32::from(self.count), 1, 20),
            ("every_ms", self.every_ms, 10, 5_000),
            ("wait_ms", self.wait_ms, 10, 10_000),
            ("size", u32::from(self.size), 16, 1_400),
            ("loss_max", u32::from(self.loss_max), 0, 99),
        ];
        for (key, value, least, most) in within {
            if !(least..=most).contains(&value) {
                found.push(format!("{key} of {value} must lie between {least} and {most}"));
            }
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let host = fields.need_str("host");
        let standard = Self::default();
        let read = Self {
            host: String::new(),
            count: read_number(fields, "count", 1..=20).unwrap_or(standard.count),
            every_ms: read_number(fields, "every_ms", 10..=5_000).unwrap_or(standard.every_ms),
            wait_ms: read_number(fields, "wait_ms", 10..=10_000).unwrap_or(standard.wait_ms),
            size: read_number(fields, "size", 16..=1_400).unwrap_or(standard.size),
            loss_max: read_number(fields, "loss_max", 0..=99).unwrap_or(standard.loss_max),
            rtt_max_ms: read_number(fields, "rtt_max_ms", 1..=10_000),
            jitter_max_ms: read_number(fields, "jitter_max_ms", 1..=10_000),
            family: Family::read(fields),
        };
        Some(Self { host: host?, ..read })
    }
}
