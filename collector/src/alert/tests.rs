//! Which alerts there must be, and when one is over.

use peil_proto::ids::AgentId;

use super::*;
use crate::snapshot::{BurnTierView, CopiedView, ForecastView, VerifiedView};
use crate::store::alerts::AlertId;

const NOW: UtcTime = UtcTime(1_776_247_200_000);

fn service(state: State, in_window: bool) -> ServiceView {
    ServiceView {
        name: "portal".into(),
        state,
        since: None,
        because: vec!["web".into()],
        in_window,
        month: "2026-04".into(),
        timezone: "Europe/Amsterdam".into(),
        target: "99.5".into(),
        official: None,
        worst: None,
        best: None,
        known: None,
        verdict: "met".into(),
        breach_certain: false,
        budget_ms: Millis::ZERO,
        budget_left_ms: Millis::ZERO,
        counted_down_ms: Millis::ZERO,
        unknown_ms: Millis::ZERO,
        forecast: ForecastView::default(),
        figure: serde_json::Value::Null,
        outages: Vec::new(),
        checks: Vec::new(),
    }
}

fn host(connected: bool, last_contact: Option<UtcTime>) -> HostView {
    HostView {
        agent: AgentId([1; 16]),
        host: "db1".into(),
        labels: peil_proto::labels::Labels::default(),
        copied: None,
        os: String::new(),
        agent_version: String::new(),
        connected,
        silent: false,
        revoked: false,
        last_contact,
        records: 0,
        records_lost: 0,
        losses: vec![],
        backlog: 0,
        plan_refused: Vec::new(),
        local_checks: Vec::new(),
        local_problems: Vec::new(),
        rss_bytes: 0,
        patch: crate::snapshot::PatchView::default(),
        energy: crate::snapshot::EnergyView::default(),
    }
}

fn snapshot(services: Vec<ServiceView>, hosts: Vec<HostView>) -> Snapshot {
    Snapshot { at: NOW, services, hosts, alerts: Vec::new(), ..Snapshot::default() }
}

fn open(key: &str) -> AlertRow {
    AlertRow {
        id: AlertId(1),
        key: key.into(),
        kind: key.split('/').next().unwrap_or_default().into(),
        severity: "critical".into(),
        subject: "portal".into(),
        summary: String::new(),
        action: String::new(),
        opened_at: NOW,
        resolved_at: None,
    }
}

#[test]
fn spans_read_as_people_say_them() {
    let table = [
        (0, "none"),
        (45_000, "45 s"),
        (60_000, "1 min"),
        (12_960_000, "3 h 36 min"),
        (-5_000, "minus 5 s"),
        (90_000_000, "1 d 1 h"),
    ];
    for (ms, words) in table {
        assert_eq!(in_words(Millis(ms)), words);
    }
}

#[test]
fn a_healthy_snapshot_wants_no_alert() {
    assert_eq!(wanted(&Snapshot::default()), []);
    assert_eq!(wanted(&snapshot(vec![service(State::Up, true)], vec![host(true, Some(NOW))])), []);
}

#[test]
fn an_outage_opens_within_the_window_and_unknown_opens_none() {
    let table = [(State::Down, true, 1), (State::Down, false, 0), (State::Unknown, true, 0), (State::Up, true, 0)];
    for (state, in_window, alerts) in table {
        let found = wanted(&snapshot(vec![service(state, in_window)], vec![]));
        assert_eq!(found.len(), alerts, "{state} {in_window}");
        assert!(found.iter().all(|alert| alert.key == "outage/portal" && alert.kind == AlertKind::Outage));
    }
}

#[test]
fn an_outage_is_over_when_the_service_is_up_and_not_before() {
    let table = [(State::Up, true), (State::Down, false), (State::Unknown, false)];
    for (state, over) in table {
        assert_eq!(is_over(&open("outage/portal"), &snapshot(vec![service(state, false)], vec![])), over, "{state}");
    }
    assert!(is_over(&open("outage/portal"), &snapshot(vec![], vec![])), "no such service any more");
}

