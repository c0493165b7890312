//! `peil-collector rebuild`: tells what is stored differently from the results, and mends it when asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use peil_collector::agreement::{Agreement, InForce};
use peil_collector::config::Config;
use peil_collector::job::compact::{Compact, STEP_BLOCKS};
use peil_collector::job::derive::Derive;
use peil_collector::job::judge::Judge;
use peil_collector::job::lead::Lead;
use peil_collector::job::progress::Tell;
use peil_collector::presence::Presence;
use peil_collector::store::Store;
use peil_collector::store::agents::NewAgent;
use peil_collector::store::blocks::NewBlock;
use peil_collector::store::latency::DerivedDays;
use peil_collector::store::leases::{CollectorRow, Holder};
use peil_proto::block::{self, Item};
use peil_proto::ids::{AgentId, CheckNo, Epoch, Seq};
use peil_proto::sample::{Outcome, Phases, Sample};
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::{Micros, Millis};
use tokio::sync::watch;

/// The one check, as its settings stand in a file.
const CHECK: &str = "[[check]]\nname = \"web\"\nkind = \"tcp\"\naddress = \"h:1\"\n";
const AGENT: AgentId = AgentId([5; 16]);
/// 2026-04-15T00:00:00Z
const DAY: UtcTime = UtcTime(1_776_211_200_000);

fn rebuild(config: &Path, write: bool) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peil-collector"));
    command.arg("rebuild").arg("--config").arg(config).args(write.then_some("--write"));
    command.output().expect("the program runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A day of one check, compacted.
async fn a_compacted_day(store: &Store) {
    let numbers = store.assign_checks(vec!["web".to_owned()]).await.expect("numbered");
    let no = numbers["web"];
    let new = NewAgent { agent: AGENT, hostname: "h".into(), cert_serial: "1".into(), cert_not_after: DAY };
    store.register(new, "", DAY, "test").await.expect("registered");
    let sample = |minute: i64| Sample {
        check: no,
        scheduled_at: DAY.plus(Millis(minute * 60_000)),
        delay: Millis::ZERO,
        outcome: Outcome::Up { code: 0 },
        phases: Phases { connect: Some(Micros(900)), ..Phases::default() },
    };
    let items: Vec<_> = (0..120).map(|minute| Item::Sample(sample(minute))).collect();
    let block = NewBlock {
        agent: AGENT,
        epoch: Epoch(1),
        first: Seq(1),
        records: 120,
        received_at: DAY,
        from: DAY,
        to: DAY.plus(Millis(119 * 60_000)),
        told: Seq(0),
        bytes: block::encode(Seq(1), &items).into(),
    };
    store.append(block).await.expect("stored");
    compact(store, no).await;
}

async fn compact(store: &Store, no: CheckNo) {
    let clock = WallClock::manual(DAY.plus(Millis(3 * Millis::DAY.0)));
    let holder = Holder { id: "test".into(), start: "1".into() };
    let me =
        CollectorRow { id: "test".into(), name: String::new(), version: String::new(), started_at: DAY, seen_at: DAY };
    let (_lead, leading) = Lead::start(store.clone(), holder, me, Presence::default()).await.expect("leads");
    let config = Config::parse("c", CHECK).expect("valid");
    let agreement = Agreement::new(&config, &[]).expect("makes sense");
    let in_force = InForce { agreement, numbers: BTreeMap::from([("web".to_owned(), no)]) };
    let checks = in_force.checks_to_fold();
    Judge::start(store.clone(), clock.clone(), checks, Millis::DAY, leading.clone()).await.expect("judges");
    let (store, progress) = (store.clone(), Tell::default());
    let derive =
        Derive { store: store.clone(), clock: clock.clone(), leading: leading.clone(), progress: progress.clone() };
    derive.activate().await.expect("derived");
    let mut compact = Compact {
        store,
        clock,
        leading,
        in_force: watch::channel(Arc::new(in_force)).1,
        daily_kept: Millis(3_650 * Millis::DAY.0),
        progress,
        step_blocks: STEP_BLOCKS,
        stuck: BTreeSet::new(),
    };
    assert_eq!(compact.activate().await.expect("compacts"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_value_that_differs_is_told_and_mended() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let config = dir.path().join("collector.toml");
    // Kept for as long as can be said, because this day lies further back every day.
    let settings =
        format!("data_dir = {data:?}\n[retention]\nraw_days = 36500\nhourly_days = 36500\ndaily_days = 36500\n{CHECK}");
    std::fs::write(&config, settings).expect("written");
    let store = Store::open(&data).expect("opens");
    a_compacted_day(&store).await;

    let good = rebuild(&config, false);
    assert!(good.status.success(), "{}", said(&good));
    assert!(
        said(&good).contains("1 days of agents were compared with their results: 0 values differ"),
        "{}",
        said(&good)
    );

    let nothing = DerivedDays { days: vec![DAY.day()], ..DerivedDays::default() };
    assert!(store.repair_day((AGENT, DAY.day(), 1), nothing, vec![]).await.expect("written"));
    let bad = rebuild(&config, false);
    assert_eq!(bad.status.code(), Some(1), "{}", said(&bad));
    for told in [
        "hour from 2026-04-15T00:00:00Z: nothing is stored, the blocks have 60 up, 0 failed, 0 not run",
        "day 2026-04-15: nothing is stored",
        "month from 2026-04-01: 120 up, 0 failed, 0 not run are stored, the blocks have nothing",
        "--write mends them",
    ] {
        assert!(said(&bad).contains(told), "{told:?} is missing in {}", said(&bad));
    }

    let mended = rebuild(&config, true);
    assert!(mended.status.success() && said(&mended).contains("1 days were written again"), "{}", said(&mended));
    let good = rebuild(&config, false);
    assert!(good.status.success(), "{}", said(&good));
}
