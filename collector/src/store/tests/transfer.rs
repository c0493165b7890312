//! Copies of a whole store: made beside writers, checked, refused where they would do harm, finished whatever ends them.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use peil_proto::block::{self, Item};
use peil_proto::ids::{AgentId, Seq};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use tempfile::TempDir;

use super::{agent, block as block_of, collector, counted, holder, lead, on_both, register, server_place};
use crate::store::blocks::{BlockLimit, NewBlock};
use crate::store::judgement::Judgement;
use crate::store::outages::{OutageChange, OutageRow};
use crate::store::transfer::{Asked, Counted, Progress, TransferError, backup, check_file, migrate, restore};
use crate::store::{Place, Store, StoreError, sqlite};

on_both!(
    a_back_up_made_beside_a_writer_is_of_one_moment_and_goes_back_into_either_engine,
    a_store_moves_to_the_other_engine_and_back_and_what_was_judged_stays_judged,
    a_move_that_is_ended_after_any_page_goes_on_and_no_collector_starts_on_half_a_store,
    a_copy_is_refused_by_name_where_it_would_do_harm,
);

fn asked() -> Asked {
    Asked { who: "test".to_owned(), at: UtcTime(1_776_247_200_000) }
}

fn quiet(_: Progress) {}

/// A block that is one.
fn real(agent: AgentId, first: u64) -> NewBlock {
    let bytes = Bytes::from(block::encode(Seq(first), &[Item::Other(vec![1, 2, 3]), Item::Other(vec![4])]));
    NewBlock { bytes, ..block_of(agent, 1, first, 2) }
}

/// Three agents with blocks; the first `judged` of them have been judged.
async fn furnish(store: &Store, blocks: u64, judged: usize) {
    for no in 1..=3 {
        register(store, agent(no)).await;
    }
    for no in 0..blocks {
        store.append(real(agent(u8::try_from(no % 3).unwrap() + 1), no / 3 * 2 + 1)).await.unwrap();
    }
    let held = lead(store).await;
    let first = store.blocks_after(Default::default(), BlockLimit { blocks: 9_999, bytes: usize::MAX }).await.unwrap();
    let row = OutageRow {
        service: "shop".to_owned(),
        from: UtcTime(5),
        to: None,
        counted: Millis(1),
        because: vec!["ä\u{1f600}".to_owned()],
    };
    let judgement = Judgement {
        through: first.iter().take(judged).map(|block| block.id).collect(),
        outages: vec![OutageChange::Put(row)],
        ..Judgement::default()
    };
    store.commit_judgement(judgement, held).await.unwrap();
    store.leave(holder("only", 1)).await.unwrap();
}

/// Which blocks are still to be judged: by agent and sequence.
async fn to_judge(store: &Store) -> BTreeSet<(AgentId, Seq)> {
    let judged = store.judged_through().await.unwrap();
    let rest = store.blocks_after(judged, BlockLimit { blocks: 9_999, bytes: usize::MAX }).await.unwrap();
    rest.iter().map(|block| (block.agent, block.first)).collect()
}

fn somewhere() -> (TempDir, Place, Place) {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Directory(dir.path().join("data"));
    (dir, place, server_place(&peil_test_postgres::shared().fresh_schema()))
}

/// On a thread where a server may be waited for.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn back_up(store: &Store, to: &Path) -> Result<Vec<Counted>, TransferError> {
    let (place, to) = (store.inner.place.clone(), to.to_owned());
    Ok(blocking(move || backup(&place, &to, &asked(), &mut quiet)).await?.1)
}

async fn move_to(from: &Place, to: &Place) -> Result<Vec<Counted>, TransferError> {
    let (from, to) = (from.clone(), to.clone());
    blocking(move || migrate(&from, &to, &asked(), &mut quiet)).await
}

async fn put_back(from: &Path, to: &Place) -> Result<Vec<Counted>, TransferError> {
    let (from, to) = (from.to_owned(), to.clone());
    blocking(move || restore(&from, &to, &asked(), &mut quiet)).await
}

async fn a_back_up_made_beside_a_writer_is_of_one_moment_and_goes_back_into_either_engine(store: Store) {
    furnish(&store, 60, 40).await;
    let (dir, directory, server) = somewhere();
    let file = dir.path().join("b.db");
    let (made, ()) = tokio::join!(back_up(&store, &file), async {
        for no in 0..60 {
            store.append(real(agent(1), 41 + no * 2)).await.unwrap();
        }
    });
    let made = made.unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    let read = file.clone();
    assert_eq!(blocking(move || check_file(&read)).await.unwrap(), made);
    for place in [directory, server] {
        assert_eq!(put_back(&file, &place).await.unwrap(), made, "{place}");
        let back = blocking(move || Store::connect(&place)).await.unwrap();
        // One moment: the mark of the stream and its blocks agree.
        let records = back.block_stats().await.unwrap().records;
        assert_eq!(counted(&back).await.len() as u64, records);
        assert!(records >= 120);
        assert_eq!(back.judged_through().await.unwrap().blocks(), 40);
        let next = back.acked(agent(1), block_of(agent(1), 1, 1, 1).epoch).await.unwrap();
        back.append(real(agent(1), next.0 + 1)).await.unwrap();
        let last = &back.audit_tail(1).await.unwrap()[0];
        assert_eq!((last.who.as_str(), last.what.as_str()), ("test", "store.restore"));
        back.close().await;
    }
}

