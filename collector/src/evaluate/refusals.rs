//! What bad input gets: every mistake at once, each with its place and a remedy, and never a panic.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{evaluate_text, mistake_lines};

fn good() -> Value {
    json!({
        "month": "2026-04",
        "contract": {
            "timezone": "Europe/Amsterdam", "target": "99.5",
            "window": [{"days": ["mon"], "from": "08:00", "to": "18:00"}],
            "holidays": {"country": "nl", "good_friday": true, "liberation_day": "lustrum", "also": ["2026-12-24"], "not": []},
            "coverage": {"from": "2026-04-01T00:00:00+02:00", "to": null},
            "denominator": "covered", "unknown": "down",
            "maintenance": {"counts_as": "excluded", "notice_hours": 0, "monthly_cap_minutes": null},
            "confirm": 1, "outage_starts": "first_failure", "min_known": "0"
        },
        "service": {"all": ["web", {"at_least": 1, "of": ["web", "unused"]}]},
        "checks": {
            "web": {"interval_s": 60, "timeout_s": 10, "quorum": 1, "vantages": {
                "ams": {"states": [{"from": "2026-04-10T10:00:00Z", "to": "2026-04-10T11:00:00Z", "state": "down"},
                                   {"from": "2026-04-10T11:00:00Z", "to": "2026-04-10T12:00:00Z", "state": "unknown"}], "otherwise": "up"}}},
            "unused": {"vantages": {"ams": {"samples": [["2026-04-10T10:00:00Z", "up"]]}}}
        },
        "exclusions": [{"id": "CHG-7", "kind": "maintenance", "from": "2026-04-12T00:00:00+02:00",
                        "to": "2026-04-12T04:00:00+02:00", "announced_at": null, "approved_by": "sdm@example.org"}]
    })
}

/// `good()` with the value at `pointer` replaced, or removed when `value` is absent.
fn but(pointer: &str, value: Option<Value>) -> String {
    let mut case = good();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = case.pointer_mut(parent).expect("the parent exists");
    match (parent, value) {
        (Value::Object(table), Some(value)) => drop(table.insert(key.to_owned(), value)),
        (Value::Object(table), None) => drop(table.remove(key)),
        (Value::Array(list), Some(value)) => list[key.parse::<usize>().expect("an index")] = value,
        (other, _) => panic!("{pointer} leads into {other}"),
    }
    case.to_string()
}

fn refusal(text: &str) -> Vec<String> {
    match evaluate_text("case.json", text) {
        Ok(line) => panic!("not refused: {line}"),
        Err(refused) => mistake_lines(&refused).collect(),
    }
}

