//! Many agents in one process: each enrolled, on its own mutual-TLS stream, with records that follow from their numbers.
//!
//! The identity, the connection and the wire are the agent's own; its spool is replaced by the rule that record `n` of
//! agent `i` is always the same, so any record can be sent again at any time, and a second run can be fed with the very
//! same input. What an agent was told is stored it never sends again: a collector that then knows less than was acked
//! has lost something, and the agent says so.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use peil_agent::identity::Identity;
use peil_agent::uplink::connect::{self, Timeouts};
use peil_proto::block::{self, Item};
use peil_proto::ids::{AgentId, CheckNo, Seq};
use peil_proto::sample::{FailureKind, Outcome, Phases, Sample};
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::{Micros, Millis};
use peil_proto::wire::agent_message::Kind as Say;
use peil_proto::wire::collector_message::Kind as Hear;
use peil_proto::wire::telemetry_client::TelemetryClient;
use peil_proto::wire::{AgentMessage, Batch, CollectorMessage, Hello};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::dice::Dice;

/// Between two samples of a check.
pub const INTERVAL: Millis = Millis(10_000);
/// Generation of every spool here.
pub const EPOCH: u64 = 7;
/// A collector that answers nothing for this long is given up for another.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Pause after a broken stream, at most.
const PAUSE_MS_MAX: u64 = 400;

/// What all agents of a fleet have in common.
#[derive(Clone)]
pub struct Plan {
    /// Where they connect.
    pub url: String,
    /// Checks that each of them runs.
    pub checks: Vec<CheckNo>,
    /// When the first sample was due.
    pub since: UtcTime,
    /// Records each of them sends.
    pub records: u64,
    /// Pause between two batches, at most.
    pub pause_ms_max: u64,
}

/// One agent.
pub struct Member {
    /// Place in the fleet.
    pub index: u64,
    /// From the collector.
    pub agent: AgentId,
    identity: Identity,
    /// Newest record it was told is stored.
    acked: AtomicU64,
}

impl Member {
    /// Enrols one agent over the wire, as `peil-agent enroll` does.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn enrol(index: u64, url: &str, token: &str, dir: &Path) -> anyhow::Result<Arc<Self>> {
        let state = dir.join(format!("agent-{index}"));
        let clock = WallClock::System;
        let identity = peil_agent::enrol::enrol(url, token, &Self::hostname(index), &state, false, &clock).await?;
        Ok(Arc::new(Self { index, agent: identity.agent(), identity, acked: AtomicU64::new(0) }))
    }

    /// How it calls itself.
    pub fn hostname(index: u64) -> String {
        format!("fleet-{index:03}")
    }

    /// Newest record it was told is stored.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Sends everything, through whatever breaks, until all of it is acked or `stop`.
    ///
    /// # Errors
    /// When a collector knows less than another one acked.
    pub async fn run(self: Arc<Self>, plan: Plan, seed: u64, stop: CancellationToken) -> anyhow::Result<()> {
        let mut dice = Dice::from_seed(seed);
        while self.acked() < plan.records && !stop.is_cancelled() {
            match self.stream(&plan, &mut dice, &stop).await {
                Ok(()) => {}
                Err(Ended::Lost(loss)) => bail!(loss),
                Err(Ended::Broken(why)) => {
                    eprintln!("[agent {}] {why:#}", self.index);
                    tokio::time::sleep(Duration::from_millis(dice.below(PAUSE_MS_MAX))).await;
                }
            }
        }
        Ok(())
    }

    async fn stream(&self, plan: &Plan, dice: &mut Dice, stop: &CancellationToken) -> Result<(), Ended> {
        let tls = Arc::new(self.identity.client_config(&WallClock::System).context("identity")?);
        let channel = connect::connect(&plan.url, tls, Timeouts::default()).await.context("connect")?;
        let (say, outbox) = mpsc::channel(4);
        say.send(self.hello()).await.context("say hello")?;
        let mut client = TelemetryClient::new(channel);
        let opened = tokio::time::timeout(ANSWER_MAX, client.stream(ReceiverStream::new(outbox)));
        let mut hear = opened.await.context("no answer")?.context("open")?.into_inner();
        let Hear::Welcome(welcome) = heard(&mut hear).await? else { return Err(broken("no welcome")) };
        if welcome.acked < self.acked() {
            let (index, acked) = (self.index, self.acked());
            return Err(Ended::Lost(format!("agent {index} was acked {acked}, a collector knows {}", welcome.acked)));
        }
        self.acked.fetch_max(welcome.acked, Ordering::Relaxed);
        while self.acked() < plan.records && !stop.is_cancelled() {
            // Now and then something that was sent before goes along: a real agent's ack may have been lost.
            let again = if dice.below(8) == 0 { dice.below(20) } else { 0 };
            let first = (self.acked() + 1).saturating_sub(again).max(1);
            let last = (self.acked() + 1 + dice.below(60)).min(plan.records);
            let block = plan.block(self.index, first, last).into();
            let batch = Batch { epoch: EPOCH, first_seq: first, block };
            say.send(AgentMessage { kind: Some(Say::Batch(batch)) }).await.context("say a batch")?;
            loop {
                match heard(&mut hear).await? {
                    Hear::Ack(ack) => {
                        self.acked.fetch_max(ack.through, Ordering::Relaxed);
                        break;
                    }
                    Hear::Refusal(refusal) => return Err(Ended::Lost(format!("refused: {}", refusal.reason))),
                    Hear::RetryAfter(wait) => return Err(broken(&wait.reason)),
                    Hear::Welcome(_) | Hear::Plan(_) | Hear::RenewIdentity(_) => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(dice.below(plan.pause_ms_max))).await;
        }
        Ok(())
    }

    fn hello(&self) -> AgentMessage {
        let hello = Hello {
            protocol: 1,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: EPOCH,
            wall_ms: WallClock::System.now().0,
            hostname: Self::hostname(self.index),
            ..Hello::default()
        };
        AgentMessage { kind: Some(Say::Hello(hello)) }
    }
}

