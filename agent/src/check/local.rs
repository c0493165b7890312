//! What this host lets us do.

use std::fs::File;
use std::io;
use std::path::Path;

use serde_json::Value;

use super::Finding;
use crate::config::Config;
use crate::energy::powercap;
use crate::host;
use crate::spool::inspect::inspect;

/// Descriptors the agent needs besides those of its probes.
const DESCRIPTORS_BESIDE: u64 = 64;
/// Descriptors one probe needs at once: its socket, a look-up, a file.
const DESCRIPTORS_A_PROBE: u64 = 3;
/// `CAP_NET_RAW` as a bit of `CapEff`.
const NET_RAW: u64 = 1 << 13;

pub(super) fn state_dir(dir: &Path) -> Finding {
    let probe = dir.join(".check");
    match File::create(&probe) {
        Ok(_) => {
            let _ = std::fs::remove_file(&probe);
            Finding::good("state", format!("{} can be written", dir.display()))
        }
        Err(error) => Finding::bad(
            "state",
            format!("{} cannot be written: {error}", dir.display()),
            "run this as the user of the agent (runuser -u peil-agent -- peil-agent check), or give the directory to that user",
        ),
    }
}

pub(super) fn agent(running: Option<&Value>) -> Finding {
    match running {
        None => {
            Finding::warning("agent", "no agent answers on this host", "start it: systemctl enable --now peil-agent")
        }
        Some(told) => Finding::good(
            "agent",
            format!("runs as process {}, version {}", told["pid"], told["version"].as_str().unwrap_or("?")),
        ),
    }
}

pub(super) fn descriptors(in_flight_max: usize) -> Finding {
    let need = DESCRIPTORS_BESIDE + DESCRIPTORS_A_PROBE * u64::try_from(in_flight_max).unwrap_or(u64::MAX / 8);
    match rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        Some(limit) if limit < need => Finding::bad(
            "descriptors",
            format!("this process may open {limit} files; {in_flight_max} probes at once can need {need}"),
            "raise LimitNOFILE of the unit (or ulimit -n), or lower [policy] in_flight_max",
        ),
        Some(limit) => Finding::good("descriptors", format!("{limit} files may be open, {need} can be needed")),
        None => Finding::good("descriptors", "no limit on open files"),
    }
}

/// Whether ICMP sockets may be opened without privilege, or with the capability.
pub(super) fn ping(root: &Path) -> Finding {
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_default();
    let range = read("proc/sys/net/ipv4/ping_group_range");
    let mut numbers = range.split_whitespace().map(str::parse::<u64>);
    let group = u64::from(rustix::process::getegid().as_raw());
    let in_range = matches!((numbers.next(), numbers.next()), (Some(Ok(least)), Some(Ok(most))) if least <= group && group <= most);
    let status = read("proc/self/status");
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    if in_range {
        Finding::good("icmp", format!("group {group} may send pings (net.ipv4.ping_group_range = {})", range.trim()))
    } else if effective.is_some_and(|bits| bits & NET_RAW != 0) {
        Finding::good("icmp", "CAP_NET_RAW is there")
    } else {
        Finding::warning(
            "icmp",
            format!("group {group} may not send pings (net.ipv4.ping_group_range = {})", range.trim()),
            "only needed for ICMP checks: cp /usr/share/doc/peil-agent/optional/60-peil-ping.conf /etc/sysctl.d/ && sysctl --system",
        )
    }
}

