//! `deploy/examples/collector.toml` is a valid file that shows every key with its default and its range.

#[path = "../../proto/tests/support/example_file.rs"]
mod example_file;

use example_file::{Example, keys_known};
use peil_collector::config::Config;

/// The readers. Those of the contract serve the evaluator too.
const SOURCES: [&str; 6] = [
    include_str!("../src/config.rs"),
    include_str!("../src/config/tables.rs"),
    include_str!("../src/contract/terms.rs"),
    include_str!("../src/contract/holiday.rs"),
    include_str!("../src/contract/window.rs"),
    EXPRESSIONS,
];
const EXPRESSIONS: &str = include_str!("../src/contract/expr.rs");

/// Each kind of check reads its own options.
fn sources_of_kinds() -> Vec<String> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/src/plan");
    let files = std::fs::read_dir(dir).expect("the kinds are there");
    files.map(|file| std::fs::read_to_string(file.expect("readable").path()).expect("text")).collect()
}

fn example() -> Example {
    Example::read(env!("CARGO_MANIFEST_DIR"), "collector.toml")
}

#[test]
fn the_example_is_valid_as_it_stands_and_with_everything_in_it() {
    Config::parse("collector.toml", example().text()).expect("as it stands");
    Config::parse("collector.toml", &example().with_everything()).expect("with everything");
}

#[test]
fn what_the_example_calls_default_is_the_default() {
    let as_it_stands = Config::parse("collector.toml", example().text()).expect("as it stands");
    let written_out = Config::parse("collector.toml", &example().with_defaults()).expect("with defaults");
    assert_eq!(format!("{as_it_stands:?}"), format!("{written_out:?}"));
    let with_everything = Config::parse("collector.toml", &example().with_everything()).expect("with everything");
    assert_ne!(format!("{as_it_stands:?}"), format!("{with_everything:?}"), "the examples were not taken up");
}

#[test]
fn every_key_the_reader_knows_is_in_the_example() {
    // An expression takes its lists in one go, which the scan cannot see.
    assert!(
        EXPRESSIONS.contains(r#"["all", "any", "of"].map(|key| fields.take(key))"#),
        "expressions are read differently"
    );
    let in_one_go = ["all", "any", "of"].map(str::to_owned);
    let kinds = sources_of_kinds();
    let sources = SOURCES.iter().copied().chain(kinds.iter().map(String::as_str));
    let known: std::collections::BTreeSet<String> = sources.flat_map(keys_known).chain(in_one_go).collect();
    for key in [
        "silent_after_s",
        "quorum",
        "cert_days_min",
        "secret_headers",
        "redirects_max",
        "send_file",
        "at_least",
        "good_friday",
        "notice_hours",
        "target",
        "also",
    ] {
        assert!(known.contains(key), "{key} was not found in the reader; found: {known:?}");
    }
    assert_eq!(example().missing(&known), Vec::<&str>::new());
}

#[test]
fn the_ranges_in_the_example_are_the_ranges() {
    let ranges = example().ranges();
    assert!(ranges.len() >= 8, "{ranges:?}");
    for (key, least, most) in ranges {
        let answer = |value| match Config::parse("collector.toml", &example().with_number(&key, value)) {
            Ok(_) => String::new(),
            Err(refused) => refused.to_string(),
        };
        for (value, good) in [(least - 1, false), (least, true), (most, true), (most + 1, false)] {
            let refused = answer(value).contains(&format!("{key} is {value}"));
            assert_eq!(!refused, good, "{key} = {value}, told to be {least} to {most}: {}", answer(value));
        }
    }
}

#[test]
fn every_kind_of_check_is_in_the_example() {
    for word in peil_proto::plan::CheckKind::WORDS {
        assert!(example().text().contains(&format!("\nkind = {word:?}\n")), "{word} is not shown");
    }
}
