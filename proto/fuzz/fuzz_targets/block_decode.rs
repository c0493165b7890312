//! Any bytes are either a block or refused; what was read as a block is one after writing it again.
//!
//! The input stands for a block without its checksum: the target appends the right one, because a fuzzer
//! cannot guess it and would never get past it. The bytes as they are, are decoded too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peil_proto::{block, convert};

fuzz_target!(|body: &[u8]| {
    let _ = block::decode(body);
    let sealed = [body, &crc32c::crc32c(body).to_le_bytes()].concat();
    let Ok(read) = block::decode(&sealed) else { return };
    let written = block::encode(read.first, &read.items);
    assert_eq!(block::decode(&written).as_ref(), Ok(&read), "a block changed by being written again");
    for item in &read.items {
        let _ = convert::from_item(item);
    }
});
