//! Whatever is done to a case, the evaluator answers or refuses: it never panics, and what it answers adds
//! up. Cases are changed as trees (values swapped, repeated, removed, replaced by ones that are good
//! elsewhere) so that many stay usable, and then as text, so that many do not. `PEIL_LONG=1` for a long night.

use peil_proto::time::UtcTime;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::{Form, answer, forecast, mistake_lines, whatif};

/// A valid case with every key of the format.
fn case() -> Value {
    json!({
        "month": "2026-03",
        "contract": {
            "timezone": "Europe/Amsterdam", "target": "99.5",
            "window": [{"days": ["mon", "tue", "sun"], "from": "22:00", "to": "06:00"}, {"days": ["sat"], "from": "00:00", "to": "24:00"}],
            "holidays": {"country": "nl", "good_friday": true, "liberation_day": "lustrum", "also": ["2026-03-24"], "not": ["2026-04-27"]},
            "coverage": {"from": "2026-03-02T00:00:00+01:00", "to": null},
            "denominator": "covered", "unknown": "down",
            "maintenance": {"counts_as": "excluded", "notice_hours": 24, "monthly_cap_minutes": 90},
            "confirm": 2, "outage_starts": "first_failure", "min_known": "50"
        },
        "service": {"all": ["web", {"any": ["db", {"at_least": 1, "of": ["web", "db"]}]}]},
        "checks": {
            "web": {"interval_s": 60, "timeout_s": 10, "quorum": 1, "vantages": {
                "ams": {"states": [{"from": "2026-03-10T00:00:00Z", "to": "2026-03-14T11:00:00Z", "state": "down"},
                                   {"from": "2026-03-14T11:00:00Z", "to": "2026-03-15T12:00:00Z", "state": "unknown"}], "otherwise": "up"},
                "rtm": {"states": [], "otherwise": "down"}}},
            "db": {"vantages": {"ams": {"samples": [["2026-03-29T00:10:00Z", "up"], ["2026-03-29T00:11:00Z", "down"],
                ["2026-03-29T00:12:00Z", "down"], ["2026-03-29T00:13:00Z", "unknown"], ["2026-03-29T01:13:00Z", "up"]]}}}
        },
        "exclusions": [
            {"id": "CHG-7", "kind": "maintenance", "from": "2026-03-14T00:00:00+01:00", "to": "2026-03-14T04:00:00+01:00",
             "announced_at": "2026-03-01T00:00:00Z", "approved_by": "sdm@example.org"},
            {"id": "=1,\"2\"\n", "kind": "customer", "from": "2026-03-10T00:00:00Z", "to": "2026-03-16T00:00:00Z",
             "announced_at": null, "approved_by": "sdm@example.org"}]
    })
}

/// Values that are good somewhere, at an end, or nowhere.
fn value() -> impl Strategy<Value = Value> {
    let texts = vec![
        "",
        "always",
        "web",
        "db",
        "up",
        "down",
        "unknown",
        "excluded",
        "full_month",
        "confirmation",
        "0",
        "100",
        "99.999999",
        "00:00",
        "24:00",
        "02:30",
        "1970-01",
        "2999-12",
        "2011-12",
        "2009-11",
        "UTC",
        "Pacific/Apia",
        "America/St_Johns",
        "Australia/Lord_Howe",
        "0000-01-01T00:00:00Z",
        "9999-12-30T22:00:00Z",
        "2026-03-29T02:30:00+01:00",
        "2026-03-14T02:00:00.001+01:00",
        "1970-01-01T00:00:00Z",
        "maintenance",
        "2026-02-29",
        "2026-03-14",
        "\u{0}",
        "=cmd",
        "a\r\nb",
        "\u{202e}",
        "mon",
    ];
    let numbers = vec![0, 1, -1, 2, 60, 604_800, 100_000, i64::MAX, i64::MIN];
    prop_oneof![
        8 => prop::sample::select(texts).prop_map(|text| json!(text)),
        3 => prop::sample::select(numbers).prop_map(|number| json!(number)),
        1 => prop::sample::select(vec![json!(null), json!(true), json!([]), json!({}), json!(0.5), json!(1e300)]),
    ]
}

/// One change of the value that `at` points to.
#[derive(Debug, Clone)]
enum Change {
    Replace(Index, Value),
    Remove(Index),
    Repeat(Index),
    CopyTo(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<Index>(), value()).prop_map(|(at, value)| Change::Replace(at, value)),
        2 => any::<Index>().prop_map(Change::Remove),
        1 => any::<Index>().prop_map(Change::Repeat),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::CopyTo(from, to)),
    ]
}

