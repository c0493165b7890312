//! What is missing is told with its numbers, its time and a reason, in the transaction that finds it.

use peil_proto::ids::{Epoch, Seq};
use peil_proto::time::UtcTime;

use super::{agent, block, on_both, register};
use crate::store::Store;
use crate::store::blocks::lost::{LossReason, LostRange};
use crate::store::blocks::{Appended, NewBlock};

on_both!(
    what_never_came_is_told_with_its_time,
    what_was_acked_before_and_is_not_here_has_a_reason_of_its_own,
    blocks_without_a_hole_tell_nothing,
);

fn lost(after: u64, lost: u64, from: i64, to: i64, reason: LossReason) -> LostRange {
    let (agent, epoch) = (agent(1), Epoch(1));
    let (from, to) = (UtcTime(from), UtcTime(to));
    LostRange { agent, epoch, after: Seq(after), lost, from, to, reason, noticed_at: to }
}

async fn what_never_came_is_told_with_its_time(store: Store) {
    register(&store, agent(1)).await;
    store.append(block(agent(1), 1, 1, 3)).await.unwrap();
    let appended = store.append(block(agent(1), 1, 10, 2)).await.unwrap();
    assert_eq!(appended, Appended::Stored { acked: Seq(11), lost: 6 });
    store.append(block(agent(1), 1, 10, 2)).await.unwrap();
    let told = store.lost_ranges(9).await.unwrap();
    assert_eq!(told, [lost(3, 6, 1_000, 10_000, LossReason::NeverCame)], "from the last block to the next");
}

async fn what_was_acked_before_and_is_not_here_has_a_reason_of_its_own(store: Store) {
    register(&store, agent(1)).await;
    store.append(block(agent(1), 1, 1, 3)).await.unwrap();
    let told = |first, told| NewBlock { told: Seq(told), ..block(agent(1), 1, first, 2) };
    store.append(told(6, 7)).await.unwrap();
    // What was acked before this stream began is not what is missing here.
    store.append(told(10, 7)).await.unwrap();
    let before = lost(3, 2, 1_000, 6_000, LossReason::AckedBefore);
    let never = lost(7, 2, 6_000, 10_000, LossReason::NeverCame);
    assert_eq!(store.lost_ranges(9).await.unwrap(), [never.clone(), before]);
    assert_eq!(store.lost_ranges(1).await.unwrap(), [never], "the newest first");
}

async fn blocks_without_a_hole_tell_nothing(store: Store) {
    register(&store, agent(1)).await;
    for first in [1, 4, 4, 6] {
        store.append(block(agent(1), 1, first, 3)).await.unwrap();
    }
    assert_eq!(store.lost_ranges(9).await.unwrap(), []);
}
