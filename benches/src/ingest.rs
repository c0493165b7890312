//! What a result costs the collector: a real collector, real agents over mutual TLS, fsync before ack.
//!
//! `cargo build --release -p peil-collector && cargo run --release -p peil-benches --bin ingest -- --agents 200 --batch 120`
//!
//! The window begins with the first batch and ends when every stored block has been judged, so decoding,
//! folding, figures and snapshots are in it. Server figures are the collector's process alone, from
//! `/proc`; the load runs beside it on the same machine.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use peil_benches::account::{self, Used};
use peil_benches::daemon::{Daemon, Place, Prepared, Shape, StoreCounters};
use peil_benches::fleet::{self, Done, Latencies, Rate, Stream};
use peil_benches::load::Lane;
use peil_benches::wire::Traffic;
use peil_benches::{layout, proof};
use peil_collector::store::Store;
use peil_proto::time::WallClock;
use peil_proto::units::Millis;
use peil_test_postgres::{Care, Server};

/// Batches a second one collector could take at most; decides how many are prepared. When they run out
/// early, the run ends early and says so.
const BATCHES_PER_SECOND_MAX: usize = 40_000;
/// Rhythm of the checks in the load.
const INTERVAL: Millis = Millis(10_000);
/// The results end this long ago, so that none is from the future.
const AGO: Millis = Millis::MINUTE;

/// Measures what a result costs the collector, from socket to committed and judged
#[derive(Parser)]
struct Args {
    /// Agents, each with its own stream
    #[arg(long, default_value_t = 200)]
    agents: usize,
    /// Results in a batch
    #[arg(long, default_value_t = 120)]
    batch: usize,
    /// Length of the load
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Checks of each agent
    #[arg(long, default_value_t = 20)]
    checks: usize,
    /// Agents that run the same checks
    #[arg(long, default_value_t = 10)]
    vantages: usize,
    /// Results a second over all streams, or `max`: the next batch as soon as the last is acked
    #[arg(long, default_value = "max")]
    rate: RateArg,
    /// The collector; by default the one beside this program
    #[arg(long)]
    collector: Option<PathBuf>,
    /// Where the data directory is made; on the disk you want to measure
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Keep everything on a PostgreSQL of this run's own instead of in a file
    #[arg(long)]
    postgres: bool,
    /// Collectors that share that PostgreSQL
    #[arg(long, default_value_t = 1, requires = "postgres")]
    collectors: usize,
    /// Leave out the measurement of blocks in process
    #[arg(long)]
    no_blocks: bool,
}

#[derive(Clone, Copy)]
enum RateArg {
    Max,
    PerSecond(u64),
}

impl FromStr for RateArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "max" => Ok(Self::Max),
            Ok(rate @ 1..) => Ok(Self::PerSecond(rate)),
            _ => Err("must be `max` or results per second, at least 1".to_owned()),
        }
    }
}

impl Args {
    fn shape(&self) -> Shape {
        Shape { agents: self.agents, checks: self.checks, vantages: self.vantages }
    }

    fn rate(&self) -> Rate {
        let results = (self.batch * self.agents) as u64;
        match self.rate {
            RateArg::Max => Rate::Max,
            RateArg::PerSecond(rate) => Rate::Every(Duration::from_micros(results * 1_000_000 / rate)),
        }
    }

    /// Blocks each agent may send.
    fn blocks(&self) -> usize {
        let seconds = usize::try_from(self.seconds).unwrap_or(1);
        match self.rate() {
            Rate::Max => BATCHES_PER_SECOND_MAX * seconds / self.agents.max(1) + 2,
            Rate::Every(period) => {
                let count = u128::from(self.seconds) * 1_000_000 / period.as_micros().max(1);
                usize::try_from(count).unwrap_or(usize::MAX - 2) + 2
            }
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.agents > 0 && args.batch > 0 && args.checks > 0 && args.seconds > 0, "nothing to measure");
    if !args.no_blocks {
        println!("{}", layout::table());
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(&args))
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    let shape = args.shape();
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("peil-collector"));
    let program = args.collector.clone().or_else(beside).context("say where the collector is: --collector PATH")?;
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    if account::is_memory(&parent)? {
        println!("WARNING: {} is in memory: syncing and writing cost nothing there; use --dir", parent.display());
    }
    let server = args.postgres.then(|| Server::start(Care::Durable, &[]));
    let place = match &server {
        None => Place::File,
        Some(server) => Place::Server { url: server.url(), collectors: args.collectors },
    };
    let prepared = Prepared::new(&parent, shape, place).await?;
    let lanes = Arc::new(encode_lanes(args, &prepared));
    let daemons = prepared.start(&program)?;
    let first = daemons.first().context("no collector")?.agents;
    let members = fleet::enrol(first, &prepared.tokens).await?;
    let watcher = prepared.store()?;

