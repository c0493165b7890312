//! A full disk: told by its name, nothing half-written, and over when there is room again.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use peil_proto::ids::{Epoch, Seq};

use super::{agent, block, counted, register};
use crate::store::blocks::{Appended, NewBlock};
use crate::store::{Store, StoreError};

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

/// A file system of 4 MiB that goes away with the test; only root may make one.
struct SmallDisk<'d>(&'d Path);

impl<'d> SmallDisk<'d> {
    fn mount(dir: &'d Path) -> Option<Self> {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "peil-test"]).arg(dir).output().ok()?;
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
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    register(&store, agent(1)).await;
    let acked = fill(&store).await;
    assert!(acked > 0 && !store.health().ok);
    assert_whole(&store, acked).await;
    std::fs::remove_file(ballast).unwrap();
    store.append(large(acked + 1)).await.unwrap();
    assert!(store.health().ok);
    assert_whole(&store, acked + 10).await;
    store.close().await;
    let again = Store::open(&dir.path().join("data")).unwrap();
    assert_whole(&again, acked + 10).await;
    again.close().await;
}
