//! What is really in the store: read from the database file, record by record, without the collector's own code.
//!
//! Only the block decoder is shared (it is the file format). Rows are read as they lie; what must hold between them is
//! checked by [`Stream::check`], not assumed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use peil_proto::block::{self, Item};
use peil_proto::convert;
use peil_proto::ids::{AgentId, CheckNo, SEQ_JUMP};
use peil_proto::record::{Gap, Record};
use peil_proto::sample::Sample;
use peil_proto::time::UtcTime;
use rusqlite::{Connection, OpenFlags};

/// All records of one agent's epoch, in the order of storing, with their numbers.
pub struct Stream {
    /// Whose.
    pub agent: AgentId,
    /// Generation of its spool.
    pub epoch: u64,
    /// The collector's mark.
    pub acked: u64,
    /// What the mark's row says is stored, and lost.
    pub counted: (u64, u64),
    /// What is stored.
    pub records: Vec<(u64, Item)>,
}

/// Opens the store beside a collector that may be running.
///
/// # Errors
/// When it cannot be opened.
pub fn open(database: &Path) -> anyhow::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(database, flags);
    db.with_context(|| format!("cannot open {}", database.display()))
}

/// The newest acked record of each agent, of the one epoch it has, counted as stored without a loss.
///
/// # Errors
/// When a row cannot be read, or says something else.
pub fn marks(database: &Path) -> anyhow::Result<BTreeMap<AgentId, u64>> {
    let db = open(database)?;
    let mut ask = db.prepare("SELECT agent, acked, records, lost FROM agent_stream")?;
    let mut rows = ask.query([])?;
    let mut marks = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (agent, acked) = (AgentId(row.get(0)?), row.get::<_, i64>(1)?);
        let counted: (i64, i64) = (row.get(2)?, row.get(3)?);
        ensure!(counted == (acked, 0), "{agent}: the mark {acked} counts {counted:?}");
        ensure!(marks.insert(agent, acked.cast_unsigned()).is_none(), "{agent} has two epochs");
    }
    Ok(marks)
}

/// Reads every stream.
///
/// # Errors
/// When a row or a block cannot be read.
pub fn streams(database: &Path) -> anyhow::Result<Vec<Stream>> {
    let db = open(database)?;
    // One transaction: marks and blocks of one moment.
    let db = db.unchecked_transaction()?;
    let mut streams = BTreeMap::new();
    let mut ask = db.prepare("SELECT agent, epoch, acked, records, lost FROM agent_stream")?;
    let mut rows = ask.query([])?;
    while let Some(row) = rows.next()? {
        let (agent, epoch) = (AgentId(row.get(0)?), row.get::<_, i64>(1)?.cast_unsigned());
        let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        let stream = Stream { agent, epoch, acked: number(2)?, counted: (number(3)?, number(4)?), records: Vec::new() };
        streams.insert((agent, epoch), stream);
    }
    let mut ask = db.prepare("SELECT agent, epoch, first_seq, skip, bytes FROM block ORDER BY no")?;
    let mut rows = ask.query([])?;
    while let Some(row) = rows.next()? {
        let key = (AgentId(row.get(0)?), row.get::<_, i64>(1)?.cast_unsigned());
        let stream = streams.get_mut(&key).context("a block without a mark")?;
        let block = block::decode(&row.get::<_, Vec<u8>>(4)?)?;
        ensure!(block.first.0 == row.get::<_, i64>(2)?.cast_unsigned(), "a block under another number");
        let numbered = (block.first.0..).zip(block.items);
        stream.records.extend(numbered.skip(row.get::<_, i64>(3)?.try_into()?));
    }
    Ok(streams.into_values().collect())
}

impl Stream {
    /// Every number from 1 to the mark exactly once and in order; `jumps` holes of [`SEQ_JUMP`] are allowed. No sample twice.
    ///
    /// # Errors
    /// The first number, or the first sample, for which this is not so.
    pub fn check(&self, jumps: usize) -> anyhow::Result<()> {
        let (mut last, mut jumped) = (0, 0);
        for (seq, _) in &self.records {
            if *seq == last + 1 + SEQ_JUMP {
                jumped += 1;
            } else {
                ensure!(*seq == last + 1, "record {seq} follows {last}");
            }
            last = *seq;
        }
        ensure!(jumped <= jumps, "{jumped} jumps of the numbering, {jumps} were told");
        ensure!(last == self.acked, "the last record is {last}, acked is {}", self.acked);
        let stored = u64::try_from(self.records.len())?;
        ensure!(self.counted == (stored, 0), "the mark counts {:?}, stored are {stored}", self.counted);
        for (check, at) in self.ticks() {
            for pair in at.windows(2) {
                ensure!(pair[0] != pair[1], "check {check} has two samples for {}", pair[0]);
            }
        }
        Ok(())
    }