/// Whether the files of a package manager can be read.
pub(super) fn packages(root: &Path, config: &Config) -> Finding {
    if !config.patch.enabled {
        return Finding::good("patch", "switched off in the settings");
    }
    let places = ["var/lib/dpkg/status", "var/lib/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite"];
    let root = if config.patch.root == Path::new("/") { root } else { &config.patch.root };
    for place in places.map(|place| root.join(place)) {
        match File::open(&place) {
            Ok(_) => return Finding::good("patch", format!("{} can be read", place.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Finding::bad(
                    "patch",
                    format!("{} cannot be read: {error}", place.display()),
                    "these files are readable by everybody as they come; restore their mode (0644)",
                );
            }
        }
    }
    Finding::warning(
        "patch",
        format!("no package database below {}", root.display()),
        "patch level is read of dpkg hosts; elsewhere set [patch] enabled = false",
    )
}

/// Whether energy can be measured.
pub(super) fn counters(config: &Config) -> Finding {
    if !config.energy.enabled {
        return Finding::good("energy", "switched off in the settings");
    }
    let zones = powercap::discover(&config.energy.sysfs_root).zones;
    let unreadable = zones.iter().filter(|zone| zone.read_uj().is_err()).count();
    match (zones.len(), unreadable) {
        (0, _) => Finding::warning(
            "energy",
            "no counters here; energy is modelled by utilisation, and says so",
            "nothing, on a virtual machine; on hardware load the module intel_rapl_msr, see `peil-agent energy doctor`",
        ),
        (all, 0) => Finding::good("energy", format!("{all} counters can be read")),
        (all, unreadable) => Finding::warning(
            "energy",
            format!("{unreadable} of {all} counters may be read by root only; energy is modelled, and says so"),
            "cp /usr/share/doc/peil-agent/optional/60-peil-rapl.rules /etc/udev/rules.d/ && udevadm control --reload && udevadm trigger -s powercap",
        ),
    }
}

pub(super) fn spool(config: &Config) -> Finding {
    let dir = config.state_dir.join("spool");
    if !dir.exists() {
        return Finding::good("spool", "none yet; the agent makes it at its first start");
    }
    let seen = match inspect(&dir, &host::machine_id(Path::new("/")), |_, _| {}) {
        Ok(seen) => seen,
        Err(error) => {
            return Finding::bad(
                "spool",
                format!("{} cannot be read: {error}", dir.display()),
                "give the directory to the agent's user, mode 0700",
            );
        }
    };
    let free = rustix::fs::statvfs(&dir).map(|facts| facts.f_bavail.saturating_mul(facts.f_frsize)).unwrap_or(u64::MAX);
    let keep = config.spool.keep_free_bytes;
    let troubles = seen.troubles();
    if free < keep {
        Finding::bad(
            "spool",
            format!(
                "{} MiB are free, and {} MiB are left to others: records are held in memory only",
                free >> 20,
                keep >> 20
            ),
            "make room on that file system, or lower [spool] keep_free_mib",
        )
    } else if troubles.is_empty() {
        Finding::good("spool", format!("{} records on disk, all whole", seen.records()))
    } else {
        Finding::warning(
            "spool",
            format!("{} records are whole; {}", seen.records(), troubles.join("; ")),
            "nothing: the agent copes with it at its next start and tells what is lost; `peil-agent spool check` has the details",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("directory");
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        root
    }

    #[test]
    fn f22_who_may_ping_is_read_from_the_kernel_and_the_remedy_is_named() {
        let range = "proc/sys/net/ipv4/ping_group_range";
        let all = root(&[(range, "0\t2147483647\n")]);
        let nobody = root(&[(range, "1\t0\n"), ("proc/self/status", "CapEff:\t0000000000000000\n")]);
        let capable = root(&[(range, "1\t0\n"), ("proc/self/status", "CapEff:\t0000000000002000\n")]);
        assert_eq!(
            [all, nobody, capable].map(|root| ping(root.path()).standing),
            [Standing::Good, Standing::Warning, Standing::Good]
        );
    }

    #[test]
    fn f21_too_few_descriptors_for_the_probes_at_once_is_bad() {
        assert_eq!(descriptors(1).standing, Standing::Good);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        if let Some(limit) = limit {
            let many = usize::try_from(limit).expect("small");
            assert_eq!(descriptors(many).standing, Standing::Bad);
        }
    }

    #[test]
    fn a_package_database_that_may_not_be_read_is_told_from_one_that_is_not_there() {
        let text = "collector = 'https://h:1'";
        let mut config = Config::parse("a", text).expect("valid");
        let debian = root(&[("var/lib/dpkg/status", "")]);
        config.patch.root = debian.path().to_owned();
        assert_eq!(packages(Path::new("/"), &config).standing, Standing::Good);
        let empty = root(&[]);
        config.patch.root = empty.path().to_owned();
        assert_eq!(packages(Path::new("/"), &config).standing, Standing::Warning);
        config.patch.enabled = false;
        assert_eq!(packages(Path::new("/"), &config).standing, Standing::Good);
    }
}
