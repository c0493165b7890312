//! Whatever is repeated, overlaps or comes out of order, a record counts once.

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::ids::{AgentId, Epoch, SEQ_JUMP, Seq};
use peil_proto::time::UtcTime;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::task::JoinSet;

use super::{agent, block, counted, fresh, on_both, register};
use crate::store::blocks::{Appended, BlockId, BlockLimit, StoredBlock, StreamTotals, Through};
use crate::store::{Store, StoreError};

on_both!(
    streams_that_race_through_one_group_do_not_disturb_each_other,
    an_ack_that_got_lost_is_given_again_and_nothing_is_stored_twice,
    numbers_that_cannot_be_are_refused_and_the_largest_are_not,
    a_block_reads_back_as_it_came,
    pages_end_at_their_limits_and_hold_at_least_one_block,
);

/// What a stream must be, said as simply as possible: a set of sequences.
#[derive(Default)]
struct Model {
    stored: BTreeSet<u64>,
    lost: u64,
    mark: u64,
}

impl Model {
    fn append(&mut self, first: u64, records: u32) -> Appended {
        let last = first + u64::from(records) - 1;
        if last <= self.mark {
            return Appended::Duplicate { acked: Seq(self.mark) };
        }
        let lost = (self.mark + 1..first).count() as u64;
        self.stored.extend((first..=last).filter(|seq| *seq > self.mark));
        (self.mark, self.lost) = (last, self.lost + lost);
        Appended::Stored { acked: Seq(last), lost }
    }
}

#[test]
fn any_pattern_of_resends_leaves_what_a_set_would_hold() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (store, _dir) = fresh();
    let mut next_agent = 0_u128;
    let sends = prop::collection::vec((0..2_u64, 1..60_u64, 1..20_u32), 1..25);
    let mut runner = TestRunner::new(Config::with_cases(96));
    let agents = std::cell::RefCell::new(&mut next_agent);
    let ended = runner.run(&sends, |sends| {
        **agents.borrow_mut() += 1;
        let agent = AgentId(agents.borrow().to_be_bytes());
        let mut models = BTreeMap::<u64, Model>::new();
        runtime.block_on(async {
            register(&store, agent).await;
            for (epoch, first, records) in sends {
                let got = store.append(block(agent, epoch, first, records)).await.unwrap();
                prop_assert_eq!(got, models.entry(epoch).or_default().append(first, records));
            }
            for (epoch, model) in &models {
                prop_assert_eq!(store.acked(agent, Epoch(*epoch)).await.unwrap(), Seq(model.mark));
            }
            let totals = StreamTotals {
                records: models.values().map(|model| model.stored.len() as u64).sum(),
                lost: models.values().map(|model| model.lost).sum(),
            };
            prop_assert_eq!(store.stream_totals(agent).await.unwrap(), totals);
            prop_assert_eq!(totals.records + totals.lost, models.values().map(|model| model.mark).sum::<u64>());
            let stored: BTreeMap<_, _> =
                counted(&store).await.into_iter().filter(|((sender, _, _), _)| *sender == agent).collect();
            let wanted: BTreeMap<_, _> = models
                .iter()
                .flat_map(|(epoch, model)| model.stored.iter().map(move |seq| ((agent, Epoch(*epoch), *seq), 1)))
                .collect();
            prop_assert_eq!(stored, wanted);
            Ok(())
        })
    });
    ended.unwrap();
}

async fn streams_that_race_through_one_group_do_not_disturb_each_other(store: Store) {
    for no in 1..=8 {
        register(&store, agent(no)).await;
    }
    let mut senders = JoinSet::new();
    for no in 1..=8 {
        // Two connections of the same agent send the same records, cut differently.
        for records in [7, 10] {
            let store = store.clone();
            senders.spawn(async move {
                for first in (1..=70).step_by(records as usize) {
                    store.append(block(agent(no), 1, first, records)).await.unwrap();
                }
            });
        }
    }
    senders.join_all().await;
    let counts = counted(&store).await;
    assert!(counts.values().all(|count| *count == 1), "no record counts twice");
    let stats = store.block_stats().await.unwrap();
    assert_eq!(counts.len() as u64, stats.records);
    assert_eq!(stats.records + stats.lost, 8 * 70);
    let health = store.health();
    assert_eq!((health.records, health.lost), (stats.records, stats.lost));
    assert_eq!(health.blocks + health.duplicates, 8 * (10 + 7));
}

async fn an_ack_that_got_lost_is_given_again_and_nothing_is_stored_twice(store: Store) {
    register(&store, agent(1)).await;
    // The asker goes away after queueing: the stream broke between commit and ack.
    tokio::select! {
        biased;
        _ = store.append(block(agent(1), 5, 1, 10)) => {}
        () = std::future::ready(()) => {}
    }
    let again = store.append(block(agent(1), 5, 1, 10)).await.unwrap();
    assert_eq!(again, Appended::Duplicate { acked: Seq(10) });
    assert_eq!(counted(&store).await.len(), 10);
}

