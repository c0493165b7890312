//! What a late batch costs: from its commit to the figure that knows it, with a day of other records in the store.
//!
//! `cargo run --release -p peil-benches --bin late`
//!
//! The parts of the running collector, in process and over a real store: `judge` folds the batch, finds that it breaks
//! a run and reads the samples around it again from the blocks, in the same round; `measure` makes the snapshot. The
//! running collector does both within 250 ms of the commit, or when the round before has ended. The run fails unless the
//! figure knows the late outage afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use peil_benches::load::Results;
use peil_collector::agreement::{Agreement, InForce};
use peil_collector::config::Config;
use peil_collector::contract::calendar::Month;
use peil_collector::job::judge::Judge;
use peil_collector::job::lead::Lead;
use peil_collector::job::measure::{Measure, Notices};
use peil_collector::job::progress::Progress;
use peil_collector::presence::Presence;
use peil_collector::refold;
use peil_collector::store::Store;
use peil_collector::store::agents::NewAgent;
use peil_collector::store::blocks::NewBlock;
use peil_collector::store::leases::{CollectorRow, Holder};
use peil_proto::block::{self, Item};
use peil_proto::ids::{AgentId, CheckNo, Epoch, Seq};
use peil_proto::sample::{FailureKind, Outcome, Phases, Sample};
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;
use tokio::sync::watch;

/// 2026-10-20T12:00:00Z.
const NOW: UtcTime = UtcTime(1_792_497_600_000);
const BATCH: usize = 120;
const INTERVAL: Millis = Millis(15_000);

/// Measures what one late batch costs, from its commit to the figure that knows it
#[derive(Parser)]
struct Args {
    /// Agents; each runs the checks of its own services
    #[arg(long, default_value_t = 200)]
    agents: u8,
    /// Checks of each agent; each is a service
    #[arg(long, default_value_t = 20)]
    checks: u32,
    /// Hours of records in the store
    #[arg(long, default_value_t = 24)]
    hours: i64,
}

fn agent(no: u8) -> AgentId {
    let mut id = [7; 16];
    id[0] = no;
    AgentId(id)
}

/// A service for each check.
fn settings(checks: u32) -> String {
    let mut text = "[[contract]]\nname = \"c\"\nunknown = \"excluded\"\n".to_owned();
    for no in 1..=checks {
        text.push_str(&format!(
            "[[check]]\nname = \"check{no}\"\nkind = \"tcp\"\naddress = \"h:1\"\ninterval_s = 15\ntimeout_s = 5\n\
             [[service]]\nname = \"service{no}\"\ncontract = \"c\"\nexpression = \"check{no}\"\n"
        ));
    }
    text
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let checks = u32::from(args.agents) * args.checks;
    let dir = tempfile::tempdir().context("no directory for the store")?;
    let store = Store::open(dir.path())?;
    let results = fill(&store, &args).await?;
    println!("{} agents, {checks} services of one check at 15 s: {results} results of {} h", args.agents, args.hours);

    let config = Config::parse("settings", &settings(checks))?;
    let numbers: BTreeMap<_, _> = (1..=checks).map(|no| (format!("check{no}"), CheckNo(no))).collect();
    let in_force = InForce { agreement: Agreement::new(&config, &[])?, numbers };
    let clock = WallClock::manual(NOW);
    let (id, name) = ("bench".to_owned(), "bench".to_owned());
    let holder = Holder { id: id.clone(), start: "1".to_owned() };
    let me = CollectorRow { id, name, version: String::new(), started_at: NOW, seen_at: NOW };
    let (_lead, leading) = Lead::start(store.clone(), holder, me, Presence::default()).await?;
    let folded = in_force.checks_to_fold();
    let (judge, start) = timed(Judge::start(store.clone(), clock.clone(), folded, Millis::DAY, leading.clone())).await;
    let mut judge = judge?;
    let measure = Measure {
        progress: watch::channel(Progress::default()).1,
        store: store.clone(),
        clock: clock.clone(),
        in_force: watch::channel(Arc::new(in_force.clone())).1,
        notices: Notices { months: watch::channel(Arc::default()).1, rechecked: watch::channel(Arc::default()).1 },
        presence: Presence::default(),
        leading,
        agents: config.agents,
        patch: config.patch,
        listening_since: NOW,
    };
    let (before, snapshot) = timed(measure.activate(judge.live())).await;
    let before = down_ms(&before?, "service1")?;

    let at = NOW.plus(Millis(-args.hours * Millis::HOUR.0 / 2 + 1));
    let committed = Instant::now();
    store.append(late_block(at)).await?;
    let append = committed.elapsed();
    let (folded, fold) = timed(judge.activate()).await;
    folded?;
    let (after, figures) = timed(measure.activate(judge.live())).await;
    let after = down_ms(&after?, "service1")?;
    ensure!(after > before, "the figure does not know the late outage: {before} and {after} ms");
    let month = Month { year: 2026, month: 10 };
    let (again, refolded) = timed(refold::month(&store, &in_force, "service1", month, clock.now())).await;
    let (_, blocks) = again?.context("the service is agreed")?;

    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("rebuild at start              {:>10.1} ms", ms(start));
    println!("all figures before            {:>10.1} ms", ms(snapshot));
    println!("late batch: commit            {:>10.1} ms", ms(append));
    println!("            fold, read again  {:>10.1} ms", ms(fold));
    println!("            all figures       {:>10.1} ms", ms(figures));
    println!("            in all            {:>10.1} ms", ms(append + fold + figures));
    println!("one service's month from blocks {:>8.1} ms, {} blocks", ms(refolded), blocks.count);
    store.close().await;
    Ok(())
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    (work.await, started.elapsed())
}

