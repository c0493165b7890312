//! `peil-agent spool …`: what is on disk, in words or as JSON; and putting it in order without starting the agent.
//!
//! `check` and `dump` change nothing and may run beside the agent. `repair` does what every start of the agent does (cut a
//! torn tail, set aside what cannot be read) and then reads every record; it needs the agent to be stopped, and the user
//! the agent runs as, or the agent could not write its own files afterwards.
//!
//! Exit status: 0 whole, 1 damage was found (`repair`: something is lost), 2 unusable input.

use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use peil_proto::convert;
use peil_proto::ids::Seq;
use peil_proto::record::Record;
use peil_proto::time::UtcTime;
use serde_json::{Value, json};

use crate::config::{Config, DEFAULT_PATH};
use crate::host;
use crate::recorder::Chain;
use crate::spool::inspect::{Found, Inspection, inspect, limits_of_repair};
use crate::spool::{OpenError, Recovery, Spool};

/// Records read at a time when all of them are read.
const PAGE: usize = 1_000;

/// The records on disk that the collector does not have yet.
#[derive(Subcommand)]
pub enum SpoolCommand {
    /// Read every record and tell what is damaged; changes nothing
    Check {
        #[command(flatten)]
        place: Place,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Print every record as a line of JSON; changes nothing
    Dump {
        #[command(flatten)]
        place: Place,
        /// Only records after this sequence
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u64,
    },
    /// Put the directory in order as a start of the agent would; the agent must be stopped
    Repair {
        #[command(flatten)]
        place: Place,
    },
}

/// Which spool.
#[derive(Args)]
pub struct Place {
    /// Settings file that names the state directory
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// The spool directory itself, instead of the one of the settings
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    fn dir(&self) -> anyhow::Result<PathBuf> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None => Ok(Config::load(&self.config)?.state_dir.join("spool")),
        }
    }
}

impl SpoolCommand {
    /// Runs the command; what went wrong stands on standard error.
    pub fn run(self) -> ExitCode {
        let mut out = BufWriter::new(io::stdout().lock());
        let done = match self {
            Self::Check { place, json } => check(&place, json, &mut out),
            Self::Dump { place, after } => dump(&place, Seq(after), &mut out),
            Self::Repair { place } => repair(&place, &mut out),
        };
        match done.and_then(|whole| Ok((whole, out.flush().context("cannot print")?))) {
            Ok((Whole::Yes, ())) => ExitCode::SUCCESS,
            Ok((Whole::No, ())) => ExitCode::FAILURE,
            Err(error) => {
                let _ = writeln!(io::stderr(), "peil-agent: {}", Chain(error.as_ref()));
                ExitCode::from(2)
            }
        }
    }
}

/// Whether every byte was accounted for.
#[derive(PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

fn machine_id() -> String {
    host::machine_id(Path::new("/"))
}

fn look(dir: &Path, visit: impl FnMut(Seq, &[u8])) -> anyhow::Result<Inspection> {
    inspect(dir, &machine_id(), visit).with_context(|| format!("cannot read the spool directory {}", dir.display()))
}

fn check(place: &Place, as_json: bool, out: &mut impl Write) -> anyhow::Result<Whole> {
    let dir = place.dir()?;
    let mut meaningless = 0_u64;
    let seen = look(&dir, |_, payload| meaningless += u64::from(convert::from_spool(payload).is_err()))?;
    let mut troubles = seen.troubles();
    if meaningless > 0 {
        troubles.push(format!("{meaningless} records are whole and mean nothing; the collector will refuse them"));
    }
    let bytes: u64 = seen.segments.iter().map(|segment| segment.bytes).sum();
    let (epoch, acked) = seen.acked.map_or((None, None), |(epoch, acked)| (Some(epoch.to_string()), Some(acked.0)));
    if as_json {
        let segment = |one: &crate::spool::inspect::Inspected| match &one.found {
            Found::Segment { scan, .. } => json!({
                "file": one.name, "bytes": one.bytes, "records": scan.records(),
                "first": scan.runs.first().map(|run| run.first.0), "last": scan.runs.last().map(|run| run.last.0),
                "damaged_bytes": scan.damaged_bytes + scan.tail_bytes,
            }),
            other => json!({"file": one.name, "bytes": one.bytes, "unreadable": format!("{other:?}")}),
        };
        let answer = json!({
            "dir": dir, "epoch": epoch, "acked": acked, "records": seen.records(), "bytes": bytes,
            "segments": seen.segments.iter().map(segment).collect::<Vec<_>>(), "aside": seen.aside, "troubles": troubles,
        });
        writeln!(out, "{answer}").context("cannot print")?;
    } else {
        let (epoch, acked) =
            (epoch.unwrap_or("unknown".into()), acked.map_or("unknown".into(), |acked| acked.to_string()));
        writeln!(
            out,
            "{}: {} records in {} segments, {bytes} bytes; epoch {epoch}, acked through {acked}",
            dir.display(),
            seen.records(),
            seen.segments.len()
        )
        .context("cannot print")?;
        for name in &seen.aside {
            writeln!(out, "set aside earlier: {name}").context("cannot print")?;
        }
        for trouble in &troubles {
            writeln!(out, "damage: {trouble}").context("cannot print")?;
        }
        if !troubles.is_empty() {
            writeln!(out, "the agent copes with all of this at its next start; `peil-agent spool repair` does it now")
                .context("cannot print")?;
        }
    }
    Ok(if troubles.is_empty() { Whole::Yes } else { Whole::No })
}