async fn a_store_moves_to_the_other_engine_and_back_and_what_was_judged_stays_judged(store: Store) {
    furnish(&store, 300, 200).await;
    let waiting = to_judge(&store).await;
    assert_eq!(waiting.len(), 100);
    let (_dir, directory, server) = somewhere();
    let first = if store.is_shared() { [directory, server] } else { [server, directory] };
    let mut from = store.inner.place.clone();
    let (records, mut before) = (counted(&store).await, None);
    store.close().await;
    for to in first {
        let mut moved = move_to(&from, &to).await.unwrap();
        // Each arrival is noted in the log of the place; everything else is the same row for row.
        moved.retain(|counted| counted.table != "audit");
        assert_eq!(*before.get_or_insert(moved.clone()), moved);
        let there = blocking({
            let to = to.clone();
            move || Store::connect(&to)
        });
        let there = there.await.unwrap();
        assert_eq!(counted(&there).await, records);
        assert_eq!(to_judge(&there).await, waiting, "{to}");
        there.close().await;
        from = to;
    }
}

async fn a_move_that_is_ended_after_any_page_goes_on_and_no_collector_starts_on_half_a_store(store: Store) {
    furnish(&store, 300, 200).await;
    let waiting = to_judge(&store).await;
    let (_dir, directory, server) = somewhere();
    let (from, to) = (store.inner.place.clone(), if store.is_shared() { directory } else { server });
    store.close().await;
    let (ended, to) = blocking(move || {
        for ended in 0.. {
            // The first page of each run is written, and then the run is over: as a kill would have it.
            let run = || migrate(&from, &to, &asked(), &mut |_| panic!("killed"));
            match catch_unwind(AssertUnwindSafe(run)) {
                Ok(done) => {
                    done.unwrap();
                    return (ended, to);
                }
                Err(_) => {
                    let refused = Store::connect(&to).unwrap_err();
                    assert!(matches!(refused, StoreError::HalfFilled { .. }), "{refused}");
                    assert!(refused.to_string().contains("again"), "{refused}");
                }
            }
        }
        unreachable!("it ends");
    })
    .await;
    assert!(ended > 6, "several pages: {ended}");
    let there = blocking(move || Store::connect(&to)).await.unwrap();
    assert_eq!(counted(&there).await.len(), 600);
    assert_eq!(to_judge(&there).await, waiting);
}

async fn a_copy_is_refused_by_name_where_it_would_do_harm(store: Store) {
    furnish(&store, 3, 3).await;
    let (dir, directory, server) = somewhere();
    let place = store.inner.place.clone();
    // A name that is taken, a place that is not empty, a place that is half filled from elsewhere.
    let file = dir.path().join("b.db");
    back_up(&store, &file).await.unwrap();
    assert!(matches!(back_up(&store, &file).await, Err(TransferError::Taken(at)) if at == file));
    let refused = put_back(&file, &place).await.unwrap_err();
    assert!(matches!(refused, TransferError::NotEmpty { .. } | TransferError::Taken(_)), "{refused}");
    assert!(matches!(put_back(&dir.path().join("no"), &place).await, Err(TransferError::Nothing(_))));
    // A collector that runs.
    store.tend_leases(holder("a", 1), collector("a")).await.unwrap();
    for (from, to) in [(&place, &server), (&place, &directory)] {
        let refused = move_to(from, to).await.unwrap_err();
        assert!(matches!(&refused, TransferError::InUse { holder, .. } if holder == "a"), "{refused}");
    }
    store.leave(holder("a", 1)).await.unwrap();
    move_to(&place, &server).await.unwrap();
    let refused = move_to(&place, &server).await.unwrap_err();
    assert!(matches!(refused, TransferError::NotEmpty { table: "agent", .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_up_in_which_a_byte_of_a_block_or_an_entry_of_the_log_was_changed_is_refused_by_name() {
    let (store, dir) = super::fresh();
    furnish(&store, 3, 3).await;
    for (harm, told) in [
        ("UPDATE block SET bytes = CAST(bytes || x'00' AS BLOB) WHERE no = 2", "block 2"),
        (
            "INSERT INTO day_block (agent, day, check_no, version, records, bytes)
             VALUES (zeroblob(16), 20000, 3, 1, 1, x'00')",
            "the compacted 2024-10-04 of agent 00000000000000000000000000000000, check 3",
        ),
        ("DROP TRIGGER audit_is_not_rewritten; UPDATE audit SET who = 'nobody' WHERE seq = 2", "entry 2"),
        ("INSERT INTO transfer VALUES ('from', 'elsewhere')", "half filled from elsewhere"),
    ] {
        let file = dir.path().join("b.db");
        back_up(&store, &file).await.unwrap();
        let db = rusqlite::Connection::open(&file).unwrap();
        db.execute_batch(harm).unwrap();
        drop(db);
        let to = Place::Directory(dir.path().join("new"));
        let refused = put_back(&file, &to).await.unwrap_err();
        assert!(matches!(refused, TransferError::Damaged { .. }) && refused.to_string().contains(told), "{refused}");
        assert!(!sqlite::database_file(&dir.path().join("new")).exists());
        std::fs::remove_file(&file).unwrap();
    }
}
