//! Every mistake in one answer, with its line.

use super::*;

#[test]
fn three_mistakes_come_in_one_answer_with_their_lines() {
    let mistakes = Mistakes::new("x.toml");
    let mut root = Document::toml("a = 'text'\nb = 900\n[c]\nd = 1\nintervall = 2\n", &mistakes).fields(&mistakes);
    let _ = root.int_or("a", 0..=9, 1);
    let _ = root.int_or("b", 0..=9, 1);
    let mut c = root.table("c").expect("is there");
    let _ = c.int_or("d", 0..=9, 1);
    let _ = c.int_or("interval", 0..=9, 1);
    c.finish();
    root.finish();
    let refused = mistakes.into_result(()).expect_err("has mistakes");
    assert_eq!(
        refused.mistakes,
        [
            "a must be a whole number, not a string at line 1",
            "b is 900; it must lie between 0 and 9 at line 2",
            "unknown key \"c.intervall\" at line 5 (did you mean \"c.interval\"?)"
        ]
    );
}

#[test]
fn json_keys_know_their_line_and_may_not_stand_twice() {
    let mistakes = Mistakes::new("-");
    let mut root =
        Document::json("{\n \"contract\": {\n  \"windw\": 1,\n \"x\": 1, \"x\": 2}\n}", &mistakes).fields(&mistakes);
    let mut contract = root.table("contract").expect("is there");
    let _ = contract.take("window");
    let _ = contract.take("x");
    contract.finish();
    root.finish();
    let refused = mistakes.into_result(()).expect_err("has mistakes").mistakes;
    assert!(refused[0].starts_with("unknown key \"contract.windw\" at line 3"), "{refused:?}");
    assert!(refused[1].contains("\"contract.x\" stands twice, again at line 4"), "{refused:?}");
}

#[test]
fn a_line_of_a_json_lines_file_is_named_by_its_number_in_the_file() {
    let mistakes = Mistakes::new("trace.jsonl");
    let mut fields = Document::json_at("{\"mono_s\": 1, \"zone\": 2}", 17, &mistakes).fields(&mistakes);
    let _ = fields.take("mono_s");
    fields.finish();
    let _ = Document::json_at("{", 18, &mistakes);
    let refused = mistakes.into_result(()).expect_err("has mistakes").mistakes;
    assert!(refused[0].starts_with("unknown key \"zone\" at line 17"), "{refused:?}");
    assert!(refused[1].ends_with("at line 18"), "{refused:?}");
}

#[test]
fn broken_syntax_names_the_line() {
    let mistakes = Mistakes::new("x.toml");
    let _ = Document::toml("a = 1\nb = = 2\n", &mistakes);
    assert!(mistakes.into_result(()).expect_err("broken").to_string().contains("at line 2"));
}
