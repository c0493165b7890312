//! Any datagram is an answer of a time server or not, and the offset of one is a number, whatever time we have.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peil_agent::probe::ntp::Answer;
use peil_proto::time::UtcTime;

fuzz_target!(|input: (i64, &[u8])| {
    let (now, bytes) = input;
    // The clock of a host shows something between the years −290 000 000 and 290 000 000.
    let now = UtcTime(now / 4);
    if let Some(answer) = Answer::read(bytes) {
        assert!(bytes.len() >= 48);
        let _ = answer.offset_us(now, UtcTime(now.0 + 1));
    }
});
