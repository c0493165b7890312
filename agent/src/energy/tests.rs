//! The meter on fake machines: a sysfs and a procfs tree in a temporary directory, and clocks that
//! stand where the test puts them.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::energy::settings::Psys;

const J: u64 = 1_000_000;
const INTEL: u64 = 262_143_328_850;

/// A machine: its trees, its counters, and how long it has been up.
struct Machine {
    dir: tempfile::TempDir,
    settings: Settings,
    up_s: u64,
    slept_s: u64,
    wall_s: i64,
    cpu_ticks: u64,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            sysfs_root: dir.path().join("sys"),
            procfs_root: dir.path().join("proc"),
            ..Settings::default()
        };
        fs::create_dir_all(dir.path().join("proc/sys/kernel/random")).unwrap();
        let machine = Self { dir, settings, up_s: 1_000, slept_s: 0, wall_s: 1_800_000_000, cpu_ticks: 100 };
        machine.proc("cpuinfo", "flags : fpu vme\n");
        machine.proc("meminfo", "MemTotal:        8388608 kB\n");
        machine.proc("sys/kernel/random/boot_id", "boot-a\n");
        machine.cpu(100);
        machine
    }

    fn proc(&self, file: &str, text: &str) {
        fs::write(self.settings.procfs_root.join(file), text).unwrap();
    }

    /// Processor time since boot; two CPUs, a fifth busy.
    fn cpu(&self, ticks: u64) {
        let (busy, idle) = (ticks / 5, ticks - ticks / 5);
        self.proc("stat", &format!("cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1\ncpu1 1\n"));
    }

    fn zone(&self, entry: &str, name: &str, energy_j: u64) {
        let dir = self.settings.sysfs_root.join(powercap::CLASS_DIR).join(entry);
        fs::create_dir_all(&dir).unwrap();
        // A zone that is there already only gets another counter.
        let registered = dir.join("name").exists();
        for (file, text) in [
            ("name", name.to_owned()),
            ("max_energy_range_uj", INTEL.to_string()),
            ("constraint_0_max_power_uw", "333333333".to_owned()),
            ("enabled", "0".to_owned()),
        ] {
            if !registered {
                fs::write(dir.join(file), text + "\n").unwrap();
            }
        }
        self.counter(entry, &(energy_j * J).to_string());
    }

    fn counter(&self, entry: &str, text: &str) {
        let file = self.settings.sysfs_root.join(powercap::CLASS_DIR).join(entry).join("energy_uj");
        fs::write(file, text).unwrap();
    }

    fn meter(&self) -> Meter {
        Meter::new(&self.settings, &self.dir.path().join("energy.state"))
    }

    fn now(&self) -> Instant3 {
        let (mono_ms, boottime_ms) = (self.up_s * 1_000, (self.up_s + self.slept_s) * 1_000);
        Instant3 { wall: UtcTime(self.wall_s * 1_000), mono_ms, boottime_ms }
    }

    fn pass(&mut self, seconds: u64) {
        self.up_s += seconds;
        self.wall_s += i64::try_from(seconds).unwrap();
        self.cpu_ticks += 200 * seconds;
        if self.settings.procfs_root.join("stat").exists() {
            self.cpu(self.cpu_ticks);
        }
    }

    /// A minute of ticks, each zone drawing so many joules per 10 s; then its readings.
    fn minute(&mut self, meter: &mut Meter, zones: &mut [(&str, u64, u64)]) -> Vec<Reading> {
        for _ in 0..6 {
            self.pass(10);
            for (entry, energy_j, rate_j) in zones.iter_mut() {
                *energy_j += *rate_j;
                self.counter(entry, &(*energy_j * J).to_string());
            }
            meter.tick(self.now());
        }
        meter.take_readings()
    }

    /// Starts a meter, lets `zones` (entry, name, joules per 10 s) run a minute, and gives the reading.
    fn first_minute(&mut self, zones: &[(&'static str, &str, u64)]) -> Reading {
        let mut counters: Vec<_> =
            zones.iter().map(|(entry, _, rate)| (*entry, 5_000 * (1 + rate % 7), *rate)).collect();
        for ((entry, name, _), (_, energy_j, _)) in zones.iter().zip(&counters) {
            self.zone(entry, name, *energy_j);
        }
        let mut meter = self.meter();
        meter.tick(self.now());
        let mut readings = self.minute(&mut meter, &mut counters);
        assert_eq!(readings.len(), 1);
        readings.remove(0)
    }
}

#[test]
fn each_topology_counts_every_joule_once() {
    type Topology = (&'static str, Psys, &'static [(&'static str, &'static str, u64)], u64, &'static str, Boundary);
    const LAPTOP: &[(&str, &str, u64)] = &[
        ("intel-rapl:0", "package-0", 120),
        ("intel-rapl:0:0", "core", 80),
        ("intel-rapl:0:1", "uncore", 10),
        ("intel-rapl:0:2", "dram", 30),
        ("intel-rapl:1", "psys", 200),
    ];
    let table: &[Topology] = &[
        ("16 psys when asked for", Psys::Always, LAPTOP, 200, "rapl:psys", Boundary::Platform),
        ("16 components when asked for", Psys::Never, LAPTOP, 150, "rapl", Boundary::Component),
        ("16 psys by itself when it holds", Psys::Auto, LAPTOP, 200, "rapl:psys", Boundary::Platform),
        (
            "psys below what it contains is refused",
            Psys::Auto,
            &[("intel-rapl:0", "package-0", 120), ("intel-rapl:1", "psys", 20)],
            120,
            "rapl",
            Boundary::Component,
        ),
        (
            "17 the mmio twin is the same counter",
            Psys::Auto,
            &[("intel-rapl:0", "package-0", 100), ("intel-rapl-mmio:0", "package-0", 99)],
            100,
            "rapl",
            Boundary::Component,
        ),
        ("17 mmio only", Psys::Auto, &[("intel-rapl-mmio:0", "package-0", 99)], 99, "rapl", Boundary::Component),
        (
            "18 mirrored dies count once",
            Psys::Auto,
            &[("intel-rapl:0", "package-0-die-0", 68), ("intel-rapl:1", "package-0-die-1", 68)],
            68,
            "rapl",
            Boundary::Component,
        ),
        (
            "18 dies of their own are added",
            Psys::Auto,
            &[("intel-rapl:0", "package-0-die-0", 68), ("intel-rapl:1", "package-0-die-1", 61)],
            129,
            "rapl",
            Boundary::Component,
        ),
        (
            "18 two sockets that look alike are two sockets",
            Psys::Auto,
            &[("intel-rapl:0", "package-0", 50), ("intel-rapl:1", "package-1", 50)],
            100,
            "rapl",
            Boundary::Component,
        ),
        (
            "dies of two packages are not each other's mirror",
            Psys::Auto,
            &[("intel-rapl:0", "package-0-die-0", 50), ("intel-rapl:1", "package-1-die-1", 50)],
            100,
            "rapl",
            Boundary::Component,
        ),
    ];
    for (name, psys, zones, per_10_s, source, boundary) in table {
        let mut machine = Machine::new();
        machine.settings.psys = *psys;
        let reading = machine.first_minute(zones);
        assert_eq!(reading.energy, Microjoules(6 * per_10_s * J), "{name}: {reading:?}");
        assert_eq!((reading.low, reading.high), (reading.energy, reading.energy), "{name}");
        assert_eq!((reading.source.as_str(), reading.boundary), (*source, *boundary), "{name}");
        assert_eq!(reading.method, Method::Measured, "{name}");
        assert_eq!(reading.active, Millis::MINUTE, "{name}");
    }
}

#[test]
fn covers_says_what_was_added() {
    let zones = [("intel-rapl:0", "package-0", 120), ("intel-rapl:0:2", "dram", 30)];
    assert_eq!(Machine::new().first_minute(&zones).covers, "cpu+dram");
    assert_eq!(Machine::new().first_minute(&zones[..1]).covers, "cpu");
}

#[test]
fn dies_seen_alike_only_twice_widen_the_upper_bound() {
    let mut machine = Machine::new();
    machine.zone("intel-rapl:0", "package-0-die-0", 100);
    machine.zone("intel-rapl:1", "package-0-die-1", 100);
    let mut meter = machine.meter();
    meter.tick(machine.now());
    machine.pass(10);
    machine.counter("intel-rapl:0", &(168 * J).to_string());
    machine.counter("intel-rapl:1", &(168 * J).to_string());
    meter.tick(machine.now());
    let reading = meter.take_readings().remove(0);
    assert_eq!((reading.energy.0, reading.high.0), (68 * J, 136 * J), "{}", reading.detail);
}

#[test]
fn f30_a_guest_is_modelled_even_when_counters_leak_through() {
    let mut machine = Machine::new();
    machine.proc("cpuinfo", "flags : fpu hypervisor\n");
    machine.zone("intel-rapl:0", "package-0", 5_000);
    let mut meter = machine.meter();
    meter.tick(machine.now());
    let reading = machine.minute(&mut meter, &mut [("intel-rapl:0", 5_000, 100)]).remove(0);
    assert_eq!(reading.method, Method::Modelled);
    // The 5.72 W of two vCPUs at a fifth with 8 GB.
    assert_eq!(reading.energy, Microjoules(60 * 5_720_000));
    assert_eq!((reading.low.0, reading.high.0), (30 * 5_720_000, 120 * 5_720_000));
    assert_eq!(meter.statuses()[0], ("rapl", SourceStatus::Virtual));
}

#[test]
fn a_machine_without_counters_is_modelled_and_one_without_anything_says_so() {
    let mut machine = Machine::new();
    let mut meter = machine.meter();
    meter.tick(machine.now());
    let reading = machine.minute(&mut meter, &mut []).remove(0);
    assert_eq!((reading.method, reading.source.as_str()), (Method::Modelled, "model"));
    assert_eq!(meter.statuses(), [("rapl", SourceStatus::Absent), ("model", SourceStatus::Ok)]);

    let mut machine = Machine::new();
    fs::remove_file(machine.settings.procfs_root.join("stat")).unwrap();
    let mut meter = machine.meter();
    meter.tick(machine.now());
    assert_eq!(machine.minute(&mut meter, &mut []), []);
    assert_eq!(meter.statuses()[1].1.word(), "failing");
}

#[test]
fn one_failing_socket_loses_nothing_and_widens_the_bound() {
    let mut machine = Machine::new();
    machine.zone("intel-rapl:0", "package-0", 0);
    machine.zone("intel-rapl:1", "package-1", 0);
    let mut meter = machine.meter();
    meter.tick(machine.now());
    machine.counter("intel-rapl:1", "garbage");
    let first = machine.minute(&mut meter, &mut [("intel-rapl:0", 0, 100)]).remove(0);
    assert_eq!((first.energy.0, first.low.0), (600 * J, 600 * J));
    // 333.3 W is its limit, half again the bound: 500 W for a minute.
    assert_eq!(first.high.0, 600 * J + 500_000 * 60_000, "{first:?}");
    assert!(first.flags.contains(&Flag::Error) && first.detail.contains("package-1: not a counter"), "{first:?}");
    let second = machine.minute(&mut meter, &mut [("intel-rapl:0", 600, 100), ("intel-rapl:1", 600, 100)]).remove(0);
    assert_eq!((second.energy.0, second.high.0), (1_800 * J, 1_800 * J));
    assert!(second.flags.contains(&Flag::Bridged));
}

#[test]
fn a_psys_that_comes_back_does_not_tell_again_what_the_packages_told() {
    let mut machine = Machine::new();
    machine.settings.psys = Psys::Always;
    machine.zone("intel-rapl:0", "package-0", 0);
    machine.zone("intel-rapl:1", "psys", 0);
    let mut meter = machine.meter();
    meter.tick(machine.now());
    machine.counter("intel-rapl:1", "garbage");
    let told = machine.minute(&mut meter, &mut [("intel-rapl:0", 0, 120)]).remove(0);
    assert_eq!((told.source.as_str(), told.energy.0), ("rapl", 720 * J));
    let mut both = [("intel-rapl:0", 720, 120), ("intel-rapl:1", 1_200, 200)];
    let back = machine.minute(&mut meter, &mut both).remove(0);
    assert_eq!((back.source.as_str(), back.energy.0), ("rapl", 720 * J), "psys saw only part of this minute");
    let mut both = [("intel-rapl:0", 1_440, 120), ("intel-rapl:1", 2_400, 200)];
    let whole = machine.minute(&mut meter, &mut both).remove(0);
    assert_eq!((whole.source.as_str(), whole.energy.0), ("rapl:psys", 1_200 * J));
}

#[test]
fn when_all_counters_fail_the_model_speaks_and_nothing_is_told_twice() {
    let mut machine = Machine::new();
    machine.zone("intel-rapl:0", "package-0", 0);
    let mut meter = machine.meter();
    meter.tick(machine.now());
    machine.counter("intel-rapl:0", "");
    let modelled = machine.minute(&mut meter, &mut []).remove(0);
    assert_eq!(modelled.method, Method::Modelled);
    assert_eq!(meter.statuses()[0].1.word(), "failing");
    // The counter returns: the minute in which it does is still the model's, the next its own.
    let handover = machine.minute(&mut meter, &mut [("intel-rapl:0", 600, 100)]).remove(0);
    assert_eq!(handover.method, Method::Modelled);
    let measured = machine.minute(&mut meter, &mut [("intel-rapl:0", 1_200, 100)]).remove(0);
    assert_eq!((measured.method, measured.energy.0), (Method::Measured, 600 * J));
    assert_eq!((modelled.end, handover.end), (handover.start, measured.start));
}

#[test]
fn a_restarted_agent_bridges_the_pause() {
    let mut machine = Machine::new();
    machine.zone("intel-rapl:0", "package-0", 10_000);
    let mut meter = machine.meter();
    meter.tick(machine.now());
    let before = machine.minute(&mut meter, &mut [("intel-rapl:0", 10_000, 100)]).remove(0);
    drop(meter);
    machine.pass(40);
    machine.counter("intel-rapl:0", &(14_600 * J).to_string());
    let mut meter = machine.meter();
    meter.tick(machine.now());
    let after = meter.take_readings().remove(0);
    assert_eq!((after.energy.0, after.low.0, after.high.0), (4_000 * J, 4_000 * J, 4_000 * J));
    assert_eq!(after.start, before.end);
    assert_eq!((after.active, after.flags), (Millis(40_000), vec![Flag::Bridged]));
}

#[test]
fn a_corrupt_state_is_a_new_start_and_not_a_crash() {
    let mut machine = Machine::new();
    machine.zone("intel-rapl:0", "package-0", 10_000);
    fs::write(machine.dir.path().join("energy.state"), "peil-energy 1 00000000\n{}").unwrap();
    let mut meter = machine.meter();
    meter.tick(machine.now());
    assert_eq!(meter.take_readings(), []);
    let reading = machine.minute(&mut meter, &mut [("intel-rapl:0", 10_000, 100)]).remove(0);
    assert_eq!((reading.energy.0, reading.flags), (600 * J, vec![Flag::Baseline]));
}

#[test]
fn a_reboot_credits_nothing_and_bounds_what_the_counter_shows() {
    let mut machine = Machine::new();
    machine.zone("intel-rapl:0", "package-0", 200_000);
    let mut meter = machine.meter();
    meter.tick(machine.now());
    let before = machine.minute(&mut meter, &mut [("intel-rapl:0", 200_000, 100)]).remove(0);
    machine.proc("sys/kernel/random/boot_id", "boot-b\n");
    machine.wall_s += 120;
    machine.up_s = 30;
    machine.counter("intel-rapl:0", &(3_000 * J).to_string());
    let mut meter = machine.meter();
    meter.tick(machine.now());
    let after = machine.minute(&mut meter, &mut [("intel-rapl:0", 3_000, 100)]).remove(0);
    assert_eq!((after.energy.0, after.low.0, after.high.0), (600 * J, 600 * J, 3_600 * J));
    assert_eq!((after.flags, after.boot_id.as_str()), (vec![Flag::ResetBoot], "boot-b"));
    // Off for 90 s; then up for 30 s before the agent started.
    assert_eq!((after.start.since(before.end), after.active), (Millis(90_000), Millis(90_000)));
}

#[test]
fn an_agent_that_starts_long_after_the_boot_models_the_time_no_counter_saw() {
    let mut machine = Machine::new();
    machine.zone("intel-rapl:0", "package-0", 200_000);
    let mut meter = machine.meter();
    meter.tick(machine.now());
    let _ = machine.minute(&mut meter, &mut [("intel-rapl:0", 200_000, 100)]);
    machine.proc(
        "sys/kernel/random/boot_id",
        "boot-b
",
    );
    machine.wall_s += 10_000;
    machine.up_s = 7_200;
    let mut meter = machine.meter();
    meter.tick(machine.now());
    let modelled = machine.minute(&mut meter, &mut [("intel-rapl:0", 3_000, 100)]).remove(0);
    assert_eq!((modelled.method, modelled.active), (Method::Modelled, Millis(7_260_000)));
    // 5.72 W all the while: the processors' time since boot tells it.
    assert_eq!(modelled.energy.0, 7_260 * 5_720_000);
    let measured = machine.minute(&mut meter, &mut [("intel-rapl:0", 3_600, 100)]).remove(0);
    assert_eq!((measured.method, measured.energy.0), (Method::Measured, 600 * J));
}

#[test]
fn a_suspended_hour_is_not_active_time() {
    let mut machine = Machine::new();
    machine.zone("intel-rapl:0", "package-0", 50_000);
    let mut meter = machine.meter();
    meter.tick(machine.now());
    machine.pass(10);
    machine.slept_s += 3_600;
    machine.wall_s += 3_600;
    machine.counter("intel-rapl:0", &(400 * J).to_string());
    meter.tick(machine.now());
    let reading = meter.take_readings().remove(0);
    assert_eq!((reading.energy.0, reading.active), (400 * J, Millis(10_000)));
    assert_eq!(reading.end.since(reading.start), Millis(3_610_000));
    assert!(reading.flags.contains(&Flag::SuspendReset));
}

#[test]
fn a_clock_set_back_changes_neither_energy_nor_order() {
    let mut machine = Machine::new();
    machine.zone("intel-rapl:0", "package-0", 0);
    let mut meter = machine.meter();
    meter.tick(machine.now());
    let before = machine.minute(&mut meter, &mut [("intel-rapl:0", 0, 100)]).remove(0);
    machine.wall_s -= 3_600;
    let after = machine.minute(&mut meter, &mut [("intel-rapl:0", 600, 100)]).remove(0);
    assert_eq!((after.energy.0, after.active), (600 * J, Millis::MINUTE));
    assert!(after.start >= before.end && after.end > after.start);
    assert!(after.detail.contains("wall clock -3600000 ms"), "{}", after.detail);
}

#[test]
fn a_zone_that_appears_starts_at_zero_and_one_that_goes_takes_nothing_with_it() {
    let mut machine = Machine::new();
    machine.zone("intel-rapl:0", "package-0", 0);
    let mut meter = machine.meter();
    meter.tick(machine.now());
    machine.zone("intel-rapl:0:0", "dram", 5_000);
    let first = machine.minute(&mut meter, &mut [("intel-rapl:0", 0, 100)]).remove(0);
    assert_eq!(first.energy.0, 600 * J);
    let mut both = [("intel-rapl:0", 600, 100), ("intel-rapl:0:0", 5_000, 10)];
    let second = machine.minute(&mut meter, &mut both).remove(0);
    // Found at the report; its first reading, 10 s later, is its baseline.
    assert_eq!((second.energy.0, second.covers.as_str()), (650 * J, "cpu+dram"));
    assert_eq!(second.high.0, 650 * J + 500_000 * 10_000);
    fs::remove_dir_all(machine.settings.sysfs_root.join(powercap::CLASS_DIR).join("intel-rapl:0:0")).unwrap();
    let third = machine.minute(&mut meter, &mut [("intel-rapl:0", 1_200, 100)]).remove(0);
    assert_eq!((third.energy.0, third.high.0), (600 * J, 600 * J + 500_000 * 60_000));
    let fourth = machine.minute(&mut meter, &mut [("intel-rapl:0", 1_800, 100)]).remove(0);
    assert_eq!((fourth.energy.0, fourth.high.0), (600 * J, 600 * J));
}

#[test]
fn f30_two_interleaved_counters_are_found_out_and_the_model_takes_over() {
    let mut machine = Machine::new();
    machine.zone("intel-rapl:0", "package-0", 10_000);
    let mut meter = machine.meter();
    meter.tick(machine.now());
    let mut readings = Vec::new();
    for i in 1..=30_u64 {
        machine.pass(10);
        machine.counter("intel-rapl:0", &((10_000 + 20 * i + (i % 2) * 113_781) * J).to_string());
        meter.tick(machine.now());
        if i % 6 == 0 {
            readings.extend(meter.take_readings());
        }
    }
    assert_eq!(readings.len(), 5);
    assert_eq!(meter.statuses()[0].1.word(), "unreliable");
    assert_eq!(readings.last().unwrap().method, Method::Modelled);
    assert!(readings.iter().all(|reading| reading.energy.0 < 2_000 * J), "{readings:?}");
}

/// The tests may run as root, who is refused nothing: so the refusal is put in by hand.
#[test]
fn f30_a_refusal_of_all_counters_is_a_status_with_its_remedy_and_one_refusal_is_not() {
    let machine = Machine::new();
    machine.zone("intel-rapl:0", "package-0", 0);
    machine.zone("intel-rapl:0:0", "dram", 0);
    let mut meter = machine.meter();
    meter.tick(machine.now());
    meter.zones[0].last = Some(Err(Unreadable::Permission));
    meter.judge_counters();
    assert_eq!(meter.statuses()[0].1, SourceStatus::Ok);
    meter.zones[1].last = Some(Err(Unreadable::Permission));
    meter.judge_counters();
    let status = &meter.statuses()[0].1;
    assert_eq!(status.word(), "permission");
    assert!(status.to_string().contains("udevadm trigger"));
}

#[test]
fn switched_off_means_no_reading_and_says_so() {
    let mut machine = Machine::new();
    machine.settings.enabled = false;
    machine.zone("intel-rapl:0", "package-0", 0);
    let mut meter = machine.meter();
    meter.tick(machine.now());
    assert_eq!(machine.minute(&mut meter, &mut [("intel-rapl:0", 0, 100)]), []);
    assert_eq!(meter.statuses().map(|(_, status)| status), [SourceStatus::Off, SourceStatus::Off]);
}

#[test]
fn a_small_range_shortens_the_sampling_interval() {
    let machine = Machine::new();
    machine.zone("intel-rapl:0", "package-0", 0);
    assert_eq!(machine.meter().sample_every(), Millis(10_000));
    let range = machine.settings.sysfs_root.join(powercap::CLASS_DIR).join("intel-rapl:0/max_energy_range_uj");
    fs::write(range, "4000000000").unwrap();
    // 4 kJ at 500 W pass in 8 s; half of that.
    assert_eq!(machine.meter().sample_every(), Millis(4_000));
}

#[test]
fn without_a_model_readings_start_when_the_counters_do() {
    let mut machine = Machine::new();
    fs::remove_file(machine.settings.procfs_root.join("stat")).unwrap();
    machine.zone("intel-rapl:0", "package-0", 0);
    machine.counter("intel-rapl:0", "");
    let mut meter = machine.meter();
    meter.tick(machine.now());
    assert_eq!(machine.minute(&mut meter, &mut []), []);
    assert_eq!(machine.minute(&mut meter, &mut [("intel-rapl:0", 5_000, 100)]), []);
    let reading = machine.minute(&mut meter, &mut [("intel-rapl:0", 5_600, 100)]).remove(0);
    assert_eq!((reading.energy.0, reading.active), (600 * J, Millis::MINUTE));
}

#[test]
fn the_doctor_tells_what_is_counted_and_why_the_rest_is_not() {
    let machine = Machine::new();
    machine.zone("intel-rapl:0", "package-0", 1);
    machine.zone("intel-rapl:0:0", "core", 1);
    machine.zone("intel-rapl-mmio:0", "package-0", 1);
    machine.zone("intel-rapl:0:1", "dram", 1);
    machine.counter("intel-rapl:0:1", "garbage");
    let mut out = Vec::new();
    doctor::examine(&machine.settings, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    for part in [
        "4 zones",
        "Counted:\n  package-0\n",
        "package-0/core: inside the package",
        "mmio:package-0: the same counter as its MSR twin",
        "package-0/dram: cannot be read",
        "Longest safe interval: 262143 ms; sampled every 10000 ms",
        "Reported: measured, boundary component, covers cpu\n",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    machine.proc("cpuinfo", "flags : hypervisor\n");
    let mut out = Vec::new();
    doctor::examine(&machine.settings, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("Counted: nothing") && text.contains("Reported: modelled"), "{text}");
}

/// What a counter file may show at a tick.
#[derive(Debug, Clone)]
enum Shows {
    Draws(u64),
    Jumps(u64),
    Garbage,
    Gone,
}

fn shows() -> impl Strategy<Value = Shows> {
    prop_oneof![
        6 => (0..4_000_u64).prop_map(Shows::Draws),
        1 => (0..INTEL / J).prop_map(Shows::Jumps),
        1 => Just(Shows::Garbage),
        1 => Just(Shows::Gone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever two counters show and whenever the agent restarts: bounds enclose, intervals neither
    /// overlap nor leave holes, and every minute has a reading, because the model is always there.
    #[test]
    fn every_minute_has_one_reading_with_sound_bounds(
        ticks in prop::collection::vec((shows(), shows(), prop::bool::weighted(0.1)), 12..60),
    ) {
        let mut machine = Machine::new();
        let zones = [("intel-rapl:0", "package-0"), ("intel-rapl:1", "psys")];
        let mut energy_j = [0; 2];
        let mut meter = machine.meter();
        meter.tick(machine.now());
        let mut readings = Vec::new();
        for (i, (package, psys, restart)) in ticks.iter().enumerate() {
            machine.pass(10);
            for ((entry, name), (shows, energy_j)) in zones.iter().zip([package, psys].into_iter().zip(&mut energy_j)) {
                match shows {
                    Shows::Draws(j) => *energy_j = (*energy_j + j) % (INTEL / J),
                    Shows::Jumps(to) => *energy_j = *to,
                    Shows::Garbage => {}
                    Shows::Gone => {
                        let _ = fs::remove_dir_all(machine.settings.sysfs_root.join(powercap::CLASS_DIR).join(entry));
                        continue;
                    }
                }
                machine.zone(entry, name, *energy_j);
                if matches!(shows, Shows::Garbage) {
                    machine.counter(entry, "-1");
                }
            }
            if *restart && !readings.is_empty() {
                meter = machine.meter();
            }
            meter.tick(machine.now());
            if i % 6 == 5 {
                let told = meter.take_readings();
                prop_assert_eq!(told.len(), 1);
                readings.extend(told);
            }
        }
        for reading in &readings {
            prop_assert!(reading.low <= reading.energy && reading.energy <= reading.high, "{:?}", reading);
            prop_assert!(reading.high > Microjoules::ZERO, "a silent zero: {:?}", reading);
            prop_assert_eq!(reading.end.since(reading.start), Millis::MINUTE);
        }
        for pair in readings.windows(2) {
            prop_assert_eq!(pair[0].end, pair[1].start);
        }
    }
}
