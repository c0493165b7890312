//! Size and speed of the column block on this load, in process: no sockets, no disk.

use std::time::Instant;

use peil_proto::block::{self, Item};
use peil_proto::ids::{CheckNo, Seq};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use crate::load::Results;

/// What one shape of block costs.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Bytes of block per result, envelope and checksum included.
    pub bytes: f64,
    /// Time to encode a result, ns.
    pub encode_ns: f64,
    /// Time to decode a result, ns.
    pub decode_ns: f64,
    /// Entropy of the five phases, in bytes per result: the part no exact coding can save.
    pub entropy_bytes: f64,
}

/// Blocks of `batch` results over `checks` checks, measured on `results` results or a little more.
///
/// Different blocks are measured one after the other, so that no branch predictor learns one by heart.
pub fn cost(checks: u32, batch: usize, results: usize) -> Cost {
    let numbers: Vec<_> = (1..=checks.max(1)).map(CheckNo).collect();
    let mut source = Results::new(17, &numbers, UtcTime(1_790_000_000_000), Millis(10_000));
    let entropy_bytes = source.phase_entropy_bits() / 8.0;
    let inputs: Vec<Vec<Item>> = (0..results.div_ceil(batch.max(1))).map(|_| source.items(batch.max(1))).collect();
    let count = inputs.iter().map(Vec::len).sum::<usize>();

    let started = Instant::now();
    let blocks: Vec<Vec<u8>> = inputs.iter().map(|items| block::encode(Seq(1), items)).collect();
    let encode = started.elapsed();
    let started = Instant::now();
    let whole = blocks.iter().filter(|bytes| block::decode(bytes).is_ok()).count();
    let decode = started.elapsed();
    assert_eq!(whole, blocks.len(), "every block reads back");

    let bytes: usize = blocks.iter().map(Vec::len).sum();
    #[expect(clippy::cast_precision_loss, reason = "for printing")]
    let per = |total: f64| total / count as f64;
    #[expect(clippy::cast_precision_loss, reason = "for printing")]
    let bytes = per(bytes as f64);
    Cost {
        bytes,
        encode_ns: per(encode.as_secs_f64() * 1e9),
        decode_ns: per(decode.as_secs_f64() * 1e9),
        entropy_bytes,
    }
}

/// The three shapes that matter: two live batches of an agent with 20 checks, and one check for long.
pub fn table() -> String {
    let mut text =
        String::from("block                          B/result  encode ns  decode ns  (entropy of phases B)\n");
    for (name, checks, batch) in
        [("20 results, 20 checks", 20, 20), ("120 results, 20 checks", 20, 120), ("720 results, 1 check", 1, 720)]
    {
        let cost = cost(checks, batch, 600_000);
        text.push_str(&format!(
            "{name:<30} {:>8.2}  {:>9.0}  {:>9.0}  {:>8.2}\n",
            cost.bytes, cost.encode_ns, cost.decode_ns, cost.entropy_bytes
        ));
    }
    text
}
