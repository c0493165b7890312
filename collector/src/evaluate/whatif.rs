//! `peil-collector sla evaluate FILE --what-if OTHER`: the figure, what it would be, and the difference.
//!
//! OTHER holds only what changes: keys under `contract`, which replace those of FILE (tables key by key,
//! lists as a whole), and `exclusions`, which replaces them all. Printed is one line of JSON with `base`
//! and `what_if`, each as `sla evaluate` prints it, and `delta`, the second minus the first.
//!
//! `month what-if SERVICE MONTH OTHER` asks the same of a month of the store ([`of_bundle`]). Where its contract changed
//! within the month, OTHER changes each stretch of it. The time zone cannot change there: months are cut by it.

use jiff::tz::TimeZone;
use peil_proto::settings::{Document, Mistakes, Refused};
use serde::Serialize;

use super::bundle::Bundle;
use super::input::{Changes, read_case_and_contract};
use super::output::{Output, output};
use super::written;
use crate::contract::figure::Verdict;
use crate::contract::whatif::{Change, Comparison, Delta, what_if, what_if_dated};

#[derive(Serialize)]
struct ComparisonOut<'a> {
    base: Output<'a>,
    what_if: Output<'a>,
    delta: DeltaOut,
}

#[derive(Serialize)]
struct DeltaOut {
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
    budget_ms: i64,
    budget_left_ms: i64,
    verdict: Option<VerdictOut>,
}

#[derive(Serialize)]
struct VerdictOut {
    base: &'static str,
    what_if: &'static str,
}

/// The comparison of `text` with `text` changed by `changes`; people know the two as `file` and `other`.
///
/// # Errors
/// One [`Refused`] per unusable file; or one for both, when they contradict each other.
pub fn answer(file: &str, text: &str, other: &str, changes: &str) -> Result<String, Vec<Refused>> {
    let (case, change) = match (read_case_and_contract(file, text), Changes::read(other, changes)) {
        (Ok((case, contract)), Ok(changes)) => {
            let change: Change = changes.apply(file, contract).map_err(|refused| vec![refused])?;
            (case, change)
        }
        (case, changes) => return Err([case.err(), changes.err()].into_iter().flatten().collect()),
    };
    let zone = case.terms.timezone.clone();
    let other_zone = change.terms.as_ref().map_or_else(|| zone.clone(), |terms| terms.timezone.clone());
    Ok(printed(&what_if(case, change), &zone, &other_zone))
}

/// The comparison of a month of the store, as `bundle`, with the same changed by `changes`, known as `other`.
///
/// # Errors
/// [`Refused`] for unusable changes, or for such as contradict what was agreed.
pub fn of_bundle(bundle: &Bundle, other: &str, changes: &str) -> Result<String, Refused> {
    let mut zone = TimeZone::UTC;
    let mut each = Vec::with_capacity(bundle.dated.chapters.len());
    let month = format!("{} {}", bundle.service, bundle.dated.month);
    for chapter in &bundle.dated.chapters {
        let mistakes = Mistakes::new(&month);
        let contract = Document::json(&written::terms(&chapter.terms).to_string(), &mistakes);
        let change = Changes::read(other, changes)?.apply(&month, contract)?;
        zone = chapter.terms.timezone.clone();
        if change.terms.as_ref().is_some_and(|terms| terms.timezone != zone) {
            let why = "another time zone makes another month of it; take \"timezone\" out".to_owned();
            return Err(Refused { file: other.to_owned(), mistakes: vec![why] });
        }
        each.push(change);
    }
    Ok(printed(&what_if_dated(bundle.dated.clone(), each), &zone, &zone))
}

fn printed(compared: &Comparison, zone: &TimeZone, other_zone: &TimeZone) -> String {
    let printed = ComparisonOut {
        base: output(&compared.base, zone),
        what_if: output(&compared.what_if, other_zone),
        delta: delta(&compared.delta),
    };
    // Strings and integers under string keys: serialising them cannot fail.
    serde_json::to_string(&printed).unwrap_or_default() + "\n"
}

