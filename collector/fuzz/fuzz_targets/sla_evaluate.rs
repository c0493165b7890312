//! Any text is a case with a figure that adds up in every form it is told in, or is refused with its mistakes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peil_collector::evaluate::{Form, answer, forecast, mistake_lines, whatif};
use peil_proto::time::UtcTime;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let _ = forecast::answer("fuzz", text, UtcTime(1_776_247_200_000));
    let _ = whatif::answer("fuzz", text, "fuzz", text);
    let figure = match answer("fuzz", text, Form::Json) {
        Ok(json) => serde_json::from_str::<Value>(&json).expect("one JSON object"),
        Err(refused) => {
            assert!(!refused.mistakes.is_empty());
            assert!(mistake_lines(&refused).all(|line| !line.contains(char::is_control)), "{refused}");
            return;
        }
    };
    let buckets = ["not_covered_ms", "out_of_window_ms", "holiday_ms", "excluded_ms", "up_ms", "down_ms", "unknown_ms"];
    let sum: i64 = buckets.iter().map(|key| figure[key].as_i64().expect("ms")).sum();
    assert_eq!(Some(sum), figure["month_ms"].as_i64(), "{figure}");
    let csv = answer("fuzz", text, Form::Csv).expect("usable in every form");
    let lengths = csv.lines().skip(1).map(|line| line.split(',').nth(4).and_then(|ms| ms.parse::<i64>().ok()));
    assert_eq!(lengths.sum::<Option<i64>>(), Some(sum), "{csv}");
    assert!(answer("fuzz", text, Form::Explain).expect("usable in every form").contains("The budget\n"));
});