    let alone = collectors_used(&daemons)?;
    let traffic = Arc::new(Traffic::default());
    let opened = Instant::now();
    let addresses: Vec<_> = daemons.iter().map(|daemon| daemon.agents).collect();
    let streams = fleet::open(&addresses, &members, &lanes, shape, &traffic).await?;
    let opening = opened.elapsed();
    let connected = collectors_used(&daemons)?;
    println!("{}", connecting(shape, opening, &alone, &connected));

    let scene = Scene { daemons: &daemons, server: server.as_ref(), prepared: &prepared, traffic: &traffic };
    let begin = scene.take().await?;
    let started = Instant::now();
    let (streams, work, latencies) =
        fleet::load(streams, &lanes, shape, args.rate(), Duration::from_secs(args.seconds)).await?;
    let loaded = started.elapsed();
    let behind = proof::judged(&watcher).await?;
    let end = scene.take().await?;
    let window = Window { args, work: &work, latencies: &latencies, loaded, behind, begin, end };
    println!("{}", window.report());
    close(streams, watcher, daemons).await?;

    let disk = match &server {
        None => prepared.database_bytes(),
        Some(server) => server.sql("peil", "SELECT pg_database_size('peil')").parse()?,
    };
    let store = prepared.store()?;
    let records = proof::every_acked_record_is_there_once(&store, &work).await?;
    store.close().await;
    println!("disk          {:>10.2} B/result (database after a clean stop, {disk} bytes)", per(disk, records));
    println!("proof         every one of {records} acked records is in the store once, none else; all were judged");
    Ok(())
}

async fn close(streams: Vec<Stream>, watcher: Store, daemons: Vec<Daemon>) -> anyhow::Result<()> {
    drop(streams);
    watcher.close().await;
    // Blocks this thread, on which the client side of the connections lives; the collector ends them itself.
    daemons.into_iter().try_for_each(Daemon::stop)
}

/// All collectors together.
fn collectors_used(daemons: &[Daemon]) -> anyhow::Result<Used> {
    let mut all = Used::default();
    for daemon in daemons {
        all.add(&Used::of(daemon.pid())?);
    }
    Ok(all)
}

fn encode_lanes(args: &Args, prepared: &Prepared) -> Vec<Lane> {
    let until = WallClock::System.now().plus(Millis(-AGO.0));
    let lane =
        |(seed, checks): (u64, &Vec<_>)| Lane::encode(seed, checks.clone(), until, INTERVAL, args.batch, args.blocks());
    (1..).zip(&prepared.lanes).map(lane).collect()
}

fn connecting(shape: Shape, opening: Duration, alone: &Used, connected: &Used) -> String {
    let agents = shape.agents as u64;
    let cpu = connected.cpu.saturating_sub(alone.cpu);
    format!(
        "connecting    {} agents in {:.2} s, {:.2} ms of server CPU each; resident before {:.1} MiB, after {:.1} MiB \
         ({:.1} KiB per agent)",
        agents,
        opening.as_secs_f64(),
        per(u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX), agents) / 1e3,
        mib(alone.rss_bytes),
        mib(connected.rss_bytes),
        per(connected.rss_bytes.saturating_sub(alone.rss_bytes), agents) / 1024.0,
    )
}

/// All accounts at one moment.
struct Moment {
    /// The collectors.
    used: Used,
    /// The database server.
    server: Used,
    store: StoreCounters,
    traffic: (u64, u64),
    database: u64,
}

/// What is looked at.
struct Scene<'a> {
    daemons: &'a [Daemon],
    server: Option<&'a Server>,
    prepared: &'a Prepared,
    traffic: &'a Traffic,
}

