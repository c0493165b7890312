//! A real collector as a process of its own: settings, tokens, start, metrics, stop.
//!
//! Its data directory is new and goes when the measurement ends. Tokens and the numbers of checks are made
//! through the store's own interface before it starts, because a thousand runs of the command line would
//! take longer than the measurement; everything after that goes over its ports.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use peil_collector::access::{Access, AccessStore, PasswordCost, Role};
use peil_collector::app;
use peil_collector::pki::Authority;
use peil_collector::store::Store;
use peil_collector::store::place::Beside;
use peil_collector::store::tokens::NewToken;
use peil_proto::ids::CheckNo;
use peil_proto::time::WallClock;
use peil_proto::tls::{TlsClock, provider};
use peil_proto::token::{CaFingerprint, Token};
use peil_proto::units::Millis;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Time a collector has to end after SIGTERM before it is killed: more than it gives its own parts.
const STOP_MAX: Duration = Duration::from_secs(40);

/// Who runs what in a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Agents.
    pub agents: usize,
    /// Checks of each agent.
    pub checks: usize,
    /// Agents that run the same checks: the vantages of a check.
    pub vantages: usize,
}

impl Shape {
    /// Groups of agents that run the same checks.
    pub fn lanes(self) -> usize {
        self.agents.div_ceil(self.vantages.max(1))
    }

    /// Which lane an agent is in.
    pub fn lane_of(self, agent: usize) -> usize {
        agent / self.vantages.max(1)
    }

    fn check_name(lane: usize, check: usize) -> String {
        format!("lane{lane:04}-check{check:03}")
    }

    /// What the agent calls itself.
    pub fn hostname(agent: usize) -> String {
        format!("bench-{agent:05}")
    }

    /// One service per check, so that every result is judged; down when two vantages say so. The contract is one
    /// that the load keeps: with the month before the run counted as down, every service would be an open alert.
    fn settings(self, data: &Path, place: &Place) -> String {
        let store = match place {
            Place::File => String::new(),
            Place::Server { url, .. } => format!("store = {url:?}\n"),
        };
        let mut text = format!(
            "data_dir = {data:?}\n{store}[listen]\nagents = \"127.0.0.1:0\"\nweb = \"127.0.0.1:0\"\n[[contract]]\n\
             name = \"bench\"\ntarget = \"90\"\nunknown = \"excluded\"\n"
        );
        for lane in 0..self.lanes() {
            let hosts = (0..self.agents).filter(|agent| self.lane_of(*agent) == lane).map(Self::hostname);
            let hosts: Vec<_> = hosts.collect();
            let quorum = hosts.len().min(2);
            for check in 0..self.checks {
                let name = Self::check_name(lane, check);
                text.push_str(&format!(
                    "[[check]]\nname = \"{name}\"\nkind = \"tcp\"\naddress = \"127.0.0.1:9\"\ninterval_s = 10\n\
                     timeout_s = 5\nquorum = {quorum}\nagents = {hosts:?}\n\
                     [[service]]\nname = \"{name}\"\ncontract = \"bench\"\nexpression = \"{name}\"\n"
                ));
            }
        }
        text
    }
}

/// Where the results are kept.
#[derive(Debug, Clone)]
pub enum Place {
    /// SQLite in the data directory of one collector.
    File,
    /// A PostgreSQL server that several collectors share.
    Server {
        /// Its URL.
        url: String,
        /// How many collectors.
        collectors: usize,
    },
}

/// Directories in which everything is ready for a start, one per collector.
pub struct Prepared {
    dir: tempfile::TempDir,
    place: Place,
    /// One per agent.
    pub tokens: Vec<Token>,
    /// Checks of each lane.
    pub lanes: Vec<Vec<CheckNo>>,
    authority: CertificateDer<'static>,
    api_token: String,
}

