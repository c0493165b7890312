//! How much energy this host used: one reading a minute, with what is known about it.
//!
//! [`Meter::tick`] looks at the counters (every [`Meter::sample_every`], 10 s by default) and
//! [`Meter::take_readings`] closes an interval (every minute by default). Three steps lie between a
//! counter and a reading: `powercap` finds and reads zones, `integrator` turns the readings of one zone
//! into energy with bounds, `compose` decides which zones make the host's total. Where there are no
//! counters to believe (a guest, no right to read, nonsense) `model` speaks, and says so.
//!
//! **Exactly one source speaks for an interval**, so no joule is told twice: when the model has spoken,
//! counters start from a new baseline; when a counter failed for a while, its next good reading covers
//! the pause. The state file lets a restarted agent go on: the first reading then spans the pause. It
//! is written *before* the readings are handed out: a crash in between loses one interval, which shows
//! as a hole, and never tells it twice.
//!
//! Assumes: ticks come in order on the monotonic clock; one meter per state file. Limits are in the
//! parts. Deliberately absent: power (divide by `active`), CO2 (the collector's, from dated factors),
//! per-process figures, and adding sources whose boundaries overlap.

pub mod settings;
pub mod reading;
pub mod clock;
pub mod integrator;
pub mod replay;
pub mod powercap;
mod track;
mod compose;
mod procfs;
mod model;
mod state;
pub mod doctor;
pub mod command;

use std::path::{Path, PathBuf};

use peil_proto::time::UtcTime;
use peil_proto::units::{Microjoules, Millis};

pub use clock::{Clocks, Instant3};
pub use integrator::Flag;
pub use reading::{Boundary, Method, Reading, SourceStatus};
pub use settings::Settings;

use compose::{Composition, Mirrors, Rules};
use integrator::Moment;
use model::{Model, Profile};
use powercap::Unreadable;
use state::{Speaker, State};
use track::Tracked;

/// After a boot, the agent may start this much later and counters still speak for the time since. Later
/// than that the model does: a counter credits nothing for the time before its first reading.
const UNSEEN_SINCE_BOOT_MS_MAX: u64 = 600_000;

/// Start of the interval under way.
#[derive(Debug, Clone, Copy)]
struct Interval {
    start: UtcTime,
    mono_ms: u64,
    boottime_ms: u64,
}

impl Interval {
    fn starting(at: Instant3) -> Self {
        Self { start: at.wall, mono_ms: at.mono_ms, boottime_ms: at.boottime_ms }
    }
}

/// The meter of this host.
#[derive(Debug)]
pub struct Meter {
    settings: Settings,
    state_file: PathBuf,
    boot_id: String,
    zones: Vec<Tracked>,
    mirrors: Mirrors,
    psys_refused: bool,
    model: Option<Model>,
    speaker: Speaker,
    counters: SourceStatus,
    interval: Option<Interval>,
    last: Option<Instant3>,
}

impl Meter {
    /// Looks for counters below the settings' roots. `state_file` is where the meter keeps its place
    /// between runs; its directory must exist.
    pub fn new(settings: &Settings, state_file: &Path) -> Self {
        let procfs = &settings.procfs_root;
        let mut meter = Self {
            settings: settings.clone(),
            state_file: state_file.to_owned(),
            // Without a boot id a reboot shows only by the clocks running backwards.
            boot_id: procfs::boot_id(procfs).unwrap_or_else(|| "unknown".to_owned()),
            zones: Vec::new(),
            mirrors: Mirrors::default(),
            psys_refused: false,
            model: Profile::of(&settings.model, procfs).map(Model::new),
            speaker: Speaker::Model,
            counters: if settings.enabled { SourceStatus::Absent } else { SourceStatus::Off },
            interval: None,
            last: None,
        };
        meter.look();
        meter
    }

