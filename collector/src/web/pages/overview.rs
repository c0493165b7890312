//! The overview: open alerts, services, hosts; and the page with all hosts.
//!
//! Trouble comes first: services that are not up, then those below target; hosts that are silent, then
//! overdue or unknown patch level.

use askama::Template;
use peil_proto::sample::State;
use peil_proto::time::UtcTime;

use super::alerts::AlertCard;
use super::{Body, Section, Trouble, bounds, budget, encode, verdict};
use crate::snapshot::{HostView, PatchState, PatchView, ServiceView, Snapshot};
use crate::web::draw::{self, Mood, Svg};
use crate::web::format::{TimeTag, Zone, ago, count, days_until, kwh, kwh_at_most, percent, watts};

/// Hosts on the overview; the rest is a link away on `/hosts`.
const HOSTS_SHOWN_MAX: usize = 50;

#[derive(Template)]
#[template(path = "summary.html")]
struct Summary {
    mood: Svg,
    facts: Vec<String>,
}

/// One line that a screen reader speaks when it changes.
fn summary(snapshot: &Snapshot) -> Result<Section, Trouble> {
    let services = &snapshot.services;
    let down = services.iter().filter(|s| s.state == State::Down).count();
    let unknown = services.iter().filter(|s| s.state == State::Unknown).count();
    let silent = snapshot.hosts.iter().filter(|h| h.silent && !h.revoked).count();
    let overdue = snapshot.hosts.iter().filter(|h| h.patch.state == PatchState::Overdue).count();
    let mood = match (services.is_empty(), down, unknown) {
        (true, ..) => draw::badge(Mood::Plain, "No services yet"),
        (_, 0, 0) => draw::badge(Mood::Good, "All services up"),
        (_, 0, _) => draw::badge(Mood::Unknown, "Some services unknown"),
        _ => draw::badge(Mood::Bad, "Services down"),
    };
    let mut facts = Vec::new();
    if !services.is_empty() {
        let up = services.len() - down - unknown;
        facts.push(format!("{up} of {} up", count(services.len(), "service", "services")));
    }
    for (n, one, many) in [
        (down, "down", "down"),
        (unknown, "unknown", "unknown"),
        (silent, "host silent", "hosts silent"),
        (overdue, "host with overdue fixes", "hosts with overdue fixes"),
    ] {
        if n > 0 {
            facts.push(count(n, one, many));
        }
    }
    Section::new("summary", "", &Summary { mood, facts })
}

#[derive(Template)]
#[template(path = "open_alerts.html")]
struct OpenAlerts<'a> {
    cards: Vec<AlertCard<'a>>,
}

#[derive(Template)]
#[template(path = "services.html")]
struct Services<'a> {
    cards: Vec<ServiceCard<'a>>,
}

#[derive(Template)]
#[template(path = "hosts.html")]
struct Hosts<'a> {
    rows: Vec<HostRow<'a>>,
    /// How many there are beyond the rows.
    more: usize,
}

/// `/`
pub(super) fn overview(snapshot: &Snapshot, now: UtcTime) -> Result<Body, Trouble> {
    let open = snapshot.alerts.iter().filter(|alert| alert.resolved_at.is_none());
    let cards = open.map(|alert| AlertCard::new(alert, snapshot, now)).collect();
    let mut services: Vec<ServiceCard<'_>> =
        snapshot.services.iter().map(|service| ServiceCard::new(service, now)).collect();
    services.sort_by_key(ServiceCard::rank);
    Ok(Body {
        title: "Overview".to_owned(),
        lead: String::new(),
        sections: vec![
            summary(snapshot)?,
            Section::new("alerts", "Open alerts", &OpenAlerts { cards })?,
            Section::new("services", "Services", &Services { cards: services })?,
            host_section(snapshot, now, HOSTS_SHOWN_MAX)?,
        ],
    })
}

/// `/hosts`
pub(super) fn hosts(snapshot: &Snapshot, now: UtcTime) -> Result<Body, Trouble> {
    Ok(Body {
        title: "Hosts".to_owned(),
        lead: String::new(),
        sections: vec![host_section(snapshot, now, usize::MAX)?],
    })
}

fn host_section(snapshot: &Snapshot, now: UtcTime, shown_max: usize) -> Result<Section, Trouble> {
    let mut rows: Vec<HostRow<'_>> = snapshot.hosts.iter().map(|host| HostRow { host, now }).collect();
    rows.sort_by_key(HostRow::rank);
    let more = rows.len().saturating_sub(shown_max);
    rows.truncate(shown_max);
    Section::new("hosts", "Hosts", &Hosts { rows, more })
}

/// A service in a few words.
struct ServiceCard<'a> {
    service: &'a ServiceView,
    now: UtcTime,
    zone: Zone,
}

impl<'a> ServiceCard<'a> {
    fn new(service: &'a ServiceView, now: UtcTime) -> Self {
        Self { service, now, zone: Zone::named(&service.timezone) }
    }

    fn rank(&self) -> u8 {
        match (self.service.state, self.service.verdict.as_str()) {
            (State::Down, _) => 0,
            (State::Unknown, _) => 1,
            (State::Up, "breached") => 2,
            (State::Up, "undetermined") => 3,
            (State::Up, _) => 4,
        }
    }

