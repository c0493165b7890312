//! The ledger of gaps: what a full spool had to throw away, per check, until the collector has heard of it.
//!
//! One small file beside the spool, replaced as a whole (write beside, sync, rename, sync the directory) *before*
//! records go. It cannot be crowded out by the records themselves, which a Gap in the full spool could be. One entry per check,
//! widened by whatever goes next: a spool loses its oldest, so what is lost is one stretch.
//!
//! A file that cannot be read is told in the log and begun anew: the agent always starts. Counts may include a few records
//! twice when the agent stops between writing here and removing them there; the stretch is the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peil_proto::ids::CheckNo;
use peil_proto::record::Gap;
use peil_proto::sample::GapReason;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use tracing::warn;

/// First line of the file; another means another version.
const HEAD: &str = "peil-gaps 1";

/// Shared by the spool, which writes, and the recorder, which tells; both run on one thread.
#[derive(Clone)]
pub struct Ledger(Arc<Mutex<Inner>>);

struct Inner {
    path: PathBuf,
    age_max: Millis,
    /// By check number; 0 holds what was about no check.
    entries: BTreeMap<u32, Gap>,
}

impl Ledger {
    /// The ledger in `path`; records older than `age_max` are dropped into it.
    pub fn open(path: PathBuf, age_max: Millis) -> Self {
        let entries = match std::fs::read_to_string(&path) {
            Ok(text) => read(&text).unwrap_or_else(|| {
                warn!(path = %path.display(), "the ledger of gaps cannot be read; it is begun anew");
                BTreeMap::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                warn!(path = %path.display(), %error, "the ledger of gaps cannot be read; it is begun anew");
                BTreeMap::new()
            }
        };
        Self(Arc::new(Mutex::new(Inner { path, age_max, entries })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unacked records older than this are not kept.
    pub(super) fn age_max(&self) -> Millis {
        self.lock().age_max
    }

    /// Adds losses, durable when this returns.
    pub(super) fn add(&self, losses: &[Gap]) -> io::Result<()> {
        if losses.is_empty() {
            return Ok(());
        }
        let mut inner = self.lock();
        let mut entries = inner.entries.clone();
        for loss in losses {
            let entry = entries.entry(loss.check.map_or(0, |check| check.0)).or_insert(Gap {
                records_lost: 0,
                ok_lost: 0,
                not_ok_lost: 0,
                ..*loss
            });
            entry.from = entry.from.min(loss.from);
            entry.to = entry.to.max(loss.to);
            entry.records_lost = entry.records_lost.saturating_add(loss.records_lost);
            entry.ok_lost = entry.ok_lost.saturating_add(loss.ok_lost);
            entry.not_ok_lost = entry.not_ok_lost.saturating_add(loss.not_ok_lost);
        }
        inner.write(&entries)?;
        inner.entries = entries;
        Ok(())
    }

    /// What it holds.
    pub fn gaps(&self) -> Vec<Gap> {
        self.lock().entries.values().copied().collect()
    }

    /// Forgets what was told; what was added since stays.
    pub(super) fn told(&self, gaps: &[Gap]) -> io::Result<()> {
        let mut inner = self.lock();
        let mut entries = inner.entries.clone();
        for told in gaps {
            let check = told.check.map_or(0, |check| check.0);
            let Some(entry) = entries.get_mut(&check) else { continue };
            entry.records_lost = entry.records_lost.saturating_sub(told.records_lost);
            entry.ok_lost = entry.ok_lost.saturating_sub(told.ok_lost);
            entry.not_ok_lost = entry.not_ok_lost.saturating_sub(told.not_ok_lost);
            if entry.records_lost == 0 {
                entries.remove(&check);
            }
        }
        inner.write(&entries)?;
        inner.entries = entries;
        Ok(())
    }
}

impl Inner {
    fn write(&self, entries: &BTreeMap<u32, Gap>) -> io::Result<()> {
        let mut text = format!("{HEAD}\n");
        for (check, gap) in entries {
            let Gap { from, to, records_lost, ok_lost, not_ok_lost, .. } = gap;
            text.push_str(&format!("{check} {} {} {records_lost} {ok_lost} {not_ok_lost}\n", from.0, to.0));
        }
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn read(text: &str) -> Option<BTreeMap<u32, Gap>> {
    let mut lines = text.lines();
    lines.next().filter(|head| *head == HEAD)?;
    lines
        .map(|line| {
            let mut numbers = line.split(' ');
            let check: u32 = numbers.next()?.parse().ok()?;
            let mut time = || numbers.next()?.parse().ok().map(UtcTime);
            let (from, to) = (time()?, time()?);
            let mut count = || numbers.next()?.parse::<u64>().ok();
            let (records_lost, ok_lost, not_ok_lost) = (count()?, count()?, count()?);
            let check_no = (check != 0).then_some(CheckNo(check));
            let gap =
                Gap { from, to, reason: GapReason::SpoolFull, check: check_no, records_lost, ok_lost, not_ok_lost };
            Some((check, gap))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(check: u32, from: i64, to: i64, ok: u64) -> Gap {
        let gap = Gap::new(UtcTime(from), UtcTime(to), GapReason::SpoolFull);
        Gap { check: (check != 0).then_some(CheckNo(check)), records_lost: ok + 1, ok_lost: ok, not_ok_lost: 1, ..gap }
    }

    #[test]
    fn losses_of_a_check_grow_into_one_gap_that_survives_a_restart() {
        let place = tempfile::tempdir().expect("directory");
        let path = place.path().join("gaps");
        let ledger = Ledger::open(path.clone(), Millis::DAY);
        ledger.add(&[loss(1, 10, 20, 2), loss(0, 5, 6, 0)]).expect("written");
        ledger.add(&[loss(1, 30, 40, 3)]).expect("written");
        let again = Ledger::open(path.clone(), Millis::DAY);
        let of_one = Gap { records_lost: 7, ok_lost: 5, not_ok_lost: 2, ..loss(1, 10, 40, 0) };
        assert_eq!(again.gaps(), [loss(0, 5, 6, 0), of_one]);
        let told = again.gaps();
        again.add(&[loss(1, 50, 60, 1)]).expect("written");
        again.told(&told).expect("written");
        let left = Gap { from: UtcTime(10), ..loss(1, 50, 60, 1) };
        assert_eq!(Ledger::open(path, Millis::DAY).gaps(), [left], "what was added meanwhile is still to be told");
    }

    #[test]
    fn a_ledger_that_cannot_be_read_is_begun_anew_and_one_that_cannot_be_written_says_so() {
        let place = tempfile::tempdir().expect("directory");
        let path = place.path().join("gaps");
        for text in ["", "peil-gaps 2\n", "peil-gaps 1\n1 2\n", "peil-gaps 1\n1 x 3 0 0 0\n"] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(Ledger::open(path.clone(), Millis::DAY).gaps(), [], "{text:?}");
        }
        let nowhere = Ledger::open(place.path().join("not-there/gaps"), Millis::DAY);
        assert!(nowhere.add(&[loss(1, 1, 2, 0)]).is_err());
        assert_eq!(nowhere.gaps(), [], "what is not durable is not there");
    }
}
