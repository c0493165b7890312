//! Reading a segment that may be damaged in any way: which records are whole, what is not.
//!
//! Total for any input: no panic, and time is linear in the length of the input save for the
//! checksums of candidates in damaged stretches, which are limited by [`SEARCH_BYTES_MAX`].

use peil_proto::ids::{Epoch, Seq};

use super::SeqRange;
use super::record::{self, OVERHEAD, Read};
use super::segment::{HEADER, Header, HeaderRead};

/// Bytes that are checksummed in search of the next record within one segment. When reached, the
/// rest of the segment counts as damaged.
const SEARCH_BYTES_MAX: usize = 64 << 20;

/// What a scan of one segment found. Offsets and lengths are in bytes from the start of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Whole records, as stretches of sequences without a hole, in order.
    pub runs: Vec<SeqRange>,
    /// Damaged bytes between whole records.
    pub damaged_bytes: u64,
    /// End of the last whole record (of the header when there is none).
    pub good_end: u64,
    /// Bytes after `good_end`: torn, damaged or zero.
    pub tail_bytes: u64,
    /// Newest sequence that a record in the tail claims, if what is left of it looks complete: then
    /// it was most likely durable once and got damaged later.
    pub tail_claims: Option<Seq>,
}

impl Scan {
    /// Whole records.
    pub fn records(&self) -> u64 {
        self.runs.iter().map(|run| run.records()).sum()
    }
}

/// Scans the bytes of one segment file, with nothing known but the bytes themselves. `None` when the
/// header cannot be read.
pub fn scan_bytes(bytes: &[u8]) -> Option<Scan> {
    match Header::read(bytes) {
        HeaderRead::Good(header) => Some(scan_records(header.epoch, header.first, u64::MAX, bytes)),
        HeaderRead::OtherVersion | HeaderRead::Damaged => None,
    }
}

/// Scans the records of a segment of `epoch` that begins with `first` and holds nothing from `below`
/// on (where the next segment begins). The header is stepped over, whatever it holds.
pub(super) fn scan_records(epoch: Epoch, first: u64, below: u64, bytes: &[u8]) -> Scan {
    walk_records(epoch, first, below, bytes, |_, _| {})
}

/// Payloads of the whole records of a segment after sequence `after`, in order.
pub(super) fn payloads(epoch: Epoch, first: u64, after: u64, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    walk_records(epoch, first, u64::MAX, bytes, |seq, payload| {
        if seq > after {
            all.push(payload.to_vec());
        }
    });
    all
}

/// As [`scan_records`], showing each whole record to `visit`.
pub(super) fn walk_records(
    epoch: Epoch,
    first: u64,
    below: u64,
    bytes: &[u8],
    mut visit: impl FnMut(u64, &[u8]),
) -> Scan {
    let mut scan = Scan { good_end: HEADER.min(bytes.len()) as u64, ..Scan::default() };
    let mut search = Search { epoch, bytes, left: SEARCH_BYTES_MAX };
    let (mut at, mut expected) = (HEADER.min(bytes.len()), first);
    while expected < below {
        let found = match record::read(epoch, &bytes[at..], expected..=expected) {
            Read::Whole { bytes, .. } => Some((at, expected, at + bytes)),
            Read::Cut { .. } | Read::Damaged { .. } | Read::Other => search.next_whole(at, expected, below),
        };
        let Some((start, seq, end)) = found else { break };
        scan.damaged_bytes += (start - at) as u64;
        visit(seq, &bytes[start + OVERHEAD..end]);
        match scan.runs.last_mut() {
            Some(run) if run.last.0 + 1 == seq => run.last = Seq(seq),
            _ => scan.runs.push(SeqRange { first: Seq(seq), last: Seq(seq) }),
        }
        (at, expected) = (end, seq + 1);
        scan.good_end = end as u64;
    }
    scan.tail_bytes = (bytes.len() - at) as u64;
    scan.tail_claims = claimed(epoch, expected..below, &bytes[at..]);
    scan
}

/// A search for the next whole record in a damaged stretch.
pub(super) struct Search<'a> {
    epoch: Epoch,
    bytes: &'a [u8],
    /// Bytes that may still be checksummed.
    left: usize,
}

impl<'a> Search<'a> {
    /// A search in `bytes`, for records of `epoch`.
    pub(super) fn new(epoch: Epoch, bytes: &'a [u8]) -> Self {
        Self { epoch, bytes, left: SEARCH_BYTES_MAX }
    }

