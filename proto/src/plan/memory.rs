//! `memory`: how much memory or swap of the agent's host is in use.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `of` | `memory` (what is not available), `swap` | required |
//! | `max` | percent, 1 to 100 | 90 |
//! | `hysteresis` | points below `max` at which it is well again, 0 to 50 | 5 |
//!
//! Fails with: `content` (over the maximum), `local_resource` (the kernel does not tell).

use serde::{Deserialize, Serialize};

use super::options::{Options, read_number};
use crate::settings::Fields;

/// Options of a `memory` check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// Of what.
    pub of: String,
    /// Percent.
    pub max: u8,
    /// Points.
    pub hysteresis: u8,
}

const WORDS: &[&str] = &["memory", "swap"];

impl Default for Memory {
    fn default() -> Self {
        Self { of: String::new(), max: 90, hysteresis: 5 }
    }
}

impl Options for Memory {
    const TARGET_KEY: &'static str = "of";

    fn target(&self) -> &str {
        &self.of
    }

    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if !WORDS.contains(&self.of.as_str()) {
            found.push(format!("of {:?} is none of {}", self.of, WORDS.join(", ")));
        }
        if !(1..=100).contains(&self.max) || self.hysteresis > 50 {
            found.push("max must lie between 1 and 100, hysteresis between 0 and 50".to_owned());
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let of = fields.need_str("of");
        let standard = Self::default();
        let max = read_number(fields, "max", 1..=100).unwrap_or(standard.max);
        let hysteresis = read_number(fields, "hysteresis", 0..=50).unwrap_or(standard.hysteresis);
        Some(Self { of: of?, max, hysteresis })
    }
}
