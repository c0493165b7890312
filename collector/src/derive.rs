//! What follows from the blocks: histograms and changes of state, and the compaction of the blocks themselves.
//!
//! Blocks are the truth, and everything here is a pure function of them and of the rhythm of the checks: no I/O, no
//! clock, no memory of what was derived before. So whatever is stored can be forgotten and computed again, by another
//! collector too, and [`diff`] tells whether it comes out the same. The order in which blocks come, how often they were
//! compacted and in which portions, makes no difference to a single byte.
//!
//! ```text
//! blocks as they came ──┬──► Compaction ──► one block per (check, day), one per day for the rest
//!                       │                        │
//!                       └──────────► Fold ◄──────┘
//!                                      ▼
//!                                   Derived     per agent and check: hours, days (with changes of state), months
//! ```
//!
//! A tick that a full spool folded into a summary counts like the sample it was, but is not timed: its times are merged
//! more coarsely than a histogram here. (One told by both, because the sample had been sent already, counts twice.)
//!
//! Hours, days and months are those of UTC: they serve every contract, whatever its time zone, and the hours of a day
//! add up to it.
//!
//! Limits: memory follows the blocks handed over: some 0.5 KiB an hour, and while a day is being folded 16 bytes a
//! sample. Whoever has much to derive does it agent by agent or day by day.

pub mod compact;
pub mod difference;
pub mod histogram;
pub mod period;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use peil_proto::block::day::{self, DayBlock, DayError, Ledger};
use peil_proto::block::{self, BlockError, Item};
use peil_proto::convert;
use peil_proto::ids::{AgentId, CheckNo, Epoch, Seq};
use peil_proto::record::Record;
use peil_proto::sample::{Phases, Sample, State};
use peil_proto::summary::Summary;
use peil_proto::time::{UtcDay, UtcTime};
use peil_proto::units::Millis;

use crate::contract::track::Track;
use period::{Day, DayFold, Hour, HourFold, Period};

pub use difference::{Difference, diff};

/// A block as an agent sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    /// Where it stands in the order of storing.
    pub place: u64,
    /// Generation of the agent's spool.
    pub epoch: Epoch,
    /// Sequence of the first record in `bytes`.
    pub first: Seq,
    /// Leading records that an earlier block holds: passed over.
    pub skip: u32,
    /// When it came: the time of records that have none.
    pub received_at: UtcTime,
    /// The column block.
    pub bytes: Bytes,
}

/// A block as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// As it came.
    Came(Came),
    /// Compacted.
    Day(Bytes),
}

/// A kept block that cannot be read: damage on the disk. Its time is unknown, never up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A block as it came.
    #[error("a stored block cannot be read")]
    Came(#[from] BlockError),
    /// A compacted one.
    #[error("a compacted block cannot be read")]
    Day(#[from] DayError),
}

/// How long a sample of each check holds (`contract::hold`). A check that is missing here is not configured any more:
/// its times are derived, its changes of state are not, for no contract speaks of them.
pub type Holds = BTreeMap<CheckNo, Millis>;

/// What one vantage saw of one check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// By the start of the hour.
    pub hours: BTreeMap<UtcTime, Hour>,
    /// By day.
    pub days: BTreeMap<UtcDay, Day>,
    /// By the first day of the month.
    pub months: BTreeMap<UtcDay, Period>,
}

/// All that follows from some blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Derived {
    /// By agent and check.
    pub seen: BTreeMap<(AgentId, CheckNo), Seen>,
}

/// Derives everything anew.
///
/// # Errors
/// [`Unreadable`] at the first block that cannot be read.
pub fn rebuild<'b>(
    blocks: impl IntoIterator<Item = (AgentId, &'b Kept)>,
    holds: &Holds,
) -> Result<Derived, Unreadable> {
    let mut fold = Fold::default();
    for (agent, block) in blocks {
        fold.absorb(agent, block)?;
    }
    Ok(fold.finish(holds))
}

/// Blocks on their way to [`Derived`].
#[derive(Debug, Clone, Default)]
pub struct Fold {
    depth: Depth,
    seen: BTreeMap<(AgentId, CheckNo), SeenFold>,
}

/// How much is derived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Depth {
    /// Hours only: what is wanted while the day is not over.
    Hours,
    /// Hours, days and months.
    #[default]
    All,
}

#[derive(Debug, Clone, Default)]
struct SeenFold {
    hours: BTreeMap<UtcTime, HourFold>,
    days: BTreeMap<UtcDay, (DayFold, Vec<(UtcTime, State)>)>,
}

impl Fold {
    /// Nothing yet, on the way to so much.
    pub fn new(depth: Depth) -> Self {
        Self { depth, ..Self::default() }
    }

