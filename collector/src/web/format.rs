//! Values in words for people: spans, moments, amounts. Pure; integers throughout.
//!
//! Rounding never flatters: availability and lower bounds are cut, upper bounds are raised. Wording is
//! English; a translation would replace this file and the templates.

use std::fmt;

use jiff::tz::TimeZone;
use peil_proto::time::UtcTime;
use peil_proto::units::{Microjoules, Millis};

/// `1 h 23 min`, `45 s`, `3 d 2 h`, `under 1 s`: the two largest units, cut. Negative spans count as their size.
pub(super) fn span(millis: Millis) -> String {
    let secs = millis.0.unsigned_abs() / 1_000;
    let (d, h, m, s) = (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60, secs % 60);
    let parts = [(d, "d"), (h, "h"), (m, "min"), (s, "s")];
    match parts.iter().position(|(n, _)| *n > 0) {
        None if millis == Millis::ZERO => "0 s".to_owned(),
        None => "under 1 s".to_owned(),
        Some(first) => {
            let shown = parts[first..].iter().take(2).filter(|(n, _)| *n > 0);
            shown.map(|(n, unit)| format!("{n} {unit}")).collect::<Vec<_>>().join(" ")
        }
    }
}

/// `266:02:11`: hours, minutes and seconds, cut; for tables in which spans are compared.
pub(super) fn clock(millis: Millis) -> String {
    let secs = millis.0.unsigned_abs() / 1_000;
    let sign = if millis.0 < 0 && secs > 0 { "−" } else { "" };
    format!("{sign}{}:{:02}:{:02}", secs / 3_600, secs / 60 % 60, secs % 60)
}

/// How long ago, coarse enough that a page does not change every second: `just now`, `3 min ago`, `in 2 d`.
pub(super) fn ago(then: UtcTime, now: UtcTime) -> String {
    let past = now.since(then);
    match past.0 {
        -59_999..=59_999 => "just now".to_owned(),
        60_000.. => format!("{} ago", coarse(past)),
        _ => format!("in {}", coarse(past)),
    }
}

/// The largest unit only.
fn coarse(millis: Millis) -> String {
    let minutes = millis.0.unsigned_abs() / 60_000;
    match minutes {
        0..=119 => format!("{minutes} min"),
        120..=2_879 => format!("{} h", minutes / 60),
        _ => format!("{} d", minutes / 1_440),
    }
}

/// Whole days until `then`, floored; negative once it has passed.
pub(super) fn days_until(then: UtcTime, now: UtcTime) -> i64 {
    then.since(now).0.div_euclid(Millis::DAY.0)
}

/// `99.981234` cut to `99.981 %`. The contract's percentages are floored already; cutting keeps them so.
pub(super) fn percent(text: &str) -> String {
    let cut = text.find('.').map_or(text.len(), |dot| text.floor_char_boundary((dot + 4).min(text.len())));
    format!("{} %", &text[..cut])
}

/// `4.218 kWh`, cut.
pub(super) fn kwh(energy: Microjoules) -> String {
    milli_kwh(energy.0 / MICROJOULES_PER_MILLI_KWH)
}

/// `4.219 kWh`, raised: for upper bounds.
pub(super) fn kwh_at_most(energy: Microjoules) -> String {
    milli_kwh(energy.0.div_ceil(MICROJOULES_PER_MILLI_KWH))
}

const MICROJOULES_PER_MILLI_KWH: u64 = Microjoules::PER_KWH / 1_000;

fn milli_kwh(n: u64) -> String {
    format!("{}.{:03} kWh", n / 1_000, n % 1_000)
}

/// `61.5 Wh`, cut: for single hours.
pub(super) fn watt_hours(energy: Microjoules) -> String {
    let tenths = energy.0 / (Microjoules::PER_KWH / 10_000);
    format!("{}.{} Wh", tenths / 10, tenths % 10)
}

/// `12.3 W`, cut.
pub(super) fn watts(milliwatts: u64) -> String {
    format!("{}.{} W", milliwatts / 1_000, milliwatts % 1_000 / 100)
}

/// `12.4 MiB`, cut.
pub(super) fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// `12.3 ms`, cut.
pub(super) fn micros(us: u32) -> String {
    format!("{}.{} ms", us / 1_000, us % 1_000 / 100)
}

/// `1 host`, `3 hosts`.
pub(super) fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Where a moment is told: UTC, or the zone of a contract.
#[derive(Debug, Clone)]
pub(super) struct Zone(TimeZone);

impl Zone {
    /// UTC.
    pub(super) const UTC: Self = Self(TimeZone::UTC);

    /// The zone of this IANA name; UTC when there is none of that name (the text then says UTC).
    pub(super) fn named(name: &str) -> Self {
        Self(TimeZone::get(name).unwrap_or(TimeZone::UTC))
    }

