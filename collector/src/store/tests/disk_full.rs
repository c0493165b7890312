//! A full disk: told by its name, nothing half-written, and over when there is room again. Alerts and their receipts go on
//! meanwhile, on the room that was kept for them.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use peil_proto::ids::{Epoch, Seq};
use peil_proto::time::UtcTime;

use super::{agent, block, counted, lead, register};
use crate::store::alerts::{AlertChange, NewAlert};
use crate::store::blocks::{Appended, NewBlock};
use crate::store::{Store, StoreError, reserve};

fn large(first: u64) -> NewBlock {
    NewBlock { bytes: Bytes::from(vec![7; 100_000]), ..block(agent(1), 1, first, 10) }
}

/// Fills up to the first refusal; says how many records were acked.
async fn fill(store: &Store) -> u64 {
    let mut acked = store.acked(agent(1), Epoch(1)).await.unwrap().0;
    loop {
        match store.append(large(acked + 1)).await {
            Ok(appended) => assert_eq!(appended, Appended::Stored { acked: Seq(acked + 10), lost: 0 }),
            Err(error) => {
                assert!(matches!(error, StoreError::Full { what: "store a block", .. }), "{error:?}");
                assert!(!error.is_refusal() && error.to_string().contains("the disk is full"), "{error}");
                return acked;
            }
        }
        acked += 10;
        assert!(acked < 10_000, "the disk never got full");
    }
}

async fn assert_whole(store: &Store, acked: u64) {
    let counts = counted(store).await;
    assert_eq!(counts.len() as u64, acked, "what was acked is there, what was refused is not");
    assert_eq!(store.acked(agent(1), Epoch(1)).await.unwrap(), Seq(acked));
    let sound: String =
        store.read("check", |db| Ok(db.query_row("PRAGMA integrity_check", (), |row| row.get(0))?)).await.unwrap();
    assert_eq!(sound, "ok");
}

/// Alerts with these numbers open, are delivered, and the receipts are noted.
async fn alert_and_deliver(store: &Store, numbers: std::ops::Range<u32>) {
    let held = lead(store).await;
    for number in numbers {
        let alert = NewAlert {
            key: format!("outage/{number}"),
            kind: "outage".to_owned(),
            severity: "critical".to_owned(),
            subject: format!("service {number}"),
            summary: "it is down".to_owned(),
            action: "restore it".to_owned(),
            at: UtcTime(1),
        };
        let opened = store.apply_alerts(vec![AlertChange::Open(alert)], vec!["on-call".to_owned()], held.clone()).await;
        assert_eq!(opened.unwrap().opened.len(), 1, "alert {number}");
        let due = store.deliveries_due(UtcTime(2), 10).await.unwrap();
        assert_eq!(due.len(), 1);
        store.delivery_sent(due[0].id, UtcTime(2)).await.unwrap();
    }
}

async fn cap_pages(store: &Store, pages: i64) {
    let set = store.write("cap", move |db| Ok(db.execute_batch(&format!("PRAGMA max_page_count = {pages}"))?));
    set.await.unwrap();
}

#[tokio::test]
async fn a_database_that_may_not_grow_refuses_and_works_again_when_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    register(&store, agent(1)).await;
    cap_pages(&store, 300).await;
    let acked = fill(&store).await;
    let health = store.health();
    assert!(!health.ok && health.reason.unwrap().contains("full"));
    assert_whole(&store, acked).await;
    cap_pages(&store, 1 << 30).await;
    store.append(large(acked + 1)).await.unwrap();
    assert!(store.health().ok);
    assert_whole(&store, acked + 10).await;
}

/// A file system of 48 MiB that goes away with the test; only root may make one.
struct SmallDisk<'d>(&'d Path);

impl<'d> SmallDisk<'d> {
    fn mount(dir: &'d Path) -> Option<Self> {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "peil-test"]).arg(dir).output().ok()?;
        mount.status.success().then_some(Self(dir))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test]
async fn a_disk_that_is_really_full_refuses_and_works_again_when_it_was_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(dir.path()) else {
        eprintln!("not root: a full disk is tested by the capped database alone");
        return;
    };
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, vec![0; 24 << 20]).unwrap();
    let data = dir.path().join("data");
    let store = Store::open(&data).unwrap();
    assert_eq!(store.health().reserve_bytes, Some(reserve::BYTES));
    register(&store, agent(1)).await;
    let acked = fill(&store).await;
    assert!(acked > 0 && !store.health().ok);
    assert_eq!((store.health().reserve_bytes, data.join("reserve").exists()), (Some(0), false));
    assert_whole(&store, acked).await;
    alert_and_deliver(&store, 0..300).await;
    let refused = store.append(large(acked + 1)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Full { what: "store a block", .. }), "{refused:?}");
    assert!(!store.health().ok, "alerts that were written do not make it well");
    store.close().await;

    let store = Store::open(&data).unwrap();
    assert!(matches!(store.append(large(acked + 1)).await, Err(StoreError::Full { .. })), "a restart is no room");
    alert_and_deliver(&store, 300..400).await;
    std::fs::remove_file(ballast).unwrap();
    store.append(large(acked + 1)).await.unwrap();
    assert_eq!((store.health().ok, store.health().reserve_bytes), (true, Some(reserve::BYTES)));
    assert_whole(&store, acked + 10).await;
    store.close().await;
    let again = Store::open(&data).unwrap();
    assert_whole(&again, acked + 10).await;
    assert_eq!(again.alerts_open().await.unwrap().len(), 400);
    again.close().await;
}
