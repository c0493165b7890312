//! [`Summary`] ↔ its message. What contradicts itself is refused, for the ticks are read off it.

use std::collections::BTreeMap;

use super::Malformed;
use crate::ids::CheckNo;
use crate::summary::{Summary, TICKS_MAX, Timings};
use crate::time::UtcTime;
use crate::units::{Micros, Millis};
use crate::wire;

pub(super) fn to_wire(summary: &Summary) -> wire::Summary {
    let phase = |(phase, timings): (u32, &Timings)| wire::PhaseSummary {
        phase,
        min_us: timings.min.0,
        max_us: timings.max.0,
        sum_us: timings.sum_us,
        buckets: timings.buckets.iter().flat_map(|(bucket, count)| [u32::from(*bucket), *count]).collect(),
    };
    wire::Summary {
        check: summary.check.0,
        first_ms: summary.first.0,
        step_ms: u32::try_from(summary.step.0).unwrap_or(u32::MAX),
        count: summary.count,
        code: summary.code.into(),
        delay_max_ms: summary.delay_max.0,
        phases: (0..)
            .zip(&summary.phases)
            .filter_map(|(at, some)| some.as_ref().map(|some| phase((at, some))))
            .collect(),
    }
}

pub(super) fn from_wire(summary: wire::Summary) -> Result<Summary, Malformed> {
    if !(1..=TICKS_MAX).contains(&summary.count) {
        return Err(Malformed::Field("summary.count"));
    }
    if (summary.step_ms == 0) != (summary.count == 1) {
        return Err(Malformed::Field("summary.step_ms"));
    }
    let mut phases = [const { None }; 5];
    for told in summary.phases {
        let place = usize::try_from(told.phase).ok().and_then(|at| phases.get_mut(at));
        *place.ok_or(Malformed::Field("summary.phases.phase"))? = Some(timings(&told)?);
    }
    Ok(Summary {
        check: CheckNo(summary.check),
        first: UtcTime(summary.first_ms),
        step: Millis(summary.step_ms.into()),
        count: summary.count,
        code: u16::try_from(summary.code).map_err(|_| Malformed::Field("summary.code"))?,
        delay_max: Millis(summary.delay_max_ms),
        phases,
    })
}

fn timings(told: &wire::PhaseSummary) -> Result<Timings, Malformed> {
    let mut buckets = BTreeMap::new();
    for pair in told.buckets.chunks(2) {
        let [bucket, count] = *pair else { return Err(Malformed::Field("summary.phases.buckets")) };
        buckets.insert(u16::try_from(bucket).map_err(|_| Malformed::Field("summary.phases.buckets"))?, count);
    }
    Ok(Timings { min: Micros(told.min_us), max: Micros(told.max_us), sum_us: told.sum_us, buckets })
}