    /// Takes in the samples of a block. Other records are not derived from here: they have their own jobs.
    ///
    /// # Errors
    /// [`Unreadable`], with nothing taken in.
    pub fn absorb(&mut self, agent: AgentId, block: &Kept) -> Result<(), Unreadable> {
        match block {
            Kept::Came(came) => {
                came.samples()?.iter().for_each(|sample| self.sample(agent, sample));
            }
            Kept::Day(bytes) => {
                results_of(&day::decode(bytes)?).iter().for_each(|sample| self.sample(agent, sample));
            }
        }
        Ok(())
    }

    /// Takes in one sample.
    pub fn sample(&mut self, agent: AgentId, sample: &Sample) {
        let at = sample.scheduled_at;
        let seen = self.seen.entry((agent, sample.check)).or_default();
        seen.hours.entry(at.hour_start()).or_default().record(sample);
        if self.depth == Depth::Hours {
            return;
        }
        let (day, states) = seen.days.entry(at.day()).or_default();
        day.record(sample);
        states.push((at, sample.outcome.state()));
    }

    /// What follows.
    pub fn finish(self, holds: &Holds) -> Derived {
        let of = |((agent, check), seen): ((AgentId, CheckNo), SeenFold)| {
            let hold = holds.get(&check).copied();
            ((agent, check), seen.finish(hold))
        };
        Derived { seen: self.seen.into_iter().map(of).collect() }
    }
}

impl SeenFold {
    fn finish(self, hold: Option<Millis>) -> Seen {
        let hours = self.hours.into_iter().map(|(start, hour)| (start, hour.finish())).collect();
        let mut days = BTreeMap::new();
        for (start, (day, states)) in self.days {
            let pieces = hold.map(|hold| Track::of_samples(hold, &states).to_pieces()).unwrap_or_default();
            days.insert(start, Day { period: day.finish(), pieces });
        }
        let months = months(&days);
        Seen { hours, days, months }
    }
}

/// The months that days add up to.
pub fn months(days: &BTreeMap<UtcDay, Day>) -> BTreeMap<UtcDay, Period> {
    let mut months: BTreeMap<UtcDay, Period> = BTreeMap::new();
    for (start, day) in days {
        months.entry(start.month_start()).or_default().add(&day.period);
    }
    months
}

impl Came {
    /// The result of every tick told in it, without those that an earlier block holds.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn samples(&self) -> Result<Vec<Sample>, Unreadable> {
        Ok(self.items()?.iter().flat_map(results_in).collect())
    }

    /// Its records, without those that an earlier block holds.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn items(&self) -> Result<Vec<Item>, BlockError> {
        let mut items = block::decode(&self.bytes)?.items;
        items.drain(..self.skipped().min(items.len()));
        Ok(items)
    }

    /// The number of the record at this place of [`Self::items`].
    fn seq(&self, at: usize) -> Seq {
        Seq(self.first.0.saturating_add(u64::from(self.skip)).saturating_add(at as u64))
    }

    fn skipped(&self) -> usize {
        usize::try_from(self.skip).unwrap_or(usize::MAX)
    }
}

/// The result of every tick that a compacted block tells of its day.
pub fn results_of(block: &DayBlock) -> Vec<Sample> {
    match block {
        DayBlock::Check(day) => day.samples.clone(),
        DayBlock::Rest(ledger) => results_in_ledger(ledger),
    }
}

/// A summary across midnight is in the ledgers of both days: each has the ticks of its own.
pub fn results_in_ledger(ledger: &Ledger) -> Vec<Sample> {
    let told = ledger.others.values().filter_map(|bytes| summary_in(bytes)).flat_map(|summary| ticks(&summary));
    told.filter(|tick| tick.scheduled_at.day() == ledger.day).collect()
}

/// The result of every tick that a record tells. Kinds of a newer agent say nothing to us; malformed ones never passed
/// ingest.
pub fn results_in(item: &Item) -> Vec<Sample> {
    match (sample_in(item), item) {
        (Some(sample), _) => vec![sample],
        (None, Item::Other(bytes)) => summary_in(bytes).map(|summary| ticks(&summary)).unwrap_or_default(),
        (None, Item::Sample(_)) => Vec::new(),
    }
}

/// A sample may also have come as a record of its own, from another agent than ours.
fn sample_in(item: &Item) -> Option<Sample> {
    match item {
        Item::Sample(sample) => Some(*sample),
        Item::Other(_) => match convert::from_item(item) {
            Ok(Some(Record::Sample(sample))) => Some(sample),
            _ => None,
        },
    }
}

fn summary_in(bytes: &[u8]) -> Option<Summary> {
    match convert::from_spool(bytes) {
        Ok(Some(Record::Summary(summary))) => Some(summary),
        _ => None,
    }
}

/// The ticks of a summary as samples without times.
fn ticks(summary: &Summary) -> Vec<Sample> {
    let tick = |scheduled_at| Sample {
        check: summary.check,
        scheduled_at,
        delay: Millis::ZERO,
        outcome: summary.outcome(),
        phases: Phases::default(),
    };
    summary.ticks().map(tick).collect()
}
