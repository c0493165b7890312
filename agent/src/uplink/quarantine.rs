//! Records that the collector can never take, set aside for a person to look at.
//!
//! One file per refused batch, `quarantine/EPOCH-FIRST.block`, in the form of a block. A file also explains why the
//! agent's mark may stand ahead of the collector's ([`through`]); whoever deletes it gets the records refused once more,
//! and set aside again.

use std::io;
use std::path::{Path, PathBuf};

use peil_proto::block::{self, Item};
use peil_proto::ids::{Epoch, Seq};

fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("quarantine")
}

/// Sets these records aside, the first of which is `first`; says where.
///
/// # Errors
/// When the file cannot be written; the path it was to have comes with the error.
pub(super) fn set_aside(
    state_dir: &Path,
    epoch: Epoch,
    first: Seq,
    items: &[Item],
) -> Result<PathBuf, (PathBuf, io::Error)> {
    let dir = directory(state_dir);
    let path = dir.join(format!("{epoch}-{first}.block"));
    let written = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, block::encode(first, items)));
    match written {
        Ok(()) => Ok(path),
        Err(error) => Err((path, error)),
    }
}

/// Through which record something of this epoch was set aside; 0 when nothing was, or nothing that can be read.
pub(super) fn through(state_dir: &Path, epoch: Epoch) -> Seq {
    let files = std::fs::read_dir(directory(state_dir)).into_iter().flatten().flatten();
    let ours = files.filter(|file| file.file_name().to_string_lossy().starts_with(&format!("{epoch}-")));
    let last = |path: PathBuf| {
        let block = block::decode(&std::fs::read(path).ok()?).ok()?;
        Some(Seq(block.first.0 + (block.items.len() as u64).saturating_sub(1)))
    };
    ours.filter_map(|file| last(file.path())).max().unwrap_or(Seq(0))
}