fn dump(place: &Place, after: Seq, out: &mut impl Write) -> anyhow::Result<Whole> {
    let mut printed = Ok(());
    let seen = look(&place.dir()?, |seq, payload| {
        if seq > after && printed.is_ok() {
            printed = writeln!(out, "{}", told(seq, payload));
        }
    })?;
    printed.context("cannot print")?;
    Ok(if seen.troubles().is_empty() { Whole::Yes } else { Whole::No })
}

/// A record as one JSON object. Kinds that are read by people anyway carry their fields as text.
fn told(seq: Seq, payload: &[u8]) -> Value {
    let at = |time: UtcTime| time.to_string();
    match convert::from_spool(payload) {
        Ok(Some(Record::Sample(sample))) => json!({
            "seq": seq.0, "kind": "sample", "check": sample.check.0, "at": at(sample.scheduled_at),
            "outcome": sample.outcome.word(), "delay_ms": sample.delay.0,
            "phases_us": sample.phases.to_array().map(|phase| phase.map(|time| time.0)),
        }),
        Ok(Some(Record::Summary(summary))) => json!({
            "seq": seq.0, "kind": "summary", "check": summary.check.0, "at": at(summary.first), "to": at(summary.last()),
            "outcome": summary.outcome().word(), "ticks": summary.count, "step_ms": summary.step.0,
        }),
        Ok(Some(Record::Gap(gap))) => json!({
            "seq": seq.0, "kind": "gap", "check": gap.check.map(|check| check.0), "at": at(gap.from), "to": at(gap.to),
            "reason": gap.reason.word(), "records_lost": gap.records_lost, "ok_lost": gap.ok_lost, "not_ok_lost": gap.not_ok_lost,
        }),
        Ok(Some(Record::Detail(detail))) => json!({
            "seq": seq.0, "kind": "detail", "check": detail.check.0, "at": at(detail.scheduled_at), "peer": detail.peer, "text": detail.text,
        }),
        Ok(Some(Record::Patch(report))) => json!({
            "seq": seq.0, "kind": "patch", "at": at(report.scanned_at), "installed": report.installed, "pending": report.pending,
            "findings": report.findings.len(), "known": report.known,
        }),
        Ok(Some(Record::Energy(reading))) => json!({
            "seq": seq.0, "kind": "energy", "source": reading.source, "at": at(reading.start), "to": at(reading.end),
            "energy_uj": reading.energy.0, "low_uj": reading.low.0, "high_uj": reading.high.0,
        }),
        Ok(Some(Record::Facts(facts))) => {
            json!({"seq": seq.0, "kind": "facts", "hostname": facts.hostname, "os": facts.os, "agent_version": facts.agent_version})
        }
        Ok(Some(Record::Vitals(vitals))) => json!({
            "seq": seq.0, "kind": "vitals", "at": at(vitals.at), "rss_bytes": vitals.rss_bytes, "cpu_us": vitals.cpu.0,
            "spool_records": vitals.spool_records, "ticks_due": vitals.ticks_due, "ticks_not_run": vitals.ticks_not_run,
        }),
        Ok(None) => json!({"seq": seq.0, "kind": "of a newer agent", "bytes": payload.len()}),
        Err(why) => json!({"seq": seq.0, "kind": "meaningless", "bytes": payload.len(), "why": why.to_string()}),
    }
}

