//! Groups on PostgreSQL: the blocks that wait in one transaction, everything else each in its own.
//!
//! A group of blocks is a few statements over arrays ([`append`]); on a conflict or a lost connection the same group
//! again does no harm, for the marks tell what is stored. Everything else sees the database as if it were alone
//! (`SERIALIZABLE`): what was decided inside a transaction with SQLite's one writer in mind stays right with many.

use std::cell::RefCell;

use super::{Append, GROUP, Member, Waiting, Work};
use crate::store::StoreError;
use crate::store::blocks::place::{Numbered, Placed};
use crate::store::blocks::postgres::append;
use crate::store::db::Connection;
use crate::store::health::Counters;
use crate::store::postgres::transact::{Again, Isolation, Line};

/// What storing a block is called in errors.
pub(super) const APPEND: &str = "store a block";

/// The thread: one group after the other until the queue is closed and empty.
pub(super) fn serve(mut line: Line, mut waiting: Waiting, counters: &Counters) {
    let mut next = waiting.first();
    while let Some(first) = next.take() {
        match first {
            Member::Work(work) => one(&mut line, work, counters),
            Member::Append(first) => {
                let mut group = vec![first];
                while group.len() < GROUP {
                    match waiting.next() {
                        Some(Member::Append(append)) => group.push(append),
                        // In the order in which they were queued.
                        Some(other) => {
                            next = Some(other);
                            break;
                        }
                        None => break,
                    }
                }
                blocks(&mut line, group, counters);
            }
        }
        next = next.or_else(|| waiting.first());
    }
}

fn blocks(line: &mut Line, group: Vec<Append>, counters: &Counters) {
    let news: Vec<&Numbered> = group.iter().map(|append| &append.new).collect();
    let store = |db: &Connection| append(db, &news);
    let ended: Result<Vec<Result<Placed, StoreError>>, StoreError> =
        line.transact(APPEND, Isolation::Committed, Again::Harmless, &store);
    counters.committed(&ended.as_ref().map(drop).map_err(Clone::clone));
    let answers = match ended {
        Ok(answers) => answers,
        Err(error) => group.iter().map(|_| Err(error.struck(APPEND))).collect(),
    };
    for (append, answer) in group.into_iter().zip(answers) {
        // Nobody waits any more: the effect stands, and a repetition will find it.
        let _ = append.answer.send(answer);
    }
}

fn one(line: &mut Line, work: Box<dyn Work>, counters: &Counters) {
    let what = work.what();
    let work = RefCell::new(work);
    let ended =
        line.transact(what, Isolation::Serializable, Again::Harmful, &|db: &Connection| work.borrow_mut().run(db));
    // A refusal, or a statement that failed, says nothing about the health of the database.
    match &ended {
        Err(error @ (StoreError::Away { .. } | StoreError::Uncertain { .. } | StoreError::Full { .. })) => {
            counters.committed(&Err(error.clone()));
        }
        Ok(()) => counters.committed(&Ok(())),
        Err(_) => {}
    }
    work.into_inner().answer(ended);
}
