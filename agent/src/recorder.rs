//! The one way into the spool: a thread that owns it, and the handle everybody else holds.
//!
//! Records arrive over a bounded queue and are appended as they come; one `fdatasync` every
//! [`SYNC_EVERY`] (at once for an urgent record) makes the group durable, and the newest durable sequence
//! is published to the uplink. When the disk fails, records wait in memory (at most [`HELD_MAX`]; then
//! routine is folded together, then the oldest go and a gap says so) and the thread keeps trying: probing never stops for a disk.
//!
//! When the spool is full, the [`RecordDigest`] says what goes first. What went is kept in the [`Ledger`] until the
//! collector takes records again, and is then told as a [`Record::Gap`] per check, with how many ticks had been up.
//! Damage becomes a Gap at once, and so does a record too large for the spool: it is dropped, for it would hold up
//! everything behind it for ever.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use peil_proto::convert;
use peil_proto::ids::{Epoch, Seq};
use peil_proto::record::{Gap, Record};
use peil_proto::sample::GapReason;
use peil_proto::time::{UtcTime, WallClock};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::spool::{AppendError, Digest as _, SeqRange, Spool, Thin};

pub use ledger::Ledger;

use digest::RecordDigest;

mod digest;
mod ledger;

#[cfg(test)]
mod tests;

/// Records between probes and the spool thread. When full, `record` waits: the disk is the brake.
const QUEUE: usize = 4_096;
/// Longest time a routine record waits for its sync.
const SYNC_EVERY: Duration = Duration::from_millis(500);
/// Pause before a failed disk is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How often the age of the oldest records is looked at.
const EXPIRE_EVERY: Duration = Duration::from_secs(3_600);
/// Records held in memory while the disk fails. Beyond it the oldest are lost, and a gap says so.
const HELD_MAX: usize = 50_000;

/// What the uplink needs to know of the spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolState {
    /// Generation of the spool; the sequences below are of this one.
    pub epoch: Epoch,
    /// Newest record that is durable and may be sent.
    pub durable: Seq,
    /// Newest durable record that must leave at once.
    pub urgent: Seq,
    /// Acked by the collector.
    pub acked: Seq,
    /// Newest record that may have left the host.
    pub maybe_sent: Seq,
    /// Bytes on disk.
    pub bytes: u64,
    /// The disk refuses; records are held in memory.
    pub degraded: bool,
}

enum Command {
    Append { record: Vec<u8>, urgent: bool },
    Read { after: Seq, records_max: usize, bytes_max: usize, reply: oneshot::Sender<Vec<(Seq, Vec<u8>)>> },
    Release { through: Seq },
    CollectorHas { through: Seq },
    RenewEpoch { done: oneshot::Sender<()> },
    Rewind { to: Seq, reply: oneshot::Sender<Seq> },
    Sync { done: oneshot::Sender<()> },
}

