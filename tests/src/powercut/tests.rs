use std::collections::BTreeSet;

use super::*;

/// A journal as the library writes it.
fn record(kind: u8, inode: u64, at: u64, data: &[u8]) -> Vec<u8> {
    let numbers = [u64::from(kind), inode, at, data.len() as u64];
    numbers.iter().flat_map(|number| number.to_ne_bytes()).chain(data.iter().copied()).collect()
}

fn after(journal: &[Vec<u8>], fate: Fate, seed: u64) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut disk = Disk::default();
    disk.hold("a".into(), Some((1, b"old".to_vec())));
    disk.play(&journal.concat()).unwrap();
    disk.after_the_cut(fate, &mut Dice::from_seed(seed))
}

fn bytes<'l>(left: &'l BTreeMap<PathBuf, Option<Vec<u8>>>, name: &str) -> Option<&'l [u8]> {
    left.get(Path::new(name)).and_then(Option::as_deref)
}

#[test]
fn what_was_synced_stays_and_what_was_not_may_go() {
    let journal = [record(b'W', 1, 0, b"new"), record(b'S', 1, 0, b""), record(b'W', 1, 3, b"er")];
    assert_eq!(bytes(&after(&journal, Fate::Dropped, 1), "a"), Some(&b"new"[..]));
    assert_eq!(bytes(&after(&journal, Fate::Kept, 1), "a"), Some(&b"newer"[..]));
    let torn: BTreeSet<Vec<u8>> =
        (0..64).filter_map(|seed| bytes(&after(&journal, Fate::Torn, seed), "a").map(<[u8]>::to_vec)).collect();
    assert_eq!(torn, BTreeSet::from([b"new".to_vec(), b"newer".to_vec(), b"new\0\0".to_vec()]));
}

#[test]
fn each_sector_has_a_fate_of_its_own() {
    let journal = [record(b'W', 1, 0, &[1; 1024]), record(b'S', 1, 0, b""), record(b'W', 1, 0, &[2; 1024])];
    let torn: BTreeSet<(u8, u8)> = (0..64)
        .map(|seed| {
            let left = after(&journal, Fate::Torn, seed);
            let image = bytes(&left, "a").unwrap();
            assert!(image[..512].iter().all(|byte| *byte == image[0]) && image.len() == 1024);
            (image[0], image[512])
        })
        .collect();
    assert_eq!(torn, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]));
}

#[test]
fn a_name_is_safe_when_its_directory_was_synced_and_its_bytes_when_the_file_was() {
    let made = [record(b'C', 2, 0, b"b"), record(b'W', 2, 0, b"x"), record(b'S', 2, 0, b"")];
    assert_eq!(bytes(&after(&made, Fate::Dropped, 1), "b"), None, "only the file was synced");
    let kept = [made.concat(), record(b'D', 9, 0, b"")];
    assert_eq!(bytes(&after(&kept, Fate::Dropped, 1), "b"), Some(&b"x"[..]));
    let moved = [made.concat(), record(b'R', 0, 0, b"b\0a"), record(b'D', 9, 0, b"")];
    let left = after(&moved, Fate::Dropped, 1);
    assert_eq!((bytes(&left, "a"), left.len()), (Some(&b"x"[..]), 1), "put in the place of the other");
    let gone = [record(b'U', 0, 0, b"a")];
    assert_eq!(bytes(&after(&gone, Fate::Dropped, 1), "a"), Some(&b"old"[..]));
    assert_eq!(bytes(&after(&gone, Fate::Kept, 1), "a"), None);
}

#[test]
fn a_file_in_a_directory_that_is_not_there_is_not_there() {
    let journal = [record(b'M', 0, 0, b"d"), record(b'C', 2, 0, b"d/b"), record(b'D', 9, 0, b"d")];
    assert_eq!(after(&journal, Fate::Dropped, 1).len(), 1);
    let journal = [journal.concat(), record(b'D', 9, 0, b"")];
    assert_eq!(after(&journal, Fate::Dropped, 1).len(), 3);
}

#[test]
fn a_journal_that_ends_in_the_middle_of_a_record_ends_before_it() {
    let mut cut = record(b'W', 1, 0, b"new");
    cut.pop();
    assert_eq!(bytes(&after(&[record(b'W', 1, 0, b"one"), cut], Fate::Kept, 1), "a"), Some(&b"one"[..]));
}
