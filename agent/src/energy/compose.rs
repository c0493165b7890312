//! Which counters make the host's total: never one joule twice.
//!
//! A machine shows the same energy in several counters: psys contains the packages, a package contains
//! its cores, the mmio interface repeats the MSR interface, and two dies of an early EPYC or
//! Threadripper are one counter under two names. The total is *either* psys *or* the sum of packages
//! and their memory; each counter once.
//!
//! Two of these facts are only seen while counters run, so [`choose`] decides per report interval:
//! dies count once when they stay equal over [`MIRROR_READS`] readings, and psys is refused for good
//! once it shows less than what it contains.
//!
//! Pure but for the readings it is given. Deliberately absent: adding sources of different boundaries.

use std::collections::BTreeSet;

use super::integrator::{Flag, Flags};
use super::powercap::{Domain, Excluded, Interface, Place, Zone};
use super::reading::Boundary;
use super::settings::Psys;
use super::track::Tracked;

/// Dies whose counters agree over this many readings in a row are one counter; as many that disagree
/// are two again. Once is chance.
pub(super) const MIRROR_READS: u8 = 3;

/// Counters read one after the other agree when they differ by no more than this (or by a millionth).
const MIRROR_UJ_MAX: u64 = 1_000_000;

/// psys may count in whole joules and be read a moment earlier than what it contains.
const PSYS_SLACK_UJ: u64 = 2_000_000;

/// Splits what was found into zones worth following and those that never count, with the reason.
pub(super) fn candidates(found: Vec<Zone>, psys: Psys) -> (Vec<Zone>, Vec<Excluded>) {
    let msr: BTreeSet<String> =
        found.iter().filter(|zone| zone.interface == Interface::Msr).map(|zone| zone.twin.clone()).collect();
    let (mut zones, mut excluded) = (Vec::new(), Vec::new());
    for zone in found {
        let why = match zone.domain {
            _ if zone.interface == Interface::Mmio && msr.contains(&zone.twin) => "the same counter as its MSR twin",
            Domain::InsidePackage => "inside the package, which counts it already",
            Domain::Unknown => "not a zone this program knows; adding it could count energy twice",
            Domain::Psys if psys == Psys::Never => "psys = \"never\"",
            Domain::Package(_) | Domain::Dram(_) | Domain::Psys => {
                zones.push(zone);
                continue;
            }
        };
        excluded.push(Excluded { what: zone.id, why: why.to_owned() });
    }
    (zones, excluded)
}

/// Two dies of one package that may be one counter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    one: String,
    other: String,
    agreed: u8,
    differed: u8,
    mirrored: bool,
}

/// What is known about dies that look alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mirrors {
    pairs: Vec<Pair>,
}

/// Whether a zone repeats another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeats {
    No,
    /// It agreed so far, on fewer than [`MIRROR_READS`] readings.
    Perhaps,
    Yes,
}

impl Mirrors {
    /// Pairs up the dies among `zones`, keeping what is known of pairs seen before.
    pub(super) fn follow(&mut self, zones: &[Tracked]) {
        let die = |zone: &Zone| match zone.domain {
            Domain::Package(place @ Place { die: Some(_), .. }) => Some((0, place)),
            Domain::Dram(place @ Place { die: Some(_), .. }) => Some((1, place)),
            _ => None,
        };
        let known = std::mem::take(&mut self.pairs);
        for other in zones {
            for one in zones {
                let (Some((kind, a)), Some((other_kind, b))) = (die(&one.zone), die(&other.zone)) else { continue };
                if kind != other_kind || a.package != b.package || a.die >= b.die {
                    continue;
                }
                let (one, other) = (one.zone.id.clone(), other.zone.id.clone());
                let seen = known.iter().find(|pair| pair.one == one && pair.other == other).cloned();
                self.pairs.push(seen.unwrap_or(Pair { one, other, agreed: 0, differed: 0, mirrored: false }));
            }
        }
    }

