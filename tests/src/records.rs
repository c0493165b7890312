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
    let mut ask = db.prepare("SELECT agent, epoch, first_seq, skip, bytes FROM block ORDER BY id")?;
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
