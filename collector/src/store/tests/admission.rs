//! Agents, tokens and the numbers of checks.

use peil_proto::ids::CheckNo;
use peil_proto::time::UtcTime;
use tokio::task::JoinSet;

use super::{agent, block, fresh, new_agent, on_both, register};
use crate::store::tokens::{NewToken, RedeemError, TokenRefusal};
use crate::store::{Store, StoreError};

on_both!(
    a_token_admits_one_agent_and_says_why_it_admits_no_other,
    an_agent_that_cannot_be_made_leaves_the_token_unused,
    nothing_is_taken_from_a_stranger_or_a_revoked_agent,
    last_contact_is_the_later_of_block_and_hello_and_never_moves_back,
);

fn token(no: u8) -> NewToken {
    NewToken {
        hash: [no; 32],
        label: "rack 4".to_owned(),
        group: "web".to_owned(),
        created_at: UtcTime(1_000),
        expires_at: UtcTime(2_000),
    }
}

fn refusal(redeemed: Result<(), RedeemError>) -> TokenRefusal {
    match redeemed {
        Err(RedeemError::Refused(refusal)) => refusal,
        other => panic!("not a refusal: {other:?}"),
    }
}

async fn a_token_admits_one_agent_and_says_why_it_admits_no_other(store: Store) {
    for no in 1..=3 {
        store.create_token(token(no), "root").await.unwrap();
    }
    store.revoke_token([3; 32], UtcTime(1_100), "root").await.unwrap();
    let redeem = |no, now, who| store.redeem_token([no; 32], UtcTime(now), new_agent(agent(who)));
    assert_eq!(refusal(redeem(9, 1_200, 1).await), TokenRefusal::Unknown);
    assert_eq!(refusal(redeem(2, 2_000, 1).await), TokenRefusal::Expired { at: UtcTime(2_000) });
    assert_eq!(refusal(redeem(3, 1_200, 1).await), TokenRefusal::Revoked { at: UtcTime(1_100) });
    assert!(!store.is_admitted(agent(1)).await.unwrap(), "a refusal admits nobody");
    redeem(1, 1_999, 1).await.unwrap();
    assert!(store.is_admitted(agent(1)).await.unwrap());
    assert_eq!(refusal(redeem(1, 2_500, 2).await), TokenRefusal::Used { at: UtcTime(1_999) });
    store.revoke_token([1; 32], UtcTime(3_000), "root").await.unwrap();
    let tokens = store.tokens().await.unwrap();
    let used = tokens.iter().find(|row| row.hash == [1; 32]).unwrap();
    assert_eq!((used.used, used.revoked_at), (Some((UtcTime(1_999), agent(1))), None));
    let unknown = store.revoke_token([9; 32], UtcTime(1), "root").await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
}