impl Prepared {
    /// Makes the directories under `parent`, the settings, the authority, tokens and numbers.
    ///
    /// # Errors
    /// When the disk or the store will not.
    pub async fn new(parent: &Path, shape: Shape, place: Place) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("peil-bench-").tempdir_in(parent)?;
        let clock = WallClock::System;
        let first = collector_dir(dir.path(), 0).join("data");
        std::fs::create_dir_all(&first)?;
        let store = open_store(&place, &first)?;
        let authority = Authority::open_or_create(&first.join("pki"), app::AUTHORITY, clock.now())?;
        for no in 0..place.collectors() {
            let own = collector_dir(dir.path(), no);
            let data = own.join("data");
            if no > 0 {
                std::fs::create_dir_all(data.join("pki"))?;
                for file in ["ca.pem", "ca.key"] {
                    std::fs::copy(first.join("pki").join(file), data.join("pki").join(file))?;
                }
            }
            std::fs::write(own.join("collector.toml"), shape.settings(&data, &place))?;
        }
        let tokens = make_tokens(&store, &authority, shape, &clock).await?;
        let names = |lane| (0..shape.checks).map(move |check| Shape::check_name(lane, check));
        let numbers = store.assign_checks((0..shape.lanes()).flat_map(names).collect()).await?;
        let numbers_of = |lane| names(lane).filter_map(|name| numbers.get(&name).copied()).collect();
        let lanes = (0..shape.lanes()).map(numbers_of).collect();
        let access = Access::new(AccessStore::Store(store.clone()), clock, PasswordCost::STANDARD)?;
        let api_token = access.issue_api_token("benches", Role::Viewer, None).await?;
        drop(access);
        store.close().await;
        Ok(Self { dir, place, tokens, lanes, authority: authority.certificate().clone(), api_token })
    }

    /// Where the first collector keeps its files.
    pub fn data(&self) -> PathBuf {
        collector_dir(self.dir.path(), 0).join("data")
    }

    /// The store, beside the collectors.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn store(&self) -> anyhow::Result<Store> {
        open_store(&self.place, &self.data())
    }

    /// Size of the database file, with the log that waits beside it; 0 on a server.
    pub fn database_bytes(&self) -> u64 {
        ["peil.db", "peil.db-wal"].into_iter().map(|name| file_bytes(&self.data().join(name))).sum()
    }

    /// Starts every collector and waits until it listens.
    ///
    /// # Errors
    /// When one does not start; its log is in the error.
    pub fn start(&self, program: &Path) -> anyhow::Result<Vec<Daemon>> {
        (0..self.place.collectors()).map(|no| self.start_one(program, no)).collect()
    }

    /// Starts collector `no` of them.
    ///
    /// # Errors
    /// When it does not start; its log is in the error.
    pub fn start_one(&self, program: &Path, no: usize) -> anyhow::Result<Daemon> {
        let own = collector_dir(self.dir.path(), no);
        let log = own.join("collector.log");
        let mut child = Command::new(program)
            .args(["run", "--config"])
            .arg(own.join("collector.toml"))
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let out = child.stdout.take().context("a pipe was asked for")?;
        // Whatever happens from here on, the process goes with this value.
        let mut daemon = Daemon {
            child,
            agents: SocketAddr::from(([127, 0, 0, 1], 0)),
            web: SocketAddr::from(([127, 0, 0, 1], 0)),
            authority: self.authority.clone(),
            api_token: self.api_token.clone(),
        };
        let listening = BufReader::new(out).lines().map_while(Result::ok).find_map(|line| listening(&line));
        let told = || std::fs::read_to_string(&log).unwrap_or_default();
        (daemon.agents, daemon.web) =
            listening.with_context(|| format!("the collector did not start; it said:\n{}", told()))?;
        Ok(daemon)
    }
}

impl Place {
    fn collectors(&self) -> usize {
        match self {
            Self::File => 1,
            Self::Server { collectors, .. } => (*collectors).max(1),
        }
    }
}

fn collector_dir(base: &Path, no: usize) -> PathBuf {
    base.join(format!("collector-{no}"))
}

fn open_store(place: &Place, data: &Path) -> anyhow::Result<Store> {
    Ok(match place {
        Place::File => Store::open(data)?,
        Place::Server { url, .. } => Store::connect(&peil_collector::store::Place::parse(url, Beside::default())?)?,
    })
}

/// Reads "listening agents=ADDRESS web=ADDRESS".
fn listening(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (agents, web) = line.strip_prefix("listening agents=")?.split_once(" web=")?;
    Some((agents.parse().ok()?, web.trim().parse().ok()?))
}

fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