impl Scene<'_> {
    async fn take(&self) -> anyhow::Result<Moment> {
        let mut store = StoreCounters::default();
        for daemon in self.daemons {
            let one = daemon.counters().await?;
            store.commits += one.commits;
            store.blocks += one.blocks;
            store.records += one.records;
        }
        let server = self.server.and_then(Server::pid).map(Used::of_tree).transpose()?.unwrap_or_default();
        let (used, traffic) = (collectors_used(self.daemons)?, self.traffic.so_far());
        Ok(Moment { used, server, store, traffic, database: self.prepared.database_bytes() })
    }
}

/// What happened between two moments.
struct Window<'a> {
    args: &'a Args,
    work: &'a [Done],
    latencies: &'a Latencies,
    loaded: Duration,
    behind: Duration,
    begin: Moment,
    end: Moment,
}

impl Window<'_> {
    fn report(&self) -> String {
        let Self { args, begin, end, .. } = self;
        let sum = |of: fn(&Done) -> u64| self.work.iter().map(of).sum::<u64>();
        let (results, batches) = (sum(|done| done.acked), sum(|done| done.batches));
        let cpu = end.used.cpu.saturating_sub(begin.used.cpu);
        let cpu_us = u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX);
        let written = |of: &Moment| of.used.written_bytes + of.server.written_bytes;
        let written = written(end).saturating_sub(written(begin));
        let server = end.server.cpu.saturating_sub(begin.server.cpu);
        let server_us = u64::try_from(server.as_micros()).unwrap_or(u64::MAX);
        let (up, down) = (end.traffic.0 - begin.traffic.0, end.traffic.1 - begin.traffic.1);
        let commits = end.store.commits - begin.store.commits;
        let seconds = self.loaded.as_secs_f64();
        let ack = |quantile| micros_as_ms(self.latencies.value_at_quantile(quantile));
        let mut lines = vec![
            format!(
                "load          {} agents, batches of {}, {} checks each, {} results in {seconds:.1} s",
                args.agents, args.batch, args.checks, results
            ),
            format!(
                "rate          {:>10.0} results/s, {:.0} batches/s",
                per_second(results, seconds),
                per_second(batches, seconds)
            ),
            format!(
                "server CPU    {:>10.3} µs/result, {:.1} µs/batch, {:.2} cores (judging was {:.2} s behind at the end)",
                per(cpu_us, results),
                per(cpu_us, batches),
                cpu.as_secs_f64() / (self.loaded + self.behind).as_secs_f64(),
                self.behind.as_secs_f64()
            ),
        ];
        for (name, spent) in end.used.threads_since(&begin.used).into_iter().filter(|(_, spent)| !spent.is_zero()) {
            let spent = u64::try_from(spent.as_micros()).unwrap_or(u64::MAX);
            lines.push(format!("  {name:<20} {:>8.3} µs/result", per(spent, results)));
        }
        if args.postgres {
            let (per_result, per_batch) = (per(server_us, results), per(server_us, batches));
            lines.push(format!("PostgreSQL    {per_result:>10.3} µs/result, {per_batch:.1} µs/batch"));
        }
        lines.extend([
            format!("memory        {:>10.1} MiB resident, {:.1} MiB at most", mib(end.used.rss_bytes), mib(end.used.hwm_bytes)),
            format!("written       {:>10.2} B/result given to the disk ({:.1} MiB; database and log now {:.1} MiB, before {:.1})", per(written, results), mib(written), mib(end.database), mib(begin.database)),
            format!("wire          {:>10.2} B/result up ({:.2} of it the blocks), {:.2} down; counted at the socket, without TCP and IP headers", per(up, results), per(sum(|done| done.block_bytes), results), per(down, results)),
            format!("ack           {:>10.2} ms p50, {:.2} p99, {:.2} max", ack(0.5), ack(0.99), ack(1.0)),
            format!("commits       {commits:>10} ({:.1} blocks each, {:.0} per 1000 batches)", per(end.store.blocks - begin.store.blocks, commits), 1_000.0 * per(commits, batches)),
        ]);
        if self.work.iter().any(|done| done.ran_out) {
            lines.push("NOTE: a stream ran out of prepared batches; the rate is a lower bound".to_owned());
        }
        lines.join("\n")
    }
}

#[expect(clippy::cast_precision_loss, reason = "for printing")]
fn per(total: u64, count: u64) -> f64 {
    total as f64 / count.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "for printing")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

#[expect(clippy::cast_precision_loss, reason = "for printing")]
fn micros_as_ms(micros: u64) -> f64 {
    micros as f64 / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "for printing")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
