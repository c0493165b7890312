//! Which version apt would choose: pins from `/etc/apt/preferences{,.d}` and each archive's own priority.
//!
//! The rules of apt_preferences(5), and of apt's `policy.cc` where the manual is silent:
//! - a pin on `Package: *` sets the priority of an archive, the first that matches wins; without one it is
//!   500, 100 for backports, 1 for experimental, and 990 for the default release;
//! - any other pin sets the priority of matching *versions*, again the first that matches, and then the
//!   archives' priorities do not count; without an architecture it speaks of native packages only;
//! - what is installed has 100 by itself; versions are tried from high to low, a strictly higher priority
//!   wins, a priority of 0 or less never, and below what is installed only one of 1000 or more.
//!
//! Deliberately absent: phased updates (apt itself lists them as upgradable; security archives have none).

use std::cmp::Ordering;

use super::apt_conf;
use super::deb822::{self, Stanzas};
use super::pattern::Pattern;
use super::report::{ErrorKind, Problem};
use super::root::Root;
use super::version;

pub(crate) const FILE: &str = "/etc/apt/preferences";
pub(crate) const DIRECTORY: &str = "/etc/apt/preferences.d";

/// What pins can ask about the file a version comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Provenance {
    pub(crate) archive: Option<String>,
    pub(crate) codename: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) origin: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) component: Option<String>,
    pub(crate) arch: Option<String>,
    /// Host part of the address; empty for a local directory, `None` for dpkg's status.
    pub(crate) site: Option<String>,
    /// Priority when no pin speaks.
    pub(crate) priority: i32,
}

impl Provenance {
    /// dpkg's status file: the archive `now`.
    pub(crate) fn installed() -> Self {
        Self { archive: Some("now".to_owned()), priority: 100, ..Self::default() }
    }
}

/// The package a choice is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) package: &'a str,
    /// The architecture it is installed for, native for `all`.
    pub(crate) arch: &'a str,
    pub(crate) native: &'a str,
}

/// A version on offer; `files` index the policy's files.
#[derive(Debug, Clone)]
pub(crate) struct Version<'a> {
    pub(crate) text: &'a str,
    pub(crate) source: &'a str,
    pub(crate) files: Vec<usize>,
}

/// Priorities of files and versions.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    files: Vec<Provenance>,
    priorities: Vec<i32>,
    pins: Vec<Pin>,
}

#[derive(Debug, Clone)]
struct Pin {
    /// `None` is `Package: *`.
    target: Option<Target>,
    what: What,
    priority: i32,
}

#[derive(Debug, Clone)]
struct Target {
    by_source: bool,
    name: Name,
    arch: Option<String>,
}

#[derive(Debug, Clone)]
enum Name {
    Exactly(String),
    Like(Pattern),
}

#[derive(Debug, Clone)]
enum What {
    /// A version or, with a final `*`, its beginning, or a pattern.
    Version {
        text: String,
        pattern: Pattern,
    },
    /// Every condition holds; none at all is `release *`.
    Release(Vec<(Field, Pattern)>),
    Site(Pattern),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Archive,
    Codename,
    ArchiveOrCodename,
    Version,
    Origin,
    Label,
    Component,
    Arch,
}

impl Policy {
    /// Reads the root's preferences and applies them to `files`. What is not understood is told in
    /// `problems` and left out; apt would stop altogether.
    pub(crate) fn read(root: &Root, files: Vec<Provenance>, problems: &mut Vec<Problem>) -> Self {
        let mut pins = Vec::new();
        if let Some(release) = apt_conf::default_release(root) {
            match release_pin(&release) {
                Ok(what) => pins.push(Pin { target: None, what, priority: 990 }),
                Err(e) => problems.push(Problem::with(ErrorKind::PreferencesInvalid, apt_conf::FILE, e)),
            }
        }
        for file in [FILE.to_owned()].into_iter().chain(apt_conf::fragments(root, DIRECTORY, "pref")) {
            if let Ok(text) = root.text(&file) {
                let mut mistakes = Vec::new();
                parse(&text, &mut pins, &mut mistakes);
                problems.extend(mistakes.into_iter().map(|m| Problem::with(ErrorKind::PreferencesInvalid, &file, m)));
            }
        }
        Self::new(files, pins)
    }

