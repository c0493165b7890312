//! Three collectors on one PostgreSQL with a replica, agents behind a balancer, and one of them killed after the other:
//! collectors, the primary with a fail-over to its replica, the primary with a restart, all connections at once, and a
//! collector that merely stands still for longer than its leases. What was acked is there, once, and the figures are byte
//! for byte those of one collector with a file that was fed the same records in peace.
//!
//! `PEIL_SEED` repeats a run; `PEIL_LONG` makes it a hundred rounds with 200 agents.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use peil_collector::store::{Place, Store};
use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::units::Millis;
use peil_test_postgres::{Care, Server};
use peil_tests::dice::Dice;
use peil_tests::fleet::{self, INTERVAL, Member, Plan};
use peil_tests::kept::Kept;
use peil_tests::peace::{self, CHECKS};
use peil_tests::{Balancer, Collector, eventually};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longest time between two blows.
const LIFE_MS_MAX: u64 = 1_500;
/// Longer than a lease.
const STANDSTILL: Duration = Duration::from_secs(23);

/// How much of it.
struct Size {
    agents: u64,
    rounds: u64,
    records: u64,
    pause_ms_max: u64,
}

impl Size {
    fn from_environment() -> Self {
        match std::env::var_os("PEIL_LONG") {
            // So many, so slowly that they still send when the last blow falls.
            Some(_) => Self { agents: 200, rounds: 100, records: 8_000, pause_ms_max: 5_000 },
            None => Self { agents: 24, rounds: 7, records: 1_200, pause_ms_max: 400 },
        }
    }
}

/// The servers: one takes writes, the other copies every commit before it is told.
struct Pair {
    primary: Server,
    replica: Option<Server>,
}

impl Pair {
    fn start() -> Self {
        let primary = Server::start(Care::Durable, &[]);
        let replica = primary.replica();
        // From here on a commit is told only when both have it: a fail-over loses nothing.
        primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
        primary.sql("postgres", "SELECT pg_reload_conf()");
        Self { primary, replica: Some(replica) }
    }

    fn url(&self) -> String {
        let replica = self.replica.as_ref().map_or(0, Server::port);
        format!(
            "postgres://peil@127.0.0.1:{},127.0.0.1:{replica}/peil?target_session_attrs=read-write",
            self.primary.port()
        )
    }

    /// The primary dies, its replica takes over, and a new replica is made where it was.
    fn fail_over(&mut self) {
        let heir = self.replica.take().expect("there is a replica");
        let port = self.primary.port();
        self.primary.kill();
        heir.promote();
        self.primary = heir;
        self.replica = Some(self.primary.replica_on(port));
    }

