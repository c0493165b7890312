//! Questions end, and nobody who sends waits for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use peil_proto::ids::{Epoch, Seq};
use tokio::sync::mpsc;

use super::{agent, block, fresh, on_both, register};
use crate::store::blocks::Appended;
use crate::store::readers::{READERS, Readers, Source};
use crate::store::{Store, StoreError, sqlite};

on_both!(agents_send_while_every_reader_is_busy_with_a_question_that_does_not_end);

async fn agents_send_while_every_reader_is_busy_with_a_question_that_does_not_end(store: Store) {
    register(&store, agent(1)).await;
    let over = Arc::new(AtomicBool::new(false));
    let (begun, mut beginning) = mpsc::channel(64);
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..READERS {
        let (store, over, begun) = (store.clone(), over.clone(), begun.clone());
        slow.spawn(async move {
            store
                .read("ask for ever", move |db| {
                    db.query_row("SELECT COUNT(*) FROM agent", (), |row| row.get::<i64>(0))?;
                    let _ = begun.try_send(());
                    while !over.load(Ordering::Relaxed) {
                        db.query_row("SELECT COUNT(*) FROM block", (), |row| row.get::<i64>(0))?;
                    }
                    Ok(())
                })
                .await
        });
    }
    for _ in 0..READERS {
        beginning.recv().await.unwrap();
    }
    // A whole session: greeting, admission, block after block.
    assert_eq!(store.acked(agent(1), Epoch(1)).await.unwrap(), Seq(0));
    assert!(store.is_admitted(agent(1)).await.unwrap());
    for first in 1..=50 {
        let stored = store.append(block(agent(1), 1, first, 1)).await.unwrap();
        assert_eq!(stored, Appended::Stored { acked: Seq(first), lost: 0 });
    }
    assert_eq!(store.acked(agent(1), Epoch(1)).await.unwrap(), Seq(50));
    over.store(true, Ordering::Relaxed);
    while let Some(answer) = slow.join_next().await {
        answer.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_question_that_takes_too_long_is_ended_and_the_next_one_is_answered() {
    let (store, dir) = fresh();
    let source = Source::Sqlite(sqlite::database_file(dir.path()));
    let readers = Readers::with_time(source, 1, Duration::from_millis(20));
    let endless = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT MAX(x) FROM n";
    for _ in 0..3 {
        let ended = readers.run("count for ever", move |db| Ok(db.query_row(endless, (), |row| row.get::<i64>(0))?));
        let ended = ended.await.unwrap_err();
        assert!(matches!(ended, StoreError::Read { what: "count for ever", .. }), "{ended:?}");
        let two = readers.run("add", |db| Ok(db.query_row("SELECT 1 + 1", (), |row| row.get::<i64>(0))?));
        assert_eq!(two.await.unwrap(), 2);
    }
    readers.close().await;
    store.close().await;
}
