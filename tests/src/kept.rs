//! Whether a fleet's records are all in the store, each once: whatever became of the blocks they came in.
//!
//! Rows are read as they lie, without the collector's own code; only the decoders of both kinds of blocks are shared (they
//! are the file formats). A compacted day no longer says which number a sample had. The fleet's samples follow from
//! their numbers, so each tells its own, and must be to the last microsecond what was sent.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use peil_proto::block::day::{self, DayBlock};
use peil_proto::block::{self, Item};
use peil_proto::ids::AgentId;
use peil_proto::sample::Sample;

use crate::fleet::Plan;
use crate::records;

/// What is stored of a fleet.
#[derive(Default)]
pub struct Kept {
    samples: BTreeMap<AgentId, Vec<Sample>>,
    /// Days that were compacted.
    pub days: usize,
}

impl Kept {
    /// Reads a database file.
    ///
    /// # Errors
    /// When a row or a block cannot be read.
    pub fn in_file(database: &Path) -> anyhow::Result<Self> {
        let db = records::open(database)?;
        // One transaction: blocks and days of one moment.
        let db = db.unchecked_transaction()?;
        let mut kept = Self::default();
        let mut ask = db.prepare("SELECT agent, first_seq, skip, bytes FROM block")?;
        let mut rows = ask.query([])?;
        while let Some(row) = rows.next()? {
            kept.block(
                AgentId(row.get(0)?),
                row.get(1)?,
                row.get::<_, i64>(2)?.try_into()?,
                &row.get::<_, Vec<u8>>(3)?,
            )?;
        }
        let mut ask = db.prepare("SELECT agent, bytes FROM day_block")?;
        let mut rows = ask.query([])?;
        while let Some(row) = rows.next()? {
            kept.day(AgentId(row.get(0)?), &row.get::<_, Vec<u8>>(1)?)?;
        }
        Ok(kept)
    }

    /// Takes in a block as it came.
    ///
    /// # Errors
    /// When it cannot be read, is under another number, or has something else than samples.
    pub fn block(&mut self, agent: AgentId, first: i64, skip: usize, bytes: &[u8]) -> anyhow::Result<()> {
        let block = block::decode(bytes)?;
        ensure!(i64::try_from(block.first.0)? == first, "a block under another number");
        for item in block.items.into_iter().skip(skip) {
            let Item::Sample(sample) = item else { anyhow::bail!("{agent}: a record that is no sample") };
            self.samples.entry(agent).or_default().push(sample);
        }
        Ok(())
    }

    /// Takes in a compacted day.
    ///
    /// # Errors
    /// When it cannot be read, or has something else than samples.
    pub fn day(&mut self, agent: AgentId, bytes: &[u8]) -> anyhow::Result<()> {
        match day::decode(bytes)? {
            DayBlock::Check(day) => self.samples.entry(agent).or_default().extend(day.samples),
            DayBlock::Rest(ledger) => {
                ensure!(ledger.others.is_empty(), "{agent}: a record that is no sample");
                self.days += 1;
            }
        }
        Ok(())
    }

    /// Records 1 to `through` of agent `index` of the fleet, as `plan` has them, each once and no others.
    ///
    /// # Errors
    /// The first for which this is not so.
    pub fn check(&self, plan: &Plan, (index, agent): (u64, AgentId), through: u64) -> anyhow::Result<()> {
        let samples = self.samples.get(&agent).map(Vec::as_slice).unwrap_or_default();
        let mut numbered = BTreeMap::new();
        for sample in samples {
            let seq = plan.seq_of(sample).with_context(|| format!("agent {index} never sent {sample:?}"))?;
            ensure!(numbered.insert(seq, sample).is_none(), "agent {index}: record {seq} is there twice");
            ensure!(*sample == plan.sample(index, seq), "agent {index}: record {seq} is not what was sent: {sample:?}");
        }
        for (seq, expected) in numbered.keys().zip(1..) {
            ensure!(*seq == expected, "agent {index}: record {expected} is missing, {seq} is there");
        }
        let there = numbered.len() as u64;
        ensure!(there == through, "agent {index}: {there} records are there, {through} were acked");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use peil_proto::block::day::CheckDay;
    use peil_proto::ids::CheckNo;
    use peil_proto::time::UtcTime;

    use super::*;

    fn plan() -> Plan {
        // A day's last minute, and the next day.
        let since = UtcTime(1_776_211_200_000 - 60_000);
        Plan { url: String::new(), checks: vec![CheckNo(1), CheckNo(2)], since, records: 40, pause_ms_max: 1 }
    }

    #[test]
    fn a_record_that_is_missing_doubled_or_changed_is_found_in_blocks_and_in_days() {
        let (plan, agent) = (plan(), AgentId([1; 16]));
        let of_check = |no: u32, through: u64| -> Vec<Sample> {
            (1..=through).map(|seq| plan.sample(3, seq)).filter(|sample| sample.check == CheckNo(no)).collect()
        };
        let compacted = |samples: Vec<Sample>| {
            let (check, day) = (samples[0].check, samples[0].scheduled_at.day());
            CheckDay { check, day, samples }.encode().unwrap()
        };
        let good = || {
            let mut kept = Kept::default();
            kept.day(agent, &compacted(of_check(1, 12))).unwrap();
            kept.day(agent, &compacted(of_check(2, 12))).unwrap();
            kept.block(agent, 11, 2, &plan.block(3, 11, 40)).unwrap();
            kept
        };
        good().check(&plan, (3, agent), 40).unwrap();
        let refused = |kept: Kept, words: &str| {
            let error = kept.check(&plan, (3, agent), 40).unwrap_err().to_string();
            assert!(error.contains(words), "{words:?} is not in {error:?}");
        };
        let mut twice = good();
        twice.block(agent, 40, 0, &plan.block(3, 40, 40)).unwrap();
        refused(twice, "record 40 is there twice");
        let mut missing = good();
        missing.samples.get_mut(&agent).unwrap().remove(0);
        refused(missing, "record 1 is missing");
        let mut changed = good();
        changed.samples.get_mut(&agent).unwrap()[0].phases.connect = None;
        refused(changed, "record 1 is not what was sent");
        let mut never = good();
        never.samples.get_mut(&agent).unwrap()[0].scheduled_at = UtcTime(5);
        refused(never, "never sent");
        refused(Kept::default(), "0 records are there");
    }
}