    /// The primary dies and comes back.
    fn restart(&self) {
        self.primary.kill();
        self.primary.launch();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_collectors_lose_nothing_whoever_is_killed() -> anyhow::Result<()> {
    let size = Size::from_environment();
    let mut dice = Dice::from_environment();
    let mut pair = tokio::task::spawn_blocking(Pair::start).await?;
    let (head, settings) = (format!("store = {:?}", pair.url()), peace::settings());
    let first = Collector::start_at(&head, &settings).await?;
    let others = [Collector::join(&first, &head, &settings).await?, Collector::join(&first, &head, &settings).await?];
    let mut collectors: Vec<Collector> = std::iter::once(first).chain(others).collect();
    let balancer = Balancer::start(collectors.iter().map(Collector::address).collect()).await?;
    let dir = tempfile::tempdir()?;
    let tokens = (0..size.agents).map(|_| collectors[0].token()).collect::<anyhow::Result<_>>()?;
    let members = fleet::enrol(&balancer.url(), tokens, dir.path()).await?;
    let ticks = i64::try_from(size.records / CHECKS)?;
    let since = peace::since(ticks);
    let checks = (1..=u32::try_from(CHECKS)?).map(CheckNo).collect();
    let plan = Plan { url: balancer.url(), checks, since, records: size.records, pause_ms_max: size.pause_ms_max };

    let stop = CancellationToken::new();
    let mut agents = JoinSet::new();
    for member in &members {
        agents.spawn(member.clone().run(plan.clone(), dice.below(u64::MAX), stop.clone()));
    }
    for round in 0..size.rounds {
        // The moment of the blow is the experiment; nothing is expected to have happened by then.
        tokio::time::sleep(Duration::from_millis(dice.below(LIFE_MS_MAX))).await;
        pair = blow(round, &mut dice, pair, &mut collectors, &balancer).await?;
    }
    // Everything arrives, and an agent that found something missing has said so.
    while let Some(ended) = agents.join_next().await {
        ended??;
    }
    for member in &members {
        ensure!(member.acked() == size.records, "agent {} was acked {}", member.index, member.acked());
    }
    settled(&collectors[0], size.agents * size.records).await?;
    for collector in &mut collectors {
        collector.stop().await?;
    }
    every_record_is_there_once(&pair.primary, &members, &plan)?;

    let at = since.plus(Millis(INTERVAL.0 * (ticks + 3)));
    let url = pair.url();
    let server = tokio::task::spawn_blocking(move || {
        Store::connect(&Place::parse(&url, Default::default())?).map_err(anyhow::Error::from)
    });
    let here = peace::figures(server.await??, &settings, at).await?;
    let alone = peace::figures(peace::fed(dir.path(), &members, &plan).await?, &settings, at).await?;
    ensure!(here.contains("\"outages\":[{"), "the records have outages: {here}");
    ensure!(here == alone, "the figures differ:\n{here}\n{alone}");
    Ok(())
}

/// One blow; everybody who was hit is brought back before the next one.
async fn blow(
    round: u64,
    dice: &mut Dice,
    mut pair: Pair,
    collectors: &mut [Collector],
    balancer: &Balancer,
) -> anyhow::Result<Pair> {
    let whom = usize::try_from(dice.below(3))?;
    // Each kind once, then by chance; the slow ones seldom.
    let kind = if round < 5 { round } else { [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4][usize::try_from(dice.below(12))?] };
    match kind {
        0 => {
            eprintln!("[test] round {round}: collector {whom} is killed");
            collectors[whom].kill9()?;
            tokio::time::sleep(Duration::from_millis(dice.below(LIFE_MS_MAX))).await;
            restart(&mut collectors[whom]).await?;
        }
        1 => {
            eprintln!("[test] round {round}: the primary is killed, the replica takes over");
            pair = tokio::task::spawn_blocking(move || {
                pair.fail_over();
                pair
            })
            .await?;
        }
        2 => {
            eprintln!("[test] round {round}: the primary is killed and comes back");
            pair = tokio::task::spawn_blocking(move || {
                pair.restart();
                pair
            })
            .await?;
        }
        3 => {
            eprintln!("[test] round {round}: all connections are cut");
            balancer.cut_all();
        }
        _ => {
            eprintln!("[test] round {round}: collector {whom} stands still");
            collectors[whom].pause()?;
            tokio::time::sleep(STANDSTILL).await;
            collectors[whom].resume()?;
        }
    }
    Ok(pair)
}

/// A collector that starts while the database is away says so and ends; whoever looks after it starts it again.
async fn restart(collector: &mut Collector) -> anyhow::Result<()> {
    eventually("the collector starts again", async || collector.restart().await).await
}

/// Waits until one collector shows every record.
async fn settled(collector: &Collector, records: u64) -> anyhow::Result<()> {
    eventually("every record is counted", async || {
        let hosts = collector.api().get("hosts").await?;
        let counted: u64 =
            hosts["hosts"].as_array().into_iter().flatten().filter_map(|host| host["records"].as_u64()).sum();
        ensure!(counted == records, "{counted} of {records}");
        Ok(())
    })
    .await
}

/// Reads blocks and days as they lie, with psql, and holds every record of every agent against what was sent.
fn every_record_is_there_once(server: &Server, members: &[Arc<Member>], plan: &Plan) -> anyhow::Result<()> {
    let mut kept = Kept::default();
    for row in
        server.sql("peil", "SELECT encode(agent, 'hex'), first_seq, skip, encode(bytes, 'hex') FROM block").lines()
    {
        let cells: Vec<&str> = row.split('|').collect();
        let [agent, first, skip, bytes] = cells.as_slice() else { anyhow::bail!("a row of {} cells", cells.len()) };
        kept.block(agent_of(agent)?, first.parse()?, skip.parse()?, &bytes_of(bytes)?)?;
    }
    for row in server.sql("peil", "SELECT encode(agent, 'hex'), encode(bytes, 'hex') FROM day_block").lines() {
        let (agent, bytes) = row.split_once('|').context("a row of one cell")?;
        kept.day(agent_of(agent)?, &bytes_of(bytes)?)?;
    }
    eprintln!("[test] {} days of agents were compacted", kept.days);
    let records = plan.records;
    members.iter().try_for_each(|member| kept.check(plan, (member.index, member.agent), records))?;
    let marks = server.sql("peil", "SELECT COUNT(*), SUM(acked), SUM(records), SUM(lost) FROM agent_stream");
    let all = members.len() as u64 * records;
    ensure!(marks == format!("{}|{all}|{all}|0", members.len()), "the marks say {marks}");
    Ok(())
}

fn bytes_of(hex: &str) -> anyhow::Result<Vec<u8>> {
    let bytes = (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16));
    bytes.collect::<Result<_, _>>().context("no hex digits")
}

fn agent_of(hex: &str) -> anyhow::Result<AgentId> {
    AgentId::parse(hex).with_context(|| format!("{hex:?} is no agent"))
}
