//! Which collector this is: an id made once in its data directory, and the lock that makes it one process.
//!
//! The id is what leases are held under, so a collector that starts again takes its own back at once. That is right
//! only if the earlier process is gone: a lock on the directory, held for as long as the process lives, sees to it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use data_encoding::HEXLOWER;
use peil_proto::time::UtcTime;

use crate::store::leases::{CollectorRow, Holder};

/// This collector.
pub struct Identity {
    /// Under what it holds leases.
    pub holder: Holder,
    /// Held until the process ends.
    _lock: File,
}

impl Identity {
    /// Reads the id in `dir`, or makes it; locks the directory.
    ///
    /// # Errors
    /// When another collector runs in this directory, or it cannot be read or written.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("collector.lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.with_context(|| format!("cannot make {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another collector runs in {}; give this one a data_dir of its own", dir.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let start = random(4)?;
        Ok(Self { holder: Holder { id: id(&dir.join("collector.id"))?, start }, _lock: lock })
    }

    /// How others see it.
    pub fn row(&self, now: UtcTime) -> CollectorRow {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        CollectorRow { id: self.holder.id.clone(), name, version, started_at: now, seen_at: now }
    }
}

/// The id in the file, made when there is none.
fn id(path: &Path) -> anyhow::Result<String> {
    let cannot = || format!("cannot read or make {}", path.display());
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let id = text.trim();
            let is_good = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            anyhow::ensure!(is_good, "{} does not hold an id; remove it, and a new one is made", path.display());
            Ok(id.to_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = random(8)?;
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(cannot)?;
            writeln!(file, "{id}").and_then(|()| file.sync_all()).with_context(cannot)?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(cannot),
    }
}

fn random(bytes: usize) -> anyhow::Result<String> {
    let mut noise = vec![0; bytes];
    getrandom::fill(&mut noise).context("the system gives no random numbers")?;
    Ok(HEXLOWER.encode(&noise))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_keeps_its_id_has_a_new_start_each_time_and_its_directory_to_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Identity::open(dir.path()).expect("opens");
        let refused = Identity::open(dir.path()).err().expect("locked").to_string();
        assert!(refused.contains("another collector runs"), "{refused}");
        let before = first.holder.clone();
        drop(first);
        let again = Identity::open(dir.path()).expect("opens").holder;
        assert_eq!(again.id, before.id);
        assert_ne!(again.start, before.start);
        std::fs::write(dir.path().join("collector.id"), "me").expect("written");
        assert!(Identity::open(dir.path()).err().expect("bad").to_string().contains("remove it"));
    }
}
