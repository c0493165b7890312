//! Looking at a spool directory without changing it: nothing is locked, written or set aside, so it may belong to a
//! running agent, another machine or another version. What a running agent writes meanwhile can look torn at the end
//! of the newest segment; looked at again, it is whole.

use std::io;
use std::path::Path;

use peil_proto::ids::{Epoch, Seq};

use super::cursor::{Cursor, CursorRead};
use super::disk::{self, Disk};
use super::recover::{Scan, walk_records};
use super::segment::{self, Header, HeaderRead};
use super::{CursorFound, Limits, RealDir, fingerprint};

/// A file larger than this is not read whole: no version of ours wrote it.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What lies in a spool directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The cursor file.
    pub cursor: CursorFound,
    /// Epoch and released sequence, when the cursor can be read.
    pub acked: Option<(Epoch, Seq)>,
    /// Segment files, oldest first.
    pub segments: Vec<Inspected>,
    /// Files that were set aside, by name.
    pub aside: Vec<String>,
}

/// One segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Name of the file.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// What is in it.
    pub found: Found,
}

/// What a segment file turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Of this format, with what a scan found.
    Segment {
        /// Its epoch.
        epoch: Epoch,
        /// Whole records and damage.
        scan: Scan,
    },
    /// Written by another version of the agent, or in another byte order.
    OtherVersion,
    /// The header cannot be read.
    DamagedHeader,
    /// The file cannot be read, and why.
    Unreadable(String),
}

impl Inspection {
    /// What is wrong, in words; empty when every byte is accounted for.
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        match self.cursor {
            CursorFound::Read => {}
            CursorFound::Missing if self.segments.is_empty() => {}
            CursorFound::Missing => {
                troubles.push("the cursor is missing: everything here will be sent again".to_owned());
            }
            CursorFound::Damaged => {
                troubles.push("the cursor is damaged: everything here will be sent again".to_owned());
            }
            CursorFound::OtherVersion => troubles.push("the cursor is of another version of the agent".to_owned()),
            CursorFound::OtherMachine => {
                troubles.push("the spool is of another machine: it will be set aside".to_owned());
            }
        }
        for segment in &self.segments {
            let name = &segment.name;
            match &segment.found {
                Found::Segment { epoch, .. } if self.acked.is_some_and(|(ours, _)| ours != *epoch) => {
                    troubles.push(format!("{name} is of another epoch: it will be set aside"));
                }
                Found::Segment { scan, .. } if scan.damaged_bytes + scan.tail_bytes > 0 => troubles.push(format!(
                    "{name}: {} damaged bytes between records, {} behind the last",
                    scan.damaged_bytes, scan.tail_bytes
                )),
                Found::Segment { .. } => {}
                Found::OtherVersion => troubles.push(format!("{name} is of another version of the agent")),
                Found::DamagedHeader => troubles.push(format!("{name}: its header is damaged")),
                Found::Unreadable(why) => troubles.push(format!("{name} cannot be read: {why}")),
            }
        }
        troubles
    }

    /// Whole records.
    pub fn records(&self) -> u64 {
        let of = |segment: &Inspected| match &segment.found {
            Found::Segment { scan, .. } => scan.records(),
            _ => 0,
        };
        self.segments.iter().map(of).sum()
    }
}

/// Looks at `dir` as an agent of `machine_id` would, and shows each whole record to `visit`, oldest first.
///
/// # Errors
/// When the directory cannot be listed.
pub fn inspect(dir: &Path, machine_id: &str, mut visit: impl FnMut(Seq, &[u8])) -> io::Result<Inspection> {
    let disk = RealDir::look(dir)?;
    let cursor = Cursor::load(&disk);
    let (state, acked) = match cursor {
        CursorRead::Good(cursor) if cursor.machine != fingerprint(machine_id) => {
            (CursorFound::OtherMachine, Some((cursor.epoch, Seq(cursor.acked))))
        }
        CursorRead::Good(cursor) => (CursorFound::Read, Some((cursor.epoch, Seq(cursor.acked)))),
        CursorRead::Missing => (CursorFound::Missing, None),
        CursorRead::OtherVersion => (CursorFound::OtherVersion, None),
        CursorRead::Damaged => (CursorFound::Damaged, None),
    };
    let mut entries = disk.list()?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let aside = entries.iter().map(|entry| entry.name.clone()).filter(|name| name.ends_with(".aside")).collect();
    let of_segments = entries.into_iter().filter(|entry| segment::first_of(&entry.name).is_some());
    let segments = of_segments
        .map(|entry| {
            let found = if entry.bytes > FILE_BYTES_MAX {
                Found::Unreadable(format!("{} bytes; no segment is that long", entry.bytes))
            } else {
                look_into(&disk, &entry.name, &mut visit)
            };
            Inspected { name: entry.name, bytes: entry.bytes, found }
        })
        .collect();
    Ok(Inspection { cursor: state, acked, segments, aside })
}

fn look_into(disk: &RealDir, name: &str, visit: &mut impl FnMut(Seq, &[u8])) -> Found {
    let length = usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX);
    let bytes = match disk.open(name).and_then(|file| disk::read_from(file.as_ref(), 0, length)) {
        Ok(bytes) => bytes,
        Err(why) => return Found::Unreadable(why.to_string()),
    };
    match Header::read(&bytes) {
        HeaderRead::Good(header) => {
            let scan =
                walk_records(header.epoch, header.first, u64::MAX, &bytes, |seq, payload| visit(Seq(seq), payload));
            Found::Segment { epoch: header.epoch, scan }
        }
        HeaderRead::OtherVersion => Found::OtherVersion,
        HeaderRead::Damaged => Found::DamagedHeader,
    }
}

/// Limits under which a directory is opened for repair: nothing is dropped to make it fit.
pub fn limits_of_repair() -> Limits {
    Limits { bytes_max: u64::MAX, keep_free_bytes: 0, ..Limits::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Spool;

    #[test]
    fn a_look_changes_nothing_and_tells_every_damage() {
        let place = tempfile::tempdir().expect("directory");
        let (mut spool, _) = Spool::open(place.path(), "machine", Limits::default()).expect("opens");
        for n in 0..10_u8 {
            spool.append(&[n; 20]).expect("taken");
        }
        spool.sync().expect("synced");
        let mut seen = Vec::new();
        let look =
            inspect(place.path(), "machine", |seq, payload| seen.push((seq.0, payload.to_vec()))).expect("listed");
        assert_eq!(
            (look.records(), look.troubles(), look.cursor),
            (10, vec![], CursorFound::Read),
            "also while in use"
        );
        assert_eq!(seen[9], (10, vec![9; 20]));
        drop(spool);
        let segment = place.path().join(segment::name(1));
        let mut bytes = std::fs::read(&segment).expect("read");
        bytes[48 + 36 + 20] ^= 1;
        std::fs::write(&segment, &bytes).expect("written");
        let names = |()| {
            let mut names: Vec<_> =
                std::fs::read_dir(place.path()).expect("listed").map(|e| e.expect("entry").file_name()).collect();
            names.sort();
            names
        };
        let before = names(());
        let look = inspect(place.path(), "machine", |_, _| {}).expect("listed");
        assert_eq!((look.records(), look.troubles().len()), (9, 1));
        let other = inspect(place.path(), "another", |_, _| {}).expect("listed");
        assert_eq!(other.cursor, CursorFound::OtherMachine);
        assert_eq!((names(()), std::fs::read(&segment).expect("read")), (before, bytes));
        assert!(inspect(&place.path().join("nowhere"), "machine", |_, _| {}).is_err());
    }
}
