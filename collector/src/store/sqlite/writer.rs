//! The one writer: a thread that owns the writing connection and commits in groups.
//!
//! What costs is the sync at a commit (0.3 ms on a quiet disk, 4 ms on a busy one), not the rows. So the
//! thread takes the first waiting piece of work, adds what else is waiting, commits all of it at once and
//! only then answers each. It never waits for more work to come: alone, a write is as quick as can be;
//! under load the group grows by itself while the previous one syncs.
//!
//! Two kinds of work. *Together* (appending a block): runs bare, because a savepoint makes SQLite copy
//! every page it touches; if the database fails in the middle of one, the whole group is rolled back, and
//! everybody is told. *Apart* (everything else): runs in a savepoint, so that its failure undoes itself
//! alone. A refusal made before anything was written undoes nothing in either kind.
//!
//! After a failed group the next one starts afresh: a full disk that was emptied needs no restart.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::store::StoreError;
use crate::store::error::Fault;
use crate::store::health::Counters;

/// Pieces of work that wait. When it is full, callers wait to be queued: back-pressure towards the agents,
/// whose spools are the real queue.
pub(in crate::store) const QUEUE: usize = 256;
/// Pieces of work in one commit; the rest goes into the next one.
const GROUP: usize = 50;
/// A group is committed when it has been open this long, however much is waiting.
const GROUP_TIME: Duration = Duration::from_millis(20);

enum Request {
    Work(Box<dyn Work>),
    Close,
}

/// A piece of work whose result type has been forgotten, so that different ones can share a group.
trait Work: Send {
    fn run(&mut self, db: &Connection) -> Ran;
    /// `committed` is the end of the group the work ran in.
    fn answer(self: Box<Self>, committed: &Result<(), StoreError>);
}

/// What a piece of work did to the group it ran in.
enum Ran {
    /// The group goes on.
    Fine,
    /// The transaction cannot be committed any more.
    Spoiled(StoreError),
}

struct Piece<T, F> {
    what: &'static str,
    apart: bool,
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Work for Piece<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, Fault> + Send,
{
    fn run(&mut self, db: &Connection) -> Ran {
        let Some(work) = self.work.take() else { return Ran::Fine };
        let fault = match if self.apart { in_savepoint(db, work) } else { work(db) } {
            Ok(value) => {
                self.result = Some(Ok(value));
                return Ran::Fine;
            }
            Err(fault) => fault,
        };
        let (error, sql) = match fault {
            Fault::Sql(error) => (StoreError::writing(self.what, error), true),
            Fault::Refused(refusal) => (refusal, false),
        };
        self.result = Some(Err(error.clone()));
        // SQLite itself rolls back on some errors (disk full, I/O): then nothing of the group is left.
        if db.is_autocommit() || (sql && !self.apart) { Ran::Spoiled(error) } else { Ran::Fine }
    }

    fn answer(self: Box<Self>, committed: &Result<(), StoreError>) {
        let result = match (self.result, committed) {
            (Some(Err(error)), _) => Err(error),
            (_, Err(error)) => Err(error.struck(self.what)),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(StoreError::Closed),
        };
        // Nobody waits any more: the effect stands, and a repetition will find it.
        let _ = self.answer.send(result);
    }
}

fn in_savepoint<T>(db: &Connection, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
    db.prepare_cached("SAVEPOINT piece")?.execute([])?;
    let result = work(db);
    if result.is_err() && !db.is_autocommit() {
        // Half an effect must never be committed: when it cannot be undone alone, the group goes with it.
        db.execute_batch("ROLLBACK TO piece").or_else(|_| db.execute_batch("ROLLBACK"))?;
    }
    if !db.is_autocommit() {
        db.prepare_cached("RELEASE piece")?.execute([])?;
    }
    result
}

#[derive(Debug)]
pub(in crate::store) struct Writer {
    queue: mpsc::Sender<Request>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Work(_) => "Work",
            Self::Close => "Close",
        })
    }
}

