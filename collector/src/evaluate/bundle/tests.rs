//! A month that leaves the house in a file gives the same figure, and whoever changes the file is found out.

use peil_proto::sample::State;
use peil_proto::units::Millis;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::contract::sealing::{Edition, Seal};
use crate::contract::terms::Terms;
use crate::contract::{Case, any_case, evaluate};
use crate::evaluate::mistake_lines;
use crate::evaluate::sealed::{Findings, document};
use crate::evaluate::verify::answer;

/// `case` with a change of the target at `cut`.
fn bundle(case: Case, cut: Option<UtcTime>) -> Bundle {
    let mut dated = Dated::from(case);
    let whole = dated.chapters[0].span;
    if let Some(cut) = cut.filter(|cut| whole.from < *cut && *cut < whole.to) {
        let mut second = dated.chapters[0].clone();
        dated.chapters[0].span.to = cut;
        second.span.from = cut;
        second.terms.target = Terms::default().target;
        dated.chapters.push(second);
    }
    let note = VersionNote {
        object: "contract office-hours".to_owned(),
        valid_from: None,
        recorded_at: Some(whole.from),
        author: "anna".to_owned(),
        reason: "agreed".to_owned(),
    };
    Bundle::new("portal", whole.to, dated, vec![note])
}

fn sealed(bundle: &Bundle) -> String {
    let findings = Findings::of(bundle, Some(Millis(40)));
    let inputs = findings.inputs.digest();
    let edition = Edition { version: 1, at: bundle.known_at, seal: Seal::AgreedDay, correction: None, inputs };
    document(bundle, &findings, &edition, None, None)
}

fn verify(report: &str, data: &str) -> (String, bool) {
    answer(("report.json", report), ("bundle.json", data)).expect("usable")
}

fn some_bundle() -> impl Strategy<Value = Bundle> {
    (any_case(), any::<bool>()).prop_map(|((case, now), cut)| bundle(case, cut.then_some(now)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_bundle_gives_the_figure_and_the_digests_of_the_month_it_was_made_of(bundle in some_bundle()) {
        let read = Bundle::read("bundle.json", &bundle.to_text()).expect("usable");
        prop_assert_eq!(evaluate(&read.dated), evaluate(&bundle.dated));
        prop_assert_eq!(read.inputs(), bundle.inputs());
        prop_assert_eq!(read.to_text(), bundle.to_text());
        let (text, equal) = verify(&sealed(&bundle), &read.to_text());
        prop_assert!(equal, "{text}");
    }

    #[test]
    fn evidence_that_was_changed_after_the_seal_is_found(bundle in some_bundle(), place in any::<prop::sample::Index>()) {
        let report = sealed(&bundle);
        let mut changed: Value = serde_json::from_str(&bundle.to_text()).expect("JSON");
        let mut places = Vec::new();
        states(&changed, "", &mut places);
        prop_assume!(!places.is_empty());
        let state = changed.pointer_mut(&places[place.index(places.len())]).expect("found");
        *state = Value::from(if *state == "up" { "down" } else { "up" });
        let (text, equal) = verify(&report, &changed.to_string());
        // A sample that says what its neighbours say is not in the smallest form: swapping it can restore another.
        let same = Bundle::read("x", &changed.to_string()).expect("usable").inputs() == bundle.inputs();
        prop_assert_eq!(equal, same, "{}", text);
        prop_assert!(same || text.contains("differs: inputs.evidence"), "{text}");
    }
}

/// Where the states of samples stand, as JSON pointers.
fn states(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        // Two days of a window are a pair of words, too.
        Value::Array(pair) if pair.len() == 2 && ["up", "down", "unknown"].map(Value::from).contains(&pair[1]) => {
            found.push(format!("{at}/1"));
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, item)| states(item, &format!("{at}/{i}"), found));
        }
        Value::Object(table) => table.iter().for_each(|(key, item)| {
            let key = key.replace('~', "~0").replace('/', "~1");
            states(item, &format!("{at}/{key}"), found);
        }),
        _ => {}
    }
}

