//! What is stored follows from the blocks, or it is told and can be mended.

use super::super::judge::Judge;
use super::super::trial::{self, CHECK, NOON, Trial, agent, checks, down, in_force, in_force_every};
use peil_proto::record::Record;
use peil_proto::sample::{Phases, Sample};
use peil_proto::units::Micros;

use super::*;
use crate::store::latency::DerivedDays;

/// A success that took a millisecond.
fn up(secs: i64) -> Record {
    match trial::up(secs) {
        Record::Sample(sample) => {
            let phases = Phases { connect: Some(Micros(1_000)), ..Phases::default() };
            Record::Sample(Sample { phases, ..sample })
        }
        other => other,
    }
}

/// Three days of one agent, judged, derived and compacted.
async fn days(trial: &mut Trial, progress: &Tell) {
    for day in 0..3 {
        let start = day * 86_400;
        trial.send(agent(1), &[up(start), up(start + 60), down(start + 120), up(start + 3_700)]).await;
    }
    trial.clock.set(NOON.plus(Millis(5 * Millis::DAY.0)));
    let (store, clock, leading) = (trial.store.clone(), trial.clock.clone(), trial.leading.clone());
    Judge::start(store, clock, checks(), Millis::DAY, leading).await.expect("judges");
    let derive = trial.derive(progress);
    derive.activate().await.expect("derived");
    trial.compaction(progress).activate().await.expect("compacts");
    derive.tell().await.expect("told");
}

fn nightly(trial: &Trial, progress: &Tell) -> Nightly {
    let kept = Kind::ALL.map(|kind| (kind, Millis(100 * Millis::DAY.0))).into();
    Nightly {
        verify: Verify { store: trial.store.clone(), in_force: in_force(), kept },
        clock: trial.clock.clone(),
        leading: trial.leading.clone(),
        progress: progress.clone(),
    }
}

fn verified(progress: &Tell) -> Verified {
    progress.borrow().verified.clone().expect("verified")
}

/// Somebody took the states and times of a day away.
async fn damage(trial: &Trial) {
    let day = NOON.day();
    let nothing = DerivedDays { days: vec![day], ..DerivedDays::default() };
    assert!(trial.store.repair_day((agent(1), day, 1), nothing, vec![]).await.expect("written"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_follows_from_the_blocks_also_under_another_rhythm() {
    let (mut trial, progress) = (Trial::new().await, Tell::default());
    days(&mut trial, &progress).await;
    let mut nightly = nightly(&trial, &progress);
    nightly.verify.in_force = in_force_every(300);
    nightly.activate().await.expect("verified");
    assert_eq!(verified(&progress), Verified { at: trial.clock.now(), days: 3, differences: 0, first: String::new() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_does_not_follow_is_told_in_words_and_can_be_mended() {
    let (mut trial, progress) = (Trial::new().await, Tell::default());
    days(&mut trial, &progress).await;
    damage(&trial).await;
    let nightly = nightly(&trial, &progress);
    nightly.activate().await.expect("verified");
    let found = verified(&progress);
    assert!(found.differences >= 4, "two hours, the day, and the month that is more than its days: {found:?}");
    assert!(found.first.contains("hour from 2026-04-15T10:00:00Z: nothing is stored"), "{}", found.first);

    let now = trial.clock.now();
    let checked = nightly.verify.day(agent(1), NOON.day(), now).await.expect("read").expect("settled");
    assert!(nightly.verify.repair(agent(1), NOON.day(), checked).await.expect("written"));
    trial.clock.set(now.plus(Millis::DAY));
    nightly.activate().await.expect("verified");
    assert_eq!(verified(&progress).differences, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_still_changes_by_itself_or_may_be_gone_is_no_difference() {
    let (mut trial, progress) = (Trial::new().await, Tell::default());
    days(&mut trial, &progress).await;
    damage(&trial).await;
    let mut nightly = nightly(&trial, &progress);
    let now = trial.clock.now();
    nightly.verify.kept = Kind::ALL.map(|kind| (kind, Millis(2 * Millis::DAY.0))).into();
    let old = nightly.verify.day(agent(1), NOON.day(), now).await.expect("read").expect("nothing is missed");
    assert_eq!(old.differences, vec![]);

    nightly.verify.kept.clear();
    trial.send_in(agent(1), 2, &[down(180)]).await;
    assert!(nightly.verify.day(agent(1), NOON.day(), now).await.expect("read").is_none(), "a late block waits");
    assert!(nightly.verify.day(agent(1), NOON.day().next(), now).await.expect("read").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_times_of_the_month_are_told_from_days_and_hours() {
    let (mut trial, progress) = (Trial::new().await, Tell::default());
    days(&mut trial, &progress).await;
    assert_eq!(progress.borrow().times[&CHECK].count, 9);
    trial.send(agent(2), &[up(4 * 86_400), up(4 * 86_400 + 30)]).await;
    let derive = trial.derive(&progress);
    derive.activate().await.expect("derived");
    derive.tell().await.expect("told");
    assert_eq!(progress.borrow().times[&CHECK].count, 11, "a day that is not compacted counts by its hours");
}
