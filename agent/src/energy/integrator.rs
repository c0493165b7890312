//! One counter's readings to energy: the step rules, and nothing else.
//!
//! A powercap counter is a 32-bit register in disguise. It wraps every few minutes on a busy server,
//! jumps when firmware clears it, glitches, and starts anew after a reboot or a suspend. Each pair of
//! readings therefore becomes a [`Step`] whose [`Flag`] says what was known: the best estimate and the
//! bounds between which the truth lies, as far as the counter itself can tell. The accuracy of the
//! sensor is not in these bounds: that is a property of the source, not of the arithmetic.
//!
//! Pure: no clock, no file, no float. mW × ms is µJ, so no division takes place but the one that
//! picks a number of wraps. Assumes that readings of one zone arrive in order; a monotonic clock that
//! runs backwards within a boot is taken for a reboot that the boot id did not show.
//!
//! Deliberately absent: power. Whoever wants watts divides energy by active time.

use std::collections::BTreeSet;
use std::fmt;

use peil_proto::units::Microjoules;
use serde::{Deserialize, Serialize};

/// What a step may exceed Pmax × time by: counters tick in units of up to 1 J.
pub const SLACK_UJ: u64 = 1_000_000;

/// Implausible readings in a row after which the counter's new level is believed (it was cleared):
/// the stretch since the last believed reading becomes a gap with an upper bound.
pub const SUSPECTS_MAX: u8 = 3;

/// Boot time may run ahead of monotonic time by this much before it counts as a suspend.
pub const SUSPEND_MS_MIN: u64 = 1_000;

/// What is known about one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flag {
    /// First reading: counting starts here, nothing is credited.
    Baseline,
    /// A plain difference of two successive readings.
    Ok,
    /// The counter passed its range once.
    Wrap,
    /// So much time passed that it may have wrapped more often: see the bounds.
    Ambiguous,
    /// More than the zone can draw: nothing credited, the old reading stays the baseline.
    Suspect,
    /// Exact, across readings that failed, were suspect or did not take place.
    Bridged,
    /// [`SUSPECTS_MAX`] suspects in a row: a gap with an upper bound, counting starts anew.
    Rebaseline,
    /// Another boot: nothing credited, at most what the counter shows since.
    ResetBoot,
    /// The counter was cleared by a suspend: credited from zero.
    SuspendReset,
    /// The counter fell and its range is unknown: a gap with an upper bound.
    GapNoRange,
    /// The counter could not be read; the next good reading covers this one.
    Error,
}

/// The flags of several steps together.
pub type Flags = BTreeSet<Flag>;

impl Flag {
    /// Every flag.
    pub const ALL: [Flag; 11] = [
        Flag::Baseline,
        Flag::Ok,
        Flag::Wrap,
        Flag::Ambiguous,
        Flag::Suspect,
        Flag::Bridged,
        Flag::Rebaseline,
        Flag::ResetBoot,
        Flag::SuspendReset,
        Flag::GapNoRange,
        Flag::Error,
    ];

    /// The word people and other programs see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Ok => "ok",
            Self::Wrap => "wrap",
            Self::Ambiguous => "ambiguous",
            Self::Suspect => "suspect",
            Self::Bridged => "bridged",
            Self::Rebaseline => "rebaseline",
            Self::ResetBoot => "reset_boot",
            Self::SuspendReset => "suspend_reset",
            Self::GapNoRange => "gap_no_range",
            Self::Error => "error",
        }
    }

    /// True when the step credited energy it is sure of, from a believed reading to a believed reading.
    pub fn is_counted(self) -> bool {
        matches!(self, Self::Ok | Self::Wrap | Self::Bridged | Self::SuspendReset | Self::Ambiguous)
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// When a reading was taken, on the two clocks that nobody can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment<'a> {
    /// The kernel's boot id.
    pub boot_id: &'a str,
    /// Time awake since boot, ms.
    pub mono_ms: u64,
    /// Time since boot including suspend, ms.
    pub boottime_ms: u64,
}

/// One good reading of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// The counter itself.
    pub energy_uj: u64,
    /// Value after which it starts again; 0 when unknown.
    pub range_uj: u64,
    /// More than this the zone cannot draw, in mW.
    pub pmax_mw: u64,
}

