//! From blocks in a store to the view of a service, as the running collector does it.

use super::*;
use crate::agreement::Agreement;
use crate::config::Config;
use crate::job::judge::Judge;
use crate::job::trial::{NOON, Trial, agent, checks, down, energy, patch, up};

const SERVICE: &str = "
[[contract]]
name = 'c'
target = '99.5'
[[check]]
name = 'web'
kind = 'tcp'
address = 'h:1'
interval_s = 10
timeout_s = 1
QUORUM
[[service]]
name = 'portal'
contract = 'c'
expression = 'web'
";

/// A month of silence is down by the contract: noon of the 15th, everything unknown, is far beyond the budget.
struct Stage {
    trial: Trial,
    measure: Measure,
    judge: Judge,
    _in_force: watch::Sender<Arc<InForce>>,
}

impl Stage {
    async fn new(quorum: u32) -> Self {
        let text = SERVICE.replace("QUORUM", &format!("quorum = {quorum}"));
        let config = Config::parse("c.toml", &text).expect("valid");
        let trial = Trial::new().await;
        let numbers = BTreeMap::from([("web".to_owned(), CheckNo(1))]);
        let agreement = Agreement::new(&config, &[]).expect("makes sense");
        let (sender, in_force) = watch::channel(Arc::new(InForce { agreement, numbers }));
        let measure = Measure {
            leading: trial.leading.clone(),
            store: trial.store.clone(),
            clock: trial.clock.clone(),
            in_force,
            notices: no_notices(),
            presence: Presence::default(),
            agents: config.agents,
            patch: config.patch,
            progress: watch::Sender::new(Progress::default()).subscribe(),
            listening_since: NOON,
        };
        let leading = trial.leading.clone();
        let judge = Judge::start(trial.store.clone(), trial.clock.clone(), checks(), config.patch.term, leading).await;
        Self { trial, measure, judge: judge.expect("starts"), _in_force: sender }
    }

    /// The snapshot `secs` after noon.
    async fn at(&mut self, secs: i64) -> Snapshot {
        self.trial.clock.set(NOON.plus(Millis::from_secs(secs)));
        self.judge.activate().await.expect("judged");
        self.measure.activate(self.judge.live()).await.expect("measured")
    }

    async fn state(&mut self, secs: i64) -> State {
        self.at(secs).await.services[0].state
    }
}

fn no_notices() -> Notices {
    let (months, rechecked) = (watch::channel(Arc::default()).1, watch::channel(Arc::default()).1);
    Notices { months, rechecked }
}

fn at(secs: i64) -> UtcTime {
    NOON.plus(Millis::from_secs(secs))
}

#[tokio::test]
async fn a_service_is_up_then_down_with_its_cause_then_up_again() {
    let mut stage = Stage::new(1).await;
    assert_eq!(stage.state(0).await, State::Unknown, "nothing was heard");
    stage.trial.send(agent(1), &[up(0), up(10)]).await;
    assert_eq!(stage.state(11).await, State::Up);
    stage.trial.send(agent(1), &[down(20)]).await;
    let view = stage.at(21).await.services.remove(0);
    assert_eq!((view.state, view.since, view.because), (State::Down, Some(at(20)), vec!["web".to_owned()]));
    assert_eq!((view.outages[0].from, view.outages[0].to), (at(20), None));
    assert_eq!(view.checks[0].vantages[0].outcome, "refused");
    stage.trial.send(agent(1), &[up(30)]).await;
    let view = stage.at(31).await.services.remove(0);
    assert_eq!((view.state, view.since), (State::Up, Some(at(30))));
    assert_eq!((view.outages[0].to, view.outages[0].counted_ms), (Some(at(30)), Millis::from_secs(10)));
}

#[tokio::test]
async fn a_silence_after_up_is_unknown_and_after_down_still_down() {
    let mut stage = Stage::new(1).await;
    stage.trial.send(agent(1), &[up(0)]).await;
    assert_eq!(stage.state(20).await, State::Up, "a sample holds for two intervals and its timeout");
    assert_eq!(stage.state(22).await, State::Unknown);
    stage.trial.send(agent(1), &[down(30)]).await;
    let snapshot = stage.at(3_600).await;
    assert_eq!(snapshot.services[0].state, State::Down);
    assert_eq!(snapshot.services[0].checks[0].vantages[0].state, State::Down);
}

