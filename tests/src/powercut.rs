//! A power cut, for a directory: of what a program wrote and did not sync, chance decides what is left.
//!
//! The program runs as it is, with a library in front of the C library (`tests/powercut/powercut.c`, compiled here with
//! `cc`) that writes down every change below the directory and every sync that came back. After the program was killed,
//! [`PowerCut::strike`] plays this journal to a disk of its own making ([`Disk`]) and then puts on the real one what a
//! power cut could have left:
//!
//! - of a file: what was synced, whole; beyond that any mixture of old and new, sector by sector (512 bytes), and any of
//!   the lengths it had since;
//! - of a directory: what was synced, and of the later changes the first few, in their order, as file systems with a
//!   journal do it. A new file whose directory was not synced may be gone, although the file itself was synced.
//!
//! A sync takes as long as on a disk that turns ([`SYNC_MS`]): on a fast disk a cut at a moment of chance would hardly
//! ever find anything that is written and not synced, and the test would test little.
//!
//! Not tried: a sector that is torn in itself or cannot be read, and a disk that writes where nobody asked it to.
//! Deliberately absent: other timing of a real disk. What matters is the order of syncs and answers, and that is real.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::dice::Dice;

mod disk;

use disk::Disk;

/// What a sync takes.
const SYNC_MS: u32 = 20;
/// Rights of a file that was made while the journal was kept.
const MODE: u32 = 0o600;

/// What the disk under the directory does with a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// It keeps what was synced.
    Honest,
    /// It says that it does.
    Lies,
}

/// What becomes of all that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// None of it is there.
    Dropped,
    /// All of it is there.
    Kept,
    /// Some of it, in pieces.
    Torn,
}

impl Fate {
    /// One of them: torn twice as often as each of the others.
    pub fn by_chance(dice: &mut Dice) -> Self {
        [Self::Dropped, Self::Kept, Self::Torn, Self::Torn][usize::try_from(dice.below(4)).unwrap_or(0)]
    }
}

/// A directory whose power can be cut.
pub struct PowerCut {
    dir: PathBuf,
    sync: Sync,
    disk: Disk,
    rights: BTreeMap<PathBuf, u32>,
    /// Library and journal.
    own: TempDir,
}

impl PowerCut {
    /// Makes ready for a program that is going to work in `dir`; what is there now is safe.
    ///
    /// # Errors
    /// When there is no C compiler, or the directory cannot be read.
    pub fn prepare(dir: &Path, sync: Sync) -> anyhow::Result<Self> {
        let own = tempfile::Builder::new().prefix("peil-powercut-").tempdir()?;
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/powercut/powercut.c");
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(own.path().join("powercut.so"))
            .args([source, "-ldl", "-lpthread"])
            .output()
            .context("cannot start cc: apt-get install gcc libc6-dev (tests/run does)")?;
        ensure!(made.status.success(), "{source} does not compile:\n{}", String::from_utf8_lossy(&made.stderr));
        let dir = dir.canonicalize().with_context(|| format!("no directory {}", dir.display()))?;
        let (disk, rights) = look(&dir)?;
        Ok(Self { dir, sync, disk, rights, own })
    }

    /// What the program must find in its environment.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = vec![
            ("LD_PRELOAD", self.own.path().join("powercut.so").into_os_string()),
            ("PEIL_POWERCUT_DIR", self.dir.clone().into_os_string()),
            ("PEIL_POWERCUT_JOURNAL", self.journal().into_os_string()),
            ("PEIL_POWERCUT_SYNC_MS", SYNC_MS.to_string().into()),
        ];
        if self.sync == Sync::Lies {
            variables.push(("PEIL_POWERCUT_LIES", "1".into()));
        }
        variables
    }

    /// Cuts the power; the program was killed before. Returns the changes that had not been synced: none when it was
    /// killed before it wrote anything.
    ///
    /// # Errors
    /// When the journal cannot be read, or the directory not be written.
    pub fn strike(&mut self, fate: Fate, dice: &mut Dice) -> anyhow::Result<usize> {
        let journal = match std::fs::read(self.journal()) {
            Ok(journal) => journal,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error).context("the journal cannot be read"),
        };
        self.disk.play(&journal)?;
        let unsynced = self.disk.unsynced();
        self.put_back(&self.disk.after_the_cut(fate, dice))?;
        std::fs::remove_file(self.journal())?;
        (self.disk, self.rights) = look(&self.dir)?;
        Ok(unsynced)
    }

    fn journal(&self) -> PathBuf {
        self.own.path().join("journal")
    }

    /// Makes the directory hold exactly these files and directories.
    fn put_back(&self, left: &BTreeMap<PathBuf, Option<Vec<u8>>>) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        // A directory stands before what is in it.
        for (name, bytes) in left {
            let path = self.dir.join(name);
            let usual = match bytes {
                Some(bytes) => {
                    std::fs::write(&path, bytes).with_context(|| format!("cannot put back {}", path.display()))?;
                    MODE
                }
                None => {
                    std::fs::create_dir(&path).with_context(|| format!("cannot put back {}", path.display()))?;
                    0o700
                }
            };
            let mode = self.rights.get(name).copied().unwrap_or(usual);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

/// The disk as it is, all of it synced, and the rights of what is on it.
fn look(dir: &Path) -> anyhow::Result<(Disk, BTreeMap<PathBuf, u32>)> {
    let (mut disk, mut rights) = (Disk::default(), BTreeMap::new());
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        for entry in std::fs::read_dir(dir.join(&below))? {
            let entry = entry?;
            let (name, seen) = (below.join(entry.file_name()), entry.metadata()?);
            // The index of SQLite's log is memory, not a file: nothing of it is ever synced.
            if name.as_os_str().as_bytes().ends_with(b"-shm") {
                continue;
            }
            rights.insert(name.clone(), seen.permissions().mode() & 0o777);
            if seen.is_dir() {
                disk.hold(name.clone(), None);
                open.push(name);
            } else {
                disk.hold(name.clone(), Some((seen.ino(), std::fs::read(dir.join(&name))?)));
            }
        }
    }
    Ok((disk, rights))
}

#[cfg(test)]
mod tests;
