//! The one way into the spool: a thread that owns it, and the handle everybody else holds.
//!
//! Records arrive over a bounded queue and are appended as they come; one `fdatasync` every
//! [`SYNC_EVERY`] (at once for an urgent record) makes the group durable, and the newest durable sequence
//! is published to the uplink. When the disk fails, records wait in memory (at most [`HELD_MAX`]; then
//! the oldest go and a gap says so) and the thread keeps trying: probing never stops for a disk.
//!
//! What the spool lost (damage found at start, segments dropped when full) becomes [`Record::Gap`], and so does a
//! record too large for the spool: it is dropped, for it would hold up everything behind it for ever.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use peil_proto::convert;
use peil_proto::ids::{Epoch, Seq};
use peil_proto::record::{Gap, Record};
use peil_proto::sample::GapReason;
use peil_proto::time::{UtcTime, WallClock};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::spool::{AppendError, SeqRange, Spool};

#[cfg(test)]
mod tests;

/// Records between probes and the spool thread. When full, `record` waits: the disk is the brake.
const QUEUE: usize = 4_096;
/// Longest time a routine record waits for its sync.
const SYNC_EVERY: Duration = Duration::from_millis(500);
/// Pause before a failed disk is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Records held in memory while the disk fails. Beyond it the oldest are lost, and a gap says so.
const HELD_MAX: usize = 50_000;

/// What the uplink needs to know of the spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolState {
    /// Newest record that is durable and may be sent.
    pub durable: Seq,
    /// Newest durable record that must leave at once.
    pub urgent: Seq,
    /// Acked by the collector.
    pub acked: Seq,
    /// Bytes on disk.
    pub bytes: u64,
    /// The disk refuses; records are held in memory.
    pub degraded: bool,
}

enum Command {
    Append { record: Vec<u8>, urgent: bool },
    Read { after: Seq, records_max: usize, bytes_max: usize, reply: oneshot::Sender<Vec<(Seq, Vec<u8>)>> },
    Release { through: Seq },
    Rewind { to: Seq, reply: oneshot::Sender<Seq> },
    Sync { done: oneshot::Sender<()> },
}

/// Handle to the spool thread. Cheap to clone; the thread ends when the last one is dropped.
#[derive(Clone)]
pub struct Recorder {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<SpoolState>,
    /// Generation of the spool.
    pub epoch: Epoch,
}

/// The spool thread, to be joined when everything else has stopped.
pub struct SpoolThread(std::thread::JoinHandle<()>);

impl SpoolThread {
    /// Waits until the last record is on disk.
    pub async fn join(self) {
        let joined = tokio::task::spawn_blocking(move || self.0.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            error!("the spool thread ended badly");
        }
    }
}

impl Recorder {
    /// Starts the thread that owns `spool`.
    ///
    /// # Errors
    /// When the operating system has no thread or no timer to give.
    pub fn start(spool: Spool, clock: WallClock) -> std::io::Result<(Self, SpoolThread)> {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let epoch = spool.epoch();
        let (publish, state) = watch::channel(SpoolState::default());
        let keeper = Keeper::new(spool, clock, publish);
        // The thread is the spool's alone, so waiting on it blocks nobody.
        let timer = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = std::thread::Builder::new().name("spool".into()).spawn(move || keeper.run(inbox, &timer))?;
        Ok((Self { commands, state, epoch }, SpoolThread(thread)))
    }

    /// Hands over a record. `urgent` ones are synced and sent at once. Waits when the queue is full.
    pub async fn record(&self, record: &Record, urgent: bool) {
        let record = convert::to_spool(record);
        if self.commands.send(Command::Append { record, urgent }).await.is_err() {
            error!("a record came after the spool was closed");
        }
    }

    /// The state of the spool, now and as it changes.
    pub fn state(&self) -> watch::Receiver<SpoolState> {
        self.state.clone()
    }

