//! Many blocks into few: one per check and day, and one per day for everything else.
//!
//! The input is what one agent sent, in any order and portions, and what was compacted of it before. The output
//! says the same (`peil_proto::block::day` tells what is given up), and is the same to the byte whatever the portions:
//! days compacted again with blocks that came late, or in two halves, end up as if all had come at once.
//!
//! A record goes to the day it is about; one that has no time, and kinds of a newer agent, to the day its block came; a
//! summary across midnight to both days, so that each day is whole by itself.
//! A sample that came as a record of its own becomes one like all others.
//!
//! A block must be taken in once only: nothing here can tell two samples from one that came twice. That is what the
//! mark and `skip` are for (`store/blocks.rs`).

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::block::Item;
use peil_proto::block::day::{CheckDay, DayBlock, DayError, Ledger, Span};
use peil_proto::convert;
use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::record::Record;
use peil_proto::sample::Sample;
use peil_proto::time::{UtcDay, UtcTime};
use peil_proto::units::Millis;

use super::{Came, Fold, Unreadable, results_in_ledger, sample_in};

/// The days of one agent, being put together.
#[derive(Debug, Clone, Default)]
pub struct Compaction {
    samples: BTreeMap<(UtcDay, CheckNo), Vec<Sample>>,
    ledgers: BTreeMap<UtcDay, Ledger>,
}

/// What a compacted block is about: together with the agent its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Everything that is no sample, and the ledger.
    Rest,
    /// The samples of one check.
    Check(CheckNo),
}

/// A compacted block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    /// Of which day.
    pub day: UtcDay,
    /// What of it.
    pub subject: Subject,
    /// Records in it.
    pub records: usize,
    /// The day block.
    pub bytes: Vec<u8>,
}

impl Compacted {
    /// The last moment it can speak about.
    pub fn to(&self) -> UtcTime {
        self.day.next().start().plus(Millis(-1))
    }
}

impl Compaction {
    /// Takes in a block as it came.
    ///
    /// # Errors
    /// [`Unreadable`], with nothing taken in: such a block stays as it is.
    pub fn take(&mut self, block: &Came) -> Result<(), Unreadable> {
        let items = block.items()?;
        let (days, count) = (days_in(&items, block.received_at), items.len());
        for (at, item) in items.into_iter().enumerate() {
            for day in days_of(&item, block.received_at) {
                match (sample_in(&item), &item) {
                    (Some(sample), _) => self.samples.entry((day, sample.check)).or_default().push(sample),
                    (None, Item::Other(bytes)) => {
                        self.ledger(day).others.insert((block.epoch, block.seq(at)), bytes.clone());
                    }
                    (None, Item::Sample(_)) => {}
                }
            }
        }
        for (day, records) in days {
            enter(self.ledger(day), block, count, records);
        }
        Ok(())
    }

    /// Takes in what was compacted before.
    pub fn take_day(&mut self, block: DayBlock) {
        match block {
            DayBlock::Check(CheckDay { check, day, samples }) => {
                self.samples.entry((day, check)).or_default().extend(samples);
            }
            DayBlock::Rest(ledger) => self.ledger(ledger.day).absorb(ledger),
        }
    }

    /// Folds in the results of the days before `before`.
    pub fn fold(&self, agent: AgentId, before: UtcDay, fold: &mut Fold) {
        let samples = self.samples.iter().filter(|((day, _), _)| *day < before).flat_map(|(_, samples)| samples);
        samples.for_each(|sample| fold.sample(agent, sample));
        for ledger in self.ledgers.values().filter(|ledger| ledger.day < before) {
            results_in_ledger(ledger).iter().for_each(|sample| fold.sample(agent, sample));
        }
    }

    /// The blocks there will be.
    pub fn subjects(&self) -> impl Iterator<Item = (UtcDay, Subject)> {
        let checks = self.samples.keys().map(|(day, check)| (*day, Subject::Check(*check)));
        checks.chain(self.ledgers.keys().map(|day| (*day, Subject::Rest)))
    }

    /// Writes the blocks.
    ///
    /// # Errors
    /// [`DayError::TooMany`] or [`DayError::TooLong`] when a day does not fit: then its blocks stay as they came.
    pub fn finish(self) -> Result<Vec<Compacted>, DayError> {
        let mut blocks = Vec::with_capacity(self.samples.len() + self.ledgers.len());
        for ((day, check), samples) in self.samples {
            let records = samples.len();
            let bytes = CheckDay { check, day, samples }.encode()?;
            blocks.push(Compacted { day, subject: Subject::Check(check), records, bytes });
        }
        for (day, ledger) in self.ledgers {
            let records = ledger.others.len();
            blocks.push(Compacted { day, subject: Subject::Rest, records, bytes: ledger.encode()? });
        }
        Ok(blocks)
    }

    fn ledger(&mut self, day: UtcDay) -> &mut Ledger {
        self.ledgers.entry(day).or_insert_with(|| Ledger::new(day))
    }
}

/// The days that records are about, and how many are about each.
pub fn days_in(items: &[Item], received_at: UtcTime) -> BTreeMap<UtcDay, u64> {
    let mut days: BTreeMap<UtcDay, u64> = BTreeMap::new();
    // Nearly all are samples, and of one day.
    let sample_day = |item: &Item| match item {
        Item::Sample(sample) => Some(sample.scheduled_at.day()),
        Item::Other(_) => None,
    };
    for alike in items.chunk_by(|a, b| sample_day(a) == sample_day(b)) {
        match sample_day(&alike[0]) {
            Some(day) => *days.entry(day).or_default() += alike.len() as u64,
            None => alike
                .iter()
                .flat_map(|item| days_of(item, received_at))
                .for_each(|day| *days.entry(day).or_default() += 1),
        }
    }
    days
}

/// Enters a block of `items` records of its own, of which `records` are about the day of the ledger.
pub fn enter(ledger: &mut Ledger, block: &Came, items: usize, records: u64) {
    let span = Span { place: block.place, first: block.seq(0), last: block.seq(items.saturating_sub(1)) };
    ledger.enter(block.epoch, span, block.skip, &block.bytes);
    ledger.records = ledger.records.saturating_add(records);
}

/// The days a record is about: one, but for a summary across midnight.
fn days_of(item: &Item, received_at: UtcTime) -> BTreeSet<UtcDay> {
    let (first, last) = match item {
        Item::Sample(sample) => (Some(sample.scheduled_at), None),
        Item::Other(_) => match convert::from_item(item).ok().flatten() {
            Some(Record::Summary(summary)) => (Some(summary.first), Some(summary.last())),
            other => (other.and_then(|record| record.about()), None),
        },
    };
    let first = first.unwrap_or(received_at);
    BTreeSet::from([first.day(), last.unwrap_or(first).day()])
}
