//! What is made again from the store is what the running collector says, and what it said then.

use std::sync::Arc;

use peil_proto::record::Record;
use peil_proto::summary::Summary;

use super::*;
use crate::agreement::Agreement;
use crate::config::Config;
use crate::contract::{evaluate, evaluate_to_date};
use crate::evaluate::output;
use crate::evaluate::sealed::Findings;
use crate::job::judge::Judge;
use crate::job::measure::{Measure, Notices};
use crate::job::progress::Progress;
use crate::job::trial::{CHECK, NOON, Trial, agent, down, energy, up};
use crate::presence::Presence;

const SERVICE: &str = "
[[contract]]
name = 'c'
[[check]]
name = 'web'
kind = 'tcp'
address = 'h:1'
interval_s = 10
timeout_s = 1
[[service]]
name = 'portal'
contract = 'c'
expression = 'web'
";

fn in_force() -> InForce {
    let config = Config::parse("c.toml", SERVICE).expect("valid");
    let agreement = Agreement::new(&config, &[]).expect("makes sense");
    InForce { agreement, numbers: BTreeMap::from([("web".to_owned(), CheckNo(1))]) }
}

const APRIL: Month = Month { year: 2026, month: 4 };

async fn judge(trial: &Trial) -> Judge {
    let checks = in_force().checks_to_fold();
    let leading = trial.leading.clone();
    Judge::start(trial.store.clone(), trial.clock.clone(), checks, Millis::DAY, leading).await.expect("starts")
}

/// The figure of the running month as the collector shows it, and made again from the store.
async fn both(trial: &Trial) -> (serde_json::Value, serde_json::Value) {
    let judge = judge(trial).await;
    let (_keep, in_force_now) = tokio::sync::watch::channel(Arc::new(in_force()));
    let config = Config::parse("c.toml", "").expect("valid");
    let measure = Measure {
        progress: tokio::sync::watch::channel(Progress::default()).1,
        leading: trial.leading.clone(),
        store: trial.store.clone(),
        clock: trial.clock.clone(),
        in_force: in_force_now,
        notices: Notices {
            months: tokio::sync::watch::channel(Arc::default()).1,
            rechecked: tokio::sync::watch::channel(Arc::default()).1,
        },
        presence: Presence::default(),
        agents: config.agents,
        patch: config.patch,
        listening_since: NOON,
    };
    let shown = measure.activate(judge.live()).await.expect("measured").services.remove(0).figure;
    let now = trial.clock.now();
    let (bundle, _) = month(&trial.store, &in_force(), "portal", APRIL, now).await.expect("read").expect("agreed");
    let zone = &bundle.dated.chapters[0].terms.timezone;
    (shown, output::to_value(&evaluate_to_date(&bundle.dated, now).figure, zone))
}

#[tokio::test]
async fn late_repeated_and_reordered_blocks_give_the_figure_that_is_shown() {
    let mut trial = Trial::new().await;
    // By (agent, generation of its spool): in order, late, on top of each other, silent while down.
    let script: [(u8, u64, Vec<Record>); 7] = [
        (1, 1, vec![up(0), up(10), down(20)]),
        (2, 1, vec![up(3), up(13)]),
        (1, 2, vec![down(300), up(310)]),
        (1, 3, vec![down(100), up(110), up(120), down(20)]),
        (2, 2, vec![down(200), down(210)]),
        (2, 3, vec![up(23), up(33), down(13)]),
        (1, 4, vec![up(500)]),
    ];
    for (no, epoch, records) in script {
        trial.send_in(agent(no), epoch, &records).await;
        trial.clock.set(NOON.plus(Millis::from_secs(600)));
        let (shown, again) = both(&trial).await;
        assert_eq!(shown, again, "after generation {epoch} of agent {no}");
    }
    trial.store.revoke(agent(2), trial.clock.now(), "test").await.expect("revoked");
    let (shown, again) = both(&trial).await;
    assert_eq!(shown, again, "a revoked vantage");
}

#[tokio::test]
async fn what_was_known_then_stays_what_it_was_and_late_blocks_are_another_input() {
    let mut trial = Trial::new().await;
    trial.send(agent(1), &[up(0), up(10)]).await;
    let then = NOON.plus(Millis::from_secs(60));
    trial.clock.set(then);
    judge(&trial).await;
    let made = |known_at| {
        let store = trial.store.clone();
        async move { month(&store, &in_force(), "portal", APRIL, known_at).await.expect("read").expect("agreed") }
    };
    let (before, blocks) = made(then).await;
    trial.clock.set(NOON.plus(Millis::HOUR));
    trial.send_in(agent(1), 2, &[down(20), up(40)]).await;
    judge(&trial).await;
    let made = |known_at| {
        let store = trial.store.clone();
        async move { month(&store, &in_force(), "portal", APRIL, known_at).await.expect("read").expect("agreed") }
    };
    let (as_then, as_then_blocks) = made(then).await;
    assert_eq!(Findings::of(&as_then, None), Findings::of(&before, None));
    assert_eq!((as_then_blocks, blocks.count), (blocks, 1));
    let (now, now_blocks) = made(trial.clock.now()).await;
    assert_eq!(now_blocks.count, 2);
    assert_ne!(now.inputs().evidence, before.inputs().evidence);
    assert_eq!(evaluate(&now.dated).down_ms, Millis::from_secs(20));
}

