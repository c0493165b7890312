//! Work that shares a commit: what fails, fails alone.

use std::sync::mpsc;

use super::{agent, block, fresh, register};
use crate::store::error::Fault;
use crate::store::sqlite::writer::QUEUE;
use crate::store::{Store, StoreError};

/// Keeps the writer busy until told: what is queued meanwhile shares groups.
fn gate(store: &Store) -> (impl Future<Output = Result<(), StoreError>> + use<>, mpsc::Sender<()>) {
    let (open, opened) = mpsc::channel();
    let store = store.clone();
    (async move { store.write("wait", move |_| Ok(opened.recv().unwrap_or(()))).await }, open)
}

#[tokio::test]
async fn a_piece_of_work_that_fails_undoes_itself_and_nothing_else() {
    let (store, _dir) = fresh();
    register(&store, agent(1)).await;
    let before = store.health().commits;
    let (wait, open) = gate(&store);
    let half = store.write("do half", |db| {
        db.execute("INSERT INTO check_name (no, name) VALUES (77, 'half')", [])?;
        db.execute("INSERT INTO no_such_table VALUES (1)", [])?;
        Ok(())
    });
    let refused = store.write("refuse", |db| -> Result<(), Fault> {
        db.execute("INSERT INTO check_name (no, name) VALUES (78, 'refused')", [])?;
        Err(StoreError::NotFound { what: "reason", name: "none".to_owned() }.into())
    });
    let (waited, first, half, stranger, appended, refused, second, ()) = tokio::join!(
        wait,
        store.assign_checks(vec!["first".to_owned()]),
        half,
        store.append(block(agent(9), 1, 1, 1)),
        store.append(block(agent(1), 1, 1, 1)),
        refused,
        store.assign_checks(vec!["second".to_owned()]),
        async { open.send(()).unwrap() },
    );
    waited.unwrap();
    assert!(matches!(half, Err(StoreError::Write { what: "do half", .. })), "{half:?}");
    assert!(matches!(stranger, Err(StoreError::UnknownAgent(who)) if who == agent(9)));
    assert!(matches!(refused, Err(StoreError::NotFound { .. })));
    appended.unwrap();
    assert_eq!((first.unwrap()["first"].0, second.unwrap()["second"].0), (1, 2));
    let names: Vec<String> = store.check_names().await.unwrap().into_values().collect();
    assert_eq!(names, ["first", "second"]);
    let health = store.health();
    assert!(health.commits - before <= 2, "they shared a commit: {health:?}");
    assert_eq!((health.ok, health.failed_commits), (true, 0), "a failed piece is not a failed commit");
}

#[tokio::test]
async fn an_append_the_database_fails_takes_its_group_along_and_the_next_group_works() {
    let (store, _dir) = fresh();
    register(&store, agent(1)).await;
    // A database that refuses this one block, in the middle of its writing.
    store
        .write("break", |db| {
            Ok(db.execute_batch(
                "CREATE TRIGGER broken BEFORE INSERT ON agent_stream WHEN NEW.epoch = 666
                 BEGIN SELECT RAISE(ABORT, 'broken on purpose'); END",
            )?)
        })
        .await
        .unwrap();
    let (wait, open) = gate(&store);
    let (waited, good, bad, ()) = tokio::join!(
        wait,
        store.append(block(agent(1), 1, 1, 4)),
        store.append(block(agent(1), 666, 1, 4)),
        async { open.send(()).unwrap() },
    );
    assert!(matches!(bad, Err(StoreError::Write { what: "store a block", .. })), "{bad:?}");
    let stored = store.block_stats().await.unwrap();
    // Whether the gate was still in the group depends on how long it stood open; the two blocks shared one.
    drop(waited);
    assert!(good.is_err(), "it shared the fate: {good:?}");
    assert_eq!((stored.blocks, stored.newest.0), (0, 0), "no half block is left");
    assert!(!store.health().ok && store.health().reason.unwrap().contains("broken on purpose"));
    store.append(block(agent(1), 1, 1, 4)).await.unwrap();
    assert!(store.health().ok);
}

#[tokio::test]
async fn a_queue_that_is_full_makes_callers_wait_and_loses_nobody() {
    let (store, _dir) = fresh();
    register(&store, agent(1)).await;
    let (wait, open) = gate(&store);
    let mut askers = tokio::task::JoinSet::new();
    askers.spawn(async move { wait.await.unwrap() });
    let many = 2 * QUEUE as u64;
    for first in 1..=many {
        let store = store.clone();
        askers.spawn(async move { drop(store.append(block(agent(1), 1, first, 1)).await.unwrap()) });
    }
    // Every asker is polled once before this one, which was spawned last.
    let health = store.clone();
    askers.spawn(async move {
        assert_eq!(health.health().queue_depth, QUEUE, "the queue is full and no fuller");
        open.send(()).unwrap();
    });
    askers.join_all().await;
    assert_eq!(store.block_stats().await.unwrap().records, many);
    let health = store.health();
    assert_eq!(health.queue_depth, 0);
    assert!(health.blocks >= 20 * health.commits.saturating_sub(4), "they went in groups: {health:?}");
}