impl Writer {
    /// Hands the connection to a thread of its own. The thread ends on [`Writer::close`], or when the last
    /// handle is gone.
    pub(in crate::store) fn start(db: Connection, counters: Arc<Counters>) -> Result<Self, StoreError> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || serve(&db, waiting, &counters))
            .map_err(|source| StoreError::StartWriter { source: Arc::new(source) })?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Queues work that shares its fate with its group.
    pub(in crate::store) async fn together<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.queue_and_wait(what, false, work).await
    }

    /// Queues work that fails for itself alone.
    pub(in crate::store) async fn apart<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.queue_and_wait(what, true, work).await
    }

    async fn queue_and_wait<T: Send + 'static>(
        &self,
        what: &'static str,
        apart: bool,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let piece = Piece { what, apart, work: Some(work), result: None, answer };
        self.queue.send(Request::Work(Box::new(piece))).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Pieces of work that wait.
    pub(in crate::store) fn depth(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// True when no work is taken any more: closed, or the thread has died.
    pub(in crate::store) fn is_stopped(&self) -> bool {
        self.queue.is_closed()
    }

    /// Commits what is queued and waits until the files are closed.
    pub(in crate::store) async fn close(&self) {
        // Fails only when the thread has ended already, which is what was asked for.
        let _ = self.queue.send(Request::Close).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the thread that writes the database did not end well");
            }
        }
    }
}

/// The thread: one group after the other until the queue is closed and empty.
fn serve(db: &Connection, mut waiting: mpsc::Receiver<Request>, counters: &Counters) {
    while let Some(request) = waiting.blocking_recv() {
        match request {
            Request::Work(first) => group(db, first, &mut waiting, counters),
            Request::Close => waiting.close(),
        }
    }
    // Leaves one file behind instead of two. When it cannot (somebody reads), the log is simply kept.
    let _ = db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
}

fn group(db: &Connection, first: Box<dyn Work>, waiting: &mut mpsc::Receiver<Request>, counters: &Counters) {
    let mut members = vec![first];
    let committed = match begin(db) {
        Ok(()) => fill_and_commit(db, &mut members, waiting),
        Err(error) => {
            // Whoever waits would meet the same closed door for another five seconds each.
            while let Some(next) = next(waiting) {
                members.push(next);
            }
            Err(error)
        }
    };
    counters.committed(&committed);
    for member in members {
        member.answer(&committed);
    }
}

fn begin(db: &Connection) -> Result<(), StoreError> {
    db.prepare_cached("BEGIN IMMEDIATE")
        .and_then(|mut begin| begin.execute([]))
        .map(drop)
        .map_err(|error| StoreError::writing("begin to write", error))
}

/// Runs members until the group is full, its time is over or nothing waits, then commits.
fn fill_and_commit(
    db: &Connection,
    members: &mut Vec<Box<dyn Work>>,
    waiting: &mut mpsc::Receiver<Request>,
) -> Result<(), StoreError> {
    let opened = Instant::now();
    let mut spoiled = Ok(());
    while let Some(member) = members.last_mut() {
        if let Ran::Spoiled(error) = member.run(db) {
            spoiled = Err(error);
            break;
        }
        if members.len() >= GROUP || opened.elapsed() >= GROUP_TIME {
            break;
        }
        match next(waiting) {
            Some(member) => members.push(member),
            None => break,
        }
    }
    let ended = spoiled.and_then(|()| {
        let commit = db.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
        commit.map(drop).map_err(|error| StoreError::writing("commit", error))
    });
    if ended.is_err() && !db.is_autocommit() {
        // Cannot fail in a way that matters: a transaction that is not committed is not there.
        let _ = db.execute_batch("ROLLBACK");
    }
    ended
}

/// The next piece of work that is waiting already.
fn next(waiting: &mut mpsc::Receiver<Request>) -> Option<Box<dyn Work>> {
    match waiting.try_recv() {
        Ok(Request::Work(work)) => Some(work),
        Ok(Request::Close) => {
            waiting.close();
            // What was queued before the door closed still comes.
            match waiting.try_recv() {
                Ok(Request::Work(work)) => Some(work),
                Ok(Request::Close) | Err(_) => None,
            }
        }
        Err(_) => None,
    }
}
