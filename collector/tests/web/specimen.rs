//! Snapshots made by hand, for tests and for the preview: each shows a state that pages must tell.

use peil_collector::snapshot::{
    AlertView, CheckView, DeliveryView, EnergyHourView, EnergyView, ExclusionView, FindingView, ForecastView, HostView,
    LossView, MonthView, OutageView, PatchState, PatchView, ServiceView, Snapshot, TimesView, VantageView,
};
use peil_proto::ids::AgentId;
use peil_proto::labels::Labels;
use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::{Microjoules, Millis};
use serde_json::json;

/// Monday 23 November 2026, 13:03:12 UTC; 14:03:12 in Amsterdam.
pub(crate) const NOW: UtcTime = UtcTime(1_795_438_992_000);

/// So many minutes before [`NOW`].
pub(crate) fn minutes_ago(n: i64) -> UtcTime {
    NOW.plus(Millis(-n * 60_000))
}

fn days(n: i64) -> Millis {
    Millis(n * Millis::DAY.0)
}

fn agent(n: u8) -> AgentId {
    AgentId([n; 16])
}

/// Nothing yet.
pub(crate) fn empty() -> Snapshot {
    Snapshot::default()
}

/// All is well.
pub(crate) fn calm() -> Snapshot {
    Snapshot {
        at: NOW,
        services: vec![service("Burgerportaal"), service("Klantportaal"), service("Zaaksysteem")],
        hosts: vec![host(1, "ams-web-1"), host(2, "ams-web-2")],
        alerts: vec![],
        ..Snapshot::default()
    }
}

/// Everything that can be the matter.
pub(crate) fn busy() -> Snapshot {
    Snapshot {
        at: NOW,
        services: vec![breached(), service("Burgerportaal"), down(), unknown(), at_risk(), without_figure()],
        hosts: vec![overdue(), host(2, "ams-web-2"), due(), silent(), modelled(), revoked(), untold()],
        alerts: alerts(),
        exclusions: vec![exclusion("CHG-7", "proposed"), exclusion("CHG-6", "approved")],
        months: vec![month("Klantportaal", Some(2)), month("Burgerportaal", None)],
        ..Snapshot::default()
    }
}

/// A service that is up and on target.
pub(crate) fn service(name: &str) -> ServiceView {
    ServiceView {
        name: name.to_owned(),
        state: State::Up,
        since: Some(minutes_ago(11 * 1_440)),
        because: vec![],
        in_window: true,
        month: "2026-11".to_owned(),
        timezone: "Europe/Amsterdam".to_owned(),
        target: "99.5".to_owned(),
        official: Some("99.981234".to_owned()),
        worst: Some("99.981234".to_owned()),
        best: Some("99.981234".to_owned()),
        known: Some("100.000000".to_owned()),
        verdict: "met".to_owned(),
        breach_certain: false,
        budget_ms: Millis(12_960_000),
        budget_left_ms: Millis(12_592_000),
        counted_down_ms: Millis(368_000),
        unknown_ms: Millis(0),
        forecast: ForecastView::default(),
        figure: json!({
            "month": "2026-11", "month_ms": 1_952_000_000_i64, "not_covered_ms": 0, "out_of_window_ms": 0,
            "holiday_ms": 0, "excluded_ms": 7_200_000, "up_ms": 1_944_432_000_i64, "down_ms": 368_000,
            "unknown_ms": 0, "agreed_ms": 1_944_800_000_i64, "counted_down_ms": 368_000,
            "excluded": [
                {"id": "CHG-1042", "counted_ms": 7_200_000, "refused": null},
                {"id": "CHG-1044", "counted_ms": 0, "refused": "late_notice"}
            ],
        }),
        outages: vec![OutageView {
            from: minutes_ago(11 * 1_440 + 6),
            to: Some(minutes_ago(11 * 1_440)),
            counted_ms: Millis(368_000),
            because: vec!["voorpagina".to_owned()],
        }],
        checks: vec![
            check("voorpagina", "https://portaal.example.org/", [State::Up, State::Up]),
            check("inloggen", "https://portaal.example.org/inloggen", [State::Up, State::Up]),
        ],
    }
}

