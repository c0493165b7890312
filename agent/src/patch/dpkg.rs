//! The installed packages, from dpkg's status file, and the architecture they belong to.
//!
//! Installed is everything whose state is not `not-installed` or `config-files`: a removed package that
//! left its settings behind needs no fix, a half-configured one does (and is reported as broken).
//!
//! Deliberately absent: dpkg's journal `/var/lib/dpkg/updates`, which holds something only while dpkg
//! runs; the next scan sees the outcome.

use std::collections::BTreeMap;

use super::deb822::{self, Ending, Stanzas};
use super::decompress;
use super::report::{ErrorKind, Problem};
use super::root::Root;

/// dpkg's database.
pub(crate) const STATUS: &str = "/var/lib/dpkg/status";

/// The native architecture on its first line, foreign ones below; absent on hosts with only one.
pub(crate) const ARCHITECTURES: &str = "/var/lib/dpkg/arch";

/// One installed package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installed {
    pub(crate) package: String,
    pub(crate) arch: String,
    pub(crate) version: String,
    pub(crate) source: Source,
    pub(crate) hold: Hold,
}

/// The source package a binary was built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// Whether somebody asked dpkg to keep the package as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    Free,
    Held,
}

/// Reads the status file; what cannot be read is told in `problems`.
pub(crate) fn read(root: &Root, problems: &mut Vec<Problem>) -> Vec<Installed> {
    let file = match root.open(STATUS) {
        Ok(file) => file,
        Err(e) => {
            problems.push(Problem::with(ErrorKind::StatusMissing, STATUS, format!("cannot be opened: {e}")));
            return Vec::new();
        }
    };
    let mut found = Found::default();
    let mut stanzas = Stanzas::new(|stanza: &[u8]| found.take(stanza));
    let outcome = decompress::unpack(file, &mut stanzas);
    let ending = stanzas.finish();
    if let Err(e) = outcome {
        problems.push(Problem::with(ErrorKind::StatusDamaged, STATUS, e.to_string()));
    }
    if ending == Ending::Cut {
        problems.push(Problem::with(ErrorKind::StatusDamaged, STATUS, "ends in the middle of a line"));
    }
    if found.damaged > 0 {
        let detail = format!("{} entries without package, version, status or architecture", found.damaged);
        problems.push(Problem::with(ErrorKind::StatusDamaged, STATUS, detail));
    }
    problems.append(&mut found.broken);
    found.packages
}

#[derive(Default)]
struct Found {
    packages: Vec<Installed>,
    broken: Vec<Problem>,
    damaged: usize,
}

impl Found {
    fn take(&mut self, stanza: &[u8]) {
        let Some(status) = deb822::text(stanza, "Status") else {
            self.damaged += 1;
            return;
        };
        let mut words = status.split_whitespace();
        let (want, flag, state) = (words.next(), words.next(), words.next());
        match state {
            Some("not-installed" | "config-files") => return,
            Some(_) => {}
            None => {
                self.damaged += 1;
                return;
            }
        }
        let needed =
            ["Package", "Version", "Architecture"].map(|name| deb822::text(stanza, name).filter(|v| !v.is_empty()));
        let [Some(package), Some(version), Some(arch)] = needed else {
            self.damaged += 1;
            return;
        };
        if flag == Some("reinstreq") || matches!(state, Some("half-installed" | "unpacked" | "half-configured")) {
            let detail = format!("{package}:{arch} is {status:?}; run dpkg --configure -a or install it again");
            self.broken.push(Problem::with(ErrorKind::PackageBroken, STATUS, detail));
        }
        let hold = if want == Some("hold") { Hold::Held } else { Hold::Free };
        let source = source_of(stanza, &package, &version);
        self.packages.push(Installed { package, arch, version, source, hold });
    }
}

/// `Source: name (version)`; both default to those of the binary package.
pub(crate) fn source_of(stanza: &[u8], package: &str, version: &str) -> Source {
    let text = deb822::text(stanza, "Source").unwrap_or_default();
    let (name, rest) = text.split_once('(').unwrap_or((&text, ""));
    let pick = |given: &str, default: &str| if given.is_empty() { default.to_owned() } else { given.to_owned() };
    Source { name: pick(name.trim(), package), version: pick(rest.trim().trim_end_matches(')').trim(), version) }
}

