//! What records mean to a spool that is too full: which can be folded together, which can go, and what is then missing.
//!
//! Routine is a success that follows a success. A success after anything else is a change of state and stays as it is, so
//! the ends of every outage survive as long as its failures do. Folding keeps every tick ([`Summary`]) and loses only
//! which of them took how long; what goes after that is added to the [`Ledger`] before it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use peil_proto::convert;
use peil_proto::ids::CheckNo;
use peil_proto::record::{Gap, Record};
use peil_proto::sample::{GapReason, Sample, State};
use peil_proto::summary::Summary;
use peil_proto::time::{UtcTime, WallClock};

use super::Ledger;
use crate::spool::{Digest, Thin};

/// See the [module](self).
#[derive(Clone)]
pub(super) struct RecordDigest {
    ledger: Ledger,
    clock: WallClock,
}

impl RecordDigest {
    pub(super) fn new(ledger: Ledger, clock: WallClock) -> Self {
        Self { ledger, clock }
    }
}

impl Digest for RecordDigest {
    fn thin(&mut self, records: &[Vec<u8>], how: Thin) -> io::Result<Vec<Vec<u8>>> {
        if how == Thin::Fold {
            return Ok(fold(records));
        }
        let mut changes = Changes::default();
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for bytes in records {
            let record = convert::from_spool(bytes).ok().flatten();
            let stays = match &record {
                Some(Record::Sample(sample)) => !changes.is_routine(sample),
                Some(Record::Gap(_) | Record::Patch(_) | Record::Detail(_)) => true,
                Some(Record::Summary(_) | Record::Energy(_) | Record::Facts(_) | Record::Vitals(_)) | None => false,
            };
            if stays { kept.push(bytes.clone()) } else { gone.push(bytes.clone()) }
        }
        if kept.is_empty() {
            // A segment has a record. The newest tells most.
            kept.extend(gone.pop());
        }
        self.forget(&gone)?;
        Ok(kept)
    }

    fn forget(&mut self, records: &[Vec<u8>]) -> io::Result<()> {
        let mut losses = BTreeMap::new();
        for bytes in records {
            let loss = loss(convert::from_spool(bytes).ok().flatten().as_ref(), self.clock.now());
            let sum: &mut Gap =
                losses.entry(loss.check).or_insert(Gap { records_lost: 0, ok_lost: 0, not_ok_lost: 0, ..loss });
            (sum.from, sum.to) = (sum.from.min(loss.from), sum.to.max(loss.to));
            sum.records_lost += loss.records_lost;
            sum.ok_lost += loss.ok_lost;
            sum.not_ok_lost += loss.not_ok_lost;
        }
        self.ledger.add(&losses.into_values().collect::<Vec<_>>())
    }

    fn is_past(&self, record: &[u8]) -> bool {
        let at = convert::from_spool(record).ok().flatten().as_ref().and_then(moment);
        at.is_some_and(|at| self.clock.now().since(at) > self.ledger.age_max())
    }
}

/// Which successes are changes.
#[derive(Default)]
struct Changes {
    not_up: BTreeSet<CheckNo>,
}

impl Changes {
    /// Whether a sample is a success that follows a success, as far as these records tell.
    fn is_routine(&mut self, sample: &Sample) -> bool {
        if sample.outcome.state() == State::Up {
            return !self.not_up.remove(&sample.check);
        }
        self.not_up.insert(sample.check);
        false
    }
}

/// A run of routine successes; its first sample as it stands in the spool, for a run of one stays what it is.
struct Run {
    summary: Summary,
    first: Vec<u8>,
}

impl Run {
    fn into_record(self) -> Vec<u8> {
        if self.summary.count == 1 { self.first } else { convert::to_spool(&Record::Summary(self.summary)) }
    }
}

/// Folds routine successes; everything else stays, and so does the order of what is said about one check.
fn fold(records: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut changes = Changes::default();
    let mut runs: BTreeMap<CheckNo, Run> = BTreeMap::new();
    let mut kept = Vec::new();
    for bytes in records {
        let Ok(Some(Record::Sample(sample))) = convert::from_spool(bytes) else {
            kept.push(bytes.clone());
            continue;
        };
        let routine = changes.is_routine(&sample);
        if routine && runs.get_mut(&sample.check).is_some_and(|run| run.summary.take(&sample)) {
            continue;
        }
        kept.extend(runs.remove(&sample.check).map(Run::into_record));
        match Summary::of(&sample).filter(|_| routine) {
            Some(summary) => drop(runs.insert(sample.check, Run { summary, first: bytes.clone() })),
            None => kept.push(bytes.clone()),
        }
    }
    kept.extend(runs.into_values().map(Run::into_record));
    kept
}

/// What is missing when a record goes.
fn loss(record: Option<&Record>, now: UtcTime) -> Gap {
    let whole = |from, to| Gap { records_lost: 1, ..Gap::new(from, to, GapReason::SpoolFull) };
    match record {
        Some(Record::Sample(sample)) => {
            let up = u64::from(sample.outcome.state() == State::Up);
            let gap = whole(sample.scheduled_at, sample.scheduled_at);
            Gap { check: Some(sample.check), ok_lost: up, not_ok_lost: 1 - up, ..gap }
        }
        Some(Record::Summary(summary)) => {
            let gap = whole(summary.first, summary.last());
            Gap { check: Some(summary.check), ok_lost: summary.count.into(), ..gap }
        }
        Some(Record::Gap(gap)) => *gap,
        Some(other) => {
            let at = moment(other).unwrap_or(now);
            whole(at, at)
        }
        None => whole(now, now),
    }
}

fn moment(record: &Record) -> Option<UtcTime> {
    match record {
        Record::Sample(sample) => Some(sample.scheduled_at),
        Record::Summary(summary) => Some(summary.last()),
        Record::Gap(gap) => Some(gap.to),
        Record::Detail(detail) => Some(detail.scheduled_at),
        Record::Patch(report) => Some(report.scanned_at),
        Record::Energy(reading) => Some(reading.end),
        Record::Vitals(vitals) => Some(vitals.at),
        Record::Facts(_) => None,
    }
}

#[cfg(test)]
mod tests;