    /// Start, sequence and end of the first whole record after `damaged`, where sequence `expected`
    /// should have stood. Only as many sequences may be missing as fit in the bytes between.
    pub(super) fn next_whole(&mut self, damaged: usize, expected: u64, below: u64) -> Option<(usize, u64, usize)> {
        let last_start = self.bytes.len().checked_sub(OVERHEAD)?;
        for start in damaged + 1..=last_start {
            let missing_max = ((start - damaged) / OVERHEAD) as u64;
            let highest = expected.saturating_add(missing_max).min(below.saturating_sub(1));
            match record::read(self.epoch, &self.bytes[start..], expected..=highest) {
                Read::Whole { seq, bytes, .. } => return Some((start, seq, start + bytes)),
                Read::Damaged { bytes } => self.left = self.left.checked_sub(bytes)?,
                Read::Cut { .. } | Read::Other => {}
            }
        }
        None
    }
}

/// The newest sequence that complete-looking records at the beginning of `tail` claim.
fn claimed(epoch: Epoch, possible: std::ops::Range<u64>, tail: &[u8]) -> Option<Seq> {
    let (mut at, mut newest) = (0, None);
    for seq in possible {
        match record::read(epoch, &tail[at..], seq..=seq) {
            Read::Whole { bytes, .. } | Read::Damaged { bytes } => {
                at += bytes;
                newest = Some(Seq(seq));
            }
            Read::Cut { .. } | Read::Other => break,
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: Epoch = Epoch(77);

    fn segment(first: u64, payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Header { machine: 1, epoch: EPOCH, first, after: first - 1 }.to_bytes().to_vec();
        for (payload, seq) in payloads.iter().zip(first..) {
            record::write(&mut bytes, EPOCH, seq, payload);
        }
        bytes
    }

    fn run(first: u64, last: u64) -> SeqRange {
        SeqRange { first: Seq(first), last: Seq(last) }
    }

    #[test]
    fn a_flipped_bit_costs_one_record_and_no_other() {
        let whole = segment(5, &[b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
        let mut hurt = whole.clone();
        hurt[HEADER + 19 + 16] ^= 4;
        let scan = scan_bytes(&hurt).unwrap();
        assert_eq!(scan.runs, [run(5, 5), run(7, 7)]);
        assert_eq!((scan.damaged_bytes, scan.tail_bytes), (19, 0));
    }

    #[test]
    fn a_damaged_length_does_not_hide_what_follows() {
        let mut hurt = segment(5, &[b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
        hurt[HEADER + 19] = 0xff;
        assert_eq!(scan_bytes(&hurt).unwrap().runs, [run(5, 5), run(7, 7)]);
    }

    #[test]
    fn torn_and_zero_filled_tails_are_told_from_a_record_damaged_at_rest() {
        let mut torn = segment(1, &[b"one".to_vec(), b"two".to_vec()]);
        torn.truncate(torn.len() - 1);
        let scan = scan_bytes(&torn).unwrap();
        assert_eq!((scan.runs.clone(), scan.tail_bytes, scan.tail_claims), (vec![run(1, 1)], 18, None));

        let mut zeros = segment(1, &[b"one".to_vec()]);
        zeros.extend_from_slice(&[0; 100]);
        let scan = scan_bytes(&zeros).unwrap();
        assert_eq!((scan.runs.clone(), scan.tail_bytes, scan.tail_claims), (vec![run(1, 1)], 100, None));

        let mut flipped = segment(1, &[b"one".to_vec(), b"two".to_vec()]);
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(scan_bytes(&flipped).unwrap().tail_claims, Some(Seq(2)));
    }

    #[test]
    fn a_segment_ends_where_the_next_begins() {
        let bytes = segment(1, &[b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
        let scan = scan_records(EPOCH, 1, 3, &bytes);
        assert_eq!((scan.runs.clone(), scan.tail_bytes, scan.tail_claims), (vec![run(1, 2)], 21, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_scanned_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000), headed: bool) {
            let bytes = if headed { [segment(1, &[]), bytes].concat() } else { bytes };
            if let Some(scan) = scan_bytes(&bytes) {
                prop_assert_eq!(scan.records(), 0);
                prop_assert_eq!(scan.good_end + scan.tail_bytes, bytes.len() as u64);
            }
        }

        /// A spool that carries spools: payloads full of records of the same epoch are the worst case
        /// for the search, and must neither hang it nor let an old record pass for a new one out of place.
        #[test]
        fn every_byte_is_accounted_for_whatever_is_damaged(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..20),
            nested: bool,
            hurts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let payloads = if nested { vec![segment(1, &payloads), segment(2, &payloads)] } else { payloads };
            let mut bytes = segment(1, &payloads);
            for (at, to) in hurts {
                let at = HEADER + at.index(bytes.len() - HEADER);
                bytes[at] = to;
            }
            if let Some(cut) = cut {
                bytes.truncate(HEADER + cut.index(bytes.len() - HEADER));
            }
            let scan = scan_bytes(&bytes).unwrap();
            prop_assert!(scan.runs.windows(2).all(|pair| pair[0].last < pair[1].first));
            prop_assert_eq!(scan.good_end + scan.tail_bytes, bytes.len() as u64);
        }
    }
}
