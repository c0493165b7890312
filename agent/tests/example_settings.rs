//! `deploy/examples/agent.toml` is a valid file that shows every key with its default and its range.

#[path = "../../proto/tests/support/example_file.rs"]
mod example_file;

use example_file::{Example, keys_known};
use peil_agent::config::Config;

const SOURCES: [&str; 2] = [include_str!("../src/config.rs"), include_str!("../src/energy/settings.rs")];

fn example() -> Example {
    Example::read(env!("CARGO_MANIFEST_DIR"), "agent.toml")
}

#[test]
fn the_example_is_valid_as_it_stands_and_with_everything_in_it() {
    Config::parse("agent.toml", example().text()).expect("as it stands");
    Config::parse("agent.toml", &example().with_everything()).expect("with everything");
}

#[test]
fn what_the_example_calls_default_is_the_default() {
    let as_it_stands = Config::parse("agent.toml", example().text()).expect("as it stands");
    let written_out = Config::parse("agent.toml", &example().with_defaults()).expect("with defaults");
    assert_eq!(format!("{as_it_stands:?}"), format!("{written_out:?}"));
    let with_everything = Config::parse("agent.toml", &example().with_everything()).expect("with everything");
    assert_ne!(format!("{as_it_stands:?}"), format!("{with_everything:?}"), "the examples were not taken up");
}

#[test]
fn every_key_the_reader_knows_is_in_the_example() {
    let known: std::collections::BTreeSet<String> = SOURCES.iter().flat_map(|source| keys_known(source)).collect();
    for key in ["collector", "batch_s", "bytes_max_mib", "in_flight_max", "networks", "psys", "vcpu", "max_mw_per_vcpu"]
    {
        assert!(known.contains(key), "{key} was not found in the reader; found: {known:?}");
    }
    assert_eq!(example().missing(&known), Vec::<&str>::new());
}

#[test]
fn the_ranges_in_the_example_are_the_ranges() {
    let ranges = example().ranges();
    assert!(ranges.len() >= 12, "{ranges:?}");
    for (key, least, most) in ranges {
        let answer = |value| match Config::parse("agent.toml", &example().with_number(&key, value)) {
            Ok(_) => String::new(),
            Err(refused) => refused.to_string(),
        };
        for (value, good) in [(least - 1, false), (least, true), (most, true), (most + 1, false)] {
            let refused = answer(value).contains(&format!("{key} is {value}"));
            assert_eq!(!refused, good, "{key} = {value}, told to be {least} to {most}: {}", answer(value));
        }
    }
}
