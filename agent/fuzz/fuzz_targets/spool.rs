//! Whatever became of the files of a spool, it starts, gives back what was put in it, in order and each once, and takes
//! new records.
//!
//! The first number says how many records are put in before; each harm names a file, a place, a kind and a byte.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use peil_agent::spool::{Limits, Spool};
use peil_proto::ids::Seq;

/// Small segments, so that there are several; nothing is left to others, so that a full disk is not the answer.
const LIMITS: Limits =
    Limits { bytes_max: 64 << 10, segment_bytes: 1 << 10, record_bytes_max: 512, keep_free_bytes: 0 };

/// Payload of record `no`: tells its number, and is of another length each.
fn payload(no: u64) -> Vec<u8> {
    let mut bytes = no.to_le_bytes().to_vec();
    bytes.resize(8 + usize::try_from(no * 7 % 90).unwrap_or(0), 0x5a);
    bytes
}

fn harm(dir: &Path, (file, at, how, byte): (u8, u16, u8, u8)) {
    let listed = std::fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path());
    let mut files: Vec<_> = listed.filter(|path| path.is_file()).collect();
    files.sort();
    let Some(path) = files.get(usize::from(file) % files.len().max(1)) else { return };
    let mut bytes = std::fs::read(path).unwrap_or_default();
    let at = usize::from(at) % bytes.len().max(1);
    match how % 5 {
        0 => bytes.truncate(at),
        1 => bytes.extend_from_slice(&[byte; 9]),
        2 => return drop(std::fs::remove_file(path)),
        _ => bytes.iter_mut().skip(at).take(1).for_each(|old| *old = byte),
    }
    std::fs::write(path, bytes).expect("written");
}

/// Numbers of the records that are there.
fn numbers(spool: &mut Spool) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut after = spool.acked();
    loop {
        let page = spool.read_after(after, 16, 1 << 16).expect("readable");
        let Some((last, _)) = page.last() else { return numbers };
        after = *last;
        for (_, bytes) in page {
            let no = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
            assert_eq!(bytes, payload(no), "a record that was never put in");
            numbers.push(no);
        }
    }
}

fuzz_target!(|input: (u8, u8, Vec<(u8, u16, u8, u8)>)| {
    let (count, acked, harms) = input;
    let dir = tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).expect("room");
    let (mut spool, _) = Spool::open(dir.path(), "machine", LIMITS).expect("opens");
    for no in 0..u64::from(count) {
        spool.append(&payload(no)).expect("appended");
        if no % 5 == 4 {
            spool.sync().expect("synced");
        }
    }
    spool.sync().expect("synced");
    spool.release(Seq(u64::from(acked))).expect("released");
    drop(spool);
    harms.into_iter().take(8).for_each(|one| harm(dir.path(), one));

    let (mut spool, _) = Spool::open(dir.path(), "machine", LIMITS).expect("it always starts");
    let found = numbers(&mut spool);
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "out of order or twice: {found:?}");
    spool.append(&payload(1_000)).expect("it takes new records");
    spool.sync().expect("synced");
    let epoch = spool.epoch();
    drop(spool);
    let (mut spool, _) = Spool::open(dir.path(), "machine", LIMITS).expect("it starts again");
    assert_eq!((spool.epoch(), numbers(&mut spool).last()), (epoch, Some(&1_000)));
});
