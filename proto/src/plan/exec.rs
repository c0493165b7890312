//! `exec`: runs a command that the agent's host allows, with the interface of Nagios plug-ins.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `command` | name of a command in the host's own `commands_file` | required |
//! | `warning` | what a WARNING means: `up` or `down` | `up` |
//!
//! A plan names a command; program and arguments stand on the host, in a file that only root can write. Exit status 0
//! OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN; first line for people; performance data behind `|`.
//!
//! Fails with: `status` (CRITICAL, and WARNING when it is `down`; the exit status is the code of the sample),
//! `local_resource` (UNKNOWN, another exit status, no such command, cannot be started), `timeout` (its whole process
//! group is then killed), `permission` (`commands_file` is not root's).

use serde::{Deserialize, Serialize};

use super::options::Options;
use crate::settings::Fields;

/// Options of an `exec` check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exec {
    /// Name of the command.
    pub command: String,
    /// What a WARNING means.
    pub warning: Warning,
}

/// What a WARNING means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Warning {
    /// It works.
    #[default]
    Up,
    /// It does not.
    Down,
}

impl Options for Exec {
    const TARGET_KEY: &'static str = "command";

    fn target(&self) -> &str {
        &self.command
    }

    fn problems(&self) -> Vec<String> {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let wrong = self.command.is_empty() || self.command.len() > 128 || !self.command.chars().all(good);
        let text = || format!("command {:?} is not a name of letters, digits, '-', '_' and '.'", self.command);
        wrong.then(text).into_iter().collect()
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let command = fields.need_str("command");
        let warning = fields.word_or("warning", &[("up", Warning::Up), ("down", Warning::Down)], Warning::Up);
        Some(Self { command: command?, warning })
    }
}