#[tokio::test]
async fn two_vantages_must_agree_when_the_quorum_says_so() {
    for (quorum, seen) in [(1, State::Down), (2, State::Unknown)] {
        let mut stage = Stage::new(quorum).await;
        stage.trial.send(agent(1), &[up(0)]).await;
        stage.trial.send(agent(2), &[down(0)]).await;
        assert_eq!(stage.state(1).await, seen, "quorum {quorum}");
        stage.trial.send(agent(1), &[down(10)]).await;
        assert_eq!(stage.state(11).await, State::Down, "quorum {quorum}");
    }
}

#[tokio::test]
async fn a_vantage_that_is_revoked_while_down_votes_no_longer() {
    let mut stage = Stage::new(1).await;
    stage.trial.send(agent(1), &[up(0), up(10)]).await;
    stage.trial.send(agent(2), &[up(0), down(10)]).await;
    assert_eq!(stage.state(11).await, State::Down);
    stage.trial.store.revoke(agent(2), at(12), "test").await.expect("revoked");
    stage.trial.send(agent(1), &[up(20)]).await;
    let view = stage.at(21).await.services.remove(0);
    assert_eq!(view.state, State::Up, "somebody else still sees it up");
    assert_eq!((view.outages[0].from, view.outages[0].to), (at(10), Some(at(10).plus(Millis(1)))));
    assert_eq!(view.checks[0].vantages[1].state, State::Unknown);
}

#[tokio::test]
async fn a_vantage_that_is_revoked_after_a_silence_within_an_outage_votes_no_longer_either() {
    let mut stage = Stage::new(1).await;
    stage.trial.send(agent(1), &[up(0)]).await;
    stage.trial.send(agent(2), &[down(0), down(600)]).await;
    stage.trial.store.revoke(agent(2), at(610), "test").await.expect("revoked");
    stage.trial.send(agent(1), &[up(610), up(620)]).await;
    assert_eq!(stage.state(621).await, State::Up);
}

#[tokio::test]
async fn revoking_the_only_vantage_does_not_make_a_service_better_than_it_was_seen() {
    let mut stage = Stage::new(1).await;
    stage.trial.send(agent(1), &[up(0), down(10)]).await;
    let before = stage.at(3_600).await.services.remove(0);
    stage.trial.store.revoke(agent(1), at(12), "test").await.expect("revoked");
    let after = stage.at(3_600).await.services.remove(0);
    assert_eq!((before.state, after.state), (State::Down, State::Unknown));
    assert_eq!(after.counted_down_ms, before.counted_down_ms, "unknown time is lost time in this contract");
}

#[tokio::test]
async fn an_outage_over_the_end_of_the_month_is_cut_there_and_goes_on() {
    let mut stage = Stage::new(1).await;
    // 2026-05-01T00:00:00+02:00 is 15 days and 12 hours after noon of April 15th.
    let month_end = 15 * 86_400 + 12 * 3_600;
    stage.trial.send(agent(1), &[up(month_end - 20), down(month_end - 10)]).await;
    let april = stage.at(month_end - 1).await.services.remove(0);
    assert_eq!((april.month.as_str(), april.outages[0].from), ("2026-04", at(month_end - 10)));
    stage.trial.send(agent(1), &[down(month_end), down(month_end + 10)]).await;
    let may = stage.at(month_end + 15).await.services.remove(0);
    assert_eq!((may.month.as_str(), may.state, may.counted_down_ms), ("2026-05", State::Down, Millis::from_secs(15)));
    assert_eq!((may.outages[0].from, may.outages[0].to), (at(month_end), None));
}

#[tokio::test]
async fn the_figure_of_a_snapshot_adds_up_to_the_month() {
    let mut stage = Stage::new(1).await;
    stage.trial.send(agent(1), &[up(0), down(10), up(20)]).await;
    let view = stage.at(25).await.services.remove(0);
    let ms = |key: &str| view.figure[key].as_i64().expect("a number");
    let parts = ["not_covered_ms", "out_of_window_ms", "holiday_ms", "excluded_ms", "up_ms", "down_ms", "unknown_ms"];
    assert_eq!(parts.map(ms).iter().sum::<i64>(), ms("month_ms"));
    assert_eq!((ms("up_ms"), ms("down_ms")), (15_000, 10_000));
}

