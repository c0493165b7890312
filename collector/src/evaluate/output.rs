//! The figure as the JSON object of formats.md §1: the same keys in the same order, on one line.

use jiff::tz::TimeZone;
use serde::Serialize;

use crate::contract::calendar::local_rfc3339;
use crate::contract::exclusion::Refusal;
use crate::contract::figure::Figure;
use crate::contract::percent::Percent;

/// A figure with the keys of the format.
#[derive(Serialize)]
pub(super) struct Output<'a> {
    month: String,
    month_ms: i64,
    not_covered_ms: i64,
    out_of_window_ms: i64,
    holiday_ms: i64,
    excluded_ms: i64,
    up_ms: i64,
    down_ms: i64,
    unknown_ms: i64,
    agreed_ms: i64,
    counted_down_ms: i64,
    availability: Availability,
    known: Option<String>,
    verdict: &'static str,
    budget_ms: i64,
    budget_left_ms: i64,
    outages: Vec<OutageOut<'a>>,
    excluded: Vec<ExcludedOut<'a>>,
}

#[derive(Serialize)]
struct Availability {
    official: Option<String>,
    worst: Option<String>,
    best: Option<String>,
}

#[derive(Serialize)]
struct OutageOut<'a> {
    from: String,
    to: String,
    counted_ms: i64,
    because: &'a [String],
}

#[derive(Serialize)]
struct ExcludedOut<'a> {
    id: &'a str,
    counted_ms: i64,
    refused: Option<&'static str>,
}

/// One line of JSON, without the line's end; times have the offset that holds in `zone`.
pub fn to_json(figure: &Figure, zone: &TimeZone) -> String {
    // Strings and integers under string keys: serialising them cannot fail.
    serde_json::to_string(&output(figure, zone)).unwrap_or_default()
}

/// The same object as a value, for those who put it into another.
pub fn to_value(figure: &Figure, zone: &TimeZone) -> serde_json::Value {
    serde_json::to_value(output(figure, zone)).unwrap_or_default()
}

/// `figure` with the keys of the format; times have the offset that holds in `zone`.
pub(super) fn output<'a>(figure: &'a Figure, zone: &TimeZone) -> Output<'a> {
    let text = |percent: Option<Percent>| percent.map(|percent| percent.to_string());
    let outages = figure.outages.iter().map(|outage| OutageOut {
        from: local_rfc3339(outage.span.from, zone),
        to: local_rfc3339(outage.span.to, zone),
        counted_ms: outage.counted_ms.0,
        because: &outage.because,
    });
    let excluded = figure.exclusions.iter().map(|row| ExcludedOut {
        id: &row.id,
        counted_ms: row.counted_ms.0,
        refused: row.refused.map(Refusal::word),
    });
    Output {
        month: figure.month.to_string(),
        month_ms: figure.month_ms.0,
        not_covered_ms: figure.not_covered_ms.0,
        out_of_window_ms: figure.out_of_window_ms.0,
        holiday_ms: figure.holiday_ms.0,
        excluded_ms: figure.excluded_ms.0,
        up_ms: figure.up_ms.0,
        down_ms: figure.down_ms.0,
        unknown_ms: figure.unknown_ms.0,
        agreed_ms: figure.agreed_ms.0,
        counted_down_ms: figure.counted_down_ms.0,
        availability: Availability {
            official: text(figure.official),
            worst: text(figure.worst),
            best: text(figure.best),
        },
        known: text(figure.known),
        verdict: figure.verdict.word(),
        budget_ms: figure.budget_ms.0,
        budget_left_ms: figure.budget_left_ms.0,
        outages: outages.collect(),
        excluded: excluded.collect(),
    }
}
