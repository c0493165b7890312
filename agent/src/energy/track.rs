//! One zone followed over time: what it contributed to the interval under way, and whether it can be
//! believed at all.

use super::integrator::{Counter, Flag, Flags, Moment, Step, ZoneIntegrator};
use super::powercap::{Unreadable, Zone};

/// Readings over which a counter is judged.
const JUDGED_READS: u32 = 60;

/// Fewer readings than this are no ground to distrust a counter: clearing one costs three suspects.
const JUDGED_READS_MIN: u32 = 20;

/// A counter of which this share of readings is suspect is somebody else's, or broken.
const SUSPECT_PERCENT_MAX: u32 = 20;

/// Share of suspect readings among the last [`JUDGED_READS`].
///
/// Distrusted at [`SUSPECT_PERCENT_MAX`]; trusted again after [`JUDGED_READS`] without a single one, so
/// that a source does not change sides every minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Trust {
    /// One bit per reading, the newest lowest; set: suspect.
    suspects: u64,
    reads: u32,
    distrusted: bool,
}

impl Trust {
    fn note(&mut self, suspect: bool) {
        let window = (1_u64 << JUDGED_READS) - 1;
        self.suspects = (self.suspects << 1 | u64::from(suspect)) & window;
        self.reads = (self.reads + 1).min(JUDGED_READS);
        let suspects = self.suspects.count_ones();
        if self.reads >= JUDGED_READS_MIN && suspects * 100 >= self.reads * SUSPECT_PERCENT_MAX {
            self.distrusted = true;
        } else if self.reads == JUDGED_READS && suspects == 0 {
            self.distrusted = false;
        }
    }
}

/// What a zone contributed since the last report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ZoneSpan {
    /// Best estimate, µJ.
    pub(super) energy_uj: u64,
    /// At least, µJ.
    pub(super) low_uj: u64,
    /// At most, µJ.
    pub(super) high_uj: u64,
    /// What happened.
    pub(super) flags: Flags,
}

impl ZoneSpan {
    fn add(&mut self, step: &Step) {
        self.energy_uj = self.energy_uj.saturating_add(step.energy.0);
        self.low_uj = self.low_uj.saturating_add(step.low.0);
        self.high_uj = self.high_uj.saturating_add(step.high.0);
        self.flags.insert(step.flag);
    }

    /// True when some of it was counted between two believed readings.
    pub(super) fn is_counted(&self) -> bool {
        self.flags.iter().any(|flag| flag.is_counted())
    }
}

/// A zone, its integrator, and what came of its last reading.
#[derive(Debug, Clone)]
pub(super) struct Tracked {
    /// The zone.
    pub(super) zone: Zone,
    /// Its counter over time.
    pub(super) integrator: ZoneIntegrator,
    /// Since the last report.
    pub(super) span: ZoneSpan,
    /// The last reading; `None` before the first.
    pub(super) last: Option<Result<u64, Unreadable>>,
    /// The last step's flag.
    pub(super) flag: Option<Flag>,
    /// Monotonic ms of the latest reading from which counting began anew.
    pub(super) joined_ms: u64,
    trust: Trust,
}

impl Tracked {
    /// A zone that was not read yet.
    pub(super) fn new(zone: Zone) -> Self {
        let (integrator, span) = Default::default();
        Self { zone, integrator, span, last: None, flag: None, joined_ms: 0, trust: Trust::default() }
    }

    /// Reads the zone once.
    pub(super) fn tick(&mut self, at: &Moment<'_>) {
        let read = self.zone.read_uj();
        let (range_uj, pmax_mw) = (self.zone.range_uj, self.zone.pmax_mw);
        let counter = read.as_ref().ok().map(|uj| Counter { energy_uj: *uj, range_uj, pmax_mw });
        let step = self.integrator.step(at, counter.as_ref());
        if step.flag != Flag::Error {
            self.trust.note(matches!(step.flag, Flag::Suspect | Flag::Rebaseline));
        }
        if matches!(step.flag, Flag::Baseline | Flag::Rebaseline | Flag::ResetBoot | Flag::GapNoRange) {
            self.joined_ms = at.mono_ms;
        }
        self.span.add(&step);
        self.last = Some(read);
        self.flag = Some(step.flag);
    }

    /// True when the zone's readings jump too often to be believed.
    pub(super) fn is_distrusted(&self) -> bool {
        self.trust.distrusted
    }

    /// The last reading if it was believed.
    pub(super) fn believed_uj(&self) -> Option<u64> {
        match (&self.last, self.flag) {
            (Some(Ok(uj)), Some(flag)) if flag != Flag::Suspect => Some(*uj),
            _ => None,
        }
    }

    /// At most this much, in µJ, was drawn in the interval since `start_ms` and is not in the span yet,
    /// because the latest readings failed or are suspect.
    pub(super) fn outstanding_uj(&self, start_ms: u64, now_ms: u64) -> u64 {
        let since = self.integrator.believed_ms().unwrap_or(start_ms).max(start_ms);
        self.zone.pmax_mw.saturating_mul(now_ms.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_counter_is_still_trusted_and_two_interleaved_ones_are_not() {
        let mut cleared = Trust::default();
        (0..60).for_each(|i| cleared.note((30..33).contains(&i)));
        assert!(!cleared.distrusted);

        let mut interleaved = Trust::default();
        (0..20).for_each(|i| interleaved.note(i % 2 == 1));
        assert!(interleaved.distrusted);
        (0..59).for_each(|_| interleaved.note(false));
        assert!(interleaved.distrusted, "one suspect is still in sight");
        interleaved.note(false);
        assert!(!interleaved.distrusted);
    }
}
