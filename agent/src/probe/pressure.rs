//! `pressure`: how long tasks of this host waited for a resource in the last minute. Options:
//! `peil_proto::plan::Pressure`.
//!
//! The line `some` of the kernel's pressure stall information, averaged over 60 s by the kernel.

use peil_proto::ids::CheckNo;
use peil_proto::plan::Pressure;

use super::dial::Deadline;
use super::host::{Share, kernel_text};
use super::{Fact, Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "pressure",
    about: "looks how long tasks of this host wait for a resource",
    example: "pressure://io",
    phases: &[Phase::FirstByte],
};

pub(super) async fn run(no: CheckNo, check: &Pressure, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.of.clone(), ..Hop::default() };
    let path = ctx.local.proc_dir.join("pressure").join(&check.of);
    let share = ctx.host.look(deadline, &mut hop, move || {
        let unknown = || Failure::unusable(format!("{} does not tell", path.display()));
        some(&kernel_text(&path)?).ok_or_else(unknown)
    });
    let share = share.await;
    let facts = share.iter().map(|share| Fact::new(&check.of, share)).collect();
    let end = share.and_then(|share| ctx.host.judge((no, "waiting"), share, check.max, check.hysteresis));
    Observation::from_end(vec![hop], None, end.map(|()| 0)).with_facts(facts)
}

/// `avg60` of the line `some avg10=0.00 avg60=1.23 avg300=0.50 total=…`.
fn some(text: &str) -> Option<Share> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let value = line.split_whitespace().find_map(|word| word.strip_prefix("avg60="))?;
    let (whole, part) = value.split_once('.')?;
    let part = part.get(..2)?.parse::<u32>().ok()?;
    Some(Share(whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(part)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_minute_is_read_in_hundredths() {
        assert_eq!(some("some avg10=0.00 avg60=12.34 avg300=0.50 total=9\nfull avg60=1.00\n"), Some(Share(1_234)));
        assert_eq!(some("some avg10=0.00\n"), None);
        assert_eq!(some("full avg60=1.00\n"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_tells_or_does_not(text in ".{0,80}", number in "[0-9.]{0,14}") {
            let _ = some(&text);
            let _ = some(&format!("some avg60={number}"));
        }
    }
}
