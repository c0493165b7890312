//! `exec`: runs a command that this host allows. Options: `peil_proto::plan::Exec`.
//!
//! A plan can only name a command; what it runs stands in `commands_file`, which must be root's (`commands`). The command
//! gets a process group of its own, no input, a small environment, and time until the deadline: then the whole group is
//! killed (`child`). Its answer is that of Nagios plug-ins: exit status, a line for people, performance data (`perfdata`).
//!
//! `first_byte` is the time it ran.

pub(super) mod child;
mod commands;
pub mod perfdata;

use peil_proto::plan::{Exec, Warning};
use peil_proto::sample::FailureKind;
use peil_proto::units::Micros;
use tokio::time::Instant;

use super::dial::Deadline;
use super::dialogue::for_people;
use super::{Fact, Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "exec",
    about: "runs a command that this host allows",
    example: "exec://raid",
    phases: &[Phase::FirstByte],
};

pub(super) async fn run(check: &Exec, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.command.clone(), ..Hop::default() };
    let mut facts = Vec::new();
    let end = ask(check, ctx, deadline, &mut hop, &mut facts).await.map(|()| 0);
    Observation::from_end(vec![hop], None, end).with_facts(facts)
}

async fn ask(
    check: &Exec,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
    facts: &mut Vec<Fact>,
) -> Result<(), Failure> {
    let argv = commands::find(&ctx.local.commands_file, &check.command)?;
    let began = Instant::now();
    let ran = child::run(&argv, deadline).await;
    hop.phases.first_byte = Some(Micros::from_duration(began.elapsed()));
    let ran = ran.map_err(|error| Failure::unusable(format!("{} cannot be run: {error}", argv[0])))?;
    let Some(ran) = ran else {
        let text = "it did not end; its process group was killed";
        return Err(Failure::during(Phase::FirstByte, FailureKind::Timeout, text));
    };
    let output = String::from_utf8_lossy(&ran.output);
    let (line, values) = perfdata::split(&output);
    facts.push(Fact::new("output", for_people(line.as_bytes())));
    facts.extend(values.into_iter().map(|value| Fact::new(value.label, format_args!("{}{}", value.value, value.unit))));
    judge(check, ran.code, line, hop)
}

fn judge(check: &Exec, code: Option<i32>, line: &str, hop: &mut Hop) -> Result<(), Failure> {
    let line = for_people(line.as_bytes());
    match (code, check.warning) {
        (Some(0), _) | (Some(1), Warning::Up) => Ok(()),
        (Some(code @ (1 | 2)), _) => {
            hop.status = u16::try_from(code).ok();
            Err(Failure::judged(FailureKind::Status, line))
        }
        (Some(3), _) => Err(Failure::unusable(format!("the command does not know: {line}"))),
        (Some(code), _) => Err(Failure::unusable(format!("exit status {code} means nothing: {line}"))),
        (None, _) => Err(Failure::unusable("the command was ended by a signal")),
    }
}
