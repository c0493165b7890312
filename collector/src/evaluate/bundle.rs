//! All a month was made from, as one file: with it anybody recomputes the figure, offline, without our database.
//!
//! ```json
//! {"bundle": 1, "service": "portal", "month": "2026-04", "known_at": "…", "tzdata": "2026f",
//!  "chapters": [{"from": "…", "to": "…", "case": { … }}],
//!  "versions": [{"object": "contract office-hours", "valid_from": "…", "recorded_at": "…", "author": "…", "reason": "…"}]}
//! ```
//!
//! A chapter is a stretch of the month under one agreement; its `case` is a whole file of formats.md §1, which
//! `sla evaluate` takes as it stands. A month in which nothing changed has one. `versions` say which versions of
//! contract, expression and checks were in force, since when and by whom: for people, and part of the digest.
//!
//! The digests ([`Inputs`]) are those of a sealed report. They are taken over what the bundle says, not over its
//! text: another order of keys or of samples is the same bundle.

use peil_proto::settings::{Document, Fields, Mistakes, Node, Refused};
use peil_proto::time::UtcTime;
use serde_json::{Map, Value, json};

use super::canonical::{canonical, digest};
use super::input::{read_case_node, read_month};
use super::written;
use crate::contract::calendar::{Month, tzdata_version};
use crate::contract::exclusion::{read_span, read_time};
use crate::contract::sealing::Digest;
use crate::contract::span::Span;
use crate::contract::{Chapter, Dated};

/// Number of the form; a reader refuses another.
const FORM: i64 = 1;

/// A version that was in force in the month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionNote {
    /// Kind and name: `contract office-hours`.
    pub object: String,
    /// Since when it holds; `None` for one that always did.
    pub valid_from: Option<UtcTime>,
    /// When it was written down; `None` when that is not known.
    pub recorded_at: Option<UtcTime>,
    /// By whom.
    pub author: String,
    /// Why.
    pub reason: String,
}

/// A month of one service with everything its figure depends on.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Whose.
    pub service: String,
    /// What was known when.
    pub known_at: UtcTime,
    /// Release of the zones it was cut by.
    pub tzdata: String,
    /// The month.
    pub dated: Dated,
    /// What was in force.
    pub versions: Vec<VersionNote>,
}

/// What a figure was made from, as digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// Clauses, expressions and rules of the checks, chapter by chapter, and their versions.
    pub agreement: Digest,
    /// What every vantage saw.
    pub evidence: Digest,
    /// What was proposed and approved.
    pub exclusions: Digest,
    /// Release of the zones.
    pub tzdata: String,
}

impl Inputs {
    /// As it stands in a report.
    pub fn to_value(&self) -> Value {
        json!({
            "agreement": self.agreement.to_string(),
            "evidence": self.evidence.to_string(),
            "exclusions": self.exclusions.to_string(),
            "tzdata": self.tzdata,
        })
    }

    /// One digest of all.
    pub fn digest(&self) -> Digest {
        digest(&self.to_value())
    }
}

impl Bundle {
    /// The bundle of a month under the zones of this program.
    pub fn new(service: &str, known_at: UtcTime, dated: Dated, versions: Vec<VersionNote>) -> Self {
        Self { service: service.to_owned(), known_at, tzdata: tzdata_version().to_owned(), dated, versions }
    }

    /// The month it is about, as a span.
    pub fn span(&self) -> Span {
        let chapters = &self.dated.chapters;
        let from = chapters.first().map_or(Span::ALWAYS.from, |chapter| chapter.span.from);
        Span::new(from, chapters.last().map_or(from, |chapter| chapter.span.to))
    }