    /// One look at everything that counts. `at` is the moment of the look.
    pub fn tick(&mut self, at: Instant3) {
        if !self.settings.enabled {
            return;
        }
        let fresh = self.interval.is_none() && !self.resume(at);
        let moment = Moment { boot_id: &self.boot_id, mono_ms: at.mono_ms, boottime_ms: at.boottime_ms };
        self.zones.iter_mut().for_each(|tracked| tracked.tick(&moment));
        self.mirrors.observe(&self.zones);
        if let Some(model) = &mut self.model {
            model.tick(procfs::stat(&self.settings.procfs_root), at.mono_ms);
        }
        self.last = Some(at);
        self.judge_counters();
        if fresh {
            self.interval = Some(Interval::starting(at));
            self.speaker = if self.counters_are_ready() { Speaker::Counters } else { Speaker::Model };
        }
    }

    /// Closes the interval that ends with the last tick. Empty when no time passed, or when nothing at
    /// all is known yet: then the interval goes on and [`Meter::statuses`] says why.
    pub fn take_readings(&mut self) -> Vec<Reading> {
        let (Some(interval), Some(last)) = (self.interval, self.last) else { return Vec::new() };
        let elapsed_ms = last.boottime_ms.saturating_sub(interval.boottime_ms);
        if elapsed_ms == 0 {
            return Vec::new();
        }
        let elapsed = Millis(i64::try_from(elapsed_ms).unwrap_or(i64::MAX));
        let closed = clock::close(interval.start, elapsed, last.wall);
        let Some(mut reading) = self.speak(&interval, &last) else {
            self.start_with_counters(last);
            return Vec::new();
        };
        reading.end = closed.end;
        if let Some(off) = closed.off {
            reading.detail.push_str(&format!("; wall clock {:+} ms from the stamps", off.0));
            tracing::warn!(off_ms = off.0, "wall clock was set; energy stamps stay in order");
        }
        self.interval =
            Some(Interval { start: closed.next_start, mono_ms: last.mono_ms, boottime_ms: last.boottime_ms });
        self.look();
        self.save();
        vec![reading]
    }

    /// Without a model there is nothing to tell until a counter can be read. Once one can, the interval
    /// starts there: the time before it stays a hole, and no counter is stretched over it.
    fn start_with_counters(&mut self, last: Instant3) {
        if self.speaker == Speaker::Model && self.counters_are_ready() {
            self.zones.iter_mut().for_each(|tracked| tracked.span = track::ZoneSpan::default());
            self.interval = Some(Interval::starting(last));
            self.speaker = Speaker::Counters;
        }
    }