/// What one step contributes. Always `low ≤ energy ≤ high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What is known about it.
    pub flag: Flag,
    /// Best estimate.
    pub energy: Microjoules,
    /// At least this much.
    pub low: Microjoules,
    /// At most this much.
    pub high: Microjoules,
}

impl Step {
    fn between(flag: Flag, low: u128, energy: u128, high: u128) -> Self {
        let held = |uj: u128| Microjoules(u64::try_from(uj).unwrap_or(u64::MAX));
        Self { flag, energy: held(energy), low: held(low), high: held(high) }
    }

    fn exact(flag: Flag, energy: u128) -> Self {
        Self::between(flag, energy, energy, energy)
    }

    fn gap(flag: Flag, high: u128) -> Self {
        Self::between(flag, 0, 0, high)
    }
}

/// The last believed reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Baseline {
    boot_id: String,
    mono_ms: u64,
    boottime_ms: u64,
    energy_uj: u64,
}

/// The last exact step, as the mean power an ambiguous step is estimated by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MeanPower {
    energy_uj: u64,
    active_ms: u64,
}

/// One zone's counter over time. Serialisable: a restarted agent goes on where it stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneIntegrator {
    baseline: Option<Baseline>,
    history: Option<MeanPower>,
    suspects: u8,
    missed: bool,
}

impl ZoneIntegrator {
    /// Takes the reading of one tick (`None`: it failed) and says what it contributes.
    pub fn step(&mut self, at: &Moment<'_>, read: Option<&Counter>) -> Step {
        let Some(counter) = read else {
            self.missed = true;
            return Step::gap(Flag::Error, 0);
        };
        let Some(base) = &self.baseline else {
            self.rebase(at, counter);
            return Step::gap(Flag::Baseline, 0);
        };
        if base.boot_id != at.boot_id || at.mono_ms < base.mono_ms {
            self.rebase(at, counter);
            return since_boot(at, counter);
        }
        let elapsed = Elapsed::between(base, at);
        let verdict = judge(base.energy_uj, counter, &elapsed);
        self.conclude(verdict, &elapsed, at, counter)
    }

    /// Notes that a tick passed without this zone: the next step then spans more than one tick.
    pub fn skip(&mut self) {
        self.missed = true;
    }

    /// Drops the last believed reading: somebody else accounts for the time since.
    pub fn forget(&mut self) {
        self.baseline = None;
        self.suspects = 0;
        self.missed = false;
    }

    /// Monotonic time of the last believed reading, in ms; `None` before the first.
    pub fn believed_ms(&self) -> Option<u64> {
        self.baseline.as_ref().map(|base| base.mono_ms)
    }

    fn conclude(&mut self, verdict: Verdict, elapsed: &Elapsed, at: &Moment<'_>, counter: &Counter) -> Step {
        let ceiling = elapsed.ceiling(counter);
        let step = match verdict {
            Verdict::Implausible => {
                self.suspects += 1;
                self.missed = true;
                if self.suspects < SUSPECTS_MAX {
                    return Step::gap(Flag::Suspect, 0);
                }
                Step::gap(Flag::Rebaseline, ceiling)
            }
            Verdict::NoRange => Step::gap(Flag::GapNoRange, ceiling),
            Verdict::Cleared { energy, high } => Step::between(Flag::SuspendReset, energy, energy, high),
            Verdict::Ambiguous { low, shown, range } => {
                let most = ceiling.saturating_sub(shown) / range;
                let wraps = self.history.map_or(0, |mean| mean.wraps(elapsed.active_ms, shown, range)).min(most);
                // Without a history the least is the estimate: never claim what was not seen.
                let energy = if self.history.is_some() { shown + wraps * range } else { low };
                Step::between(Flag::Ambiguous, low, energy, shown + most * range)
            }
            Verdict::Exact { energy, wrapped } => {
                if elapsed.active_ms > 0 {
                    let energy_uj = u64::try_from(energy).unwrap_or(u64::MAX);
                    self.history = Some(MeanPower { energy_uj, active_ms: elapsed.active_ms });
                }
                // `bridged` wins over `wrap`: that the step spans several ticks matters to whoever
                // spreads it over time, how the difference was formed does not.
                let flag = match (self.missed, wrapped) {
                    (true, _) => Flag::Bridged,
                    (false, true) => Flag::Wrap,
                    (false, false) => Flag::Ok,
                };
                Step::exact(flag, energy)
            }
        };
        self.rebase(at, counter);
        step
    }

