//! `cpu`: how busy the processors of the agent's host are, over a second.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `of` | `busy` (all but idle and waiting), `iowait`, `steal` | required |
//! | `max` | percent, 1 to 100 | 95 |
//! | `hysteresis` | points below `max` at which it is well again, 0 to 50 | 5 |
//!
//! Fails with: `content` (over the maximum), `local_resource` (the kernel does not tell).

use serde::{Deserialize, Serialize};

use super::options::Options;
use super::threshold::Threshold;
use crate::settings::Fields;

/// Options of a `cpu` check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cpu {
    /// Of what.
    pub of: String,
    /// Percent.
    pub max: u8,
    /// Points.
    pub hysteresis: u8,
}

const WORDS: &[&str] = &["busy", "iowait", "steal"];

impl Default for Cpu {
    fn default() -> Self {
        Self { of: String::new(), max: 95, hysteresis: 5 }
    }
}

impl Cpu {
    fn threshold(&self) -> Threshold {
        Threshold { of: self.of.clone(), max: self.max, hysteresis: self.hysteresis }
    }
}

impl Options for Cpu {
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