fn repair(place: &Place, out: &mut impl Write) -> anyhow::Result<Whole> {
    let dir = place.dir()?;
    let facts =
        std::fs::metadata(&dir).with_context(|| format!("cannot read the spool directory {}", dir.display()))?;
    let us = rustix::process::geteuid().as_raw();
    anyhow::ensure!(
        facts.uid() == us,
        "{} belongs to user {}, and this is user {us}: what is written here could not be read by the agent; run it as that user (sudo -u '#{}' …)",
        dir.display(),
        facts.uid(),
        facts.uid()
    );
    let (mut spool, recovery) = match Spool::open(&dir, &machine_id(), limits_of_repair()) {
        Err(OpenError::InUse { .. }) => anyhow::bail!("the agent is running and uses {}; stop it first", dir.display()),
        other => other?,
    };
    let (mut after, mut records) = (Seq(0), 0);
    loop {
        let page = spool.read_after(after, PAGE, usize::MAX).context("a segment cannot be read; try again")?;
        let Some((last, _)) = page.last() else { break };
        (after, records) = (*last, records + page.len());
    }
    let lost: u64 = spool.take_dropped().iter().map(|range| range.records()).sum();
    let Recovery { beginning, cut_bytes, damaged_bytes, set_aside, trouble, .. } = recovery;
    writeln!(out, "{}: {beginning:?}, {records} records can be sent, at most {lost} are lost", dir.display())?;
    writeln!(out, "{cut_bytes} bytes cut off, {damaged_bytes} damaged, set aside: {set_aside:?}")?;
    for trouble in &trouble {
        writeln!(out, "could not be done: {trouble}")?;
    }
    Ok(if lost == 0 && trouble.is_empty() { Whole::Yes } else { Whole::No })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Limits;
    use peil_proto::record::Vitals;

    fn spool(records: usize) -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().expect("directory");
        let (mut spool, _) = Spool::open(dir.path(), &machine_id(), Limits::default()).expect("opens");
        for _ in 0..records {
            spool.append(&convert::to_spool(&Record::Vitals(Vitals::default()))).expect("taken");
        }
        spool.sync().expect("synced");
        let place = Place { config: PathBuf::new(), dir: Some(dir.path().to_owned()) };
        (dir, place)
    }

    fn flip_a_bit(dir: &tempfile::TempDir) {
        let path = dir.path().join(format!("{:020}.seg", 1));
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[48 + 17] ^= 1;
        std::fs::write(path, bytes).expect("written");
    }

    fn said(act: impl FnOnce(&mut Vec<u8>) -> anyhow::Result<Whole>) -> (bool, String) {
        let mut out = Vec::new();
        let whole = act(&mut out).expect("done") == Whole::Yes;
        (whole, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn check_tells_damage_and_repair_ends_it() {
        let (dir, place) = spool(3);
        let (whole, json) = said(|out| check(&place, true, out));
        let answer: Value = serde_json::from_str(&json).expect("JSON");
        assert!(whole && answer["records"] == 3 && answer["troubles"] == json!([]), "{json}");
        flip_a_bit(&dir);
        let (whole, text) = said(|out| check(&place, false, out));
        assert!(!whole && text.contains("2 records") && text.contains("spool repair"), "{text}");
        let (whole, text) = said(|out| repair(&place, out));
        assert!(!whole && text.contains("2 records can be sent, at most 1 are lost"), "{text}");
    }

    #[test]
    fn dump_prints_a_line_of_json_per_record() {
        let (_dir, place) = spool(3);
        let (_, text) = said(|out| dump(&place, Seq(1), out));
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(
            lines.iter().map(|line| (line["seq"].clone(), line["kind"].clone())).collect::<Vec<_>>(),
            [(json!(2), json!("vitals")), (json!(3), json!("vitals"))]
        );
    }

    #[test]
    fn a_spool_in_use_is_not_repaired() {
        let (dir, place) = spool(1);
        let held = Spool::open(dir.path(), &machine_id(), Limits::default()).expect("opens");
        let refused = repair(&place, &mut Vec::new()).err().expect("in use").to_string();
        assert!(refused.contains("stop it first"), "{refused}");
        drop(held);
    }
}
