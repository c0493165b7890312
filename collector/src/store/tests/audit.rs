//! The chain holds, and any change to it shows.

use peil_proto::time::UtcTime;
use tokio::task::JoinSet;

use super::{agent, fresh, on_both, register};
use crate::store::Store;
use crate::store::audit::{AuditVerdict, ChainFault};
use crate::store::db::Connection;

on_both!(a_cut_off_end_shows_in_the_head_that_was_noted, the_database_refuses_to_rewrite_or_shorten_the_log,);

/// A log of six entries, opened to somebody who has the file and knows SQL.
async fn tampered(sql: &'static str) -> AuditVerdict {
    let (store, _dir) = fresh();
    for no in 1..=6 {
        store.audit(UtcTime(no), "anna", "report.issue", &format!("2026-0{no}")).await.unwrap();
    }
    assert!(matches!(store.audit_verify().await.unwrap(), AuditVerdict::Whole { entries: 6, .. }));
    let tamper = move |db: &Connection| {
        db.execute_batch("DROP TRIGGER audit_is_not_rewritten; DROP TRIGGER audit_is_not_shortened")?;
        Ok(db.execute_batch(sql)?)
    };
    store.write("tamper", tamper).await.unwrap();
    store.audit_verify().await.unwrap()
}

#[tokio::test]
async fn every_change_to_the_log_is_found_where_it_was_made() {
    let swap = "UPDATE audit SET seq = -1 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 3;
                UPDATE audit SET seq = 3 WHERE seq = -1";
    for (sql, seq, fault) in [
        ("UPDATE audit SET detail = '2026-01' WHERE seq = 4", 4, ChainFault::Changed),
        ("UPDATE audit SET at = at + 1 WHERE seq = 6", 6, ChainFault::Changed),
        ("UPDATE audit SET who = 'ann', what = 'areport.issue' WHERE seq = 3", 3, ChainFault::Changed),
        ("DELETE FROM audit WHERE seq = 3", 4, ChainFault::Missing),
        ("DELETE FROM audit WHERE seq = 1", 2, ChainFault::Missing),
        ("UPDATE audit SET previous = zeroblob(32) WHERE seq = 5", 5, ChainFault::Previous),
        ("UPDATE audit SET hash = zeroblob(32) WHERE seq = 2", 2, ChainFault::Changed),
        (swap, 2, ChainFault::Previous),
    ] {
        assert_eq!(tampered(sql).await, AuditVerdict::Broken { seq, fault }, "{sql}");
    }
}

async fn a_cut_off_end_shows_in_the_head_that_was_noted(store: Store) {
    assert_eq!(store.audit_verify().await.unwrap(), AuditVerdict::Whole { entries: 0, head: [0; 32] });
    store.audit(UtcTime(1), "anna", "login", "").await.unwrap();
    let AuditVerdict::Whole { entries: 1, head } = store.audit_verify().await.unwrap() else { panic!("not whole") };
    store.audit(UtcTime(1), "anna", "login", "").await.unwrap();
    let tail = store.audit_tail(10).await.unwrap();
    assert_eq!((tail.len(), tail[0].previous, tail[1].hash), (2, head, head));
    assert_ne!(tail[0].hash, head, "the same words at another place have another hash");
}

async fn the_database_refuses_to_rewrite_or_shorten_the_log(store: Store) {
    store.audit(UtcTime(1), "anna", "login", "").await.unwrap();
    for sql in ["UPDATE audit SET who = 'bert'", "DELETE FROM audit"] {
        let refused = store.write("tamper", move |db| Ok(db.execute_batch(sql)?)).await.unwrap_err();
        assert!(std::error::Error::source(&refused).unwrap().to_string().contains("only ever appended to"));
    }
}

#[tokio::test]
async fn writes_of_people_stand_in_the_log_and_two_writers_make_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let stores = [Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap()];
    register(&stores[0], agent(1)).await;
    let mut writers = JoinSet::new();
    for no in 0..20 {
        let store = stores[no % 2].clone();
        writers.spawn(async move { store.audit(UtcTime(5), "bert", "login", "").await.unwrap() });
    }
    writers.join_all().await;
    stores[1].revoke(agent(1), UtcTime(9), "anna").await.unwrap();
    let last = stores[0].audit_tail(1).await.unwrap().remove(0);
    assert_eq!((last.who.as_str(), last.what.as_str()), ("anna", "agent.revoke"));
    assert_eq!(last.detail, agent(1).to_string());
    assert!(matches!(stores[0].audit_verify().await.unwrap(), AuditVerdict::Whole { entries: 22, .. }));
}
