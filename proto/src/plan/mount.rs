//! `mount`: whether a file system is mounted and has room, in bytes and inodes.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `mount` | absolute path of the mount point | required |
//! | `used_max` | percent of the bytes that users may fill, 1 to 100 | 90 |
//! | `inodes_max` | percent of the inodes, 1 to 100 | 95 |
//! | `free_min_mib` | MiB that must be free besides, 0 to 2^30 | none |
//! | `hysteresis` | points below the maximum at which it is well again, 0 to 50 | 2 |
//!
//! Fails with: `no_such_name` (no such directory), `content` (not a mount point, full), `timeout` (the file system does
//! not answer), `permission`.

use serde::{Deserialize, Serialize};

use super::options::{Options, read_number};
use crate::settings::Fields;

/// Options of a `mount` check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mount {
    /// Mount point.
    pub mount: String,
    /// Percent of bytes.
    pub used_max: u8,
    /// Percent of inodes.
    pub inodes_max: u8,
    /// MiB free.
    pub free_min_mib: Option<u64>,
    /// Points.
    pub hysteresis: u8,
}

impl Default for Mount {
    fn default() -> Self {
        Self { mount: String::new(), used_max: 90, inodes_max: 95, free_min_mib: None, hysteresis: 2 }
    }
}

impl Options for Mount {
    const TARGET_KEY: &'static str = "mount";

    fn target(&self) -> &str {
        &self.mount
    }

    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if !self.mount.starts_with('/') || self.mount.contains('\0') || self.mount.len() > 4_096 {
            found.push(format!("mount {:?} must be an absolute path", self.mount));
        }
        if !(1..=100).contains(&self.used_max) || !(1..=100).contains(&self.inodes_max) || self.hysteresis > 50 {
            found.push("used_max and inodes_max must lie between 1 and 100, hysteresis between 0 and 50".to_owned());
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let mount = fields.need_str("mount");
        let standard = Self::default();
        let used_max = read_number(fields, "used_max", 1..=100).unwrap_or(standard.used_max);
        let inodes_max = read_number(fields, "inodes_max", 1..=100).unwrap_or(standard.inodes_max);
        let free_min_mib = read_number(fields, "free_min_mib", 0..=1 << 30);
        let hysteresis = read_number(fields, "hysteresis", 0..=50).unwrap_or(standard.hysteresis);
        Some(Self { mount: mount?, used_max, inodes_max, free_min_mib, hysteresis })
    }
}