    /// Compares the pairs' latest readings. Readings that failed or were not believed say nothing.
    pub(super) fn observe(&mut self, zones: &[Tracked]) {
        let believed = |id: &str| zones.iter().find(|tracked| tracked.zone.id == id).and_then(Tracked::believed_uj);
        for pair in &mut self.pairs {
            let (Some(a), Some(b)) = (believed(&pair.one), believed(&pair.other)) else { continue };
            if a.abs_diff(b) <= MIRROR_UJ_MAX.max(a / 1_000_000) {
                pair.agreed = pair.agreed.saturating_add(1);
                pair.differed = 0;
                pair.mirrored |= pair.agreed >= MIRROR_READS;
            } else {
                pair.differed = pair.differed.saturating_add(1);
                pair.agreed = 0;
                pair.mirrored &= pair.differed < MIRROR_READS;
            }
        }
    }

    fn repeats(&self, id: &str) -> Repeats {
        let of_zone = || self.pairs.iter().filter(|pair| pair.other == id);
        if of_zone().any(|pair| pair.mirrored) {
            Repeats::Yes
        } else if of_zone().any(|pair| pair.agreed > 0) {
            Repeats::Perhaps
        } else {
            Repeats::No
        }
    }
}

/// The host's total over one interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Composition {
    /// Best estimate, µJ.
    pub(super) energy_uj: u64,
    /// At least, µJ.
    pub(super) low_uj: u64,
    /// At most, µJ.
    pub(super) high_uj: u64,
    /// What happened in the zones counted.
    pub(super) flags: Flags,
    /// `rapl` or `rapl:psys`.
    pub(super) source: &'static str,
    /// What is enclosed.
    pub(super) boundary: Boundary,
    /// The same by name.
    pub(super) covers: &'static str,
    /// Indices of the zones counted.
    pub(super) used: Vec<usize>,
    /// For a person.
    pub(super) notes: Vec<String>,
}

/// What [`choose`] goes by besides the zones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// The operator's wish.
    pub(super) psys: Psys,
    /// psys was found to show less than what it contains.
    pub(super) psys_refused: bool,
    /// Dies that are one counter.
    pub(super) mirrors: &'a Mirrors,
    /// The interval, in monotonic ms.
    pub(super) interval_ms: (u64, u64),
}

/// The host's total from the zones' spans; `None` when neither psys nor any package was counted.
pub(super) fn choose(zones: &[Tracked], rules: &Rules<'_>) -> Option<Composition> {
    let components = components(zones, rules);
    let wanted = match rules.psys {
        Psys::Always => true,
        Psys::Auto => !rules.psys_refused,
        Psys::Never => false,
    };
    let psys = platform(zones, rules).filter(|psys| {
        // A psys that came back in the middle leaves the interval to the zones that saw all of it.
        wanted && components.as_ref().is_none_or(|sum| joined_ms(zones, psys, rules) <= joined_ms(zones, sum, rules))
    });
    psys.or(components)
}

/// From when on all zones of a total were counted: the start of the interval or later.
fn joined_ms(zones: &[Tracked], total: &Composition, rules: &Rules<'_>) -> u64 {
    let latest = total.used.iter().filter_map(|at| zones.get(*at)).map(|tracked| tracked.joined_ms).max();
    latest.unwrap_or(0).max(rules.interval_ms.0)
}

/// True when psys provably shows less than the packages and memory it contains, over the same time.
pub(super) fn psys_is_refuted(zones: &[Tracked], rules: &Rules<'_>) -> bool {
    let (Some(psys), Some(components)) = (platform(zones, rules), components(zones, rules)) else { return false };
    // A zone that joined late counted over less time: no ground for a verdict.
    joined_ms(zones, &psys, rules) <= joined_ms(zones, &components, rules)
        && psys.high_uj.saturating_add(PSYS_SLACK_UJ) < components.low_uj
}

