//! Quantities with their unit in the type: checked, integer, never a bare float.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// Nothing of it.
            pub const ZERO: Self = Self(0);

            /// Sum, held at the largest value instead of wrapping.
            #[must_use]
            pub fn saturating_add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }

            /// Difference, held at the smallest value instead of wrapping.
            #[must_use]
            pub fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

quantity!(
    /// A span of time in milliseconds. The contract's unit.
    Millis(i64)
);
quantity!(
    /// A span of time in microseconds. The unit of probe phases; holds up to 71 minutes.
    Micros(u32)
);
quantity!(
    /// Energy in microjoules. 2^64 µJ is 5 124 kWh times a thousand: no host gets there between resets.
    Microjoules(u64)
);

impl Millis {
    /// One second.
    pub const SECOND: Self = Self(1_000);
    /// One minute.
    pub const MINUTE: Self = Self(60_000);
    /// One hour.
    pub const HOUR: Self = Self(3_600_000);
    /// 24 hours (not a civil day: those may last 23 or 25 hours).
    pub const DAY: Self = Self(86_400_000);

    /// Whole seconds as milliseconds.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000))
    }

    /// As the standard library's duration; negative becomes zero.
    pub fn to_duration(self) -> Duration {
        Duration::from_millis(u64::try_from(self.0).unwrap_or(0))
    }
}

impl Micros {
    /// From a measured duration, held at the largest value.
    pub fn from_duration(d: Duration) -> Self {
        Self(u32::try_from(d.as_micros()).unwrap_or(u32::MAX))
    }
}

impl From<Duration> for Millis {
    fn from(d: Duration) -> Self {
        Self(i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }
}

impl Microjoules {
    /// Microjoules in one kilowatt-hour.
    pub const PER_KWH: u64 = 3_600_000_000_000;

    /// `"1.234567"` kWh, floored to six decimals (3.6 J).
    pub fn to_kwh_string(self) -> String {
        let whole = self.0 / Self::PER_KWH;
        let micro = (self.0 % Self::PER_KWH) / (Self::PER_KWH / 1_000_000);
        format!("{whole}.{micro:06}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilowatt_hours_are_floored_never_rounded_up() {
        assert_eq!(Microjoules(Microjoules::PER_KWH - 1).to_kwh_string(), "0.999999");
        assert_eq!(Microjoules(Microjoules::PER_KWH * 3 / 2).to_kwh_string(), "1.500000");
    }
}
