//! `file`: whether a file is there, new enough and of a sensible size. Only its metadata is looked at.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `path` | absolute path on the agent's host | required |
//! | `age_max_s` | seconds since it was changed, 1 to 31622400 | none |
//! | `size_min`, `size_max` | bytes, 0 to 2^53 | none |
//! | `absent` | true: it must not be there (a lock that stayed behind) | false |
//!
//! Fails with: `no_such_name` (it is missing), `content` (age, size, or there although it must not be), `permission`.

use serde::{Deserialize, Serialize};

use super::options::{Options, read_number};
use crate::settings::Fields;

/// Options of a `file` check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// Seconds since it was changed.
    pub age_max_s: Option<u32>,
    /// Least bytes.
    pub size_min: Option<u64>,
    /// Greatest bytes.
    pub size_max: Option<u64>,
    /// It must not be there.
    pub absent: bool,
}

impl Options for File {
    const TARGET_KEY: &'static str = "path";

    fn target(&self) -> &str {
        &self.path
    }

    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if !self.path.starts_with('/') || self.path.contains('\0') || self.path.len() > 4_096 {
            found.push(format!("path {:?} must be absolute", self.path));
        }
        let asks = self.age_max_s.is_some() || self.size_min.is_some() || self.size_max.is_some();
        if self.absent && asks {
            found.push("age and size mean nothing with absent".to_owned());
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let path = fields.need_str("path");
        let age_max_s = read_number(fields, "age_max_s", 1..=31_622_400);
        let size_min = read_number(fields, "size_min", 0..=1 << 53);
        let size_max = read_number(fields, "size_max", 0..=1 << 53);
        let absent = fields.bool_or("absent", false);
        Some(Self { path: path?, age_max_s, size_min, size_max, absent })
    }
}
