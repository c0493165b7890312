//! `memory`: how much memory or swap of this host is in use. Options: `peil_proto::plan::Memory`.
//!
//! Memory in use is what is not *available* (`MemAvailable`): caches that can be dropped are not. A host without swap
//! uses none of it.

use peil_proto::ids::CheckNo;
use peil_proto::plan::Memory;

use super::dial::Deadline;
use super::host::{Share, kernel_text};
use super::{Fact, Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "memory",
    about: "looks how much memory or swap of this host is in use",
    example: "memory://swap",
    phases: &[Phase::FirstByte],
};

pub(super) async fn run(no: CheckNo, check: &Memory, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.of.clone(), ..Hop::default() };
    let (path, of) = (ctx.local.proc_dir.join("meminfo"), check.of.clone());
    let share = ctx.host.look(deadline, &mut hop, move || {
        let unknown = || Failure::unusable(format!("{} does not tell", path.display()));
        in_use(&kernel_text(&path)?, &of).ok_or_else(unknown)
    });
    let share = share.await;
    let facts = share.iter().map(|share| Fact::new(&check.of, share)).collect();
    let end = share.and_then(|share| ctx.host.judge((no, "use of memory"), share, check.max, check.hysteresis));
    Observation::from_end(vec![hop], None, end.map(|()| 0)).with_facts(facts)
}

/// The share in use by `/proc/meminfo`; `None` when it does not tell.
fn in_use(text: &str, of: &str) -> Option<Share> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (whole, free) = match of {
        "swap" => (value("SwapTotal")?, value("SwapFree")?),
        _ => (value("MemTotal")?, value("MemAvailable")?),
    };
    Some(Share::of(whole.saturating_sub(free), whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_swap_are_told_apart_and_caches_do_not_count() {
        let text = "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable:  250 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";
        assert_eq!(in_use(text, "memory"), Some(Share(7_500)));
        assert_eq!(in_use(text, "swap"), Some(Share(0)));
        assert_eq!(in_use("MemTotal: x\n", "memory"), None);
    }
}
