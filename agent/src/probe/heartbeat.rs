//! `heartbeat`: the last report of a job on this host; silence is a failure. Options: `peil_proto::plan::Heartbeat`.
//!
//! `peil-agent report NAME ok|fail` leaves a file in the agent's directory of reports, whole or not at all; no port is
//! opened and the agent need not be running. Each tick of the check looks at it, so "no report in time" is judged where
//! the report would be: the agent's own silence is then *unknown* at the collector, and not a job that failed.
//!
//! Whoever may write to the directory may report for any name. A report from the future (a clock that was set back)
//! counts as made now.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use peil_proto::plan::Heartbeat;
use peil_proto::sample::FailureKind;
use peil_proto::time::UtcTime;
use rustix::fs::{Mode, OFlags};

use super::dial::Deadline;
use super::dialogue::for_people;
use super::host::failure_of;
use super::{Fact, Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "heartbeat",
    about: "looks at the last report of a job on this host",
    example: "heartbeat://nightly-backup",
    phases: &[Phase::FirstByte],
};

/// Bytes of a report.
const REPORT_BYTES_MAX: u64 = 4 << 10;

/// What a job reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Verdict {
    /// It went well.
    Ok,
    /// It did not.
    Fail,
}

/// A report, as it is read.
#[derive(Debug, PartialEq, Eq)]
struct Report {
    verdict: Verdict,
    at: UtcTime,
    text: String,
}

/// Leaves a report in `dir`, in place of the one before it.
///
/// # Errors
/// When the name cannot be one, or the directory cannot be written.
pub fn report(dir: &Path, name: &str, verdict: Verdict, text: &str, now: UtcTime) -> io::Result<()> {
    if !Heartbeat::is_name(name) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name has letters, digits, '-', '_' and '.'"));
    }
    std::fs::create_dir_all(dir)?;
    let word = match verdict {
        Verdict::Ok => "ok",
        Verdict::Fail => "fail",
    };
    let text: String = text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect();
    // Two jobs that report at once each have a file of their own until they rename it; a dot is in no report's name.
    let beside = dir.join(format!(".{name}.{}", std::process::id()));
    let file = std::fs::File::create(&beside)?;
    io::Write::write_all(&mut &file, format!("{word} {}\n{text}\n", now.0).as_bytes())?;
    file.sync_all()?;
    std::fs::rename(beside, dir.join(name))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Others may write to the directory: never follow a link out of it, never wait for a pipe.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(REPORT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Report {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (head, text) = text.split_once('\n').unwrap_or((text, ""));
        let (word, at) = head.split_once(' ')?;
        let verdict = match word {
            "ok" => Verdict::Ok,
            "fail" => Verdict::Fail,
            _ => return None,
        };
        Some(Self { verdict, at: UtcTime(at.parse().ok()?), text: for_people(text.trim_end().as_bytes()) })
    }
}

pub(super) async fn run(check: &Heartbeat, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.report.clone(), ..Hop::default() };
    let path: PathBuf = ctx.local.reports_dir.join(&check.report);
    let found = ctx.host.look(deadline, &mut hop, move || match read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failure_of(&error, &path)),
    });
    let mut facts = Vec::new();
    let end = found.await.and_then(|found| judge(check, found.as_deref(), ctx.clock.now(), &mut facts)).map(|()| 0);
    Observation::from_end(vec![hop], None, end).with_facts(facts)
}

fn judge(check: &Heartbeat, found: Option<&[u8]>, now: UtcTime, facts: &mut Vec<Fact>) -> Result<(), Failure> {
    let late = |text: String| Err(Failure::judged(FailureKind::Timeout, text));
    let Some(bytes) = found else { return late("no report yet".to_owned()) };
    let Some(report) = Report::parse(bytes) else {
        return Err(Failure::unusable("the report was not written by `peil-agent report`"));
    };
    let age_s = now.since(report.at).0.div_euclid(1_000).max(0);
    facts.push(Fact::new("reported", format_args!("{age_s} s ago")));
    if !report.text.is_empty() {
        facts.push(Fact::new("text", &report.text));
    }
    if age_s > i64::from(check.within_s) {
        return late(format!("the last report is {age_s} s old, over {} s", check.within_s));
    }
    match report.verdict {
        Verdict::Ok => Ok(()),
        Verdict::Fail => {
            Err(Failure::judged(FailureKind::Status, format!("the job reported a failure: {}", report.text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_report_or_not(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80), at: i64) {
            let _ = Report::parse(&bytes);
            let odd = format!("ok {at}\n");
            let check = Heartbeat { report: "x".into(), within_s: 5 };
            let _ = judge(&check, Some(odd.as_bytes()), UtcTime(0), &mut Vec::new());
        }
    }
}