    fn new(files: Vec<Provenance>, pins: Vec<Pin>) -> Self {
        let of_file = |file: &Provenance| {
            let pin = pins.iter().find(|pin| pin.target.is_none() && pin.what.fits_file(file));
            pin.map_or(file.priority, |pin| pin.priority)
        };
        Self { priorities: files.iter().map(of_file).collect(), files, pins }
    }

    /// The place of the version apt would have installed; `None` when it would choose none.
    pub(crate) fn candidate(
        &self,
        subject: Subject<'_>,
        installed: Option<&str>,
        versions: &[Version<'_>],
    ) -> Option<usize> {
        let mut order: Vec<usize> = (0..versions.len()).collect();
        order.sort_by(|a, b| version::compare(versions[*b].text.as_bytes(), versions[*a].text.as_bytes()));
        let mut best: Option<(usize, i32)> = None;
        for at in order {
            let priority = self.priority(subject, &versions[at]);
            let lower = installed
                .is_some_and(|now| version::compare(versions[at].text.as_bytes(), now.as_bytes()) == Ordering::Less);
            if priority > 0 && best.is_none_or(|(_, highest)| priority > highest) && (!lower || priority >= 1000) {
                best = Some((at, priority));
            }
        }
        best.map(|(at, _)| at)
    }

    fn priority(&self, subject: Subject<'_>, version: &Version<'_>) -> i32 {
        let pin = self.pins.iter().find(|pin| {
            pin.target.as_ref().is_some_and(|target| target.names(subject, version.source))
                && pin.what.fits_version(version, &self.files)
        });
        match pin {
            Some(pin) => pin.priority,
            None => version.files.iter().filter_map(|file| self.priorities.get(*file).copied()).max().unwrap_or(0),
        }
    }
}

impl Target {
    fn names(&self, subject: Subject<'_>, source: &str) -> bool {
        let name = if self.by_source { source } else { subject.package };
        let arch_fits = match self.arch.as_deref() {
            None | Some("native") => subject.arch == subject.native,
            Some("any" | "*") => true,
            Some(arch) => subject.arch == arch,
        };
        arch_fits
            && match &self.name {
                Name::Exactly(exact) => exact == name,
                Name::Like(pattern) => pattern.matches(name),
            }
    }
}

impl What {
    fn fits_file(&self, file: &Provenance) -> bool {
        match self {
            Self::Version { .. } => false,
            Self::Release(conditions) => conditions.iter().all(|(field, pattern)| field.fits(file, pattern)),
            Self::Site(pattern) => file.site.as_deref().is_some_and(|site| pattern.matches(site)),
        }
    }