/// Handle to the spool thread. Cheap to clone; the thread ends when the last one is dropped.
#[derive(Clone)]
pub struct Recorder {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<SpoolState>,
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
    pub fn start(spool: Spool, clock: WallClock, ledger: Ledger) -> std::io::Result<(Self, SpoolThread)> {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let (publish, state) = watch::channel(SpoolState::default());
        let keeper = Keeper::new(spool, clock, ledger, publish);
        // The thread is the spool's alone, so waiting on it blocks nobody.
        let timer = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = std::thread::Builder::new().name("spool".into()).spawn(move || keeper.run(inbox, &timer))?;
        Ok((Self { commands, state }, SpoolThread(thread)))
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

    /// The collector told at the greeting how far it has come: everything up to `through` is forgotten, and nothing after it
    /// is there.
    pub async fn collector_has(&self, through: Seq) {
        let _ = self.commands.send(Command::CollectorHas { through }).await;
    }

    /// Goes on under another epoch with everything unreleased. Returns when that is done, or the disk refused; then the next
    /// greeting comes to the same conclusion.
    pub async fn renew_epoch(&self) {
        let (done, answer) = oneshot::channel();
        if self.commands.send(Command::RenewEpoch { done }).await.is_ok() {
            let _ = answer.await;
        }
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
    ledger: Ledger,
    digest: RecordDigest,
    clock: WallClock,
    publish: watch::Sender<SpoolState>,
    state: SpoolState,
    /// Records the disk did not take yet, oldest first.
    held: VecDeque<(Vec<u8>, bool)>,
    /// Routine in `held` is folded together as far as it will go.
    held_is_thin: bool,
    /// Records too old for anybody go after this.
    expire_at: Instant,
    /// Oldest moment and number of records that fell out of `held`.
    spilled: Option<(UtcTime, u64)>,
    /// Newest urgent record that is appended but not synced.
    urgent_unsynced: Option<Seq>,
    dirty_since: Option<Instant>,
    retry_at: Option<Instant>,
}

impl Keeper {
    fn new(mut spool: Spool, clock: WallClock, ledger: Ledger, publish: watch::Sender<SpoolState>) -> Self {
        let digest = RecordDigest::new(ledger.clone(), clock.clone());
        spool.thin_with(Box::new(digest.clone()));
        let state = SpoolState {
            epoch: spool.epoch(),
            durable: spool.last(),
            acked: spool.acked(),
            maybe_sent: spool.maybe_sent(),
            bytes: spool.bytes(),
            ..SpoolState::default()
        };
        publish.send_replace(state);
        Self {
            spool,
            ledger,
            digest,
            clock,
            publish,
            state,
            held: VecDeque::new(),
            held_is_thin: false,
            expire_at: Instant::now(),
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
                // Published first: a mark of the collector's must never be ahead of what the state says may have left.
                self.tell();
                let _ = reply.send(records);
            }
            Command::Release { through } => self.release(through),
            Command::CollectorHas { through } => {
                self.release(through);
                self.spool.collector_has(through);
            }
            Command::RenewEpoch { done } => {
                self.renew_epoch();
                self.tell();
                let _ = done.send(());
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

    fn release(&mut self, through: Seq) {
        if let Err(error) = self.spool.release(through) {
            warn!(%error, %through, "ack not noted on disk; records may be sent again, which does no harm");
        }
        self.tell_ledger();
    }

    /// The collector takes records again: what the ledger says of lost ones goes to it, and only what is durable in the spool
    /// leaves the ledger. A stop in between tells it twice, which says the same.
    fn tell_ledger(&mut self) {
        let gaps = self.ledger.gaps();
        if gaps.is_empty() || self.state.degraded {
            return;
        }
        for gap in &gaps {
            self.append(convert::to_spool(&Record::Gap(*gap)), true);
        }
        self.sync();
        if !self.state.degraded
            && let Err(error) = self.ledger.told(&gaps)
        {
            warn!(%error, "the ledger of gaps cannot be cleared; they will be told again");
        }
    }

    fn renew_epoch(&mut self) {
        match self.spool.renew_epoch() {
            Ok(epoch) => {
                warn!(%epoch, records = %self.spool.durable(), "the spool goes on under a new epoch; what was not acked is sent again under it");
                self.state.durable = self.spool.durable();
                self.state.urgent = self.spool.durable();
                self.urgent_unsynced = None;
                self.dirty_since = None;
            }
            Err(error) => warn!(%error, "no new epoch: the disk refuses"),
        }
    }

    /// After each round: sync when due, tell what was dropped, publish.
    fn settle(&mut self) {
        let due = self.next_deadline().is_some_and(|at| at <= Instant::now());
        if due || self.urgent_unsynced.is_some() && self.retry_at.is_none() {
            self.sync();
        }
        if self.expire_at <= Instant::now() {
            self.expire_at = Instant::now() + EXPIRE_EVERY;
            if let Err(error) = self.spool.expire() {
                warn!(%error, "records that are too old cannot be dropped");
            }
        }
        let now = self.clock.now();
        for range in self.spool.take_dropped() {
            warn!(from = %range.first, to = %range.last, "records dropped that could not be read");
            self.gap(range, GapReason::SpoolDamaged, now);
        }
        self.tell();
    }

    fn tell(&mut self) {
        self.state.epoch = self.spool.epoch();
        self.state.acked = self.spool.acked();
        self.state.maybe_sent = self.spool.maybe_sent();
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
        if self.held.len() > HELD_MAX && !self.held_is_thin {
            self.thin_held();
        }
        if self.held.len() > HELD_MAX {
            self.held.pop_front();
            let (since, count) = self.spilled.unwrap_or((self.clock.now(), 0));
            self.spilled = Some((since, count + 1));
        }
    }

    /// Folds together what is routine in memory. When that gives less than a quarter, it is not tried again before the disk
    /// is back.
    fn thin_held(&mut self) {
        let urgent = self.held.iter().any(|(_, urgent)| *urgent);
        let records: Vec<Vec<u8>> = self.held.drain(..).map(|(record, _)| record).collect();
        // Folding throws nothing away, so nothing is written down that could fail.
        let thin = self.digest.thin(&records, Thin::Fold).unwrap_or(records);
        self.held = thin.into_iter().map(|record| (record, false)).collect();
        if let Some((_, last)) = self.held.back_mut() {
            *last = urgent;
        }
        self.held_is_thin = self.held.len() > HELD_MAX / 4 * 3;
    }

    /// A record that can never be taken. A gap is small enough for any spool.
    fn drop_one(&mut self, cause: &AppendError) {
        error!(%cause, "a record is too large for the spool and is dropped");
        let now = self.clock.now();
        let gap = Gap { records_lost: 1, ..Gap::new(now, now, GapReason::SpoolFull) };
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
        self.held_is_thin = false;
        if !std::mem::take(&mut self.state.degraded) {
            return;
        }
        info!("spool writes again");
        if let Some((from, records_lost)) = self.spilled.take() {
            let gap = Gap { records_lost, ..Gap::new(from, self.clock.now(), GapReason::SpoolFull) };
            self.append(convert::to_spool(&Record::Gap(gap)), true);
        }
    }

    /// The collector counts jumps in the numbering by itself; the gap tells why.
    fn gap(&mut self, range: SeqRange, reason: GapReason, at: UtcTime) {
        let gap = Gap { records_lost: range.records(), ..Gap::new(at, at, reason) };
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
