//! One host: its agent, patch findings with their clocks, energy hour by hour, delivery.

use askama::Template;
use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::alerts::AlertCard;
use super::overview::{EnergyWords, HostRow, days};
use super::{Body, Section, Trouble};
use crate::snapshot::{CheckView, EnergyHourView, FindingView, HostView, LossView, Snapshot};
use crate::web::draw::{self, Mood, Svg};
use crate::web::format::{TimeTag, Zone, ago, days_until, mebibytes, span, watt_hours};

/// Losses told on the page; the API has more.
const LOSSES_SHOWN: usize = 3;

#[derive(Template)]
#[template(path = "host_now.html")]
struct Now<'a> {
    host: &'a HostView,
    row: HostRow<'a>,
    alerts: Vec<AlertCard<'a>>,
    memory: Option<String>,
    losses: Vec<Loss>,
    copied: Option<(TimeTag, String)>,
    local: Vec<Own<'a>>,
}

/// A check of the host's own in a row.
struct Own<'a> {
    name: &'a str,
    kind: &'a str,
    target: &'a str,
    state: Svg,
    outcome: String,
}

/// Records that are missing, and when.
struct Loss {
    from: TimeTag,
    to: TimeTag,
    words: String,
}

#[derive(Template)]
#[template(path = "host_patch.html")]
struct Patch<'a> {
    host: &'a HostView,
    row: HostRow<'a>,
    scanned: Option<(TimeTag, String)>,
    reboot: Svg,
    findings: Vec<Finding<'a>>,
}

#[derive(Template)]
#[template(path = "host_energy.html")]
struct Energy<'a> {
    host: &'a HostView,
    words: EnergyWords,
    covered: String,
    chart: Svg,
    hours: Vec<Hour>,
}

/// `/hosts/{agent}`
pub(super) fn page(host: &HostView, snapshot: &Snapshot, now: UtcTime) -> Result<Body, Trouble> {
    let about = snapshot.alerts.iter().filter(|alert| alert.subject == host.host && alert.resolved_at.is_none());
    let state = Now {
        host,
        row: HostRow { host, now },
        alerts: about.map(|alert| AlertCard::new(alert, snapshot, now)).collect(),
        memory: (host.rss_bytes > 0).then(|| mebibytes(host.rss_bytes)),
        copied: host.copied.as_ref().map(|seen| (Zone::UTC.time(seen.at), sentence(&seen.explanation))),
        local: host.local_checks.iter().map(Own::of).collect(),
        losses: host.losses.iter().take(LOSSES_SHOWN).map(Loss::of).collect(),
    };
    let patch = Patch {
        host,
        row: HostRow { host, now },
        scanned: host.patch.scanned_at.map(|at| (Zone::UTC.time(at), ago(at, now))),
        reboot: match host.patch.reboot_required {
            Some(true) => draw::badge(Mood::Warn, "Reboot needed"),
            Some(false) => draw::badge(Mood::Good, "No reboot needed"),
            None => draw::badge(Mood::Unknown, "Unknown whether a reboot is needed"),
        },
        findings: host.patch.findings.iter().map(|finding| Finding { finding, now }).collect(),
    };
    let energy = Energy {
        host,
        words: EnergyWords::of(host),
        covered: span(Millis::from_secs(i64::try_from(host.energy.month_covered_s).unwrap_or(i64::MAX))),
        chart: draw::energy_chart(&host.energy.hours),
        hours: host.energy.hours.iter().rev().map(Hour::of).collect(),
    };
    Ok(Body {
        title: host.host.clone(),
        lead: if host.os.is_empty() { "Host".to_owned() } else { format!("Host · {}", host.os) },
        sections: vec![
            Section::new("now", "Agent and delivery", &state)?,
            Section::new("patch", "Patch level", &patch)?,
            Section::new("energy", "Energy", &energy)?,
        ],
    })
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| format!("{}{}.", first.to_uppercase(), chars.as_str())).unwrap_or_default()
}

impl<'a> Own<'a> {
    fn of(check: &'a CheckView) -> Self {
        let seen = check.vantages.first();
        let state = match seen.map(|seen| seen.state) {
            Some(State::Up) => draw::badge(Mood::Good, "Up"),
            Some(State::Down) => draw::badge(Mood::Bad, "Down"),
            Some(State::Unknown) | None => draw::badge(Mood::Unknown, "Unknown"),
        };
        let outcome = seen.map(|seen| seen.outcome.to_string()).unwrap_or_default();
        Self { name: &check.name, kind: &check.kind, target: &check.target, state, outcome }
    }
}

impl Loss {
    fn of(loss: &LossView) -> Self {
        let words = format!("{} {}", loss.records, loss.explanation);
        Self { from: Zone::UTC.time(loss.from), to: Zone::UTC.time(loss.to), words }
    }
}

/// A missing fix in a row.
struct Finding<'a> {
    finding: &'a FindingView,
    now: UtcTime,
}

impl Finding<'_> {
    fn first_seen(&self) -> TimeTag {
        Zone::UTC.date(self.finding.first_seen)
    }

    fn due(&self) -> TimeTag {
        Zone::UTC.date(self.finding.due_at)
    }

    fn standing(&self) -> Svg {
        if self.finding.overdue { draw::badge(Mood::Bad, "Overdue") } else { draw::badge(Mood::Warn, "Due") }
    }

    fn left(&self) -> String {
        let left = days_until(self.finding.due_at, self.now);
        if self.finding.overdue { format!("by {}", days(-left)) } else { format!("{} left", days(left)) }
    }

    fn state(&self) -> &str {
        match self.finding.state.as_str() {
            "installable" => "can be installed",
            "held" => "held back on the host",
            "blocked_pin" => "blocked by a pin",
            other => other,
        }
    }
}

/// An hour of energy in a row.
struct Hour {
    from: TimeTag,
    energy: String,
    low: String,
    high: String,
    covered: String,
}

impl Hour {
    fn of(hour: &EnergyHourView) -> Self {
        Self {
            from: Zone::UTC.minute(hour.hour),
            energy: watt_hours(hour.energy_uj),
            low: watt_hours(hour.low_uj),
            high: watt_hours(hour.high_uj),
            covered: format!("{} of 60 min", hour.covered_s.min(3_600) / 60),
        }
    }
}
