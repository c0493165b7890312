//! Energy of a machine without counters: utilisation × averages, with honest bounds.
//!
//! Power = vCPUs × (min + u × (max − min)) + memory × 392 mW/GB, where u is the busy share of processor
//! time since the last tick. The coefficients are Cloud Carbon Footprint's averages of SPECpower
//! results, whole servers measured at the plug and divided by their threads; so the boundary is the
//! wall, and the method is *modelled*: half to double is what such averages are good for. The error is
//! the same for all hosts and hours, so bounds of many modelled hosts must be added, not averaged out.
//!
//! Limits: in a container without its own `/proc`, CPUs and memory are the host's; set `vcpu` and
//! `mem_gb` then. Deliberately absent: PUE (a dated fact of the site, applied by the collector), disks,
//! network, GPUs, and processor-specific tables.

use std::path::Path;

use peil_proto::units::Microjoules;
use serde::{Deserialize, Serialize};

use super::procfs::{self, CpuTime, Stat};
use super::settings::ModelSettings;

/// Memory, mW per GB (10^9 bytes would be 7 % off; CCF's GB are GiB as machines are sold).
const MEMORY_MW_PER_GB: u64 = 392;

/// Memory in KiB per GB.
const KIB_PER_GB: u64 = 1 << 20;

/// Where the model stood at its last tick. Part of the state file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelBaseline {
    /// Processor time then.
    pub(super) time: CpuTime,
    /// Monotonic ms then.
    pub(super) mono_ms: u64,
}

/// A machine's power as a function of its utilisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Profile {
    /// Virtual CPUs.
    pub(super) vcpu: u32,
    /// All memory together, mW.
    pub(super) memory_mw: u64,
    /// An idle vCPU, mW.
    pub(super) min_mw: u64,
    /// A busy vCPU, mW.
    pub(super) max_mw: u64,
}

impl Profile {
    /// From the settings and, where they are silent, the machine. `None`: the machine does not say how
    /// many CPUs it has. Memory that is unknown is modelled as none and the bounds are left as they are.
    pub(super) fn of(settings: &ModelSettings, procfs: &Path) -> Option<Self> {
        let vcpu = settings.vcpu.or_else(|| procfs::stat(procfs).map(|stat| stat.cpus))?;
        let memory_mw = match settings.mem_gb {
            Some(gb) => u64::from(gb) * MEMORY_MW_PER_GB,
            None => procfs::memory_kib(procfs).unwrap_or(0).saturating_mul(MEMORY_MW_PER_GB) / KIB_PER_GB,
        };
        Some(Self { vcpu, memory_mw, min_mw: settings.min_mw_per_vcpu, max_mw: settings.max_mw_per_vcpu })
    }

    /// Energy over `active_ms` in which the processors were busy `busy` of `total` ticks. Without any
    /// ticks the utilisation is unknown and taken as one half, CCF's own default.
    pub(super) fn energy(&self, busy: u64, total: u64, active_ms: u64) -> Microjoules {
        let (busy, total) = if total == 0 { (1, 2) } else { (busy.min(total), total) };
        let (busy, total, vcpu) = (u128::from(busy), u128::from(total), u128::from(self.vcpu));
        let (min, span) = (u128::from(self.min_mw), u128::from(self.max_mw.saturating_sub(self.min_mw)));
        let active_ms = u128::from(active_ms);
        let memory_uj = u128::from(self.memory_mw) * active_ms;
        let idle_uj = vcpu * min * active_ms;
        let busy_uj = (vcpu * span * active_ms).saturating_mul(busy) / total;
        Microjoules(u64::try_from(memory_uj + idle_uj + busy_uj).unwrap_or(u64::MAX))
    }
}

/// The model as it runs.
#[derive(Debug, Clone)]
pub(super) struct Model {
    profile: Profile,
    baseline: Option<ModelBaseline>,
    credited: Option<Microjoules>,
}

impl Model {
    /// A model that has not seen a tick yet.
    pub(super) fn new(profile: Profile) -> Self {
        Self { profile, baseline: None, credited: None }
    }

