//! The lists apt fetched: which archives there are, and which versions they offer of what is installed.
//!
//! A list belongs to the release file whose name is the longest beginning of its own
//! (`HOST_PATH_dists_SUITE` + `_InRelease` and `_main_binary-amd64_Packages.lz4`), as apt names both after
//! their addresses. `partial/` holds what is not verified yet and is never read.
//!
//! Every list is streamed once; of its tens of thousands of stanzas only those of installed packages (and
//! of kernels, see `kernel.rs`) are kept. Missing, empty, expired and cut lists are told as problems: they
//! hide fixes.
//!
//! Deliberately absent: `sources.list`. apt removes lists of sources that are gone with its next update;
//! until then a fix that was seen stays seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::deb822::{self, Ending, Stanzas};
use super::decompress;
use super::dpkg::{self, Source};
use super::preferences::Provenance;
use super::release::{self, Release, Stamp, Upgrades};
use super::report::{Archive, ErrorKind, Problem};
use super::root::Root;

/// apt's list directory (`Dir::State::lists`).
pub(crate) const DIRECTORY: &str = "/var/lib/apt/lists";

/// How far an archive's date may lie in the future before a clock must be wrong.
const SKEW_MAX: Millis = Millis(24 * 3_600_000);

/// Endings of names of package indexes. `bz2` is found so that it can be refused.
const PACKINGS: [&str; 7] = ["", ".lz4", ".gz", ".xz", ".zst", ".bz2", ".lzma"];

/// All lists of a root.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    pub(crate) heads: Vec<Head>,
    pub(crate) lists: Vec<List>,
}

/// A release file.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) file: String,
    base: String,
    pub(crate) release: Release,
}

/// A package index.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) file: String,
    base: String,
    /// Which of the heads it belongs to; none for an archive without release file.
    pub(crate) head: Option<usize>,
    /// Its path in the archive, unpacked: `main/binary-amd64/Packages`.
    path: String,
}

/// A version of a wanted package in a list.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) package: String,
    pub(crate) arch: String,
    pub(crate) version: String,
    pub(crate) source: Source,
    pub(crate) list: usize,
}

impl Lists {
    /// Finds the lists and reads their heads.
    pub(crate) fn find(root: &Root, problems: &mut Vec<Problem>) -> Self {
        let names = root.names(DIRECTORY);
        let mut heads: BTreeMap<&str, &str> = BTreeMap::new();
        for suffix in ["_Release", "_InRelease"] {
            heads.extend(names.iter().filter_map(|name| Some((name.strip_suffix(suffix)?, name.as_str()))));
        }
        let mut found = Self::default();
        for (base, name) in heads {
            let file = format!("{DIRECTORY}/{name}");
            let release = release::read(root, &file).unwrap_or_else(|e| {
                problems.push(Problem::with(ErrorKind::ReleaseDamaged, &file, format!("cannot be read: {e}")));
                Release::default()
            });
            found.heads.push(Head { file, base: base.to_owned(), release });
        }
        for name in &names {
            if let Some(unpacked) = index_name(name) {
                found.add_list(name, unpacked);
            }
        }
        found
    }

    fn add_list(&mut self, name: &str, unpacked: &str) {
        let belongs = |head: &Head| {
            let rest = unpacked.strip_prefix(head.base.as_str()).is_some_and(|rest| rest.starts_with('_'));
            rest && (head.base.contains("_dists_") || !unpacked.contains("_dists_"))
        };
        let head =
            (0..self.heads.len()).filter(|at| belongs(&self.heads[*at])).max_by_key(|at| self.heads[*at].base.len());
        let base = head.map_or_else(
            || unpacked.split("_dists_").next().unwrap_or_default().to_owned(),
            |at| self.heads[at].base.clone(),
        );
        let path = decoded(&unpacked.get(base.len() + 1..).unwrap_or_default().replace('_', "/"));
        self.lists.push(List { file: format!("{DIRECTORY}/{name}"), base, head, path });
    }

