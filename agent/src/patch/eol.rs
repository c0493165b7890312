//! Until when a release is maintained, from the distribution's own table in `/usr/share/distro-info`.
//!
//! The tables come with the package distro-info-data and get updates like any other, so there is no list
//! here that could grow old. Without the table the answer is "unknown", not a guess.
//!
//! Paid maintenance (Debian ELTS, Ubuntu Pro ESM) counts only when its archive is among the lists of this
//! root: a date in a table patches nothing. Dates are whole UTC days, the last one included.

use std::collections::BTreeMap;

use peil_proto::time::UtcTime;

use super::os::OsRelease;
use super::report::{Archive, EndOfLife, Phase};
use super::root::Root;

/// Where the release named in `os` stands at `now`.
pub(crate) fn judge(root: &Root, os: &OsRelease, archives: &[Archive], now: UtcTime) -> EndOfLife {
    let Some(file) = table_of(os) else { return EndOfLife::default() };
    let Ok(table) = root.text(file) else { return EndOfLife::default() };
    let dates = dates_of(&table, os);
    let today = now.to_string();
    phase_on(&dates, archives, today.get(..10).unwrap_or_default())
}

/// The table for this distribution; derivatives have lives of their own.
fn table_of(os: &OsRelease) -> Option<&'static str> {
    match os.id.as_deref() {
        Some("debian") => Some("/usr/share/distro-info/debian.csv"),
        Some("ubuntu") => Some("/usr/share/distro-info/ubuntu.csv"),
        _ => None,
    }
}

/// All `eol…` columns of the row of this release.
fn dates_of(table: &str, os: &OsRelease) -> BTreeMap<String, String> {
    let mut lines = table.lines();
    let columns: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let cell = |row: &[&str], name: &str| {
        let at = columns.iter().position(|c| *c == name)?;
        row.get(at).map(|cell| cell.trim().to_owned())
    };
    let is_ours = |row: &[&str]| match (&os.codename, &os.version_id) {
        (Some(codename), _) => cell(row, "series").as_ref() == Some(codename),
        (None, Some(version)) => cell(row, "version").is_some_and(|v| v.split(' ').next() == Some(version)),
        (None, None) => false,
    };
    let Some(row) = lines.map(|line| line.split(',').collect::<Vec<_>>()).find(|row| is_ours(row)) else {
        return BTreeMap::new();
    };
    columns
        .iter()
        .zip(&row)
        .filter(|(column, date)| column.starts_with("eol") && is_date(date.trim()))
        .map(|(column, date)| ((*column).to_owned(), date.trim().to_owned()))
        .collect()
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// Dates of one form sort as text.
fn phase_on(dates: &BTreeMap<String, String>, archives: &[Archive], today: &str) -> EndOfLife {
    let paid = |word: &str| {
        archives
            .iter()
            .any(|a| [&a.origin, &a.label].into_iter().flatten().any(|name| name.to_ascii_lowercase().contains(word)))
    };
    let latest = |names: &[&str]| names.iter().filter_map(|name| dates.get(*name)).max();
    let mut lives = vec![(Phase::Standard, latest(&["eol", "eol-server"])), (Phase::Lts, latest(&["eol-lts"]))];
    if paid("freexian") {
        lives.push((Phase::Elts, latest(&["eol-elts"])));
    }
    if paid("ubuntuesm") {
        lives.push((Phase::Esm, latest(&["eol-esm", "eol-legacy"])));
    }
    let lives: Vec<_> = lives.into_iter().filter_map(|(phase, date)| Some((phase, date?))).collect();
    let (phase, date) = match lives.iter().find(|(_, date)| date.as_str() >= today) {
        Some((phase, date)) => (*phase, Some((*date).clone())),
        None => match lives.iter().map(|(_, date)| *date).max() {
            Some(date) => (Phase::Ended, Some(date.clone())),
            None => (Phase::Unknown, None),
        },
    };
    EndOfLife { date, phase, dates: dates.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "version,codename,series,created,release,eol,eol-lts,eol-elts\n\
        12,Bookworm,bookworm,2021-08-14,2023-06-10,2026-07-11,2028-06-30,2033-06-30\n\
        13,Trixie,trixie,2023-06-10,2025-08-09\n";
    const UBUNTU: &str = "version,codename,series,created,release,eol,eol-server,eol-esm,eol-legacy\n\
        24.04 LTS,Noble Numbat,noble,2023-10-12,2024-04-25,2029-05-31,2029-05-31,2034-04-25,2036-04-29\n";

    fn os(codename: Option<&str>, version_id: Option<&str>) -> OsRelease {
        OsRelease {
            codename: codename.map(str::to_owned),
            version_id: version_id.map(str::to_owned),
            ..OsRelease::default()
        }
    }

    fn origin(name: &str) -> Vec<Archive> {
        vec![Archive { origin: Some(name.to_owned()), ..Archive::default() }]
    }

    #[test]
    fn a_release_walks_through_its_phases_day_by_day() {
        let debian = dates_of(DEBIAN, &os(Some("bookworm"), None));
        let ubuntu = dates_of(UBUNTU, &os(None, Some("24.04")));
        for (dates, archives, today, phase, date) in [
            (&debian, origin("Debian"), "2026-07-11", Phase::Standard, "2026-07-11"),
            (&debian, origin("Debian"), "2026-07-12", Phase::Lts, "2028-06-30"),
            (&debian, origin("Debian"), "2028-07-01", Phase::Ended, "2028-06-30"),
            (&debian, origin("Freexian"), "2028-07-01", Phase::Elts, "2033-06-30"),
            (&debian, origin("Freexian"), "2033-07-01", Phase::Ended, "2033-06-30"),
            (&ubuntu, origin("Ubuntu"), "2029-05-31", Phase::Standard, "2029-05-31"),
            (&ubuntu, origin("Ubuntu"), "2029-06-01", Phase::Ended, "2029-05-31"),
            (&ubuntu, origin("UbuntuESM"), "2029-06-01", Phase::Esm, "2036-04-29"),
        ] {
            let found = phase_on(dates, &archives, today);
            assert_eq!((found.phase, found.date.as_deref()), (phase, Some(date)), "on {today}");
        }
    }

    #[test]
    fn a_release_without_dates_is_unknown_not_maintained() {
        for os in [os(Some("trixie"), None), os(Some("warty"), None), os(None, None)] {
            let found = phase_on(&dates_of(DEBIAN, &os), &[], "2026-01-01");
            assert_eq!((found.phase, found.date), (Phase::Unknown, None));
        }
        assert!(dates_of("", &os(Some("x"), None)).is_empty());
    }
}