/// April around the clock with one outage of an hour.
fn april() -> Bundle {
    let text = r#"{"month": "2026-04", "contract": {}, "service": "web", "checks": {"web": {"vantages": {"ams": {"otherwise": "up",
        "states": [{"from": "2026-04-10T10:00:00Z", "to": "2026-04-10T11:00:00Z", "state": "down"}]}}}}}"#;
    bundle(crate::evaluate::input::read_case("april", text).expect("usable"), None)
}

#[test]
fn every_chapter_is_a_file_that_sla_evaluate_takes() {
    let value: Value = serde_json::from_str(&april().to_text()).expect("JSON");
    let line = crate::evaluate::evaluate_text("chapter", &value["chapters"][0]["case"].to_string()).expect("usable");
    let figure: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&figure["down_ms"], &figure["month_ms"]), (&Value::from(3_600_000), &Value::from(2_592_000_000_i64)));
}

#[test]
fn a_report_with_another_number_or_another_agreement_is_told_where_it_differs() {
    let (bundle, report) = (april(), sealed(&april()));
    assert!(verify(&report, &bundle.to_text()).0.starts_with("equal: \"portal\" 2026-04, edition 1"));
    let forged = report.replace("\"down_ms\":3600000", "\"down_ms\":0");
    assert_ne!(forged, report);
    let (text, equal) = verify(&forged, &bundle.to_text());
    assert!(!equal && text.contains("differs: figure.down_ms: the report says 0, the data give 3600000"), "{text}");
    let mut other = april();
    other.dated.chapters[0].terms.target = crate::contract::percent::Percent::parse("99.9").expect("a percentage");
    let (text, _) = verify(&report, &other.to_text());
    assert!(text.contains("differs: inputs.agreement") && text.contains("figure.budget_ms"), "{text}");
    assert!(!text.contains("inputs.evidence"), "{text}");
}

#[test]
fn other_zones_are_noted_and_are_another_input() {
    let mut bundle = april();
    let report = sealed(&bundle);
    bundle.tzdata = "1999z".to_owned();
    let (text, equal) = verify(&report, &bundle.to_text());
    assert!(!equal && text.starts_with("note: the data were cut by the zones of 1999z"), "{text}");
}

#[test]
fn a_bundle_with_a_hole_and_a_report_that_is_none_are_refused_together() {
    let mut short: Value = serde_json::from_str(&april().to_text()).expect("JSON");
    short["chapters"][0]["to"] = Value::from("2026-04-29T22:00:00Z");
    let bundle = short.to_string();
    let refused = answer(("report.json", "{}"), ("bundle.json", &bundle)).expect_err("unusable");
    let lines: Vec<String> = refused.iter().flat_map(mistake_lines).collect();
    assert!(
        lines.iter().any(|line| line.starts_with("report.json: ") && line.contains("is it a report?")),
        "{lines:#?}"
    );
    assert!(lines.iter().any(|line| line.contains("the last one must end with the month")), "{lines:#?}");
    for text in ["", "null", "{}", "[1]", "{\"bundle\": 2}"] {
        assert!(Bundle::read("x", text).is_err(), "{text}");
    }
}

#[test]
fn samples_far_from_the_month_are_left_out_of_its_bundle() {
    let sample = |day: i64, state| (UtcTime(april().span().from.0 + day * Millis::DAY.0), state);
    let mut with_past = april();
    let samples = vec![sample(-20, State::Down), sample(-10, State::Up), sample(-1, State::Up), sample(1, State::Up)];
    let check = with_past.dated.chapters[0].checks.get_mut("web").expect("the check");
    check.vantages.insert("ams".to_owned(), crate::contract::Evidence::Samples(samples));
    let text = with_past.to_text();
    assert!(text.contains("2026-03-30T22:00:00Z") && !text.contains("2026-03-11T"), "{text}");
}
