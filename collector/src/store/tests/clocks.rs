//! Of a day the largest clock error stays, whichever way the clock was off.

use std::collections::BTreeMap;

use peil_proto::time::{UtcDay, UtcTime};
use peil_proto::units::Millis;

use super::{agent, on_both, register};
use crate::store::Store;
use crate::store::clocks::ClockSeen;

on_both!(of_a_day_the_largest_error_stays_and_days_are_apart);

async fn of_a_day_the_largest_error_stays_and_days_are_apart(store: Store) {
    register(&store, agent(1)).await;
    let day = |n: i64| UtcTime(n * Millis::DAY.0);
    let seen = |n, ahead| ClockSeen { agent: agent(1), at: day(n), ahead: Millis(ahead) };
    store.note_clocks(vec![seen(3, 5), seen(3, -40), seen(4, 7)]).await.unwrap();
    store.note_clocks(vec![seen(3, 39), seen(5, i64::MIN)]).await.unwrap();
    let errors = async |from, to| store.clock_errors(UtcDay(from), UtcDay(to)).await.unwrap();
    assert_eq!(errors(3, 3).await, BTreeMap::from([(agent(1), Millis(40))]));
    assert_eq!(errors(4, 4).await, BTreeMap::from([(agent(1), Millis(7))]));
    assert_eq!(errors(3, 5).await, BTreeMap::from([(agent(1), Millis(i64::MAX))]));
    assert_eq!(errors(6, 9).await, BTreeMap::new(), "nobody measured");
}
