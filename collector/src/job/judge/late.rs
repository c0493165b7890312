//! Late samples that break a run: the samples around them, read again from compacted days and blocks.
//!
//! What is read is what is folded so far, of the marked vantages and times only, so the track afterwards is the one of
//! all samples in order. Where what is kept beside the window does not meet what was read (a block is damaged, or gone),
//! the vantage is read as a whole in the next round. Samples from before the horizon are of no interest.

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::block;
use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::sample::State;
use peil_proto::time::{UtcDay, UtcTime};
use peil_proto::units::Millis;
use tracing::info;

use super::history::{self, Whole};
use super::{Judge, skipped};
use crate::contract::span::Span;
use crate::derive::results_of;
use crate::live;
use crate::store::StoreError;

/// Samples gathered for one round, 16 bytes each; further vantages wait for the next round. One is always read, however
/// many samples it has.
const SAMPLES_AT_ONCE: i64 = 4 << 20;

impl Judge {
    /// Reads the samples around late ones again and puts them in their place: of as many vantages as fit in one round.
    pub(super) async fn read_late_again(&mut self, now: UtcTime) -> Result<(), StoreError> {
        self.late.forget_before(self.horizon);
        let wanted = self.wanted(now);
        if wanted.is_empty() {
            return Ok(());
        }
        let store = self.store.clone();
        let mut reading = Whole::begin(&store).await?;
        let found = loop {
            let found = self.samples_of(&wanted).await?;
            if reading.is_whole().await? {
                break found;
            }
        };
        for ((agent, check), window) in wanted {
            let samples = found.get(&(agent, check)).map(Vec::as_slice).unwrap_or_default();
            self.late.settle(check, agent);
            if window == Span::ALWAYS {
                self.live.replace_track(check, agent, samples);
            } else if !self.live.splice_track(check, agent, window, samples) {
                // What is kept beside the window is not what the blocks say, as where one of them is damaged.
                self.late.mark(check, agent, Span::ALWAYS);
            }
            info!(%check, %agent, samples = samples.len(), "late samples folded in");
        }
        Ok(())
    }

    /// The vantages with late samples whose turn it is, with the time to read.
    fn wanted(&self, now: UtcTime) -> BTreeMap<(AgentId, CheckNo), Span> {
        let mut wanted = BTreeMap::new();
        let mut expected = 0_i64;
        for (check, agent, late) in self.late.iter() {
            let interval = self.live.interval(check).map_or(Millis::SECOND, |interval| interval.max(Millis(1)));
            let window = match late == Span::ALWAYS {
                true => Some(late),
                false => self.live.window(check, agent, late),
            };
            let Some(window) = window else { continue };
            expected = expected.saturating_add(window.clip(Span::new(self.horizon, now)).length().0 / interval.0);
            if expected > SAMPLES_AT_ONCE && !wanted.is_empty() {
                break;
            }
            wanted.insert((agent, check), window);
        }
        wanted
    }

    /// The samples of these vantages in these times, from compacted days and blocks.
    async fn samples_of(
        &self,
        wanted: &BTreeMap<(AgentId, CheckNo), Span>,
    ) -> Result<BTreeMap<(AgentId, CheckNo), Vec<(UtcTime, State)>>, StoreError> {
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut take = |agent, check, at, state| {
            if wanted.get(&(agent, check)).is_some_and(|window| window.from <= at && at < window.to) {
                found.entry((agent, check)).or_default().push((at, state));
            }
        };
        let by_agent = self.by_agent(wanted);
        for (agent, span) in &by_agent {
            for day in self.store.day_blocks(*agent, days_of(*span)).await?.iter().filter_map(history::opened) {
                // Ticks that a full spool folded together stand in the ledger.
                results_of(&day).iter().for_each(|s| take(*agent, s.check, s.scheduled_at, s.outcome.state()));
            }
        }
        let since = by_agent.values().map(|span| span.from).min().unwrap_or(self.horizon);
        history::each_block(&self.store, since, Some(&self.cursor), |stored| {
            let speaks = |span: &Span| stored.from < span.to && span.from <= stored.to;
            if !by_agent.get(&stored.agent).is_some_and(speaks) {
                return;
            }
            let Ok(block) = block::decode(&stored.bytes) else { return };
            for (check, at, state) in block.items.iter().skip(skipped(&stored)).flat_map(live::states) {
                take(stored.agent, check, at, state);
            }
        })
        .await?;
        Ok(found)
    }

    /// The time to read of each agent; of a vantage that is read as a whole, what memory holds.
    fn by_agent(&self, wanted: &BTreeMap<(AgentId, CheckNo), Span>) -> BTreeMap<AgentId, Span> {
        let memory = Span::new(self.horizon, self.clock.now().plus(Millis::DAY));
        let mut by_agent = BTreeMap::new();
        for ((agent, _), window) in wanted {
            let read = if *window == Span::ALWAYS { memory } else { *window };
            let whole = by_agent.entry(*agent).or_insert(read);
            *whole = Span::new(whole.from.min(read.from), whole.to.max(read.to));
        }
        by_agent
    }
}

/// The days a span touches.
fn days_of(span: Span) -> BTreeSet<UtcDay> {
    if span.is_empty() {
        return BTreeSet::new();
    }
    (span.from.day().0..=span.to.day().0).map(UtcDay).collect()
}