    /// What each source is doing, by name.
    pub fn statuses(&self) -> [(&'static str, SourceStatus); 2] {
        let model = match &self.model {
            _ if !self.settings.enabled => SourceStatus::Off,
            Some(_) => SourceStatus::Ok,
            None => SourceStatus::Failing("neither settings nor /proc/stat say how many CPUs there are".to_owned()),
        };
        [("rapl", self.counters.clone()), ("model", model)]
    }

    /// How often to tick: the settings' interval, or sooner where a counter would wrap twice.
    pub fn sample_every(&self) -> Millis {
        let safe = self.zones.iter().filter_map(|tracked| doctor::longest_safe(&tracked.zone)).min();
        safe.map_or(self.settings.sample, |safe| self.settings.sample.min(safe))
    }

    /// Finds zones that appeared and drops those that are gone; what is known of the others stays.
    fn look(&mut self) {
        if !self.settings.enabled {
            return;
        }
        if procfs::is_guest(&self.settings.procfs_root) == Some(true) {
            // Some hypervisors let the host's counters through, two sockets' by turns. Not ours.
            self.zones.clear();
            let found = powercap::discover(&self.settings.sysfs_root);
            let status = if found.zones.is_empty() { SourceStatus::Absent } else { SourceStatus::Virtual };
            self.set_counters(status);
            return;
        }
        let found = powercap::discover(&self.settings.sysfs_root);
        let (zones, _) = compose::candidates(found.zones, self.settings.psys);
        let mut known = std::mem::take(&mut self.zones);
        for zone in zones {
            match known.iter().position(|tracked| tracked.zone.id == zone.id) {
                Some(at) => {
                    let mut tracked = known.swap_remove(at);
                    tracked.zone = zone;
                    self.zones.push(tracked);
                }
                None => self.zones.push(Tracked::new(zone)),
            }
        }
        for gone in known {
            tracing::warn!(zone = gone.zone.id, "energy zone is gone");
        }
        self.mirrors.follow(&self.zones);
    }

    fn judge_counters(&mut self) {
        if self.counters == SourceStatus::Virtual {
            return;
        }
        let failures: Vec<&Unreadable> =
            self.zones.iter().filter_map(|tracked| tracked.last.as_ref()?.as_ref().err()).collect();
        let status = if self.zones.is_empty() {
            SourceStatus::Absent
        } else if let Some(id) = compose::distrusted(&self.zones) {
            SourceStatus::Unreliable(format!("{id} jumps by more than it can draw"))
        } else if failures.len() < self.zones.len() {
            SourceStatus::Ok
        } else if failures.contains(&&Unreadable::Permission) {
            SourceStatus::Permission(powercap::PERMISSION_HINT.to_owned())
        } else {
            SourceStatus::Failing(failures.first().map(ToString::to_string).unwrap_or_default())
        };
        self.set_counters(status);
    }

    /// Logs a change once, not every ten seconds.
    fn set_counters(&mut self, status: SourceStatus) {
        if self.counters == status {
            return;
        }
        match &status {
            SourceStatus::Ok | SourceStatus::Absent | SourceStatus::Virtual => {
                tracing::info!(source = "rapl", status = %status, "energy source changed");
            }
            _ => tracing::warn!(source = "rapl", status = %status, "energy source changed"),
        }
        self.counters = status;
    }

    /// True when the last tick left psys or a package with a believed reading to count from.
    fn counters_are_ready(&self) -> bool {
        let now = self.last.map(|at| at.mono_ms);
        let leads = |tracked: &&Tracked| !matches!(tracked.zone.domain, powercap::Domain::Dram(_));
        self.counters == SourceStatus::Ok
            && self.zones.iter().filter(leads).any(|tracked| tracked.integrator.believed_ms() == now)
    }

    /// The reading of the source that speaks, with everything but its end. Prepares all sources for
    /// the next interval.
    fn speak(&mut self, interval: &Interval, last: &Instant3) -> Option<Reading> {
        let counted = self.count(interval, last);
        let modelled = self.model.as_ref().and_then(|model| Some((model.profile(), model.credited()?)));
        let active = last.mono_ms.saturating_sub(interval.mono_ms);
        let mut reading = match (&counted, modelled) {
            (Some(total), _) => counted_reading(total, &self.zones),
            (None, Some((profile, energy))) => self.modelled_reading(&profile, energy),
            (None, None) => return None,
        };
        reading.boot_id.clone_from(&self.boot_id);
        reading.start = interval.start;
        reading.active = Millis(i64::try_from(active).unwrap_or(i64::MAX));

        let used = counted.as_ref().map(|total| total.used.as_slice()).unwrap_or_default();
        for (at, tracked) in self.zones.iter_mut().enumerate() {
            tracked.span = track::ZoneSpan::default();
            if !used.contains(&at) && tracked.integrator.believed_ms() != Some(last.mono_ms) {
                // Somebody else spoke for the time this zone has yet to account for.
                tracked.integrator.forget();
            }
        }
        if let Some(model) = &mut self.model {
            model.close(last.mono_ms, counted.is_none());
        }
        let counters_go_on = counted.is_some() || self.counters_are_ready();
        self.speaker = if counters_go_on { Speaker::Counters } else { Speaker::Model };
        Some(reading)
    }

    fn count(&mut self, interval: &Interval, last: &Instant3) -> Option<Composition> {
        if self.speaker == Speaker::Model {
            return None;
        }
        let interval_ms = (interval.mono_ms, last.mono_ms);
        let rules =
            Rules { psys: self.settings.psys, psys_refused: self.psys_refused, mirrors: &self.mirrors, interval_ms };
        let refuted = self.settings.psys == settings::Psys::Auto && compose::psys_is_refuted(&self.zones, &rules);
        if refuted && !self.psys_refused {
            tracing::warn!("psys shows less than package and memory; not used any more");
        }
        self.psys_refused |= refuted;
        compose::choose(&self.zones, &Rules { psys_refused: self.psys_refused, ..rules })
    }

    fn modelled_reading(&self, profile: &Profile, energy: Microjoules) -> Reading {
        let (low, high) = model::bounds(energy);
        let Profile { vcpu, memory_mw, min_mw, max_mw } = profile;
        Reading {
            source: "model".to_owned(),
            energy,
            low,
            high,
            method: Method::Modelled,
            boundary: Boundary::Wall,
            covers: "cpu+dram+board+psu".to_owned(),
            detail: format!(
                "{vcpu} vCPU x {min_mw}-{max_mw} mW by utilisation + memory {memory_mw} mW; counters {}",
                self.counters.word()
            ),
            ..blank()
        }
    }

    /// Goes on from the state file; false when there is nothing to go on from.
    fn resume(&mut self, at: Instant3) -> bool {
        let state = match state::load(&self.state_file) {
            Ok(Some(state)) => state,
            Ok(None) => return false,
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::warn!("{error:#}; counting starts anew");
                return false;
            }
        };
        let same_boot = state.boot_id == self.boot_id && state.mono_ms <= at.mono_ms;
        self.speaker = state.speaker;
        if !same_boot && at.mono_ms > UNSEEN_SINCE_BOOT_MS_MAX && self.model.is_some() {
            self.speaker = Speaker::Model;
        }
        for tracked in &mut self.zones {
            if let Some(integrator) = state.zones.get(&tracked.zone.id) {
                tracked.integrator = integrator.clone();
                tracked.integrator.skip();
            }
        }
        let (interval, baseline) = if same_boot {
            let State { start, mono_ms, boottime_ms, model, .. } = state;
            (Interval { start, mono_ms, boottime_ms }, model)
        } else {
            // Processor time and both clocks count from the boot.
            let up = Millis(i64::try_from(at.boottime_ms).unwrap_or(i64::MAX));
            let start = state.start.max(at.wall.plus(Millis(-up.0)));
            (Interval { start, mono_ms: 0, boottime_ms: 0 }, Some(model::ModelBaseline::default()))
        };
        if let Some(model) = &mut self.model {
            model.restore(baseline);
        }
        self.interval = Some(interval);
        true
    }

