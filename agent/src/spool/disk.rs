//! What the spool asks of a directory: nothing more than a few named files.
//!
//! Two families implement it: [`RealDir`], and the test disks that lose unsynced bytes, tear writes
//! and fail on demand. What is promised here is what the rest of the spool relies on:
//! - bytes are durable after `sync` of their file, names after `sync_names`, nothing before that;
//! - a rename is atomic;
//! - what was neither synced nor named durably may be there after a crash or not, in any mix.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file that stands in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// A directory.
pub(super) trait Disk: Send {
    /// Every regular file whose name is UTF-8.
    fn list(&self) -> io::Result<Vec<Entry>>;
    /// Opens a file that exists, to read and to write.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Makes a file; `AlreadyExists` when there is one.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, in place of any that had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable: creations, renames, removals.
    fn sync_names(&self) -> io::Result<()>;
    /// Bytes an unprivileged program may still write.
    fn free_bytes(&self) -> io::Result<u64>;
    /// A random number for a new epoch.
    fn random(&self) -> io::Result<u64>;
}

/// An open file.
pub(super) trait DiskFile: Send {
    /// Fills as much of `into` as there is from `offset` on; less only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`. After an error any part of them may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Sets the length.
    fn cut(&self, bytes: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;
}

/// Reads at most `bytes` bytes from `offset` on; fewer only at the end of the file.
pub(super) fn read_from(file: &dyn DiskFile, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = vec![0; bytes];
    let got = file.read_at(offset, &mut read)?;
    read.truncate(got);
    Ok(read)
}

/// A directory of the machine, held by an advisory lock for as long as this value lives.
#[derive(Debug)]
pub(super) struct RealDir {
    path: PathBuf,
    handle: File,
}

/// What came of trying to lock a directory.
pub(super) enum Held {
    /// It is ours.
    Ours(RealDir),
    /// Another process has it.
    InUse,
}

impl RealDir {
    /// Makes the directory (0700) when it is not there, and locks it. On a file system without locks
    /// it goes on without one.
    pub(super) fn hold(path: &Path) -> io::Result<Held> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let handle = File::open(path)?;
        let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        if rustix::fs::flock(&handle, lock) == Err(rustix::io::Errno::WOULDBLOCK) {
            return Ok(Held::InUse);
        }
        Ok(Held::Ours(Self { path: path.to_owned(), handle }))
    }
}

impl RealDir {
    /// A directory to look at only: not made, not locked.
    pub(super) fn look(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), handle: File::open(path)? })
    }
}

impl Drop for RealDir {
    /// Closing the handle is not enough: a process forked by another thread has a copy of it until it becomes another
    /// program, and would keep the lock for as long. Giving it back by name ends it for every copy.
    fn drop(&mut self) {
        // Fails only where there are no locks, and then there is none to give back.
        let _ = rustix::fs::flock(&self.handle, rustix::fs::FlockOperation::Unlock);
    }
}

impl Disk for RealDir {
    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            // A file that vanished or cannot be looked at is no reason not to start.
            let Ok(facts) = entry.metadata() else { continue };
            if let (true, Ok(name)) = (facts.is_file(), entry.file_name().into_string()) {
                found.push(Entry { name, bytes: facts.len() });
            }
        }
        Ok(found)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let path = self.path.join(name);
        // A spool on a read-only file system can still be read and sent.
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(e) if matches!(e.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => {
                File::open(&path)?
            }
            other => other?,
        };
        Ok(Box::new(RealFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(self.path.join(name))?;
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let facts = rustix::fs::fstatvfs(&self.handle)?;
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }

    fn random(&self) -> io::Result<u64> {
        getrandom::u64().map_err(io::Error::other)
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        while got < into.len() {
            match self.0.read_at(&mut into[got..], offset + got as u64) {
                Ok(0) => break,
                Ok(more) => got += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(got)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync also writes the length, which is all of the metadata we need.
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_holder_although_a_forked_process_has_a_copy_of_the_handle() {
        let place = tempfile::tempdir().expect("directory");
        let Ok(Held::Ours(held)) = RealDir::hold(place.path()) else { panic!("nobody else has it") };
        let copy = held.handle.try_clone().expect("copied");
        assert!(matches!(RealDir::hold(place.path()), Ok(Held::InUse)));
        drop(held);
        assert!(matches!(RealDir::hold(place.path()), Ok(Held::Ours(_))));
        drop(copy);
    }
}
