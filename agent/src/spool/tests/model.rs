//! The spool beside a model of three lines (what was appended, what is durable, what was released),
//! under random operations, failing calls, and crashes at any point.

use std::collections::BTreeMap;
use std::io;

use peil_proto::ids::{Epoch, Seq};
use proptest::prelude::*;

use super::fake_disk::FakeDisk;
use super::{MACHINE, SMALL, payload};
use crate::spool::{Beginning, Limits, Recovery, SeqRange, Spool};

#[derive(Debug, Clone)]
enum Op {
    Append,
    Sync,
    Read {
        records_max: usize,
        bytes_max: usize,
    },
    /// Release this many of the unreleased durable records.
    Release(u64),
    /// After some changes a few fail.
    Fail {
        spared: u32,
        times: u32,
        full: bool,
    },
    /// The power goes after some changes.
    DieAfter(u32),
    Crash(u64),
    /// The process ends at once; the cache survives.
    Kill,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => Just(Op::Append),
        6 => Just(Op::Sync),
        3 => (1_usize..6, 0_usize..400).prop_map(|(records_max, bytes_max)| Op::Read { records_max, bytes_max }),
        3 => (0_u64..12).prop_map(Op::Release),
        1 => (0_u32..6, 1_u32..4, any::<bool>()).prop_map(|(spared, times, full)| Op::Fail { spared, times, full }),
        1 => (0_u32..12).prop_map(Op::DieAfter),
        1 => any::<u64>().prop_map(Op::Crash),
        1 => Just(Op::Kill),
    ]
}

struct World {
    disk: FakeDisk,
    spool: Spool,
    epoch: Epoch,
    /// Next payload number.
    payloads: u64,
    /// What the newest bearer of each sequence holds.
    appended: BTreeMap<u64, Vec<u8>>,
    durable: u64,
    /// Released, and the cursor written.
    released: u64,
    handed_out: BTreeMap<u64, Vec<u8>>,
    dropped: Vec<SeqRange>,
}

impl World {
    fn new(limits: Limits) -> Self {
        let disk = FakeDisk::default();
        let (spool, recovery) = Spool::open_on(Box::new(disk.clone()), MACHINE, limits).unwrap();
        assert_eq!(recovery.beginning, Beginning::Created);
        Self {
            epoch: spool.epoch(),
            disk,
            spool,
            payloads: 0,
            appended: BTreeMap::new(),
            durable: 0,
            released: 0,
            handed_out: BTreeMap::new(),
            dropped: Vec::new(),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Append => {
                self.payloads += 1;
                if let Ok(seq) = self.spool.append(&payload(self.payloads)) {
                    let newest = self.handed_out.keys().next_back().copied().unwrap_or(0);
                    assert!(seq.0 > newest, "{seq} was handed out before");
                    self.appended.insert(seq.0, payload(self.payloads));
                }
                self.durable = self.spool.durable().0;
            }
            Op::Sync => {
                let writes = self.spool.last() > self.spool.durable();
                if let Ok(through) = self.spool.sync() {
                    assert_eq!(through, self.spool.last());
                    self.durable = through.0;
                    assert!(!writes || self.spool.bytes() <= SMALL.bytes_max);
                }
            }
            Op::Read { records_max, bytes_max } => {
                let after = self.handed_out.keys().next_back().copied().unwrap_or(0);
                let got = self.spool.read_after(Seq(after), records_max, bytes_max).unwrap();
                self.check_handed_out(&got);
                assert!(got.len() <= records_max);
                let bytes: usize = got.iter().map(|(_, payload)| payload.len()).sum();
                assert!(got.len() <= 1 || bytes <= bytes_max);
            }
            Op::Release(records) => {
                let through = (self.spool.acked().0 + records).min(self.durable);
                if self.spool.release(Seq(through)).is_ok() {
                    self.released = self.released.max(through);
                }
            }
            Op::Fail { spared, times, full } => {
                let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
                self.disk.fail(spared, times, kind);
            }
            Op::DieAfter(spared) => self.disk.die_after(spared),
            Op::Crash(seed) => {
                self.disk.crash(seed);
                self.reopen();
            }
            Op::Kill => {
                self.disk.kill();
                self.reopen();
            }
        }
        let dropped = self.spool.take_dropped();
        self.dropped.extend(dropped);
    }

    /// Durable content in order, never twice, never changed.
    fn check_handed_out(&mut self, got: &[(Seq, Vec<u8>)]) {
        assert!(got.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (seq, payload) in got {
            assert!(seq.0 <= self.durable && seq.0 > self.released, "{seq}");
            assert_eq!(Some(payload), self.appended.get(&seq.0), "{seq}");
            assert_eq!(self.handed_out.entry(seq.0).or_insert_with(|| payload.clone()), payload, "{seq} changed");
        }
    }

    fn reopen(&mut self) -> Recovery {
        let (spool, recovery) = Spool::open_on(Box::new(self.disk.clone()), MACHINE, SMALL).unwrap();
        self.spool = spool;
        assert_eq!(self.spool.epoch(), self.epoch);
        assert_eq!(recovery.trouble, Vec::<String>::new());
        let durable_before = self.durable;
        self.durable = self.spool.durable().0.max(durable_before);
        self.check_everything(durable_before, &recovery);
        // What was appended but did not survive never left; its number may be used again.
        self.appended.retain(|seq, _| *seq <= self.spool.durable().0);
        self.durable = self.spool.durable().0;
        recovery
    }

    /// No durable unreleased record is missing, save those told to be dropped.
    fn check_everything(&mut self, durable: u64, recovery: &Recovery) {
        let mut all = Vec::new();
        let mut after = Seq(0);
        loop {
            let more = self.spool.read_after(after, 4, 300).unwrap();
            let Some((last, _)) = more.last() else { break };
            after = *last;
            all.extend(more);
        }
        self.check_handed_out(&all);
        let here: Vec<u64> = all.iter().map(|(seq, _)| seq.0).collect();
        assert_eq!(here.len() as u64, recovery.records);
        let told =
            |seq: u64, ranges: &[SeqRange]| ranges.iter().any(|range| range.first.0 <= seq && seq <= range.last.0);
        for seq in self.appended.keys().filter(|seq| **seq <= durable && **seq > self.released) {
            let dropped = told(*seq, &self.dropped);
            assert!(here.contains(seq) || dropped || *seq <= self.spool.acked().0, "{seq} is lost");
            assert!(!told(*seq, &recovery.lost) || dropped, "{seq} was told as lost");
        }
        let payloads: std::collections::BTreeSet<_> = all.iter().map(|(_, payload)| payload).collect();
        assert_eq!(payloads.len(), all.len(), "a record came twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_durable_record_is_lost_or_doubled_whatever_crashes(ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::new(SMALL);
        for op in &ops {
            world.apply(op);
        }
        world.apply(&Op::Crash(1));
        // And it works on: what is appended now comes out.
        world.apply(&Op::Append);
        world.apply(&Op::Sync);
        let last = world.spool.last();
        let read = world.spool.read_after(Seq(last.0 - 1), 1, 1_000).unwrap();
        prop_assert_eq!(read, vec![(last, payload(world.payloads))]);
    }
}