/// Days that are over become day blocks.
async fn compact(trial: &Trial) -> usize {
    judge(trial).await;
    trial.compact().await
}

async fn compaction_changes_nothing_about_a_month(mut trial: Trial) {
    // In order, across midnight, folded together by a full spool, with records that are no samples, late, doubled.
    let midnight = 14 * 3_600;
    let folded = Summary {
        check: CHECK,
        first: NOON.plus(Millis::from_secs(50)),
        step: Millis::from_secs(10),
        count: 3,
        code: 200,
        delay_max: Millis::ZERO,
        phases: Default::default(),
    };
    trial.send(agent(1), &[up(0), up(10), down(20), up(30), energy(1, 500)]).await;
    trial.send(agent(1), &[Record::Summary(folded), up(90)]).await;
    trial.send(agent(2), &[up(midnight - 5), down(midnight + 5), up(midnight + 15)]).await;
    trial.send_in(agent(2), 2, &[up(3), down(13)]).await;
    trial.send_in(agent(1), 2, &[down(40)]).await;
    let in_may = NOON.plus(Millis(20 * Millis::DAY.0));
    trial.clock.set(in_may);
    judge(&trial).await;
    let (before, blocks) =
        month(&trial.store, &in_force(), "portal", APRIL, in_may).await.expect("read").expect("agreed");
    assert_eq!(compact(&trial).await, 5);
    let (after, blocks_after) =
        month(&trial.store, &in_force(), "portal", APRIL, in_may).await.expect("read").expect("agreed");
    assert_eq!(after.to_text(), before.to_text());
    assert_eq!(blocks_after, blocks);
    assert_eq!(blocks.count, 6, "one block speaks about two days");
    assert_eq!(evaluate(&after.dated).unknown_ms, evaluate(&before.dated).unknown_ms);

    trial.send_in(agent(1), 3, &[down(60 * 60)]).await;
    judge(&trial).await;
    let late =
        || async { month(&trial.store, &in_force(), "portal", APRIL, in_may).await.expect("read").expect("agreed") };
    let (with_late, late_blocks) = late().await;
    assert_ne!(with_late.inputs().evidence, before.inputs().evidence);
    assert_eq!(compact(&trial).await, 1);
    let (compacted, compacted_blocks) = late().await;
    assert_eq!((compacted.to_text(), compacted_blocks), (with_late.to_text(), late_blocks));
    assert_eq!(late_blocks.count, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_changes_nothing_about_a_month_on_sqlite() {
    compaction_changes_nothing_about_a_month(Trial::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_changes_nothing_about_a_month_on_postgres() {
    compaction_changes_nothing_about_a_month(Trial::on_server().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_compacted_day_what_was_not_due_yet_was_not_known() {
    let mut trial = Trial::new().await;
    trial.send(agent(1), &[up(0), up(10), down(20), up(40)]).await;
    trial.clock.set(NOON.plus(Millis(2 * Millis::DAY.0)));
    assert_eq!(compact(&trial).await, 1);
    let then = NOON.plus(Millis::from_secs(15));
    let (as_then, _) = month(&trial.store, &in_force(), "portal", APRIL, then).await.expect("read").expect("agreed");
    assert_eq!(evaluate(&as_then.dated).down_ms, Millis::ZERO);
    let now = trial.clock.now();
    let (as_now, _) = month(&trial.store, &in_force(), "portal", APRIL, now).await.expect("read").expect("agreed");
    assert_eq!(evaluate(&as_now.dated).down_ms, Millis::from_secs(20));
}

#[tokio::test]
async fn samples_after_the_month_leave_its_digests_alone() {
    let mut trial = Trial::new().await;
    trial.send(agent(1), &[up(0), down(10), up(20)]).await;
    let in_may = NOON.plus(Millis(20 * Millis::DAY.0));
    trial.clock.set(in_may);
    judge(&trial).await;
    let inputs = |now| {
        let store = trial.store.clone();
        async move { month(&store, &in_force(), "portal", APRIL, now).await.expect("read").expect("agreed").0.inputs() }
    };
    let before = inputs(in_may).await;
    let secs = in_may.since(NOON).0 / 1_000;
    trial.send(agent(1), &[up(secs), down(secs + 10)]).await;
    judge(&trial).await;
    trial.store.revoke(agent(1), in_may, "test").await.expect("revoked");
    let inputs = |now| {
        let store = trial.store.clone();
        async move { month(&store, &in_force(), "portal", APRIL, now).await.expect("read").expect("agreed").0.inputs() }
    };
    assert_eq!(inputs(in_may.plus(Millis::HOUR)).await, before);
}
