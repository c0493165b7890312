//! A month made anew from the store: every service's tracks from compacted days, as drafts and sealed months are made.
//!
//! `cargo run --release -p peil-benches --bin refold`
//!
//! The collector's own [`refold::tracks`] over a real store (SQLite): rows are read, checksums tested, results decoded
//! and folded. Twice as many results are folded in a second round; the time should double and the memory stay. The
//! month of a thousand services is extrapolated from the cost of one result, and said to be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use peil_benches::account::Used;
use peil_benches::load::Results;
use peil_collector::contract::span::Span;
use peil_collector::derive::Came;
use peil_collector::derive::compact::Compaction;
use peil_collector::job::compact::day_row;
use peil_collector::job::lead::Lead;
use peil_collector::presence::Presence;
use peil_collector::refold::{self, Sight};
use peil_collector::store::Store;
use peil_collector::store::agents::NewAgent;
use peil_collector::store::blocks::Through;
use peil_collector::store::days::Step;
use peil_collector::store::latency::DerivedDays;
use peil_collector::store::leases::{CollectorRow, Held, Holder};
use peil_proto::block;
use peil_proto::ids::{AgentId, CheckNo, Epoch, Seq};
use peil_proto::time::{UtcDay, UtcTime};
use peil_proto::units::Millis;

/// 2026-10-01.
const FIRST: UtcDay = UtcDay(20_727);
/// Results of 1000 services of two checks from three vantages at 15 s in a month of 31 days.
const MONTH_OF_A_THOUSAND: f64 = 6_000.0 * 31.0 * 5_760.0;

/// Measures a month made anew from compacted days
#[derive(Parser)]
struct Args {
    /// Agents
    #[arg(long, default_value_t = 2)]
    agents: u8,
    /// Checks of each agent
    #[arg(long, default_value_t = 20)]
    checks: u32,
    /// Days, twice as many in the second round
    #[arg(long, default_value_t = 15)]
    days: i64,
    /// Time between samples, s
    #[arg(long, default_value_t = 15)]
    interval_s: i64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let dir = tempfile::tempdir().context("no directory for the store")?;
    let store = Store::open(dir.path())?;
    let start = FIRST.start();
    let holder = Holder { id: "bench".to_owned(), start: "1".to_owned() };
    let me = CollectorRow {
        id: "bench".to_owned(),
        name: "bench".to_owned(),
        version: String::new(),
        started_at: start,
        seen_at: start,
    };
    let (_lead, leading) = Lead::start(store.clone(), holder, me, Presence::default()).await?;
    let held = leading.borrow().held.clone();
    println!("results       days   from the store   ns each   peak memory");
    for no in 1..=args.agents {
        let (hostname, cert_serial) = (format!("host-{no}"), no.to_string());
        let new = NewAgent { agent: agent(no), hostname, cert_serial, cert_not_after: start.plus(Millis::DAY) };
        store.register(new, "", start, "bench").await?;
    }
    let mut each = 0.0;
    for days in [args.days, 2 * args.days] {
        let mut results = 0;
        for no in 1..=args.agents {
            results += fill(&store, &args, no, days, &held).await?;
        }
        let spent = fold(&store, &args, days).await?;
        each = spent.as_secs_f64() * 1e9 / count(results);
        let peak = Used::of(std::process::id())?.hwm_bytes >> 20;
        println!("{results:>9} {days:>8} {:>14.2} s {each:>9.1} {peak:>9} MiB", spent.as_secs_f64());
    }
    println!(
        "a month of 1000 services × 2 checks × 3 vantages at 15 s: {:.0} s on one core (extrapolated)",
        MONTH_OF_A_THOUSAND * each / 1e9
    );
    store.close().await;
    Ok(())
}

fn agent(no: u8) -> AgentId {
    AgentId([no; 16])
}

/// Puts the compacted days of one agent in the store; how many results they have.
async fn fill(store: &Store, args: &Args, no: u8, days: i64, held: &Held) -> anyhow::Result<u64> {
    let agent = agent(no);
    let checks: Vec<_> = (1..=args.checks).map(CheckNo).collect();
    let interval = Millis(args.interval_s * 1_000);
    let mut results = Results::new(no.into(), &checks, FIRST.start(), interval);
    let a_day = usize::try_from(Millis::DAY.0 / interval.0)? * checks.len();
    let mut seq = 1;
    for day in (0..days).map(|n| UtcDay(FIRST.0 + n)) {
        let mut compaction = Compaction::default();
        let items = results.items(a_day);
        for portion in items.chunks(block_of(checks.len())) {
            let bytes = block::encode(Seq(seq), portion).into();
            let (first, received_at) = (Seq(seq), day.start());
            compaction.take(&Came { place: seq, epoch: Epoch(1), first, skip: 0, received_at, bytes })?;
            seq += portion.len() as u64;
        }
        let rows = compaction.finish()?.into_iter().map(|block| day_row(agent, block)).collect();
        let had = store.day_blocks(agent, [day].into()).await?;
        let version = had.iter().find(|row| row.check.is_none()).map_or(0, |row| row.version);
        let (sources, derived) = (Vec::new(), DerivedDays::default());
        let step = Step { agent, sources, days: vec![(day, version)], blocks: rows, derived };
        ensure!(store.compact(step, held.clone()).await?, "the day is in the store");
    }
    Ok(seq - 1)
}

/// A batch as an agent sends it: six results of each check.
fn block_of(checks: usize) -> usize {
    6 * checks.max(1)
}

async fn fold(store: &Store, args: &Args, days: i64) -> anyhow::Result<Duration> {
    let hold = Millis(2 * args.interval_s * 1_000 + 5_000);
    let checks: BTreeMap<_, _> = (1..=args.checks).map(|no| (CheckNo(no), hold)).collect();
    let evidence = Span::new(FIRST.start(), UtcDay(FIRST.0 + days).start());
    let sight = Sight { evidence, known_at: UtcTime(i64::MAX), through: Through::NOTHING };
    let started = Instant::now();
    let seen = refold::tracks(store, &checks, &sight).await?;
    let spent = started.elapsed();
    ensure!(seen.tracks.len() == usize::from(args.agents) * checks.len(), "a track of every check and vantage");
    Ok(spent)
}

#[expect(clippy::cast_precision_loss, reason = "for printing")]
fn count(of: u64) -> f64 {
    of.max(1) as f64
}
