//! Open, update, resolve: with a real store, from one snapshot to the next.

use peil_proto::sample::State;
use peil_proto::time::UtcTime;

use super::*;
use crate::config::kinds_by_default;
use crate::job::trial::{NOON, Trial};
use crate::snapshot::{BurnTierView, ForecastView, ServiceView};
use crate::store::alerts::outbox::Event;

fn service(state: State, because: &str) -> ServiceView {
    ServiceView {
        name: "portal".into(),
        state,
        since: (state == State::Down).then_some(NOON),
        because: vec![because.into()],
        in_window: true,
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

/// Raises from a snapshot `secs` after noon; the snapshot as it is afterwards, and whether there is news.
async fn raise(trial: &Trial, secs: i64, service: ServiceView) -> (Snapshot, bool) {
    let at = NOON.plus(Millis::from_secs(secs));
    let mut snapshot = Snapshot { at, services: vec![service], hosts: vec![], alerts: vec![], ..Snapshot::default() };
    let delivery_manager = BTreeSet::from([AlertKind::SlaForecast, AlertKind::SlaBreach]);
    let everybody = [("am", kinds_by_default()), ("hook", kinds_by_default()), ("sdm", delivery_manager)];
    let channels = everybody.map(|(name, kinds)| (name.to_owned(), kinds)).into();
    let job = Raise { store: trial.store.clone(), channels, leading: trial.leading.clone() };
    let news = job.activate(&mut snapshot).await.expect("raised");
    (snapshot, news)
}

async fn events(trial: &Trial, now: UtcTime) -> Vec<(String, Event)> {
    let due = trial.store.deliveries_due(now, 10).await.expect("read");
    due.into_iter().map(|row| (row.channel, row.event)).collect()
}

#[tokio::test]
async fn an_outage_opens_once_is_brought_up_to_date_and_resolves_once() {
    let trial = Trial::new().await;
    let (snapshot, news) = raise(&trial, 5, service(State::Down, "web")).await;
    assert!(news);
    assert_eq!(snapshot.alerts.len(), 1);
    assert_eq!((snapshot.alerts[0].key.as_str(), snapshot.alerts[0].opened_at), ("outage/portal", NOON));
    assert_eq!(snapshot.alerts[0].deliveries.len(), 2);
    let both = [("am".to_owned(), Event::Firing), ("hook".to_owned(), Event::Firing)];
    assert_eq!(events(&trial, snapshot.at).await, both);

    let (_, news) = raise(&trial, 6, service(State::Down, "web")).await;
    assert!(!news, "the same again is no news");
    let (snapshot, news) = raise(&trial, 7, service(State::Down, "db")).await;
    assert!(!news, "another cause is told on the page, nobody is woken again");
    assert!(snapshot.alerts[0].summary.ends_with("db"), "{}", snapshot.alerts[0].summary);
    assert_eq!(events(&trial, snapshot.at).await, both);

    let (snapshot, news) = raise(&trial, 8, service(State::Up, "")).await;
    assert!(news);
    assert_eq!(snapshot.alerts[0].resolved_at, Some(snapshot.at));
    let (snapshot, news) = raise(&trial, 9, service(State::Up, "")).await;
    assert!(!news);
    assert_eq!(snapshot.alerts.len(), 1, "a recent one is still shown");
    let (snapshot, _) = raise(&trial, 9 + 86_400, service(State::Up, "")).await;
    assert_eq!(snapshot.alerts.len(), 0);
}

#[tokio::test]
async fn nobody_is_told_that_it_is_over_when_nobody_knows_or_the_window_closes() {
    let trial = Trial::new().await;
    raise(&trial, 0, service(State::Down, "web")).await;
    let (_, news) = raise(&trial, 1, service(State::Unknown, "web")).await;
    assert!(!news);
    let (snapshot, news) = raise(&trial, 2, ServiceView { in_window: false, ..service(State::Down, "web") }).await;
    assert!(!news);
    assert_eq!(snapshot.alerts[0].resolved_at, None);
}

#[tokio::test]
async fn the_same_trouble_anew_is_a_new_alert() {
    let trial = Trial::new().await;
    for round in 0..2 {
        assert!(raise(&trial, round * 10, service(State::Down, "web")).await.1);
        assert!(raise(&trial, round * 10 + 5, service(State::Up, "")).await.1);
    }
    assert_eq!(trial.store.alerts_recent(UtcTime(0), 10).await.expect("read").len(), 2);
}

#[tokio::test]
async fn a_clock_that_was_set_back_ends_no_alert_before_it_began() {
    let trial = Trial::new().await;
    raise(&trial, 60, service(State::Down, "web")).await;
    let (snapshot, news) = raise(&trial, -3_600, service(State::Up, "")).await;
    assert!(news);
    let row = &trial.store.alerts_recent(UtcTime(0), 10).await.expect("read")[0];
    assert_eq!(row.resolved_at, Some(row.opened_at));
    assert!(snapshot.at < row.opened_at);
}

#[tokio::test]
async fn a_forecast_goes_to_who_asked_for_it_and_a_burn_to_who_is_on_call() {
    let trial = Trial::new().await;
    let tier = BurnTierView {
        window_ms: Millis(20 * Millis::MINUTE.0),
        lost_ms: Millis(2 * Millis::MINUTE.0),
        threshold: "14.4".into(),
        fires: true,
    };
    let mut burning = service(State::Up, "");
    burning.forecast = ForecastView {
        exhausted: "ahead".into(),
        exhausted_at: Some(NOON.plus(Millis::DAY)),
        elapsed_ms: Millis::DAY,
        tiers: vec![tier],
        ..ForecastView::default()
    };
    let (snapshot, _) = raise(&trial, 5, burning).await;
    let told = |key: &str| {
        let alert = snapshot.alerts.iter().find(|alert| alert.key == key).expect("open");
        let mut channels: Vec<_> = alert.deliveries.iter().map(|delivery| delivery.channel.clone()).collect();
        channels.sort();
        channels
    };
    assert_eq!(told("budget_burn/portal/2026-04"), ["am", "hook"]);
    assert_eq!(told("sla_forecast/portal/2026-04"), ["sdm"]);
    let (snapshot, _) = raise(&trial, 9, service(State::Up, "")).await;
    assert!(snapshot.alerts.iter().all(|alert| alert.resolved_at.is_some()), "{:?}", snapshot.alerts);
}