    fn save(&self) {
        let Some(interval) = self.interval else { return };
        let zones = self.zones.iter().map(|tracked| (tracked.zone.id.clone(), tracked.integrator.clone()));
        let state = State {
            boot_id: self.boot_id.clone(),
            start: interval.start,
            mono_ms: interval.mono_ms,
            boottime_ms: interval.boottime_ms,
            speaker: self.speaker,
            zones: zones.collect(),
            model: self.model.as_ref().and_then(Model::baseline),
        };
        if let Err(error) = state::save(&self.state_file, &state) {
            // Counting goes on; only a restart would now leave a gap.
            let error = anyhow::Error::new(error);
            tracing::warn!("{error:#}");
        }
    }
}

fn counted_reading(total: &Composition, zones: &[Tracked]) -> Reading {
    let used: Vec<&str> = total.used.iter().filter_map(|at| zones.get(*at)).map(|z| z.zone.id.as_str()).collect();
    let notes: String = total.notes.iter().map(|note| format!("; {note}")).collect();
    Reading {
        source: total.source.to_owned(),
        energy: Microjoules(total.energy_uj),
        low: Microjoules(total.low_uj),
        high: Microjoules(total.high_uj),
        method: Method::Measured,
        boundary: total.boundary,
        covers: total.covers.to_owned(),
        flags: reading::eventful(&total.flags),
        detail: format!("zones {}{notes}", used.join(" ")),
        ..blank()
    }
}

/// What [`Meter::speak`] and [`Meter::take_readings`] fill in for every source alike.
fn blank() -> Reading {
    Reading {
        source: String::new(),
        boot_id: String::new(),
        start: UtcTime::default(),
        end: UtcTime::default(),
        energy: Microjoules::ZERO,
        low: Microjoules::ZERO,
        high: Microjoules::ZERO,
        active: Millis::ZERO,
        method: Method::Modelled,
        boundary: Boundary::Component,
        covers: String::new(),
        flags: Vec::new(),
        detail: String::new(),
    }
}

#[cfg(test)]
mod tests;
