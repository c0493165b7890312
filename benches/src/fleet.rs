//! Agents: enrolled with their own key and token, each on its own mutual-TLS stream, one batch in flight.
//!
//! The whole fleet runs in this process on one thread, so that the collector has the other core; what the
//! fleet itself uses is not in any figure. A stream that is refused, told to wait or broken off fails the run:
//! a figure with silent holes would be worse than none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use peil_agent::identity;
use peil_agent::uplink::connect as agent_connect;
use peil_proto::ids::AgentId;
use peil_proto::time::WallClock;
use peil_proto::token::Token;
use peil_proto::wire::agent_message::Kind as Say;
use peil_proto::wire::collector_message::Kind as Hear;
use peil_proto::wire::enrolment_client::EnrolmentClient;
use peil_proto::wire::telemetry_client::TelemetryClient;
use peil_proto::wire::{AgentMessage, Batch, CollectorMessage, EnrolRequest, Hello, Plan};
use rustls::ClientConfig;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::daemon::Shape;
use crate::load::Lane;
use crate::wire::{self, Traffic};

/// Handshakes this side has under way at once; the collector takes 64.
const CONNECTING_MAX: usize = 48;
/// An ack that takes longer means that something is broken.
const ACK_MAX: Duration = Duration::from_secs(60);
/// Generation of every spool here: each agent has one only.
const EPOCH: u64 = 0x6265_6e63_6865_7321;

/// Latencies in µs, 1 µs to 60 s, 3 significant digits.
pub type Latencies = Histogram<u64>;

/// How fast batches leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// The next one as soon as the last is acked.
    Max,
    /// One per stream in this time, spread evenly over the streams; later when an ack is late.
    Every(Duration),
}

/// An agent that has its certificate.
pub struct Member {
    /// Which one it is.
    pub index: usize,
    /// From the collector.
    pub agent: AgentId,
    tls: Arc<ClientConfig>,
}

/// Enrols one agent per token over the wire, as `peil-agent enroll` does.
///
/// # Errors
/// The first refusal or broken connection.
pub async fn enrol(collector: SocketAddr, tokens: &[Token]) -> anyhow::Result<Vec<Member>> {
    let permits = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut enrolling = JoinSet::new();
    for (index, token) in tokens.iter().cloned().enumerate() {
        let permits = permits.clone();
        enrolling.spawn(async move {
            let _permit = permits.acquire_owned().await?;
            enrol_one(collector, index, &token).await
        });
    }
    let mut members = gather(enrolling).await?;
    members.sort_by_key(|member| member.index);
    Ok(members)
}

async fn enrol_one(collector: SocketAddr, index: usize, token: &Token) -> anyhow::Result<Member> {
    let (key, csr) = identity::prepare()?;
    let config = Arc::new(identity::enrol_client_config(token.authority, &WallClock::System)?);
    let url = format!("https://localhost:{}", collector.port());
    let channel = agent_connect::connect(&url, config, agent_connect::Timeouts::default()).await?;
    let request =
        EnrolRequest { token: token.secret.reveal(), csr, hostname: Shape::hostname(index), ..EnrolRequest::default() };
    let given = EnrolmentClient::new(channel).enrol(request).await?.into_inner();
    let agent = AgentId::parse(&given.agent_id).context("the collector gave an id that is none")?;
    Ok(Member { index, agent, tls: wire::client_config(&key, given.certificate, given.authority)? })
}

async fn gather<T: 'static>(mut tasks: JoinSet<anyhow::Result<T>>) -> anyhow::Result<Vec<T>> {
    let mut done = Vec::with_capacity(tasks.len());
    while let Some(joined) = tasks.join_next().await {
        done.push(joined??);
    }
    Ok(done)
}

/// An open stream that has been greeted and has its plan.
pub struct Stream {
    /// Whose.
    pub index: usize,
    /// By id.
    pub agent: AgentId,
    say: mpsc::Sender<AgentMessage>,
    hear: Streaming<CollectorMessage>,
    next: usize,
}

/// Opens every stream: connection, Hello, Welcome, plan. Agents are dealt out to the collectors in turn.
///
/// # Errors
/// The first that fails, or a plan that is not the lane's.
pub async fn open(
    collectors: &[SocketAddr],
    members: &[Member],
    lanes: &Arc<Vec<Lane>>,
    shape: Shape,
    traffic: &Arc<Traffic>,
) -> anyhow::Result<Vec<Stream>> {
    let permits = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut opening = JoinSet::new();
    for member in members {
        let (permits, lanes, traffic) = (permits.clone(), lanes.clone(), traffic.clone());
        let (index, agent, tls) = (member.index, member.agent, member.tls.clone());
        let collector = *collectors.get(index % collectors.len().max(1)).context("no collector")?;
        opening.spawn(async move {
            let _permit = permits.acquire_owned().await?;
            let channel = wire::connect(collector, tls, traffic).await?;
            let lane = lanes.get(shape.lane_of(index)).context("an agent without a lane")?;
            greet(TelemetryClient::new(channel), index, agent, lane).await
        });
    }
    gather(opening).await
}

