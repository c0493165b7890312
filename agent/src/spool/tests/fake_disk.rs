//! A directory in memory that behaves as badly as a disk may: at a crash every write, creation,
//! rename and removal that was not synced happens, does not happen, or happens in part. A failed
//! sync loses what it should have written, and the next one says nothing about it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::disk::{Disk, DiskFile, Entry};

/// Shared with the spool that runs on it.
#[derive(Clone, Default)]
pub(super) struct FakeDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    random: u64,
    failing: Failing,
}

#[derive(Default, Clone, Copy)]
enum Failing {
    #[default]
    Never,
    /// The next `times` changes after `spared` more fail.
    Some { spared: u32, times: u32, kind: io::ErrorKind },
    /// Everything fails after `spared` more changes: the power is gone.
    Dead { spared: u32 },
}

#[derive(Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Cut(usize),
}

enum NameChange {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    content.resize(content.len().max(offset + bytes.len()), 0);
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Inode {
    /// Makes any part of what is unsynced durable.
    fn settle(&mut self, random: &mut impl FnMut(u64) -> u64) {
        for change in std::mem::take(&mut self.unsynced) {
            match (change, random(5)) {
                (_, 0) => {}
                (Change::Write { offset, bytes }, 1) => {
                    let torn = usize::try_from(random(bytes.len() as u64 + 1)).unwrap();
                    write(&mut self.durable, offset, &bytes[..torn]);
                }
                (Change::Write { offset, bytes }, 2) => {
                    // The length got there, the content did not.
                    let end = offset + bytes.len();
                    self.durable.resize(self.durable.len().max(end), 0);
                }
                (Change::Write { offset, bytes }, _) => write(&mut self.durable, offset, &bytes),
                (Change::Cut(to), _) => self.durable.resize(to, 0),
            }
        }
    }
}

impl State {
    fn random(&mut self, below: u64) -> u64 {
        // xorshift64*, from a state that is never 0.
        self.random = (self.random | 1).wrapping_mul(0x2545_f491_4f6c_dd1d);
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below.max(1)
    }

    /// Called before every change.
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.failing {
            Failing::Never => Ok(()),
            Failing::Dead { spared: 0 } => Err(io::Error::other("power is gone")),
            Failing::Some { spared: 0, times: 0, .. } => {
                self.failing = Failing::Never;
                Ok(())
            }
            Failing::Some { spared: 0, times, kind } => {
                *times -= 1;
                Err((*kind).into())
            }
            Failing::Dead { spared } | Failing::Some { spared, .. } => {
                *spared -= 1;
                Ok(())
            }
        }
    }

    fn inode(&self, name: &str) -> io::Result<usize> {
        self.live.get(name).copied().ok_or(io::ErrorKind::NotFound.into())
    }
}

impl FakeDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// After `spared` more changes, `times` changes fail.
    pub(super) fn fail(&self, spared: u32, times: u32, kind: io::ErrorKind) {
        self.state().failing = Failing::Some { spared, times, kind };
    }

    /// After `spared` more changes nothing works until [`Self::crash`].
    pub(super) fn die_after(&self, spared: u32) {
        self.state().failing = Failing::Dead { spared };
    }

    /// Power off and on: what was not synced may be lost, each part for itself.
    pub(super) fn crash(&self, seed: u64) {
        let mut state = self.state();
        state.random = seed;
        state.failing = Failing::Never;
        for change in std::mem::take(&mut state.unsynced_names) {
            if state.random(2) == 0 {
                continue;
            }
            match change {
                NameChange::Create(name, inode) => drop(state.durable.insert(name, inode)),
                NameChange::Remove(name) => drop(state.durable.remove(&name)),
                NameChange::Rename(from, to, inode) => {
                    state.durable.remove(&from);
                    state.durable.insert(to, inode);
                }
            }
        }
        state.live = state.durable.clone();
        let mut inodes = std::mem::take(&mut state.inodes);
        for inode in &mut inodes {
            inode.settle(&mut |below| state.random(below));
            inode.live.clone_from(&inode.durable);
        }
        state.inodes = inodes;
    }

    /// Kill without power loss: the cache survives.
    pub(super) fn kill(&self) {
        self.state().failing = Failing::Never;
    }
}

impl Disk for FakeDisk {
    fn list(&self) -> io::Result<Vec<Entry>> {
        let state = self.state();
        let entry = |(name, inode): (&String, &usize)| Entry {
            name: name.clone(),
            bytes: state.inodes[*inode].live.len() as u64,
        };
        Ok(state.live.iter().map(entry).collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.state().inode(name)?;
        Ok(Box::new(FakeFile { disk: self.clone(), inode }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.spend()?;
        if state.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.live.insert(name.to_owned(), inode);
        state.unsynced_names.push(NameChange::Create(name.to_owned(), inode));
        Ok(Box::new(FakeFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        let inode = state.inode(from)?;
        state.live.remove(from);
        state.live.insert(to.to_owned(), inode);
        state.unsynced_names.push(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        state.inode(name)?;
        state.live.remove(name);
        state.unsynced_names.push(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        state.durable = state.live.clone();
        state.unsynced_names.clear();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn random(&self) -> io::Result<u64> {
        Ok(self.state().random(u64::MAX))
    }
}

struct FakeFile {
    disk: FakeDisk,
    inode: usize,
}

impl DiskFile for FakeFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let rest = state.inodes[self.inode].live.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let got = rest.len().min(into.len());
        into[..got].copy_from_slice(&rest[..got]);
        Ok(got)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let spent = state.spend();
        // A write that fails may have got half way.
        let written = if spent.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        let offset = usize::try_from(offset).unwrap();
        let inode = &mut state.inodes[self.inode];
        write(&mut inode.live, offset, written);
        inode.unsynced.push(Change::Write { offset, bytes: written.to_vec() });
        spent
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.spend()?;
        let to = usize::try_from(bytes).unwrap();
        let inode = &mut state.inodes[self.inode];
        inode.live.resize(to, 0);
        inode.unsynced.push(Change::Cut(to));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if let Err(e) = state.spend() {
            // The pages are marked clean though part of them never reached the disk.
            let mut inode = std::mem::take(&mut state.inodes[self.inode]);
            inode.settle(&mut |below| state.random(below));
            state.inodes[self.inode] = inode;
            return Err(e);
        }
        let inode = &mut state.inodes[self.inode];
        inode.durable.clone_from(&inode.live);
        inode.unsynced.clear();
        Ok(())
    }
}
