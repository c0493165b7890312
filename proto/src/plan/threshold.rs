//! What the kinds `cpu`, `memory` and `pressure` have in common: a part of the host, a maximum in percent, and how far
//! below it all is well again.

use super::options::read_number;
use crate::settings::Fields;

/// A maximum with hysteresis, of one of a kind's parts.
pub(super) struct Threshold {
    /// Which part; empty when it was not said.
    pub(super) of: String,
    /// Percent, 1 to 100.
    pub(super) max: u8,
    /// Points below `max` at which it is well again, 0 to 50.
    pub(super) hysteresis: u8,
}

impl Threshold {
    /// Takes the three keys; `standard` is what holds without the last two.
    pub(super) fn read(fields: &mut Fields<'_>, standard: &Self) -> Option<Self> {
        let of = fields.need_str("of");
        let max = read_number(fields, "max", 1..=100).unwrap_or(standard.max);
        let hysteresis = read_number(fields, "hysteresis", 0..=50).unwrap_or(standard.hysteresis);
        Some(Self { of: of?, max, hysteresis })
    }

    /// What is wrong with it for a kind that has these parts.
    pub(super) fn problems(&self, parts: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        if !parts.contains(&self.of.as_str()) {
            found.push(format!("of {:?} is none of {}", self.of, parts.join(", ")));
        }
        if !(1..=100).contains(&self.max) || self.hysteresis > 50 {
            found.push("max must lie between 1 and 100, hysteresis between 0 and 50".to_owned());
        }
        found
    }
}
