//! One gRPC stream, from Hello to its end.
//!
//! Batches are read from the spool after what was sent last, encoded as column blocks and sent while
//! at most `unacked_bytes_max` bytes are on their way. An ack releases the spool; nothing else does. A batch the
//! collector can never take (a poison record) is set aside in `quarantine/` and passed over.
//!
//! When to send: at once when an urgent record is durable or a backlog waits, otherwise when the
//! oldest unsent record has waited `batch_every`.
//!
//! A collector that has more of this spool than ever left it means that the state directory was put
//! back from an older copy, or that a clone of this host sends under the same identity: further records would bear numbers of
//! others and pass for repetitions. Nothing is released then; the spool takes a new epoch, and the next stream sends
//! everything unreleased under it. The other way round, a collector that has less
//! than it acked was put back from an older copy itself: it gets again what the spool has not yet cleared away.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peil_proto::block::{self, BLOCK_RECORDS_MAX, Item};
use peil_proto::convert;
use peil_proto::ids::{Epoch, Seq};
use peil_proto::labels::Labels;
use peil_proto::plan::Plan;
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::token::CaFingerprint;
use peil_proto::units::Millis;
use peil_proto::wire::agent_message::Kind as Say;
use peil_proto::wire::collector_message::Kind as Hear;
use peil_proto::wire::telemetry_client::TelemetryClient;
use peil_proto::wire::{AgentMessage, Batch, CollectorMessage, Hello, Label, PlanResult};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;
use tracing::{info, warn};

use super::quarantine;
use crate::local_checks::Told;
use crate::recorder::{Recorder, SpoolState};
use crate::status::Board;

#[cfg(test)]
mod tests;

/// Version of the conversation.
const PROTOCOL: u32 = 1;
/// Time the collector has to answer Hello.
const GREETING_MAX: Duration = Duration::from_secs(15);
/// An unacked batch this old means the stream is dead, whatever TCP thinks.
const ACK_MAX: Duration = Duration::from_secs(60);
/// Records of one batch; a backlog leaves in several.
const BATCH_RECORDS_MAX: usize = 4_000;
/// Spooled bytes of one batch. Far below the block's limit of 1 MiB.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Messages between this task and the stream.
const OUTBOX: usize = 8;
/// Longest pause a collector can ask for; a longer one is cut to it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The collector refused the stream or it broke.
    #[error("stream to the collector broke")]
    Stream(#[source] Box<tonic::Status>),
    /// No Welcome in time.
    #[error("the collector did not answer the greeting within {} s", GREETING_MAX.as_secs())]
    NoWelcome,
    /// No ack in time.
    #[error("the collector did not acknowledge a batch within {} s", ACK_MAX.as_secs())]
    NoAck,
    /// The collector ended the stream.
    #[error("the collector ended the stream")]
    Ended,
    /// The spool was put back from an older copy, or is used twice.
    #[error(
        "the collector has records of this spool through {acked}, of which it sent {last} at most: the state directory was put back from an older copy, or another host uses this identity; the spool goes on under a new epoch"
    )]
    Rewound {
        /// The collector's mark.
        acked: Seq,
        /// Newest record that left.
        last: Seq,
    },
    /// The collector asked for a pause.
    #[error("the collector asked to come back in {} ms: {reason}", after.as_millis())]
    RetryAfter {
        /// Not before this much time.
        after: Duration,
        /// In the collector's words.
        reason: String,
    },
}

/// What a session needs from the agent.
#[derive(Clone)]
pub struct Uplink {
    /// Records to send.
    pub recorder: Recorder,
    /// Where an accepted plan goes.
    pub plans: Arc<watch::Sender<Arc<Plan>>>,
    /// State directory: last plan, quarantine.
    pub state_dir: PathBuf,
    /// For the greeting.
    pub hostname: String,
    /// What this host is for.
    pub labels: Labels,
    /// Checks of the host's own, as they were read last.
    pub local: Told,
    /// Fingerprints of the authorities this host believes now, the issuer of its certificate first.
    pub trusted: Vec<CaFingerprint>,
    /// Where the collector's wish for a renewal goes: the time it may take.
    pub renew: Arc<watch::Sender<Option<Millis>>>,
    /// Tells this run of the agent from any other, also of a clone.
    pub run: u64,
    /// Patience of routine records.
    pub batch_every: Millis,
    /// Wall clock.
    pub clock: WallClock,
    /// Where connections are told, for `peil-agent status`.
    pub board: Board,
}

