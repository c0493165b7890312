//! Linux powercap: which counters a machine has, and reading them.
//!
//! Zones are known by their *names* (`package-0`, `package-0/dram`, `psys`), never by the number in
//! their path: numbers are handed out in order of registration, psys may be `intel-rapl:1` and
//! `intel-rapl:0` may be the second socket. AMD registers under `intel-rapl` too. Sub-zones are found
//! both beside their parent (as the kernel lists them) and below it.
//!
//! We assume nothing else of the tree: entries may be stray files, loops, half registered, or from
//! another driver. What is passed over is listed with its reason, for `energy doctor`. `enabled` is
//! not looked at: it concerns capping, the counter runs all the same.
//!
//! Limits: [`ENTRIES_MAX`]. Deliberately absent: MSR and perf access (the kernel knows the units
//! better, and they need more rights), and any decision about which zones add up (`compose.rs`).

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Entries looked at below `class/powercap`; the rest of a larger directory is passed over and listed so.
/// Eight sockets with four sub-zones on two interfaces are 80.
pub const ENTRIES_MAX: usize = 4_096;

/// What a zone can draw where its limits say nothing: 1 kW, so 10 s sampling stays exact even for the
/// smallest known range (65.5 kJ).
pub const PMAX_MW_DEFAULT: u64 = 1_000_000;

/// A limit above this is nonsense (3 408 W was seen for a DRAM zone) and not used.
const LIMIT_UW_MAX: u64 = 2_000_000_000;

/// Where the kernel lists zones, below the sysfs root.
pub const CLASS_DIR: &str = "class/powercap";

/// What grants the agent's group, and nobody else, the right to read (the kernel keeps counters from
/// others because their fine grain gives secrets away). A plain `chmod` would not survive a reboot.
pub const PERMISSION_HINT: &str = concat!(
    "energy_uj is readable by root only; put into /etc/udev/rules.d/60-peil-rapl.rules: ",
    r#"SUBSYSTEM=="powercap", KERNEL=="intel-rapl*", RUN+="/usr/bin/chgrp peil-agent /sys/%p/energy_uj", "#,
    r#"RUN+="/usr/bin/chmod g+r /sys/%p/energy_uj" and run: udevadm control --reload; "#,
    "udevadm trigger --subsystem-match=powercap",
);

/// How the kernel reaches a zone's counter. The same counter may be there by both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interface {
    /// `intel-rapl:*`
    Msr,
    /// `intel-rapl-mmio:*`
    Mmio,
}

/// The socket and die a zone belongs to, as far as its name says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// N of `package-N`.
    pub package: Option<u32>,
    /// M of `package-N-die-M`.
    pub die: Option<u32>,
}

/// What a zone's counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// A processor package (or one die of it): cores, caches, memory controller.
    Package(Place),
    /// Memory; not inside the package.
    Dram(Place),
    /// The platform: package, memory and more.
    Psys,
    /// Cores or graphics: inside the package.
    InsidePackage,
    /// Something this program does not know.
    Unknown,
}

/// A zone that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Stable name: `package-0`, `package-0/dram`, `psys`; the mmio interface's begin with `mmio:`.
    pub id: String,
    /// The same without the interface: two zones that share it are one counter.
    pub twin: String,
    /// How it is reached.
    pub interface: Interface,
    /// What it counts.
    pub domain: Domain,
    /// Its directory.
    pub dir: PathBuf,
    /// Value after which the counter starts again, µJ; 0 when unknown.
    pub range_uj: u64,
    /// More than this it cannot draw, mW.
    pub pmax_mw: u64,
}

/// Something that was found and is not used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excluded {
    /// Zone id or directory entry.
    pub what: String,
    /// The reason, in words.
    pub why: String,
}

/// What a look at the tree found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Zones with a name and a counter file, ordered by id.
    pub zones: Vec<Zone>,
    /// What was passed over.
    pub excluded: Vec<Excluded>,
}

/// Why a counter gave no value. Never mistaken for 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// We may not.
    Permission,
    /// The file is not there (any more).
    Absent,
    /// The kernel or the hardware said no.
    Io(String),
    /// What stands there is not a counter.
    Garbage(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission => f.write_str("permission denied"),
            Self::Absent => f.write_str("absent"),
            Self::Io(what) => write!(f, "read failed: {what}"),
            Self::Garbage(text) => write!(f, "not a counter: {text:?}"),
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission,
            io::ErrorKind::NotFound => Self::Absent,
            // The zone's driver is being removed while we hold its directory.
            _ if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Self::Absent,
            _ => Self::Io(error.to_string()),
        }
    }
}

impl Zone {
    /// Reads the counter, in µJ.
    ///
    /// # Errors
    /// Why there is no value.
    pub fn read_uj(&self) -> Result<u64, Unreadable> {
        read_number(&self.dir.join("energy_uj"))
    }
}

/// Looks for zones below `sysfs`. A tree without powercap gives none.
pub fn discover(sysfs: &Path) -> Found {
    let class = sysfs.join(CLASS_DIR);
    let mut found = Found::default();
    let mut entries = BTreeMap::new();
    collect(&class, &mut entries, &mut found.excluded);
    let tops: Vec<PathBuf> = entries.values().cloned().collect();
    for top in tops {
        collect(&top, &mut entries, &mut found.excluded);
    }
    let mut zones: BTreeMap<String, Zone> = BTreeMap::new();
    for (entry, dir) in &entries {
        match describe(entry, dir, &entries) {
            Ok(zone) if zones.contains_key(&zone.id) => {
                let why = "a second zone of the same name".to_owned();
                found.excluded.push(Excluded { what: format!("{} ({entry})", zone.id), why });
            }
            Ok(zone) => {
                zones.insert(zone.id.clone(), zone);
            }
            Err(why) => found.excluded.push(Excluded { what: entry.clone(), why }),
        }
    }
    found.zones = zones.into_values().collect();
    found
}

