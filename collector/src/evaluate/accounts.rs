//! `--csv` and `--explain`: the whole text for one month in which every bucket and every reason occurs.

use serde_json::{Value, json};

use super::{Form, answer};

/// April in office hours, covered from Easter Monday: an outage half in the window, one half in maintenance,
/// an hour unknown, and exclusions of each fate.
fn april() -> String {
    let t = |day: &str, h: &str| format!("2026-04-{day}T{h}:00+02:00");
    let exclusion = |id: &str, kind: &str, from: String, to: String, announced: Value, approved: Value| json!({"id": id, "kind": kind, "from": from, "to": to, "announced_at": announced, "approved_by": approved});
    let (early, sdm) = (json!("2026-03-01T09:00:00+01:00"), json!("sdm@example.org"));
    json!({
        "month": "2026-04",
        "contract": {
            "timezone": "Europe/Amsterdam", "target": "99.5",
            "window": [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "07:00", "to": "19:00"}],
            "holidays": {"country": "nl", "good_friday": false, "liberation_day": "never", "also": [], "not": []},
            "coverage": {"from": t("06", "00:00"), "to": t("15", "00:00")},
            "maintenance": {"counts_as": "excluded", "notice_hours": 72, "monthly_cap_minutes": 240},
        },
        "service": {"all": ["web", "the \"big\" one"]},
        "checks": {
            "web": {"vantages": {"ams": {"otherwise": "up", "states": [
                {"from": t("08", "18:30"), "to": t("08", "20:00"), "state": "down"},
                {"from": t("09", "07:00"), "to": t("09", "12:00"), "state": "down"},
            ]}}},
            "the \"big\" one": {"vantages": {"ams": {"otherwise": "up", "states": [
                {"from": t("10", "10:00"), "to": t("10", "11:00"), "state": "unknown"}]}}},
        },
        "exclusions": [
            exclusion("CHG-1", "maintenance", t("09", "06:00"), t("09", "10:00"), early.clone(), sdm.clone()),
            exclusion("CHG-2", "maintenance", t("09", "10:00"), t("09", "11:30"), early.clone(), sdm.clone()),
            exclusion("CHG-3", "maintenance", t("13", "10:00"), t("13", "11:00"), json!(t("12", "10:00")), sdm.clone()),
            exclusion("CHG-4", "customer", t("14", "10:00"), t("14", "11:00"), Value::Null, Value::Null),
            exclusion("CHG-5", "dependency", t("09", "07:30"), t("09", "08:00"), Value::Null, sdm.clone()),
            exclusion("CHG-6", "dependency", t("11", "07:30"), t("11", "08:00"), Value::Null, sdm),
        ],
    })
    .to_string()
}

#[test]
fn the_account_of_a_month_can_be_followed_line_by_line() {
    let expected = include_str!("accounts/april.txt");
    let text = answer("april.json", &april(), Form::Explain).expect("usable");
    assert_eq!(text, expected, "{text}");
}

#[test]
fn the_table_of_a_month_has_every_instant_once() {
    let expected = include_str!("accounts/april.csv").replace('\n', "\r\n");
    let text = answer("april.json", &april(), Form::Csv).expect("usable");
    assert_eq!(text, expected, "{text}");
    let lengths = text.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split(',').collect();
        cells[4].parse::<i64>().expect("ms")
    });
    assert_eq!(lengths.sum::<i64>(), 2_592_000_000);
}

#[test]
fn what_counts_as_up_against_the_evidence_is_told_apart() {
    let mut case: Value = serde_json::from_str(&april()).expect("JSON");
    case["contract"]["denominator"] = json!("full_month");
    case["contract"]["maintenance"]["counts_as"] = json!("up");
    let text = answer("april.json", &case.to_string(), Form::Explain).expect("usable");
    for part in [
        "   604800000  168:00:00.000  not covered: the contract counts the full month",
        "    12600000    3:30:00.000  maintenance, which the contract counts as up",
        "     9000000 ms not: up, maintenance CHG-1",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_verdict_that_is_withheld_shows_all_three_comparisons() {
    let mut case: Value = serde_json::from_str(&april()).expect("JSON");
    case["contract"]["min_known"] = json!("99.9");
    case["contract"]["target"] = json!("97");
    let text = answer("april.json", &case.to_string(), Form::Explain).expect("usable");
    let verdict = text.split("The verdict").nth(1).expect("is there");
    for part in ["known time: ", "all unknown as down: ", "all unknown as up: ", "undetermined"] {
        assert!(verdict.contains(part), "{part:?} is not in\n{text}");
    }
    case["contract"]["coverage"] = json!({"to": "2026-03-01T00:00:00Z"});
    let text = answer("april.json", &case.to_string(), Form::Explain).expect("usable");
    assert!(text.contains("nothing to divide") && text.contains("no time was agreed: not_applicable"), "{text}");
}