/// A batch on its way.
struct InFlight {
    last: Seq,
    bytes: usize,
    sent_at: Instant,
}

/// Whether there is more to send that can be read.
#[derive(PartialEq, Eq)]
enum Left {
    Something,
    Nothing,
}

/// The stream's own state.
struct Session<'u> {
    uplink: &'u Uplink,
    epoch: Epoch,
    say: mpsc::Sender<AgentMessage>,
    sent: Seq,
    in_flight: VecDeque<InFlight>,
    window_bytes: usize,
    waiting_since: Option<Instant>,
}

/// Greets, streams until the stream breaks or `stop`, and says why it ended. `Ok` means "we stopped".
///
/// # Errors
/// [`SessionError`]; the spool still holds everything unacked.
pub async fn run(uplink: &Uplink, channel: Channel, stop: &CancellationToken) -> Result<(), SessionError> {
    let mut client = TelemetryClient::new(channel).max_decoding_message_size(4 << 20);
    let mut state = uplink.recorder.state();
    let current = *state.borrow_and_update();
    let (say, outbox) = mpsc::channel(OUTBOX);
    let hello = Hello {
        protocol: PROTOCOL,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: current.epoch.0,
        acked: current.acked.0,
        last: current.durable.0,
        plan_version: uplink.plans.borrow().version,
        wall_ms: uplink.clock.now().0,
        hostname: uplink.hostname.clone(),
        run: uplink.run,
        labels: uplink.labels.iter().map(|(name, value)| Label { name: name.into(), value: value.into() }).collect(),
        local_checks: uplink.local.checks.clone(),
        local_problems: uplink.local.problems.clone(),
        authorities: uplink.trusted.iter().map(|authority| authority.0.to_vec()).collect(),
    };
    let _ = say.send(AgentMessage { kind: Some(Say::Hello(hello)) }).await;
    let opened = timeout(GREETING_MAX, client.stream(ReceiverStream::new(outbox))).await;
    let mut hear = opened.map_err(|_| SessionError::NoWelcome)?.map_err(broke)?.into_inner();
    let welcome =
        match timeout(GREETING_MAX, hear.message()).await.map_err(|_| SessionError::NoWelcome)?.map_err(broke)? {
            Some(CollectorMessage { kind: Some(Hear::Welcome(welcome)) }) => welcome,
            Some(CollectorMessage { kind: Some(Hear::RetryAfter(wait)) }) => {
                return Err(retry_after(wait.millis, wait.reason));
            }
            _ => return Err(SessionError::Ended),
        };
    let acked = Seq(welcome.acked);
    if acked > current.maybe_sent.max(current.acked) || welcome.renew_epoch {
        uplink.recorder.renew_epoch().await;
        return Err(SessionError::Rewound { acked, last: current.maybe_sent });
    }
    let clock_ahead_ms = uplink.clock.now().since(UtcTime(welcome.wall_ms));
    uplink.board.connected(uplink.clock.now(), clock_ahead_ms.0);
    info!(%acked, last = %current.durable, %clock_ahead_ms, "connected to the collector");
    uplink.recorder.collector_has(acked).await;
    let held = taken_back(uplink, acked, current).await;
    let mut session = Session {
        uplink,
        epoch: current.epoch,
        say,
        sent: held,
        in_flight: VecDeque::new(),
        window_bytes: usize::try_from(welcome.unacked_bytes_max).unwrap_or(BATCH_BYTES_MAX).max(1),
        waiting_since: None,
    };
    session.stream(&mut hear, &mut state, stop).await
}