    /// As JSON, canonical, with a line's end.
    pub fn to_text(&self) -> String {
        let chapters: Vec<Value> =
            self.chapters().into_iter().map(|(from, to, case)| chapter_value(from, to, case)).collect();
        let value = json!({
            "bundle": FORM,
            "service": self.service,
            "month": self.dated.month.to_string(),
            "known_at": written::time(self.known_at),
            "tzdata": self.tzdata,
            "chapters": chapters,
            "versions": self.version_values(),
        });
        canonical(&value) + "\n"
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// [`Refused`] with every mistake, in order of line.
    pub fn read(file: &str, text: &str) -> Result<Self, Refused> {
        let mistakes = Mistakes::new(file);
        let root = Document::json(text, &mistakes);
        let found = if mistakes.is_empty() { read_bundle(root, &mistakes) } else { None };
        if found.is_none() && mistakes.is_empty() {
            mistakes.add(0, "the file could not be understood");
        }
        mistakes.into_result(found)?.ok_or_else(|| Refused { file: file.to_owned(), mistakes: Vec::new() })
    }

    /// The digests of what it says.
    pub fn inputs(&self) -> Inputs {
        let (mut agreement, mut evidence) = (Vec::new(), Vec::new());
        for (from, to, case) in self.chapters() {
            let (rules, seen) = split_checks(case.get("checks"));
            agreement.push(json!({
                "from": from, "to": to, "contract": case.get("contract"), "service": case.get("service"), "checks": rules,
            }));
            evidence.push(seen);
        }
        let exclusions: Vec<_> = self.dated.exclusions.iter().map(written::exclusion).collect();
        Inputs {
            agreement: digest(&json!({"chapters": agreement, "versions": self.version_values()})),
            evidence: digest(&Value::Array(evidence)),
            exclusions: digest(&Value::Array(exclusions)),
            tzdata: self.tzdata.clone(),
        }
    }

    fn chapters(&self) -> Vec<(Value, Value, Value)> {
        let month = self.span();
        let value = |chapter: &Chapter| {
            let case = written::case(self.dated.month, month, chapter, &self.dated.exclusions);
            (written::time(chapter.span.from), written::time(chapter.span.to), case)
        };
        self.dated.chapters.iter().map(value).collect()
    }

    fn version_values(&self) -> Vec<Value> {
        let value = |note: &VersionNote| {
            json!({
                "object": note.object,
                "valid_from": note.valid_from.map(written::time),
                "recorded_at": note.recorded_at.map(written::time),
                "author": note.author,
                "reason": note.reason,
            })
        };
        self.versions.iter().map(value).collect()
    }
}

fn chapter_value(from: Value, to: Value, case: Value) -> Value {
    json!({"from": from, "to": to, "case": case})
}

/// The checks of a case as their rules and as what was seen.
fn split_checks(checks: Option<&Value>) -> (Value, Value) {
    let (mut rules, mut seen) = (Map::new(), Map::new());
    for (name, check) in checks.and_then(Value::as_object).into_iter().flatten() {
        let mut rule = check.as_object().cloned().unwrap_or_default();
        seen.insert(name.clone(), rule.remove("vantages").unwrap_or_default());
        rules.insert(name.clone(), Value::Object(rule));
    }
    (Value::Object(rules), Value::Object(seen))
}

fn read_bundle(root: Node, mistakes: &Mistakes) -> Option<Bundle> {
    let mut fields = root.fields(mistakes);
    fields.need_int("bundle", FORM..=FORM);
    let service = fields.need_str("service");
    let month = fields.need("month").and_then(|node| read_month(&node, mistakes));
    let known_at = fields.need("known_at").and_then(|node| read_time(&node, &fields));
    let tzdata = fields.need_str("tzdata");
    let chapters = fields.tables("chapters");
    if chapters.is_empty() {
        fields.refuse("has no chapters; a bundle has at least one");
    }
    let dated = month.and_then(|month| read_chapters(month, chapters));
    let versions = fields.tables("versions").into_iter().filter_map(read_version).collect();
    fields.finish();
    Some(Bundle { service: service?, known_at: known_at?, tzdata: tzdata?, dated: dated?, versions })
}

/// Chapters that follow each other and together are the month in the zone of their contract.
fn read_chapters(month: Month, tables: Vec<Fields<'_>>) -> Option<Dated> {
    let (mut chapters, mut first) = (Vec::<Chapter>::new(), None);
    let count = tables.len();
    for mut fields in tables {
        let mistakes = fields.mistakes();
        let span = read_span(&mut fields);
        let case = fields.need("case").and_then(|node| read_case_node(node, mistakes));
        if let (Some(span), Some((case, _))) = (span, case) {
            let whole = month.span(&case.terms.timezone);
            if case.month != month {
                fields.refuse(format_args!("is about {}, the bundle about {month}", case.month));
            }
            let begins = chapters.last().map_or(whole.from, |before| before.span.to);
            if span.from != begins {
                fields.refuse(format_args!(
                    "begins at {}; it must begin at {begins}, where the one before ends",
                    span.from
                ));
            }
            let (zone, exclusions) =
                first.get_or_insert_with(|| (case.terms.timezone.clone(), case.exclusions.clone()));
            if *zone != case.terms.timezone {
                fields.refuse("is in another time zone than the first chapter; a contract keeps its zone");
            }
            if *exclusions != case.exclusions {
                fields.refuse("has other exclusions than the first chapter; all chapters list all of them");
            }
            if chapters.len() + 1 == count && span.to != whole.to {
                fields
                    .refuse(format_args!("ends at {}; the last one must end with the month, at {}", span.to, whole.to));
            }
            chapters.push(Chapter { span, terms: case.terms, service: case.service, checks: case.checks });
        }
        fields.finish();
    }
    first.map(|(_, exclusions)| Dated { month, chapters, exclusions })
}

fn read_version(mut fields: Fields<'_>) -> Option<VersionNote> {
    let object = fields.need_str("object");
    let valid_from = fields.take_some("valid_from").and_then(|node| read_time(&node, &fields));
    let recorded_at = fields.take_some("recorded_at").and_then(|node| read_time(&node, &fields));
    let (author, reason) = (fields.str_or("author", ""), fields.str_or("reason", ""));
    fields.finish();
    Some(VersionNote { object: object?, valid_from, recorded_at, author, reason })
}

#[cfg(test)]
mod tests;
