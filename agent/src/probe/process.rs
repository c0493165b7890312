//! `process`: counts the processes of a program in `/proc`. Options: `peil_proto::plan::Process`.
//!
//! A process is one of the program when the last part of its first argument is that name, or when its short name (15
//! bytes, which the kernel keeps) is. Processes that end while they are looked at do not count. A `/proc` that hides
//! those of others (`hidepid`, `ProtectProc=`) makes them too few: give the agent the right to see them.

use std::path::Path;

use peil_proto::plan::{Pattern, Process};
use peil_proto::sample::FailureKind;

use super::dial::Deadline;
use super::host::failure_of;
use super::{Fact, Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "process",
    about: "counts the processes of a program on this host",
    example: "process://nginx",
    phases: &[Phase::FirstByte],
};

/// Bytes of a short name.
const COMM_BYTES: usize = 15;
/// Bytes of a command line that are looked at.
const COMMAND_BYTES_MAX: u64 = 64 << 10;

pub(super) async fn run(check: &Process, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.process.clone(), ..Hop::default() };
    let (proc, name, pattern) = (ctx.local.proc_dir.clone(), check.process.clone(), check.matches.clone());
    let counted = ctx.host.look(deadline, &mut hop, move || count(&proc, &name, pattern.as_ref())).await;
    let facts = counted.iter().map(|count| Fact::new("processes", count)).collect();
    let end = counted.and_then(|count| judge(check, count)).map(|()| 0);
    Observation::from_end(vec![hop], None, end).with_facts(facts)
}

fn count(proc: &Path, name: &str, pattern: Option<&Pattern>) -> Result<u32, Failure> {
    let entries = std::fs::read_dir(proc)
        .map_err(|error| Failure { kind: FailureKind::LocalResource, ..failure_of(&error, proc) })?;
    let processes =
        entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let found = processes.filter(|entry| is_one(&entry.path(), name, pattern)).count();
    Ok(u32::try_from(found).unwrap_or(u32::MAX))
}

fn is_one(process: &Path, name: &str, pattern: Option<&Pattern>) -> bool {
    let command = read(&process.join("cmdline"));
    let first = command.split(|byte| *byte == 0).next().unwrap_or_default();
    // What a program writes over its arguments ("nginx: master process") ends at the first blank or colon.
    let first = first.split(|byte| b" :".contains(byte)).next().unwrap_or_default();
    let by_command = first.rsplit(|byte| *byte == b'/').next() == Some(name.as_bytes());
    let short = &name.as_bytes()[..name.len().min(COMM_BYTES)];
    let named = by_command || read(&process.join("comm")).trim_ascii_end() == short;
    named && pattern.is_none_or(|pattern| pattern.is_match(&joined(&command)))
}

fn joined(command: &[u8]) -> Vec<u8> {
    let text = command.strip_suffix(b"\0").unwrap_or(command);
    text.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect()
}

fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // A process that is gone by now has no bytes.
        let _ = std::io::Read::read_to_end(&mut std::io::Read::take(file, COMMAND_BYTES_MAX), &mut bytes);
    }
    bytes
}

fn judge(check: &Process, count: u32) -> Result<(), Failure> {
    let fails = |text: String| Err(Failure::judged(FailureKind::Content, text));
    match check.count_max {
        _ if count < check.count_min => fails(format!("{count} processes, fewer than {}", check.count_min)),
        Some(most) if count > most => fails(format!("{count} processes, more than {most}")),
        _ => Ok(()),
    }
}
