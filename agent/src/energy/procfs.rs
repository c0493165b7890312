//! What the energy part reads below `/proc`: processor time, memory, boot id, and whether we are a guest.
//!
//! Read by hand because the root must be movable (tests, containers that mount the host's `/proc`
//! elsewhere). Everything is parsed from text that somebody else may have written: what does not parse
//! is `None`, never a panic and never a zero.
//!
//! Limit: [`FILE_BYTES_MAX`]. Deliberately absent: per-process figures.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// No file read here is larger on a real machine (cpuinfo of 4 096 threads is 6 MiB); the rest of a
/// larger one is not looked at.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;

/// Processor time since boot, summed over all CPUs, in clock ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CpuTime {
    /// At work: user, nice, system, interrupts.
    pub(super) busy: u64,
    /// All of it: at work, idle, waiting, and stolen by the hypervisor.
    pub(super) total: u64,
}

/// What `/proc/stat` says now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Since boot.
    pub(super) time: CpuTime,
    /// CPUs online.
    pub(super) cpus: u32,
}

/// Reads `<procfs>/stat`.
pub(super) fn stat(procfs: &Path) -> Option<Stat> {
    parse_stat(&read(&procfs.join("stat"))?)
}

/// Installed memory from `<procfs>/meminfo`, in KiB.
pub(super) fn memory_kib(procfs: &Path) -> Option<u64> {
    let text = read(&procfs.join("meminfo"))?;
    let rest = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The kernel's boot id: another one means that every counter may have started anew.
pub(super) fn boot_id(procfs: &Path) -> Option<String> {
    let text = read(&procfs.join("sys/kernel/random/boot_id"))?;
    let id = text.trim();
    (!id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_graphic())).then(|| id.to_owned())
}

/// True when the processor says that it is a hypervisor's: its counters, if any, belong to the machine
/// underneath. `None` when cpuinfo cannot be read.
pub(super) fn is_guest(procfs: &Path) -> Option<bool> {
    let text = read(&procfs.join("cpuinfo"))?;
    let flags = text.lines().filter(|line| line.starts_with("flags")).filter_map(|line| line.split_once(':'));
    Some(flags.take(1).any(|(_, flags)| flags.split_whitespace().any(|flag| flag == "hypervisor")))
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse_stat(text: &str) -> Option<Stat> {
    let all = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user nice system idle iowait irq softirq steal; guest time is inside user and would count twice.
    let fields: Vec<u64> = all.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let sum = |of: &[u64]| of.iter().try_fold(0_u64, |sum, part| sum.checked_add(*part));
    let busy = match *fields.as_slice() {
        [user, nice, system, _idle, _iowait, irq, softirq, ..] => sum(&[user, nice, system, irq, softirq])?,
        _ => return None,
    };
    let total = sum(&fields)?;
    let is_one = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.as_bytes().first().is_some_and(u8::is_ascii_digit))
    };
    let cpus = u32::try_from(text.lines().filter(is_one).count()).ok()?;
    (total > 0 && cpus > 0).then_some(Stat { time: CpuTime { busy, total }, cpus })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn guest_time_is_not_counted_twice_and_waiting_is_not_work() {
        let text = "cpu  100 10 20 700 50 3 7 10 90 5\ncpu0 1 1 1 1 1 1 1 1 1 1\ncpu1 1 1\nintr 5\n";
        let stat = parse_stat(text).unwrap();
        assert_eq!(stat, Stat { time: CpuTime { busy: 140, total: 900 }, cpus: 2 });
    }

    #[test]
    fn what_does_not_parse_is_unknown_and_never_zero() {
        for text in ["", "cpu", "cpu  1 2 3", "cpu  a b c d e f g h\ncpu0 1", "cpu  0 0 0 0 0 0 0 0\ncpu0 0"] {
            assert_eq!(parse_stat(text), None, "{text:?}");
        }
        let huge = format!("cpu  {0} {0} 1 1 1 1 1 1\ncpu0 1", u64::MAX);
        assert_eq!(parse_stat(&huge), None);
    }

    #[test]
    fn only_the_hypervisor_flag_makes_a_guest() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(is_guest(dir.path()), None);
        std::fs::write(dir.path().join("cpuinfo"), "model name : hypervisor 3000\nflags : fpu vme\n").unwrap();
        assert_eq!(is_guest(dir.path()), Some(false));
        std::fs::write(dir.path().join("cpuinfo"), "flags\t\t: fpu hypervisor vme\n").unwrap();
        assert_eq!(is_guest(dir.path()), Some(true));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(cpu[0-9 ]{0,40}\n){0,4}.{0,40}") {
            if let Some(stat) = parse_stat(&text) {
                prop_assert!(stat.time.busy <= stat.time.total);
            }
        }
    }
}
