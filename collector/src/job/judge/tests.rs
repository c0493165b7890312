//! Memory and store are what the blocks say: after a restart, whatever the order, and to the microjoule.

use peil_proto::sample::State;
use peil_proto::summary::Summary;
use peil_proto::units::Microjoules;

use super::*;
use crate::contract::track::Track;
use crate::job::trial::{CHECK, NOON, Trial, agent, checks, collector, down, energy, patch, up};
use crate::store::leases::Holder;
use crate::store::patches::FindingRow;

const TERM: Millis = Millis(14 * Millis::DAY.0);

async fn judge(trial: &Trial) -> Judge {
    Judge::start(trial.store.clone(), trial.clock.clone(), checks(), TERM, trial.leading.clone()).await.expect("starts")
}

fn track(judge: &Judge, no: u8) -> Track {
    let (_, vantage) = judge.live().vantages_of(CHECK).find(|(from, _)| *from == agent(no)).expect("a vantage");
    vantage.track.clone()
}

async fn stored_energy(trial: &Trial) -> Vec<(i64, Microjoules)> {
    let rows = trial.store.energy_hours(UtcTime(i64::MIN)).await.expect("read");
    rows.into_iter().map(|row| (row.hour.since(NOON).0 / Millis::HOUR.0, row.energy)).collect()
}

async fn open_findings(trial: &Trial) -> Vec<FindingRow> {
    trial.store.open_findings().await.expect("read")
}

#[tokio::test]
async fn a_restart_gives_the_state_that_was_there() {
    let mut trial = Trial::new().await;
    let mut running = judge(&trial).await;
    for n in 0..5 {
        let lacking: &[&str] = if n % 2 == 0 { &["ssl"] } else { &["ssl", "zlib"] };
        let records = [up(n * 20), down(n * 20 + 10), energy(n, 1_000), patch(n, lacking)];
        trial.send(agent(1), &records).await;
        running.activate().await.expect("judged");
    }
    let restarted = judge(&trial).await;
    assert_eq!(track(&restarted, 1), track(&running, 1));
    let (one, other) = (running.live().host(agent(1)), restarted.live().host(agent(1)));
    let (one, other) = (one.expect("a host"), other.expect("a host"));
    assert_eq!((&one.hours, &one.findings), (&other.hours, &other.findings));
    assert_eq!((&one.patch, &one.reading), (&other.patch, &other.reading));
    assert_eq!(restarted.cursor, running.cursor);
}

#[tokio::test]
async fn energy_is_neither_doubled_nor_lost_by_a_restart() {
    let mut trial = Trial::new().await;
    trial.send(agent(1), &[energy(0, 100), energy(1, 100)]).await;
    drop(judge(&trial).await);
    let mut again = judge(&trial).await;
    trial.send(agent(1), &[energy(2, 100)]).await;
    again.activate().await.expect("judged");
    drop(judge(&trial).await);
    assert_eq!(stored_energy(&trial).await, [(0, Microjoules(300))]);
}

#[tokio::test]
async fn energy_that_comes_after_its_hour_was_forgotten_is_added_to_what_is_stored() {
    let mut trial = Trial::new().await;
    let mut running = judge(&trial).await;
    trial.send(agent(1), &[energy(0, 100), energy(60, 7)]).await;
    running.activate().await.expect("judged");
    trial.clock.set(NOON.plus(Millis(70 * Millis::DAY.0)));
    running.activate().await.expect("judged, and the hour forgotten");
    assert_eq!(running.live().host(agent(1)).map(|host| host.hours.len()), Some(0));
    trial.send(agent(1), &[energy(1, 50)]).await;
    running.activate().await.expect("judged");
    assert_eq!(stored_energy(&trial).await, [(0, Microjoules(150)), (1, Microjoules(7))]);
    let mut restarted = judge(&trial).await;
    trial.send(agent(1), &[energy(2, 25)]).await;
    restarted.activate().await.expect("judged");
    assert_eq!(stored_energy(&trial).await, [(0, Microjoules(175)), (1, Microjoules(7))]);
}

#[tokio::test]
async fn blocks_about_long_ago_that_came_while_nobody_judged_are_judged_at_the_start() {
    let mut trial = Trial::new().await;
    trial.send(agent(1), &[energy(0, 100), patch(0, &["ssl"])]).await;
    trial.clock.set(NOON.plus(Millis(70 * Millis::DAY.0)));
    trial.send(agent(2), &[up(70 * 86_400)]).await;
    let judge = judge(&trial).await;
    assert_eq!(stored_energy(&trial).await, [(0, Microjoules(100))]);
    assert_eq!(open_findings(&trial).await.len(), 1);
    assert_eq!(trial.store.judged_through().await.expect("read"), judge.cursor);
}