    /// The machine it stands for.
    pub(super) fn profile(&self) -> Profile {
        self.profile
    }

    /// Goes on from where an earlier run of the agent stood.
    pub(super) fn restore(&mut self, baseline: Option<ModelBaseline>) {
        self.baseline = baseline;
    }

    /// Where it stands, for the state file.
    pub(super) fn baseline(&self) -> Option<ModelBaseline> {
        self.baseline
    }

    /// One tick. Without `stat` the next tick covers this one: processor time adds up by itself.
    pub(super) fn tick(&mut self, stat: Option<Stat>, mono_ms: u64) {
        let Some(stat) = stat else { return };
        if let Some(base) = self.baseline {
            let busy = stat.time.busy.saturating_sub(base.time.busy);
            let total = stat.time.total.saturating_sub(base.time.total);
            let energy = self.profile.energy(busy, total, mono_ms.saturating_sub(base.mono_ms));
            self.credited = Some(self.credited.unwrap_or_default().saturating_add(energy));
        }
        self.baseline = Some(ModelBaseline { time: stat.time, mono_ms });
    }

    /// Energy since the last [`Model::close`]; `None` when utilisation could not be read.
    pub(super) fn credited(&self) -> Option<Microjoules> {
        self.credited
    }

    /// Starts the next interval at `mono_ms`. A tick that is still to be covered belongs to the interval
    /// that ends now when the model `spoke` for it, and to nobody otherwise.
    pub(super) fn close(&mut self, mono_ms: u64, spoke: bool) {
        self.credited = None;
        if !spoke && self.baseline.is_some_and(|base| base.mono_ms != mono_ms) {
            self.baseline = None;
        }
    }
}

/// −50 % and +100 %.
pub(super) fn bounds(energy: Microjoules) -> (Microjoules, Microjoules) {
    (Microjoules(energy.0 / 2), energy.saturating_add(energy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO_VCPU_8_GB: Profile = Profile { vcpu: 2, memory_mw: 8 * MEMORY_MW_PER_GB, min_mw: 740, max_mw: 3_500 };

    #[test]
    fn two_vcpus_at_a_fifth_with_8_gb_draw_five_point_seven_watts() {
        // 2 × (0.74 + 0.2 × 2.76) + 8 × 0.392 = 5.72 W
        assert_eq!(TWO_VCPU_8_GB.energy(20, 100, 1_000), Microjoules(5_720_000));
        assert_eq!(TWO_VCPU_8_GB.energy(0, 100, 1_000), Microjoules(4_616_000));
        assert_eq!(TWO_VCPU_8_GB.energy(100, 100, 1_000), Microjoules(10_136_000));
        assert_eq!(TWO_VCPU_8_GB.energy(0, 0, 1_000), TWO_VCPU_8_GB.energy(1, 2, 1_000));
    }

    fn stat(busy: u64, total: u64) -> Option<Stat> {
        Some(Stat { time: CpuTime { busy, total }, cpus: 2 })
    }

    #[test]
    fn a_tick_that_could_not_be_read_is_covered_by_the_next() {
        let mut model = Model::new(TWO_VCPU_8_GB);
        model.tick(stat(0, 0), 0);
        assert_eq!(model.credited(), None);
        model.tick(None, 500);
        model.tick(stat(20, 100), 1_000);
        assert_eq!(model.credited(), Some(Microjoules(5_720_000)));
        model.close(1_000, true);
        model.tick(stat(40, 200), 2_000);
        assert_eq!(model.credited(), Some(Microjoules(5_720_000)));
    }

    proptest! {
        #[test]
        fn power_lies_between_idle_and_busy_and_bounds_enclose_it(
            busy: u64, total: u64, active_ms in 0..1_u64 << 40, vcpu in 1..8_192_u32,
        ) {
            let profile = Profile { vcpu, ..TWO_VCPU_8_GB };
            let energy = profile.energy(busy, total, active_ms);
            prop_assert!(profile.energy(0, 1, active_ms) <= energy && energy <= profile.energy(1, 1, active_ms));
            let (low, high) = bounds(energy);
            prop_assert!(low <= energy && energy <= high);
        }
    }
}
