//! The database refuses to write for a while. Afterwards everything is as if it never had.

use std::collections::BTreeMap;

use peil_collector::job::judge::Judge;
use peil_collector::job::lead::Lead;
use peil_collector::presence::Presence;
use peil_collector::store::Store;
use peil_collector::store::agents::NewAgent;
use peil_collector::store::blocks::NewBlock;
use peil_collector::store::leases::{CollectorRow, Holder};
use peil_proto::block;
use peil_proto::convert;
use peil_proto::ids::{AgentId, Epoch, Seq};
use peil_proto::record::{EnergyReading, Finding, PatchReport, Record};
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::{Microjoules, Millis};

const AGENT: AgentId = AgentId([1; 16]);
const HOUR: UtcTime = UtcTime(1_776_247_200_000);

/// Lets every write of `table` fail, until [`allow`].
fn refuse(database: &rusqlite::Connection, table: &str) {
    let trigger =
        format!("CREATE TRIGGER refuse BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'refused by the test'); END");
    database.execute_batch(&trigger).expect("made");
}

fn allow(database: &rusqlite::Connection) {
    database.execute_batch("DROP TRIGGER refuse").expect("dropped");
}

async fn send(store: &Store, seq: u64, record: &Record, at: UtcTime) {
    let bytes = block::encode(Seq(seq), &[convert::to_item(&convert::to_spool(record)).expect("a record")]);
    let (first, bytes) = (Seq(seq), bytes.into());
    let block = NewBlock {
        agent: AGENT,
        epoch: Epoch(1),
        first,
        records: 1,
        received_at: at,
        from: at,
        to: at,
        told: Seq(0),
        bytes,
    };
    store.append(block).await.expect("stored");
}

fn reading(minute: i64) -> (Record, UtcTime) {
    let start = HOUR.plus(Millis(minute * Millis::MINUTE.0));
    let end = start.plus(Millis::MINUTE);
    let energy = Microjoules(100);
    let source = "rapl".to_owned();
    let reading = EnergyReading { source, start, end, energy, low: energy, high: energy, ..EnergyReading::default() };
    (Record::Energy(reading), end)
}

fn report(minute: i64, installed: &str) -> (Record, UtcTime) {
    let scanned_at = HOUR.plus(Millis(minute * Millis::MINUTE.0));
    let finding = Finding {
        source: "ssl".into(),
        package: "ssl".into(),
        installed: installed.into(),
        security_version: "9".into(),
        ..Finding::default()
    };
    (
        Record::Patch(PatchReport { scanned_at, findings: vec![finding], known: true, ..PatchReport::default() }),
        scanned_at,
    )
}

#[tokio::test]
async fn a_page_whose_judgement_could_not_be_written_is_folded_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("opens");
    let new = NewAgent {
        agent: AGENT,
        hostname: "host".into(),
        cert_serial: "01".into(),
        cert_not_after: HOUR.plus(Millis::DAY),
    };
    store.register(new, "", HOUR, "test").await.expect("registered");
    let clock = WallClock::manual(HOUR.plus(Millis::HOUR));
    let holder = Holder { id: "only".into(), start: "1".into() };
    let me =
        CollectorRow { id: "only".into(), name: "here".into(), version: "0".into(), started_at: HOUR, seen_at: HOUR };
    let (_lead, leading) = Lead::start(store.clone(), holder, me, Presence::default()).await.expect("leads");
    let term = Millis(14 * Millis::DAY.0);
    let mut judge = Judge::start(store.clone(), clock, BTreeMap::new(), term, leading).await.expect("starts");
    let database = rusqlite::Connection::open(dir.path().join("peil.db")).expect("opens");

    let (first, at) = reading(0);
    send(&store, 1, &first, at).await;
    let (old, at) = report(1, "1");
    send(&store, 2, &old, at).await;
    refuse(&database, "watermark");
    for _ in 0..3 {
        judge.activate().await.expect_err("the write is refused");
    }
    let (second, at) = reading(2);
    send(&store, 3, &second, at).await;
    let (new, at) = report(3, "2");
    send(&store, 4, &new, at).await;
    judge.activate().await.expect_err("the write is refused");
    assert_eq!(store.energy_hours(HOUR).await.expect("read"), [], "nothing of a refused judgement is there");
    allow(&database);
    judge.activate().await.expect("the write is taken");

    let hours = store.energy_hours(HOUR).await.expect("read");
    assert_eq!(hours.iter().map(|row| row.energy).collect::<Vec<_>>(), [Microjoules(200)]);
    let in_memory = &judge.live().host(AGENT).expect("a host").hours;
    assert_eq!(in_memory.values().map(|hour| hour.energy).collect::<Vec<_>>(), [Microjoules(200)]);
    let findings = store.open_findings().await.expect("read");
    assert_eq!(findings.iter().map(|row| row.installed.as_str()).collect::<Vec<_>>(), ["2"]);
    assert_eq!(store.judged_through().await.expect("read").blocks(), 4);
}
