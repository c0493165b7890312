//! E26 in full, and when a breach is certain.

use peil_proto::time::UtcTime;
use serde_json::{Value, json};

use super::super::forecast;
use super::super::input::read_case;
use super::{case, down, maintenance, office_hours};
use crate::contract::{self, evaluate_to_date};

#[test]
fn e26_burn_and_forecast_are_measured_in_service_time() {
    let used = json!([down("2026-04-10T10:00:00+02:00", "2026-04-10T10:45:00+02:00")]);
    let e26 = office_hours(case("2026-04", used), true);
    let at = |case: &Value, text| {
        let line = forecast::answer("case.json", &case.to_string(), UtcTime::parse(text).expect("a time"));
        serde_json::from_str::<Value>(&line.expect("usable")).expect("one JSON object")
    };
    let noon = at(&e26, "2026-04-15T12:00:00+02:00");
    for (key, expected) in [
        ("budget_ms", json!(4_320_000)),
        ("spent_ms", json!(2_700_000)),
        ("left_ms", json!(1_620_000)),
        ("elapsed_ms", json!(406_800_000)),
        ("ahead_ms", json!(457_200_000)),
        ("burn", json!("1.327433628")),
        // The reference rounds the exact 99.33628318584… to 99.336283186; here nothing is rounded up.
        ("projected", json!("99.336283185")),
        ("best", json!("99.687500000")),
        ("exhausted", json!("ahead")),
        ("exhausted_at", json!("2026-04-23T07:48:00+02:00")),
        ("breach_certain", json!(false)),
    ] {
        assert_eq!(noon[key], expected, "{key}: {noon}");
    }
    // 24 h of service reach back to Monday noon; the outage was on Friday.
    assert_eq!(noon["tiers"][2]["long"], json!({"window_ms": 86_400_000, "lost_ms": 0, "burn": "0.000000000"}));
    let friday = at(&e26, "2026-04-10T10:45:00+02:00");
    assert_eq!(
        friday["tiers"][0]["long"],
        json!({"window_ms": 1_200_000, "lost_ms": 1_200_000, "burn": "200.000000000"})
    );
    assert_eq!(
        friday["tiers"][2]["long"],
        json!({"window_ms": 86_400_000, "lost_ms": 2_700_000, "burn": "6.250000000"})
    );
    assert_eq!(
        friday["tiers"][2]["short"],
        json!({"window_ms": 7_200_000, "lost_ms": 2_700_000, "burn": "75.000000000"})
    );
    // The night is not service time: on Monday at 07:10 the last 20 minutes began on Friday at 18:50.
    let evening = json!([down("2026-04-10T18:50:00+02:00", "2026-04-13T07:00:00+02:00")]);
    let monday = at(&office_hours(case("2026-04", evening), true), "2026-04-13T07:10:00+02:00");
    assert_eq!(monday["tiers"][0]["long"]["lost_ms"], 600_000);

    let before = at(&e26, "2026-03-01T00:00:00Z");
    assert_eq!(
        (&before["burn"], &before["projected"], &before["best"]),
        (&Value::Null, &Value::Null, &json!("100.000000000"))
    );
    assert_eq!(before["exhausted"], "lasts");
    let over = json!([down("2026-04-10T10:00:00+02:00", "2026-04-10T12:00:00+02:00")]);
    let over = at(&office_hours(case("2026-04", over), true), "2026-04-15T12:00:00+02:00");
    assert_eq!((&over["exhausted"], &over["exhausted_at"]), (&json!("past"), &json!("2026-04-10T11:12:00+02:00")));
    assert_eq!(over["breach_certain"], true);
}

#[test]
fn a_breach_is_certain_only_beyond_the_largest_budget_the_month_can_have() {
    // 12 h of work is planned: with it 12744 s may be lost, and 12960 s if it is called off.
    let lost = |to| {
        maintenance(
            case("2026-04", json!([down("2026-04-10T10:00:00+02:00", to)])),
            &[("2026-04-20T00:00:00+02:00", "2026-04-20T12:00:00+02:00")],
        )
    };
    let at = |case: &Value, text: &str| {
        let case = read_case("case.json", &case.to_string()).expect("usable");
        let to_date = evaluate_to_date(&case, UtcTime::parse(text).expect("a time"));
        assert_eq!(
            contract::forecast(&case, UtcTime::parse(text).expect("a time")).breach_certain,
            to_date.breach_certain
        );
        (to_date.budget_left_ms.0, to_date.breach_certain)
    };
    let (before, after) = ("2026-04-15T00:00:00+02:00", "2026-04-21T00:00:00+02:00");
    let within_both = lost("2026-04-10T13:32:24+02:00");
    assert_eq!((at(&within_both, before), at(&within_both, after)), ((0, false), (0, false)));
    let between = lost("2026-04-10T13:32:24.001+02:00");
    assert_eq!((at(&between, before), at(&between, after)), ((-1, false), (-1, true)));
    let beyond = lost("2026-04-10T13:36:00.001+02:00");
    assert_eq!(at(&beyond, before), (-216_001, true));
}
