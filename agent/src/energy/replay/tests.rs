//! The trace format to the letter, the multi-zone vectors, and that no line makes it panic.

use proptest::prelude::*;

use super::*;

fn replay(trace: &str) -> Vec<String> {
    let mut out = Vec::new();
    read("trace.jsonl", trace.as_bytes()).expect("a sound trace").write(&mut out).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

fn refused(trace: &str) -> Vec<String> {
    read("trace.jsonl", trace.as_bytes()).err().expect("has mistakes").mistakes
}

fn tick(mono_s: &str, zones: &str) -> String {
    format!("{{\"mono_s\": {mono_s}, \"boottime_s\": {mono_s}, \"boot_id\": \"A\", \"zones\": {{{zones}}}}}\n")
}

fn zone(name: &str, energy_uj: u64, range: u64) -> String {
    format!("\"{name}\": {{\"energy_uj\": {energy_uj}, \"max_energy_range_uj\": {range}, \"pmax_w\": 500}}")
}

const INTEL: u64 = 262_143_328_850;
const J: u64 = 1_000_000;

#[test]
fn the_answer_is_to_the_letter() {
    let trace = tick("0.0", &zone("package-0", 1_000 * J, INTEL)) + &tick("10.0", &zone("package-0", 3_000 * J, INTEL));
    assert_eq!(
        replay(&trace),
        [
            r#"{"mono_s": 0.0, "zone": "package-0", "flag": "baseline", "energy_uj": 0, "low_uj": 0, "high_uj": 0}"#,
            r#"{"mono_s": 10.0, "zone": "package-0", "flag": "ok", "energy_uj": 2000000000, "low_uj": 2000000000, "high_uj": 2000000000}"#,
            r#"{"total_uj": 2000000000, "low_uj": 2000000000, "high_uj": 2000000000}"#,
        ]
    );
}

fn totals(trace: &str) -> (u64, u64, u64) {
    let totals = read("t", trace.as_bytes()).unwrap().run(|_, _, _| Ok::<_, ()>(())).unwrap();
    (totals.energy.0, totals.low.0, totals.high.0)
}

#[test]
fn each_zone_wraps_by_its_own_range() {
    // Vectors 3 and 4: a dram-only wrap, and two sockets of which one wraps.
    let dram = 65_712_999_613;
    let trace = tick("0", &(zone("package-0", 10 * J, INTEL) + ", " + &zone("dram", 65_712_900_000, dram)))
        + &tick("10", &(zone("package-0", 30 * J, INTEL) + ", " + &zone("dram", 400_000, dram)));
    assert_eq!(totals(&trace).0, 20 * J + 499_613);
    let trace = tick("0", &(zone("package-0", 262_143_000_000, INTEL) + ", " + &zone("package-1", 0, INTEL)))
        + &tick("10", &(zone("package-0", 1_000_000, INTEL) + ", " + &zone("package-1", 50 * J, INTEL)));
    assert_eq!(totals(&trace).0, 51_328_850);
}

#[test]
fn a_read_error_of_one_socket_loses_nothing() {
    let error = ", \"package-1\": {\"error\": \"EIO\"}";
    let trace = tick("0", &(zone("package-0", 0, INTEL) + ", " + &zone("package-1", 0, INTEL)))
        + &tick("10", &(zone("package-0", 100 * J, INTEL) + error))
        + &tick("20", &(zone("package-0", 200 * J, INTEL) + ", " + &zone("package-1", 200 * J, INTEL)));
    assert_eq!(totals(&trace), (400 * J, 400 * J, 400 * J));
    let lines = replay(&trace);
    assert!(lines[3].contains(r#""zone": "package-1", "flag": "error", "energy_uj": 0"#), "{lines:?}");
    assert!(lines[5].contains(r#""flag": "bridged", "energy_uj": 200000000"#), "{lines:?}");
}

#[test]
fn a_zone_that_appears_later_starts_at_zero_and_one_that_was_left_out_is_bridged() {
    let trace = tick("0", &zone("package-0", 0, INTEL))
        + &tick("60", &zone("dram", 5_000 * J, INTEL))
        + &tick("70", &(zone("package-0", 700 * J, INTEL) + ", " + &zone("dram", 5_010 * J, INTEL)));
    let lines = replay(&trace);
    assert!(lines[1].contains(r#""zone": "dram", "flag": "baseline", "energy_uj": 0"#), "{lines:?}");
    assert!(lines[2].contains(r#""flag": "bridged", "energy_uj": 700000000"#), "{lines:?}");
    assert!(lines[3].contains(r#""flag": "ok", "energy_uj": 10000000"#), "{lines:?}");
}

#[test]
fn an_unknown_range_and_an_unset_limit_may_be_left_out() {
    let bare = |mono_s, uj: u64| tick(mono_s, &format!("\"z\": {{\"energy_uj\": {uj}}}"));
    // 1 kW is the default limit, so a fall without a range is a gap of at most 10 kJ.
    assert_eq!(totals(&(bare("0", 50_000 * J) + &bare("10", 100 * J))), (0, 0, 10_000 * J));
}

#[test]
fn all_mistakes_come_at_once_by_name_and_line() {
    let trace = tick("0", "\"p\": {\"energy_uj\": 1, \"rnge\": 5}")
        + "\n"
        + "{\"mono_s\": \"x\", \"boot\": 1}\n"
        + &tick("5", "\"p\": {\"energy_uj\": -1}, \"q\": {\"energy_uj\": 1.5}")
        + &tick("6", "\"p\": {\"error\": \"EIO\", \"energy_uj\": 1}")
        + "{\n"
        + &tick("9", "")
        + &tick("8", "");
    let mistakes = refused(&trace);
    let expected = [
        "unknown key \"zones.p.rnge\" at line 1",
        "missing key \"boot_id\" in the table at line 3",
        "missing key \"boottime_s\" in the table at line 3",
        "missing key \"zones\" in the table at line 3",
        "mono_s must be a number, not a string at line 3",
        "unknown key \"boot\" at line 3",
        "zones.p.energy_uj must be a whole number from 0",
        "zones.q.energy_uj must be a whole number from 0",
        "unknown key \"zones.p.energy_uj\" at line 5",
        "not valid JSON",
        "mono_s goes back from 9 to 8 within one boot at line 8",
    ];
    for part in expected {
        assert!(mistakes.iter().any(|mistake| mistake.starts_with(part)), "{part} in {mistakes:#?}");
    }
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
}

#[test]
fn nothing_in_is_not_zero_out() {
    assert_eq!(refused(""), ["has no ticks"]);
    assert_eq!(refused("\n \n"), ["has no ticks"]);
    assert_eq!(refused("null\n"), ["the file must be a table, not null at line 1"]);
}

#[test]
fn numbers_are_read_without_a_float_in_between() {
    let table = [
        ("10.0", 3, Some(10_000)),
        ("0.0019", 3, Some(1)),
        ("1e3", 0, Some(1_000)),
        ("1.5E+2", 0, Some(150)),
        ("1500e-2", 0, Some(15)),
        ("15e-1", 0, None),
        ("3000000000.0", 0, Some(3_000_000_000)),
        ("18446744073709551615.0", 0, Some(u64::MAX)),
        ("18446744073709551616", 0, None),
        ("1e400", 0, None),
        ("0e999999999999", 3, Some(0)),
        ("0e99999999999999999999", 3, None),
        ("1e-400", 3, Some(0)),
        ("1e-9223372036854775808", 3, Some(0)),
        ("1.5e-9223372036854775808", 0, None),
        ("-0.5", 3, None),
    ];
    for (text, decimals, expected) in table {
        assert_eq!(decimal(text, decimals), expected, "{text}");
    }
}

#[test]
fn a_strange_zone_name_comes_back_as_json() {
    let trace = tick("0", "\"a\\\"\\u0007é\": {\"error\": \"EIO\"}");
    let line: serde_json::Value = serde_json::from_str(&replay(&trace)[0]).unwrap();
    assert_eq!(line["zone"], "a\"\u{7}é");
}

#[test]
fn nesting_and_endless_lines_are_refused() {
    assert!(refused(&"[".repeat(100_000))[0].starts_with("not valid JSON"));
    assert!(refused(&" ".repeat(LINE_BYTES_MAX + 1))[0].contains("more at line 1"));
    let endless = refused(&"x\n".repeat(1_000));
    assert_eq!(endless.len(), MISTAKES_MAX + 1);
    assert!(endless.iter().any(|mistake| mistake.contains("reading stopped at line 100")), "{endless:?}");
}

proptest! {
    #[test]
    fn no_line_makes_it_panic(text in prop_oneof![
        ".{0,200}",
        r#"\{("(mono_s|boottime_s|boot_id|zones|x)": ?(-?[0-9]{1,25}(\.[0-9]{0,9})?(e-?[0-9]{1,20})?|"A"|null|\{\}|\[\]),?){0,5}\}"#,
        r#"\{"mono_s": 1, "boottime_s": 1, "boot_id": "A", "zones": \{"p": \{"energy_uj": -?[0-9]{1,25}(\.[0-9]{1,3})?(e-?[0-9]{1,20})?\}\}\}"#,
    ]) {
        if let Ok(trace) = read("t", text.as_bytes()) {
            let mut out = Vec::new();
            trace.write(&mut out).unwrap();
            for line in String::from_utf8(out).unwrap().lines() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{}", line);
            }
        }
    }

    #[test]
    fn the_total_is_the_sum_of_the_lines(reads in prop::collection::vec((1..100_000_u32, 0..INTEL), 1..40)) {
        let mut mono_ms = 0_u64;
        let mut trace = String::new();
        for (step_ms, uj) in reads {
            mono_ms += u64::from(step_ms);
            trace += &tick(&format!("{}.{:03}", mono_ms / 1_000, mono_ms % 1_000), &zone("p", uj, INTEL));
        }
        let lines: Vec<serde_json::Value> =
            replay(&trace).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (total, steps) = lines.split_last().unwrap();
        for (sum, of) in [("total_uj", "energy_uj"), ("low_uj", "low_uj"), ("high_uj", "high_uj")] {
            let added: u64 = steps.iter().map(|step| step[of].as_u64().unwrap()).sum();
            prop_assert_eq!(total[sum].as_u64().unwrap(), added);
        }
    }
}