/// A service that is down now and has little left.
pub(crate) fn down() -> ServiceView {
    let mut view = service("Klantportaal");
    view.state = State::Down;
    view.since = Some(minutes_ago(37));
    view.because = vec!["inloggen".to_owned()];
    view.official = Some("99.610022".to_owned());
    view.worst = Some("99.560100".to_owned());
    view.best = Some("99.701999".to_owned());
    view.known = Some("99.858101".to_owned());
    view.budget_left_ms = Millis(1_500_000);
    view.counted_down_ms = Millis(11_460_000);
    view.unknown_ms = Millis(2_760_000);
    view.figure["down_ms"] = json!(8_700_000);
    view.figure["unknown_ms"] = json!(2_760_000);
    view.figure["counted_down_ms"] = json!(11_460_000);
    view.figure["up_ms"] = json!(1_933_340_000_i64);
    view.outages.insert(
        0,
        OutageView {
            from: minutes_ago(37),
            to: None,
            counted_ms: Millis(2_220_000),
            because: vec!["inloggen".to_owned()],
        },
    );
    view.checks[1] = check("inloggen", "https://portaal.example.org/inloggen", [State::Down, State::Down]);
    view
}

/// A service about which nobody knows anything now.
pub(crate) fn unknown() -> ServiceView {
    let mut view = service("Zaaksysteem");
    view.state = State::Unknown;
    view.since = Some(minutes_ago(12));
    view.because = vec!["api".to_owned()];
    view.verdict = "undetermined".to_owned();
    view.official = Some("98.900000".to_owned());
    view.worst = Some("98.900000".to_owned());
    view.known = Some("99.081234".to_owned());
    view.unknown_ms = Millis(21_000_000);
    view.checks = vec![check("api", "zaken.example.org:443", [State::Unknown, State::Unknown])];
    view
}

/// A service that cannot meet its month any more.
pub(crate) fn breached() -> ServiceView {
    let mut view = service("Archief");
    view.verdict = "breached".to_owned();
    view.breach_certain = true;
    view.official = Some("99.123456".to_owned());
    view.worst = view.official.clone();
    view.best = view.official.clone();
    view.budget_left_ms = Millis(-4_100_000);
    view.counted_down_ms = Millis(17_060_000);
    view.in_window = false;
    view
}

/// Below target so far, but the month may still mend it.
pub(crate) fn at_risk() -> ServiceView {
    let mut view = service("Berichtenbox & meldingen voor ondernemers in het buitenland");
    view.verdict = "breached".to_owned();
    view.official = Some("99.499999".to_owned());
    view.budget_left_ms = Millis(2_900_000);
    view
}

/// A service whose contract has not begun.
pub(crate) fn without_figure() -> ServiceView {
    let mut view = service("Nieuwe dienst");
    view.verdict = "not_applicable".to_owned();
    (view.official, view.worst, view.best, view.known) = (None, None, None, None);
    view.since = None;
    view.figure = serde_json::Value::Null;
    view.outages.clear();
    view.checks.clear();
    view
}

fn check(name: &str, target: &str, states: [State; 2]) -> CheckView {
    let kind = if target.starts_with("https") { "http" } else { "tls" };
    let seen = |n: u8, host: &str, state| VantageView {
        agent: agent(n),
        host: host.to_owned(),
        state,
        last_at: (state != State::Unknown).then(|| minutes_ago(0)),
        outcome: match state {
            State::Up => "up".to_owned(),
            State::Down => "status:503".to_owned(),
            State::Unknown => "not_run:overload".to_owned(),
        },
        phases_us: match state {
            State::Up => [Some(1_240), Some(8_310 * u32::from(n)), Some(21_870), Some(64_120), Some(2_003)],
            State::Down => [Some(1_100), Some(8_900), Some(20_400), Some(412_000), Some(0)],
            State::Unknown => [None; 5],
        },
        detail: if state == State::Down {
            "the answer has status 503, not 200–299".to_owned()
        } else {
            String::new()
        },
        cert_not_after: (state != State::Unknown).then(|| NOW.plus(days(if n == 1 { 12 } else { 80 }))),
    };
    CheckView {
        name: name.to_owned(),
        kind: kind.to_owned(),
        target: target.to_owned(),
        interval_ms: Millis(60_000),
        vantages: vec![seen(1, "ams-web-1", states[0]), seen(2, "ams-web-2", states[1])],
        times: Some(TimesView { count: 43_200, p50_us: 97_791, p95_us: 142_335, p99_us: 168_959 }),
    }
}

