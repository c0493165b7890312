//! What the spool promises, tried on a disk that loses and tears what was not synced, and on a real
//! directory.

mod fake_disk;
mod faults;
mod model;
mod room;

use std::path::Path;

use peil_proto::ids::Seq;

use super::{Limits, Recovery, Spool};

/// Small enough that a handful of records rotates and fills the spool.
const SMALL: Limits = Limits { bytes_max: 2_048, segment_bytes: 512, record_bytes_max: 200, keep_free_bytes: 0 };
const MACHINE: &str = "9f86d081884c7d65";

/// Payload number `n`: tells the number, long enough to fill segments.
fn payload(n: u64) -> Vec<u8> {
    let length = 40 + usize::try_from(n % 60).unwrap();
    n.to_le_bytes().into_iter().cycle().take(length).collect()
}

fn open(dir: &Path) -> (Spool, Recovery) {
    Spool::open(dir, MACHINE, SMALL).unwrap()
}

/// Appends payloads `from..=to`, syncing each.
fn fill(spool: &mut Spool, from: u64, to: u64) {
    for n in from..=to {
        spool.append(&payload(n)).unwrap();
        spool.sync().unwrap();
    }
}

fn read_all(spool: &mut Spool) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    let mut after = Seq(0);
    loop {
        let more = spool.read_after(after, 3, 150).unwrap();
        let Some((last, _)) = more.last() else { return all };
        after = *last;
        all.extend(more.into_iter().map(|(seq, payload)| (seq.0, payload)));
    }
}

fn seqs(records: &[(u64, Vec<u8>)]) -> Vec<u64> {
    records.iter().map(|(seq, _)| *seq).collect()
}
