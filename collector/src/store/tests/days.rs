//! Compacted days and what follows from them: read back as written, removed at their age and not before.

use peil_proto::ids::CheckNo;
use peil_proto::sample::State;
use peil_proto::time::UtcDay;
use peil_proto::units::Millis;

use super::{agent, lead, on_both};
use crate::store::Store;
use crate::store::days::{DayRow, Step};
use crate::store::latency::{DerivedDays, HourRow, PeriodRow, PieceRow, Tally};
use crate::store::retention::Kind;

on_both!(
    what_follows_from_a_day_reads_back_and_is_replaced_whole,
    each_kind_goes_at_its_age_a_few_rows_at_a_time_and_months_stay,
    days_come_page_by_page_in_order_whatever_the_size_of_a_page,
);

const MONTH: UtcDay = UtcDay(0);

fn period(from: UtcDay, up: u64) -> PeriodRow {
    let tally = Tally { up, failed: 2, not_run: 3, held: 1 };
    PeriodRow {
        agent: agent(1),
        check: CheckNo(7),
        from,
        tally,
        times: [b"abc".to_vec(), vec![], vec![0], vec![], vec![9; 40], vec![]],
    }
}

fn step(day: UtcDay, version: u32, up: u64) -> Step {
    let block = |check: Option<CheckNo>| DayRow {
        agent: agent(1),
        day,
        check,
        version: version + 1,
        records: 5,
        bytes: format!("{day} {check:?}").into(),
    };
    let piece = |n: i64, state| PieceRow {
        agent: agent(1),
        check: CheckNo(7),
        day,
        state,
        first: day.start().plus(Millis(n)),
        last: day.start().plus(Millis(n + 500)),
        hold: Millis(21_000),
    };
    Step {
        agent: agent(1),
        sources: vec![],
        days: vec![(day, version)],
        blocks: vec![block(None), block(Some(CheckNo(0))), block(Some(CheckNo(7)))],
        derived: DerivedDays {
            days: vec![day],
            periods: vec![period(day, up)],
            pieces: vec![piece(0, State::Up), piece(1_000, State::Down), piece(2_000, State::Unknown)],
            months: vec![period(MONTH, up)],
        },
    }
}

async fn take(store: &Store, step: Step) {
    assert!(store.compact(step, lead(store).await).await.unwrap());
}

async fn hours(store: &Store, day: UtcDay) {
    let hour = |n: i64| HourRow {
        agent: agent(1),
        check: CheckNo(7),
        hour: day.start().plus(Millis(n * Millis::HOUR.0)),
        tally: Tally::default(),
        total: vec![1],
    };
    let rows: Vec<_> = (0..24).map(hour).collect();
    store.write_hours(rows.iter().map(|row| (row.agent, row.hour)).collect(), rows, lead(store).await).await.unwrap();
}

async fn what_follows_from_a_day_reads_back_and_is_replaced_whole(store: Store) {
    let (day, all) = (UtcDay(20), (UtcDay(0), UtcDay(1_000)));
    take(&store, step(day, 0, 10)).await;
    let first = step(day, 0, 10);
    assert_eq!(store.day_blocks(agent(1), [day].into()).await.unwrap(), first.blocks);
    assert_eq!(store.latency_days(Some(agent(1)), all.0, all.1).await.unwrap(), first.derived.periods);
    assert_eq!(store.state_pieces(agent(1), all.0, all.1).await.unwrap(), first.derived.pieces);
    assert_eq!(store.latency_months(None, all.0, all.1).await.unwrap(), first.derived.months);
    assert_eq!(store.latency_days(Some(agent(2)), all.0, all.1).await.unwrap(), []);

    let mut second = step(day, 1, 11);
    second.derived.pieces.truncate(1);
    take(&store, second.clone()).await;
    assert_eq!(store.day_blocks(agent(1), [day].into()).await.unwrap(), second.blocks);
    assert_eq!(store.latency_days(None, all.0, all.1).await.unwrap(), second.derived.periods);
    assert_eq!(store.state_pieces(agent(1), all.0, all.1).await.unwrap(), second.derived.pieces);
    assert_eq!(store.compactions().await.unwrap(), 2);
}

async fn each_kind_goes_at_its_age_a_few_rows_at_a_time_and_months_stay(store: Store) {
    for day in 1..=4 {
        take(&store, step(UtcDay(day), 0, 1)).await;
        hours(&store, UtcDay(day)).await;
    }
    let before = UtcDay(3);
    for (kind, rows, at_most) in [(Kind::Raw, 6, 5), (Kind::Hourly, 48, 5), (Kind::Daily, 2 + 6, 10)] {
        let mut gone = 0;
        loop {
            let now = store.prune(kind, before, 5).await.unwrap();
            assert!(now <= at_most, "{now} rows of {kind:?} at once");
            gone += now;
            if now == 0 {
                break;
            }
        }
        assert_eq!(gone, rows, "{kind:?}");
    }
    let all = (UtcDay(0), UtcDay(1_000));
    let days: Vec<_> = store.compacted_days(None, 10).await.unwrap().into_iter().map(|(day, _)| day.0).collect();
    assert_eq!(days, [4, 3], "the newest first");
    assert_eq!(store.latency_days(None, all.0, all.1).await.unwrap().len(), 2);
    assert_eq!(store.state_pieces(agent(1), all.0, all.1).await.unwrap().len(), 6);
    assert_eq!(store.latency_hours(None, all.0.start(), all.1.start()).await.unwrap().len(), 48);
    assert_eq!(store.latency_months(None, all.0, all.1).await.unwrap().len(), 1, "months are never removed");
}

async fn days_come_page_by_page_in_order_whatever_the_size_of_a_page(store: Store) {
    let mut all = Vec::new();
    for day in 1..=4 {
        take(&store, step(UtcDay(day), 0, 1)).await;
        all.extend(step(UtcDay(day), 0, 1).blocks.into_iter().filter(|row| row.day > UtcDay(1)));
    }
    for bytes in [1, 30, usize::MAX] {
        let mut found = Vec::new();
        loop {
            let page = store.day_blocks_from(UtcDay(2), found.last().map(DayRow::key), bytes).await.unwrap();
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found, all, "{bytes} bytes to a page");
    }
}