fn delta(delta: &Delta) -> DeltaOut {
    let verdict = |(base, what_if): (Verdict, Verdict)| VerdictOut { base: base.word(), what_if: what_if.word() };
    DeltaOut {
        month_ms: delta.month_ms.0,
        not_covered_ms: delta.not_covered_ms.0,
        out_of_window_ms: delta.out_of_window_ms.0,
        holiday_ms: delta.holiday_ms.0,
        excluded_ms: delta.excluded_ms.0,
        up_ms: delta.up_ms.0,
        down_ms: delta.down_ms.0,
        unknown_ms: delta.unknown_ms.0,
        agreed_ms: delta.agreed_ms.0,
        counted_down_ms: delta.counted_down_ms.0,
        budget_ms: delta.budget_ms.0,
        budget_left_ms: delta.budget_left_ms.0,
        verdict: delta.verdict.map(verdict),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// April in office hours, down on King's Day and the morning after, with four hours of work on the 12th.
    fn base() -> Value {
        json!({
            "month": "2026-04",
            "contract": {
                "timezone": "Europe/Amsterdam", "target": "99.5",
                "window": [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "07:00", "to": "19:00"}],
                "holidays": {"country": "nl", "also": ["2026-04-03"]},
                "maintenance": {"notice_hours": 24, "monthly_cap_minutes": 60},
            },
            "service": "web",
            "checks": {"web": {"vantages": {"ams": {"otherwise": "up", "states": [
                {"from": "2026-04-27T06:00:00+02:00", "to": "2026-04-28T07:36:00+02:00", "state": "down"},
            ]}}}},
            "exclusions": [{"id": "CHG-7", "kind": "maintenance", "from": "2026-04-13T08:00:00+02:00",
                            "to": "2026-04-13T12:00:00+02:00", "announced_at": "2026-04-01T09:00:00+02:00",
                            "approved_by": "sdm@example.org"}],
        })
    }

    fn compare(changes: &Value) -> Value {
        let line = answer("base.json", &base().to_string(), "other.json", &changes.to_string()).expect("usable");
        assert!(line.ends_with("}\n") && line.lines().count() == 1);
        serde_json::from_str(&line).expect("JSON")
    }

    fn refusals(text: &str, changes: &str) -> Vec<String> {
        let refused = answer("base.json", text, "other.json", changes).expect_err("refused");
        refused.iter().flat_map(crate::evaluate::mistake_lines).collect()
    }

    #[test]
    fn a_change_shows_what_it_moves_and_whether_the_verdict_turns() {
        let hour = 3_600_000;
        let without = compare(&json!({"contract": {"holidays": null}}));
        assert_eq!(without["base"], serde_json::from_str::<Value>(&figure(&base())).expect("JSON"));
        // Good Friday, Easter Monday and King's Day come back, the last one down.
        let delta = &without["delta"];
        assert_eq!(
            (&delta["holiday_ms"], &delta["up_ms"], &delta["down_ms"]),
            (&json!(-36 * hour), &json!(24 * hour), &json!(12 * hour))
        );
        assert_eq!((&delta["agreed_ms"], &delta["month_ms"]), (&json!(36 * hour), &json!(0)));
        assert_eq!(delta["verdict"], json!({"base": "met", "what_if": "breached"}));

        let none = compare(&json!({"exclusions": []}));
        assert_eq!((&none["delta"]["excluded_ms"], &none["delta"]["up_ms"]), (&json!(-hour), &json!(hour)));
        assert_eq!((&none["delta"]["verdict"], &none["what_if"]["excluded"]), (&Value::Null, &json!([])));
    }

    /// `base` as it would be printed by itself.
    fn figure(case: &Value) -> String {
        crate::evaluate::evaluate_text("base.json", &case.to_string()).expect("usable")
    }

    #[test]
    fn what_is_not_named_stays_as_it_was_also_inside_a_table() {
        let mut whole = base();
        // Without the rest of its table the cap and Good Friday would be gone.
        whole["contract"]["maintenance"]["counts_as"] = json!("up");
        whole["contract"]["holidays"]["liberation_day"] = json!("always");
        let named = json!({"maintenance": {"counts_as": "up"}, "holidays": {"liberation_day": "always"}});
        let changed = compare(&json!({ "contract": named }));
        assert_eq!(changed["what_if"], serde_json::from_str::<Value>(&figure(&whole)).expect("JSON"));
        assert_eq!(changed["what_if"]["excluded"][0]["refused"], "over_cap");
        assert_eq!(changed["delta"]["holiday_ms"], 0);
        whole = base();
        whole["contract"]["maintenance"] = json!({"notice_hours": 10_000, "monthly_cap_minutes": 60});
        whole["contract"]["holidays"] = json!({"country": "nl", "also": []});
        let changed =
            compare(&json!({"contract": {"maintenance": {"notice_hours": 10_000}, "holidays": {"also": []}}}));
        assert_eq!(changed["what_if"], serde_json::from_str::<Value>(&figure(&whole)).expect("JSON"));
    }

    #[test]
    fn mistakes_of_both_files_come_at_once_with_their_own_lines() {
        let text = base().to_string().replace("\"target\"", "\"targt\"");
        let lines = refusals(&text, "{\n\"contract\": {\n\"unknwn\": \"up\"},\n\"month\": \"2026-05\"}");
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert!(lines[0].starts_with("base.json: unknown key \"contract.targt\" at line 1"), "{lines:#?}");
        assert!(
            lines[1].starts_with(
                "other.json: unknown key \"contract.unknwn\" at line 3 (did you mean \"contract.unknown\"?)"
            ),
            "{lines:#?}"
        );
        assert!(lines[2].starts_with("other.json: unknown key \"month\" at line 4"), "{lines:#?}");
    }

    #[test]
    fn a_month_of_the_store_is_compared_as_its_file_and_in_all_its_chapters() {
        let (case, _) = read_case_and_contract("base.json", &base().to_string()).expect("usable");
        let span = case.month.span(&case.terms.timezone);
        let middle = span.from.plus(peil_proto::units::Millis(13 * 86_400_000));
        let changes = json!({"contract": {"holidays": null}, "exclusions": []}).to_string();
        let as_file = answer("base.json", &base().to_string(), "other.json", &changes).expect("usable");
        for cuts in [vec![span.from, span.to], vec![span.from, middle, span.to]] {
            let chapter = |ends: &[peil_proto::time::UtcTime]| crate::contract::Chapter {
                span: crate::contract::span::Span::new(ends[0], ends[1]),
                terms: case.terms.clone(),
                service: case.service.clone(),
                checks: case.checks.clone(),
            };
            let chapters = cuts.windows(2).map(chapter).collect();
            let (month, exclusions) = (case.month, case.exclusions.clone());
            let bundle =
                Bundle::new("web", span.to, crate::contract::Dated { month, chapters, exclusions }, Vec::new());
            assert_eq!(of_bundle(&bundle, "other.json", &changes).expect("usable"), as_file);
            let zone = of_bundle(&bundle, "other.json", "{\"contract\": {\"timezone\": \"UTC\"}}");
            assert!(zone.expect_err("refused").mistakes[0].contains("another month"));
        }
    }

    #[test]
    fn a_change_of_nothing_and_a_contradiction_are_refused() {
        for nothing in ["{}", "{\"contract\": {}}", "{\"contract\": null}", "null", "[]", ""] {
            assert!(!refusals(&base().to_string(), nothing).is_empty(), "{nothing}");
        }
        let lines = refusals(&base().to_string(), "{\"contract\": {\"holidays\": {\"not\": [\"2026-04-03\"]}}}");
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(
            lines[0].starts_with("base.json changed by other.json: ") && lines[0].contains("under \"not\""),
            "{lines:#?}"
        );
    }
}
