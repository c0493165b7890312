//! Room on the disk that is kept for the alarm: a file beside an embedded database, given up when the disk is full.
//!
//! While it is held the disk is not full. When a commit finds no room, the file is deleted, and from then on blocks are
//! refused (agents keep them in their spools), so that what is left serves everything else: alerts, their receipts,
//! leases, sessions. When there is room again, twice as much as the reserve, the file is made anew and blocks are taken.
//! Whether it is there tells every program that has the directory open, and survives a restart.
//!
//! Limits: 8 MiB, about forty thousand alerts with their receipts; when that is used up as well, nothing can be written
//! and alerts are not even noted. Others that write to the same disk may take it first. Not for a server, whose disk is
//! its own matter; there a full disk refuses everything.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use tracing::{error, info, warn};

use super::StoreError;
use super::db;

/// Bytes kept.
pub(super) const BYTES: u64 = 8 << 20;
/// It is made only where this much is free, so that blocks have as much again.
const ROOM: u64 = 2 * BYTES;

/// The file in a data directory.
pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join("reserve")
}

/// Bytes kept in this directory now; 0 once they were given up.
pub(super) fn kept(dir: &Path) -> u64 {
    std::fs::metadata(file(dir)).map_or(0, |file| file.len().min(BYTES))
}

/// The reserve of one data directory.
pub(super) struct Reserve {
    dir: PathBuf,
    held: bool,
}

impl Reserve {
    /// Finds it, or makes it where there is room.
    pub(super) fn open(dir: &Path) -> Self {
        let mut reserve = Self { dir: dir.to_owned(), held: kept(dir) == BYTES };
        reserve.take_back();
        if !reserve.held {
            warn!(dir = %dir.display(), "the disk is nearly full: no records are taken until {} MiB are free", ROOM >> 20);
        }
        reserve
    }

    /// Whether blocks may be stored.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// The disk is full: frees what was kept. False when it had been given up before.
    pub(super) fn give_up(&mut self) -> bool {
        if !std::mem::take(&mut self.held) {
            return false;
        }
        match std::fs::remove_file(file(&self.dir)) {
            Ok(()) => error!(
                "the disk is full: no records are taken, agents keep theirs; {} MiB are freed for alerts",
                BYTES >> 20
            ),
            Err(cause) => error!(%cause, "the disk is full, and the room kept for alerts cannot be freed"),
        }
        true
    }

    /// Makes it again once there is room. Costs one question to the system while it is given up.
    pub(super) fn take_back(&mut self) {
        if self.held || room(&self.dir).is_none_or(|free| free < ROOM) {
            return;
        }
        match make(&file(&self.dir)) {
            Ok(()) => {
                self.held = true;
                info!("{} MiB of the disk are kept for alerts", BYTES >> 20);
            }
            Err(cause) => {
                warn!(%cause, "no room can be kept for alerts");
                // Half a reserve is none.
                let _ = std::fs::remove_file(file(&self.dir));
            }
        }
    }
}

/// What a block is answered while there is no reserve.
pub(super) fn refusal(what: &'static str) -> StoreError {
    let why = format!("the last {} MiB are kept for alerts", BYTES >> 20);
    StoreError::Full { what, source: db::Error::File(why).into() }
}

/// Bytes free on the disk of a directory.
pub(super) fn room(dir: &Path) -> Option<u64> {
    rustix::fs::statvfs(dir).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// A file that really has its blocks. What is in it does not matter, so it is not synced.
fn make(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&mut file),
        done => Ok(done?),
    }
}

fn fill(file: &mut File) -> io::Result<()> {
    let piece = [0; 64 << 10];
    (0..BYTES / piece.len() as u64).try_for_each(|_| file.write_all(&piece))
}
