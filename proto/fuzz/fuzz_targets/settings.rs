//! Any text is read as settings or answered with its mistakes, each at a line the file has.
//!
//! Walks the whole tree and asks every value for every kind of thing, as the readers of the two programs do.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peil_proto::settings::{Document, Fields, Mistakes, Node, Value};

fuzz_target!(|text: &str| {
    for read in [Document::toml, Document::json] {
        let mistakes = Mistakes::new("fuzz");
        walk(read(text, &mistakes), &mistakes);
        if let Err(refused) = mistakes.into_result(()) {
            assert!(!refused.mistakes.is_empty() && !refused.to_string().is_empty());
        }
    }
    // What stands on the first line of a file is at line 1, wherever the file begins in a longer one.
    let mistakes = Mistakes::new("fuzz");
    let lines = text.matches('\n').count() + 1;
    let node = Document::json_at(text, 1_000, &mistakes);
    assert!((1_000..1_000 + lines + 1).contains(&node.line), "line {} of {lines}", node.line);
});

fn walk(node: Node, mistakes: &Mistakes) {
    let _ = (node.as_str(mistakes), node.as_bool(mistakes), node.as_int(mistakes, -5..=5));
    let _ = node.as_word(mistakes, &[("up", 1), ("down", 2)]);
    match node.value {
        Value::List(_) => node.into_list(mistakes).into_iter().for_each(|item| walk(item, mistakes)),
        Value::Table(_) => walk_table(node.fields(mistakes), mistakes),
        _ => {}
    }
}

fn walk_table(mut fields: Fields<'_>, mistakes: &Mistakes) {
    let _ = fields.need_str("name");
    let _ = (fields.int_or("interval_s", 1..=60, 10), fields.bool_or("enabled", true), fields.strings("names"));
    for entry in fields.rest() {
        walk(entry.node, mistakes);
    }
    fields.finish();
}
