//! `peil-agent energy doctor`: what this machine offers, what will be used, and why not the rest.
//!
//! Reads each counter once and changes nothing. What only shows while counters run (dies that are one
//! counter, psys below what it contains) is named as such.

use std::io::{self, Write};

use peil_proto::units::Millis;

use super::compose;
use super::model::Profile;
use super::powercap::{self, Domain, Unreadable, Zone};
use super::procfs;
use super::settings::{Psys, Settings};

/// The longest pause between two readings after which a wrap is still told from a reset: half the time
/// the zone needs at its utmost to pass its range once. `None` without a range.
pub fn longest_safe(zone: &Zone) -> Option<Millis> {
    let safe_ms = zone.range_uj / zone.pmax_mw.max(1) / 2;
    // A range that passes within a second is not a range; sampling faster than that costs more than it tells.
    (zone.range_uj > 0).then(|| Millis(i64::try_from(safe_ms).unwrap_or(i64::MAX)).max(Millis::SECOND))
}

/// Writes the findings.
///
/// # Errors
/// The writer's.
pub fn examine(settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    let found = powercap::discover(&settings.sysfs_root);
    let guest = procfs::is_guest(&settings.procfs_root);
    let class = settings.sysfs_root.join(powercap::CLASS_DIR);
    writeln!(out, "Counters below {}: {}", class.display(), counted(found.zones.len(), "zone"))?;
    let readable = show_zones(&found.zones, out)?;
    let (zones, passed_over) = compose::candidates(found.zones, settings.psys);
    let usable: Vec<&Zone> = zones.iter().filter(|zone| readable.contains(&zone.id)).collect();
    let chosen = if guest == Some(true) { Vec::new() } else { choose(&usable, settings.psys) };

    writeln!(
        out,
        "Guest of a hypervisor: {}",
        match guest {
            Some(true) => "yes, so counters are another machine's and are not used",
            Some(false) => "no",
            None => "unknown, /proc/cpuinfo cannot be read; taken for no",
        }
    )?;
    list(out, "Counted", chosen.iter().map(|zone| zone.id.clone()))?;
    let unused = zones.iter().filter(|zone| !chosen.iter().any(|used| used.id == zone.id));
    let reason = |zone: &Zone| match (guest, readable.contains(&zone.id)) {
        (Some(true), _) => "another machine's",
        (_, false) => "cannot be read",
        (_, true) => "covered by the counters above; followed to check them",
    };
    let unused = unused.map(|zone| format!("{}: {}", zone.id, reason(zone)));
    let passed_over = found.excluded.iter().chain(&passed_over).map(|it| format!("{}: {}", it.what, it.why));
    list(out, "Not counted", unused.chain(passed_over))?;
    if chosen.iter().any(|zone| matches!(zone.domain, Domain::Package(place) if place.die.is_some())) {
        writeln!(out, "Dies whose counters stay equal over {} readings count once.", compose::MIRROR_READS)?;
    }
    let safe = zones.iter().filter_map(longest_safe).min();
    let sample = safe.map_or(settings.sample, |safe| safe.min(settings.sample));
    if let Some(safe) = safe {
        writeln!(out, "Longest safe interval: {safe} ms; sampled every {sample} ms")?;
    }
    verdict(settings, &chosen, out)
}

/// One line per zone; returns the ids of those that can be read.
fn show_zones(zones: &[Zone], out: &mut impl Write) -> io::Result<Vec<String>> {
    let mut readable = Vec::new();
    for zone in zones {
        let read = zone.read_uj();
        let state = match &read {
            Ok(uj) => format!("readable, {uj} uJ"),
            Err(why) => why.to_string(),
        };
        let range = if zone.range_uj == 0 { "unknown".to_owned() } else { format!("{} uJ", zone.range_uj) };
        let pmax_w = zone.pmax_mw / 1_000;
        writeln!(out, "  {:<22} {state}; range {range}; at most {pmax_w} W; {}", zone.id, zone.dir.display())?;
        if read == Err(Unreadable::Permission) {
            writeln!(out, "  {:<22} remedy: {}", "", powercap::PERMISSION_HINT)?;
        }
        if read.is_ok() {
            readable.push(zone.id.clone());
        }
    }
    Ok(readable)
}

fn verdict(settings: &Settings, chosen: &[&Zone], out: &mut impl Write) -> io::Result<()> {
    let has = |wanted: fn(&Domain) -> bool| chosen.iter().any(|zone| wanted(&zone.domain));
    if has(|domain| matches!(domain, Domain::Psys)) {
        return writeln!(out, "Reported: measured, boundary platform, covers cpu+dram+board");
    }
    if has(|domain| matches!(domain, Domain::Package(_))) {
        let covers = if has(|domain| matches!(domain, Domain::Dram(_))) { "cpu+dram" } else { "cpu" };
        return writeln!(out, "Reported: measured, boundary component, covers {covers}");
    }
    match Profile::of(&settings.model, &settings.procfs_root) {
        Some(Profile { vcpu, memory_mw, min_mw, max_mw }) => writeln!(
            out,
            "Reported: modelled (-50 %, +100 %), boundary wall: {vcpu} vCPU x {min_mw}-{max_mw} mW + memory {memory_mw} mW"
        ),
        None => writeln!(
            out,
            "Reported: nothing; no counter can be read and {} does not say how many CPUs there are",
            settings.procfs_root.join("stat").display()
        ),
    }
}

/// What is counted if nothing is found out while running.
fn choose<'a>(usable: &[&'a Zone], psys: Psys) -> Vec<&'a Zone> {
    if psys != Psys::Never
        && let Some(zone) = usable.iter().find(|zone| zone.domain == Domain::Psys)
    {
        return vec![zone];
    }
    let has_package = usable.iter().any(|zone| matches!(zone.domain, Domain::Package(_)));
    usable.iter().filter(|zone| has_package && zone.domain != Domain::Psys).copied().collect()
}

fn list(out: &mut impl Write, title: &str, items: impl Iterator<Item = String>) -> io::Result<()> {
    let items: Vec<String> = items.collect();
    writeln!(out, "{title}:{}", if items.is_empty() { " nothing" } else { "" })?;
    items.iter().try_for_each(|item| writeln!(out, "  {item}"))
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