async fn greet(
    mut client: TelemetryClient<tonic::transport::Channel>,
    index: usize,
    agent: AgentId,
    lane: &Lane,
) -> anyhow::Result<Stream> {
    let (say, outbox) = mpsc::channel(2);
    let hello = Hello {
        protocol: 1,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: EPOCH,
        acked: 0,
        last: 0,
        plan_version: 0,
        wall_ms: WallClock::System.now().0,
        hostname: Shape::hostname(index),
        run: 0,
        authorities: Vec::new(),
        labels: Vec::new(),
        local_checks: Vec::new(),
        local_problems: Vec::new(),
    };
    say.send(AgentMessage { kind: Some(Say::Hello(hello)) }).await?;
    let hear = client.stream(ReceiverStream::new(outbox)).await?.into_inner();
    let mut stream = Stream { index, agent, say, hear, next: 0 };
    match stream.hear().await? {
        Hear::Welcome(welcome) if welcome.acked == 0 => {}
        other => bail!("Welcome for a new agent was expected, {other:?} came"),
    }
    match stream.hear().await? {
        Hear::Plan(Plan { checks, .. }) => {
            let planned: Vec<_> = checks.iter().map(|check| check.no).collect();
            let wanted: Vec<_> = lane.checks.iter().map(|no| no.0).collect();
            anyhow::ensure!(planned == wanted, "planned checks {planned:?}, wanted {wanted:?}");
        }
        other => bail!("a plan was expected, {other:?} came"),
    }
    Ok(stream)
}

/// What one stream did.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// Whose.
    pub agent: AgentId,
    /// Results acked.
    pub acked: u64,
    /// Bytes of the blocks they were in.
    pub block_bytes: u64,
    /// Batches acked.
    pub batches: u64,
    /// All prepared blocks were sent before the time was over.
    pub ran_out: bool,
}

impl Stream {
    async fn hear(&mut self) -> anyhow::Result<Hear> {
        let heard = tokio::time::timeout(ACK_MAX, self.hear.message()).await;
        let message = heard.context("the collector did not answer within a minute")??;
        message.and_then(|message| message.kind).context("the collector ended the stream")
    }

    /// Sends one block and waits for its ack.
    async fn deliver(&mut self, lane: &Lane) -> anyhow::Result<u64> {
        let block = lane.blocks.get(self.next).context("no block left")?.clone();
        let bytes = block.len() as u64;
        let batch = Batch { epoch: EPOCH, first_seq: lane.first(self.next).0, block };
        self.say.send(AgentMessage { kind: Some(Say::Batch(batch)) }).await.context("the stream is closed")?;
        match self.hear().await? {
            Hear::Ack(ack) if ack.epoch == EPOCH && ack.through == lane.last(self.next).0 => {}
            other => bail!("the ack of {} was expected, {other:?} came", lane.last(self.next)),
        }
        self.next += 1;
        Ok(bytes)
    }

    /// Sends batch after batch until `until` or the lane is empty.
    async fn run(
        &mut self,
        lane: &Lane,
        rate: Rate,
        shape: Shape,
        until: Instant,
    ) -> anyhow::Result<(Done, Latencies)> {
        let mut latencies = Latencies::new_with_bounds(1, 60_000_000, 3)?;
        let mut done = Done { agent: self.agent, acked: 0, block_bytes: 0, batches: 0, ran_out: false };
        let mut due = Instant::now();
        if let Rate::Every(period) = rate {
            let part = u32::try_from(self.index).unwrap_or(0);
            due += period * part / u32::try_from(shape.agents.max(1)).unwrap_or(1);
        }
        loop {
            if let Rate::Every(period) = rate {
                tokio::time::sleep_until(due.min(until).into()).await;
                due = Instant::now().max(due + period);
            }
            done.ran_out = self.next == lane.blocks.len();
            if done.ran_out || Instant::now() >= until {
                return Ok((done, latencies));
            }
            let sent_at = Instant::now();
            done.block_bytes += self.deliver(lane).await?;
            let micros = u64::try_from(sent_at.elapsed().as_micros()).unwrap_or(u64::MAX);
            latencies.saturating_record(micros);
            done.batches += 1;
            done.acked += lane.batch as u64;
        }
    }
}

/// Runs all streams for `time` and gives them back open, with what they did.
///
/// # Errors
/// The first stream that fails.
pub async fn load(
    streams: Vec<Stream>,
    lanes: &Arc<Vec<Lane>>,
    shape: Shape,
    rate: Rate,
    time: Duration,
) -> anyhow::Result<(Vec<Stream>, Vec<Done>, Latencies)> {
    let until = Instant::now() + time;
    let mut running = JoinSet::new();
    for mut stream in streams {
        let lanes = lanes.clone();
        running.spawn(async move {
            let lane = lanes.get(shape.lane_of(stream.index)).context("an agent without a lane")?;
            let (done, latencies) = stream.run(lane, rate, shape, until).await?;
            Ok((stream, done, latencies))
        });
    }
    let mut all = Latencies::new_with_bounds(1, 60_000_000, 3)?;
    let (mut streams, mut work) = (Vec::new(), Vec::new());
    for (stream, done, latencies) in gather(running).await? {
        all.add(&latencies)?;
        streams.push(stream);
        work.push(done);
    }
    Ok((streams, work, all))
}