#[test]
fn a_silence_is_over_when_the_agent_was_heard() {
    let key = format!("agent_silent/{}", AgentId([1; 16]));
    let revoked = HostView { revoked: true, ..host(false, None) };
    let table = [
        (host(false, None), false),
        (host(false, Some(NOW)), false),
        (host(false, Some(NOW.plus(Millis(1)))), true),
        (host(true, Some(NOW)), true),
        (revoked, true),
    ];
    for (host, over) in table {
        assert_eq!(is_over(&open(&key), &snapshot(vec![], vec![host.clone()])), over, "{host:?}");
    }
}

#[test]
fn f29_a_copied_agent_is_an_alert_for_as_long_as_its_host_shows_it_and_none_once_it_is_revoked() {
    let seen = CopiedView { at: NOW, how: "twin".into(), explanation: "two hosts use its identity".into() };
    let copied = HostView { copied: Some(seen), ..host(true, Some(NOW)) };
    let found = wanted(&snapshot(vec![], vec![copied.clone()]));
    let [alert] = &found[..] else { panic!("one alert was due: {found:?}") };
    assert_eq!((alert.key.clone(), alert.since), (format!("agent_copied/{}", AgentId([1; 16])), NOW));
    assert!(alert.summary.contains("two hosts") && alert.action.contains("enroll --again"), "{alert:?}");
    assert!(wanted(&snapshot(vec![], vec![HostView { revoked: true, ..copied }])).is_empty());
    assert!(is_over(&open(&alert.key), &snapshot(vec![], vec![host(true, Some(NOW))])));
}

#[test]
fn an_error_names_the_receiver_without_the_secret_in_its_path() {
    assert_eq!(place("https://hooks.example.org:8443/T0/B1/secret?key=1"), "https://hooks.example.org:8443");
    assert_eq!(place("not a url"), "the receiver");
}

/// Burning at these tiers, with the budget gone in a day, after `days` of service time.
fn burning(fires: [bool; 3], days: i64) -> ServiceView {
    let tier =
        |fires| BurnTierView { window_ms: Millis::HOUR, lost_ms: Millis::MINUTE, threshold: "6.0".into(), fires };
    let forecast = ForecastView {
        exhausted: "ahead".into(),
        exhausted_at: Some(NOW.plus(Millis::DAY)),
        elapsed_ms: Millis(days * Millis::DAY.0),
        tiers: fires.map(tier).into(),
        ..ForecastView::default()
    };
    ServiceView { forecast, ..service(State::Up, true) }
}

fn kinds(service: ServiceView) -> Vec<AlertKind> {
    wanted(&snapshot(vec![service], Vec::new())).into_iter().map(|wanted| wanted.kind).collect()
}

#[test]
fn a_fast_burn_wakes_and_a_slow_one_is_a_forecast() {
    assert_eq!(kinds(burning([true, false, false], 0)), [AlertKind::BudgetBurn]);
    assert_eq!(kinds(burning([false, true, true], 0)), [AlertKind::BudgetBurn], "one alert, whatever tier");
    assert_eq!(kinds(burning([false, false, true], 0)), []);
    assert_eq!(kinds(burning([false, false, true], 1)), [AlertKind::SlaForecast]);
}

#[test]
fn after_a_certain_breach_nobody_is_told_that_one_may_come() {
    let over = ServiceView { breach_certain: true, ..burning([false; 3], 9) };
    assert_eq!(kinds(over), [AlertKind::SlaBreach]);
}

#[test]
fn a_store_that_differs_is_one_alert_until_a_comparison_finds_nothing() {
    let found = |differences| {
        let first = "check 1: 2 up are stored, the blocks have 3 up".to_owned();
        Some(VerifiedView { at: NOW, days: 50, differences, first })
    };
    let with = |verified| Snapshot { verified, ..snapshot(vec![], vec![]) };
    let wanted = wanted(&with(found(3)));
    assert_eq!(wanted.len(), 1);
    assert_eq!((wanted[0].key.as_str(), wanted[0].kind), ("store_differs", AlertKind::StoreDiffers));
    assert!(wanted[0].summary.contains("3 stored values") && wanted[0].summary.contains("the blocks have 3 up"));
    assert!(super::wanted(&with(found(0))).is_empty());
    let open = open("store_differs");
    assert!(!is_over(&open, &with(None)), "after a restart nothing was compared yet");
    assert!(!is_over(&open, &with(found(3))));
    assert!(is_over(&open, &with(found(0))));
}
