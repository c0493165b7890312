//! What was applied takes effect from its date, and what makes no sense is refused whole.

use super::*;
use crate::store::objects::ObjectVersion;

fn settings(text: &str) -> Config {
    Config::parse("collector.toml", text).expect("valid settings")
}

fn read(text: &str) -> Result<Vec<Written>, Vec<Refused>> {
    read_files(&[("a.toml".to_owned(), text.to_owned())])
}

/// The tables of `text`, written down at `recorded_at` and in force from then or from their own date.
fn applied(text: &str, recorded_at: i64) -> Vec<ObjectVersion> {
    let version = |written: Written| ObjectVersion {
        kind: written.kind.word().to_owned(),
        name: written.name,
        valid_from: written.from.unwrap_or(UtcTime(recorded_at)),
        recorded_at: UtcTime(recorded_at),
        author: "anna".to_owned(),
        reason: written.reason,
        body: written.body,
    };
    read(text).expect("readable").into_iter().map(version).collect()
}

const FIRST: &str = r#"
[[contract]]
name = "office"
target = "99.5"
[[check]]
name = "web"
kind = "tcp"
address = "localhost:80"
interval_s = 60
[[service]]
name = "portal"
contract = "office"
expression = "web"
"#;

#[test]
fn a_version_takes_effect_from_its_date_and_the_old_one_keeps_its_time() {
    let mut rows = applied(FIRST, 1_000);
    rows.extend(applied(&FIRST.replace("99.5", "99.9").replace("interval_s = 60", "interval_s = 15"), 2_000));
    let agreement = Agreement::new(&settings(""), &rows).expect("makes sense");
    let target = |at| agreement.service_at("portal", UtcTime(at)).map(|service| service.target);
    assert_eq!(
        [999, 1_000, 1_999, 2_000].map(target),
        [None, Some("99.5".into()), Some("99.5".into()), Some("99.9".into())]
    );
    let interval = |at| agreement.checks_at(UtcTime(at)).get("web").map(|check| check.def.interval_ms);
    assert_eq!([999, 1_999, 2_000].map(interval), [None, Some(60_000), Some(15_000)]);
    let folded = agreement.checks_to_fold(&BTreeMap::from([("web".to_owned(), CheckNo(7))]));
    assert_eq!(folded[&CheckNo(7)].interval_ms, 15_000, "under the shortest hold");

    let month = Span::new(UtcTime(1_500), UtcTime(9_000));
    let notes = agreement.versions_in("portal", month, UtcTime(9_000));
    let told: Vec<_> = notes.iter().map(|note| (note.object.as_str(), note.valid_from.map(|at| at.0))).collect();
    let both = |object| [(object, Some(1_000)), (object, Some(2_000))];
    assert_eq!(told, [both("contract office"), both("service portal"), both("check web")].concat());
}

#[test]
fn applied_objects_may_name_those_of_the_settings() {
    let service = "[[service]]\nname = \"shop\"\ncontract = \"office\"\nexpression = \"web\"";
    let agreement = Agreement::new(&settings(FIRST), &applied(service, 5)).expect("makes sense");
    assert_eq!(agreement.service_names().collect::<Vec<_>>(), ["portal", "shop"]);
}

#[test]
fn what_makes_no_sense_together_is_refused_together() {
    let mut rows = applied(FIRST, 1_000);
    rows.extend(applied(&FIRST.replace("target = \"99.5\"", "timezone = \"UTC\""), 2_000));
    rows.extend(applied("[[service]]\nname = \"x\"\ncontract = \"none\"\nexpression = \"wbe\"", 1_000));
    rows.extend(applied("[[service]]\nname = \"y\"\ncontract = \"none\"\nexpression = \"web\"", 1_000));
    let refused = Agreement::new(&settings(""), &rows).expect_err("refused").mistakes;
    for part in [
        "the contract \"office\" changes its timezone",
        "names the check \"wbe\", which is not defined",
        "the service \"y\" is under the contract \"none\", which does not exist",
    ] {
        assert!(refused.iter().any(|mistake| mistake.contains(part)), "{part}: {refused:#?}");
    }
    let twice = Agreement::new(&settings(FIRST), &applied(FIRST, 5)).expect_err("refused").mistakes;
    assert_eq!(twice.len(), 3, "{twice:#?}");
    assert!(twice.iter().all(|mistake| mistake.contains("stands in the settings file as well")), "{twice:#?}");
}

#[test]
fn the_files_of_one_directory_are_refused_with_every_mistake_and_its_line() {
    let text = "[[check]]\nname = \"web\"\nkind = \"tcp\"\n[[contract]]\nname = \"c\"\ntargt = \"1\"\nfrom = \"2026-02-30\"\n[[x]]\n";
    let refused = read(text).expect_err("refused").remove(0).mistakes;
    for (line, part) in [(1, "missing key"), (6, "targt"), (7, "cannot be read"), (8, "unknown key \"x\"")] {
        let found =
            refused.iter().any(|mistake| mistake.contains(part) && mistake.contains(&format!("at line {line}")));
        assert!(found, "{part} at line {line}: {refused:#?}");
    }
    let twice = [("a.toml", FIRST), ("b.toml", FIRST)].map(|(file, text)| (file.to_owned(), text.to_owned()));
    let refused = read_files(&twice).expect_err("refused");
    assert!(refused[0].file == "b.toml" && refused[0].mistakes[0].contains("stands in a.toml at line"), "{refused:?}");
}

#[test]
fn what_is_stored_is_what_was_written_without_date_and_reason() {
    let written = read("[[contract]]\nreason = \"agreed\"\nname = \"c\"\nfrom = \"2026-01-01T00:00:00Z\"\nconfirm = 2");
    let written = written.expect("readable").remove(0);
    assert_eq!(written.body, "{\"confirm\":2,\"name\":\"c\"}");
    assert_eq!((written.reason.as_str(), written.from), ("agreed", Some(UtcTime(1_767_225_600_000))));
}
