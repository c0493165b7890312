//! `pressure`: how long tasks of the agent's host wait for a resource (pressure stall information).
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `of` | `cpu`, `memory`, `io`: time some task waited for it, in the last minute | required |
//! | `max` | percent, 1 to 100 | 50 |
//! | `hysteresis` | points below `max` at which it is well again, 0 to 50 | 5 |
//!
//! Fails with: `content` (over the maximum), `local_resource` (the kernel does not tell: PSI is off).

use serde::{Deserialize, Serialize};

use super::options::Options;
use super::threshold::Threshold;
use crate::settings::Fields;

/// Options of a `pressure` check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pressure {
    /// Of what.
    pub of: String,
    /// Percent.
    pub max: u8,
    /// Points.
    pub hysteresis: u8,
}

const WORDS: &[&str] = &["cpu", "memory", "io"];

impl Default for Pressure {
    fn default() -> Self {
        Self { of: String::new(), max: 50, hysteresis: 5 }
    }
}

impl Pressure {
    fn threshold(&self) -> Threshold {
        Threshold { of: self.of.clone(), max: self.max, hysteresis: self.hysteresis }
    }
}

impl Options for Pressure {
    const TARGET_KEY: &'static str = "of";

    fn target(&self) -> &str {
        &self.of
    }

    fn problems(&self) -> Vec<String> {
        self.threshold().problems(WORDS)
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let Threshold { of, max, hysteresis } = Threshold::read(fields, &Self::default().threshold())?;
        Some(Self { of, max, hysteresis })
    }
}
