//! Who may write what is derived, when several collectors share a database.

use peil_proto::time::UtcTime;

use super::{agent, block, collector, fresh, fresh_on_server, holder, on_both, register};
use crate::store::blocks::{BlockId, Lane, Through};
use crate::store::judgement::Judgement;
use crate::store::leases::{Duty, Held};
use crate::store::{Store, StoreError};

on_both!(
    what_was_held_before_a_restart_is_taken_over_at_once_and_the_earlier_start_can_write_nothing_more,
    a_collector_that_leaves_frees_what_it_held,
);

fn judgement(lane: u16, no: i64) -> Judgement {
    Judgement { through: Through::from_iter([BlockId { lane: Lane(lane), no }]), ..Judgement::default() }
}

async fn tend(store: &Store, id: &str, start: u32) -> Held {
    store.tend_leases(holder(id, start), collector(id)).await.unwrap().held
}

async fn what_was_held_before_a_restart_is_taken_over_at_once_and_the_earlier_start_can_write_nothing_more(
    store: Store,
) {
    let before = tend(&store, "a", 1).await;
    store.commit_judgement(judgement(0, 5), before.clone()).await.unwrap();
    let after = tend(&store, "a", 2).await;
    assert_eq!(after.len(), before.len());
    assert!(after.epoch(Duty::Alerts) > before.epoch(Duty::Alerts), "the epoch rises");
    let refused = store.commit_judgement(judgement(0, 9), before.clone()).await.unwrap_err();
    assert!(matches!(&refused, StoreError::LeaseLost { name } if name == "lane/000"), "{refused:?}");
    let refused = store.apply_alerts(vec![], vec![], before).await.unwrap_err();
    assert!(matches!(refused, StoreError::LeaseLost { .. }), "{refused:?}");
    assert_eq!(store.judged_through().await.unwrap().blocks(), 5, "nothing of it is there");
    store.commit_judgement(judgement(0, 9), after).await.unwrap();
}

async fn a_collector_that_leaves_frees_what_it_held(store: Store) {
    let gone = tend(&store, "a", 1).await;
    store.leave(holder("a", 1)).await.unwrap();
    let (leases, here) = store.leases().await.unwrap();
    assert!(here.is_empty() && leases.iter().all(|lease| lease.over));
    assert_eq!(tend(&store, "b", 1).await.len(), gone.len());
    assert!(matches!(store.commit_judgement(judgement(0, 1), gone).await, Err(StoreError::LeaseLost { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_collectors_share_the_lanes_and_both_come_to_the_same_answer() {
    let store = fresh_on_server();
    let alone = tend(&store, "a", 1).await;
    assert_eq!(alone.len(), 257, "256 lanes and the alerts");
    assert!(tend(&store, "b", 1).await.is_empty(), "nothing is free yet");
    let kept = tend(&store, "a", 1).await;
    let taken = tend(&store, "b", 1).await;
    assert_eq!(kept.len() + taken.len(), 257);
    assert!((90..=170).contains(&taken.len()), "about half: {}", taken.len());
    for lane in (0..256).map(|lane| Duty::Lane(Lane(lane))) {
        assert!(kept.epoch(lane).is_some() != taken.epoch(lane).is_some(), "{lane:?} has one holder");
    }
    let lost = (0..256).find(|lane| taken.epoch(Duty::Lane(Lane(*lane))).is_some()).unwrap();
    assert!(matches!(store.commit_judgement(judgement(lost, 1), alone).await, Err(StoreError::LeaseLost { .. })));
    store.commit_judgement(judgement(lost, 1), taken).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_under_a_lease_and_the_loss_of_the_lease_never_both_come_to_pass() {
    let store = fresh_on_server();
    for round in 0..20 {
        let held = tend(&store, "a", round).await;
        // Another start of the same collector takes everything over while the write is on its way.
        let (written, took) = tokio::join!(
            store.commit_judgement(judgement(7, i64::from(round) + 1), held),
            tend(&store, "a", round + 100)
        );
        let through = store.judged_through().await.unwrap().of(Lane(7));
        match written {
            Ok(()) => assert_eq!(through, i64::from(round) + 1),
            Err(StoreError::LeaseLost { .. }) => assert!(through <= i64::from(round)),
            Err(other) => panic!("{other:?}"),
        }
        assert_eq!(took.len(), 257);
    }
}

#[tokio::test]
async fn a_revoked_agent_is_refused_also_by_a_collector_that_did_not_hear_of_it() {
    let store = fresh_on_server();
    register(&store, agent(1)).await;
    store.append(block(agent(1), 1, 1, 3)).await.unwrap();
    store.revoke(agent(1), UtcTime(9), "test").await.unwrap();
    assert!(matches!(store.append(block(agent(1), 1, 4, 3)).await, Err(StoreError::RevokedAgent { .. })));
}

#[tokio::test]
async fn an_embedded_store_has_one_lane_and_whoever_opens_it_second_finds_it_held() {
    let (store, _dir) = fresh();
    assert_eq!(tend(&store, "a", 1).await.len(), 2);
    assert!(tend(&store, "b", 1).await.is_empty());
    assert!(!store.is_shared());
}