    /// Notes what makes the lists unfit at `now`: none at all, an archive without lists, expired, or from
    /// the future.
    pub(crate) fn check(&self, root: &Root, native: &str, now: UtcTime, problems: &mut Vec<Problem>) {
        if self.lists.is_empty() {
            let detail = "holds no package lists; run apt-get update (images are often shipped without)";
            problems.push(Problem::with(ErrorKind::ListsMissing, DIRECTORY, detail));
            return;
        }
        let names = root.names(DIRECTORY);
        for (at, head) in self.heads.iter().enumerate() {
            let has_sources = || names.iter().any(|n| n.starts_with(&head.base) && n.contains("_Sources"));
            if !self.lists.iter().any(|list| list.head == Some(at))
                && !head.release.is_empty_for(native)
                && !has_sources()
            {
                let detail = "its package lists are not there; run apt-get update";
                problems.push(Problem::with(ErrorKind::ListsMissing, &head.file, detail));
            }
            head.check_dates(now, problems);
        }
        if !self.heads.iter().any(|head| head.release.is_security()) {
            let detail = "none of the lists is from a security archive, so missing security fixes cannot be seen";
            problems.push(Problem::with(ErrorKind::SecurityUnknown, DIRECTORY, detail));
        }
    }

    /// Reads all lists for offers of the `wanted` packages, by name.
    pub(crate) fn offers(&self, root: &Root, wanted: &Wanted<'_>, problems: &mut Vec<Problem>) -> Vec<Offer> {
        let mut offers = Vec::new();
        for (at, list) in self.lists.iter().enumerate() {
            let stated_bytes = list.head.and_then(|head| self.heads[head].release.index_bytes.get(&list.path)).copied();
            list.read(root, stated_bytes, problems, |stanza| offers.extend(wanted.take(stanza, at)));
        }
        offers
    }

    /// What pins can ask about list `at`.
    pub(crate) fn provenance(&self, at: usize) -> Provenance {
        let list = &self.lists[at];
        let (component, arch) = list.component_and_arch();
        let site = Some(site_of(&list.base));
        let Some(head) = list.head.map(|head| &self.heads[head].release) else {
            return Provenance { component, arch, site, priority: 500, ..Provenance::default() };
        };
        Provenance {
            archive: head.suite.clone(),
            codename: head.codename.clone(),
            version: head.version.clone(),
            origin: head.origin.clone(),
            label: head.label.clone(),
            component,
            arch,
            site,
            priority: match head.upgrades {
                Upgrades::Automatic => 500,
                Upgrades::OnceChosen => 100,
                Upgrades::Never => 1,
            },
        }
    }

    /// True when list `at` holds security fixes.
    pub(crate) fn is_security(&self, at: usize) -> bool {
        self.lists[at].head.is_some_and(|head| self.heads[head].release.is_security())
    }

    /// The archives for the report, one per release file, then those without.
    pub(crate) fn archives(&self) -> Vec<Archive> {
        let described = self.heads.iter().enumerate().map(|(at, head)| Archive {
            origin: head.release.origin.clone(),
            label: head.release.label.clone(),
            suite: head.release.suite.clone(),
            codename: head.release.codename.clone(),
            release_date: head.release.date.time().map(|t| t.to_string()),
            valid_until: head.release.valid_until.time().map(|t| t.to_string()),
            security: head.release.is_security(),
            site: site_of(&head.base),
            components: self.components(|list| list.head == Some(at)),
        });
        let bare: BTreeSet<&str> = self.lists.iter().filter(|l| l.head.is_none()).map(|l| l.base.as_str()).collect();
        let undescribed = bare.into_iter().map(|base| Archive {
            site: site_of(base),
            components: self.components(|list| list.head.is_none() && list.base == base),
            ..Archive::default()
        });
        described.chain(undescribed).collect()
    }

    fn components(&self, of: impl Fn(&List) -> bool) -> Vec<String> {
        let found: BTreeSet<String> =
            self.lists.iter().filter(|l| of(l)).filter_map(|l| l.component_and_arch().0).collect();
        found.into_iter().collect()
    }
}

impl Head {
    fn check_dates(&self, now: UtcTime, problems: &mut Vec<Problem>) {
        match self.release.valid_until {
            Stamp::At(until) if until < now => {
                let detail = format!("was valid until {until}; newer fixes are unknown here: run apt-get update");
                problems.push(Problem::with(ErrorKind::ListsExpired, &self.file, detail));
            }
            Stamp::Damaged => {
                problems.push(Problem::with(ErrorKind::ReleaseDamaged, &self.file, "Valid-Until is not a date"));
            }
            Stamp::At(_) | Stamp::Absent => {}
        }
        if let Some(date) = self.release.date.time().filter(|date| date.since(now) > SKEW_MAX) {
            let detail = format!("is dated {date}, in the future: the clock of this host or of the archive is wrong");
            problems.push(Problem::with(ErrorKind::ClockSkew, &self.file, detail));
        }
    }
}

