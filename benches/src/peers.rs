//! What the same results cost VictoriaMetrics and Prometheus, as Debian ships them, fed by remote write.
//!
//! `cargo run --release -p peil-benches --bin peers -- --agents 200 --batch 120`
//!
//! A result becomes seven samples, as blackbox_exporter's metrics would: success, error class, duration and four phases.
//! A request holds what one agent's batch holds. They get plain HTTP and answer before anything is on the disk, while our
//! collector speaks mutual TLS and syncs before it acks: the handicap is ours. CPU is the server's process alone, from
//! the first request until it has merged what it was given.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use peil_benches::account::Used;
use peil_benches::load::Results;
use peil_proto::ids::CheckNo;
use peil_proto::sample::{Outcome, Sample, State};
use peil_proto::time::WallClock;
use peil_proto::units::Millis;
use prost::Message;
use tokio::task::JoinSet;

/// Rhythm of the checks in the load.
const INTERVAL: Millis = Millis(10_000);
/// A server that is not there by then will not come.
const START_MAX: Duration = Duration::from_secs(30);
/// Requests under way at once.
const CONNECTIONS: usize = 16;
/// CPU is looked at this often after the load, until it stands still.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Feeds VictoriaMetrics and Prometheus the results that `ingest` feeds the collector
#[derive(Parser)]
struct Args {
    /// Agents
    #[arg(long, default_value_t = 200)]
    agents: usize,
    /// Results in a request
    #[arg(long, default_value_t = 120)]
    batch: usize,
    /// Checks of each agent
    #[arg(long, default_value_t = 20)]
    checks: usize,
    /// Requests of each agent
    #[arg(long, default_value_t = 40)]
    requests: usize,
    /// Where their data is kept; on the disk you want to measure
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// `prometheus.WriteRequest`, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// The peers there are.
#[derive(Debug, Clone, Copy)]
enum Peer {
    VictoriaMetrics,
    Prometheus,
}

fn main() -> anyhow::Result<()> {
    // Nothing is encrypted here, and a client is not made without.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    ensure!(args.agents > 0 && args.batch > 0 && args.checks > 0 && args.requests > 0, "nothing to measure");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        for peer in [Peer::VictoriaMetrics, Peer::Prometheus] {
            println!("{}", measure(&args, peer).await?);
        }
        Ok(())
    })
}

async fn measure(args: &Args, peer: Peer) -> anyhow::Result<String> {
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix("peil-bench-peer-").tempdir_in(parent)?;
    let address = free_address()?;
    let server = Running(peer.start(dir.path(), address)?);
    let client = reqwest::Client::builder().no_proxy().build()?;
    wait_until_ready(&client, address).await?;
    let requests = encode(args);
    let (results, wire) =
        (args.agents * args.batch * args.requests, requests.iter().flatten().map(Vec::len).sum::<usize>());
    let before = Used::of(server.0.id())?;
    let started = Instant::now();
    send(&client, address, requests).await?;
    let loaded = started.elapsed();
    peer.settle(&client, address).await?;
    let after = settled(server.0.id()).await?;
    let cpu = after.cpu.saturating_sub(before.cpu);
    let written = after.written_bytes.saturating_sub(before.written_bytes);
    let disk = directory_bytes(dir.path())?;
    let results_each = |total: u128| u64::try_from(total * 1_000 / results as u128).unwrap_or(u64::MAX);
    let per = |total: u128| {
        let thousandths = results_each(total);
        format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000)
    };
    Ok(format!(
        "{peer:?} {}\n  {results} results as {} samples in {:.1} s\n  CPU      {} µs/result\n  disk     {} B/result\n  \
         written  {} B/result\n  wire     {} B/result\n  memory   {} KiB at most",
        peer.version()?,
        results * 7,
        loaded.as_secs_f64(),
        per(cpu.as_micros()),
        per(disk.into()),
        per(written.into()),
        per(wire as u128),
        after.hwm_bytes / 1024
    ))
}

/// Every agent's requests, each with what one batch holds, in order of time.
fn encode(args: &Args) -> Vec<Vec<Vec<u8>>> {
    let checks: Vec<CheckNo> = (1..=u32::try_from(args.checks).unwrap_or(u32::MAX)).map(CheckNo).collect();
    let ticks = i64::try_from(args.batch * args.requests / args.checks + 2).unwrap_or(i64::MAX);
    let start = WallClock::System.now().plus(Millis(-INTERVAL.0 * ticks));
    let one = |agent: usize| {
        let mut results = Results::new(agent as u64 + 1, &checks, start, INTERVAL);
        let request = |_| {
            let samples: Vec<Sample> = results.by_ref().take(args.batch).collect();
            compressed(&samples, agent)
        };
        (0..args.requests).map(request).collect()
    };
    (0..args.agents).map(one).collect()
}

