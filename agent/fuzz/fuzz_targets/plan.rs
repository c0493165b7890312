//! Any text is read as the settings of an agent and as a check, or answered with its mistakes; a check that was read
//! travels and comes back the same; any word and options that come over the wire are a check or refused by name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peil_agent::config::Config;
use peil_proto::plan::CheckKind;
use peil_proto::settings::{Document, Mistakes};

fuzz_target!(|text: &str| {
    if let Err(refused) = Config::parse("fuzz", text) {
        assert!(!refused.mistakes.is_empty());
    }
    let mistakes = Mistakes::new("fuzz");
    let mut fields = Document::toml(text, &mistakes).fields(&mistakes);
    if let Some(kind) = CheckKind::read(&mut fields) {
        let _ = kind.problems();
        let options = kind.to_options().expect("it was read, so it can be written");
        assert_eq!(CheckKind::from_options(kind.name(), &options), kind);
    }
    let (word, options) = text.split_once('\n').unwrap_or((text, ""));
    let _ = CheckKind::from_options(word, options).problems();
});