impl Release {
    /// True when the archive says that it has no packages for this architecture.
    fn is_empty_for(&self, native: &str) -> bool {
        let ours = |path: &str| {
            !path.contains("binary-") || path.contains(&format!("binary-{native}/")) || path.contains("binary-all/")
        };
        !self.index_bytes.is_empty() && self.index_bytes.iter().all(|(path, bytes)| *bytes == 0 || !ours(path))
    }
}

impl List {
    /// Gives every stanza to `each`; what is wrong with the file is told.
    fn read(&self, root: &Root, stated_bytes: Option<u64>, problems: &mut Vec<Problem>, mut each: impl FnMut(&[u8])) {
        let file = match root.open(&self.file) {
            Ok(file) => file,
            Err(e) => {
                problems.push(Problem::with(ErrorKind::ListUnreadable, &self.file, format!("cannot be opened: {e}")));
                return;
            }
        };
        let mut count = 0usize;
        let mut stanzas = Stanzas::new(|stanza: &[u8]| {
            count += 1;
            each(stanza);
        });
        let outcome = decompress::unpack(file, &mut stanzas);
        let ending = stanzas.finish();
        match outcome {
            Err(e) => problems.push(Problem::with(ErrorKind::ListUnreadable, &self.file, e.to_string())),
            Ok(bytes) if stated_bytes.is_some_and(|stated| bytes < stated) => {
                let detail =
                    format!("has {bytes} of the {} bytes its archive states", stated_bytes.unwrap_or_default());
                problems.push(Problem::with(ErrorKind::ListTruncated, &self.file, detail));
            }
            Ok(_) if ending == Ending::Cut => {
                problems.push(Problem::with(ErrorKind::ListTruncated, &self.file, "ends in the middle of a line"));
            }
            Ok(_) if count == 0 && stated_bytes != Some(0) => {
                problems.push(Problem::with(ErrorKind::ListsMissing, &self.file, "is empty; run apt-get update"));
            }
            Ok(_) => {}
        }
    }

    /// `main` and `amd64` of `main/binary-amd64/Packages`; neither in a flat archive.
    fn component_and_arch(&self) -> (Option<String>, Option<String>) {
        let directory = self.path.strip_suffix("/Packages").unwrap_or_default();
        match directory.rsplit_once("binary-") {
            Some((component, arch)) => (Some(component.trim_end_matches('/').to_owned()), Some(arch.to_owned())),
            None => (None, None),
        }
    }
}

/// Which packages are worth keeping.
pub(crate) struct Wanted<'a> {
    names: HashMap<&'a [u8], ()>,
    also: Option<&'a dyn Fn(&str) -> bool>,
}

impl<'a> Wanted<'a> {
    /// Packages called one of `names`, or accepted by `also`.
    pub(crate) fn new(names: impl Iterator<Item = &'a str>, also: Option<&'a dyn Fn(&str) -> bool>) -> Self {
        Self { names: names.map(|name| (name.as_bytes(), ())).collect(), also }
    }

    fn take(&self, stanza: &[u8], list: usize) -> Option<Offer> {
        let name = deb822::field(stanza, "Package")?;
        let also = |name: &[u8]| self.also.is_some_and(|also| std::str::from_utf8(name).is_ok_and(also));
        if !self.names.contains_key(name) && !also(name) {
            return None;
        }
        let package = String::from_utf8_lossy(name).into_owned();
        let version = deb822::text(stanza, "Version").filter(|v| !v.is_empty())?;
        let arch = deb822::text(stanza, "Architecture").filter(|v| !v.is_empty())?;
        let source = dpkg::source_of(stanza, &package, &version);
        Some(Offer { package, arch, version, source, list })
    }
}

/// The name without its packing, when it is that of a package index.
fn index_name(name: &str) -> Option<&str> {
    PACKINGS.iter().filter_map(|packing| name.strip_suffix(packing)).find(|name| name.ends_with("_Packages"))
}

/// The host an archive was fetched from: what stands before the first `_`, without port.
fn site_of(base: &str) -> String {
    let host = decoded(base.split('_').next().unwrap_or_default());
    host.split(':').next().unwrap_or_default().to_owned()
}

/// `%5f` is `_`: how apt writes what has a meaning in file names.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code.filter(|_| first == b'%') {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
#[path = "apt_lists_tests.rs"]
mod tests;