/// A host that is connected, patched and measured.
pub(crate) fn host(n: u8, name: &str) -> HostView {
    HostView {
        labels: Labels::default(),
        copied: None,
        agent: agent(n),
        host: name.to_owned(),
        os: "Debian GNU/Linux 13 (trixie)".to_owned(),
        agent_version: "0.1.0".to_owned(),
        connected: true,
        silent: false,
        revoked: false,
        last_contact: Some(minutes_ago(0)),
        records: 184_220,
        records_lost: 0,
        losses: vec![],
        backlog: 3,
        plan_refused: vec![],
        local_checks: vec![],
        local_problems: vec![],
        rss_bytes: 13_002_342,
        patch: PatchView {
            state: PatchState::Ok,
            scanned_at: Some(minutes_ago(190)),
            installed: 612,
            pending: 4,
            findings: vec![],
            reboot_required: Some(false),
            errors: vec![],
        },
        energy: energy("measured", 5),
    }
}

fn energy(method: &str, spread_percent: u64) -> EnergyView {
    let wh = Microjoules::PER_KWH / 1_000;
    let hours = (0..24).filter(|n| *n != 7).map(|n| {
        let best = (38 + (n * 7) % 31) * wh;
        EnergyHourView {
            hour: minutes_ago(0).hour_start().plus(Millis((i64::try_from(n).unwrap_or(0) - 23) * Millis::HOUR.0)),
            energy_uj: Microjoules(best),
            low_uj: Microjoules(best - best * spread_percent / 100),
            high_uj: Microjoules(best + best * spread_percent / 100),
            covered_s: if n == 23 { 190 } else { 3_600 },
        }
    });
    EnergyView {
        method: method.to_owned(),
        boundary: "component".to_owned(),
        covers: "CPU package, DRAM".to_owned(),
        detail: "powercap, 2 packages".to_owned(),
        power_mw: Some(48_310),
        month_uj: Microjoules(26_218 * wh),
        month_low_uj: Microjoules(26_218 * wh - 262 * wh * spread_percent),
        month_high_uj: Microjoules(26_218 * wh + 262 * wh * spread_percent),
        month_covered_s: 1_931_000,
        hours: hours.collect(),
    }
}

fn finding(package: &str, source: &str, first_seen_days: i64, state: &str) -> FindingView {
    let first_seen = NOW.plus(days(-first_seen_days));
    FindingView {
        source: source.to_owned(),
        package: package.to_owned(),
        arch: "amd64".to_owned(),
        installed: "3.5.1-1+deb13u1".to_owned(),
        security_version: "3.5.1-1+deb13u3".to_owned(),
        state: state.to_owned(),
        first_seen,
        due_at: first_seen.plus(days(14)),
        overdue: first_seen_days > 14,
    }
}

/// A host with a fix missing for 19 days.
pub(crate) fn overdue() -> HostView {
    let mut view = host(1, "ams-web-1");
    view.patch.state = PatchState::Overdue;
    view.patch.reboot_required = Some(true);
    view.patch.findings = vec![
        finding("libssl3t64", "openssl", 19, "held"),
        finding("curl", "curl", 6, "installable"),
        finding("libxml2-16", "libxml2", 2, "blocked_pin"),
    ];
    view.plan_refused = vec!["check 4: the local policy forbids 10.0.0.0/8".to_owned()];
    view.records_lost = 12;
    view.losses = vec![LossView {
        from: minutes_ago(95),
        to: minutes_ago(93),
        records: 12,
        reason: "never_came".to_owned(),
        explanation: "dropped or damaged on the host before they were sent".to_owned(),
    }];
    view
}

/// A host with a fix missing within its term.
pub(crate) fn due() -> HostView {
    let mut view = host(3, "utr-db-1");
    view.patch.state = PatchState::Due;
    view.patch.findings = vec![finding("postgresql-17", "postgresql-17", 4, "installable")];
    view
}

/// A host nobody hears.
pub(crate) fn silent() -> HostView {
    let mut view = host(4, "utr-db-2");
    view.connected = false;
    view.silent = true;
    view.last_contact = Some(minutes_ago(96));
    view.patch.state = PatchState::Unknown;
    view.patch.errors = vec!["the last scan is 3 days old".to_owned()];
    view
}

