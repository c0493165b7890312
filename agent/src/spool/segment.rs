//! A segment: a file `NNNNNNNNNNNNNNNNNNNN.seg`, named by the first sequence it may hold; a header,
//! then records whose sequences follow each other without a hole.
//!
//! `after` in the header is the newest sequence that had been given out before this segment began.
//! From there to `first` nothing was ever written (the spool jumped, see [`super`]); a hole before
//! `after` is a loss.

use peil_proto::ids::Epoch;

/// Bytes before the first record.
pub(super) const HEADER: usize = 48;
/// A spool that claims more records than this is damaged: no agent gets there.
pub(super) const SEQ_MAX: u64 = 1 << 62;
const MAGIC: [u8; 8] = *b"PEILSEG\n";
const VERSION: u32 = 1;

/// What stands at the head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Fingerprint of the machine's id.
    pub machine: u64,
    /// The spool's generation.
    pub epoch: Epoch,
    /// Sequence of the first record, also the file's name.
    pub first: u64,
    /// Newest sequence in use before this segment.
    pub after: u64,
}

/// What the first bytes of a segment file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderRead {
    /// A header of this format.
    Good(Header),
    /// Our magic, but a version we do not know: a newer agent, or another byte order.
    OtherVersion,
    /// Neither.
    Damaged,
}

impl Header {
    /// The header as it stands on disk.
    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        for (at, field) in [self.machine, self.epoch.0, self.first, self.after].into_iter().enumerate() {
            bytes[16 + 8 * at..24 + 8 * at].copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc_without_itself(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header from the beginning of a file.
    pub(super) fn read(bytes: &[u8]) -> HeaderRead {
        let Some(head) = bytes.first_chunk::<HEADER>() else { return HeaderRead::Damaged };
        let mut head = *head;
        let other_version = head[8..12] != VERSION.to_le_bytes();
        // A flipped bit in the version must not make a good segment look like a newer one.
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let sound = head[12..16] == crc_without_itself(&head).to_le_bytes();
        let header = Self {
            machine: field(&head, 0),
            epoch: Epoch(field(&head, 1)),
            first: field(&head, 2),
            after: field(&head, 3),
        };
        match (head[..8] == MAGIC, sound) {
            (true, true) if header.after < header.first && header.first <= SEQ_MAX => HeaderRead::Good(header),
            (true, false) if other_version => HeaderRead::OtherVersion,
            _ => HeaderRead::Damaged,
        }
    }
}

/// Field number `at` of the 64-bit fields that follow the first 16 bytes of a header or cursor.
pub(super) fn field(bytes: &[u8], at: usize) -> u64 {
    bytes[16 + 8 * at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Checksum of a header or cursor, leaving out bytes 12 to 16 where it stands itself.
pub(super) fn crc_without_itself(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

/// The file name of the segment that begins with `first`.
pub(super) fn name(first: u64) -> String {
    format!("{first:020}.seg")
}

/// The first sequence, from a segment's file name; `None` for any other file.
pub(super) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 20)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|first| (1..=SEQ_MAX).contains(first))
}

/// A segment as the running spool knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Newest sequence in use before this segment.
    pub after: u64,
    /// Sequence of the first record.
    pub first: u64,
    /// Sequence of the last durable record; `first - 1` while there is none.
    pub last: u64,
    /// Durable bytes, header included.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Header = Header { machine: 1, epoch: Epoch(2), first: 9, after: 4 };

    #[test]
    fn a_header_reads_back_and_survives_a_flipped_version_bit_only() {
        let bytes = HEAD.to_bytes();
        assert_eq!(Header::read(&bytes), HeaderRead::Good(HEAD));
        for bit in 0..HEADER * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let expected = if (64..96).contains(&bit) { HeaderRead::Good(HEAD) } else { HeaderRead::Damaged };
            assert_eq!(Header::read(&flipped), expected, "bit {bit}");
        }
    }

    #[test]
    fn another_version_or_byte_order_is_recognised() {
        let mut newer = HEAD.to_bytes();
        newer[8] = 2;
        newer[40] = 0xff;
        assert_eq!(Header::read(&newer), HeaderRead::OtherVersion);
        let mut swapped = HEAD.to_bytes();
        swapped[8..12].reverse();
        swapped[12..16].reverse();
        assert_eq!(Header::read(&swapped), HeaderRead::OtherVersion);
    }

    #[test]
    fn only_segment_names_are_segments() {
        assert_eq!(first_of(&name(12)), Some(12));
        for other in ["cursor", "00000000000000000012.seg.aside", "12.seg", "+0000000000000000012.seg", "é.seg"] {
            assert_eq!(first_of(other), None, "{other}");
        }
    }
}
