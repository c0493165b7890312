//! Files below a root: `/`, a mounted image, a chroot.
//!
//! Paths inside are absolute as seen from the root (`/etc/os-release`). Where the last part is a symbolic
//! link with an absolute target, the target is looked for below the root first (a mounted image), then as
//! it stands (apt links lists of `file:` archives to where they are for the process that ran apt).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Small text files (settings, os-release, tables) are read up to here; what follows is ignored.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// As many links in a row as Linux itself follows.
const LINKS_MAX: usize = 40;

/// A directory that holds a system.
#[derive(Debug, Clone)]
pub(crate) struct Root(PathBuf);

impl Root {
    /// The system at `path`.
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// True for the system this process runs in.
    pub(crate) fn is_running_system(&self) -> bool {
        fs::canonicalize(&self.0).is_ok_and(|path| path == Path::new("/"))
    }

    /// Where `inside` is for this process, links followed as told above.
    pub(crate) fn locate(&self, inside: &str) -> PathBuf {
        let mut path = self.0.join(inside.trim_start_matches('/'));
        for _ in 0..LINKS_MAX {
            let Ok(target) = fs::read_link(&path) else { return path };
            path = match target.strip_prefix("/") {
                Ok(below) if fs::symlink_metadata(self.0.join(below)).is_ok() => self.0.join(below),
                Ok(_) => target,
                Err(_) => path.parent().unwrap_or(&self.0).join(target),
            };
        }
        path
    }

    /// Opens the regular file `inside`. A pipe or a device is refused: it could block for ever.
    pub(crate) fn open(&self, inside: &str) -> io::Result<File> {
        let path = self.locate(inside);
        if !fs::metadata(&path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        File::open(path)
    }

    /// The content of a small text file; bytes that are not UTF-8 become U+FFFD.
    pub(crate) fn text(&self, inside: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.open(inside)?.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Names in the directory `inside`, sorted; none when it cannot be read. Names that are not UTF-8 are
    /// left out: no package manager makes them.
    pub(crate) fn names(&self, inside: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.locate(inside)) else { return Vec::new() };
        let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}
