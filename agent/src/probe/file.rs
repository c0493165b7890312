//! `file`: whether a file of this host is there, new enough and of a sensible size. Options: `peil_proto::plan::File`.
//!
//! Symbolic links are followed; nothing is read but the metadata. The age counts by the agent's clock.

use std::path::PathBuf;

use peil_proto::plan::File;
use peil_proto::sample::FailureKind;
use peil_proto::time::UtcTime;

use super::dial::Deadline;
use super::host::failure_of;
use super::{Fact, Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "file",
    about: "looks at the age and size of a file of this host",
    example: "file:///var/backups/db.dump",
    phases: &[Phase::FirstByte],
};

/// What is looked at.
struct Seen {
    changed: Option<UtcTime>,
    bytes: u64,
}

pub(super) async fn run(check: &File, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.path.clone(), ..Hop::default() };
    let path = PathBuf::from(&check.path);
    let seen = ctx.host.look(deadline, &mut hop, move || {
        let meta = std::fs::metadata(&path).map_err(|error| failure_of(&error, &path))?;
        let since = meta.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let changed = since.and_then(|since| i64::try_from(since.as_millis()).ok()).map(UtcTime);
        Ok(Seen { changed, bytes: meta.len() })
    });
    let mut facts = Vec::new();
    let end = judge(check, seen.await, ctx.clock.now(), &mut facts).map(|()| 0);
    Observation::from_end(vec![hop], None, end).with_facts(facts)
}

fn judge(check: &File, seen: Result<Seen, Failure>, now: UtcTime, facts: &mut Vec<Fact>) -> Result<(), Failure> {
    let fails = |text: String| Err(Failure::judged(FailureKind::Content, text));
    let seen = match seen {
        Err(failure) if check.absent && failure.kind == FailureKind::NoSuchName => return Ok(()),
        Err(failure) => return Err(failure),
        Ok(_) if check.absent => return fails("it is there, and must not be".to_owned()),
        Ok(seen) => seen,
    };
    facts.push(Fact::new("size", format_args!("{} bytes", seen.bytes)));
    if let Some(changed) = seen.changed {
        let age_s = now.since(changed).0.div_euclid(1_000);
        facts.push(Fact::new("age", format_args!("{age_s} s")));
        if let Some(most) = check.age_max_s.filter(|most| age_s > i64::from(*most)) {
            return fails(format!("it was changed {age_s} s ago, more than {most}"));
        }
    }
    if let Some(least) = check.size_min.filter(|least| seen.bytes < *least) {
        return fails(format!("{} bytes, fewer than {least}", seen.bytes));
    }
    if let Some(most) = check.size_max.filter(|most| seen.bytes > *most) {
        return fails(format!("{} bytes, more than {most}", seen.bytes));
    }
    Ok(())
}