#[tokio::test]
async fn an_agent_is_silent_when_it_was_not_heard_for_long_since_we_listen() {
    let mut stage = Stage::new(1).await;
    assert!(stage.at(90).await.hosts.iter().all(|host| !host.silent), "nobody was silent before we listened");
    assert!(stage.at(91).await.hosts.iter().all(|host| host.silent));
    let (session, _) = stage.measure.presence.enter(agent(1), at(100), 0);
    let silent = |snapshot: &Snapshot| snapshot.hosts.iter().map(|host| host.silent).collect::<Vec<_>>();
    assert_eq!(silent(&stage.at(390).await), [false, true]);
    assert_eq!(silent(&stage.at(401).await), [true, true], "connected and mute is no sign of life");
    session.heard(at(401));
    assert_eq!(silent(&stage.at(402).await), [false, true]);
    drop(session);
    assert_eq!(silent(&stage.at(491).await), [false, true]);
    assert_eq!(silent(&stage.at(492).await), [true, true]);
    stage.trial.store.revoke(agent(2), at(492), "test").await.expect("revoked");
    assert_eq!(silent(&stage.at(493).await), [true, false]);
}

#[tokio::test]
async fn unknown_time_is_no_certain_breach_while_its_records_may_still_come() {
    let mut stage = Stage::new(1).await;
    let certain = |snapshot: &Snapshot| snapshot.services[0].breach_certain;
    assert!(!certain(&stage.at(10).await), "just started: agents had no time to come back");
    stage.trial.send(agent(1), &[up(20)]).await;
    assert!(!certain(&stage.at(1_000).await), "the agent is away, its spool is not");
    let (session, _) = stage.measure.presence.enter(agent(1), at(1_000), 0);
    assert!(certain(&stage.at(1_001).await), "everybody is here and has nothing to tell");
    drop(session);
    assert!(certain(&stage.at(90_000).await), "after a day nobody waits any more");
}

#[tokio::test]
async fn seen_downtime_beyond_the_budget_is_a_certain_breach_at_once() {
    let mut stage = Stage::new(1).await;
    // 0.5 % of April is 3 h 36 min.
    stage.trial.send(agent(1), &[down(-4 * 3_600)]).await;
    assert!(stage.at(1).await.services[0].breach_certain);
}

#[tokio::test]
async fn f29_a_copied_agent_is_shown_for_a_day_after_it_was_seen_last_or_until_somebody_has_seen_to_it() {
    let mut stage = Stage::new(1).await;
    let store = stage.trial.store.clone();
    let day = 86_400;
    let shown = |snapshot: Snapshot| snapshot.hosts[0].copied.as_ref().map(|seen| seen.how.clone());
    assert_eq!(shown(stage.at(10).await), None);
    store.note_copied(agent(1), Copied::Rewound, at(20)).await.expect("noted");
    assert_eq!(shown(stage.at(30).await).as_deref(), Some("rewound"));
    store.note_copied(agent(1), Copied::Twin, at(40)).await.expect("noted");
    assert_eq!(shown(stage.at(40 + day).await).as_deref(), Some("twin"));
    assert_eq!(shown(stage.at(41 + day).await), None);
    store.note_copied(agent(1), Copied::Twin, at(50 + day)).await.expect("noted");
    store.accept_copied(agent(1), at(51 + day), "test").await.expect("accepted");
    assert_eq!(shown(stage.at(52 + day).await), None);
}

#[tokio::test]
async fn a_host_shows_its_patch_standing_and_its_energy_once() {
    let mut stage = Stage::new(1).await;
    stage.trial.send(agent(1), &[patch(0, &["ssl"]), energy(0, 60_000), energy(1, 60_000)]).await;
    let host = stage.at(120).await.hosts.remove(0);
    assert_eq!(host.patch.state, PatchState::Due);
    assert_eq!((host.energy.month_uj, host.energy.month_covered_s), (Microjoules(120_000), 120));
    assert_eq!(host.energy.power_mw, Some(1));
    let day = 86_400;
    assert_eq!(stage.at(3 * day).await.hosts[0].patch.state, PatchState::Unknown, "a stale report proves nothing");
    assert_eq!(
        stage.at(14 * day + 1).await.hosts[0].patch.state,
        PatchState::Overdue,
        "but what lacks goes on lacking"
    );
}