    /// Durable records after `after`.
    pub async fn read_after(&self, after: Seq, records_max: usize, bytes_max: usize) -> Vec<(Seq, Vec<u8>)> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Read { after, records_max, bytes_max, reply }).await;
        if sent.is_err() { Vec::new() } else { answer.await.unwrap_or_default() }
    }

    /// Forgets everything up to `through`: the collector has committed it.
    pub async fn release(&self, through: Seq) {
        let _ = self.commands.send(Command::Release { through }).await;
    }

    /// Takes back what was released after `to` and is still on disk; through where records stay released.
    pub async fn rewind(&self, to: Seq) -> Seq {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Rewind { to, reply }).await;
        if sent.is_err() { self.state.borrow().acked } else { answer.await.unwrap_or(to) }
    }

    /// Returns when everything handed over before is on disk (or the disk refused), and the state says so.
    pub async fn sync(&self) {
        let (done, answer) = oneshot::channel();
        if self.commands.send(Command::Sync { done }).await.is_ok() {
            let _ = answer.await;
        }
    }
}

/// The thread's own state.
struct Keeper {
    spool: Spool,
    clock: WallClock,
    publish: watch::Sender<SpoolState>,
    state: SpoolState,
    /// Records the disk did not take yet, oldest first.
    held: VecDeque<(Vec<u8>, bool)>,
    /// Oldest moment and number of records that fell out of `held`.
    spilled: Option<(UtcTime, u64)>,
    /// Newest urgent record that is appended but not synced.
    urgent_unsynced: Option<Seq>,
    dirty_since: Option<Instant>,
    retry_at: Option<Instant>,
}

impl Keeper {
    fn new(spool: Spool, clock: WallClock, publish: watch::Sender<SpoolState>) -> Self {
        let state =
            SpoolState { durable: spool.last(), acked: spool.acked(), bytes: spool.bytes(), ..SpoolState::default() };
        publish.send_replace(state);
        Self {
            spool,
            clock,
            publish,
            state,
            held: VecDeque::new(),
            spilled: None,
            urgent_unsynced: None,
            dirty_since: None,
            retry_at: None,
        }
    }

    fn run(mut self, mut inbox: mpsc::Receiver<Command>, timer: &tokio::runtime::Runtime) {
        let now = self.clock.now();
        for range in self.spool.take_dropped() {
            warn!(from = %range.first, to = %range.last, "records on disk are damaged or gone");
            self.gap(range, GapReason::SpoolDamaged, now);
        }
        loop {
            let deadline = self.next_deadline();
            let received = timer.block_on(async {
                match deadline {
                    None => Some(inbox.recv().await),
                    Some(at) => tokio::time::timeout_at(at.into(), inbox.recv()).await.ok(),
                }
            });
            match received {
                Some(None) => break,
                Some(Some(command)) => {
                    self.obey(command);
                    while let Ok(more) = inbox.try_recv() {
                        self.obey(more);
                    }
                }
                None => {}
            }
            self.settle();
        }
        self.retry_at = None;
        self.sync();
        if self.state.degraded {
            error!(held = self.held.len(), last = %self.state.durable, "spool closed while the disk refuses; what was held in memory is lost");
        } else {
            info!(last = %self.state.durable, "spool closed");
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        if self.retry_at.is_some() {
            return self.retry_at;
        }
        self.dirty_since.map(|since| since + SYNC_EVERY)
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Append { record, urgent } => self.append(record, urgent),
            Command::Read { after, records_max, bytes_max, reply } => {
                let records = self.spool.read_after(after, records_max, bytes_max).unwrap_or_else(|error| {
                    warn!(%error, "spool cannot be read; trying again");
                    Vec::new()
                });
                let _ = reply.send(records);
            }
            Command::Release { through } => {
                if let Err(error) = self.spool.release(through) {
                    warn!(%error, %through, "ack not noted on disk; records may be sent again, which does no harm");
                }
            }
            Command::Rewind { to, reply } => {
                let _ = reply.send(self.spool.rewind(to));
                self.tell();
            }
            Command::Sync { done } => {
                self.sync();
                // Published first: whoever was answered finds in the state what it was answered about.
                self.tell();
                let _ = done.send(());
            }
        }
    }

