//! That the work was done: every acked record is in the store, once, and was judged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use peil_collector::store::Store;
use peil_collector::store::blocks::{BlockLimit, Through};
use peil_proto::block;
use peil_proto::ids::AgentId;

use crate::fleet::Done;

/// How often the watermark is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Judging that is further behind than this will not come.
const CATCH_UP_MAX: Duration = Duration::from_secs(120);

/// Waits until the collector has judged every block it has stored; returns how long that took.
///
/// # Errors
/// When it does not catch up within two minutes.
pub async fn judged(store: &Store) -> anyhow::Result<Duration> {
    let asked = Instant::now();
    let newest = store.block_stats().await?.newest;
    while !store.judged_through().await?.covers_all(&newest) {
        ensure!(asked.elapsed() < CATCH_UP_MAX, "judging did not catch up within {} s", CATCH_UP_MAX.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(asked.elapsed())
}

/// Walks through all blocks in the store and holds them against what was acked: per agent, every sequence
/// number from 1 to the last acked one exactly once, no other agent, nothing lost.
///
/// # Errors
/// The first difference.
pub async fn every_acked_record_is_there_once(store: &Store, work: &[Done]) -> anyhow::Result<u64> {
    let mut through: BTreeMap<AgentId, u64> = BTreeMap::new();
    let mut cursor = Through::NOTHING;
    loop {
        let page = store.blocks_after(cursor.clone(), BlockLimit::default()).await?;
        if page.is_empty() {
            break;
        }
        for stored in &page {
            cursor.pass(stored.id);
            let (first, records) = block::header(&stored.bytes)?;
            let seen = through.entry(stored.agent).or_default();
            let begins = first.0 + u64::from(stored.skip);
            ensure!(begins == *seen + 1, "agent {}: record {begins} follows {seen} in the store", stored.agent);
            *seen = first.0 + records as u64 - 1;
        }
    }
    let totals = store.totals_by_agent().await?;
    for done in work {
        let (stored, counted) = (through.remove(&done.agent).unwrap_or(0), totals.get(&done.agent));
        let (records, lost) = counted.map_or((0, 0), |totals| (totals.records, totals.lost));
        ensure!(
            (stored, records, lost) == (done.acked, done.acked, 0),
            "agent {}: {} acked, {stored} in blocks, {records} counted, {lost} lost",
            done.agent,
            done.acked
        );
    }
    ensure!(through.is_empty(), "blocks of agents that sent none: {through:?}");
    Ok(work.iter().map(|done| done.acked).sum())
}
