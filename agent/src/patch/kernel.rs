//! Kernels: they are installed beside each other, and the fix counts only once it runs.
//!
//! `linux-image-6.1.0-40-amd64` is never upgraded: the next one is a new package, pulled in by the
//! metapackage `linux-image-amd64`. So two questions that versions of installed packages do not answer:
//! does a newer installed kernel wait for a reboot, and, where no metapackage is installed, does the
//! security archive have a newer kernel that would never arrive.
//!
//! Versions are compared as package versions, never as names. Where the running kernel is not one of this
//! root's (a container, a microVM, another root than the running system), nothing is claimed.

use super::dpkg::Installed;
use super::version;

/// The running kernel, as the system tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Running {
    /// `uname -r`.
    pub(crate) release: String,
    /// `/proc/version`; Debian's holds the exact package version.
    pub(crate) banner: String,
}

/// What the installed kernels say about a reboot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The newest installed kernel of its flavour is running.
    Current,
    /// A newer one is installed.
    Newer(String),
    /// The running kernel is not one of this root's.
    NotOurs(String),
}

/// `amd64` of `6.1.0-40-amd64`, `cloud-amd64` of `6.12.43+deb13-cloud-amd64`: the first part after the
/// version that does not begin with a digit, and all that follows.
pub(crate) fn flavour(release: &str) -> Option<&str> {
    let mut rest = release;
    loop {
        rest = rest.split_once('-')?.1;
        if !rest.starts_with(|c: char| c.is_ascii_digit()) && !rest.is_empty() {
            return Some(rest);
        }
    }
}

/// The release of a kernel package: `6.1.0-40-amd64` of `linux-image-6.1.0-40-amd64`. Metapackages and
/// debug symbols are none.
pub(crate) fn release_of(package: &str) -> Option<&str> {
    let rest = package.strip_prefix("linux-image-")?;
    let rest = rest.strip_prefix("unsigned-").unwrap_or(rest);
    (rest.starts_with(|c: char| c.is_ascii_digit()) && !rest.ends_with("-dbg") && !rest.ends_with("-dbgsym"))
        .then_some(rest)
}

/// Compares what runs with what is installed.
pub(crate) fn judge(running: &Running, packages: &[Installed]) -> Verdict {
    let release = running.release.as_str();
    let Some(flavour) = flavour(release) else {
        return Verdict::NotOurs(format!("the running kernel {release} is not a packaged one"));
    };
    let kernels =
        || packages.iter().filter(|p| release_of(&p.package).is_some_and(|r| self::flavour(r) == Some(flavour)));
    let Some(booted) = kernels().find(|p| release_of(&p.package) == Some(release)) else {
        return Verdict::NotOurs(format!("the running kernel {release} belongs to no installed package"));
    };
    let now = package_version(&running.banner).unwrap_or(&booted.version);
    let newest =
        kernels().max_by(|a, b| version::compare(a.version.as_bytes(), b.version.as_bytes())).unwrap_or(booted);
    if version::compare(newest.version.as_bytes(), now.as_bytes()).is_gt() {
        Verdict::Newer(format!("{} {} is installed, {release} ({now}) is running", newest.package, newest.version))
    } else {
        Verdict::Current
    }
}

/// `6.1.192-2` of `… #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-10-01)`.
fn package_version(banner: &str) -> Option<&str> {
    let after = banner.rsplit_once(" Debian ")?.1;
    after.split_whitespace().next().filter(|v| v.starts_with(|c: char| c.is_ascii_digit()))
}