#[tokio::test]
async fn the_clock_of_a_finding_goes_on_over_a_restart() {
    let mut trial = Trial::new().await;
    trial.send(agent(1), &[patch(0, &["ssl", "zlib"])]).await;
    drop(judge(&trial).await);
    trial.send(agent(1), &[patch(3, &["ssl"])]).await;
    drop(judge(&trial).await);
    drop(judge(&trial).await);
    let open = open_findings(&trial).await;
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].package.as_str(), open[0].first_seen, open[0].due_at), ("ssl", NOON, NOON.plus(TERM)));
    assert_eq!(open[0].last_seen, NOON.plus(Millis(3 * Millis::DAY.0)));
    let all = trial.store.findings_of(agent(1)).await.expect("read");
    assert_eq!(all.iter().filter(|row| row.closed_at.is_some()).count(), 1, "the mended one is closed once");
}

#[tokio::test]
async fn late_samples_give_the_same_track_as_samples_in_order() {
    let mut trial = Trial::new().await;
    let mut running = judge(&trial).await;
    trial.send_in(agent(1), 1, &[up(0), up(40), up(50)]).await;
    trial.send_in(agent(1), 2, &[up(10), down(20), down(30)]).await;
    trial.send_in(agent(2), 1, &[up(0), up(10), down(20), down(30), up(40), up(50)]).await;
    running.activate().await.expect("judged");
    assert_eq!(track(&running, 1), track(&running, 2), "in the round that met them");
    assert_eq!(track(&judge(&trial).await, 1), track(&running, 2), "and so after a restart");
}

#[tokio::test]
async fn a_late_failure_in_a_quiet_time_is_in_the_track_after_the_round_that_met_it() {
    let mut trial = Trial::new().await;
    let mut running = judge(&trial).await;
    let quiet: Vec<_> = (0..60).map(|n| up(n * 10)).collect();
    trial.send_in(agent(1), 1, &quiet).await;
    trial.send_in(agent(2), 1, &quiet).await;
    running.activate().await.expect("judged");
    trial.send_in(agent(1), 2, &[down(305), up(315)]).await;
    running.activate().await.expect("judged");
    let (mut all, late) = (quiet, [down(305), up(315)]);
    all.splice(31..31, late);
    let samples: Vec<_> = all.iter().filter_map(due).collect();
    assert_eq!(track(&running, 1), Track::of_samples(Millis(21_000), &samples));
    assert_ne!(track(&running, 2), track(&running, 1), "nobody else is touched");
    assert_eq!(track(&judge(&trial).await, 1), track(&running, 1), "and so after a restart");
}

/// What was folded together by a full spool is in the ledger of its day, not among the samples.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_failure_among_folded_ticks_of_a_compacted_day_is_put_between_them() {
    let mut trial = Trial::new().await;
    let mut running = judge(&trial).await;
    let folded = Summary {
        check: CHECK,
        first: NOON.plus(Millis::from_secs(10)),
        step: Millis::from_secs(10),
        count: 8,
        code: 0,
        delay_max: Millis::ZERO,
        phases: Default::default(),
    };
    trial.send_in(agent(1), 1, &[up(0), Record::Summary(folded), up(90)]).await;
    trial.clock.set(NOON.plus(Millis(3 * Millis::DAY.0)));
    running.activate().await.expect("judged");
    assert_eq!(trial.compact().await, 1);
    trial.send_in(agent(1), 2, &[down(45)]).await;
    running.activate().await.expect("judged");
    let mut samples: Vec<_> = (0..10).filter_map(|n| due(&up(n * 10))).collect();
    samples.extend(due(&down(45)));
    assert_eq!(track(&running, 1), Track::of_samples(Millis(21_000), &samples));
}

#[tokio::test]
async fn only_late_blocks_about_an_earlier_month_are_news_about_the_past() {
    let mut trial = Trial::new().await;
    let mut running = judge(&trial).await;
    let last_month = -16 * 86_400;
    trial.send(agent(1), &[up(0), up(10)]).await;
    trial.send_in(agent(1), 2, &[up(-3_600)]).await;
    running.activate().await.expect("judged");
    assert!(!running.take_past_changed(), "an hour late, in this month");
    trial.send_in(agent(1), 3, &[down(last_month)]).await;
    running.activate().await.expect("judged");
    assert!(running.take_past_changed());
    assert!(!running.take_past_changed(), "told once");
}

