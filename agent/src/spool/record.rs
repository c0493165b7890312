//! One record in a segment: `len u32 | crc32c u32 | seq u64 | payload`, little-endian.
//!
//! The checksum covers the epoch (which is not stored in the record), the length, the sequence and
//! the payload. So a record is recognised wherever it lies, also when the header of its segment is
//! damaged, and bytes left over from another spool, or a payload that happens to contain a record,
//! are not taken for one of ours.
//!
//! Reading asks for the range of sequences that may stand here before it computes a checksum: this
//! keeps the search through damaged bytes cheap and makes a false find all but impossible.

use std::ops::RangeInclusive;

use peil_proto::ids::Epoch;

/// Bytes a record needs besides its payload.
pub(super) const OVERHEAD: usize = 16;

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read<'a> {
    /// A record, checksum good.
    Whole {
        /// Its sequence, within the range asked for.
        seq: u64,
        /// Its content.
        payload: &'a [u8],
        /// Bytes it takes in all.
        bytes: usize,
    },
    /// What could be a record with the right sequence, but the bytes end before it does.
    Cut {
        /// Bytes it would take in all.
        bytes: usize,
    },
    /// What looks like a record with the right sequence and ends in time, but whose checksum is wrong.
    Damaged {
        /// Bytes it says it takes in all.
        bytes: usize,
    },
    /// Not a record with a sequence in the range.
    Other,
}

/// Appends one record to `out`. The caller has made sure that the payload fits in 32 bits.
pub(super) fn write(out: &mut Vec<u8>, epoch: Epoch, seq: u64, payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let seq = seq.to_le_bytes();
    out.extend_from_slice(&len);
    out.extend_from_slice(&checksum(epoch, len, seq, payload).to_le_bytes());
    out.extend_from_slice(&seq);
    out.extend_from_slice(payload);
}

/// Reads the record at the beginning of `bytes`, if its sequence is one of `allowed`.
pub(super) fn read(epoch: Epoch, bytes: &[u8], allowed: RangeInclusive<u64>) -> Read<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<OVERHEAD>() else {
        return if bytes.is_empty() { Read::Other } else { Read::Cut { bytes: OVERHEAD } };
    };
    let [l0, l1, l2, l3, c0, c1, c2, c3, seq_bytes @ ..] = *head;
    let seq = u64::from_le_bytes(seq_bytes);
    if !allowed.contains(&seq) {
        return Read::Other;
    }
    let len_bytes = [l0, l1, l2, l3];
    let len = u32::from_le_bytes(len_bytes) as usize;
    let bytes = OVERHEAD + len;
    let Some(payload) = rest.get(..len) else { return Read::Cut { bytes } };
    if checksum(epoch, len_bytes, seq_bytes, payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Read::Damaged { bytes };
    }
    Read::Whole { seq, payload, bytes }
}

fn checksum(epoch: Epoch, len: [u8; 4], seq: [u8; 8], payload: &[u8]) -> u32 {
    let head = crc32c::crc32c(&epoch.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c_append(head, &len), &seq), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_only_in_its_own_epoch() {
        let mut bytes = Vec::new();
        write(&mut bytes, Epoch(7), 3, b"abc");
        assert_eq!(read(Epoch(7), &bytes, 1..=9), Read::Whole { seq: 3, payload: b"abc", bytes: 19 });
        assert_eq!(read(Epoch(8), &bytes, 1..=9), Read::Damaged { bytes: 19 });
        assert_eq!(read(Epoch(7), &bytes, 4..=9), Read::Other);
        assert_eq!(read(Epoch(7), &bytes[..18], 1..=9), Read::Cut { bytes: 19 });
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        write(&mut bytes, Epoch(7), 3, b"abc");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(read(Epoch(7), &flipped, 0..=u64::MAX), Read::Whole { .. }), "bit {bit}");
        }
    }
}
