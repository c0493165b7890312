//! Stable facts about this host, and what the agent knows of itself. Read from `/proc` and
//! `/etc/os-release`: a missing file leaves its fact empty, it never stops the agent.

use std::path::Path;

use peil_proto::record::HostFacts;
use peil_proto::units::{Micros, Millis};

/// Facts for the greeting, read under `root` (`/` outside tests).
pub fn facts(root: &Path) -> HostFacts {
    let uname = rustix::system::uname();
    HostFacts {
        hostname: uname.nodename().to_string_lossy().into_owned(),
        os: os_name(root).unwrap_or_default(),
        kernel: uname.release().to_string_lossy().into_owned(),
        arch: uname.machine().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism().map_or(0, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory_bytes(root).unwrap_or(0),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: first_line(&root.join("proc/sys/kernel/random/boot_id")).unwrap_or_default(),
    }
}

/// Binds the spool to this machine: a cloned disk image gets a new epoch. Empty when the host has no
/// machine id; then clones cannot be told apart here.
pub fn machine_id(root: &Path) -> String {
    ["etc/machine-id", "var/lib/dbus/machine-id"]
        .iter()
        .filter_map(|file| first_line(&root.join(file)))
        // systemd's word in an image that has not been started yet: the same on every clone of it.
        .find(|id| !id.is_empty() && id != "uninitialized")
        .unwrap_or_default()
}

fn first_line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

fn os_name(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(root.join("etc/os-release")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

fn memory_bytes(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib.saturating_mul(1_024))
}

/// Resident memory of this process, bytes; 0 when `/proc` does not tell.
pub fn rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().map_or(0, |kib| kib.saturating_mul(1_024))
}

/// Time this host was suspended since boot: `CLOCK_BOOTTIME` − `CLOCK_MONOTONIC`.
pub fn suspended() -> Millis {
    let ms = |clock| {
        let at = rustix::time::clock_gettime(clock);
        at.tv_sec.saturating_mul(1_000).saturating_add(at.tv_nsec / 1_000_000)
    };
    let boot = ms(rustix::time::ClockId::Boottime);
    Millis(boot.saturating_sub(ms(rustix::time::ClockId::Monotonic)).max(0))
}

/// CPU time of this process so far.
pub fn cpu_time() -> std::time::Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    std::time::Duration::new(u64::try_from(spent.tv_sec).unwrap_or(0), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// CPU time since `before`, and the new mark.
pub fn cpu_since(before: &mut std::time::Duration) -> Micros {
    let now = cpu_time();
    let spent = now.saturating_sub(*before);
    *before = now;
    Micros::from_duration(spent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_the_given_root_and_may_be_missing() {
        let root = tempfile::tempdir().expect("directory");
        assert_eq!(facts(root.path()).os, "");
        assert_eq!(machine_id(root.path()), "");
        std::fs::create_dir_all(root.path().join("etc")).expect("made");
        std::fs::create_dir_all(root.path().join("proc")).expect("made");
        std::fs::write(root.path().join("etc/os-release"), "ID=x\nPRETTY_NAME=\"Test OS 1\"\n").expect("written");
        std::fs::write(root.path().join("etc/machine-id"), "abc\n").expect("written");
        std::fs::write(root.path().join("proc/meminfo"), "MemTotal:       1024 kB\n").expect("written");
        let facts = facts(root.path());
        assert_eq!((facts.os.as_str(), facts.memory_bytes), ("Test OS 1", 1 << 20));
        assert_eq!(machine_id(root.path()), "abc");
    }

    #[test]
    fn an_image_that_was_never_started_has_no_machine_id_of_its_own() {
        let root = tempfile::tempdir().expect("directory");
        std::fs::create_dir_all(root.path().join("etc")).expect("made");
        std::fs::create_dir_all(root.path().join("var/lib/dbus")).expect("made");
        for nothing in ["", "uninitialized\n"] {
            std::fs::write(root.path().join("etc/machine-id"), nothing).expect("written");
            assert_eq!(machine_id(root.path()), "");
        }
        std::fs::write(root.path().join("var/lib/dbus/machine-id"), "def\n").expect("written");
        assert_eq!(machine_id(root.path()), "def");
    }

    #[test]
    fn this_process_has_memory_and_has_used_time() {
        assert!(rss_bytes() > 1 << 20);
        assert!(cpu_time() > std::time::Duration::ZERO);
    }
}
