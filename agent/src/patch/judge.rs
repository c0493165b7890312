//! What an installed package lacks: the candidate apt would choose, and security fixes whatever it chooses.
//!
//! A finding exists when any security archive holds a version newer than the installed one. The candidate
//! does not decide that: it may come from a point release that already contains the fix, or a pin may keep
//! it back. It decides the state only. Equal versions are no update, so local rebuilds are not listed.

use std::collections::HashMap;

use super::apt_lists::{Lists, Offer};
use super::dpkg::{Hold, Installed};
use super::kernel;
use super::preferences::{Policy, Subject, Version};
use super::report::{Finding, Pending, State};
use super::version;

/// The file index of dpkg's status in the policy; list `n` is `n + 1`.
const INSTALLED_FILE: usize = 0;

/// All pending updates and findings, sorted.
pub(crate) fn judge(
    packages: &[Installed],
    native: &str,
    lists: &Lists,
    offers: &[Offer],
    policy: &Policy,
) -> (Vec<Pending>, Vec<Finding>) {
    let effective = |arch: &'_ str| if arch == "all" { native.to_owned() } else { arch.to_owned() };
    let mut by_package: HashMap<(&str, String), Vec<&Offer>> = HashMap::new();
    for offer in offers {
        by_package.entry((&offer.package, effective(&offer.arch))).or_default().push(offer);
    }
    let (mut pending, mut findings) = (Vec::new(), Vec::new());
    for installed in packages {
        let arch = effective(&installed.arch);
        let Some(offers) = by_package.get(&(installed.package.as_str(), arch.clone())) else { continue };
        let subject = Subject { package: &installed.package, arch: &arch, native };
        let choice = Choice::make(subject, Some(installed), offers, policy);
        if is_newer(choice.version, &installed.version) {
            pending.push(choice.pending(installed));
        }
        let newest_fix = newest(offers.iter().copied().filter(|offer| lists.is_security(offer.list)));
        if let Some(fix) = newest_fix.filter(|fix| is_newer(&fix.version, &installed.version)) {
            findings.push(choice.finding(installed, fix));
        }
    }
    for installed in kernel::untracked(packages) {
        findings.extend(untracked_kernel(installed, packages, native, lists, offers, policy));
    }
    pending.sort();
    findings.sort();
    (pending, findings)
}

fn is_newer(version: &str, than: &str) -> bool {
    version::compare(version.as_bytes(), than.as_bytes()).is_gt()
}

fn newest<'a>(offers: impl Iterator<Item = &'a Offer>) -> Option<&'a Offer> {
    offers.max_by(|a, b| version::compare(a.version.as_bytes(), b.version.as_bytes()))
}

/// The candidate; the installed version when apt would do nothing.
struct Choice<'a> {
    version: &'a str,
}

impl<'a> Choice<'a> {
    fn make(subject: Subject<'_>, installed: Option<&'a Installed>, offers: &[&'a Offer], policy: &Policy) -> Self {
        let mut versions: Vec<Version<'a>> = Vec::with_capacity(offers.len() + 1);
        versions.extend(installed.map(|i| Version {
            text: &i.version,
            source: &i.source.name,
            files: vec![INSTALLED_FILE],
        }));
        for offer in offers {
            let file = offer.list + 1;
            match versions.iter_mut().find(|v| v.text == offer.version) {
                Some(known) => known.files.push(file),
                None => versions.push(Version { text: &offer.version, source: &offer.source.name, files: vec![file] }),
            }
        }
        let chosen = policy.candidate(subject, installed.map(|i| i.version.as_str()), &versions);
        match (chosen.and_then(|at| versions.get(at)), installed) {
            (Some(version), _) => Self { version: version.text },
            (None, Some(installed)) => Self { version: &installed.version },
            (None, None) => Self { version: "" },
        }
    }

    fn pending(&self, installed: &Installed) -> Pending {
        Pending {
            package: installed.package.clone(),
            arch: installed.arch.clone(),
            installed: installed.version.clone(),
            candidate: self.version.to_owned(),
        }
    }

    fn finding(&self, installed: &Installed, fix: &Offer) -> Finding {
        let state = match installed.hold {
            Hold::Held => State::Held,
            Hold::Free if is_newer(&fix.version, self.version) => State::BlockedPin,
            Hold::Free => State::Installable,
        };
        Finding {
            source: fix.source.name.clone(),
            source_version: fix.source.version.clone(),
            package: fix.package.clone(),
            arch: installed.arch.clone(),
            installed: installed.version.clone(),
            security_version: fix.version.clone(),
            candidate: if self.version.is_empty() { installed.version.clone() } else { self.version.to_owned() },
            state,
            advisory: None,
            issued: None,
        }
    }
}

/// True for kernel packages that may succeed one of `untracked`.
pub(crate) fn is_successor(untracked: &[&Installed], package: &str) -> bool {
    let flavour = |package| kernel::release_of(package).and_then(kernel::flavour);
    flavour(package).is_some_and(|offered| untracked.iter().any(|kernel| flavour(&kernel.package) == Some(offered)))
}

/// The newest kernel of a security archive that no metapackage would ever bring in.
fn untracked_kernel(
    installed: &Installed,
    packages: &[Installed],
    native: &str,
    lists: &Lists,
    offers: &[Offer],
    policy: &Policy,
) -> Option<Finding> {
    let is_new = |offer: &&Offer| {
        lists.is_security(offer.list)
            && offer.arch == installed.arch
            && is_successor(&[installed], &offer.package)
            && packages.iter().all(|p| p.package != offer.package)
    };
    let fix = newest(offers.iter().filter(is_new)).filter(|fix| is_newer(&fix.version, &installed.version))?;
    let same: Vec<&Offer> =
        offers.iter().filter(|offer| offer.package == fix.package && offer.arch == fix.arch).collect();
    let subject = Subject { package: &fix.package, arch: &fix.arch, native };
    Some(Choice::make(subject, None, &same, policy).finding(installed, fix))
}
