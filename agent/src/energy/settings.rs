//! The `[energy]` table of `agent.toml`.
//!
//! ```toml
//! [energy]
//! enabled = true          # off: no readings, and the collector is told so
//! sysfs_root = "/sys"     # where a container mounts the host's
//! procfs_root = "/proc"
//! sample_s = 10           # shortened by itself where a counter wraps sooner
//! report_s = 60
//! psys = "auto"           # "never" where the platform counter is known to be wrong
//!
//! [energy.model]          # for machines without counters; guests of a known host set all four
//! vcpu = 2                # default: CPUs online
//! mem_gb = 8              # default: MemTotal
//! min_mw_per_vcpu = 740
//! max_mw_per_vcpu = 3500
//! ```

use std::path::PathBuf;

use peil_proto::settings::Fields;
use peil_proto::units::Millis;

/// Which of two boundaries that enclose each other makes the host's total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Psys {
    /// The platform counter where it is there and not below the sum of what it encloses.
    #[default]
    Auto,
    /// The platform counter whenever it can be read.
    Always,
    /// Package and memory counters only.
    Never,
}

/// Words of [`Psys`] in settings and on the command line.
pub const PSYS_WORDS: [(&str, Psys); 3] = [("auto", Psys::Auto), ("always", Psys::Always), ("never", Psys::Never)];

/// The averages a machine without counters is modelled by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelSettings {
    /// Virtual CPUs; `None`: as many as are online.
    pub vcpu: Option<u32>,
    /// Memory in GB; `None`: what the machine has.
    pub mem_gb: Option<u32>,
    /// An idle vCPU draws this much.
    pub min_mw_per_vcpu: u64,
    /// A busy vCPU draws this much.
    pub max_mw_per_vcpu: u64,
}

impl Default for ModelSettings {
    /// Cloud Carbon Footprint's averages over the machines of three providers, from SPECpower:
    /// 0.74 W idle and 3.5 W busy per vCPU.
    fn default() -> Self {
        Self { vcpu: None, mem_gb: None, min_mw_per_vcpu: 740, max_mw_per_vcpu: 3_500 }
    }
}

/// The `[energy]` table, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Off: the meter does nothing and says so.
    pub enabled: bool,
    /// `/sys`, or where the host's is mounted.
    pub sysfs_root: PathBuf,
    /// `/proc`, or where the host's is mounted.
    pub procfs_root: PathBuf,
    /// Between two looks at the counters, at most.
    pub sample: Millis,
    /// Between two readings.
    pub report: Millis,
    /// Which boundary makes the total.
    pub psys: Psys,
    /// For machines without counters.
    pub model: ModelSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            sysfs_root: "/sys".into(),
            procfs_root: "/proc".into(),
            sample: Millis::from_secs(10),
            report: Millis::from_secs(60),
            psys: Psys::Auto,
            model: ModelSettings::default(),
        }
    }
}

impl Settings {
    /// Takes its keys out of the `[energy]` table; the caller calls [`Fields::finish`]. Mistakes go to
    /// the table's collection and read as the default.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let default = Self::default();
        let enabled = fields.bool_or("enabled", default.enabled);
        let sysfs_root = fields.str_or("sysfs_root", "/sys").into();
        let procfs_root = fields.str_or("procfs_root", "/proc").into();
        let sample = Millis::from_secs(fields.int_or("sample_s", 1..=300, 10));
        // An hour is what the collector sums by: a longer interval would smear over several.
        let report = Millis::from_secs(fields.int_or("report_s", 10..=3_600, 60));
        if sample > report {
            fields.refuse(format_args!("has sample_s {} longer than report_s {}", sample.0 / 1_000, report.0 / 1_000));
        }
        let psys = fields.word_or("psys", &PSYS_WORDS, default.psys);
        let model = fields.table("model").map_or(default.model, |mut table| {
            let model = ModelSettings::read(&mut table);
            table.finish();
            model
        });
        Self { enabled, sysfs_root, procfs_root, sample, report, psys, model }
    }
}

impl ModelSettings {
    fn read(fields: &mut Fields<'_>) -> Self {
        let default = Self::default();
        let mistakes = fields.mistakes();
        let vcpu = fields.take_some("vcpu").and_then(|node| node.as_int(mistakes, 1..=8_192));
        let mem_gb = fields.take_some("mem_gb").and_then(|node| node.as_int(mistakes, 0..=65_536));
        // 100 W per vCPU is far above any machine: a larger number is W mistaken for mW twice.
        let mut mw = |key, default: u64| {
            u64::try_from(fields.int_or(key, 0..=100_000, i64::try_from(default).unwrap_or(0))).unwrap_or(default)
        };
        let min_mw_per_vcpu = mw("min_mw_per_vcpu", default.min_mw_per_vcpu);
        let max_mw_per_vcpu = mw("max_mw_per_vcpu", default.max_mw_per_vcpu);
        if min_mw_per_vcpu > max_mw_per_vcpu || max_mw_per_vcpu == 0 {
            fields.refuse(format_args!(
                "has min_mw_per_vcpu {min_mw_per_vcpu} and max_mw_per_vcpu {max_mw_per_vcpu}; \
                 the first must not exceed the second, and the second not be 0"
            ));
        }
        let narrow = |number: Option<i64>| number.and_then(|n| u32::try_from(n).ok());
        Self { vcpu: narrow(vcpu), mem_gb: narrow(mem_gb), min_mw_per_vcpu, max_mw_per_vcpu }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peil_proto::settings::{Document, Mistakes, Refused};

    fn read(text: &str) -> Result<Settings, Refused> {
        let mistakes = Mistakes::new("agent.toml");
        let mut fields = Document::toml(text, &mistakes).fields(&mistakes);
        let settings = Settings::read(&mut fields);
        fields.finish();
        mistakes.into_result(settings)
    }

    #[test]
    fn an_empty_table_is_the_default() {
        assert_eq!(read(""), Ok(Settings::default()));
    }

    #[test]
    fn every_key_is_taken() {
        let text = "enabled = false\nsysfs_root = '/host/sys'\nprocfs_root = '/host/proc'\nsample_s = 5\nreport_s = 30\n\
                    psys = 'never'\n[model]\nvcpu = 4\nmem_gb = 16\nmin_mw_per_vcpu = 470\nmax_mw_per_vcpu = 1690\n";
        let expected = Settings {
            enabled: false,
            sysfs_root: "/host/sys".into(),
            procfs_root: "/host/proc".into(),
            sample: Millis(5_000),
            report: Millis(30_000),
            psys: Psys::Never,
            model: ModelSettings { vcpu: Some(4), mem_gb: Some(16), min_mw_per_vcpu: 470, max_mw_per_vcpu: 1_690 },
        };
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let text = "sampel_s = 5\nsample_s = 120\npsys = 'maybe'\n[model]\nmin_mw_per_vcpu = 5000\n";
        let refused = read(text).expect_err("has mistakes").to_string();
        for part in ["\"sampel_s\" at line 1", "sample_s 120 longer", "psys is \"maybe\"", "min_mw_per_vcpu 5000"] {
            assert!(refused.contains(part), "{part} in {refused}");
        }
    }
}