#[test]
fn each_mistake_is_refused_with_its_place() {
    assert!(evaluate_text("case.json", &good().to_string()).is_ok());
    let long_ago = json!("2026-04-09T00:00:00Z");
    let table = [
        ("/month", json!("2026-13"), "month is \"2026-13\""),
        ("/month", json!(202_604), "month must be a string"),
        ("/contract/timezone", json!("Europe/Amsterdm"), "contract.timezone is \"Europe/Amsterdm\""),
        ("/contract/target", json!("99,5"), "contract.target is \"99,5\""),
        ("/contract/target", json!("100.1"), "must lie between 0 and 100"),
        ("/contract/target", json!("99.1234567"), "more than 6 decimals"),
        ("/contract/target", json!(99.5), "contract.target must be a string such as \"99.5\""),
        (
            "/contract/windw",
            json!("always"),
            "unknown key \"contract.windw\" at line 1 (did you mean \"contract.window\"?)",
        ),
        ("/contract/window", json!("allways"), "must be \"always\" or a list"),
        ("/contract/window", json!(7), "must be \"always\" or a list"),
        ("/contract/window", json!([]), "contract.window is an empty list"),
        ("/contract/window/0/days", json!([]), "contract.window[0].days names no day"),
        ("/contract/window/0/days", json!(["mo"]), "contract.window[0].days[0] is \"mo\""),
        ("/contract/window/0/from", json!("24:00"), "contract.window[0].from is \"24:00\""),
        ("/contract/window/0/to", json!("24:01"), "contract.window[0].to is \"24:01\""),
        ("/contract/window/0/to", json!("8:00"), "contract.window[0].to is \"8:00\""),
        ("/contract/holidays/country", json!("be"), "contract.holidays.country is \"be\""),
        ("/contract/holidays/also", json!(["2026-02-30"]), "contract.holidays.also[0] is \"2026-02-30\""),
        ("/contract/holidays/not", json!(["2026-12-24"]), "under \"also\" and under \"not\""),
        ("/contract/coverage/to", json!("2026-03-01T00:00:00Z"), "contract.coverage ends before it begins"),
        ("/contract/coverage/to", json!("2026-05-01"), "contract.coverage.to cannot be read"),
        ("/contract/confirm", json!(0), "contract.confirm is 0"),
        ("/contract/confirm", json!(61), "contract.confirm is 61"),
        ("/contract/confirm", json!(1.5), "contract.confirm must be a whole number"),
        ("/contract/unknown", json!("ignore"), "contract.unknown is \"ignore\""),
        ("/contract/maintenance/notice_hours", json!(-1), "contract.maintenance.notice_hours is -1"),
        ("/service", json!("wbe"), "service names the check \"wbe\", which is not defined"),
        ("/service", json!({"all": []}), "service has an empty list"),
        ("/service", json!({"any": []}), "service has an empty list"),
        ("/service", json!({"at_least": 0, "of": ["web"]}), "service.at_least is 0"),
        ("/service", json!({"at_least": 2, "of": ["web"]}), "service.at_least is 2"),
        ("/service", json!({"of": ["web"]}), "exactly one of"),
        ("/service", json!({"all": ["web"], "any": ["web"]}), "exactly one of"),
        ("/service", json!(["web"]), "must be a check's name"),
        ("/service", json!({"none": ["web"]}), "unknown key \"service.none\""),
        ("/checks/web/quorum", json!(2), "checks.web.quorum is 2, more than the 1 vantages"),
        ("/checks/web/quorum", json!(0), "checks.web.quorum is 0"),
        ("/checks/web/interval_s", json!(0), "checks.web.interval_s is 0"),
        ("/checks/web/vantages", json!({}), "checks.web has no vantages"),
        ("/checks/web/vantages/ams", json!({}), "must have either \"states\" with \"otherwise\", or \"samples\""),
        ("/checks/web/vantages/ams/samples", json!([]), "must have either"),
        ("/checks/web/vantages/ams/otherwise", json!("ok"), "checks.web.vantages.ams.otherwise is \"ok\""),
        ("/checks/web/vantages/ams/states/1/from", long_ago, "before the one above it ends"),
        ("/checks/web/vantages/ams/states/0/to", json!("2026-04-10T10:00:00Z"), "must end later"),
        ("/checks/unused/vantages/ams/samples/0", json!(["2026-04-10T10:00:00Z"]), "must be a pair"),
        ("/checks/unused/vantages/ams/samples/0", json!(["2026-04-31T10:00:00Z", "up"]), "cannot be read"),
        ("/exclusions/0/to", json!("2026-04-11T00:00:00Z"), "must end later"),
        ("/exclusions/0/kind", json!("holiday"), "exclusions[0].kind is \"holiday\""),
        ("/exclusions/0/approved", json!("x"), "unknown key \"exclusions[0].approved\""),
    ];
    for (pointer, value, expected) in table {
        let lines = refusal(&but(pointer, Some(value.clone())));
        assert!(lines.iter().any(|line| line.contains(expected)), "{pointer} = {value}: {lines:#?}");
        assert!(lines.iter().all(|line| line.contains(" at line 1")), "{pointer} = {value}: {lines:#?}");
    }
}

#[test]
fn required_keys_are_asked_for_by_name() {
    for pointer in [
        "/month",
        "/contract",
        "/service",
        "/checks",
        "/checks/web/vantages",
        "/contract/window/0/from",
        "/exclusions/0/id",
        "/checks/web/vantages/ams/states/0/state",
    ] {
        let key = pointer.rsplit('/').next().expect("a key");
        let lines = refusal(&but(pointer, None));
        assert!(lines.iter().any(|l| l.contains("missing key") && l.contains(key)), "{pointer}: {lines:#?}");
    }
}

#[test]
fn all_mistakes_come_at_once_one_line_each_in_order() {
    let text = "{\"month\": \"2026-00\",\n\"contract\": {\"target\": \"x\",\n\"windw\": 1},\n\"service\": \"no\\nne\",\n\"checks\": {}}";
    let lines = refusal(text);
    assert_eq!(lines.len(), 4, "{lines:#?}");
    for (line, (number, part)) in lines.iter().zip([(1, "month"), (2, "target"), (3, "windw"), (4, "service")]) {
        assert!(line.contains(part) && line.contains(&format!("at line {number}")), "{line}");
        assert!(line.starts_with("case.json: ") && !line.contains('\n'), "{line}");
    }
}

#[test]
fn an_expression_that_is_too_deep_is_refused() {
    let nest = |levels: usize| (0..levels).fold(json!("web"), |inner, _| json!({"all": [inner]}));
    assert!(evaluate_text("x", &but("/service", Some(nest(32)))).is_ok());
    assert!(refusal(&but("/service", Some(nest(33))))[0].contains("deeper than 32 levels"));
    let brackets = format!("{{\"service\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(refusal(&brackets)[0].contains("nesting depth"), "{:?}", refusal(&brackets));
}

#[test]
fn text_that_is_no_json_is_refused() {
    for text in ["", " ", "null", "[]", "{", "{}", "{\"month\": \"2026-04\",}", "// x\n{}", "month = 1", "\u{0}"] {
        assert!(!refusal(text).is_empty(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_input_makes_it_panic(at in 0_usize..2_000, cut in 0_usize..40, put in "[\\[\\]{}:,\"0-9a-z.+-]{0,6}") {
        let text = good().to_string();
        let at = at.min(text.len());
        let broken = format!("{}{}{}", &text[..at], put, &text[(at + cut).min(text.len())..]);
        let _ = evaluate_text("case.json", &broken);
    }
}
