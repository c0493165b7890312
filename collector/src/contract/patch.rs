//! The patch clock: since when a host lacks a security fix, and when its term ends.
//!
//! The clock belongs to the contract, not to the host: it starts when the lack was first proved and never
//! moves later because a scan was repeated or a newer fix replaced an older one (index files hold only the
//! newest version, so the version asked for changes while the host stands still). It starts anew only
//! when the host installed something: then the clock of the fix it lacks *now* counts.
//!
//! A report with blinding errors proves what is missing but never that anything was mended: it opens findings and
//! closes none, and the host's level is unknown. Not here yet: proof of earlier availability from advisory
//! feeds and from other hosts, which can only move a start earlier.

use std::collections::BTreeMap;

use peil_proto::record::{Finding, FindingState, PatchReport};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

/// A package of one host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackageKey {
    /// Binary package.
    pub package: String,
    /// Architecture.
    pub arch: String,
}

/// A lack with its clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFinding {
    /// Source package: the unit of advisories.
    pub source: String,
    /// Version on the host.
    pub installed: String,
    /// Newest version in a security archive.
    pub security_version: String,
    /// What would be installed; empty when nothing.
    pub candidate: String,
    /// Whether it can be installed as things are.
    pub state: FindingState,
    /// Start of the clock.
    pub first_seen: UtcTime,
    /// When the newest version asked for was first seen; becomes the start once the host moves.
    pub version_seen: UtcTime,
    /// Last report that proved it.
    pub last_seen: UtcTime,
}

impl OpenFinding {
    /// When the term ends.
    pub fn due_at(&self, term: Millis) -> UtcTime {
        self.first_seen.plus(term)
    }

    /// The term has ended: exactly at its end it has not.
    pub fn is_overdue(&self, term: Millis, now: UtcTime) -> bool {
        now > self.due_at(term)
    }
}

/// What a report changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// New or changed: the row as it is now.
    Open(PackageKey, OpenFinding),
    /// The host has the fix since the report at this time.
    Closed(PackageKey, OpenFinding, UtcTime),
}

/// Folds one report into the open findings of its host. `known_at` is when the newest report was made that
/// hid nothing. A report older than that, or than a finding's last proof, only moves clocks earlier: what
/// was missing then and is not now has been mended, and does not open again because a report came late.
pub fn fold(
    open: &mut BTreeMap<PackageKey, OpenFinding>,
    report: &PatchReport,
    known_at: Option<UtcTime>,
) -> Vec<Change> {
    let at = report.scanned_at;
    let mut changes = Vec::new();
    let mut proved: BTreeMap<PackageKey, &Finding> = BTreeMap::new();
    for finding in &report.findings {
        proved.insert(PackageKey { package: finding.package.clone(), arch: finding.arch.clone() }, finding);
    }
    for (key, finding) in &proved {
        let next = match open.get(key) {
            None if known_at.is_some_and(|known_at| at < known_at) => continue,
            None => begin(finding, at, at),
            Some(before) if before.last_seen > at => {
                let first_seen = before.first_seen.min(at);
                OpenFinding { first_seen, ..before.clone() }
            }
            Some(before) => {
                let version_seen =
                    if before.security_version == finding.security_version { before.version_seen } else { at };
                let stood_still = before.installed == finding.installed;
                let first_seen = if stood_still { before.first_seen } else { version_seen };
                OpenFinding { version_seen, ..begin(finding, first_seen, at) }
            }
        };
        if open.get(key) != Some(&next) {
            open.insert(key.clone(), next.clone());
            changes.push(Change::Open(key.clone(), next));
        }
    }
    if report.known {
        let mended: Vec<_> = open
            .iter()
            .filter(|(key, was)| !proved.contains_key(*key) && was.last_seen <= at)
            .map(|(key, _)| key.clone())
            .collect();
        for key in mended {
            if let Some(was) = open.remove(&key) {
                changes.push(Change::Closed(key, was, at));
            }
        }
    }
    changes
}