/// Why a stream ended.
enum Ended {
    /// It happens; the next one goes on.
    Broken(anyhow::Error),
    /// What must never happen.
    Lost(String),
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

fn broken(why: &str) -> Ended {
    Ended::Broken(anyhow::anyhow!("{why}"))
}

async fn heard(hear: &mut Streaming<CollectorMessage>) -> Result<Hear, Ended> {
    let message = tokio::time::timeout(ANSWER_MAX, hear.message()).await.context("no answer")?.context("broke")?;
    Ok(message.and_then(|message| message.kind).context("the collector ended the stream")?)
}

impl Plan {
    /// Record `seq` of agent `index`: check after check, tick after tick; one in about forty fails, in bursts.
    pub fn sample(&self, index: u64, seq: u64) -> Sample {
        let checks = self.checks.len() as u64;
        let (tick, check) = ((seq - 1) / checks, (seq - 1) % checks);
        let mut dice = Dice::from_seed((index << 40) | (check << 32) | (tick / 5));
        let outcome = match dice.below(40) {
            0 => Outcome::Failed { kind: FailureKind::Refused, code: 0 },
            _ => Outcome::Up { code: 200 },
        };
        let mut micros = || Some(Micros(u32::try_from(dice.below(50_000)).unwrap_or(0)));
        let phases = Phases { resolve: micros(), connect: micros(), first_byte: micros(), ..Phases::default() };
        let no = usize::try_from(check).ok().and_then(|at| self.checks.get(at)).copied().unwrap_or(CheckNo(0));
        let scheduled_at = self.since.plus(Millis(i64::try_from(tick).unwrap_or(0) * INTERVAL.0));
        Sample { check: no, scheduled_at, delay: Millis(0), outcome, phases }
    }

    /// The number of a sample; `None` for one that no record is.
    pub fn seq_of(&self, sample: &Sample) -> Option<u64> {
        let check = self.checks.iter().position(|check| *check == sample.check)?;
        let Millis(since) = sample.scheduled_at.since(self.since);
        let tick = u64::try_from(since).ok()?;
        let whole = tick.is_multiple_of(INTERVAL.0.cast_unsigned());
        whole.then(|| tick / INTERVAL.0.cast_unsigned() * self.checks.len() as u64 + check as u64 + 1)
    }

    /// Records `first` to `last` of agent `index`, as a block.
    pub fn block(&self, index: u64, first: u64, last: u64) -> Vec<u8> {
        let items: Vec<Item> = (first..=last).map(|seq| Item::Sample(self.sample(index, seq))).collect();
        block::encode(Seq(first), &items)
    }
}

/// Enrols as many agents as there are tokens, a few at a time.
///
/// # Errors
/// The first that is refused.
pub async fn enrol(url: &str, tokens: Vec<String>, dir: &Path) -> anyhow::Result<Vec<Arc<Member>>> {
    let permits = Arc::new(tokio::sync::Semaphore::new(16));
    let mut enrolling = JoinSet::new();
    for (index, token) in (0..).zip(tokens) {
        let (url, dir, permits) = (url.to_owned(), dir.to_owned(), permits.clone());
        enrolling.spawn(async move {
            let _permit = permits.acquire().await?;
            Member::enrol(index, &url, &token, &dir).await
        });
    }
    let mut members = Vec::new();
    while let Some(member) = enrolling.join_next().await {
        members.push(member??);
    }
    members.sort_by_key(|member| member.index);
    ensure!(!members.is_empty(), "a fleet of nobody");
    Ok(members)
}
