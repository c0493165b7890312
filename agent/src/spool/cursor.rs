//! The cursor: one small file that says how far the collector has acknowledged, and what the spool
//! knows for certain to have been written.
//!
//! It is replaced as a whole (write beside, sync, rename, sync the directory), never changed in
//! place, and always *before* a segment is removed or begun. So it is never behind the files, and a
//! spool of which the newest segment has vanished is recognised: its `newest` names a file that is
//! not there. It also names the epoch and the machine.

use std::io;

use peil_proto::ids::Epoch;

use super::disk::{self, Disk};
use super::segment::{SEQ_MAX, crc_without_itself, field};

/// Name of the file.
pub(super) const NAME: &str = "cursor";
/// Name under which a new one is written; debris when found at start-up.
pub(super) const NAME_NEW: &str = "cursor.new";
const BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"PEILCUR\n";
const VERSION: u32 = 1;

/// What the cursor file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Fingerprint of the machine's id.
    pub machine: u64,
    /// The spool's generation.
    pub epoch: Epoch,
    /// Released through this sequence.
    pub acked: u64,
    /// Durable through this sequence when the cursor was written.
    pub durable: u64,
    /// First sequence of the newest segment that had been, or was about to be, begun.
    pub newest: u64,
    /// No sequence up to this one may be given out again, though no record bears it: the spool jumped.
    pub spent: u64,
}

/// What was found where the cursor should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CursorRead {
    /// A good one.
    Good(Cursor),
    /// No file.
    Missing,
    /// Our magic, but a version we do not know.
    OtherVersion,
    /// A file that cannot be read or is not a cursor.
    Damaged,
}

impl Cursor {
    /// The cursor as it stands on disk.
    fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let fields = [self.machine, self.epoch.0, self.acked, self.durable, self.newest, self.spent];
        for (at, field) in fields.into_iter().enumerate() {
            bytes[16 + 8 * at..24 + 8 * at].copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc_without_itself(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> CursorRead {
        let Some(bytes) = bytes.first_chunk::<BYTES>().filter(|head| head[..8] == MAGIC) else {
            return CursorRead::Damaged;
        };
        let mut bytes = *bytes;
        let other_version = bytes[8..12] != VERSION.to_le_bytes();
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        if bytes[12..16] != crc_without_itself(&bytes).to_le_bytes() {
            return if other_version { CursorRead::OtherVersion } else { CursorRead::Damaged };
        }
        let cursor = Self {
            machine: field(&bytes, 0),
            epoch: Epoch(field(&bytes, 1)),
            acked: field(&bytes, 2),
            durable: field(&bytes, 3),
            newest: field(&bytes, 4),
            spent: field(&bytes, 5),
        };
        if cursor.acked.max(cursor.durable).max(cursor.newest).max(cursor.spent) > SEQ_MAX {
            return CursorRead::Damaged;
        }
        CursorRead::Good(cursor)
    }

    /// Reads the cursor of a spool directory.
    pub(super) fn load(disk: &dyn Disk) -> CursorRead {
        let read = disk.open(NAME).and_then(|file| disk::read_from(file.as_ref(), 0, BYTES));
        match read {
            Ok(bytes) => Self::from_bytes(&bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => CursorRead::Missing,
            Err(_) => CursorRead::Damaged,
        }
    }

    /// Replaces the cursor file; durable when this returns.
    pub(super) fn save(self, disk: &dyn Disk) -> io::Result<()> {
        let file = match disk.create(NAME_NEW) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(NAME_NEW)?;
                disk.create(NAME_NEW)?
            }
            other => other?,
        };
        file.write_at(0, &self.to_bytes())?;
        file.sync()?;
        disk.rename(NAME_NEW, NAME)?;
        disk.sync_names()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_outside_the_version_makes_the_cursor_damaged() {
        let cursor = Cursor { machine: 1, epoch: Epoch(2), acked: 3, durable: 5, newest: 4, spent: 0 };
        let bytes = cursor.to_bytes();
        assert_eq!(Cursor::from_bytes(&bytes), CursorRead::Good(cursor));
        for bit in (0..BYTES * 8).filter(|bit| !(64..96).contains(bit)) {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Cursor::from_bytes(&flipped), CursorRead::Damaged, "bit {bit}");
        }
        assert_eq!(Cursor::from_bytes(&bytes[..20]), CursorRead::Damaged);
    }
}
