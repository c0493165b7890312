//! A sealed edition as a document: the figure, how well it was measured, and the digests of what it was made from.
//!
//! ```json
//! {"report": 1, "service": "portal", "month": "2026-04", "version": 2, "sealed_at": "…", "sealed_by": "bert",
//!  "approved": true, "correction": {"supersedes": 1, "reason": "…", "author": "anna", "approver": "bert"},
//!  "delta": {"down_ms": 900000, …}, "known_at": "…", "timezone": "…", "figure": { … }, "quality": { … },
//!  "inputs": {"agreement": "…", "evidence": "…", "exclusions": "…", "tzdata": "2026f"}, "blocks": {"count": 7, "sha256_sum": "…"}}
//! ```
//!
//! It is written once, as canonical JSON; the SHA-256 of that text goes into the audit log. `sealed_by` is null
//! and `approved` false where the agreed day sealed it and nobody had approved. `figure` is the object of
//! formats.md §1. Nothing in it is computed here.

use peil_proto::settings::Refused;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use serde_json::{Map, Value, json};

use super::bundle::{Bundle, Inputs};
use super::canonical::canonical;
use super::{output, written};
use crate::contract::percent::Percent;
use crate::contract::quality::{Quality, quality};
use crate::contract::sealing::{Correction, Digest, Edition, Seal};
use crate::contract::{self};

/// Number of the form.
const FORM: i64 = 1;

/// The blocks the evidence came out of: all blocks of its agents, once for each UTC day that touches the evidence and
/// that they speak about. Count and digest are those of the ledgers of these days (`peil_proto::block::day`), so they stay
/// the same when blocks are compacted; what comes late is another block and changes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlocksSeen {
    /// How many.
    pub count: u64,
    /// The sum, modulo 2^256, of a SHA-256 for each.
    pub digest: Digest,
}

/// What is to be sealed: the figure of a bundle with its digests.
#[derive(Debug, Clone, PartialEq)]
pub struct Findings {
    /// The object of the format.
    pub figure: Value,
    /// How it was measured.
    pub quality: Value,
    /// What it was made from.
    pub inputs: Inputs,
    /// Zone of the contract.
    pub timezone: String,
}

impl Findings {
    /// Evaluates `bundle`. `clock_error` is the largest measured, if anybody measured it.
    pub fn of(bundle: &Bundle, clock_error: Option<Millis>) -> Self {
        let figure = contract::evaluate(&bundle.dated);
        let zone = bundle.dated.chapters.first().map_or(jiff::tz::TimeZone::UTC, |first| first.terms.timezone.clone());
        Self {
            quality: quality_value(&quality(&bundle.dated, &figure, clock_error)),
            figure: output::to_value(&figure, &zone),
            inputs: bundle.inputs(),
            timezone: zone.iana_name().unwrap_or("UTC").to_owned(),
        }
    }
}

/// The document of an edition. `before` is the figure of the edition it supersedes.
pub fn document(
    bundle: &Bundle,
    findings: &Findings,
    edition: &Edition,
    before: Option<&Value>,
    blocks: Option<BlocksSeen>,
) -> String {
    let (sealed_by, approved) = match &edition.seal {
        Seal::Person(name) => (Some(name), true),
        Seal::AgreedDay => (None, false),
    };
    let correction = edition.correction.as_ref().map(|Correction { reason, author, approver }| {
        let supersedes = edition.version.saturating_sub(1);
        json!({"supersedes": supersedes, "reason": reason, "author": author, "approver": approver})
    });
    let value = json!({
        "report": FORM,
        "service": bundle.service,
        "month": bundle.dated.month.to_string(),
        "version": edition.version,
        "sealed_at": written::time(edition.at),
        "sealed_by": sealed_by,
        "approved": approved,
        "correction": correction,
        "delta": before.map(|before| delta(before, &findings.figure)),
        "known_at": written::time(bundle.known_at),
        "timezone": findings.timezone,
        "figure": findings.figure,
        "quality": findings.quality,
        "inputs": findings.inputs.to_value(),
        "blocks": blocks.map(|seen| json!({"count": seen.count, "sha256_sum": seen.digest.to_string()})),
    });
    canonical(&value)
}

/// Every whole number of the figure that differs, the second minus the first, and both verdicts when they do.
pub fn delta(before: &Value, after: &Value) -> Value {
    let mut delta = Map::new();
    for (key, new) in after.as_object().into_iter().flatten() {
        match (before.get(key).and_then(Value::as_i64), new.as_i64()) {
            (Some(old), Some(new)) if old != new => drop(delta.insert(key.clone(), json!(new.saturating_sub(old)))),
            _ => {}
        }
    }
    if before.get("verdict") != after.get("verdict") {
        delta.insert("verdict".to_owned(), json!({"before": before.get("verdict"), "after": after.get("verdict")}));
    }
    Value::Object(delta)
}

fn quality_value(quality: &Quality) -> Value {
    let check = |check: &contract::quality::CheckQuality| {
        json!({
            "name": check.name,
            "interval_ms": check.interval.0,
            "detection_limit_ms": check.detection_limit.0,
            "vantages": check.vantages,
            "quorum": check.quorum,
        })
    };
    json!({
        "checks": quality.checks.iter().map(check).collect::<Vec<_>>(),
        "known": quality.known.map(|known: Percent| known.to_string()),
        "unknown_ms": quality.unknown_ms.0,
        "clock_error_ms": quality.clock_error.map(|error| error.0),
    })
}

/// What a reader needs of a report somebody was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// Whose.
    pub service: String,
    /// Which month.
    pub month: String,
    /// Which edition.
    pub version: i64,
    /// What was known when.
    pub known_at: Option<UtcTime>,
    /// The object of the format.
    pub figure: Value,
    /// Digests by name.
    pub inputs: Map<String, Value>,
}

/// Reads a report.
///
/// # Errors
/// [`Refused`] when it is no report, or one of another form.
pub fn read(file: &str, text: &str) -> Result<Received, Refused> {
    let mut mistakes = Vec::new();
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| {
        mistakes.push(format!("is not JSON: {error}"));
        Value::Null
    });
    let mut missing = |key: &str, what: &str| mistakes.push(format!("has no {what} under {key:?}; is it a report?"));
    if value.get("report").and_then(Value::as_i64) != Some(FORM) {
        missing("report", "form 1");
    }
    let mut word = |key: &str| {
        let found = value.get(key).and_then(Value::as_str).map(str::to_owned);
        if found.is_none() {
            missing(key, "text");
        }
        found.unwrap_or_default()
    };
    let (service, month, known_at) = (word("service"), word("month"), word("known_at"));
    let mut table = |key: &str| {
        let found = value.get(key).and_then(Value::as_object).cloned();
        if found.is_none() {
            missing(key, "table");
        }
        found.unwrap_or_default()
    };
    let (figure, inputs) = (table("figure"), table("inputs"));
    if !mistakes.is_empty() {
        return Err(Refused { file: file.to_owned(), mistakes });
    }
    let version = value.get("version").and_then(Value::as_i64).unwrap_or_default();
    let known_at = UtcTime::parse(&known_at).ok();
    Ok(Received { service, month, version, known_at, figure: Value::Object(figure), inputs })
}
