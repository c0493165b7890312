//! Groups on SQLite: one transaction for all that waits.
//!
//! Appending a block runs bare, because a savepoint makes SQLite copy every page it touches; if the database fails in
//! the middle of one, the whole group is rolled back, and everybody is told. Everything else runs in a savepoint, so
//! that its failure undoes itself alone. A refusal made before anything was written undoes nothing in either kind.
//!
//! After a failed group the next one starts afresh: a full disk that was emptied needs no restart. While the disk is full
//! blocks are refused, and the rest lives on what was kept for it ([`Reserve`]).

use std::time::{Duration, Instant};

use super::{GROUP, Member, Waiting};
use crate::store::StoreError;
use crate::store::blocks::place::Placed;
use crate::store::blocks::sqlite::append;
use crate::store::db::Connection;
use crate::store::error::Fault;
use crate::store::health::Counters;
use crate::store::reserve::{self, Reserve};
use crate::store::sqlite::in_transaction;

/// A group is committed when it has been open this long, however much is waiting.
const GROUP_TIME: Duration = Duration::from_millis(20);

/// What a piece of work did to the group it ran in.
enum Ran {
    /// The group goes on; a block has an answer.
    Fine(Option<Placed>),
    /// It failed, alone.
    Failed(StoreError),
    /// The transaction cannot be committed any more.
    Spoiled(StoreError),
}

/// The thread: one group after the other until the queue is closed and empty.
pub(super) fn serve(db: &Connection, mut reserve: Reserve, mut waiting: Waiting, counters: &Counters) {
    while let Some(first) = waiting.first() {
        group(db, &mut reserve, first, &mut waiting, counters);
    }
    // Leaves one file behind instead of two. When it cannot (somebody reads), the log is simply kept.
    let _ = db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
}

fn group(db: &Connection, reserve: &mut Reserve, first: Member, waiting: &mut Waiting, counters: &Counters) {
    reserve.take_back();
    let mut members = vec![(first, None)];
    let mut committed = match begin(db) {
        Ok(()) => fill_and_commit(db, reserve, &mut members, waiting),
        Err(error) => {
            // Whoever waits would meet the same closed door for another five seconds each.
            while let Some(next) = waiting.next() {
                members.push((next, None));
            }
            Err(error)
        }
    };
    if matches!(committed, Err(StoreError::Full { .. })) && reserve.give_up() {
        // Blocks wait in their spools; whatever else was in the group has room now, and alerts may be among it.
        committed = begin(db).and_then(|()| {
            let ran = members.iter_mut().try_for_each(|(member, ran)| keep(ran, run(db, reserve, member)));
            commit(db, ran)
        });
    }
    counters.committed(&committed);
    for (member, ran) in members {
        answer(member, ran, &committed);
    }
}

fn answer(member: Member, ran: Option<Ran>, committed: &Result<(), StoreError>) {
    let what = match &member {
        Member::Append(_) => super::postgres::APPEND,
        Member::Work(work) => work.what(),
    };
    let ended = match (ran, committed) {
        (Some(Ran::Failed(error) | Ran::Spoiled(error)), _) => Err(error),
        (_, Err(error)) => Err(error.struck(what)),
        (Some(Ran::Fine(placed)), Ok(())) => Ok(placed),
        (None, Ok(())) => Err(StoreError::Closed),
    };
    match member {
        Member::Append(append) => {
            // Nobody waits any more: the effect stands, and a repetition will find it.
            let _ = append.answer.send(ended.and_then(|placed| placed.ok_or(StoreError::Closed)));
        }
        Member::Work(work) => work.answer(ended.map(drop)),
    }
}

fn run(db: &Connection, reserve: &Reserve, member: &mut Member) -> Ran {
    let (what, apart, result) = match member {
        Member::Append(_) if !reserve.is_held() => return Ran::Failed(reserve::refusal(super::postgres::APPEND)),
        Member::Append(waiting) => (super::postgres::APPEND, false, append(db, &waiting.new).map(Some)),
        Member::Work(work) => (work.what(), true, in_savepoint(db, |db| work.run(db)).map(|()| None)),
    };
    let (error, sql) = match result {
        Ok(placed) => return Ran::Fine(placed),
        Err(Fault::Sql(error)) => (StoreError::writing(what, error), true),
        Err(Fault::Refused(refusal)) => (refusal, false),
    };
    // SQLite itself rolls back on some errors (disk full, I/O): then nothing of the group is left.
    if !in_transaction(db) || (sql && !apart) { Ran::Spoiled(error) } else { Ran::Failed(error) }
}

fn in_savepoint(db: &Connection, work: impl FnOnce(&Connection) -> Result<(), Fault>) -> Result<(), Fault> {
    db.execute("SAVEPOINT piece", ())?;
    let result = work(db);
    if result.is_err() && in_transaction(db) {
        // Half an effect must never be committed: when it cannot be undone alone, the group goes with it.
        db.execute_batch("ROLLBACK TO piece").or_else(|_| db.execute_batch("ROLLBACK"))?;
    }
    if in_transaction(db) {
        db.execute("RELEASE piece", ())?;
    }
    result
}

fn begin(db: &Connection) -> Result<(), StoreError> {
    db.execute("BEGIN IMMEDIATE", ()).map(drop).map_err(|error| StoreError::writing("begin to write", error))
}

/// Runs members until the group is full, its time is over or nothing waits, then commits.
fn fill_and_commit(
    db: &Connection,
    reserve: &Reserve,
    members: &mut Vec<(Member, Option<Ran>)>,
    waiting: &mut Waiting,
) -> Result<(), StoreError> {
    let opened = Instant::now();
    let mut spoiled = Ok(());
    while let Some((member, ran)) = members.last_mut() {
        spoiled = keep(ran, run(db, reserve, member));
        if spoiled.is_err() || members.len() >= GROUP || opened.elapsed() >= GROUP_TIME {
            break;
        }
        match waiting.next() {
            Some(member) => members.push((member, None)),
            None => break,
        }
    }
    commit(db, spoiled)
}

/// Keeps what a member did; an error when the transaction cannot be committed any more.
fn keep(ran: &mut Option<Ran>, done: Ran) -> Result<(), StoreError> {
    let spoiled = match &done {
        Ran::Spoiled(error) => Err(error.clone()),
        Ran::Fine(_) | Ran::Failed(_) => Ok(()),
    };
    *ran = Some(done);
    spoiled
}

/// Ends the transaction that came so far.
fn commit(db: &Connection, so_far: Result<(), StoreError>) -> Result<(), StoreError> {
    let ended =
        so_far.and_then(|()| db.execute("COMMIT", ()).map(drop).map_err(|error| StoreError::writing("commit", error)));
    if ended.is_err() && in_transaction(db) {
        // Cannot fail in a way that matters: a transaction that is not committed is not there.
        let _ = db.execute_batch("ROLLBACK");
    }
    ended
}
