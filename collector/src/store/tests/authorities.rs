//! Which authority is in force, and that nobody is cut off by oversight.

use peil_proto::time::UtcTime;
use peil_proto::token::CaFingerprint;

use super::{agent, on_both, register};
use crate::store::authorities::Named;
use crate::store::{Store, StoreError};

on_both!(an_authority_gives_way_only_when_nobody_else_than_agreed_is_cut_off);

const OLD: CaFingerprint = CaFingerprint([1; 32]);
const NEXT: CaFingerprint = CaFingerprint([2; 32]);

async fn an_authority_gives_way_only_when_nobody_else_than_agreed_is_cut_off(store: Store) {
    assert_eq!(store.authorities().await.unwrap(), None);
    assert_eq!(store.settle_authority(OLD).await.unwrap(), OLD);
    assert_eq!(store.settle_authority(NEXT).await.unwrap(), OLD, "the first one stands");
    for no in 1..=3 {
        register(&store, agent(no)).await;
    }
    let named = Named { in_force: OLD, next: Some(NEXT) };
    let retire = |cut_off: &[u8]| {
        let cut_off = cut_off.iter().map(|no| agent(*no)).collect();
        store.retire_authority(named, cut_off, UtcTime(9), "root")
    };
    assert!(matches!(retire(&[1, 2, 3]).await, Err(StoreError::Overtaken)), "nothing to give way to");
    store.begin_rotation(NEXT, UtcTime(5), "root").await.unwrap();
    let again = store.begin_rotation(CaFingerprint([3; 32]), UtcTime(6), "root").await;
    assert!(matches!(again, Err(StoreError::Overtaken)), "{again:?}");
    assert_eq!(store.authorities().await.unwrap(), Some(named));

    store.note_authority(agent(1), NEXT).await.unwrap();
    store.note_authority(agent(2), OLD).await.unwrap();
    store.revoke(agent(3), UtcTime(7), "root").await.unwrap();
    assert!(matches!(retire(&[]).await, Err(StoreError::Overtaken)), "agent 2 would be cut off");
    retire(&[2]).await.unwrap();
    assert_eq!(store.authorities().await.unwrap(), Some(Named { in_force: NEXT, next: None }));
    assert!(matches!(retire(&[2]).await, Err(StoreError::Overtaken)), "once is enough");
    store.forget_authorities(UtcTime(10), "root").await.unwrap();
    assert_eq!(store.authorities().await.unwrap(), None);
    let log = store.audit_tail(10).await.unwrap();
    assert!(["ca.rotate", "ca.retire", "ca.forget"].iter().all(|what| log.iter().any(|entry| entry.what == *what)));
}
