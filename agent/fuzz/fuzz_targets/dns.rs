//! Any bytes are an answer of a resolver or not, and what is told of one prints safely, whatever was asked of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peil_agent::probe::dns;
use peil_proto::plan::{Dns, Pattern};
use peil_proto::time::UtcTime;

fuzz_target!(|input: (u8, u32, &[u8])| {
    let (asked, now, bytes) = input;
    let check = Dns {
        query: "example.nl".into(),
        record: "A".into(),
        rcodes: vec!["NOERROR".into(), "NXDOMAIN".into()],
        answers: if asked & 1 == 0 { Vec::new() } else { vec![Pattern::new("^A 192\\.0\\.2\\.")] },
        serial_min: (asked & 2 != 0).then_some(now),
        authenticated: asked & 4 != 0,
        rrsig_days_min: (asked & 8 != 0).then_some(3),
        ..Dns::default()
    };
    if let Some((verdict, facts)) = dns::told(&check, bytes, UtcTime(i64::from(now) * 1_000)) {
        assert!(facts.iter().any(|fact| fact.name == "rcode") || verdict.is_err());
        for fact in facts {
            assert!(!fact.value.chars().any(|c| c.is_control()), "{:?}", fact.value);
        }
    }
});