/// A host without meters.
pub(crate) fn modelled() -> HostView {
    let mut view = host(5, "gn-edge-1");
    view.energy = energy("modelled", 40);
    view.energy.boundary = "platform".to_owned();
    view.energy.covers = "whole machine".to_owned();
    view.energy.detail = "no powercap in this virtual machine; from CPU use and a declared range of 20–95 W".to_owned();
    view
}

/// A host that is no longer let in.
pub(crate) fn revoked() -> HostView {
    let mut view = host(6, "old-lamp-1");
    view.connected = false;
    view.revoked = true;
    view.last_contact = Some(minutes_ago(9 * 1_440));
    view
}

/// A host that enrolled and told nothing yet.
pub(crate) fn untold() -> HostView {
    let mut view = host(7, "new-app-1");
    (view.os, view.agent_version) = (String::new(), String::new());
    (view.connected, view.last_contact) = (false, None);
    (view.records, view.backlog, view.rss_bytes) = (0, 0, 0);
    view.patch = PatchView::default();
    view.energy = EnergyView::default();
    view
}

fn alerts() -> Vec<AlertView> {
    let sent = DeliveryView {
        channel: "oncall-webhook".to_owned(),
        event: "firing".to_owned(),
        attempts: 1,
        sent_at: Some(minutes_ago(36)),
        last_error: String::new(),
    };
    let failing = DeliveryView {
        channel: "teams".to_owned(),
        attempts: 4,
        sent_at: None,
        last_error: "HTTP 502 from hooks.example.org".to_owned(),
        ..sent.clone()
    };
    let alert = |id, kind: &str, severity: &str, subject: &str, summary: &str, action: &str, minutes| AlertView {
        id,
        key: format!("{kind}:{subject}"),
        kind: kind.to_owned(),
        severity: severity.to_owned(),
        subject: subject.to_owned(),
        summary: summary.to_owned(),
        action: action.to_owned(),
        opened_at: minutes_ago(minutes),
        resolved_at: None,
        deliveries: vec![sent.clone(), failing.clone()],
    };
    let mut over =
        alert(17, "agent_silent", "warning", "ams-web-2", "Nothing was heard from ams-web-2 for 12 min.", "", 300);
    over.resolved_at = Some(minutes_ago(288));
    over.deliveries.truncate(1);
    vec![
        alert(
            21,
            "outage",
            "critical",
            "Klantportaal",
            "Klantportaal is down since 13:26 because of inloggen: status 503 from 2 of 2 vantages.",
            "Look at the identity provider first; the front page is up. 25 min of the month's budget are left.",
            37,
        ),
        alert(
            20,
            "patch_overdue",
            "warning",
            "ams-web-1",
            "openssl on ams-web-1 lacks a security fix for 19 days; 14 are agreed.",
            "The package is held back on the host: lift the hold or record an exception.",
            5 * 1_440,
        ),
        over,
    ]
}

/// Maintenance an hour ago that ran over.
fn exclusion(id: &str, progress: &str) -> ExclusionView {
    let decided = progress != "proposed";
    ExclusionView {
        id: id.to_owned(),
        service: "Klantportaal".to_owned(),
        kind: "maintenance".to_owned(),
        from: minutes_ago(120),
        to: minutes_ago(60),
        reason: "nieuwe schijven".to_owned(),
        progress: progress.to_owned(),
        proposed_by: "anna".to_owned(),
        decided_by: if decided { "bert".to_owned() } else { String::new() },
        counted_ms: Some(if decided { Millis(30 * 60_000) } else { Millis::ZERO }),
        refused: Some(if decided { "over_cap" } else { "not_approved" }.to_owned()),
        overrun_ms: decided.then_some(Millis(5 * 60_000)),
    }
}

/// October: sealed as this edition by the calendar, and different since; or a draft.
fn month(service: &str, edition: Option<u32>) -> MonthView {
    MonthView {
        service: service.to_owned(),
        month: "2026-10".to_owned(),
        stage: if edition.is_some() { "sealed" } else { "draft" }.to_owned(),
        edition,
        sealed_at: edition.map(|_| minutes_ago(24 * 60)),
        sealed_by: None,
        official: Some("99.812345".to_owned()),
        verdict: "met".to_owned(),
        differs: edition.is_some(),
    }
}
