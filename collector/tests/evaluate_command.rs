//! `peil-collector sla evaluate` as a program: what it prints, where, and with which exit status.

use std::io::Write;
use std::process::{Command, Output, Stdio};

const CASE: &str = r#"{
  "month": "2026-04",
  "contract": {"timezone": "Europe/Amsterdam", "target": "99.5"},
  "service": "web",
  "checks": {"web": {"vantages": {"ams": {"states": [], "otherwise": "up"}}}}
}"#;

fn run(file: &str, stdin: &str) -> Output {
    run_with(&["evaluate", file], stdin)
}

fn run_with(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_peil-collector"))
        .arg("sla")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that refuses its file may be gone before it has read this.
    let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_file_and_standard_input_give_the_same_single_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("april.json");
    std::fs::write(&file, CASE).expect("written");
    let (from_file, from_stdin) = (run(&file.display().to_string(), ""), run("-", CASE));
    assert_eq!(from_file.status.code(), Some(0), "{from_file:?}");
    assert_eq!(from_file, from_stdin);
    let text = String::from_utf8(from_file.stdout).expect("text");
    assert!(text.starts_with("{\"month\":\"2026-04\",\"month_ms\":2592000000,") && text.ends_with("}\n"), "{text}");
    assert_eq!(text.lines().count(), 1);
    assert!(from_file.stderr.is_empty());
}

#[test]
fn unusable_input_exits_with_2_and_one_line_per_mistake() {
    let refused = run("-", &CASE.replace("target", "targt").replace("\"otherwise\": \"up\"", "\"otherwise\": 1"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stdout.is_empty());
    let text = String::from_utf8(refused.stderr).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains(r#"unknown key "contract.targt" at line 3 (did you mean "contract.target"?)"#), "{text}");
    assert!(lines[1].contains("checks.web.vantages.ams.otherwise must be a string"), "{text}");
}

/// A bundle of [`CASE`] and the report that was sealed on it.
fn bundle_and_report() -> (String, String) {
    use peil_collector::contract::Dated;
    use peil_collector::contract::sealing::{Edition, Seal};
    use peil_collector::evaluate::{bundle::Bundle, input::read_case, sealed};
    let dated = Dated::from(read_case("april", CASE).expect("usable"));
    let at = dated.chapters[0].span.to;
    let bundle = Bundle::new("portal", at, dated, Vec::new());
    let findings = sealed::Findings::of(&bundle, None);
    let seal = Seal::Person("anna".to_owned());
    let edition = Edition { version: 1, at, seal, correction: None, inputs: findings.inputs.digest() };
    (bundle.to_text(), sealed::document(&bundle, &findings, &edition, None, None))
}

#[test]
fn a_report_is_verified_with_nothing_but_two_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, report) = (dir.path().join("data.json"), dir.path().join("report.json"));
    let (bundle, sealed) = bundle_and_report();
    std::fs::write(&data, &bundle).expect("written");
    let verify = |text: &str| {
        std::fs::write(&report, text).expect("written");
        run_with(&["verify", &report.display().to_string(), "--data", &data.display().to_string()], "")
    };
    let equal = verify(&sealed);
    assert_eq!(equal.status.code(), Some(0), "{equal:?}");
    assert_eq!(
        String::from_utf8_lossy(&equal.stdout),
        "equal: \"portal\" 2026-04, edition 1, is what these data give\n"
    );
    let forged = verify(&sealed.replace("\"up_ms\":2592000000", "\"up_ms\":2592000001"));
    assert_eq!(forged.status.code(), Some(3), "{forged:?}");
    let text = String::from_utf8_lossy(&forged.stdout).into_owned();
    assert_eq!(text, "differs: figure.up_ms: the report says 2592000001, the data give 2592000000\n");
    assert_eq!(verify("{}").status.code(), Some(2));
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_unusable_input() {
    let missing = run("no-such-file.json", "");
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8(missing.stderr).expect("text").starts_with("no-such-file.json: cannot be read"));
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("image.json");
    std::fs::write(&file, [0xff, 0xd8, 0xff]).expect("written");
    assert_eq!(run(&file.display().to_string(), "").status.code(), Some(2));
}