/// Each agent's records, in order; how many there are.
async fn fill(store: &Store, args: &Args) -> anyhow::Result<u64> {
    let mut stored = 0;
    for no in 0..args.agents {
        let cert_serial = no.to_string();
        let cert_not_after = NOW.plus(Millis::DAY);
        let new = NewAgent { agent: agent(no), hostname: format!("host-{no}"), cert_serial, cert_not_after };
        store.register(new, "", NOW.plus(Millis(-40 * Millis::DAY.0)), "bench").await?;
        let first = u32::from(no) * args.checks + 1;
        let checks: Vec<_> = (first..first + args.checks).map(CheckNo).collect();
        let from = NOW.plus(Millis(-args.hours * Millis::HOUR.0));
        let mut results = Results::new(no.into(), &checks, from, INTERVAL);
        let count = args.hours * Millis::HOUR.0 / INTERVAL.0 * i64::from(args.checks);
        let mut seq = 1;
        for _ in 0..usize::try_from(count).unwrap_or(0) / BATCH {
            let items = results.items(BATCH);
            let moments = items.iter().filter_map(moment);
            let (from, to) = moments.fold((NOW, UtcTime(0)), |(from, to), at| (from.min(at), to.max(at)));
            store.append(new_block(agent(no), 1, seq, items, (from, to), to)).await?;
            seq += BATCH as u64;
            stored += BATCH as u64;
        }
    }
    Ok(stored)
}

fn moment(item: &Item) -> Option<UtcTime> {
    match item {
        Item::Sample(sample) => Some(sample.scheduled_at),
        Item::Other(_) => None,
    }
}

fn new_block(
    agent: AgentId,
    epoch: u64,
    first: u64,
    items: Vec<Item>,
    (from, to): (UtcTime, UtcTime),
    received_at: UtcTime,
) -> NewBlock {
    let records = u32::try_from(items.len()).unwrap_or(u32::MAX);
    let bytes = block::encode(Seq(first), &items).into();
    NewBlock { agent, epoch: Epoch(epoch), first: Seq(first), records, received_at, from, to, told: Seq(0), bytes }
}

/// A batch of failures of the first check that lay in a spool for half of the time.
fn late_block(from: UtcTime) -> NewBlock {
    let sample = |n: i64| {
        let outcome = Outcome::Failed { kind: FailureKind::Refused, code: 0 };
        let scheduled_at = from.plus(Millis(n * INTERVAL.0));
        Item::Sample(Sample {
            check: CheckNo(1),
            scheduled_at,
            delay: Millis::ZERO,
            outcome,
            phases: Phases::default(),
        })
    };
    let items: Vec<Item> = (0..120).map(sample).collect();
    let to = from.plus(Millis(119 * INTERVAL.0));
    new_block(agent(0), 2, 1, items, (from, to), NOW)
}

fn down_ms(snapshot: &peil_collector::snapshot::Snapshot, service: &str) -> anyhow::Result<i64> {
    let view = snapshot.services.iter().find(|view| view.name == service).context("the service is shown")?;
    view.figure["down_ms"].as_i64().context("a figure")
}
