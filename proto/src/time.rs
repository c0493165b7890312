//! Moments, and the one place where the wall clock is read.
//!
//! Pure code takes a [`UtcTime`]; the shell asks its [`WallClock`] once and passes the answer on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};

use crate::units::Millis;

/// A moment: milliseconds since 1970-01-01T00:00:00Z. Prints as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UtcTime(pub i64);

impl UtcTime {
    /// Later by `span` (earlier when negative), held at the ends instead of wrapping.
    #[must_use]
    pub fn plus(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// From `earlier` until this moment; negative when it lies after.
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    /// The start of the UTC hour this moment lies in.
    #[must_use]
    pub fn hour_start(self) -> Self {
        Self(self.0.saturating_sub(self.0.rem_euclid(Millis::HOUR.0)))
    }

    /// The UTC day this moment lies in.
    pub fn day(self) -> UtcDay {
        UtcDay(self.0.div_euclid(Millis::DAY.0))
    }

    /// Reads RFC 3339 with an offset or `Z`; fractions below a millisecond are cut.
    ///
    /// # Errors
    /// What is wrong with the text, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bytes = text.as_bytes();
        let shaped = bytes.len() >= 20
            && bytes[4] == b'-'
            && bytes[7] == b'-'
            && matches!(bytes[10], b'T' | b't')
            && bytes[13] == b':';
        if !shaped {
            return Err(format!("{text:?} is not an RFC 3339 time such as \"2026-04-01T00:00:00+02:00\""));
        }
        let stamp: jiff::Timestamp = text
            .parse()
            .map_err(|e| format!("{text:?} is not an RFC 3339 time such as \"2026-04-01T00:00:00+02:00\": {e}"))?;
        Ok(Self(stamp.as_millisecond()))
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(stamp) => write!(f, "{stamp}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// A day in UTC: days since 1970-01-01. Always 24 hours; not the civil day of a contract.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UtcDay(pub i64);

impl UtcDay {
    /// Its first moment; days that a [`UtcTime`] cannot tell are held at its ends.
    pub fn start(self) -> UtcTime {
        UtcTime(self.0.saturating_mul(Millis::DAY.0))
    }

    /// The day after.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The first day of its calendar month, in UTC. Days outside the years -9999 to 9999 are their own month.
    #[must_use]
    pub fn month_start(self) -> Self {
        let Ok(stamp) = jiff::Timestamp::from_millisecond(self.start().0) else { return self };
        let day_of_month = jiff::tz::Offset::UTC.to_datetime(stamp).day();
        Self(self.0 - i64::from(day_of_month) + 1)
    }
}

impl fmt::Display for UtcDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.start().0) {
            Ok(stamp) => write!(f, "{}", jiff::tz::Offset::UTC.to_datetime(stamp).date()),
            Err(_) => write!(f, "day {}", self.0),
        }
    }
}

/// Where the time of day comes from. `Manual` serves tests that move time themselves.
#[derive(Debug, Clone, Default)]
pub enum WallClock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that stands still until it is set.
    Manual(Arc<AtomicI64>),
}

impl WallClock {
    /// A clock that stands at `start`.
    pub fn manual(start: UtcTime) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(start.0)))
    }

    /// The time now. A clock before 1970 reads as 1970.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now(&self) -> UtcTime {
        match self {
            Self::Manual(at) => UtcTime(at.load(Ordering::Relaxed)),
            Self::System => {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                UtcTime(Millis::from(since).0)
            }
        }
    }

    /// Moves a manual clock; the machine's clock is not ours to set.
    pub fn set(&self, to: UtcTime) {
        if let Self::Manual(at) = self {
            at.store(to.0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_needs_its_offset() {
        assert_eq!(UtcTime::parse("2026-04-01T00:00:00+02:00"), Ok(UtcTime(1_774_994_400_000)));
        assert_eq!(UtcTime::parse("2026-03-31T22:00:00Z"), Ok(UtcTime(1_774_994_400_000)));
        assert!(UtcTime::parse("2026-04-01T00:00:00").is_err());
        assert!(UtcTime::parse("2026-02-30T00:00:00Z").is_err());
        assert!(UtcTime::parse("April").is_err());
    }

    #[test]
    fn days_and_their_months_are_those_of_utc() {
        let time = |text| UtcTime::parse(text).expect("a time");
        assert_eq!(time("2026-03-01T01:59:59+02:00").day(), time("2026-02-28T00:00:00Z").day());
        assert_eq!(time("2026-02-28T12:00:00Z").day().to_string(), "2026-02-28");
        assert_eq!(time("2026-02-28T12:00:00Z").day().month_start().start(), time("2026-02-01T00:00:00Z"));
        assert_eq!(UtcTime(-1).day(), UtcDay(-1));
        assert_eq!(UtcTime(i64::MIN).day().start(), UtcTime(i64::MIN));
        assert_eq!(UtcDay(i64::MAX).month_start(), UtcDay(i64::MAX));
    }

    #[test]
    fn the_hour_of_any_moment_can_be_asked() {
        assert_eq!(UtcTime(3_600_001).hour_start(), UtcTime(3_600_000));
        assert_eq!(UtcTime(-1).hour_start(), UtcTime(-3_600_000));
        assert_eq!(UtcTime(i64::MIN).hour_start(), UtcTime(i64::MIN));
    }
}
