//! Work that shares a commit: what fails, fails alone.

use std::sync::mpsc;

use super::{agent, block, fresh, register};
use crate::store::db::Connection;
use crate::store::error::Fault;
use crate::store::sqlite;
use crate::store::writer::QUEUE;
use crate::store::{Store, StoreError};

/// Keeps the writer busy until told: what is queued meanwhile shares groups.
fn gate(store: &Store) -> (impl Future<Output = Result<(), StoreError>> + use<>, mpsc::Sender<()>) {
    let (open, opened) = mpsc::channel();
    let store = store.clone();
    let wait = move |_: &Connection| {
        // Ends also when the test gives up and drops the other end.
        let _ = opened.recv();
        Ok(())
    };
    (async move { store.write("wait", wait).await }, open)
}

#[tokio::test]
async fn a_piece_of_work_that_fails_undoes_itself_and_nothing_else() {
    let (store, _dir) = fresh();
    register(&store, agent(1)).await;
    let before = store.health().commits;
    let (wait, open) = gate(&store);
    let half = store.write("do half", |db| {
        db.execute("INSERT INTO check_name (no, name) VALUES (77, 'half')", ())?;
        db.execute("INSERT INTO no_such_table VALUES (1)", ())?;
        Ok(())
    });
    let refused = store.write("refuse", |db| -> Result<(), Fault> {
        db.execute("INSERT INTO check_name (no, name) VALUES (78, 'refused')", ())?;
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
    let (waited, good, bad, ()) =
        tokio::join!(wait, store.append(block(agent(1), 1, 1, 4)), store.append(block(agent(1), 666, 1, 4)), async {
            open.send(()).unwrap();
        },);
    assert!(matches!(bad, Err(StoreError::Write { what: "store a block", .. })), "{bad:?}");
    let stored = store.block_stats().await.unwrap();
    // Whether the gate was still in the group depends on how long it stood open; the two blocks shared one.
    drop(waited);
    assert!(good.is_err(), "it shared the fate: {good:?}");
    assert_eq!((stored.blocks, stored.newest.blocks()), (0, 0), "no half block is left");
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
        askers.spawn(async move {
            store.append(block(agent(1), 1, first, 1)).await.unwrap();
        });
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

#[tokio::test]
async fn nobody_is_told_success_before_the_commit_and_a_commit_that_fails_leaves_nothing() {
    let (store, _dir) = fresh();
    register(&store, agent(1)).await;
    // A constraint that is looked at by COMMIT itself, when all work of the group has gone well.
    let orphan = store.write("leave an orphan", |db| {
        db.execute_batch("PRAGMA defer_foreign_keys = ON")?;
        db.execute("INSERT INTO session VALUES (zeroblob(32), 'nobody', 1, 1, 1)", ())?;
        Ok(())
    });
    let (wait, open) = gate(&store);
    let (_, appended, orphan, checks, ()) = tokio::join!(
        wait,
        store.append(block(agent(1), 1, 1, 4)),
        orphan,
        store.assign_checks(vec!["web".to_owned()]),
        async { open.send(()).unwrap() },
    );
    assert!(matches!(appended, Err(StoreError::Write { what: "store a block", .. })), "{appended:?}");
    assert!(matches!(orphan, Err(StoreError::Write { what: "leave an orphan", .. })), "{orphan:?}");
    assert!(matches!(checks, Err(StoreError::Write { what: "number the checks", .. })), "{checks:?}");
    assert_eq!(store.block_stats().await.unwrap().records, 0);
    assert!(store.check_names().await.unwrap().is_empty());
    assert_eq!((store.health().ok, store.health().failed_commits), (false, 1));
    store.append(block(agent(1), 1, 1, 4)).await.unwrap();
    assert!(store.health().ok);
}

#[tokio::test]
async fn a_database_that_another_process_keeps_locked_is_told_as_busy_and_works_again() {
    let (store, dir) = fresh();
    register(&store, agent(1)).await;
    store.write("be impatient", |db| Ok(db.execute_batch("PRAGMA busy_timeout = 0")?)).await.unwrap();
    let other = rusqlite::Connection::open(sqlite::database_file(dir.path())).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let busy = store.append(block(agent(1), 1, 1, 4)).await.unwrap_err();
    assert!(matches!(busy, StoreError::Busy { what: "store a block", .. }) && !busy.is_refusal(), "{busy:?}");
    assert_eq!(store.block_stats().await.unwrap().records, 0, "reading goes on");
    other.execute_batch("ROLLBACK").unwrap();
    store.append(block(agent(1), 1, 1, 4)).await.unwrap();
}
