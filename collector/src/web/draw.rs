//! Pictures made here: badges, bars and charts as inline SVG.
//!
//! Sizes are attributes, so the strict style policy holds; colours are classes of the style sheet. Every
//! number is an integer, every text a constant or escaped, so the results are safe to put in a page as
//! they are. No picture is the only bearer of its message: words or a table stand beside it.

use std::fmt::{self, Write};

use peil_proto::sample::{PHASES, State};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::format::{Zone, micros};
use crate::snapshot::{EnergyHourView, PatchState};

/// Markup made by this file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Svg(String);

impl fmt::Display for Svg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl askama::filters::HtmlSafe for Svg {}

/// How good or bad something is: picks colour and icon, never stands without its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// As it should be.
    Good,
    /// Needs attention soon.
    Warn,
    /// Is wrong now.
    Bad,
    /// Nobody knows.
    Unknown,
    /// Neither good nor bad.
    Plain,
}

impl Mood {
    /// Class in the style sheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
            Self::Plain => "plain",
        }
    }

    /// Shapes differ as well as colours: check, triangle, cross, question mark, dash.
    fn path(self) -> &'static str {
        match self {
            Self::Good => "M3 8.5l3.2 3.2L13 4.9",
            Self::Warn => "M8 2.5L14.5 13.5H1.5ZM8 6.5v3.2M8 11.6v.2",
            Self::Bad => "M4 4l8 8M12 4l-8 8",
            Self::Unknown => "M5.5 6a2.5 2.5 0 1 1 3.6 2.2c-.8.4-1.1.9-1.1 1.7M8 12.4v.2",
            Self::Plain => "M4 8h8",
        }
    }
}

/// Icon and word. `word` must be a constant: it is not escaped.
pub(super) fn badge(mood: Mood, word: &'static str) -> Svg {
    Svg(format!(
        r#"<span class="badge {}"><svg class="icon" width="16" height="16" viewBox="0 0 16 16" aria-hidden="true" focusable="false"><path d="{}"/></svg>{word}</span>"#,
        mood.class(),
        mood.path(),
    ))
}

/// The badge of a state.
pub(super) fn state_badge(state: State) -> Svg {
    match state {
        State::Up => badge(Mood::Good, "Up"),
        State::Down => badge(Mood::Bad, "Down"),
        State::Unknown => badge(Mood::Unknown, "Unknown"),
    }
}

/// The badge of a patch level.
pub(super) fn patch_badge(state: PatchState) -> Svg {
    match state {
        PatchState::Ok => badge(Mood::Good, "Up to date"),
        PatchState::Due => badge(Mood::Warn, "Fixes due"),
        PatchState::Overdue => badge(Mood::Bad, "Overdue"),
        PatchState::Unknown => badge(Mood::Unknown, "Unknown"),
    }
}

/// `part` of `whole` in thousandths, between 0 and 1000; 0 of nothing is 0.
pub(super) fn permille(part: i64, whole: i64) -> i64 {
    if whole <= 0 {
        return 0;
    }
    let n = i128::from(part.max(0)) * 1_000 / i128::from(whole);
    i64::try_from(n).unwrap_or(1_000).min(1_000)
}

/// What is left of a budget: full when nothing was lost, red and full when it is overdrawn.
pub(super) fn budget_bar(left: Millis, budget: Millis) -> Svg {
    let (width, mood) = match permille(left.0, budget.0) {
        _ if left.0 < 0 => (1_000, Mood::Bad),
        n @ 0..=249 => (n, Mood::Warn),
        n => (n, Mood::Good),
    };
    Svg(format!(
        r#"<svg class="bar" width="100%" height="6" viewBox="0 0 1000 6" preserveAspectRatio="none" aria-hidden="true" focusable="false"><rect class="track" width="1000" height="6"/><rect class="fill {}" width="{width}" height="6"/></svg>"#,
        mood.class(),
    ))
}