async fn an_agent_that_cannot_be_made_leaves_the_token_unused(store: Store) {
    register(&store, agent(1)).await;
    store.create_token(token(1), "root").await.unwrap();
    let taken = store.redeem_token([1; 32], UtcTime(1_500), new_agent(agent(1))).await;
    assert!(matches!(taken, Err(RedeemError::Store(StoreError::Write { .. }))), "{taken:?}");
    assert_eq!(store.tokens().await.unwrap()[0].used, None);
    store.redeem_token([1; 32], UtcTime(1_500), new_agent(agent(2))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_race_for_a_token_exactly_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    // Two handles with a writer each, as two processes would be.
    let stores = [Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap()];
    stores[0].create_token(token(1), "root").await.unwrap();
    let mut racers = JoinSet::new();
    for no in 1..=20_u8 {
        let store = stores[usize::from(no % 2)].clone();
        racers.spawn(async move { store.redeem_token([1; 32], UtcTime(1_500), new_agent(agent(no))).await });
    }
    let ends = racers.join_all().await;
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
    for end in ends.into_iter().filter(Result::is_err) {
        assert_eq!(refusal(end), TokenRefusal::Used { at: UtcTime(1_500) });
    }
    assert_eq!(stores[1].agents().await.unwrap().len(), 1);
}

async fn nothing_is_taken_from_a_stranger_or_a_revoked_agent(store: Store) {
    register(&store, agent(1)).await;
    store.append(block(agent(1), 1, 1, 1)).await.unwrap();
    store.revoke(agent(1), UtcTime(50), "anna").await.unwrap();
    store.revoke(agent(1), UtcTime(60), "bert").await.unwrap();
    for first in [1, 2] {
        let refused = store.append(block(agent(1), 1, first, 1)).await.unwrap_err();
        assert!(matches!(refused, StoreError::RevokedAgent { at: UtcTime(50), .. }) && refused.is_refusal());
    }
    let renewed = store.renewed(agent(1), "02", UtcTime(1)).await;
    assert!(matches!(renewed, Err(StoreError::RevokedAgent { .. })));
    for refused in [
        store.append(block(agent(2), 1, 1, 1)).await.map(drop),
        store.revoke(agent(2), UtcTime(1), "anna").await,
        store.renewed(agent(2), "02", UtcTime(1)).await,
    ] {
        assert!(matches!(refused, Err(StoreError::UnknownAgent(who)) if who == agent(2)), "{refused:?}");
    }
    assert!(!store.is_admitted(agent(1)).await.unwrap() && !store.is_admitted(agent(2)).await.unwrap());
    let revocations =
        store.audit_tail(10).await.unwrap().into_iter().filter(|entry| entry.what == "agent.revoke").count();
    assert_eq!(revocations, 1, "the second revocation did nothing, so it says nothing");
    assert_eq!(store.agents().await.unwrap()[0].revoked_at, Some(UtcTime(50)));
}

async fn last_contact_is_the_later_of_block_and_hello_and_never_moves_back(store: Store) {
    register(&store, agent(1)).await;
    let heard = async || store.agents().await.unwrap()[0].last_contact;
    assert_eq!(heard().await, None);
    store.touch_contact(vec![(agent(1), UtcTime(500)), (agent(9), UtcTime(1))]).await.unwrap();
    assert_eq!(heard().await, Some(UtcTime(500)));
    store.append(block(agent(1), 1, 3, 1)).await.unwrap();
    assert_eq!(heard().await, Some(UtcTime(3_000)), "the block came at second 3");
    store.touch_contact(vec![(agent(1), UtcTime(400)), (agent(1), UtcTime(900))]).await.unwrap();
    assert_eq!(heard().await, Some(UtcTime(3_000)));
    store.renewed(agent(1), "02", UtcTime(7)).await.unwrap();
    let row = store.agents().await.unwrap().remove(0);
    assert_eq!((row.cert_serial.as_str(), row.cert_not_after), ("02", UtcTime(7)));
}

#[tokio::test]
async fn a_check_keeps_its_number_for_ever_and_no_number_means_two_checks() {
    let (store, dir) = fresh();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let first = store.assign_checks(names(&["web", "db", "web"])).await.unwrap();
    assert_eq!(first.into_values().collect::<Vec<_>>(), [CheckNo(1), CheckNo(2)]);
    store.assign_checks(names(&["mail"])).await.unwrap();
    store.close().await;
    let store = Store::open(dir.path()).unwrap();
    let again = store.assign_checks(names(&["api", "mail", "web"])).await.unwrap();
    assert_eq!((again["api"], again["mail"], again["web"]), (CheckNo(4), CheckNo(3), CheckNo(2)));
    assert_eq!(store.check_names().await.unwrap()[&CheckNo(1)], "db");
    store
        .write("use up", |db| Ok(db.execute("INSERT INTO check_name VALUES (4294967295, 'last')", ())?))
        .await
        .unwrap();
    let none_left = store.assign_checks(names(&["one more"])).await;
    assert!(matches!(none_left, Err(StoreError::NoCheckNumbers)));
    assert_eq!(store.assign_checks(names(&["last"])).await.unwrap()["last"], CheckNo(u32::MAX));
}
