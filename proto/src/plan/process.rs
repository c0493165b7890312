//! `process`: how many processes of a program run on the agent's host.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `process` | name of the program, without its directory | required |
//! | `matches` | pattern over the command line, arguments joined by blanks | none |
//! | `count_min`, `count_max` | processes, 0 to 1000000 | 1, none |
//!
//! Fails with: `content` (too few or too many).

use serde::{Deserialize, Serialize};

use super::options::{Options, Pattern, read_number};
use crate::settings::Fields;

/// Options of a `process` check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// Name of the program.
    pub process: String,
    /// Pattern over the command line.
    pub matches: Option<Pattern>,
    /// Least number of processes.
    pub count_min: u32,
    /// Greatest.
    pub count_max: Option<u32>,
}

impl Default for Process {
    fn default() -> Self {
        Self { process: String::new(), matches: None, count_min: 1, count_max: None }
    }
}

impl Options for Process {
    const TARGET_KEY: &'static str = "process";

    fn target(&self) -> &str {
        &self.process
    }

    fn problems(&self) -> Vec<String> {
        let mut found: Vec<_> = self.matches.iter().filter_map(|pattern| pattern.problem("matches")).collect();
        if self.process.is_empty() || self.process.len() > 255 || self.process.contains('/') {
            found.push(format!("process {:?} is not the name of a program without its directory", self.process));
        }
        if self.count_max.is_some_and(|most| most < self.count_min) {
            found.push("count_max is below count_min".to_owned());
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let process = fields.need_str("process");
        let matches = Pattern::read(fields, "matches");
        let count_min = read_number(fields, "count_min", 0..=1_000_000).unwrap_or(1);
        let count_max = read_number(fields, "count_max", 0..=1_000_000);
        Some(Self { process: process?, matches, count_min, count_max })
    }
}