#[test]
fn the_table_and_the_account_are_asked_for_by_name_and_not_together() {
    let csv = run_with(&["evaluate", "-", "--csv"], CASE);
    assert_eq!(csv.status.code(), Some(0), "{csv:?}");
    assert_eq!(
        String::from_utf8(csv.stdout).expect("text"),
        "from,to,from_utc,to_utc,ms,bucket,cause\r\n2026-04-01T00:00:00+02:00,2026-05-01T00:00:00+02:00,\
         2026-03-31T22:00:00Z,2026-04-30T22:00:00Z,2592000000,up,\r\n"
    );
    let account = run_with(&["evaluate", "--explain", "-"], CASE);
    assert_eq!(account.status.code(), Some(0), "{account:?}");
    let text = String::from_utf8(account.stdout).expect("text");
    assert!(text.contains("(2592000000 - 0) x 100000000 / 2592000000\n  = 100000000 remainder 0\n"), "{text}");
    assert_eq!(run_with(&["evaluate", "-", "--csv", "--explain"], CASE).status.code(), Some(2));
    assert_eq!(run_with(&["evaluate", "-", "--csv"], "{}").status.code(), Some(2));
}

#[test]
fn a_forecast_looks_from_the_moment_it_is_given() {
    let args = ["forecast", "-", "--at", "2026-04-15T12:00:00+02:00"];
    let forecast = run_with(&args, CASE);
    assert_eq!(forecast.status.code(), Some(0), "{forecast:?}");
    let text = String::from_utf8(forecast.stdout).expect("text");
    let start =
        r#"{"month":"2026-04","at":"2026-04-15T12:00:00+02:00","budget_ms":12960000,"spent_ms":0,"left_ms":12960000,"#;
    assert!(text.starts_with(start) && text.ends_with("\"breach_certain\":false}\n"), "{text}");
    assert_eq!(run_with(&["forecast", "-"], CASE).status.code(), Some(2));
    assert_eq!(run_with(&["forecast", "-", "--at", "noon"], CASE).status.code(), Some(2));
}

#[test]
fn a_change_is_compared_with_the_case_and_mistakes_of_both_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("other.json");
    let other = file.display().to_string();
    std::fs::write(&file, r#"{"contract": {"target": "100"}}"#).expect("written");
    let compared = run_with(&["evaluate", "-", "--what-if", &other], CASE);
    assert_eq!(compared.status.code(), Some(0), "{compared:?}");
    let text = String::from_utf8(compared.stdout).expect("text");
    assert!(text.starts_with("{\"base\":{\"month\":\"2026-04\",") && text.lines().count() == 1, "{text}");
    assert!(text.contains("\"budget_ms\":-12960000,\"budget_left_ms\":-12960000,\"verdict\":null}}"), "{text}");

    std::fs::write(&file, "{\n\"contracts\": {}}").expect("written");
    let refused = run_with(&["evaluate", "-", "--what-if", &other], &CASE.replace("target", "targt"));
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0));
    let text = String::from_utf8(refused.stderr).expect("text");
    assert!(text.contains("unknown key \"contract.targt\" at line 3"), "{text}");
    assert!(text.contains("unknown key \"contracts\" at line 2 (did you mean \"contract\"?)"), "{text}");

    for args in [["-", "--csv"], [other.as_str(), "--explain"]] {
        let both = run_with(&["evaluate", args[0], args[1], "--what-if", &other], CASE);
        assert_eq!(both.status.code(), Some(2), "{args:?}");
    }
    let twice = run_with(&["evaluate", "-", "--what-if", "-"], CASE);
    assert_eq!(twice.status.code(), Some(2));
    assert!(String::from_utf8(twice.stderr).expect("text").contains("can be read only once"));
}
