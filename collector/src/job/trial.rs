//! What the tests of the jobs share: a store in a directory of its own, and records as an agent would send them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use peil_proto::block::{self, Item};
use peil_proto::convert;
use peil_proto::ids::{AgentId, CheckNo, Epoch, Seq};
use peil_proto::plan::{CheckDef, CheckKind, Tcp};
use peil_proto::record::{EnergyReading, Finding, PatchReport, Record};
use peil_proto::sample::{FailureKind, Outcome, Phases, Sample};
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::{Microjoules, Millis};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::agreement::{Agreement, InForce};
use crate::config::Config;
use crate::job::compact::{Compact, STEP_BLOCKS};
use crate::job::derive::Derive;
use crate::job::lead::{Lead, Leading};
use crate::job::progress::Tell;
use crate::presence::Presence;
use crate::store::Store;
use crate::store::agents::NewAgent;
use crate::store::blocks::{Appended, NewBlock};
use crate::store::leases::{CollectorRow, Holder};

/// 2026-04-15T12:00:00+02:00, a Wednesday.
pub(crate) const NOON: UtcTime = UtcTime(1_776_247_200_000);
pub(crate) const CHECK: CheckNo = CheckNo(1);
const INTERVAL_MS: u32 = 10_000;

pub(crate) fn agent(no: u8) -> AgentId {
    AgentId([no; 16])
}

/// One check, every ten seconds; a sample holds for 21 s.
pub(crate) fn checks() -> BTreeMap<CheckNo, CheckDef> {
    let kind = CheckKind::Tcp(Tcp { address: "h:1".into(), ..Tcp::default() });
    let check = CheckDef { no: CHECK, name: "web".into(), interval_ms: INTERVAL_MS, timeout_ms: 1_000, kind };
    BTreeMap::from([(CHECK, check)])
}

/// What was agreed: [`checks`] and nothing else.
pub(crate) fn in_force() -> watch::Receiver<Arc<InForce>> {
    in_force_every(10)
}

/// As [`in_force`], with another rhythm; a sample holds for two intervals and a second.
pub(crate) fn in_force_every(interval_s: u32) -> watch::Receiver<Arc<InForce>> {
    let text = format!("[[check]]\nname='web'\nkind='tcp'\naddress='h:1'\ninterval_s={interval_s}\ntimeout_s=1\n");
    let agreement = Agreement::new(&Config::parse("c", &text).expect("valid"), &[]).expect("makes sense");
    watch::channel(Arc::new(InForce { agreement, numbers: BTreeMap::from([("web".to_owned(), CHECK)]) })).1
}

/// A store, its clock, and the agents that send to it.
pub(crate) struct Trial {
    pub(crate) store: Store,
    pub(crate) clock: WallClock,
    /// A collector that holds everything.
    pub(crate) leading: Leading,
    dir: TempDir,
    next: BTreeMap<(AgentId, u64), u64>,
}

/// The only collector there is.
async fn lead(store: &Store) -> Leading {
    collector(store, "only").await.1
}

/// One of several collectors.
pub(crate) async fn collector(store: &Store, id: &str) -> (Lead, Leading) {
    let holder = Holder { id: id.into(), start: "1".into() };
    let me = CollectorRow { id: id.into(), name: "here".into(), version: "0".into(), started_at: NOON, seen_at: NOON };
    Lead::start(store.clone(), holder, me, Presence::default()).await.expect("leads")
}