    fn url(&self) -> String {
        format!("/services/{}", encode(&self.service.name))
    }

    fn state(&self) -> Svg {
        draw::state_badge(self.service.state)
    }

    fn since(&self) -> Option<(TimeTag, String)> {
        self.service.since.map(|at| (self.zone.minute(at), ago(at, self.now)))
    }

    fn because(&self) -> String {
        self.service.because.join(", ")
    }

    fn availability(&self) -> Option<String> {
        self.service.official.as_deref().map(percent)
    }

    fn target(&self) -> String {
        percent(&self.service.target)
    }

    fn bounds(&self) -> Option<String> {
        bounds(self.service)
    }

    fn verdict(&self) -> Svg {
        verdict(self.service)
    }

    fn budget(&self) -> String {
        budget(self.service)
    }

    fn budget_bar(&self) -> Svg {
        draw::budget_bar(self.service.budget_left_ms, self.service.budget_ms)
    }
}

/// A host in a row.
pub(super) struct HostRow<'a> {
    pub(super) host: &'a HostView,
    pub(super) now: UtcTime,
}

impl HostRow<'_> {
    fn rank(&self) -> u8 {
        match self.host {
            HostView { revoked: true, .. } => 5,
            HostView { silent: true, .. } => 0,
            HostView { patch: PatchView { state: PatchState::Overdue, .. }, .. } => 1,
            HostView { patch: PatchView { state: PatchState::Unknown, .. }, .. } => 2,
            HostView { connected: false, .. } => 3,
            _ => 4,
        }
    }

    pub(super) fn contact(&self) -> Svg {
        match self.host {
            HostView { revoked: true, .. } => draw::badge(Mood::Plain, "Revoked"),
            HostView { silent: true, .. } => draw::badge(Mood::Bad, "Silent"),
            HostView { connected: true, .. } => draw::badge(Mood::Good, "Connected"),
            HostView { last_contact: None, .. } => draw::badge(Mood::Unknown, "Never seen"),
            _ => draw::badge(Mood::Warn, "Not connected"),
        }
    }

    pub(super) fn last_contact(&self) -> Option<(TimeTag, String)> {
        self.host.last_contact.map(|at| (Zone::UTC.minute(at), ago(at, self.now)))
    }

    pub(super) fn patch(&self) -> Svg {
        draw::patch_badge(self.host.patch.state)
    }

    /// What the badge leaves open.
    pub(super) fn patch_words(&self) -> String {
        let patch = &self.host.patch;
        match patch.state {
            PatchState::Ok => scanned(patch, self.now),
            PatchState::Due => {
                let first = patch.findings.iter().map(|f| f.due_at).min();
                let fixes = count(patch.findings.len(), "security fix", "security fixes");
                first.map_or(fixes.clone(), |due| format!("{fixes}, first within {}", days(days_until(due, self.now))))
            }
            PatchState::Overdue => {
                let late = patch.findings.iter().filter(|f| f.overdue);
                let oldest = late.clone().map(|f| f.due_at).min();
                let fixes = format!("{} of {} fixes", late.count(), patch.findings.len());
                oldest.map_or(fixes.clone(), |due| format!("{fixes}, oldest by {}", days(-days_until(due, self.now))))
            }
            PatchState::Unknown => match (patch.errors.as_slice(), patch.scanned_at) {
                ([first], _) => first.clone(),
                ([first, rest @ ..], _) => format!("{first} (and {} more)", rest.len()),
                ([], None) => "never scanned".to_owned(),
                ([], Some(at)) => format!("last scan {}", ago(at, self.now)),
            },
        }
    }

    pub(super) fn energy(&self) -> EnergyWords {
        EnergyWords::of(self.host)
    }
}

fn scanned(patch: &PatchView, now: UtcTime) -> String {
    patch.scanned_at.map_or_else(|| "never scanned".to_owned(), |at| format!("scanned {}", ago(at, now)))
}

/// `1 day`, `3 days`.
pub(super) fn days(n: i64) -> String {
    count(usize::try_from(n.max(0)).unwrap_or(usize::MAX), "day", "days")
}

/// Energy in words. What is not known is `None`, never 0.
pub(super) struct EnergyWords {
    pub(super) power: Option<String>,
    pub(super) when: &'static str,
    pub(super) month: Option<String>,
    pub(super) bounds: Option<String>,
    pub(super) method: &'static str,
}

impl EnergyWords {
    pub(super) fn of(host: &HostView) -> Self {
        let energy = &host.energy;
        let known = energy.month_covered_s > 0;
        let differ = energy.month_low_uj != energy.month_high_uj;
        Self {
            power: energy.power_mw.map(watts),
            // The last reading of a host that is not heard says nothing about now.
            when: if host.connected { "now" } else { "at the last reading" },
            month: known.then(|| kwh(energy.month_uj)),
            bounds: (known && differ).then(|| {
                format!("{}–{}", kwh(energy.month_low_uj).replace(" kWh", ""), kwh_at_most(energy.month_high_uj))
            }),
            method: match energy.method.as_str() {
                "measured" => "measured",
                "estimated" => "estimated",
                "modelled" => "modelled, not measured",
                _ => "method unknown",
            },
        }
    }
}
