//! `heartbeat`: a job on the agent's host reports that it went well, and silence is a failure.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `report` | name under which the job reports: `peil-agent report NAME ok` | required |
//! | `within_s` | seconds a report holds, 1 to 2678400 (31 days) | 86400 |
//!
//! Each tick of the check looks at the last report. Fails with: `timeout` (no report in time, or never one), `status`
//! (the job reported `fail`).

use serde::{Deserialize, Serialize};

use super::options::{Options, read_number};
use crate::settings::Fields;

/// Longest time a report can hold, s.
const WITHIN_MAX_S: u32 = 2_678_400;

/// Options of a `heartbeat` check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Heartbeat {
    /// Name of the report.
    pub report: String,
    /// Seconds a report holds.
    pub within_s: u32,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { report: String::new(), within_s: 86_400 }
    }
}

impl Heartbeat {
    /// Whether this can be the name of a report: it becomes the name of a file.
    pub fn is_name(name: &str) -> bool {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.chars().all(good)
    }
}

impl Options for Heartbeat {
    const TARGET_KEY: &'static str = "report";

    fn target(&self) -> &str {
        &self.report
    }

    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if !Self::is_name(&self.report) {
            found.push(format!("report {:?} is not a name of letters, digits, '-', '_' and '.'", self.report));
        }
        if !(1..=WITHIN_MAX_S).contains(&self.within_s) {
            found.push(format!("within_s must lie between 1 and {WITHIN_MAX_S}"));
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let report = fields.need_str("report");
        let within_s = read_number(fields, "within_s", 1..=2_678_400).unwrap_or(Self::default().within_s);
        Some(Self { report: report?, within_s })
    }
}