    fn fits_version(&self, version: &Version<'_>, files: &[Provenance]) -> bool {
        match self {
            Self::Version { text, pattern } => {
                let begins = text.strip_suffix('*').is_some_and(|start| version.text.starts_with(start));
                version.text == text || begins || pattern.matches(version.text)
            }
            _ => version.files.iter().filter_map(|at| files.get(*at)).any(|file| self.fits_file(file)),
        }
    }
}

impl Field {
    fn fits(self, file: &Provenance, pattern: &Pattern) -> bool {
        let fits = |value: &Option<String>| value.as_deref().is_some_and(|v| pattern.matches(v));
        match self {
            Self::Archive => fits(&file.archive),
            Self::Codename => fits(&file.codename),
            Self::ArchiveOrCodename => fits(&file.archive) || fits(&file.codename),
            Self::Version => fits(&file.version),
            Self::Origin => fits(&file.origin),
            Self::Label => fits(&file.label),
            Self::Component => fits(&file.component),
            Self::Arch => fits(&file.arch),
        }
    }
}

fn parse(text: &str, pins: &mut Vec<Pin>, mistakes: &mut Vec<String>) {
    let mut stanzas = Stanzas::new(|stanza: &[u8]| {
        if deb822::fields(stanza).next().is_some()
            && let Err(e) = parse_record(stanza, pins)
        {
            mistakes.push(e);
        }
    });
    // Pushing into the splitter cannot fail: it only writes to memory.
    let _ = std::io::Write::write_all(&mut stanzas, text.as_bytes());
    let _ = std::io::Write::write_all(&mut stanzas, b"\n\n");
    stanzas.finish();
}

fn parse_record(stanza: &[u8], pins: &mut Vec<Pin>) -> Result<(), String> {
    let needed =
        |name: &str| deb822::text(stanza, name).filter(|v| !v.is_empty()).ok_or(format!("a record without {name}"));
    let packages = needed("Package")?;
    let pin = needed("Pin")?;
    let priority = needed("Pin-Priority")?;
    let priority = match priority.parse::<i16>() {
        Ok(0) | Err(_) => {
            return Err(format!(
                "Pin-Priority {priority:?} of {packages:?} is not a number from -32768 to 32767 other than 0"
            ));
        }
        Ok(n) => i32::from(n),
    };
    let (kind, data) = pin.split_once(char::is_whitespace).unwrap_or((&pin, ""));
    let data = data.trim();
    let what = match kind.to_ascii_lowercase().as_str() {
        "version" if packages != "*" => What::Version { text: data.to_owned(), pattern: Pattern::parse(data)? },
        "release" => release_pin(data)?,
        "origin" => {
            What::Site(Pattern::parse(data.strip_prefix('"').and_then(|d| d.strip_suffix('"')).unwrap_or(data))?)
        }
        _ => return Err(format!("Pin {pin:?} of {packages:?} is not version, release or origin")),
    };
    if packages == "*" {
        pins.push(Pin { target: None, what, priority });
        return Ok(());
    }
    for word in packages.split_whitespace() {
        pins.push(Pin { target: Some(target(word)?), what: what.clone(), priority });
    }
    Ok(())
}

fn target(word: &str) -> Result<Target, String> {
    let (by_source, rest) = word.strip_prefix("src:").map_or((false, word), |rest| (true, rest));
    let (name, arch) = match rest.rsplit_once(':') {
        Some((name, arch)) => (name, Some(arch.to_owned())),
        None => (rest, None),
    };
    let is_pattern = name.starts_with('/') || name.contains(['*', '[', '?']);
    let name = if is_pattern { Name::Like(Pattern::parse(name)?) } else { Name::Exactly(name.to_owned()) };
    Ok(Target { by_source, name, arch })
}

/// `a=stable, l=Debian`; a bare word is an archive or a codename, a bare number a version.
fn release_pin(data: &str) -> Result<What, String> {
    if data == "*" {
        return Ok(What::Release(Vec::new()));
    }
    let mut conditions = Vec::new();
    for part in data.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (field, value) = match part.split_once('=') {
            Some((key, value)) => {
                (release_field(key.trim()).ok_or(format!("{part:?} is no release condition"))?, value.trim())
            }
            None if part.starts_with(|c: char| c.is_ascii_digit()) => (Field::Version, part),
            None => (Field::ArchiveOrCodename, part),
        };
        conditions.push((field, Pattern::parse(value)?));
    }
    if conditions.is_empty() {
        Err("a release pin without conditions".to_owned())
    } else {
        Ok(What::Release(conditions))
    }
}

fn release_field(key: &str) -> Option<Field> {
    Some(match key.to_ascii_lowercase().as_str() {
        "a" | "archive" | "suite" => Field::Archive,
        "n" | "codename" => Field::Codename,
        "v" | "version" => Field::Version,
        "o" | "origin" => Field::Origin,
        "l" | "label" => Field::Label,
        "c" | "component" => Field::Component,
        "b" | "arch" | "architecture" => Field::Arch,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "preferences_tests.rs"]
mod tests;