/// After which record to send, when the collector's mark is `theirs` and the spool is as in `current`. What was set aside here counts as
/// handed over, though the collector's mark stands before it. Anything else that is missing there was acked and lost: its
/// database was put back from an older copy, and whatever the spool still has of it goes out again.
async fn taken_back(uplink: &Uplink, theirs: Seq, current: SpoolState) -> Seq {
    let ours = current.acked;
    if theirs >= ours {
        return theirs;
    }
    let (state_dir, epoch) = (uplink.state_dir.clone(), current.epoch);
    let aside = tokio::task::spawn_blocking(move || quarantine::through(&state_dir, epoch)).await.unwrap_or(ours);
    let wanted = theirs.max(aside);
    if wanted >= ours {
        return ours;
    }
    let kept = uplink.recorder.rewind(wanted).await;
    warn!(known = %theirs, was_acked = %ours, again_after = %kept, "the collector lost what it had acked; sending again what is still here");
    kept
}

fn broke(status: tonic::Status) -> SessionError {
    SessionError::Stream(Box::new(status))
}

fn retry_after(millis: u32, reason: String) -> SessionError {
    SessionError::RetryAfter { after: Duration::from_millis(millis.into()).min(RETRY_AFTER_MAX), reason }
}

impl Session<'_> {
    async fn stream(
        &mut self,
        hear: &mut Streaming<CollectorMessage>,
        state: &mut watch::Receiver<SpoolState>,
        stop: &CancellationToken,
    ) -> Result<(), SessionError> {
        loop {
            let now = *state.borrow_and_update();
            let stopping = stop.is_cancelled();
            let left = self.send_due(now, stopping).await?;
            if stopping && left == Left::Nothing && self.in_flight.is_empty() {
                return Ok(());
            }
            let wake = self.wake_at();
            tokio::select! {
                heard = hear.message() => match heard.map_err(broke)? {
                    None => return Err(SessionError::Ended),
                    Some(message) => self.hear(message).await?,
                },
                changed = state.changed() => if changed.is_err() { return Ok(()) },
                () = stop.cancelled(), if !stopping => {}
                () = tokio::time::sleep_until(wake) => {}
            }
            if self.in_flight.front().is_some_and(|batch| batch.sent_at.elapsed() > ACK_MAX) {
                return Err(SessionError::NoAck);
            }
        }
    }

    /// The next moment something must be looked at even if nothing is heard. With a full window only an ack
    /// can help, so the patience of what waits does not count then.
    fn wake_at(&self) -> Instant {
        let waiting = self.waiting_since.filter(|_| !self.window_is_full());
        let batch = waiting.map(|since| since + self.uplink.batch_every.to_duration());
        let ack = self.in_flight.front().map(|batch| batch.sent_at + ACK_MAX + Duration::from_millis(10));
        [batch, ack].into_iter().flatten().min().unwrap_or_else(|| Instant::now() + ACK_MAX)
    }

    fn window_is_full(&self) -> bool {
        self.in_flight.iter().map(|batch| batch.bytes).sum::<usize>() >= self.window_bytes
    }

    async fn send_due(&mut self, state: SpoolState, stopping: bool) -> Result<Left, SessionError> {
        while self.sent < state.durable {
            let unsent = state.durable.0 - self.sent.0;
            let since = *self.waiting_since.get_or_insert_with(Instant::now);
            let patient = since.elapsed() < self.uplink.batch_every.to_duration();
            let backlog = usize::try_from(unsent).unwrap_or(usize::MAX) >= BATCH_RECORDS_MAX / 4;
            let due = stopping || state.urgent > self.sent || backlog || !patient;
            if !due || self.window_is_full() {
                return Ok(Left::Something);
            }
            if !self.send_batch().await? {
                // Damaged, or a disk that does not read just now: looked at again after the usual patience.
                self.waiting_since = Some(Instant::now());
                return Ok(Left::Nothing);
            }
        }
        self.waiting_since = None;
        Ok(Left::Nothing)
    }

    /// Sends what follows `sent`, as one block. False when nothing could be read just now.
    async fn send_batch(&mut self) -> Result<bool, SessionError> {
        let records =
            self.uplink.recorder.read_after(self.sent, BATCH_RECORDS_MAX.min(BLOCK_RECORDS_MAX), BATCH_BYTES_MAX).await;
        let Some((first, _)) = records.first() else { return Ok(false) };
        let first = *first;
        let mut last = first;
        let mut items = Vec::with_capacity(records.len());
        for (seq, record) in &records {
            // A block holds consecutive numbers; after a hole the next block begins.
            if *seq != first && last.0.checked_add(1) != Some(seq.0) {
                break;
            }
            last = *seq;
            // A record that cannot be read back still has a number: it goes as it is, and the collector refuses it.
            items.push(convert::to_item(record).unwrap_or_else(|_| Item::Other(record.clone())));
        }
        let block = Bytes::from(block::encode(first, &items));
        self.in_flight.push_back(InFlight { last, bytes: block.len(), sent_at: Instant::now() });
        self.sent = last;
        self.waiting_since = None;
        let batch = Batch { epoch: self.epoch.0, first_seq: first.0, block };
        self.say(Say::Batch(batch)).await?;
        Ok(true)
    }

    async fn say(&self, kind: Say) -> Result<(), SessionError> {
        self.say.send(AgentMessage { kind: Some(kind) }).await.map_err(|_| SessionError::Ended)
    }

    async fn hear(&mut self, message: CollectorMessage) -> Result<(), SessionError> {
        match message.kind {
            Some(Hear::Ack(ack)) if ack.epoch == self.epoch.0 => self.acked(Seq(ack.through)).await,
            Some(Hear::Refusal(refusal)) if refusal.epoch == self.epoch.0 => {
                self.quarantine(Seq(refusal.first_seq), Seq(refusal.last_seq), &refusal.reason).await;
            }
            Some(Hear::Plan(plan)) => self.take_plan(plan).await?,
            Some(Hear::RetryAfter(wait)) => return Err(retry_after(wait.millis, wait.reason)),
            Some(Hear::RenewIdentity(wish)) => {
                self.uplink.renew.send_replace(Some(Millis(wish.within_ms.into())));
            }
            // A message this agent does not know, or about another epoch: from a newer collector.
            _ => {}
        }
        Ok(())
    }

    async fn acked(&mut self, through: Seq) {
        // What was never sent cannot have been stored, whatever is said.
        let through = through.min(self.sent);
        while self.in_flight.front().is_some_and(|batch| batch.last <= through) {
            self.in_flight.pop_front();
        }
        self.uplink.recorder.release(through).await;
    }

    /// Sets a refused batch aside, for a person to look at, and goes on after it.
    async fn quarantine(&mut self, first: Seq, last: Seq, reason: &str) {
        warn!(%first, %last, reason, "the collector can never take these records; they are set aside in quarantine/");
        let count = usize::try_from(last.0.saturating_sub(first.0).saturating_add(1)).unwrap_or(BATCH_RECORDS_MAX);
        let records = self
            .uplink
            .recorder
            .read_after(Seq(first.0.saturating_sub(1)), count.min(BLOCK_RECORDS_MAX), BATCH_BYTES_MAX * 4)
            .await;
        let items: Vec<_> =
            records.into_iter().filter(|(seq, _)| *seq <= last).map(|(_, record)| Item::Other(record)).collect();
        if let Err((path, error)) = quarantine::set_aside(&self.uplink.state_dir, self.epoch, first, &items) {
            warn!(%error, path = %path.display(), "quarantine cannot be written");
        }
        self.acked(last).await;
    }

    async fn take_plan(&mut self, plan: peil_proto::wire::Plan) -> Result<(), SessionError> {
        let version = plan.version;
        let (refused, left_out) = match convert::plan_from_wire(plan) {
            Err(problems) => (problems, Vec::new()),
            Ok(plan) => {
                let kept = crate::plan_file::save(&self.uplink.state_dir, &plan);
                if let Err(error) = kept {
                    warn!(%error, "plan cannot be kept on disk; after a restart the agent waits for the collector");
                }
                let left_out = plan.left_out();
                self.uplink.plans.send_replace(Arc::new(plan));
                (Vec::new(), left_out)
            }
        };
        for problem in &refused {
            warn!(version, problem, "plan refused");
        }
        for problem in &left_out {
            warn!(version, problem, "this agent cannot run a check of the plan; is it older than the collector?");
        }
        self.say(Say::PlanResult(PlanResult { version, refused, left_out })).await
    }
}