impl Trial {
    /// At [`NOON`], with agents 1 and 2, in a directory.
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("opens");
        Self::with(store, dir).await
    }

    /// The same on a server.
    pub(crate) async fn on_server() -> Self {
        Self::with(crate::store::tests::fresh_on_server(), tempfile::tempdir().expect("a directory")).await
    }

    async fn with(store: Store, dir: TempDir) -> Self {
        for no in [1, 2] {
            let new = NewAgent {
                agent: agent(no),
                hostname: format!("host-{no}"),
                cert_serial: "01".into(),
                cert_not_after: NOON.plus(Millis::DAY),
            };
            store.register(new, "", NOON.plus(Millis(-Millis::DAY.0)), "test").await.expect("registered");
        }
        let leading = lead(&store).await;
        Self { store, clock: WallClock::manual(NOON), leading, dir, next: BTreeMap::new() }
    }

    /// Where the store is, for a second one that opens it as well.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Sends one block of `records` from the agent.
    pub(crate) async fn send(&mut self, from: AgentId, records: &[Record]) {
        self.send_in(from, 1, records).await;
    }

    /// As [`Trial::send`], in another generation of the spool: that is how records come out of order.
    pub(crate) async fn send_in(&mut self, from: AgentId, epoch: u64, records: &[Record]) {
        let first = *self.next.entry((from, epoch)).or_insert(1);
        let items: Vec<Item> =
            records.iter().map(|record| convert::to_item(&convert::to_spool(record)).expect("a record")).collect();
        self.send_bytes(from, epoch, first, records, block::encode(Seq(first), &items)).await;
    }

    /// Stores `bytes` as the block of `records`.
    pub(crate) async fn send_bytes(
        &mut self,
        from: AgentId,
        epoch: u64,
        first: u64,
        records: &[Record],
        bytes: Vec<u8>,
    ) {
        let moments: Vec<UtcTime> = records.iter().map(moment).collect();
        let count = u32::try_from(records.len()).expect("few");
        let block = NewBlock {
            agent: from,
            epoch: Epoch(epoch),
            first: Seq(first),
            records: count,
            received_at: self.clock.now(),
            from: moments.iter().copied().min().expect("one record"),
            to: moments.iter().copied().max().expect("one record"),
            told: Seq(0),
            bytes: bytes.into(),
        };
        let appended = self.store.append(block).await.expect("stored");
        assert!(matches!(appended, Appended::Stored { .. }), "{appended:?}");
        self.next.insert((from, epoch), first + u64::from(count));
    }

    /// The job that marks and derives.
    pub(crate) fn derive(&self, progress: &Tell) -> Derive {
        let (store, clock, leading) = (self.store.clone(), self.clock.clone(), self.leading.clone());
        Derive { store, clock, leading, progress: progress.clone() }
    }

    /// The job that makes days of blocks.
    pub(crate) fn compaction(&self, progress: &Tell) -> Compact {
        Compact {
            store: self.store.clone(),
            clock: self.clock.clone(),
            leading: self.leading.clone(),
            in_force: in_force(),
            daily_kept: Millis(1_000 * Millis::DAY.0),
            progress: progress.clone(),
            step_blocks: STEP_BLOCKS,
            stuck: BTreeSet::new(),
        }
    }

    /// Days that are over become day blocks, as far as they were judged; how many blocks went.
    pub(crate) async fn compact(&self) -> usize {
        let progress = Tell::default();
        self.derive(&progress).activate().await.expect("derived");
        self.compaction(&progress).activate().await.expect("compacts")
    }

    /// The number the agent's next record gets.
    pub(crate) fn next_seq(&self, from: AgentId) -> u64 {
        self.next.get(&(from, 1)).copied().unwrap_or(1)
    }
}

fn moment(record: &Record) -> UtcTime {
    match record {
        Record::Sample(sample) => sample.scheduled_at,
        Record::Patch(report) => report.scanned_at,
        Record::Energy(reading) => reading.end,
        Record::Vitals(vitals) => vitals.at,
        Record::Detail(detail) => detail.scheduled_at,
        Record::Gap(gap) => gap.to,
        Record::Summary(summary) => summary.last(),
        Record::Facts(_) => NOON,
    }
}

/// A sample `secs` after [`NOON`].
pub(crate) fn sample(secs: i64, outcome: Outcome) -> Record {
    let scheduled_at = NOON.plus(Millis::from_secs(secs));
    Record::Sample(Sample { check: CHECK, scheduled_at, delay: Millis::ZERO, outcome, phases: Phases::default() })
}

pub(crate) fn up(secs: i64) -> Record {
    sample(secs, Outcome::Up { code: 0 })
}

pub(crate) fn down(secs: i64) -> Record {
    sample(secs, Outcome::Failed { kind: FailureKind::Refused, code: 0 })
}

/// `uj` over the minute that begins `minute` minutes after [`NOON`].
pub(crate) fn energy(minute: i64, uj: u64) -> Record {
    let start = NOON.plus(Millis(minute * Millis::MINUTE.0));
    let energy = Microjoules(uj);
    Record::Energy(EnergyReading {
        source: "rapl".into(),
        start,
        end: start.plus(Millis::MINUTE),
        energy,
        low: energy,
        high: energy,
        active: Millis::MINUTE,
        ..EnergyReading::default()
    })
}

/// A report `days` after [`NOON`] in which these packages lack a fix.
pub(crate) fn patch(days: i64, packages: &[&str]) -> Record {
    let finding = |package: &&str| Finding {
        source: (*package).to_owned(),
        package: (*package).to_owned(),
        arch: "amd64".into(),
        installed: "1".into(),
        security_version: "2".into(),
        ..Finding::default()
    };
    Record::Patch(PatchReport {
        scanned_at: NOON.plus(Millis(days * Millis::DAY.0)),
        findings: packages.iter().map(finding).collect(),
        known: true,
        ..PatchReport::default()
    })
}