/// A stacked bar of spans; each visible part is at least 3 thousandths wide, so that a minute of a month shows.
pub(super) fn stack(parts: &[(&'static str, i64)]) -> Svg {
    let whole: i64 = parts.iter().map(|(_, n)| (*n).max(0)).fold(0, i64::saturating_add);
    let mut svg = String::from(
        r#"<svg class="stack" width="100%" height="14" viewBox="0 0 1000 14" preserveAspectRatio="none" aria-hidden="true" focusable="false"><rect class="track" width="1000" height="14"/>"#,
    );
    let least = |n: i64| if n > 0 { permille(n, whole).max(3) } else { 0 };
    let total: i64 = parts.iter().map(|(_, n)| least(*n)).sum();
    let mut x = 0;
    for (class, n) in parts {
        let width = permille(least(*n), total);
        if width > 0 {
            let _ = write!(svg, r#"<rect class="fill {class}" x="{x}" width="{width}" height="14"/>"#);
        }
        x += width;
    }
    svg.push_str("</svg>");
    Svg(svg)
}

/// The phases of one probe, one after the other, to the scale of `longest_us`. `name` tells what it shows.
pub(super) fn waterfall(phases_us: [Option<u32>; 5], longest_us: u64) -> Svg {
    let mut svg = String::from(
        r#"<svg class="waterfall" width="100%" height="12" viewBox="0 0 1000 12" preserveAspectRatio="none" role="img"><title>"#,
    );
    let words: Vec<String> = PHASES
        .iter()
        .zip(phases_us)
        .filter_map(|(name, us)| us.map(|us| format!("{} {}", phase_word(name), micros(us))))
        .collect();
    let _ = write!(svg, r#"{}</title><rect class="track" width="1000" height="12"/>"#, words.join(", "));
    let whole = i64::try_from(longest_us).unwrap_or(i64::MAX);
    let mut x = 0;
    for (at, us) in phases_us.iter().enumerate() {
        let Some(us) = us.filter(|us| *us > 0) else { continue };
        let width = permille(i64::from(us), whole).max(2).min(1_000 - x);
        let _ = write!(svg, r#"<rect class="phase{at}" x="{x}" width="{width}" height="12"/>"#);
        x += width;
    }
    svg.push_str("</svg>");
    Svg(svg)
}

/// A phase as people read it.
pub(super) fn phase_word(name: &str) -> &str {
    match name {
        "first_byte" => "first byte",
        "tls" => "TLS",
        other => other,
    }
}

const HOURS: i64 = 24;
const CHART_HEIGHT: i64 = 120;
const SLOT: i64 = 30;

/// Energy of up to 24 hours as bars with their bounds. An hour without readings has no bar (missing, not
/// zero); one that is only partly covered is hatched.
pub(super) fn energy_chart(hours: &[EnergyHourView]) -> Svg {
    let Some(last) = hours.last() else { return Svg::default() };
    let highest = hours.iter().map(|h| h.high_uj.0.max(h.energy_uj.0)).max().unwrap_or(0).max(1);
    let tall = |uj: u64| {
        let n = u128::from(uj) * u128::from(CHART_HEIGHT.unsigned_abs()) / u128::from(highest);
        i64::try_from(n).unwrap_or(CHART_HEIGHT)
    };
    let first = last.hour.plus(Millis(-(HOURS - 1) * Millis::HOUR.0));
    let mut svg = String::from(
        r#"<svg class="chart" width="100%" viewBox="0 0 720 140" role="img" aria-labelledby="energy-chart-title"><title id="energy-chart-title">Energy per hour over the last 24 hours with readings; the same numbers are in the table below.</title><defs><pattern id="partly" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="hatch" width="3" height="6"/></pattern></defs>"#,
    );
    let _ = write!(svg, r#"<line class="axis" x1="0" x2="720" y1="{CHART_HEIGHT}.5" y2="{CHART_HEIGHT}.5"/>"#);
    for hour in hours {
        let slot = hour.hour.since(first).0.div_euclid(Millis::HOUR.0);
        if !(0..HOURS).contains(&slot) {
            continue;
        }
        let (x, height) = (slot * SLOT, tall(hour.energy_uj.0).max(1));
        let fill = if hour.covered_s >= 3_600 { "energy" } else { "energy partly" };
        let (low, high) = (CHART_HEIGHT - tall(hour.low_uj.0), CHART_HEIGHT - tall(hour.high_uj.0));
        let _ = write!(
            svg,
            r#"<rect class="{fill}" x="{left}" y="{top}" width="22" height="{height}"/><path class="bounds" d="M{mid} {high}V{low}M{cap} {high}h8M{cap} {low}h8"/>"#,
            left = x + 4,
            top = CHART_HEIGHT - height,
            cap = x + 11,
            mid = x + 15,
        );
    }
    axis_words(&mut svg, first);
    svg.push_str("</svg>");
    Svg(svg)
}

/// The hour under every sixth bar.
fn axis_words(svg: &mut String, first: UtcTime) {
    for slot in (0..HOURS).step_by(6) {
        let at = first.plus(Millis(slot * Millis::HOUR.0));
        let _ = write!(svg, r#"<text x="{}" y="136">{}</text>"#, slot * SLOT + 4, Zone::UTC.hour(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peil_proto::units::Microjoules;

    #[test]
    fn a_share_stays_between_nothing_and_all() {
        for (part, whole, want) in
            [(0, 0, 0), (1, 3, 333), (5, 4, 1_000), (-1, 4, 0), (i64::MAX, i64::MAX, 1_000), (1, -1, 0)]
        {
            assert_eq!(permille(part, whole), want, "{part}/{whole}");
        }
    }

    #[test]
    fn an_overdrawn_budget_is_red_and_a_small_rest_warns() {
        assert!(budget_bar(Millis(-1), Millis(100)).0.contains(r#"fill bad" width="1000""#));
        assert!(budget_bar(Millis(20), Millis(100)).0.contains(r#"fill warn" width="200""#));
        assert!(budget_bar(Millis(100), Millis(100)).0.contains(r#"fill good" width="1000""#));
    }

    #[test]
    fn a_minute_of_a_month_is_visible_in_the_stack() {
        let svg = stack(&[("good", 2_592_000_000), ("bad", 60_000), ("unknown", 0)]).0;
        assert!(svg.contains(r#"class="fill bad""#), "{svg}");
        assert!(!svg.contains(r#"class="fill unknown""#), "{svg}");
    }

    #[test]
    fn a_missing_hour_has_no_bar_and_a_partial_one_is_hatched() {
        let hour = |n: i64, covered_s| EnergyHourView {
            hour: UtcTime(n * Millis::HOUR.0),
            energy_uj: Microjoules(5),
            low_uj: Microjoules(4),
            high_uj: Microjoules(u64::MAX),
            covered_s,
        };
        let svg = energy_chart(&[hour(100, 3_600), hour(102, 600)]).0;
        assert_eq!(svg.matches(r#"class="bounds""#).count(), 2);
        assert_eq!(svg.matches("energy partly").count(), 1);
        assert_eq!(energy_chart(&[]), Svg::default());
    }
}