    fn rebase(&mut self, at: &Moment<'_>, counter: &Counter) {
        self.suspects = 0;
        self.missed = false;
        match &mut self.baseline {
            // The steady state: no allocation per tick.
            Some(base) if base.boot_id == at.boot_id => {
                base.mono_ms = at.mono_ms;
                base.boottime_ms = at.boottime_ms;
                base.energy_uj = counter.energy_uj;
            }
            other => {
                *other = Some(Baseline {
                    boot_id: at.boot_id.to_owned(),
                    mono_ms: at.mono_ms,
                    boottime_ms: at.boottime_ms,
                    energy_uj: counter.energy_uj,
                });
            }
        }
    }
}

impl MeanPower {
    /// The number of wraps that brings a counter showing `shown` nearest to this power over `active_ms`.
    fn wraps(self, active_ms: u64, shown: u128, range: u128) -> u128 {
        let expected = u128::from(self.energy_uj) * u128::from(active_ms) / u128::from(self.active_ms.max(1));
        (expected.saturating_sub(shown) + range / 2) / range
    }
}

/// Time between two readings of one boot.
struct Elapsed {
    /// Awake.
    active_ms: u64,
    /// Asleep.
    suspended_ms: u64,
}

impl Elapsed {
    fn between(base: &Baseline, at: &Moment<'_>) -> Self {
        let active_ms = at.mono_ms.saturating_sub(base.mono_ms);
        let total_ms = at.boottime_ms.saturating_sub(base.boottime_ms);
        Self { active_ms, suspended_ms: total_ms.saturating_sub(active_ms) }
    }

    /// The most the zone can have drawn, in µJ. A sleeping machine draws nothing the counter sees.
    fn ceiling(&self, counter: &Counter) -> u128 {
        u128::from(counter.pmax_mw) * u128::from(self.active_ms)
    }
}

/// What two readings of one boot say.
enum Verdict {
    Exact { energy: u128, wrapped: bool },
    Ambiguous { low: u128, shown: u128, range: u128 },
    Cleared { energy: u128, high: u128 },
    Implausible,
    NoRange,
}

fn judge(before_uj: u64, counter: &Counter, elapsed: &Elapsed) -> Verdict {
    let (before, now, range) = (u128::from(before_uj), u128::from(counter.energy_uj), u128::from(counter.range_uj));
    let ceiling = elapsed.ceiling(counter);
    let plausible = |uj: &u128| *uj <= ceiling + u128::from(SLACK_UJ);
    let fell = now < before;
    // What the counter shows if it wrapped at most once. None: its range is unknown, or smaller than
    // a value it already had.
    let shown = if !fell {
        Some(now - before)
    } else if range > 0 {
        (now + range).checked_sub(before)
    } else {
        None
    };
    let slept_and_fell = fell && elapsed.suspended_ms > SUSPEND_MS_MIN;
    match shown {
        Some(shown) if plausible(&shown) && range > 0 && ceiling >= range => {
            let low = if slept_and_fell { shown.min(now) } else { shown };
            Verdict::Ambiguous { low, shown, range }
        }
        // Firmware usually clears the counter when it powers the package down. Should a wrap be
        // possible as well, it is the upper bound.
        shown if slept_and_fell && plausible(&now) => {
            Verdict::Cleared { energy: now, high: shown.filter(plausible).unwrap_or(now).max(now) }
        }
        Some(energy) if plausible(&energy) => Verdict::Exact { energy, wrapped: fell },
        None if range == 0 => Verdict::NoRange,
        Some(_) | None => Verdict::Implausible,
    }
}

/// After a reboot the counter normally started from zero, so it bounds what was drawn since, with the
/// wraps that fit in the uptime. Firmware that keeps the counter over a warm boot shows more than the
/// zone can have drawn: then the uptime is the bound. What was drawn before the reboot is not known.
fn since_boot(at: &Moment<'_>, counter: &Counter) -> Step {
    let now = u128::from(counter.energy_uj);
    let most = u128::from(counter.pmax_mw) * u128::from(at.boottime_ms) + u128::from(SLACK_UJ);
    let wraps = match counter.range_uj {
        0 => 0,
        range => most.saturating_sub(now) / u128::from(range),
    };
    Step::gap(Flag::ResetBoot, now.saturating_add(wraps * u128::from(counter.range_uj)).min(most))
}

#[cfg(test)]
mod tests;
