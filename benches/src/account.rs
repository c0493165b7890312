//! The kernel's account of a process: CPU, memory, bytes written. Linux only (`/proc`).
//!
//! CPU time comes in ticks of 10 ms, so a figure needs a few seconds of work. `VmRSS` may shrink by itself
//! on a machine that reclaims idle memory; the high-water mark does not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

/// `tmpfs` as `statfs` calls it.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// What a process has used since it started.
#[derive(Debug, Clone, Default)]
pub struct Used {
    /// User and kernel, all threads, ended ones too.
    pub cpu: Duration,
    /// By name of the thread, those alive.
    pub cpu_by_thread: BTreeMap<String, Duration>,
    /// Resident now.
    pub rss_bytes: u64,
    /// Resident at most.
    pub hwm_bytes: u64,
    /// Given to the block layer.
    pub written_bytes: u64,
}

impl Used {
    /// The account of `pid` now.
    ///
    /// # Errors
    /// When the process is gone or another user's.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let status = read(&dir.join("status"))?;
        let kib = |key| number_after(&status, key).unwrap_or(0) * 1024;
        let io = read(&dir.join("io"))?;
        Ok(Self {
            cpu: cpu(&read(&dir.join("stat"))?).context("unexpected form of /proc/PID/stat")?.1,
            cpu_by_thread: threads(&dir.join("task"))?,
            rss_bytes: kib("VmRSS:"),
            hwm_bytes: kib("VmHWM:"),
            written_bytes: number_after(&io, "write_bytes:").unwrap_or(0),
        })
    }

    /// The account of `pid` and everything it started that is alive.
    ///
    /// # Errors
    /// When the process is gone or another user's.
    pub fn of_tree(pid: u32) -> anyhow::Result<Self> {
        let mut all = Self::of(pid)?;
        for child in children(pid)? {
            // One may end while we look.
            if let Ok(one) = Self::of_tree(child) {
                all.add(&one);
            }
        }
        Ok(all)
    }

    /// Adds the account of another process.
    pub fn add(&mut self, other: &Self) {
        self.cpu += other.cpu;
        self.rss_bytes += other.rss_bytes;
        self.hwm_bytes += other.hwm_bytes;
        self.written_bytes += other.written_bytes;
        for (name, spent) in &other.cpu_by_thread {
            *self.cpu_by_thread.entry(name.clone()).or_default() += *spent;
        }
    }

    /// CPU since `before`, by name of thread, largest first.
    pub fn threads_since(&self, before: &Self) -> Vec<(String, Duration)> {
        let since = |(name, cpu): (&String, &Duration)| {
            let earlier = before.cpu_by_thread.get(name).copied().unwrap_or_default();
            (name.clone(), cpu.saturating_sub(earlier))
        };
        let mut threads: Vec<_> = self.cpu_by_thread.iter().map(since).collect();
        threads.sort_by_key(|(_, cpu)| std::cmp::Reverse(*cpu));
        threads
    }
}

fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let listed = read(&PathBuf::from(format!("/proc/{pid}/task/{pid}/children")))?;
    Ok(listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// Whether files there are memory: then neither syncing nor writing means anything.
///
/// # Errors
/// When the directory cannot be asked.
pub fn is_memory(dir: &Path) -> anyhow::Result<bool> {
    let found = rustix::fs::statfs(dir).with_context(|| format!("cannot ask about {}", dir.display()))?;
    Ok(found.f_type == TMPFS_MAGIC)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Name and CPU time out of a `stat` line: fields 14 and 15, counted after the name, which may hold anything.
fn cpu(stat: &str) -> Option<(String, Duration)> {
    let (head, fields) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let mut fields = fields.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some((name, Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())))
}

fn threads(dir: &Path) -> anyhow::Result<BTreeMap<String, Duration>> {
    let mut by_name: BTreeMap<String, Duration> = BTreeMap::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        // A thread may end while we look.
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else { continue };
        if let Some((name, spent)) = cpu(&stat) {
            *by_name.entry(name).or_default() += spent;
        }
    }
    Ok(by_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let line = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0 20 0 9 0";
        assert_eq!(cpu(line).unwrap().0, "a) b (c");
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(cpu(line).unwrap().1, Duration::from_millis(42 * 1_000 / ticks));
    }

    #[test]
    fn this_process_has_an_account() {
        let used = Used::of(std::process::id()).unwrap();
        assert!(used.rss_bytes > 0 && used.rss_bytes <= used.hwm_bytes);
        assert!(!used.cpu_by_thread.is_empty());
    }
}