/// The newest installed kernel of each flavour that no installed metapackage keeps up to date.
pub(crate) fn untracked(packages: &[Installed]) -> Vec<&Installed> {
    let is_metapackage = |p: &&Installed| {
        p.package
            .strip_prefix("linux-image-")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()) && !rest.starts_with("unsigned-"))
    };
    if packages.iter().any(|p| is_metapackage(&p)) {
        return Vec::new();
    }
    let mut newest: Vec<&Installed> = Vec::new();
    for package in packages {
        let Some(flavour) = release_of(&package.package).and_then(flavour) else { continue };
        let same = |other: &&mut &Installed| {
            release_of(&other.package).and_then(self::flavour) == Some(flavour) && other.arch == package.arch
        };
        match newest.iter_mut().find(same) {
            Some(known) if version::compare(package.version.as_bytes(), known.version.as_bytes()).is_gt() => {
                *known = package;
            }
            Some(_) => {}
            None => newest.push(package),
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::dpkg::{Hold, Source};
    use proptest::prelude::*;

    fn installed(list: &[(&str, &str)]) -> Vec<Installed> {
        let one = |(package, version): &(&str, &str)| Installed {
            package: (*package).to_owned(),
            arch: "amd64".to_owned(),
            version: (*version).to_owned(),
            hold: Hold::Free,
            source: Source { name: "linux".to_owned(), version: (*version).to_owned() },
        };
        list.iter().map(one).collect()
    }

    #[test]
    fn the_flavour_is_what_follows_the_version() {
        for (release, expected) in [
            ("6.1.0-40-amd64", Some("amd64")),
            ("6.1.0-40-cloud-amd64", Some("cloud-amd64")),
            ("6.1.0-0.deb11.21-rt-amd64", Some("rt-amd64")),
            ("6.12.43+deb13-amd64", Some("amd64")),
            ("5.15.0-91-generic", Some("generic")),
            ("6.18.44-fc-v657", Some("fc-v657")),
            ("6.18.44", None),
            ("", None),
        ] {
            assert_eq!(flavour(release), expected, "{release}");
        }
        assert_eq!(release_of("linux-image-unsigned-5.15.0-91-generic"), Some("5.15.0-91-generic"));
        assert_eq!(release_of("linux-image-amd64"), None);
        assert_eq!(release_of("linux-image-6.1.0-40-amd64-dbg"), None);
    }

    #[test]
    fn a_newer_installed_kernel_waits_for_a_reboot() {
        let debian = "Linux version 6.1.0-9-amd64 (d@l) (gcc) #1 SMP PREEMPT_DYNAMIC Debian 6.1.27-1 (2023-05-08)";
        let nine = ("linux-image-6.1.0-9-amd64", "6.1.27-1");
        let ten = ("linux-image-6.1.0-10-amd64", "6.1.38-1");
        for (release, banner, packages, newer) in [
            ("6.1.0-9-amd64", debian, vec![nine], Some(false)),
            ("6.1.0-9-amd64", debian, vec![nine, ten], Some(true)),
            // By name -9- sorts after -10-.
            ("6.1.0-10-amd64", "", vec![nine, ten], Some(false)),
            // Same name, rebuilt: only the banner shows that the old one runs.
            ("6.1.0-9-amd64", debian, vec![("linux-image-6.1.0-9-amd64", "6.1.27-1+b1")], Some(true)),
            ("6.1.0-9-amd64", "", vec![nine, ("linux-image-6.1.0-10-cloud-amd64", "6.1.38-1")], Some(false)),
            ("6.1.0-9-amd64", debian, vec![ten], None),
            ("6.18.44-fc-v657", "", vec![nine], None),
            ("6.1.0-9-amd64", debian, vec![], None),
        ] {
            let running = Running { release: release.to_owned(), banner: banner.to_owned() };
            let found = match judge(&running, &installed(&packages)) {
                Verdict::Current => Some(false),
                Verdict::Newer(_) => Some(true),
                Verdict::NotOurs(_) => None,
            };
            assert_eq!(found, newer, "{release} with {packages:?}");
        }
    }

    #[test]
    fn kernels_without_metapackage_are_untracked() {
        let two = [("linux-image-6.1.0-9-amd64", "6.1.27-1"), ("linux-image-6.1.0-10-amd64", "6.1.38-1")];
        let packages = installed(&two);
        assert_eq!(untracked(&packages).iter().map(|p| p.version.as_str()).collect::<Vec<_>>(), ["6.1.38-1"]);
        let tracked = installed(&[two[0], ("linux-image-amd64", "6.1.27-1")]);
        assert_eq!(untracked(&tracked), Vec::<&Installed>::new());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(release in "\\PC{0,30}", banner in "\\PC{0,30}") {
            flavour(&release);
            release_of(&format!("linux-image-{release}"));
            judge(&Running { release, banner: format!("x Debian {banner}") }, &installed(&[("linux-image-6.1.0-9-amd64", "1")]));
        }
    }
}
