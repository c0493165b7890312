//! The disk of a power cut: what is safe on it, and what only waits to be.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::Fate;
use crate::dice::Dice;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// Kind, inode, position and length of a record of the journal.
const HEAD: usize = 32;

/// Files by number, and their names.
#[derive(Debug, Default)]
pub(super) struct Disk {
    files: Vec<File>,
    /// Which file an inode is now; the system uses its numbers again.
    by_inode: BTreeMap<u64, usize>,
    names: BTreeMap<PathBuf, Node>,
    /// Changes of names that no sync of their directory followed, in order.
    renamed: Vec<Naming>,
}

/// What has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Directory,
}

#[derive(Debug, Clone)]
enum Naming {
    Put(PathBuf, Node),
    Take(PathBuf),
    Move(PathBuf, PathBuf),
}

impl Naming {
    /// The directory that must be synced to keep it.
    fn directory(&self) -> &Path {
        let (Self::Put(name, _) | Self::Take(name) | Self::Move(_, name)) = self;
        name.parent().unwrap_or(Path::new(""))
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Put(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Take(name) => {
                names.remove(name);
            }
            Self::Move(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct File {
    synced: Vec<u8>,
    waiting: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Bytes { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Disk {
    /// Something that is safe: a file with its inode and bytes, or a directory.
    pub(super) fn hold(&mut self, name: PathBuf, file: Option<(u64, Vec<u8>)>) {
        let node = match file {
            Some((inode, synced)) => Node::File(self.add(inode, synced)),
            None => Node::Directory,
        };
        self.names.insert(name, node);
    }

    fn add(&mut self, inode: u64, synced: Vec<u8>) -> usize {
        self.files.push(File { synced, waiting: Vec::new() });
        self.by_inode.insert(inode, self.files.len() - 1);
        self.files.len() - 1
    }

    /// What the program did, record after record. The last one may be cut off: the program was killed as it wrote it.
    pub(super) fn play(&mut self, mut journal: &[u8]) -> anyhow::Result<()> {
        while let Some((head, rest)) = journal.split_at_checked(HEAD) {
            let number = |at: usize| head[at..at + 8].try_into().map(u64::from_ne_bytes);
            let (kind, inode, at) = (head[0], number(8)?, usize::try_from(number(16)?)?);
            let Some((data, next)) = rest.split_at_checked(usize::try_from(number(24)?)?) else { break };
            self.record(kind, inode, at, data)
                .with_context(|| format!("record {:?} of the journal", char::from(kind)))?;
            journal = next;
        }
        Ok(())
    }

    fn record(&mut self, kind: u8, inode: u64, at: usize, data: &[u8]) -> anyhow::Result<()> {
        let name = |bytes| PathBuf::from(OsStr::from_bytes(bytes));
        match kind {
            b'W' => self.file(inode)?.waiting.push(Change::Bytes { at, bytes: data.to_vec() }),
            b'T' => self.file(inode)?.waiting.push(Change::Length(at)),
            b'S' => {
                let file = self.file(inode)?;
                file.synced = file.all();
                file.waiting.clear();
            }
            b'C' => {
                let file = self.add(inode, Vec::new());
                self.renamed.push(Naming::Put(name(data), Node::File(file)));
            }
            b'M' => self.renamed.push(Naming::Put(name(data), Node::Directory)),
            b'U' => self.renamed.push(Naming::Take(name(data))),
            b'R' => {
                let mut both = data.splitn(2, |byte| *byte == 0);
                let (from, to) = both.next().zip(both.next()).context("one name")?;
                self.renamed.push(Naming::Move(name(from), name(to)));
            }
            b'D' => {
                let directory = name(data);
                let (safe, waiting) =
                    std::mem::take(&mut self.renamed).into_iter().partition(|naming| naming.directory() == directory);
                self.renamed = waiting;
                let safe: Vec<Naming> = safe;
                safe.iter().for_each(|naming| naming.apply(&mut self.names));
            }
            _ => bail!("nobody knows this kind"),
        }
        Ok(())
    }

    fn file(&mut self, inode: u64) -> anyhow::Result<&mut File> {
        let at = self.by_inode.get(&inode).with_context(|| format!("inode {inode} was never opened"))?;
        Ok(&mut self.files[*at])
    }

    /// Changes that wait for a sync.
    pub(super) fn unsynced(&self) -> usize {
        self.renamed.len() + self.files.iter().map(|file| file.waiting.len()).sum::<usize>()
    }

    /// What is found when the power is back: bytes of files, and directories.
    pub(super) fn after_the_cut(&self, fate: Fate, dice: &mut Dice) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut names = self.names.clone();
        let directories: BTreeSet<&Path> = self.renamed.iter().map(Naming::directory).collect();
        for directory in directories {
            let waiting: Vec<_> = self.renamed.iter().filter(|naming| naming.directory() == directory).collect();
            waiting.iter().take(chosen(fate, waiting.len(), dice)).for_each(|naming| naming.apply(&mut names));
        }
        // What is in a directory that is not there is not there.
        let there =
            |name: &Path| name.ancestors().skip(1).all(|above| above == Path::new("") || names.contains_key(above));
        let left = names.iter().filter(|(name, _)| there(name)).map(|(name, node)| {
            let bytes = match node {
                Node::File(at) => Some(self.files[*at].left(fate, dice)),
                Node::Directory => None,
            };
            (name.clone(), bytes)
        });
        left.collect()
    }
}

/// How many of `all` changes are on the disk.
fn chosen(fate: Fate, all: usize, dice: &mut Dice) -> usize {
    match fate {
        Fate::Dropped => 0,
        Fate::Kept => all,
        Fate::Torn => usize::try_from(dice.below(all as u64 + 1)).unwrap_or(0),
    }
}

impl File {
    /// With everything that was done to it.
    fn all(&self) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for change in &self.waiting {
            match change {
                Change::Bytes { at, bytes: new } => {
                    bytes.resize(bytes.len().max(at + new.len()), 0);
                    bytes[*at..at + new.len()].copy_from_slice(new);
                }
                Change::Length(length) => bytes.resize(*length, 0),
            }
        }
        bytes
    }

    fn left(&self, fate: Fate, dice: &mut Dice) -> Vec<u8> {
        match fate {
            Fate::Dropped => self.synced.clone(),
            Fate::Kept => self.all(),
            Fate::Torn => self.torn(dice),
        }
    }

    /// One of the lengths it had, and in each sector one of the contents it had, whatever its neighbours have.
    fn torn(&self, dice: &mut Dice) -> Vec<u8> {
        let mut length = self.synced.len();
        let mut lengths = vec![length];
        for change in &self.waiting {
            length = match change {
                Change::Bytes { at, bytes } => length.max(at + bytes.len()),
                Change::Length(length) => *length,
            };
            lengths.push(length);
        }
        let mut image = self.synced.clone();
        image.resize(lengths.iter().copied().max().unwrap_or(0), 0);
        for (at, sector) in image.chunks_mut(SECTOR).enumerate() {
            let start = at * SECTOR;
            let touching: Vec<&Change> = self.waiting.iter().filter(|change| change.touches(start)).collect();
            let kept = chosen(Fate::Torn, touching.len(), dice);
            touching.iter().take(kept).for_each(|change| change.apply(start, sector));
        }
        image.truncate(lengths[chosen(Fate::Torn, lengths.len() - 1, dice)]);
        image
    }
}

impl Change {
    fn touches(&self, start: usize) -> bool {
        match self {
            Self::Bytes { at, bytes } => *at < start + SECTOR && start < at + bytes.len(),
            // What lies beyond a shorter length reads as zeros when the file grows again.
            Self::Length(length) => *length < start + SECTOR,
        }
    }

    fn apply(&self, start: usize, sector: &mut [u8]) {
        match self {
            Self::Bytes { at, bytes } => {
                let (from, to) = (start.max(*at), (start + sector.len()).min(at + bytes.len()));
                sector[from - start..to - start].copy_from_slice(&bytes[from - at..to - at]);
            }
            Self::Length(length) => sector[length.saturating_sub(start)..].fill(0),
        }
    }
}