    /// This moment as a `<time>` element, to the second.
    pub(super) fn time(&self, at: UtcTime) -> TimeTag {
        self.tag(at, "%-d %b %Y, %H:%M:%S %Z")
    }

    /// This moment as a `<time>` element, to the minute and without the year: for dense tables.
    pub(super) fn minute(&self, at: UtcTime) -> TimeTag {
        self.tag(at, "%-d %b %H:%M %Z")
    }

    /// The civil date of this moment as a `<time>` element.
    pub(super) fn date(&self, at: UtcTime) -> TimeTag {
        self.tag(at, "%-d %b %Y")
    }

    /// The hour of this moment: `14:00`.
    pub(super) fn hour(&self, at: UtcTime) -> String {
        self.words(at, "%H:%M")
    }

    fn tag(&self, at: UtcTime, format: &str) -> TimeTag {
        TimeTag { iso: at.to_string(), text: self.words(at, format) }
    }

    fn words(&self, at: UtcTime, format: &str) -> String {
        match jiff::Timestamp::from_millisecond(at.0) {
            Ok(stamp) => stamp.to_zoned_datetime(self.0.clone()).strftime(format).to_string(),
            Err(_) => at.to_string(),
        }
    }
}

/// `<time datetime="…">…</time>`. Both texts come from jiff, so they hold no markup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TimeTag {
    iso: String,
    text: String,
}

impl fmt::Display for TimeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#"<time datetime="{}">{}</time>"#, self.iso, self.text)
    }
}

impl askama::filters::HtmlSafe for TimeTag {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_their_two_largest_units() {
        for (ms, words) in [
            (0, "0 s"),
            (999, "under 1 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (4_980_000, "1 h 23 min"),
            (3_601_000, "1 h"),
            (-720_000, "12 min"),
            (266_400_000, "3 d 2 h"),
        ] {
            assert_eq!(span(Millis(ms)), words, "{ms}");
        }
    }

    #[test]
    fn spans_in_tables_are_hours_minutes_and_seconds() {
        assert_eq!(clock(Millis(957_731_999)), "266:02:11");
        assert_eq!(clock(Millis(-61_000)), "−0:01:01");
        assert_eq!(clock(Millis(-999)), "0:00:00");
    }

    #[test]
    fn how_long_ago_changes_by_the_minute_at_most() {
        let now = UtcTime(10_000_000_000);
        for (before_ms, words) in [
            (0, "just now"),
            (59_999, "just now"),
            (-59_999, "just now"),
            (60_000, "1 min ago"),
            (7_200_000, "2 h ago"),
            (172_800_000, "2 d ago"),
            (-172_800_000, "in 2 d"),
        ] {
            assert_eq!(ago(now.plus(Millis(-before_ms)), now), words, "{before_ms}");
        }
    }

    #[test]
    fn figures_are_cut_and_upper_bounds_raised() {
        assert_eq!(percent("99.499999"), "99.499 %");
        assert_eq!(percent("100"), "100 %");
        assert_eq!(percent("99.5"), "99.5 %");
        let almost = Microjoules(Microjoules::PER_KWH - 1);
        assert_eq!((kwh(almost).as_str(), kwh_at_most(almost).as_str()), ("0.999 kWh", "1.000 kWh"));
        assert_eq!(watts(12_399), "12.3 W");
        assert_eq!(watt_hours(Microjoules(Microjoules::PER_KWH / 16)), "62.5 Wh");
        assert_eq!(mebibytes(13_000_000), "12.3 MiB");
        assert_eq!(micros(1_999), "1.9 ms");
    }

    #[test]
    fn a_deadline_today_has_no_days_left_and_yesterdays_minus_one() {
        let now = UtcTime(0);
        assert_eq!(days_until(UtcTime(86_399_999), now), 0);
        assert_eq!(days_until(UtcTime(86_400_000), now), 1);
        assert_eq!(days_until(UtcTime(-1), now), -1);
    }

    #[test]
    fn a_moment_is_told_in_the_zone_of_the_contract_and_marked_up_in_utc() {
        let at = UtcTime::parse("2026-04-01T00:00:00+02:00").expect("a time");
        let tag = Zone::named("Europe/Amsterdam").time(at).to_string();
        assert_eq!(tag, r#"<time datetime="2026-03-31T22:00:00Z">1 Apr 2026, 00:00:00 CEST</time>"#);
        assert!(Zone::named("No/Such").minute(at).to_string().contains("31 Mar 22:00 UTC"));
        assert!(Zone::UTC.time(UtcTime(i64::MAX)).to_string().contains("ms"), "absurd times do not panic");
    }
}
