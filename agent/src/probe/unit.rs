//! `unit`: the state of a systemd unit. Options: `peil_proto::plan::Unit`.
//!
//! Asked of `systemctl show`, run with fixed arguments and no shell; the name of the unit can be nothing but a name (the
//! vocabulary checks that, and `--` stands before it). A library for the bus would bring 29 crates for four words.

use peil_proto::plan::Unit;
use peil_proto::sample::FailureKind;
use peil_proto::units::Micros;
use tokio::time::Instant;

use super::dial::Deadline;
use super::dialogue::for_people;
use super::exec::child;
use super::{Fact, Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "unit",
    about: "reads the state of a systemd unit of this host",
    example: "unit://nginx.service",
    phases: &[Phase::FirstByte],
};

pub(super) async fn run(check: &Unit, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.unit.clone(), ..Hop::default() };
    let mut facts = Vec::new();
    let end = look(check, ctx, deadline, &mut hop, &mut facts).await.map(|()| 0);
    Observation::from_end(vec![hop], None, end).with_facts(facts)
}

async fn look(
    check: &Unit,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
    facts: &mut Vec<Fact>,
) -> Result<(), Failure> {
    let systemctl = ctx.local.systemctl.display().to_string();
    let words = ["show", "--property=LoadState,ActiveState,SubState,NRestarts", "--", &check.unit];
    let argv: Vec<String> = std::iter::once(systemctl).chain(words.map(str::to_owned)).collect();
    let began = Instant::now();
    let ran = child::run(&argv, deadline).await;
    hop.phases.first_byte = Some(Micros::from_duration(began.elapsed()));
    let ran = ran.map_err(|error| Failure::unusable(format!("cannot ask systemd: {error}")))?;
    // That systemd hangs says nothing about the unit.
    let Some(ran) = ran else { return Err(Failure::unusable("systemd does not answer")) };
    if ran.code != Some(0) {
        let (code, said) = (ran.code.unwrap_or(-1), for_people(&ran.output));
        return Err(Failure::unusable(format!("systemd does not tell (exit status {code}) {said}")));
    }
    let said = State::read(&String::from_utf8_lossy(&ran.output));
    facts.push(Fact::new("state", format_args!("{} ({})", said.active, said.sub)));
    facts.push(Fact::new("restarts", said.restarts));
    said.judge(check)
}

/// What systemd says about a unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    load: String,
    active: String,
    sub: String,
    restarts: u32,
}

impl State {
    fn read(text: &str) -> Self {
        let mut state = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "LoadState" => value.clone_into(&mut state.load),
                "ActiveState" => value.clone_into(&mut state.active),
                "SubState" => value.clone_into(&mut state.sub),
                "NRestarts" => state.restarts = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        state
    }

    fn judge(&self, check: &Unit) -> Result<(), Failure> {
        if self.load == "not-found" {
            return Err(Failure::judged(FailureKind::NoSuchName, "systemd knows no such unit"));
        }
        if self.active.is_empty() {
            return Err(Failure::unusable("systemd did not tell the state"));
        }
        if !check.states.contains(&self.active) {
            return Err(Failure::judged(FailureKind::Status, format!("it is {} ({})", self.active, self.sub)));
        }
        match check.restarts_max.filter(|most| self.restarts > *most) {
            Some(most) => {
                let text = format!("it was restarted {} times, over {most}", self.restarts);
                Err(Failure::judged(FailureKind::Content, text))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_decides_and_restarts_count() {
        let judge = |text: &str, check: &Unit| State::read(text).judge(check).map_err(|failure| failure.kind);
        let good = "LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=3\n";
        assert_eq!(judge(good, &Unit::default()), Ok(()));
        let few = Unit { restarts_max: Some(2), ..Unit::default() };
        assert_eq!(judge(good, &few), Err(FailureKind::Content));
        assert_eq!(judge("LoadState=loaded\nActiveState=failed\n", &Unit::default()), Err(FailureKind::Status));
        assert_eq!(
            judge("LoadState=not-found\nActiveState=inactive\n", &Unit::default()),
            Err(FailureKind::NoSuchName)
        );
        assert_eq!(judge("nonsense", &Unit::default()), Err(FailureKind::LocalResource));
    }
}
