//! `unknown`: a check from a newer collector that this agent cannot carry out.
//!
//! It keeps its place in the plan, so that the rest of the plan runs and each of its ticks still leaves a record:
//! UNKNOWN, with the reason. It is never written in settings and never sent to an agent.

use serde::{Deserialize, Serialize};

/// What is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Unknown {
    /// The kind it has, as far as it was told.
    pub of_kind: String,
    /// Why it cannot run here, as a sentence fragment.
    pub why: String,
}