async fn numbers_that_cannot_be_are_refused_and_the_largest_are_not(store: Store) {
    register(&store, agent(1)).await;
    for (first, records) in [(0, 1), (1, 0)] {
        let refused = store.append(block(agent(1), 1, first, records)).await.unwrap_err();
        assert!(matches!(refused, StoreError::BadRange { .. }) && refused.is_refusal());
    }
    let mut last = block(agent(1), u64::MAX, 1, 2);
    last.first = Seq(u64::MAX);
    assert!(matches!(store.append(last.clone()).await, Err(StoreError::BadRange { .. })));
    last.records = 1;
    let stored = store.append(last.clone()).await.unwrap();
    // A hole this large is a jump of the agent's numbering and something lost before it.
    let lost = u64::MAX - 1 - SEQ_JUMP;
    assert_eq!(stored, Appended::Stored { acked: Seq(u64::MAX), lost });
    assert_eq!(store.append(last).await.unwrap(), Appended::Duplicate { acked: Seq(u64::MAX) });
    assert_eq!(store.acked(agent(1), Epoch(u64::MAX)).await.unwrap(), Seq(u64::MAX));
    assert_eq!(store.acked(agent(1), Epoch(3)).await.unwrap(), Seq(0), "a stream that never sent");
    let totals = store.stream_totals(agent(1)).await.unwrap();
    assert_eq!(totals, StreamTotals { records: 1, lost });
}

async fn a_block_reads_back_as_it_came(store: Store) {
    register(&store, agent(1)).await;
    let mut sent = block(agent(1), u64::MAX - 3, 4, 6);
    sent.from = UtcTime(-5);
    store.append(block(agent(1), u64::MAX - 3, 1, 5)).await.unwrap();
    store.append(sent.clone()).await.unwrap();
    let first = store.blocks_after(Through::NOTHING, BlockLimit { blocks: 1, bytes: 1 }).await.unwrap()[0].id;
    let read = store.blocks_after(Through::from_iter([first]), BlockLimit::default()).await.unwrap();
    let [read] = read.as_slice() else { panic!("one block after the first, not {read:?}") };
    assert_eq!((read.id, read.skip), (BlockId { no: first.no + 1, ..first }, 2));
    assert_eq!((read.agent, read.epoch, read.first, read.records), (sent.agent, sent.epoch, sent.first, sent.records));
    assert_eq!(
        (read.received_at, read.from, read.to, &read.bytes),
        (sent.received_at, sent.from, sent.to, &sent.bytes)
    );
}

async fn pages_end_at_their_limits_and_hold_at_least_one_block(store: Store) {
    register(&store, agent(1)).await;
    for first in 1..=9 {
        store.append(block(agent(1), 1, first, 1)).await.unwrap();
    }
    let newest = store.block_stats().await.unwrap().newest;
    let (lane, _) = newest.lanes().next().unwrap();
    let page = |no, blocks, bytes| {
        store.blocks_after(Through::from_iter([BlockId { lane, no }]), BlockLimit { blocks, bytes })
    };
    let ids = |blocks: Vec<StoredBlock>| blocks.iter().map(|block| block.id.no).collect::<Vec<_>>();
    assert_eq!(ids(page(0, 4, usize::MAX).await.unwrap()), [1, 2, 3, 4]);
    assert_eq!(ids(page(4, 100, 6).await.unwrap()), [5, 6], "two blocks of three bytes reach six");
    assert_eq!(ids(page(6, 0, 0).await.unwrap()), [7]);
    assert_eq!(ids(page(9, 4, 100).await.unwrap()), Vec::<i64>::new());
    assert_eq!(ids(page(i64::MAX, 4, 100).await.unwrap()), Vec::<i64>::new());
}

#[tokio::test]
async fn a_rebuild_reads_every_block_of_its_period_and_passes_over_old_segments() {
    let (store, _dir) = fresh();
    register(&store, agent(1)).await;
    // Three segments. Time rises with the sequence, but one late block in the first segment reaches far.
    let mut senders = JoinSet::new();
    let blocks = (1..=2_500_u64).map(|first| {
        let mut block = block(agent(1), 1, first, 1);
        if first == 100 {
            block.to = UtcTime(9_000_000);
        }
        block
    });
    for part in blocks.collect::<Vec<_>>().chunks(250) {
        for block in part.iter().cloned() {
            let store = store.clone();
            senders.spawn(async move { store.append(block).await.unwrap() });
        }
        // On one thread tasks run in the order of spawning, so the sequence arrives in order.
        while senders.join_next().await.is_some() {}
    }
    let (mut found, mut after) = (Vec::new(), Through::default());
    loop {
        let limit = BlockLimit { blocks: 300, bytes: usize::MAX };
        let page = store.blocks_reaching(UtcTime(2_300_000), after.clone(), limit).await.unwrap();
        if page.is_empty() {
            break;
        }
        page.iter().for_each(|block| after.pass(block.id));
        found.extend(page.iter().map(|block| block.first.0));
    }
    assert_eq!(found, std::iter::once(100).chain(2_300..=2_500).collect::<Vec<_>>());
    let segments = store.read("count", |db| {
        let ask = "SELECT COUNT(*) FROM block_reach WHERE to_ms >= 2300000";
        Ok(db.query_row(ask, (), |row| row.get::<i64>(0))?)
    });
    assert_eq!(segments.await.unwrap(), 2, "the middle segment is not read at all");
}
