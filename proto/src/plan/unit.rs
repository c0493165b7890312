//! `unit`: the state of a systemd unit on the agent's host.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `unit` | name with its suffix, such as `nginx.service` | required |
//! | `states` | active states that are right: `active`, `inactive`, `activating`, `deactivating`, `reloading`, `failed` | `["active"]` |
//! | `restarts_max` | automatic restarts since it was started by hand, 0 to 1000000 | none |
//!
//! Fails with: `no_such_name` (no such unit), `status` (another state), `content` (restarts), `local_resource` (systemd
//! does not answer).

use serde::{Deserialize, Serialize};

use super::options::{Options, read_number};
use crate::settings::Fields;

/// Options of a `unit` check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Unit {
    /// Name with its suffix.
    pub unit: String,
    /// Active states that are right.
    pub states: Vec<String>,
    /// Automatic restarts.
    pub restarts_max: Option<u32>,
}

const STATES: [&str; 6] = ["active", "inactive", "activating", "deactivating", "reloading", "failed"];

impl Default for Unit {
    fn default() -> Self {
        Self { unit: String::new(), states: vec!["active".to_owned()], restarts_max: None }
    }
}

impl Options for Unit {
    const TARGET_KEY: &'static str = "unit";

    fn target(&self) -> &str {
        &self.unit
    }

    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let good = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let name = &self.unit;
        // It becomes an argument of a program: it must never look like an option of it.
        if name.len() > 255 || name.starts_with('-') || !name.contains('.') || !name.chars().all(good) {
            found.push(format!("unit {name:?} is not the name of a unit with its suffix, such as \"nginx.service\""));
        }
        for state in self.states.iter().filter(|state| !STATES.contains(&state.as_str())) {
            found.push(format!("state {state:?} is none of {}", STATES.join(", ")));
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let unit = fields.need_str("unit");
        let mut states = fields.strings("states");
        if states.is_empty() {
            states = Self::default().states;
        }
        let restarts_max = read_number(fields, "restarts_max", 0..=1_000_000);
        Some(Self { unit: unit?, states, restarts_max })
    }
}