/// Adds the zone entries of one directory by name; an entry known already is the same zone.
fn collect(dir: &Path, entries: &mut BTreeMap<String, PathBuf>, excluded: &mut Vec<Excluded>) {
    // No powercap, or a plain file among the entries: nothing to find here.
    let Ok(listing) = std::fs::read_dir(dir) else { return };
    for entry in listing.take(ENTRIES_MAX).flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("intel-rapl:") && !name.starts_with("intel-rapl-mmio:") {
            continue;
        }
        if entries.len() >= ENTRIES_MAX {
            excluded.push(Excluded { what: name, why: format!("more than {ENTRIES_MAX} entries") });
            return;
        }
        entries.entry(name).or_insert_with(|| entry.path());
    }
}

/// `intel-rapl:0:2` → its parent `intel-rapl:0`; a top-level zone has none.
fn parent_of(entry: &str) -> Option<&str> {
    let (parent, _) = entry.rsplit_once(':')?;
    parent.contains(':').then_some(parent)
}

fn describe(entry: &str, dir: &Path, entries: &BTreeMap<String, PathBuf>) -> Result<Zone, String> {
    let interface = if entry.starts_with("intel-rapl-mmio:") { Interface::Mmio } else { Interface::Msr };
    let name = zone_name(dir)?;
    let parent = match parent_of(entry) {
        None => None,
        Some(parent) => {
            let dir = entries.get(parent).ok_or_else(|| format!("its parent {parent} is missing"))?;
            Some(zone_name(dir).map_err(|why| format!("its parent {parent}: {why}"))?)
        }
    };
    let domain = domain_of(&name, parent.as_deref());
    let twin = parent.map_or_else(|| name.clone(), |parent| format!("{parent}/{name}"));
    let id = match interface {
        Interface::Msr => twin.clone(),
        Interface::Mmio => format!("mmio:{twin}"),
    };
    // 0 means "unknown" to the integrator: a wrap is then a gap, never a guess.
    let range_uj = read_number(&dir.join("max_energy_range_uj")).unwrap_or(0);
    Ok(Zone { id, twin, interface, domain, dir: dir.to_owned(), range_uj, pmax_mw: pmax_mw(dir) })
}

fn zone_name(dir: &Path) -> Result<String, String> {
    let text = read_small::<64>(&dir.join("name")).map_err(|why| format!("no zone name ({why})"))?;
    let name = text.trim();
    let sound = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if sound { Ok(name.to_owned()) } else { Err(format!("{name:?} is not a zone name")) }
}

fn domain_of(name: &str, parent: Option<&str>) -> Domain {
    match (name, parent) {
        ("psys", None) => Domain::Psys,
        ("dram", None) => Domain::Dram(Place::default()),
        ("dram", Some(parent)) => Domain::Dram(place_of(parent).unwrap_or_default()),
        ("core" | "uncore", _) => Domain::InsidePackage,
        (name, None) => place_of(name).map_or(Domain::Unknown, Domain::Package),
        (_, Some(_)) => Domain::Unknown,
    }
}

/// `package-1` and `package-1-die-0`.
fn place_of(name: &str) -> Option<Place> {
    let rest = name.strip_prefix("package-")?;
    let (package, die) = match rest.split_once("-die-") {
        Some((package, die)) => (package, Some(die.parse().ok()?)),
        None => (rest, None),
    };
    Some(Place { package: Some(package.parse().ok()?), die })
}

/// 1.5 × the highest limit that makes sense, else [`PMAX_MW_DEFAULT`]: limits are averages that short
/// peaks pass, and firmware sets some to 0 or to the moon.
fn pmax_mw(dir: &Path) -> u64 {
    let limits = (0..10).flat_map(|n| ["max_power_uw", "power_limit_uw"].map(|kind| format!("constraint_{n}_{kind}")));
    let sound = limits
        .filter_map(|file| read_number(&dir.join(file)).ok())
        .filter(|limit_uw| (1..=LIMIT_UW_MAX).contains(limit_uw));
    sound.max().map_or(PMAX_MW_DEFAULT, |limit_uw| (limit_uw * 3).div_ceil(2_000))
}

fn read_number(path: &Path) -> Result<u64, Unreadable> {
    let text = read_small::<32>(path)?;
    let digits = text.trim();
    // `parse` alone would take "+5".
    let number = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None };
    number.ok_or_else(|| Unreadable::Garbage(digits.to_owned()))
}

/// A file of less than `N` bytes. Opened anew each time: a descriptor would outlive the zone when its
/// driver is reloaded. Non-blocking, so that a pipe in its place cannot hold up the agent.
fn read_small<const N: usize>(path: &Path) -> Result<String, Unreadable> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?);
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match file.read(&mut bytes[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    let text = String::from_utf8_lossy(&bytes[..filled]).into_owned();
    if filled == N { Err(Unreadable::Garbage(text)) } else { Ok(text) }
}

#[cfg(test)]
mod tests;
