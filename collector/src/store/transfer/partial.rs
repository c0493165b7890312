//! A database that is being made: a directory beside its place, which becomes the file there only when it is whole.
//!
//! `NAME.partial/` has the owner's rights only and a lock; what an earlier attempt left in it is thrown away. The last
//! step is one rename that refuses to replace anything, and a sync of the directory.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{TransferError, unusable};
use crate::store::sqlite;

/// A database on its way to a file.
pub(super) struct Partial {
    dir: PathBuf,
    to: PathBuf,
    /// Held until the copy is in place or given up.
    _lock: File,
}

impl Partial {
    /// Makes the directory beside `to`, which must not be there.
    pub(super) fn beside(to: &Path) -> Result<Self, TransferError> {
        if to.exists() {
            return Err(TransferError::Taken(to.to_owned()));
        }
        let mut name = to.as_os_str().to_owned();
        name.push(".partial");
        let dir = PathBuf::from(name);
        let cannot = || unusable("make", &dir);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(cannot())?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(dir.join("copy.lock"));
        let lock = lock.map_err(cannot())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TransferError::Beside(dir)),
            Err(TryLockError::Error(error)) => return Err(unusable("lock", &dir)(error)),
        }
        let partial = Self { to: to.to_owned(), _lock: lock, dir };
        for left in ["peil.db", "peil.db-wal", "peil.db-shm", "peil.db-journal"] {
            partial.forget(left)?;
        }
        Ok(partial)
    }

    /// The directory: a store's.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file in it.
    pub(super) fn file(&self) -> PathBuf {
        sqlite::database_file(&self.dir)
    }

    /// Makes an empty file for the owner alone.
    pub(super) fn make_file(&self) -> Result<PathBuf, TransferError> {
        let path = self.file();
        let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
        made.map_err(unusable("make", &path))?;
        Ok(path)
    }

    /// Puts the file in its place, durably.
    pub(super) fn put_in_place(self) -> Result<(), TransferError> {
        let (file, to) = (self.file(), self.to.clone());
        File::open(&file).and_then(|file| file.sync_all()).map_err(unusable("sync", &file))?;
        match renameat_with(CWD, &file, CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Err(TransferError::Taken(to)),
            Err(error) => return Err(unusable("put in place", &to)(error.into())),
        }
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(unusable("sync", parent))?;
        for left in ["open.lock", "copy.lock"] {
            self.forget(left)?;
        }
        std::fs::remove_dir(&self.dir).map_err(unusable("remove", &self.dir))
    }

    fn forget(&self, name: &str) -> Result<(), TransferError> {
        let path = self.dir.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}