    /// After each round: sync when due, tell what was dropped, publish.
    fn settle(&mut self) {
        let due = self.next_deadline().is_some_and(|at| at <= Instant::now());
        if due || self.urgent_unsynced.is_some() && self.retry_at.is_none() {
            self.sync();
        }
        let now = self.clock.now();
        for range in self.spool.take_dropped() {
            warn!(from = %range.first, to = %range.last, "spool is full: oldest records dropped");
            self.gap(range, GapReason::SpoolFull, now);
        }
        self.tell();
    }

    fn tell(&mut self) {
        self.state.acked = self.spool.acked();
        self.state.bytes = self.spool.bytes();
        self.publish.send_if_modified(|published| std::mem::replace(published, self.state) != self.state);
    }

    fn append(&mut self, record: Vec<u8>, urgent: bool) {
        if self.held.is_empty() && self.retry_at.is_none() {
            match self.spool.append(&record) {
                Ok(seq) => return self.appended(seq, urgent),
                Err(error @ AppendError::TooLarge { .. }) => return self.drop_one(&error),
                Err(error) => self.degrade(&error),
            }
        }
        self.held.push_back((record, urgent));
        if self.held.len() > HELD_MAX {
            self.held.pop_front();
            let (since, count) = self.spilled.unwrap_or((self.clock.now(), 0));
            self.spilled = Some((since, count + 1));
        }
    }

    /// A record that can never be taken. A gap is small enough for any spool.
    fn drop_one(&mut self, cause: &AppendError) {
        error!(%cause, "a record is too large for the spool and is dropped");
        let now = self.clock.now();
        let gap = Gap { from: now, to: now, reason: GapReason::SpoolFull, check: None, records_lost: 1 };
        self.append(convert::to_spool(&Record::Gap(gap)), true);
    }

    fn appended(&mut self, seq: Seq, urgent: bool) {
        self.dirty_since.get_or_insert_with(Instant::now);
        if urgent {
            self.urgent_unsynced = Some(seq);
        }
    }

    fn sync(&mut self) {
        while let Some((record, urgent)) = self.held.front() {
            match self.spool.append(record) {
                Ok(seq) => {
                    let urgent = *urgent;
                    self.held.pop_front();
                    self.appended(seq, urgent);
                }
                Err(error @ AppendError::TooLarge { .. }) => {
                    self.held.pop_front();
                    self.drop_one(&error);
                }
                Err(error) => return self.degrade(&error),
            }
        }
        match self.spool.sync() {
            Ok(durable) => {
                self.state.durable = durable;
                if let Some(seq) = self.urgent_unsynced.take() {
                    self.state.urgent = seq;
                }
                self.dirty_since = None;
                self.recovered();
            }
            Err(error) => self.degrade(&error),
        }
    }

    fn degrade(&mut self, cause: &dyn std::error::Error) {
        if !self.state.degraded {
            error!(cause = %Chain(cause), held_max = HELD_MAX, "spool cannot write; records are held in memory and the disk is tried again every second");
        }
        self.state.degraded = true;
        self.retry_at = Some(Instant::now() + RETRY_EVERY);
    }

    fn recovered(&mut self) {
        self.retry_at = None;
        if !std::mem::take(&mut self.state.degraded) {
            return;
        }
        info!("spool writes again");
        if let Some((from, records_lost)) = self.spilled.take() {
            let gap = Gap { from, to: self.clock.now(), reason: GapReason::SpoolFull, check: None, records_lost };
            self.append(convert::to_spool(&Record::Gap(gap)), true);
        }
    }

    /// The collector counts jumps in the numbering by itself; the gap tells why.
    fn gap(&mut self, range: SeqRange, reason: GapReason, at: UtcTime) {
        let gap = Gap { from: at, to: at, reason, check: None, records_lost: range.records() };
        self.append(convert::to_spool(&Record::Gap(gap)), true);
    }
}

/// An error with its causes, on one line.
pub struct Chain<'e>(pub &'e dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
