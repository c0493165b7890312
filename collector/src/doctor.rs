//! `peil-collector doctor`: is the store well, and what is to be done if not.
//!
//! A survey ([`crate::store::survey`]) in, findings out; pure, so that every rule has a test. A finding says what was
//! found and what to do; a store without any is well. What only a running collector can tell (queues, failed commits)
//! is in `/metrics`, which repeats the figures of the survey, too.

use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use serde_json::{Value, json};

use crate::store::survey::Survey;

/// Less room than this on the disk is told; a store that is full refuses results and agents keep them.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// A log of this size is held up by a read that does not end.
const WAL_BYTES_MAX: u64 = 256 << 20;
/// A block is judged within a second; one that waits for this long waits for something.
const UNJUDGED_MAX: Millis = Millis(60_000);
/// A delivery is tried again and again; one that waits for this long has a receiver that does not answer.
const UNSENT_MAX: Millis = Millis(15 * Millis::MINUTE.0);
/// Outages are judged to the second.
const CLOCKS_APART_MAX: Millis = Millis(2_000);

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know; the store is well.
    Note,
    /// It will become trouble.
    Warning,
    /// Something is lost, late or standing still.
    Trouble,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Trouble => "trouble",
        }
    }
}

/// Something that was found, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// For programs; never changes.
    pub code: &'static str,
    /// What was found.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

fn finding(severity: Severity, code: &'static str, what: String, remedy: impl Into<String>) -> Finding {
    Finding { severity, code, what, remedy: remedy.into() }
}