    /// All samples, in order of their numbers.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.records.iter().filter_map(|(_, item)| match item {
            Item::Sample(sample) => Some(sample),
            Item::Other(_) => None,
        })
    }

    /// Scheduled moments per check, sorted, repeated ones repeated.
    pub fn ticks(&self) -> BTreeMap<CheckNo, Vec<UtcTime>> {
        let mut ticks: BTreeMap<CheckNo, Vec<UtcTime>> = BTreeMap::new();
        for sample in self.samples() {
            ticks.entry(sample.check).or_default().push(sample.scheduled_at);
        }
        ticks.values_mut().for_each(|at| at.sort_unstable());
        ticks
    }

    /// What the agent says is missing.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn gaps(&self) -> anyhow::Result<Vec<Gap>> {
        let mut gaps = Vec::new();
        for (_, item) in &self.records {
            if let Some(Record::Gap(gap)) = convert::from_item(item)? {
                gaps.push(gap);
            }
        }
        Ok(gaps)
    }

    /// Stretches between two samples of a check that are not one interval apart, and that no gap covers.
    /// A gap tells of the moment when nobody looked; the ticks around it lie up to an interval outside.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn holes(&self, interval_ms: i64) -> anyhow::Result<Vec<(CheckNo, UtcTime, UtcTime)>> {
        let gaps = self.gaps()?;
        let told = |check, from: UtcTime, to: UtcTime| {
            gaps.iter().filter(|gap| gap.check.is_none_or(|own| own == check)).any(|gap| {
                gap.from.0 - interval_ms <= from.0 + interval_ms && to.0 - interval_ms <= gap.to.0 + interval_ms
            })
        };
        let mut holes = Vec::new();
        for (check, at) in self.ticks() {
            let breaks = at.windows(2).map(|pair| (pair[0], pair[1])).filter(|(a, b)| b.0 - a.0 != interval_ms);
            holes.extend(breaks.filter(|(a, b)| !told(check, *a, *b)).map(|(a, b)| (check, a, b)));
        }
        Ok(holes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peil_proto::sample::{GapReason, Outcome, Phases};
    use peil_proto::units::Millis;

    fn sample(check: u32, at: i64) -> Item {
        Item::Sample(Sample {
            check: CheckNo(check),
            scheduled_at: UtcTime(at),
            delay: Millis(0),
            outcome: Outcome::Up { code: 0 },
            phases: Phases::default(),
        })
    }

    fn gap(from: i64, to: i64) -> Item {
        let reason = GapReason::AgentStopped;
        let gap = Gap::new(UtcTime(from), UtcTime(to), reason);
        convert::to_item(&convert::to_spool(&Record::Gap(gap))).unwrap()
    }

    fn stream(records: Vec<(u64, Item)>) -> Stream {
        let acked = records.last().map_or(0, |(seq, _)| *seq);
        let stored = records.len() as u64;
        Stream { agent: AgentId([1; 16]), epoch: 1, acked, counted: (stored, 0), records }
    }

    #[test]
    fn what_is_lost_doubled_or_miscounted_is_found() {
        let good = || vec![(1, sample(1, 0)), (2, sample(2, 0)), (3, sample(1, 1_000))];
        stream(good()).check(0).unwrap();

        let refused = |records, words: &str| {
            let error = stream(records).check(0).unwrap_err().to_string();
            assert!(error.contains(words), "{words:?} is not in {error:?}");
        };
        let mut missing = good();
        missing.remove(1);
        refused(missing, "record 3 follows 1");
        let mut twice = good();
        twice.insert(1, (1, sample(1, 0)));
        refused(twice, "record 1 follows 1");
        let mut doubled = good();
        doubled.push((4, sample(1, 1_000)));
        refused(doubled, "check 1 has two samples for");

        let mut behind = stream(good());
        behind.acked = 4;
        assert!(behind.check(0).is_err(), "acked and not there");
        let mut lost = stream(good());
        lost.counted = (3, 1);
        assert!(lost.check(0).is_err(), "counted as lost");
    }

    #[test]
    fn a_jump_of_the_numbering_is_allowed_as_often_as_it_was_told() {
        let records = || vec![(1, sample(1, 0)), (2 + SEQ_JUMP, sample(1, 1_000))];
        stream(records()).check(1).unwrap();
        assert!(stream(records()).check(0).is_err());
    }

    #[test]
    fn a_hole_is_one_unless_a_gap_tells_of_it() {
        let before = || vec![(1, sample(1, 0)), (2, sample(1, 1_000))];
        assert_eq!(stream(before()).holes(1_000).unwrap(), []);
        let mut hole = before();
        hole.push((3, sample(1, 6_000)));
        assert_eq!(stream(hole).holes(1_000).unwrap(), [(CheckNo(1), UtcTime(1_000), UtcTime(6_000))]);
        for (from, to, told) in [(1_100, 5_900, true), (1_100, 3_000, false), (4_000, 5_900, false)] {
            let mut records = before();
            records.extend([(3, gap(from, to)), (4, sample(1, 6_000))]);
            assert_eq!(stream(records).holes(1_000).unwrap().is_empty(), told, "a gap from {from} to {to}");
        }
    }
}
