//! From SIGKILL to serving: how long a collector with many results takes to be back, and how long until every agent that
//! was connected has its first ack again.
//!
//! `cargo build --release -p peil-collector && cargo run --release -p peil-benches --bin recovery -- --results 10000000`
//!
//! The store is filled through its own interface, then a collector is started on it, judges everything, is killed and
//! started again. With `--agents` that many are connected before the kill; all of them come back at once, which is worse
//! than real agents do, whose waits are spread.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use peil_benches::account::Used;
use peil_benches::daemon::{Place, Prepared, Shape};
use peil_benches::fleet::{self, Rate};
use peil_benches::load::Lane;
use peil_benches::proof;
use peil_benches::wire::Traffic;
use peil_collector::store::agents::NewAgent;
use peil_collector::store::blocks::NewBlock;
use peil_proto::ids::{AgentId, Epoch, Seq};
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;
use tokio::task::JoinSet;

/// Results in a block of the filling.
const BATCH: usize = 120;
/// Rhythm of the checks in the load.
const INTERVAL: Millis = Millis(60_000);
/// Blocks of each agent that comes back; one is enough for its first ack.
const BLOCKS: usize = 4;

/// Measures how long a killed collector takes to be back
#[derive(Parser)]
struct Args {
    /// Results in the store
    #[arg(long, default_value_t = 10_000_000)]
    results: usize,
    /// Agents that are connected when it is killed
    #[arg(long, default_value_t = 0)]
    agents: usize,
    /// Agents in whose name the store is filled
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    /// The collector; by default the one beside this program
    #[arg(long)]
    collector: Option<PathBuf>,
    /// Where the data directory is made; on the disk you want to measure
    #[arg(long)]
    dir: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.hosts > 0, "somebody must have sent it");
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(&args))
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("peil-collector"));
    let program = args.collector.clone().or_else(beside).context("say where the collector is: --collector PATH")?;
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let shape = Shape { agents: args.agents.max(1), checks: 20, vantages: 10 };
    let prepared = Prepared::new(&parent, shape, Place::File).await?;
    fill(args, &prepared).await?;
    let bytes = prepared.database_bytes();

    let mut daemon = prepared.start_one(&program, 0)?;
    let watcher = prepared.store()?;
    proof::judged(&watcher).await?;
    let until = WallClock::System.now().plus(Millis(-Millis::MINUTE.0));
    let lane = |(seed, checks): (u64, &Vec<_>)| Lane::encode(seed, checks.clone(), until, INTERVAL, 20, BLOCKS);
    let lanes: Arc<Vec<Lane>> = Arc::new((1..).zip(&prepared.lanes).map(lane).collect());
    let members = match args.agents {
        0 => Vec::new(),
        _ => fleet::enrol(daemon.agents, &prepared.tokens).await?,
    };
    daemon.kill()?;

    let started = Instant::now();
    daemon = prepared.start_one(&program, 0)?;
    let serving = started.elapsed();
    println!(
        "recovery      {:.2} s from exec to serving, {} results and {:.1} MiB in the store",
        serving.as_secs_f64(),
        args.results,
        mib(bytes)
    );
    if !members.is_empty() {
        let before = Used::of(daemon.pid())?;
        let opened = Instant::now();
        let traffic = Arc::new(Traffic::default());
        let streams = fleet::open(&[daemon.agents], &members, &lanes, shape, &traffic).await?;
        let (streams, work, latencies) =
            fleet::load(streams, &lanes, shape, Rate::Max, Duration::from_secs(60)).await?;
        let all = opened.elapsed();
        ensure!(work.iter().all(|done| done.acked > 0), "an agent got no ack");
        let cpu = Used::of(daemon.pid())?.cpu.saturating_sub(before.cpu);
        println!(
            "storm         {} agents back with {BLOCKS} batches acked each in {:.2} s; {:.2} ms of server CPU an agent; \
             slowest ack {:.0} ms",
            members.len(),
            all.as_secs_f64(),
            cpu.as_secs_f64() * 1e3 / f64::from(u32::try_from(members.len())?),
            f64::from(u32::try_from(latencies.max()).unwrap_or(u32::MAX)) / 1e3
        );
        drop(streams);
    }
    watcher.close().await;
    daemon.stop()
}

/// Results of a fortnight and more, so that all of it is inside the horizon a restart reads.
async fn fill(args: &Args, prepared: &Prepared) -> anyhow::Result<()> {
    let store = prepared.store()?;
    let until = WallClock::System.now().plus(Millis(-Millis::HOUR.0));
    let checks = prepared.lanes.first().context("no checks")?.clone();
    let count = args.results.div_ceil(BATCH * args.hosts);
    let lane = Arc::new(Lane::encode(1, checks, until, INTERVAL, BATCH, count));
    let mut filling = JoinSet::new();
    for host in 0..args.hosts {
        let agent = AgentId((host as u128 + 1).to_be_bytes());
        let new = NewAgent {
            agent,
            hostname: format!("filled-{host:05}"),
            cert_serial: "01".to_owned(),
            cert_not_after: until.plus(Millis(365 * Millis::DAY.0)),
        };
        store.register(new, "", until, "benches").await?;
        let (store, lane) = (store.clone(), lane.clone());
        filling.spawn(async move {
            for at in 0..lane.blocks.len() {
                store.append(block(agent, &lane, at, until)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(filled) = filling.join_next().await {
        filled??;
    }
    store.close().await;
    Ok(())
}

fn block(agent: AgentId, lane: &Lane, at: usize, until: UtcTime) -> NewBlock {
    NewBlock {
        agent,
        epoch: Epoch(1),
        first: lane.first(at),
        records: u32::try_from(lane.batch).unwrap_or(u32::MAX),
        received_at: until,
        from: until.plus(Millis(-60 * Millis::DAY.0)),
        to: until,
        told: Seq(0),
        bytes: lane.blocks[at].clone(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for printing")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