/// What is to be said about a store, the worst first.
pub fn examine(survey: &Survey) -> Vec<Finding> {
    let rules = [space, log_size, durability, standbys, judging, leases, collectors, deliveries, clocks, reports];
    let mut findings: Vec<Finding> = rules.iter().filter_map(|rule| rule(survey)).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

fn space(s: &Survey) -> Option<Finding> {
    let free = s.free_bytes.filter(|free| *free < FREE_BYTES_MIN)?;
    let what = format!("{} MiB are left on the disk of the store", free >> 20);
    Some(finding(
        Severity::Warning,
        "space",
        what,
        "make room, or move data_dir to a larger disk: a full one refuses results, and agents keep them as long as their spools hold",
    ))
}

fn log_size(s: &Survey) -> Option<Finding> {
    let bytes = s.wal_bytes.filter(|bytes| *bytes > WAL_BYTES_MAX)?;
    let what = format!("the write-ahead log has {} MiB", bytes >> 20);
    Some(finding(
        Severity::Warning,
        "wal",
        what,
        "look for a program that keeps the database open in a transaction (a back-up, an sqlite3 shell); the log shrinks when it ends",
    ))
}

fn durability(s: &Survey) -> Option<Finding> {
    let good = |(setting, value): &&(&str, String)| match *setting {
        "journal_mode" => value == "wal",
        "synchronous" => value == "2",
        "synchronous_commit" => value == "on" || value == "remote_apply",
        "synchronous_standby_names" => true,
        _ => value == "on",
    };
    let weak: Vec<String> =
        s.durability.iter().filter(|pair| !good(pair)).map(|(setting, value)| format!("{setting}={value}")).collect();
    let what = format!("commits may be lost in a crash: {}", weak.join(", "));
    (!weak.is_empty()).then(|| {
        finding(
            Severity::Trouble,
            "durability",
            what,
            "set it on the server; store_accepts names it as a risk that was taken",
        )
    })
}

fn standbys(s: &Survey) -> Option<Finding> {
    let names = s.durability.iter().find(|(setting, _)| *setting == "synchronous_standby_names")?;
    let missing = !names.1.is_empty() && s.standbys == 0;
    missing.then(|| {
        let what = format!("synchronous_standby_names is {:?}, and no such server is seen", names.1);
        finding(
            Severity::Warning,
            "standby",
            what,
            "look at pg_stat_replication (as a member of pg_monitor): without it commits wait for ever",
        )
    })
}

fn judging(s: &Survey) -> Option<Finding> {
    let late = s.at.since(s.unjudged_since?);
    let blocks: u64 = s.behind.values().max().copied().unwrap_or(0);
    let what = format!("{blocks} blocks are not judged, the oldest came {} s ago", late.0 / 1_000);
    (late > UNJUDGED_MAX).then(|| {
        let remedy = if s.collectors.is_empty() {
            "start a collector"
        } else {
            "look into the log of the collectors for \"figures stand still\""
        };
        finding(Severity::Trouble, "judging", what, remedy)
    })
}

fn leases(s: &Survey) -> Option<Finding> {
    let over = s.leases.iter().filter(|lease| lease.over).count();
    (over > 0 && !s.collectors.is_empty()).then(|| {
        let what = format!("{over} of {} leases are over and nobody took them", s.leases.len());
        finding(
            Severity::Trouble,
            "leases",
            what,
            "a collector takes them within 25 s; if not, look into its log for \"leases\"",
        )
    })
}

fn collectors(s: &Survey) -> Option<Finding> {
    let now = UtcTime(s.at.0 + s.ahead.0);
    let (here, gone): (Vec<_>, Vec<_>) =
        s.collectors.iter().partition(|row| now.since(row.seen_at) <= crate::store::leases::LEASE);
    if here.is_empty() {
        let what = "no collector is here".to_owned();
        return Some(finding(Severity::Warning, "collectors", what, "start one; agents keep their results meanwhile"));
    }
    let names: Vec<String> = gone.iter().map(|row| format!("{} ({})", row.name, row.id)).collect();
    (!names.is_empty()).then(|| {
        let what = format!("collectors went without a good-bye: {}", names.join(", "));
        finding(Severity::Note, "collectors", what, "nothing, if they are not coming back; others have taken over")
    })
}

fn deliveries(s: &Survey) -> Option<Finding> {
    let waits = s.at.since(s.unsent_since?);
    let what = format!("{} deliveries of alerts wait, the oldest since {} min", s.unsent, waits.0 / Millis::MINUTE.0);
    (waits > UNSENT_MAX).then(|| {
        finding(
            Severity::Trouble,
            "deliveries",
            what,
            "the page Alerts tells what each receiver answered; mend it, or the channel in the settings",
        )
    })
}

fn clocks(s: &Survey) -> Option<Finding> {
    let apart = Millis(s.ahead.0.abs() - Millis::from(s.round_trip).0 / 2);
    let way = if s.ahead.0 > 0 { "ahead" } else { "behind" };
    let what = format!("the database's clock is {} ms {way} of this machine's", s.ahead.0.abs());
    (apart > CLOCKS_APART_MAX).then(|| {
        finding(Severity::Warning, "clock", what, "let both follow the same time servers (chrony, systemd-timesyncd)")
    })
}

fn reports(s: &Survey) -> Option<Finding> {
    let bi = s.bi.as_ref()?;
    let what = if bi.missing.is_empty() {
        format!("the role {} is not there, or may not read {}.*", crate::store::bi::ROLE, bi.schema)
    } else {
        format!("views are missing in {}: {}", bi.schema, bi.missing.join(", "))
    };
    Some(finding(Severity::Note, "bi", what, format!("have somebody who may run: {}", bi.remedy()?)))
}

/// The answer for programs.
pub fn as_json(survey: &Survey, findings: &[Finding]) -> Value {
    let durability: serde_json::Map<String, Value> =
        survey.durability.iter().map(|(setting, value)| ((*setting).to_owned(), json!(value))).collect();
    let leases = |over: bool| survey.leases.iter().filter(|lease| lease.over == over).count();
    let collectors: Vec<Value> = survey
        .collectors
        .iter()
        .map(|row| json!({"id": row.id, "name": row.name, "version": row.version, "seen_at": row.seen_at.0}))
        .collect();
    json!({
        "store": survey.place,
        "at": survey.at.0,
        "schema": survey.schema,
        "durability": durability,
        "standbys": survey.standbys,
        "bytes": survey.bytes,
        "wal_bytes": survey.wal_bytes,
        "free_bytes": survey.free_bytes,
        "behind_blocks": survey.behind,
        "unjudged_since": survey.unjudged_since.map(|at| at.0),
        "leases_held": leases(false),
        "leases_over": leases(true),
        "collectors": collectors,
        "unsent": survey.unsent,
        "unsent_since": survey.unsent_since.map(|at| at.0),
        "database_ahead_ms": survey.ahead.0,
        "findings": findings.iter().map(|f| json!({
            "severity": f.severity.word(), "code": f.code, "what": f.what, "remedy": f.remedy,
        })).collect::<Vec<_>>(),
    })
}

/// The answer for people: one line per figure, then one per finding with its remedy below.
pub fn as_text(survey: &Survey, findings: &[Finding]) -> String {
    let mib = |bytes: u64| format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20);
    let durability: Vec<String> =
        survey.durability.iter().map(|(setting, value)| format!("{setting}={value}")).collect();
    let behind: Vec<String> = survey.behind.iter().map(|(job, blocks)| format!("{job} {blocks} blocks")).collect();
    let held = survey.leases.iter().filter(|lease| !lease.over).count();
    let mut lines = vec![
        format!("store        {} (schema {})", survey.place, survey.schema),
        format!("size         {}", mib(survey.bytes)),
        format!("durability   {}", durability.join(" ")),
        format!("behind       {}", behind.join(", ")),
        format!("leases       {held} held of {}", survey.leases.len()),
        format!("unsent       {}", survey.unsent),
        format!("clock        {} ms ahead of this machine's", survey.ahead.0),
    ];
    if let (Some(log), Some(free)) = (survey.wal_bytes, survey.free_bytes) {
        lines.insert(2, format!("log          {}, {} left on the disk", mib(log), mib(free)));
    }
    for row in &survey.collectors {
        lines.push(format!(
            "collector    {} on {}, version {}, last seen {}",
            row.id, row.name, row.version, row.seen_at
        ));
    }
    if findings.is_empty() {
        lines.push("nothing is wrong".to_owned());
    }
    for finding in findings {
        lines.push(format!("{}: {}\n  -> {}", finding.severity.word(), finding.what, finding.remedy));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::bi;
    use crate::store::leases::{CollectorRow, LeaseRow};

    const NOW: UtcTime = UtcTime(1_776_247_200_000);

    fn well() -> Survey {
        let collector = CollectorRow {
            id: "a".to_owned(),
            name: "here".to_owned(),
            version: "1".to_owned(),
            started_at: NOW,
            seen_at: NOW,
        };
        let lease = LeaseRow { name: "alerts".to_owned(), holder: "a".to_owned(), epoch: 1, until: NOW, over: false };
        Survey {
            place: "postgres://db/peil".to_owned(),
            at: NOW,
            ahead: Millis(0),
            round_trip: Duration::ZERO,
            schema: 1,
            durability: vec![
                ("fsync", "on".to_owned()),
                ("synchronous_commit", "remote_apply".to_owned()),
                ("synchronous_standby_names", "*".to_owned()),
            ],
            standbys: 1,
            bytes: 1 << 30,
            wal_bytes: Some(64 << 20),
            free_bytes: Some(8 << 30),
            behind: [("judge".to_owned(), 3)].into(),
            unjudged_since: Some(NOW.plus(Millis(-500))),
            leases: vec![lease],
            collectors: vec![collector],
            unsent: 1,
            unsent_since: Some(NOW.plus(Millis(-1_000))),
            bi: Some(bi::Standing { schema: "bi".to_owned(), missing: vec![], role: true }),
        }
    }

    #[test]
    fn a_store_that_is_well_has_no_findings_and_says_so() {
        assert_eq!(examine(&well()), vec![]);
        assert!(as_text(&well(), &[]).contains("nothing is wrong"));
    }

    #[test]
    fn each_trouble_is_found_by_its_code_and_has_a_remedy() {
        type Harm = fn(&mut Survey);
        let harms: [(&str, Harm); 12] = [
            ("space", |s| s.free_bytes = Some(FREE_BYTES_MIN - 1)),
            ("wal", |s| s.wal_bytes = Some(WAL_BYTES_MAX + 1)),
            ("durability", |s| s.durability[0].1 = "off".to_owned()),
            ("durability", |s| s.durability[1].1 = "local".to_owned()),
            ("standby", |s| s.standbys = 0),
            ("judging", |s| s.unjudged_since = Some(NOW.plus(Millis(-UNJUDGED_MAX.0 - 1)))),
            ("leases", |s| s.leases[0].over = true),
            ("collectors", |s| s.collectors.clear()),
            ("collectors", |s| s.collectors.push(CollectorRow { seen_at: UtcTime(0), ..s.collectors[0].clone() })),
            ("deliveries", |s| s.unsent_since = Some(NOW.plus(Millis(-UNSENT_MAX.0 - 1)))),
            ("clock", |s| s.ahead = Millis(-2_001)),
            ("bi", |s| s.bi = Some(bi::Standing { schema: "bi".to_owned(), missing: vec!["alerts"], role: false })),
        ];
        for (code, harm) in harms {
            let mut survey = well();
            harm(&mut survey);
            let found = examine(&survey);
            assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), [code]);
            assert!(!found[0].remedy.is_empty());
            assert!(as_text(&survey, &found).contains(&found[0].remedy));
            assert_eq!(as_json(&survey, &found)["findings"][0]["code"], code);
        }
    }

    #[test]
    fn a_clock_is_not_blamed_for_a_slow_answer() {
        let slow = Survey { ahead: Millis(2_500), round_trip: Duration::from_secs(2), ..well() };
        assert_eq!(examine(&slow), vec![]);
    }
}
