//! `cpu`: how busy the processors of this host are. Options: `peil_proto::plan::Cpu`.
//!
//! Read twice, [`APART`] apart: the counters since boot say nothing about now. A probe that has less time fails as
//! `local_resource`. Guests' time is in that of users already.

use std::path::Path;
use std::time::Duration;

use peil_proto::ids::CheckNo;
use peil_proto::plan::Cpu;

use super::dial::Deadline;
use super::host::{Share, kernel_text};
use super::{Fact, Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "cpu",
    about: "measures how busy the processors of this host are",
    example: "cpu://busy",
    phases: &[Phase::FirstByte],
};

/// Between the two looks.
const APART: Duration = Duration::from_secs(1);

pub(super) async fn run(no: CheckNo, check: &Cpu, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.of.clone(), ..Hop::default() };
    let share = measure(check, ctx, deadline, &mut hop).await;
    let facts = share.iter().map(|share| Fact::new(&check.of, share)).collect();
    let end = share.and_then(|share| ctx.host.judge((no, "use of the processors"), share, check.max, check.hysteresis));
    Observation::from_end(vec![hop], None, end.map(|()| 0)).with_facts(facts)
}

async fn measure(check: &Cpu, ctx: &ProbeContext, deadline: Deadline, hop: &mut Hop) -> Result<Share, Failure> {
    let path = ctx.local.proc_dir.join("stat");
    let before = times(&path)?;
    if deadline.allows(tokio::time::sleep(APART)).await.is_none() {
        return Err(Failure::unusable("the timeout is too short for two looks a second apart"));
    }
    let after = times(&path)?;
    hop.phases.first_byte = Some(peil_proto::units::Micros::from_duration(APART));
    Ok(after.share_since(&before, &check.of))
}

/// Ticks since boot, summed over all processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Times {
    all: u64,
    idle: u64,
    iowait: u64,
    steal: u64,
}

fn times(path: &Path) -> Result<Times, Failure> {
    Times::read(&kernel_text(path)?).ok_or_else(|| Failure::unusable(format!("{} has no line for cpu", path.display())))
}

impl Times {
    /// The line `cpu  user nice system idle iowait irq softirq steal …`.
    fn read(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).take(8).collect();
        let at = |position: usize| ticks.get(position).copied().unwrap_or(0);
        let all = ticks.iter().fold(0, |sum: u64, ticks| sum.saturating_add(*ticks));
        (ticks.len() >= 4).then_some(Self { all, idle: at(3), iowait: at(4), steal: at(7) })
    }

    /// The part of the time since `before` that was spent so.
    fn share_since(&self, before: &Self, of: &str) -> Share {
        let whole = self.all.saturating_sub(before.all);
        let idle = self.idle.saturating_sub(before.idle);
        let iowait = self.iowait.saturating_sub(before.iowait);
        let part = match of {
            "iowait" => iowait,
            "steal" => self.steal.saturating_sub(before.steal),
            _ => whole.saturating_sub(idle).saturating_sub(iowait),
        };
        Share::of(part, whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_time_between_two_looks() {
        let before = Times::read("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n").expect("read");
        let after = Times::read("cpu  150 0 110 720 110 0 0 10 0 0\n").expect("read");
        assert_eq!(after.share_since(&before, "busy"), Share(7_000));
        assert_eq!(after.share_since(&before, "iowait"), Share(1_000));
        assert_eq!(after.share_since(&before, "steal"), Share(1_000));
        assert_eq!(before.share_since(&after, "busy"), Share(0), "counters that go back say nothing");
        assert_eq!(Times::read("cpu x\n"), None);
    }
}
