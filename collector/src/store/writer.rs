//! The writers: a thread that owns a connection and commits in groups.
//!
//! What costs is the sync at a commit (0.3 ms on a quiet disk, 4 ms on a busy one), not the rows. So the
//! thread takes the first waiting piece of work, adds what else is waiting, commits all of it at once and
//! only then answers each. Under load the group grows by itself while the previous one syncs.
//!
//! A commit writes whole pages, so blocks that come one by one cost the disk thirty times what they weigh. Therefore blocks
//! share a commit every [`PACE`] (see [`Waiting::gather`]). Whoever writes alone waits for nothing.
//!
//! Two kinds of work: appending a block, and everything else. How they share a commit is the engine's:
//! [`sqlite`] and [`postgres`]. SQLite has one writer; PostgreSQL has one for blocks and one for the rest, because
//! there a long write need not hold up the agents.

mod postgres;
mod sqlite;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::blocks::place::{Numbered, Placed};
use super::db::Connection;
use super::error::Fault;
use super::health::Counters;
use super::postgres::transact::Line;
use super::reserve::Reserve;

/// Pieces of work that wait. When it is full, callers wait to be queued: back-pressure towards the agents,
/// whose spools are the real queue.
pub(super) const QUEUE: usize = 256;
/// Pieces of work in one commit; the rest goes into the next one.
const GROUP: usize = 50;
/// Between two commits of blocks, as long as others come meanwhile and a group is not full. An agent waits for its ack
/// that much longer, and has nothing better to do.
const PACE: Duration = Duration::from_millis(20);
/// The thread looks this often whether the group is full.
const LOOK: Duration = Duration::from_millis(2);
/// After a wait in which nothing came, this many commits do not wait: somebody sends one block after the other, each
/// after the ack of the one before.
const ALONE: u32 = 64;

/// What writes: a connection to a file, with the room kept beside it, or the line to a server.
pub(super) enum Pen {
    Sqlite(Connection, Reserve),
    Postgres(Line),
}

enum Request {
    Append(Append),
    Work(Box<dyn Work>),
    Close,
}

/// A block that waits to be stored.
struct Append {
    new: Numbered,
    answer: oneshot::Sender<Result<Placed, StoreError>>,
}

/// A piece of work whose result type has been forgotten, so that different ones can share a group.
trait Work: Send {
    fn what(&self) -> &'static str;
    /// Runs it; keeps its result until the group's end is known. May be run again when the group failed.
    fn run(&mut self, db: &Connection) -> Result<(), Fault>;
    /// `ended` is the end of the transaction it ran in.
    fn answer(self: Box<Self>, ended: Result<(), StoreError>);
}

struct Piece<T, F> {
    what: &'static str,
    work: F,
    result: Option<T>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Work for Piece<T, F>
where
    T: Send,
    F: Fn(&Connection) -> Result<T, Fault> + Send,
{
    fn what(&self) -> &'static str {
        self.what
    }

    fn run(&mut self, db: &Connection) -> Result<(), Fault> {
        self.result = Some((self.work)(db)?);
        Ok(())
    }

    fn answer(self: Box<Self>, ended: Result<(), StoreError>) {
        let Self { result, answer, .. } = *self;
        // Nobody waits any more: the effect stands, and a repetition will find it.
        let _ = answer.send(ended.and_then(|()| result.ok_or(StoreError::Closed)));
    }
}

/// The way to a writing thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Request>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Append(_) => "Append",
            Self::Work(_) => "Work",
            Self::Close => "Close",
        })
    }
}

impl Writer {
    /// Hands the pen to a thread of its own. The thread ends on [`Writer::close`], or when the last handle is gone.
    pub(super) fn start(name: &str, pen: Pen, counters: Arc<Counters>) -> Result<Self, StoreError> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || match pen {
                Pen::Sqlite(db, reserve) => sqlite::serve(&db, reserve, Waiting::at(waiting), &counters),
                Pen::Postgres(line) => postgres::serve(line, Waiting::at(waiting), &counters),
            })
            .map_err(|source| StoreError::StartWriter { source: Arc::new(source) })?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Queues a block; answered after the commit.
    pub(super) async fn append(&self, new: Numbered) -> Result<Placed, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Request::Append(Append { new, answer })).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Queues work that fails for itself alone; answered after the commit.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl Fn(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let piece = Piece { what, work, result: None, answer };
        self.queue.send(Request::Work(Box::new(piece))).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Pieces of work that wait.
    pub(super) fn depth(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// True when no work is taken any more: closed, or the thread has died.
    pub(super) fn is_stopped(&self) -> bool {
        self.queue.is_closed()
    }

    /// Commits what is queued and waits until the connection is closed.
    pub(super) async fn close(&self) {
        // Fails only when the thread has ended already, which is what was asked for.
        let _ = self.queue.send(Request::Close).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("a thread that writes the database did not end well");
            }
        }
    }
}

/// What waits for a thread; it ends when the door is closed and everything before it was taken.
struct Waiting {
    queue: mpsc::Receiver<Request>,
    /// When blocks were last taken up.
    taken: Option<Instant>,
    /// Commits that are not to wait for company.
    alone: u32,
}

/// A member of a group.
enum Member {
    Append(Append),
    Work(Box<dyn Work>),
}

impl Waiting {
    fn at(queue: mpsc::Receiver<Request>) -> Self {
        Self { queue, taken: None, alone: 0 }
    }

    /// The next piece of work, waiting for it; `None` when there will be none.
    fn first(&mut self) -> Option<Member> {
        loop {
            match self.queue.blocking_recv()? {
                Request::Append(append) => {
                    self.gather();
                    return Some(Member::Append(append));
                }
                Request::Work(work) => return Some(Member::Work(work)),
                Request::Close => self.queue.close(),
            }
        }
    }

    /// Lets others join the block that came first, until [`PACE`] has passed since blocks were taken up before.
    fn gather(&mut self) {
        let until = self.taken.map(|taken| taken + PACE).filter(|until| Instant::now() < *until);
        if let (Some(until), 0) = (until, self.alone) {
            while self.queue.len() + 1 < GROUP && Instant::now() < until {
                std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
            }
            self.alone = if self.queue.is_empty() { ALONE } else { 0 };
        } else {
            self.alone = self.alone.saturating_sub(1);
        }
        self.taken = Some(Instant::now());
    }

    /// The next piece of work that is waiting already.
    fn next(&mut self) -> Option<Member> {
        loop {
            match self.queue.try_recv().ok()? {
                Request::Append(append) => return Some(Member::Append(append)),
                Request::Work(work) => return Some(Member::Work(work)),
                // What was queued before the door closed still comes.
                Request::Close => self.queue.close(),
            }
        }
    }
}