fn due(record: &Record) -> Option<(UtcTime, State)> {
    match record {
        Record::Sample(sample) => Some((sample.scheduled_at, sample.outcome.state())),
        _ => None,
    }
}

#[tokio::test]
async fn a_clock_that_was_ahead_for_a_while_costs_nothing() {
    let mut trial = Trial::new().await;
    let mut running = judge(&trial).await;
    trial.send(agent(1), &[up(0), down(10), up(20), up(30), energy(0, 100)]).await;
    running.activate().await.expect("judged");
    let before = track(&running, 1);
    trial.clock.set(NOON.plus(Millis(4_000 * Millis::DAY.0)));
    running.activate().await.expect("judged");
    assert_ne!(track(&running, 1), before, "forgotten, as it should be ten years later");
    trial.clock.set(NOON.plus(Millis::SECOND));
    running.activate().await.expect("judged");
    assert_eq!(track(&running, 1), before);
    assert_eq!(running.live().host(agent(1)).map(|host| host.hours.len()), Some(1));
}

#[tokio::test]
async fn a_damaged_block_is_passed_over_and_the_rest_is_judged() {
    let mut trial = Trial::new().await;
    let mut running = judge(&trial).await;
    trial.send(agent(1), &[up(0)]).await;
    let first = trial.next_seq(agent(1));
    trial.send_bytes(agent(1), 1, first, &[up(10)], b"not a block".to_vec()).await;
    trial.send(agent(1), &[up(20)]).await;
    running.activate().await.expect("judged");
    assert_eq!(track(&running, 1).newest(), Some((NOON.plus(Millis::from_secs(20)), State::Up)));
    assert_eq!(track(&judge(&trial).await, 1), track(&running, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_collector_left_unwritten_the_next_one_writes_and_nothing_twice() {
    let mut trial = Trial::on_server().await;
    let start = async |trial: &Trial, leading| {
        Judge::start(trial.store.clone(), trial.clock.clone(), checks(), TERM, leading).await.expect("starts")
    };
    let mut one = start(&trial, trial.leading.clone()).await;
    trial.send(agent(1), &[up(0), energy(0, 100), patch(0, &["ssl", "zlib"])]).await;
    one.activate().await.expect("judged");
    // Another collector comes while the first holds everything: it follows, and writes nothing.
    let (mut lead, leading) = collector(&trial.store, "next").await;
    assert!(leading.borrow().held.is_empty());
    let mut next = start(&trial, leading.clone()).await;
    trial.send(agent(1), &[energy(1, 100), patch(1, &["ssl"])]).await;
    trial.send(agent(2), &[energy(0, 50), patch(1, &["curl"])]).await;
    let before = trial.store.judged_through().await.expect("read");
    next.activate().await.expect("followed");
    assert_eq!(trial.store.judged_through().await.expect("read"), before, "it is not its to write");
    assert_eq!(open_findings(&trial).await.len(), 2);
    // The first one goes without having judged that; the second takes over and writes it.
    trial.store.leave(Holder { id: "only".into(), start: "1".into() }).await.expect("left");
    lead.tend().await.expect("tended");
    next.activate().await.expect("judged");
    let names = |rows: Vec<FindingRow>| rows.into_iter().map(|row| row.package).collect::<Vec<_>>();
    assert_eq!(names(open_findings(&trial).await), ["ssl", "curl"]);
    assert_eq!(stored_energy(&trial).await, [(0, Microjoules(200)), (0, Microjoules(50))]);
    // The first one, awake again, is refused, and what it believes does not reach the store.
    trial.send(agent(1), &[energy(2, 100)]).await;
    one.activate().await.expect("told that its lanes are gone");
    assert_eq!(stored_energy(&trial).await, [(0, Microjoules(200)), (0, Microjoules(50))]);
    next.activate().await.expect("judged");
    assert_eq!(stored_energy(&trial).await, [(0, Microjoules(300)), (0, Microjoules(50))]);
    assert_eq!(track_of(&next), track_of(&start(&trial, leading).await), "memory is what the blocks say");
}

fn track_of(judge: &Judge) -> Vec<(AgentId, Track)> {
    judge.live().vantages_of(CHECK).map(|(agent, vantage)| (agent, vantage.track.clone())).collect()
}