/// The architecture `all` packages count as. dpkg compiles it in, so a foreign root is asked in turn: its
/// `arch` file, its dpkg package, then whether this program's own architecture or another prevails.
pub(crate) fn native_architecture(root: &Root, packages: &[Installed]) -> String {
    if let Some(first) = root.text(ARCHITECTURES).ok().and_then(|t| t.lines().next().map(|l| l.trim().to_owned()))
        && !first.is_empty()
    {
        return first;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for installed in packages.iter().filter(|p| p.arch != "all") {
        if installed.package == "dpkg" {
            return installed.arch.clone();
        }
        *counts.entry(&installed.arch).or_default() += 1;
    }
    let own = own_architecture();
    match counts.iter().max_by_key(|(_, count)| **count) {
        Some((most, _)) if !counts.contains_key(own) => (*most).to_owned(),
        _ => own.to_owned(),
    }
}

/// Debian's name for what this program was compiled for.
fn own_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "i386",
        "arm" => "armhf",
        "powerpc64" => "ppc64el",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn root_with(status: &[u8]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("var/lib/dpkg")).unwrap();
        std::fs::write(dir.path().join("var/lib/dpkg/status"), status).unwrap();
        let root = Root::new(dir.path());
        (dir, root)
    }

    #[test]
    fn only_what_is_on_disk_counts_as_installed() {
        let entry = |name: &str, status: &str| {
            format!("Package: {name}\nStatus: {status}\nVersion: 1\nArchitecture: amd64\n\n")
        };
        let text = [
            "install ok installed",
            "deinstall ok config-files",
            "purge ok not-installed",
            "hold ok installed",
            "install ok half-configured",
            "install ok triggers-pending",
        ]
        .iter()
        .enumerate()
        .map(|(i, status)| entry(&format!("p{i}"), status))
        .collect::<String>();
        let (_dir, root) = root_with(text.as_bytes());
        let mut problems = Vec::new();
        let found = read(&root, &mut problems);
        assert_eq!(found.iter().map(|p| p.package.as_str()).collect::<Vec<_>>(), ["p0", "p3", "p4", "p5"]);
        assert_eq!(found.iter().filter(|p| p.hold == Hold::Held).count(), 1);
        assert_eq!(problems.iter().map(|p| p.kind).collect::<Vec<_>>(), [ErrorKind::PackageBroken]);
        assert!(problems[0].detail.contains("p4:amd64"));
    }

    #[test]
    fn a_cut_status_file_is_told_and_the_rest_used() {
        let (_dir, root) = root_with(b"Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\nPackage: b\nStatus: install ok installed\nVersion: 1.2");
        let mut problems = Vec::new();
        assert_eq!(read(&root, &mut problems).len(), 1);
        assert_eq!(problems.iter().map(|p| p.kind).collect::<Vec<_>>(), [ErrorKind::StatusDamaged; 2]);
    }

    #[test]
    fn the_source_has_its_own_version() {
        let of = |line: &str| source_of(line.as_bytes(), "postgresql", "15+248");
        assert_eq!(
            of("Source: postgresql-common (248+deb12u2)\n"),
            Source { name: "postgresql-common".into(), version: "248+deb12u2".into() }
        );
        assert_eq!(
            of("Source: postgresql-common\n"),
            Source { name: "postgresql-common".into(), version: "15+248".into() }
        );
        assert_eq!(of("Package: postgresql\n"), Source { name: "postgresql".into(), version: "15+248".into() });
    }

    #[test]
    fn the_native_architecture_is_that_of_the_root() {
        let (dir, root) = root_with(b"");
        let package = |name: &str, arch: &str| Installed {
            package: name.into(),
            arch: arch.into(),
            version: "1".into(),
            hold: Hold::Free,
            source: Source { name: name.into(), version: "1".into() },
        };
        assert_eq!(native_architecture(&root, &[package("a", "s390x"), package("b", "all")]), "s390x");
        assert_eq!(native_architecture(&root, &[package("a", "s390x"), package("dpkg", "riscv64")]), "riscv64");
        assert_eq!(native_architecture(&root, &[package("a", "all")]), own_architecture());
        std::fs::write(dir.path().join("var/lib/dpkg/arch"), "arm64\namd64\n").unwrap();
        assert_eq!(native_architecture(&root, &[package("dpkg", "riscv64")]), "arm64");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut found = Found::default();
            found.take(&bytes);
            found.take(&[b"Status: hold ok installed\nPackage: a\nVersion: 1\nArchitecture: b\nSource: ", &bytes[..]].concat());
            prop_assert!(found.packages.len() <= 2);
        }
    }
}