#[tokio::test]
async fn an_exclusion_counts_in_the_running_figure_once_another_person_approved_it() {
    use crate::contract::approval::{Deed, Proposal};
    use crate::contract::exclusion::ExclusionKind;
    let mut stage = Stage::new(1).await;
    stage.trial.send(agent(1), &[up(0), up(10), down(20), down(30), up(40)]).await;
    let down_ms = |snapshot: &Snapshot| snapshot.services[0].figure["down_ms"].as_i64();
    assert_eq!(down_ms(&stage.at(41).await), Some(20_000));
    let proposal = Proposal {
        id: "CHG-1".into(),
        service: "portal".into(),
        kind: ExclusionKind::Customer,
        span: Span::new(at(20), at(30)),
        announced_at: None,
        reason: "they pulled the plug".into(),
    };
    decisions::propose(&stage.trial.store, proposal, "anna", at(41)).await.expect("proposed");
    assert_eq!(down_ms(&stage.at(42).await), Some(20_000), "nobody approved it");
    decisions::act(&stage.trial.store, "CHG-1", Deed::Approve, "bert", at(43)).await.expect("approved");
    let snapshot = stage.at(44).await;
    assert_eq!(down_ms(&snapshot), Some(10_000));
    assert_eq!(snapshot.services[0].figure["excluded"][0]["counted_ms"], 10_000);
}

#[tokio::test]
async fn a_clause_that_was_applied_holds_from_its_date_in_the_running_figure() {
    let mut stage = Stage::new(1).await;
    let text = SERVICE.replace("QUORUM", "");
    let written = crate::agreement::read_files(&[("a.toml".into(), text.clone())]).expect("readable");
    let version =
        |written: &crate::agreement::Written, from: UtcTime, body: String| crate::store::objects::ObjectVersion {
            kind: written.kind.word().into(),
            name: written.name.clone(),
            valid_from: from,
            recorded_at: from,
            author: "anna".into(),
            reason: String::new(),
            body,
        };
    let mut versions: Vec<_> = written.iter().map(|w| version(w, UtcTime(i64::MIN), w.body.clone())).collect();
    // From a quarter of an hour after noon no time without evidence counts.
    let contract = &written[0];
    let lenient = contract.body.replace("\"name\"", "\"unknown\":\"excluded\",\"name\"");
    versions.push(version(contract, at(900), lenient));
    let agreement = Agreement::new(&Config::parse("c", "").expect("valid"), &versions).expect("makes sense");
    let numbers = BTreeMap::from([("web".to_owned(), CheckNo(1))]);
    stage._in_force.send_replace(Arc::new(InForce { agreement, numbers }));
    let half_past = stage.at(1_800).await.services.remove(0);
    let month_to_noon = NOON.since(Month::of(NOON, &half_past_zone()).first(&half_past_zone()));
    let agreed = half_past.figure["agreed_ms"].as_i64();
    assert_eq!(agreed, Some(month_to_noon.0 + 900_000), "the second quarter is out of the sum");
}

#[tokio::test]
async fn a_service_that_ended_keeps_its_figure_until_the_month_is_over_and_then_is_shown_no_more() {
    let mut stage = Stage::new(1).await;
    stage.trial.send(agent(1), &[up(0), up(10), down(20), down(30), up(40)]).await;
    let text = SERVICE.replace("QUORUM", "");
    let written = crate::agreement::read_files(&[("a.toml".into(), text)]).expect("readable");
    let goes_on = crate::apply::Missing::GoOn;
    let mut versions = Vec::new();
    for (tables, now) in [(&written[..], at(-60)), (&[], at(60))] {
        let end = crate::apply::Missing::End { reason: "sold".into() };
        let missing = if tables.is_empty() { &end } else { &goes_on };
        let plan = crate::apply::plan(tables, &versions, missing, "anna", now);
        versions.extend(plan.changes.into_iter().map(|change| change.version));
    }
    let agreement = Agreement::new(&Config::parse("c", "").expect("valid"), &versions).expect("makes sense");
    let numbers = BTreeMap::from([("web".to_owned(), CheckNo(1))]);
    stage._in_force.send_replace(Arc::new(InForce { agreement, numbers }));
    let ended = stage.at(1_800).await.services.remove(0);
    let month_to_noon = NOON.since(Month::of(NOON, &half_past_zone()).first(&half_past_zone()));
    assert_eq!(ended.figure["agreed_ms"].as_i64(), Some(month_to_noon.0 + 60_000), "nothing is agreed after its end");
    assert_eq!(ended.figure["down_ms"].as_i64(), Some(20_000), "what was seen until then is evidence");
    assert!(!ended.in_window);
    assert!(stage.at(16 * 86_400).await.services.is_empty());
}

fn half_past_zone() -> TimeZone {
    contract::calendar::zone("Europe/Amsterdam").expect("a zone")
}