fn begin(finding: &Finding, first_seen: UtcTime, at: UtcTime) -> OpenFinding {
    OpenFinding {
        source: finding.source.clone(),
        installed: finding.installed.clone(),
        security_version: finding.security_version.clone(),
        candidate: finding.candidate.clone(),
        state: finding.state,
        first_seen,
        version_seen: at,
        last_seen: at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = Millis::DAY.0;
    const TERM: Millis = Millis(14 * DAY);

    fn report(day: i64, findings: &[(&str, &str, &str)]) -> PatchReport {
        let finding = |(package, installed, security): &(&str, &str, &str)| Finding {
            source: (*package).to_owned(),
            package: (*package).to_owned(),
            arch: "amd64".to_owned(),
            installed: (*installed).to_owned(),
            security_version: (*security).to_owned(),
            ..Finding::default()
        };
        let findings = findings.iter().map(finding).collect();
        PatchReport { scanned_at: UtcTime(day * DAY), findings, known: true, ..PatchReport::default() }
    }

    fn run(reports: &[PatchReport]) -> BTreeMap<PackageKey, OpenFinding> {
        let (mut open, mut known_at) = (BTreeMap::new(), None);
        for report in reports {
            fold(&mut open, report, known_at);
            known_at = known_at.max(report.known.then_some(report.scanned_at));
        }
        open
    }

    fn first_day(open: &BTreeMap<PackageKey, OpenFinding>) -> i64 {
        open.values().next().expect("one finding").first_seen.0 / DAY
    }

    #[test]
    fn a_newer_fix_does_not_restart_the_clock_of_a_host_that_stands_still() {
        let open =
            run(&[report(1, &[("ssl", "1", "2")]), report(10, &[("ssl", "1", "3")]), report(20, &[("ssl", "1", "4")])]);
        assert_eq!(first_day(&open), 1);
        let finding = open.values().next().expect("one");
        assert!(finding.is_overdue(TERM, UtcTime(15 * DAY + 1)));
        assert!(!finding.is_overdue(TERM, UtcTime(15 * DAY)), "exactly at the end of the term is in time");
    }

    #[test]
    fn a_host_that_moved_has_the_clock_of_the_fix_it_lacks_now() {
        let open =
            run(&[report(1, &[("ssl", "1", "2")]), report(10, &[("ssl", "1", "3")]), report(12, &[("ssl", "2", "3")])]);
        assert_eq!(first_day(&open), 10, "version 3 was first seen on day 10");
    }

    #[test]
    fn a_report_with_errors_closes_nothing() {
        let mut blind = report(5, &[]);
        blind.known = false;
        assert_eq!(run(&[report(1, &[("ssl", "1", "2")]), blind]).len(), 1);
        assert_eq!(run(&[report(1, &[("ssl", "1", "2")]), report(5, &[])]).len(), 0);
    }

    #[test]
    fn the_same_report_twice_changes_nothing() {
        let mut open = run(&[report(1, &[("ssl", "1", "2")])]);
        assert_eq!(fold(&mut open, &report(1, &[("ssl", "1", "2")]), None), []);
    }

    #[test]
    fn an_older_report_only_moves_the_clock_earlier() {
        let open = run(&[report(9, &[("ssl", "1", "2")]), report(3, &[("ssl", "1", "2")]), report(2, &[])]);
        assert_eq!((open.len(), first_day(&open)), (1, 3));
    }

    #[test]
    fn a_report_that_comes_late_does_not_open_what_was_mended_since() {
        let open = run(&[report(5, &[]), report(1, &[("ssl", "1", "2")])]);
        assert_eq!(open, BTreeMap::new());
        let mut blind = report(5, &[]);
        blind.known = false;
        assert_eq!(run(&[blind, report(1, &[("ssl", "1", "2")])]).len(), 1, "a blind report mended nothing");
    }
}
