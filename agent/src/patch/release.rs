//! The head of an archive: `InRelease` (signed in place) or `Release`.
//!
//! Signatures are apt's work, done when the lists were fetched; a file that did not verify never leaves
//! `partial/`. We read who the archive is, when it was made, how long that holds, and how long its package
//! indexes are, so that a list cut short or fetched only in part is noticed.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::deb822;
use super::root::Root;

/// How far a release file is read, in bytes; Debian's largest is 200 kB. What follows is ignored.
const RELEASE_BYTES_MAX: u64 = 16 << 20;

/// The head of one archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Release {
    pub(crate) origin: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) suite: Option<String>,
    pub(crate) codename: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) date: Stamp,
    pub(crate) valid_until: Stamp,
    pub(crate) upgrades: Upgrades,
    /// Length in bytes of every unpacked `Packages` file, by its path in the archive.
    pub(crate) index_bytes: BTreeMap<String, u64>,
}

/// A date of the head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// There is no such line.
    #[default]
    Absent,
    /// There is a line that is no date.
    Damaged,
    At(UtcTime),
}

/// Whether apt takes versions from this archive by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Upgrades {
    #[default]
    Automatic,
    /// `NotAutomatic` + `ButAutomaticUpgrades`: only what was taken from it before (backports).
    OnceChosen,
    /// `NotAutomatic`: never by itself (experimental).
    Never,
}

impl Stamp {
    /// The moment, where there is one.
    pub(crate) fn time(self) -> Option<UtcTime> {
        match self {
            Self::At(at) => Some(at),
            Self::Absent | Self::Damaged => None,
        }
    }
}

impl Release {
    /// True when what this archive offers are security fixes.
    ///
    /// Debian's says so in its label (the suite is renamed through the years, and once was
    /// `stretch/updates`); Ubuntu's, ESM's and most derivatives' in the suite.
    pub(crate) fn is_security(&self) -> bool {
        [&self.label, &self.suite, &self.codename]
            .into_iter()
            .flatten()
            .any(|name| name.to_ascii_lowercase().ends_with("-security"))
    }
}

/// Reads the head in `file`.
pub(crate) fn read(root: &Root, file: &str) -> io::Result<Release> {
    parse(BufReader::new(root.open(file)?.take(RELEASE_BYTES_MAX)))
}

/// Only the date of the head in `file`, from its first 4 KiB.
pub(crate) fn date(root: &Root, file: &str) -> Option<UtcTime> {
    const HEAD_BYTES: u64 = 4 << 10;
    parse(BufReader::new(root.open(file).ok()?.take(HEAD_BYTES))).ok()?.date.time()
}

fn parse(mut from: impl BufRead) -> io::Result<Release> {
    let mut release = Release::default();
    let (mut not_automatic, mut but_upgrades) = (false, false);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        if line.starts_with(b"-----BEGIN PGP SIGNATURE") {
            break;
        }
        if line.starts_with(b" ") {
            note_index(&line, &mut release.index_bytes);
        } else if let Some((key, value)) = deb822::fields(line.strip_prefix(b"- ").unwrap_or(&line)).next() {
            let text = || Some(String::from_utf8_lossy(value).into_owned()).filter(|v| !v.is_empty());
            match key.to_ascii_lowercase().as_slice() {
                b"origin" => release.origin = text(),
                b"label" => release.label = text(),
                b"suite" => release.suite = text(),
                b"codename" => release.codename = text(),
                b"version" => release.version = text(),
                b"date" => release.date = stamp(value),
                b"valid-until" => release.valid_until = stamp(value),
                b"notautomatic" => not_automatic = value.eq_ignore_ascii_case(b"yes"),
                b"butautomaticupgrades" => but_upgrades = value.eq_ignore_ascii_case(b"yes"),
                _ => {}
            }
        }
        line.clear();
    }
    release.upgrades = match (not_automatic, but_upgrades) {
        (false, _) => Upgrades::Automatic,
        (true, true) => Upgrades::OnceChosen,
        (true, false) => Upgrades::Never,
    };
    Ok(release)
}

/// ` <digest> <length> <path>` of any of the digest sections.
fn note_index(line: &[u8], index_bytes: &mut BTreeMap<String, u64>) {
    let Ok(line) = std::str::from_utf8(line) else { return };
    let mut words = line.split_ascii_whitespace();
    if let (Some(_), Some(bytes), Some(path)) = (words.next(), words.next(), words.next())
        && let path = path.trim_start_matches("./")
        && (path == "Packages" || path.ends_with("/Packages"))
        && let Ok(bytes) = bytes.parse()
    {
        index_bytes.insert(path.to_owned(), bytes);
    }
}

fn stamp(value: &[u8]) -> Stamp {
    std::str::from_utf8(value).ok().and_then(parse_date).map_or(Stamp::Damaged, Stamp::At)
}