/// The zone because of which no total can be believed. A distrusted psys is left to the packages, and a
/// distrusted package to psys; memory alone is left out of the total.
pub(super) fn distrusted(zones: &[Tracked]) -> Option<&str> {
    let psys = || zones.iter().filter(|tracked| tracked.zone.domain == Domain::Psys);
    let packages = || zones.iter().filter(|tracked| matches!(tracked.zone.domain, Domain::Package(_)));
    let psys_is_sound = psys().any(|tracked| !tracked.is_distrusted());
    let packages_are_sound = packages().count() > 0 && !packages().any(Tracked::is_distrusted);
    if psys_is_sound || packages_are_sound {
        return None;
    }
    packages().chain(psys()).find(|tracked| tracked.is_distrusted()).map(|tracked| tracked.zone.id.as_str())
}

fn platform(zones: &[Tracked], rules: &Rules<'_>) -> Option<Composition> {
    let speaks = |tracked: &Tracked| {
        tracked.zone.domain == Domain::Psys && tracked.span.is_counted() && !tracked.is_distrusted()
    };
    let at = zones.iter().position(speaks)?;
    let mut total = empty("rapl:psys", Boundary::Platform, "cpu+dram+board");
    total.add(at, &zones[at], rules.interval_ms);
    Some(total)
}

fn components(zones: &[Tracked], rules: &Rules<'_>) -> Option<Composition> {
    let mut total = empty("rapl", Boundary::Component, "cpu");
    let mut packages = 0;
    for (at, tracked) in zones.iter().enumerate() {
        if !matches!(tracked.zone.domain, Domain::Package(_) | Domain::Dram(_)) {
            continue;
        }
        if tracked.is_distrusted() {
            if matches!(tracked.zone.domain, Domain::Package(_)) {
                return None;
            }
            total.notes.push(format!("{} jumps by more than it can draw; left out", tracked.zone.id));
            continue;
        }
        match rules.mirrors.repeats(&tracked.zone.id) {
            Repeats::Yes => {
                total.notes.push(format!("{} repeats another die", tracked.zone.id));
                continue;
            }
            Repeats::Perhaps => {
                // Too early to tell: count it in the upper bound only.
                total.high_uj = total.high_uj.saturating_add(tracked.span.high_uj);
                total.notes.push(format!("{} may repeat another die", tracked.zone.id));
                continue;
            }
            Repeats::No => {}
        }
        total.add(at, tracked, rules.interval_ms);
        match tracked.zone.domain {
            Domain::Package(_) if tracked.span.is_counted() => packages += 1,
            Domain::Dram(_) if tracked.span.is_counted() => total.covers = "cpu+dram",
            _ => {}
        }
    }
    (packages > 0).then_some(total)
}

fn empty(source: &'static str, boundary: Boundary, covers: &'static str) -> Composition {
    let (flags, used, notes) = Default::default();
    Composition { energy_uj: 0, low_uj: 0, high_uj: 0, flags, source, boundary, covers, used, notes }
}

impl Composition {
    fn add(&mut self, at: usize, tracked: &Tracked, (start_ms, now_ms): (u64, u64)) {
        let span = &tracked.span;
        let mut high_uj = span.high_uj.saturating_add(tracked.outstanding_uj(start_ms, now_ms));
        if span.flags.contains(&Flag::Baseline) {
            // Nobody saw what it drew before counting began.
            let unseen_ms = tracked.joined_ms.saturating_sub(start_ms);
            high_uj = high_uj.saturating_add(tracked.zone.pmax_mw.saturating_mul(unseen_ms));
        }
        self.energy_uj = self.energy_uj.saturating_add(span.energy_uj);
        self.low_uj = self.low_uj.saturating_add(span.low_uj);
        self.high_uj = self.high_uj.saturating_add(high_uj);
        self.flags.extend(&span.flags);
        self.used.push(at);
        if let Some(Err(why)) = &tracked.last {
            self.notes.push(format!("{}: {why}", tracked.zone.id));
        }
    }
}
