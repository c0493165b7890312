//! Transactions that meet, for real, on a server: tried again by the store and never seen by the caller; and a lock that
//! somebody keeps: told, and over when it is let go.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, mpsc};

use peil_test_postgres::shared;

use super::{agent, block, register, server_place};
use crate::store::db::Connection;
use crate::store::error::Fault;
use crate::store::{Store, StoreError};

/// Two collectors on one schema, with two counters in it.
async fn two() -> (Store, Store) {
    let place = server_place(&shared().fresh_schema());
    let (one, other) = (Store::connect(&place).unwrap(), Store::connect(&place).unwrap());
    one.write(
        "make counters",
        |db| Ok(db.execute_batch("INSERT INTO counter (name, last) VALUES ('x', 0), ('y', 0)")?),
    )
    .await
    .unwrap();
    (one, other)
}

fn value(db: &Connection, name: &str) -> Result<i64, Fault> {
    Ok(db.query_row("SELECT last FROM counter WHERE name = ?1", [name], |row| row.get(0))?)
}

fn set(db: &Connection, name: &str, value: i64) -> Result<(), Fault> {
    db.execute("UPDATE counter SET last = ?2 WHERE name = ?1", (name, value))?;
    Ok(())
}

async fn values(store: &Store) -> (i64, i64) {
    store.read("look", |db| Ok((value(db, "x")?, value(db, "y")?))).await.unwrap()
}

/// Where two pieces of work wait for each other the first time they are run, so that their transactions overlap.
#[derive(Clone)]
struct Meeting(Arc<Barrier>, Arc<AtomicU32>);

impl Meeting {
    fn new() -> Self {
        Self(Arc::new(Barrier::new(2)), Arc::default())
    }

    /// For one of the two.
    fn first_time(&self) -> impl Fn() + Send + 'static + use<> {
        let (Self(barrier, runs), came) = (self.clone(), AtomicU32::new(0));
        move || {
            runs.fetch_add(1, Ordering::Relaxed);
            if came.fetch_add(1, Ordering::Relaxed) == 0 {
                barrier.wait();
            }
        }
    }

    fn runs(&self) -> u32 {
        self.1.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_serialized_is_run_again_and_comes_out_as_one_after_the_other() {
    let (one, other) = two().await;
    let meeting = Meeting::new();
    let skew = |read: &'static str, written: &'static str| {
        let meet = meeting.first_time();
        move |db: &Connection| {
            let seen = value(db, read)?;
            meet();
            set(db, written, seen + 1)
        }
    };
    let (a, b) = tokio::join!(one.write("skew", skew("x", "y")), other.write("skew", skew("y", "x")));
    a.unwrap();
    b.unwrap();
    let end = values(&one).await;
    assert!(end == (2, 1) || end == (1, 2), "{end:?}: as if both had been first");
    assert!(meeting.runs() > 2, "nobody was run again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_broken_and_both_pieces_of_work_are_done() {
    let (one, other) = two().await;
    let meeting = Meeting::new();
    let crossing = |first: &'static str, second: &'static str| {
        let meet = meeting.first_time();
        move |db: &Connection| {
            db.execute("UPDATE counter SET last = last + 1 WHERE name = ?1", [first])?;
            meet();
            db.execute("UPDATE counter SET last = last + 1 WHERE name = ?1", [second])?;
            Ok(())
        }
    };
    let (a, b) = tokio::join!(one.write("cross", crossing("x", "y")), other.write("cross", crossing("y", "x")));
    a.unwrap();
    b.unwrap();
    assert_eq!(values(&one).await, (2, 2));
    assert!(meeting.runs() > 2, "nobody was run again");
}

/// A session that is not ours, with the lanes locked until told.
fn keep_lanes_locked(store_url: &str) -> (mpsc::Sender<()>, std::thread::JoinHandle<()>) {
    let (let_go, told) = mpsc::channel();
    let (locked, is_locked) = mpsc::channel();
    let url = store_url.to_owned();
    let session = std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        let mut transaction = client.transaction().unwrap();
        transaction.query("SELECT * FROM lane FOR UPDATE", &[]).unwrap();
        locked.send(()).unwrap();
        // Ends also when the test gives up and drops the other end.
        let _ = told.recv();
        transaction.rollback().unwrap();
    });
    is_locked.recv().unwrap();
    (let_go, session)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_somebody_keeps_locked_is_busy_and_mends_itself() {
    let url = shared().fresh_schema();
    let store = Store::connect(&server_place(&url)).unwrap();
    register(&store, agent(1)).await;
    let (let_go, session) = keep_lanes_locked(&url);
    let refused = store.append(block(agent(1), 1, 1, 3)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Busy { what: "store a block", .. }), "{refused:?}");
    assert!(!refused.is_refusal() && !store.health().ok, "{:?}", store.health());
    let_go.send(()).unwrap();
    session.join().unwrap();
    store.append(block(agent(1), 1, 1, 3)).await.unwrap();
    assert!(store.health().ok);
}
