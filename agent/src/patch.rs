//! The patch level of a host: which security fixes it lacks, told from files alone.
//!
//! Reads what the package manager left below a root (`/`, an image, a chroot): dpkg's status, apt's lists,
//! preferences. No root rights, no network, no lock, no subprocess, so it can run every hour beside
//! anything. apt itself needs seconds and 80 MB for the same answer, and hides fixes that a point release
//! overtook or a pin keeps back.
//!
//! A scan never fails: what is missing or damaged is an entry in [`Report::errors`], and the level is then
//! unknown. An empty list never stands for "could not look". When the 14 days begin is not decided here:
//! that takes the history the collector keeps.
//!
//! Limits are stated where they live ([`decompress`], [`deb822`], `pattern`). Deliberately absent: other
//! package managers so far (README.md here tells how to add one), snaps, containers inside the host,
//! lists of Ubuntu Pro that an unattached host keeps aside.

pub mod report;
mod root;
mod os;
mod eol;
mod dpkg;
mod apt_lists;
mod release;
mod preferences;
mod apt_conf;
mod pattern;
mod version;
mod judge;
mod kernel;
mod reboot;
mod fingerprint;
mod record;
mod summary;
pub mod deb822;
pub mod decompress;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use peil_proto::time::{UtcTime, WallClock};

pub use report::Report;

use apt_lists::{Lists, Wanted};
use os::OsRelease;
use preferences::{Policy, Provenance};
use report::{EndOfLife, ErrorKind, Level, Os, Problem, Reboot};
use root::Root;

/// How often a scan starts over when the lists were replaced underneath it; then it says so.
const ATTEMPTS_MAX: u32 = 2;

/// Reads the patch level of the system below `root`. `now` decides what has expired.
pub fn scan(root: &Path, now: UtcTime) -> Report {
    let root = Root::new(root);
    let os = os::read(&root);
    let uses_dpkg = match &os {
        Some(os) => os.uses_dpkg(),
        None => root.open(dpkg::STATUS).is_ok(),
    };
    let os = os.unwrap_or_default();
    if uses_dpkg { scan_dpkg(&root, &os, now) } else { unsupported(&os) }
}

/// A key that changes when a new [`scan`] could find something else, for a stat per file. `None` when
/// the root has no dpkg database. See the caveat about time in `fingerprint.rs`.
pub fn fingerprint(root: &Path) -> Option<u64> {
    fingerprint::of(&Root::new(root))
}

/// `peil-agent patch scan`: prints the report as JSON or as text. Exit status 0 when scanned, 2 when `root`
/// is no directory, 1 when the output cannot be written.
pub fn command(root: &Path, json: bool) -> ExitCode {
    if !root.is_dir() {
        eprintln!("{}: not a directory; give the root of a system with --root", root.display());
        return ExitCode::from(2);
    }
    let report = scan(root, WallClock::System.now());
    let text = if json {
        serde_json::to_string(&report).map(|text| text + "\n")
    } else {
        Ok(summary::Summary(&report).to_string())
    };
    let written =
        text.map_err(std::io::Error::from).and_then(|text| std::io::stdout().lock().write_all(text.as_bytes()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("cannot write the report: {e}");
            ExitCode::from(1)
        }
    }
}

fn scan_dpkg(root: &Root, os: &OsRelease, now: UtcTime) -> Report {
    let mut attempt = 1;
    loop {
        let before = fingerprint::of(root);
        let mut report = read_dpkg(root, os, now);
        if fingerprint::of(root) == before {
            return report;
        }
        if attempt == ATTEMPTS_MAX {
            let detail = format!("changed during each of {ATTEMPTS_MAX} scans; scan again when apt is done");
            report.errors.push(Problem::with(ErrorKind::ListsChanging, apt_lists::DIRECTORY, detail));
            report.level = Level::Unknown;
            return report;
        }
        attempt += 1;
    }
}

fn read_dpkg(root: &Root, os: &OsRelease, now: UtcTime) -> Report {
    let mut errors = Vec::new();
    let packages = dpkg::read(root, &mut errors);
    let native = dpkg::native_architecture(root, &packages);
    let lists = Lists::find(root, &mut errors);
    lists.check(root, &native, now, &mut errors);

    let untracked = kernel::untracked(&packages);
    let successor = |package: &str| judge::is_successor(&untracked, package);
    let wanted = Wanted::new(packages.iter().map(|p| p.package.as_str()), Some(&successor));
    let offers = lists.offers(root, &wanted, &mut errors);
    let files =
        [Provenance::installed()].into_iter().chain((0..lists.lists.len()).map(|at| lists.provenance(at))).collect();
    let policy = Policy::read(root, files, &mut errors);
    let (pending, findings) = judge::judge(&packages, &native, &lists, &offers, &policy);

    let archives = lists.archives();
    let end_of_life = eol::judge(root, os, &archives, now);
    let level = if errors.iter().any(|problem| problem.kind.blinds()) { Level::Unknown } else { Level::Known };
    errors.sort();
    Report {
        level,
        os: named(os, end_of_life),
        archives,
        installed: packages.len(),
        pending,
        findings,
        reboot: reboot::judge(root, &packages),
        errors,
    }
}

fn unsupported(os: &OsRelease) -> Report {
    let name = os.id.as_deref().unwrap_or("a system without os-release and without dpkg");
    let detail = format!("{name} is not supported: only dpkg and apt are read so far, so the patch level is unknown");
    Report {
        level: Level::Unknown,
        os: named(os, EndOfLife::default()),
        archives: Vec::new(),
        installed: 0,
        pending: Vec::new(),
        findings: Vec::new(),
        reboot: Reboot::default(),
        errors: vec![Problem::general(ErrorKind::Unsupported, detail)],
    }
}

fn named(os: &OsRelease, end_of_life: EndOfLife) -> Os {
    Os { id: os.id.clone(), version_id: os.version_id.clone(), codename: os.codename.clone(), end_of_life }
}