async fn make_tokens(
    store: &Store,
    authority: &Authority,
    shape: Shape,
    clock: &WallClock,
) -> anyhow::Result<Vec<Token>> {
    let mut making = JoinSet::new();
    let mut tokens = Vec::with_capacity(shape.agents);
    for agent in 0..shape.agents {
        let mut random = [0; 20];
        getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let token = Token::make(random, CaFingerprint::of(authority.certificate()));
        let new = NewToken {
            hash: token.secret_hash(),
            label: Shape::hostname(agent),
            group: String::new(),
            created_at: clock.now(),
            expires_at: clock.now().plus(Millis::DAY),
        };
        tokens.push(token);
        let store = store.clone();
        // All at once: the store commits them in groups.
        making.spawn(async move { store.create_token(new, "benches").await });
    }
    while let Some(made) = making.join_next().await {
        made??;
    }
    Ok(tokens)
}

/// A running collector. Dropped, it is killed.
pub struct Daemon {
    child: Child,
    /// Port for agents.
    pub agents: SocketAddr,
    /// Port for people.
    pub web: SocketAddr,
    authority: CertificateDer<'static>,
    api_token: String,
}

/// What the store tells about itself at `/metrics`.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreCounters {
    /// Groups committed.
    pub commits: u64,
    /// Blocks stored.
    pub blocks: u64,
    /// Records stored.
    pub records: u64,
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks `/metrics` once.
    ///
    /// # Errors
    /// When it does not answer as it should.
    pub async fn counters(&self) -> anyhow::Result<StoreCounters> {
        let text = self.get("/metrics").await?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            // The format has floats only; counts stay exact far beyond what a run makes.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count written as a float")]
            let count = line.and_then(|value| value.trim().parse::<f64>().ok()).map(|value| value as u64);
            count.with_context(|| format!("/metrics has no {name}"))
        };
        Ok(StoreCounters {
            commits: value("peil_store_commits")?,
            blocks: value("peil_store_blocks")?,
            records: value("peil_store_records")?,
        })
    }

    /// One GET over HTTP/1.0, whose answer ends with the connection.
    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone())?;
        let config = ClientConfig::builder_with_details(provider(), TlsClock::shared(&WallClock::System))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpStream::connect(self.web).await?;
        let name = ServerName::try_from("localhost")?;
        let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let request =
            format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n", self.api_token);
        tls.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tls.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
        let status = head.lines().next().unwrap_or_default();
        anyhow::ensure!(status.contains(" 200 "), "{path} answers {status}");
        Ok(body.to_owned())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it has ended by itself.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, then waits until it has closed its files.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let asked = Instant::now();
        while asked.elapsed() < STOP_MAX {
            if let Some(status) = self.child.try_wait()? {
                anyhow::ensure!(status.success(), "the collector ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        anyhow::bail!("the collector did not stop within {} s", STOP_MAX.as_secs())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already gone after `stop`; otherwise something failed and nobody needs it any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peil_collector::config::Config;

    #[test]
    fn the_settings_are_valid_and_every_agent_gets_its_checks() {
        let shape = Shape { agents: 7, checks: 3, vantages: 3 };
        let config =
            Config::parse("bench", &shape.settings(Path::new("/nowhere"), &Place::File)).expect("valid settings");
        assert_eq!(config.services.len(), 9);
        for agent in 0..shape.agents {
            let host = Shape::hostname(agent);
            let own: Vec<_> = config
                .checks
                .iter()
                .filter(|(_, check)| {
                    check.is_for(peil_proto::ids::AgentId([0; 16]), &host, "", &peil_proto::labels::Labels::default())
                })
                .collect();
            let lane = format!("lane{:04}-", shape.lane_of(agent));
            assert!(own.len() == 3 && own.iter().all(|(name, _)| name.starts_with(&lane)), "{host}: {own:?}");
        }
    }

    #[test]
    fn the_line_of_a_started_collector_is_understood() {
        let line = "listening agents=127.0.0.1:7 web=127.0.0.1:8";
        assert_eq!(listening(line), Some(([127, 0, 0, 1], 7).into()).zip(Some(([127, 0, 0, 1], 8).into())));
        assert_eq!(listening("First run"), None);
    }
}
