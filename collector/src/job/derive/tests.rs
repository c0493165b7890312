//! Hours follow from blocks, late ones too, and running twice changes nothing.

use peil_proto::units::Millis;

use super::super::trial::{NOON, Trial, agent, down, energy, up};
use super::*;
use crate::store::latency::Tally;

fn derive(trial: &Trial) -> Derive {
    Derive {
        store: trial.store.clone(),
        clock: trial.clock.clone(),
        leading: trial.leading.clone(),
        progress: Tell::default(),
    }
}

async fn hours(trial: &Trial) -> Vec<(AgentId, UtcTime, Tally)> {
    let rows = trial.store.latency_hours(None, UtcTime(0), UtcTime(i64::MAX)).await.expect("read");
    rows.into_iter().map(|row| (row.agent, row.hour, row.tally)).collect()
}

fn tally(up: u64, failed: u64) -> Tally {
    Tally { up, failed, not_run: 0, held: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_is_derived_when_it_is_over_and_again_when_something_late_comes() {
    let mut trial = Trial::new().await;
    let derive = derive(&trial);
    trial.send(agent(1), &[up(0), down(60), up(3_599)]).await;
    trial.send(agent(1), &[up(3_600)]).await;
    trial.send(agent(2), &[up(10), energy(0, 5)]).await;
    derive.activate().await.expect("derived");
    assert_eq!(hours(&trial).await, [], "the hour is not over");
    assert_eq!(trial.store.dirty_count().await.expect("counted"), 3);

    trial.clock.set(NOON.plus(Millis(Millis::HOUR.0 + SETTLE.0)));
    derive.activate().await.expect("derived");
    let first = [(agent(1), NOON, tally(2, 1)), (agent(2), NOON, tally(1, 0))];
    assert_eq!(hours(&trial).await, first);
    derive.activate().await.expect("derived");
    assert_eq!(hours(&trial).await, first, "twice is harmless");
    assert_eq!(trial.store.dirty_count().await.expect("counted"), 1);

    trial.send_in(agent(1), 2, &[down(120)]).await;
    derive.activate().await.expect("derived");
    assert_eq!(hours(&trial).await[0], (agent(1), NOON, tally(2, 2)), "overwritten, not added to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_collector_goes_on_from_the_marks_that_are_written() {
    let mut trial = Trial::on_server().await;
    trial.send(agent(1), &[up(0), up(10)]).await;
    derive(&trial).mark(&trial.leading.borrow().held.clone()).await.expect("marked");
    trial.clock.set(NOON.plus(Millis(2 * Millis::HOUR.0)));
    derive(&trial).activate().await.expect("derived");
    assert_eq!(hours(&trial).await, [(agent(1), NOON, tally(2, 0))]);
}
