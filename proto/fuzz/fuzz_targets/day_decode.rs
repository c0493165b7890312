//! Any bytes are either a day block or refused; what was read as one is one after writing it again, and says the same
//! when it is only skimmed.
//!
//! The input stands for a block without its checksum, as in `block_decode`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peil_proto::block::day::{self, DayBlock, Skimmed};

fuzz_target!(|body: &[u8]| {
    let _ = day::decode(body);
    let sealed = [body, &crc32c::crc32c(body).to_le_bytes()].concat();
    let skimmed = day::skim(&sealed);
    let Ok(read) = day::decode(&sealed) else { return };
    match (&read, skimmed.expect("a day that reads as a whole reads in part")) {
        (DayBlock::Check(day), Skimmed::Check(check, ticks)) => {
            assert_eq!(day.check, check);
            let whole = day.samples.iter().map(|sample| (sample.scheduled_at, sample.outcome));
            assert!(whole.eq(ticks));
        }
        (DayBlock::Rest(ledger), Skimmed::Rest(skimmed)) => assert_eq!(*ledger, skimmed),
        _ => panic!("another kind"),
    }
    let written = match &read {
        DayBlock::Check(day) => day.encode(),
        DayBlock::Rest(ledger) => ledger.encode(),
    };
    let written = written.expect("what was read can be written");
    let again = day::decode(&written).expect("what was written can be read");
    match (read, again) {
        // Samples of one moment may stand in any order when read; written they have one.
        (DayBlock::Check(read), DayBlock::Check(again)) => {
            assert_eq!(read.samples.len(), again.samples.len());
            assert_eq!(again.encode().as_ref(), Ok(&written), "a day changed by being written again");
        }
        (read, again) => assert_eq!(read, again, "a ledger changed by being written again"),
    }
});