/// Every place in a tree as a JSON pointer, apart from its root.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(table) => table.iter().map(|(key, value)| (format!("{at}/{key}"), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(i, value)| (format!("{at}/{i}"), value)).collect(),
        _ => Vec::new(),
    };
    for (place, child) in children {
        places(child, &place, found);
        found.push(place);
    }
}

fn changed(mut case: Value, changes: &[Change]) -> Value {
    for change in changes {
        let mut found = Vec::new();
        places(&case, "", &mut found);
        if found.is_empty() {
            break;
        }
        let place = |index: &Index| found[index.index(found.len())].as_str();
        match change {
            Change::Replace(at, value) => *case.pointer_mut(place(at)).expect("found") = value.clone(),
            Change::CopyTo(from, to) => {
                let copy = case.pointer(place(from)).expect("found").clone();
                *case.pointer_mut(place(to)).expect("found") = copy;
            }
            Change::Remove(at) | Change::Repeat(at) => {
                let (parent, key) = place(at).rsplit_once('/').expect("a pointer");
                match (case.pointer_mut(parent).expect("found"), change) {
                    (Value::Array(list), Change::Repeat(_)) => {
                        let index: usize = key.parse().expect("an index");
                        list.push(list[index].clone());
                    }
                    (Value::Array(list), _) => drop(list.remove(key.parse().expect("an index"))),
                    (Value::Object(table), Change::Remove(_)) => drop(table.remove(key)),
                    _ => {}
                }
            }
        }
    }
    case
}

/// Asks everything about `text`; what is answered must add up. True when it was usable.
fn ask_everything(text: &str, changes: &str) -> bool {
    let at = UtcTime::parse("2026-03-29T01:00:00Z").expect("a time");
    let _ = forecast::answer("case.json", text, at);
    let _ = whatif::answer("case.json", text, "other.json", changes);
    let forms = [Form::Json, Form::Csv, Form::Explain].map(|form| answer("case.json", text, form));
    let [Ok(json), Ok(csv), Ok(explained)] = forms else {
        for refused in forms.into_iter().map(|answer| answer.expect_err("refused in every form")) {
            assert!(mistake_lines(&refused).all(|line| !line.contains(char::is_control)), "{refused}");
            assert!(!refused.mistakes.is_empty());
        }
        return false;
    };
    let figure: Value = serde_json::from_str(&json).expect("one JSON object");
    let mut month_ms = 0;
    for line in csv.strip_suffix("\r\n").expect("ends a line").split("\r\n").skip(1) {
        assert!(!line.contains(char::is_control), "{line:?}");
        month_ms += line.split(',').nth(4).and_then(|ms| ms.parse::<i64>().ok()).expect("ms");
    }
    assert_eq!(json!(month_ms), figure["month_ms"], "{csv}");
    assert!(explained.contains("The budget\n") && !explained.contains(|c: char| c.is_control() && c != '\n'));
    true
}

fn runs(normal: u32) -> Config {
    let long = std::env::var_os("PEIL_LONG").is_some_and(|value| value == "1");
    Config { cases: if long { normal * 100 } else { normal }, failure_persistence: None, ..Config::default() }
}

#[test]
fn a_case_changed_anywhere_is_answered_or_refused() {
    assert!(ask_everything(&case().to_string(), &json!({"contract": case()["contract"]}).to_string()));
    let usable = std::cell::Cell::new(0);
    TestRunner::new(runs(400))
        .run(&prop::collection::vec(change(), 1..4), |changes| {
            let text = changed(case(), &changes).to_string();
            usable.set(usable.get() + u32::from(ask_everything(&text, &text)));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(usable.get() > 20, "of the changed cases only {} were usable: this test asks too little", usable.get());
}

#[test]
fn text_changed_anywhere_is_answered_or_refused() {
    let text = case().to_string();
    let places = 0..text.len();
    let piece = prop_oneof!["[\\[\\]{}:,\"0-9a-z.+-]{0,6}", "\\PC{0,3}", "[\\x00-\\x1f]{1,2}"];
    TestRunner::new(runs(400))
        .run(&(places, 0_usize..40, piece), |(at, cut, put)| {
            let broken = format!("{}{put}{}", &text[..at], &text[(at + cut).min(text.len())..]);
            ask_everything(&broken, &broken);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn nesting_without_end_is_refused_wherever_it_stands() {
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(200_000), close.repeat(200_000));
    for nest in [deep("[", "]"), deep("{\"all\":[", "]}"), deep("{\"contract\":", "}")] {
        for key in ["month", "contract", "service", "checks", "exclusions"] {
            let text = case().to_string().replacen(&format!("\"{key}\":"), &format!("\"{key}\":{nest},\"x\":"), 1);
            assert!(!ask_everything(&text, &text));
            assert!(!ask_everything(&nest, &nest));
            let cut = &text[..text.len() / 2];
            assert!(!ask_everything(cut, cut));
        }
    }
}