/// `Sat, 21 Nov 2026 00:53:02 UTC`: RFC 5322 as archives write it. The name of the day is not checked.
pub(crate) fn parse_date(text: &str) -> Option<UtcTime> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let after_day_name = text.split_once(',').map_or(text, |(_, rest)| rest);
    let mut words = after_day_name.split_whitespace();
    let day: i8 = words.next()?.parse().ok()?;
    let month = words.next()?.to_ascii_lowercase();
    let month = (1i8..).zip(MONTHS).find(|(_, name)| *name == month)?.0;
    let year: i16 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(str::parse::<i8>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let offset_minutes = match words.next() {
        Some("UTC" | "GMT" | "UT" | "Z") => 0,
        Some(zone) => zone_minutes(zone)?,
        None => return None,
    };
    let local = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let utc = jiff::tz::Offset::UTC.to_timestamp(local).ok()?.as_millisecond();
    Some(UtcTime(utc).plus(Millis(-offset_minutes * 60_000)))
}

/// `+0130` is 90.
fn zone_minutes(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes() {
        [b'+', rest @ ..] if rest.len() == 4 => 1,
        [b'-', rest @ ..] if rest.len() == 4 => -1,
        _ => return None,
    };
    let digits = zone.get(1..).filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
    let hhmm: i64 = digits.parse().ok()?;
    Some(sign * (hhmm / 100 * 60 + hhmm % 100))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: Debian\nLabel: Debian-Security\n\
        Suite: oldstable-security\nVersion: 12\nCodename: bookworm-security\nDate: Sat, 21 Nov 2026 00:53:02 UTC\n\
        Valid-Until: Sat, 28 Nov 2026 00:53:02 UTC\nNotAutomatic: yes\nButAutomaticUpgrades: yes\nSHA256:\n \
        e3b0c442 0 contrib/binary-amd64/Packages\n 00ff 1234 main/binary-amd64/Packages\n 00ff 99 main/binary-amd64/Packages.xz\n\
        -----BEGIN PGP SIGNATURE-----\n\nLabel: nonsense\n";

    #[test]
    fn a_signed_head_is_read_up_to_its_signature() {
        let head = parse(SIGNED.as_bytes()).unwrap();
        assert_eq!(head.label.as_deref(), Some("Debian-Security"));
        assert_eq!(head.suite.as_deref(), Some("oldstable-security"));
        assert_eq!(head.version.as_deref(), Some("12"));
        assert_eq!(head.date.time().map(|t| t.to_string()).as_deref(), Some("2026-11-21T00:53:02Z"));
        assert_eq!(head.valid_until.time().map(|t| t.to_string()).as_deref(), Some("2026-11-28T00:53:02Z"));
        assert_eq!(head.upgrades, Upgrades::OnceChosen);
        let sizes: Vec<_> = head.index_bytes.iter().map(|(path, n)| (path.as_str(), *n)).collect();
        assert_eq!(sizes, [("contrib/binary-amd64/Packages", 0), ("main/binary-amd64/Packages", 1234)]);
        assert!(head.is_security());
    }

    #[test]
    fn security_archives_are_told_from_others() {
        for (label, suite, codename, expected) in [
            ("Debian-Security", "stable/updates", "stretch/updates", true),
            ("Debian", "oldstable", "bookworm", false),
            ("Debian", "oldstable-updates", "bookworm-updates", false),
            ("Debian Backports", "bookworm-backports", "bookworm-backports", false),
            ("Ubuntu", "noble-security", "noble", true),
            ("Ubuntu", "noble-updates", "noble", false),
            ("UbuntuESM", "jammy-infra-security", "jammy", true),
            ("Docker CE", "bookworm", "bookworm", false),
        ] {
            let named = |s: &str| Some(s.to_owned());
            let head =
                Release { label: named(label), suite: named(suite), codename: named(codename), ..Release::default() };
            assert_eq!(head.is_security(), expected, "{label} {suite}");
        }
    }

    #[test]
    fn dates_in_every_spelling_archives_use() {
        for (text, expected) in [
            ("Sat, 21 Nov 2026 00:53:02 UTC", Some("2026-11-21T00:53:02Z")),
            ("Thu, 25 Apr 2024 15:10:33 +0000", Some("2024-04-25T15:10:33Z")),
            ("1 Jan 2027 00:30:00 +0130", Some("2026-12-31T23:00:00Z")),
            ("Mon, 01 Mar 2027 9:05:01 GMT", Some("2027-03-01T09:05:01Z")),
            ("Sat, 21 Nov 2026 00:53:02", None),
            ("Sat, 31 Feb 2026 00:53:02 UTC", None),
            ("soon", None),
        ] {
            assert_eq!(parse_date(text).map(|t| t.to_string()).as_deref(), expected, "{text}");
        }
        let head = parse(&b"Date: soon\n"[..]).unwrap();
        assert_eq!((head.date, head.valid_until), (Stamp::Damaged, Stamp::Absent));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,40}") {
            prop_assert!(parse(&bytes[..]).is_ok());
            parse_date(&text);
            parse_date(&format!("1 Jan {text}"));
            zone_minutes(&text);
        }
    }
}