fn compressed(samples: &[Sample], agent: usize) -> Vec<u8> {
    let mut series: std::collections::BTreeMap<(CheckNo, &str), Vec<Value>> = std::collections::BTreeMap::new();
    for sample in samples {
        for (name, value) in values(sample) {
            let value = Value { value, timestamp: sample.scheduled_at.0 };
            series.entry((sample.check, name)).or_default().push(value);
        }
    }
    let label = |name: &str, value: String| Label { name: name.to_owned(), value };
    let timeseries = series.into_iter().map(|((check, name), samples)| TimeSeries {
        labels: vec![
            label("__name__", format!("probe_{name}")),
            label("agent", format!("bench-{agent:05}")),
            label("check", format!("check-{:05}", check.0)),
        ],
        samples,
    });
    let plain = WriteRequest { timeseries: timeseries.collect() }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&plain).unwrap_or(plain)
}

/// The seven samples of a result; times in seconds, as exporters have them.
fn values(sample: &Sample) -> [(&'static str, f64); 7] {
    let phases = sample.phases.to_array().map(|phase| phase.map_or(0.0, |phase| f64::from(phase.0) / 1e6));
    let up = sample.outcome.state() == State::Up;
    let class = match sample.outcome {
        Outcome::Failed { code, .. } => f64::from(code),
        _ => 0.0,
    };
    [
        ("success", f64::from(u8::from(up))),
        ("error_class", class),
        ("duration_seconds", phases.iter().sum()),
        ("resolve_seconds", phases[0]),
        ("connect_seconds", phases[1]),
        ("tls_seconds", phases[2]),
        ("first_byte_seconds", phases[3]),
    ]
}

/// Request after request, agent by agent in step, a few at a time.
async fn send(client: &reqwest::Client, address: SocketAddr, requests: Vec<Vec<Vec<u8>>>) -> anyhow::Result<()> {
    let url = Arc::new(format!("http://{address}/api/v1/write"));
    let shares: Vec<Vec<Vec<Vec<u8>>>> =
        (0..CONNECTIONS).map(|share| requests.iter().skip(share).step_by(CONNECTIONS).cloned().collect()).collect();
    let mut sending = JoinSet::new();
    for share in shares {
        let (client, url) = (client.clone(), url.clone());
        sending.spawn(async move {
            let rounds = share.iter().map(Vec::len).max().unwrap_or(0);
            for round in 0..rounds {
                for body in share.iter().filter_map(|agent| agent.get(round)) {
                    let request = client.post(url.as_str()).body(body.clone()).header("Content-Encoding", "snappy");
                    let request = request.header("Content-Type", "application/x-protobuf");
                    request.header("X-Prometheus-Remote-Write-Version", "0.1.0").send().await?.error_for_status()?;
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    Ok(())
}

/// The account once its CPU stands still.
async fn settled(pid: u32) -> anyhow::Result<Used> {
    let mut before = Used::of(pid)?;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = Used::of(pid)?;
        if now.cpu.saturating_sub(before.cpu) < Duration::from_millis(60) {
            return Ok(now);
        }
        before = now;
    }
}

impl Peer {
    fn program(self) -> &'static str {
        match self {
            Self::VictoriaMetrics => "/usr/bin/victoria-metrics",
            Self::Prometheus => "/usr/bin/prometheus",
        }
    }

    fn version(self) -> anyhow::Result<String> {
        let said = Command::new(self.program()).arg("--version").output()?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    fn start(self, dir: &Path, address: SocketAddr) -> anyhow::Result<Child> {
        let mut command = Command::new(self.program());
        match self {
            Self::VictoriaMetrics => command
                .arg(format!("-storageDataPath={}", dir.join("data").display()))
                .arg(format!("-httpListenAddr={address}"))
                .arg("-retentionPeriod=12"),
            Self::Prometheus => {
                let config = dir.join("prometheus.yml");
                std::fs::write(&config, "global: {}\n")?;
                command
                    .arg(format!("--config.file={}", config.display()))
                    .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
                    .arg(format!("--web.listen-address={address}"))
                    .arg("--web.enable-remote-write-receiver")
            }
        };
        let started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        started.with_context(|| format!("cannot start {}: apt-get install victoria-metrics prometheus", self.program()))
    }

    /// Makes it put on the disk what it has in memory, where it can be asked to.
    async fn settle(self, client: &reqwest::Client, address: SocketAddr) -> anyhow::Result<()> {
        if matches!(self, Self::VictoriaMetrics) {
            for path in ["internal/force_flush", "internal/force_merge"] {
                client.get(format!("http://{address}/{path}")).send().await?;
            }
        }
        Ok(())
    }
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn wait_until_ready(client: &reqwest::Client, address: SocketAddr) -> anyhow::Result<()> {
    let started = Instant::now();
    while client.get(format!("http://{address}/metrics")).send().await.is_err() {
        ensure!(started.elapsed() < START_MAX, "it does not answer on {address}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn directory_bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        bytes += if facts.is_dir() { directory_bytes(&entry.path())? } else { facts.len() };
    }
    Ok(bytes)
}
