//! The log of blocks on its way between engines: the same blocks, in the same order for each agent, at new places.
//!
//! ```text
//! source, lane by lane          1 2 3 | 4 5      every job has been through 3 | not yet
//! target                        first all blocks before the bar, then all after it
//! ```
//!
//! So what every job has been through is a first part of every lane of the target, too, and a watermark can say it. The
//! last block copied is noted in the transaction that writes it.
//!
//! Limits: 128 blocks are held in memory at a time, 128 MiB if all were as long as a block can be; for the sums, 200
//! bytes per agent.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use peil_proto::ids::AgentId;

use super::rows::{Sum, Value, Values, insert, read_all};
use super::side::{Side, note, noted};
use super::{Progress, TransferError, failed};
use crate::store::blocks::lane::lane_of;
use crate::store::blocks::{Lane, SEGMENT};
use crate::store::db::{self, Cell, Connection, Engine};
use crate::store::error::Fault;
use crate::store::{StoreError, days};

/// Blocks read at a time, and written in one transaction.
const PAGE: usize = 128;

/// What of a block is copied: everything but its place. Some places matter below.
pub(in crate::store) const COLUMNS: [&str; 9] =
    ["agent", "epoch", "first_seq", "records", "skip", "received_at", "from_ms", "to_ms", "bytes"];
const AGENT: usize = 0;
const TO_MS: usize = 7;
const BYTES: usize = 8;

/// Where a copy is: the part, and the last block copied of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cursor {
    part: Part,
    lane: u16,
    no: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// What every job has been through.
    Done,
    /// The rest.
    New,
}

impl Cursor {
    const START: Self = Self { part: Part::Done, lane: 0, no: 0 };

    /// The block after which to go on in this lane, of which this part begins after `first`; nothing when it was copied.
    fn after(self, part: Part, lane: u16, first: i64) -> Option<i64> {
        match (part, lane).cmp(&(self.part, self.lane)) {
            Ordering::Less => None,
            Ordering::Equal => Some(self.no.max(first)),
            Ordering::Greater => Some(first),
        }
    }

    fn word(self) -> String {
        let part = match self.part {
            Part::Done => "done",
            Part::New => "new",
        };
        format!("{part} {} {}", self.lane, self.no)
    }

    fn parse(word: &str) -> Option<Self> {
        let mut parts = word.split(' ');
        let part = match parts.next()? {
            "done" => Part::Done,
            "new" => Part::New,
            _ => return None,
        };
        Some(Self { part, lane: parts.next()?.parse().ok()?, no: parts.next()?.parse().ok()? })
    }
}

/// Copies what is not yet copied.
pub(super) fn fill(source: &Side, target: &Side, tell: &mut dyn FnMut(Progress)) -> Result<(), TransferError> {
    let read = |error: db::Error| failed("read blocks")(error.into());
    let begin = match noted(&target.db, "log").map_err(read)? {
        Some(word) => Cursor::parse(&word).ok_or(StoreError::Damaged { what: "how far the copy is" })?,
        None => Cursor::START,
    };
    let (jobs, done) = watermarks(&source.db).map_err(read)?;
    let lanes = lanes(&source.db).map_err(read)?;
    let mut rows = 0;
    for part in [Part::Done, Part::New].into_iter().filter(|part| *part >= begin.part) {
        for lane in lanes.iter().copied() {
            let bar = done.get(&lane).copied().unwrap_or(0);
            let (first, last) = if part == Part::Done { (0, bar) } else { (bar, i64::MAX) };
            let Some(mut after) = begin.after(part, lane, first) else { continue };
            loop {
                let page = page(&source.db, lane, after, last).map_err(read)?;
                let Some((no, _)) = page.last() else { break };
                after = *no;
                rows += page.len() as u64;
                target.transact("fill the log", |db| write(db, page, Cursor { part, lane, no: after }))?;
                tell(Progress { table: "block", rows });
            }
        }
        if part == Part::Done {
            target.transact("write the watermarks", |db| {
                mark(db, &jobs)?;
                Ok(note(db, "log", &Cursor { part: Part::New, ..Cursor::START }.word())?)
            })?;
        }
    }
    Ok(())
}

/// Jobs with a watermark, and for each lane the last block that all of them have been through. The count of days that
/// were compacted is kept in the same table and is no place: it begins anew.
fn watermarks(db: &Connection) -> db::Result<(Vec<String>, BTreeMap<u16, i64>)> {
    let mut ask = db.prepare_cached("SELECT job, lane, through FROM watermark WHERE job <> ?1 ORDER BY job, lane")?;
    let mut through: BTreeMap<String, BTreeMap<u16, i64>> = BTreeMap::new();
    let mut rows = ask.query([days::JOB])?;
    while let Some(row) = rows.next()? {
        through.entry(row.get(0)?).or_default().insert(row.get(1)?, row.get(2)?);
    }
    let mut of_all = through.values();
    let mut done = of_all.next().cloned().unwrap_or_default();
    for other in of_all {
        for (lane, no) in &mut done {
            *no = (*no).min(other.get(lane).copied().unwrap_or(0));
        }
    }
    Ok((through.into_keys().collect(), done))
}

fn lanes(db: &Connection) -> db::Result<Vec<u16>> {
    match db.engine() {
        Engine::Sqlite => Ok(vec![0]),
        Engine::Postgres => {
            let mut ask = db.prepare_cached("SELECT lane FROM lane WHERE head > 0 ORDER BY lane")?;
            ask.query_map((), |row| row.get(0))?.collect()
        }
    }
}

/// The blocks of a lane after one number and through another, each with its number.
fn page(db: &Connection, lane: u16, after: i64, through: i64) -> db::Result<Vec<(i64, Values)>> {
    let mine = match db.engine() {
        Engine::Sqlite => "",
        Engine::Postgres => "AND lane = ?3",
    };
    let sql = format!(
        "SELECT {}, no FROM block WHERE no > ?1 AND no <= ?2 {mine} ORDER BY no LIMIT {PAGE}",
        COLUMNS.join(", ")
    );
    let mut cells = vec![Cell::Int(after), Cell::Int(through)];
    if db.engine() == Engine::Postgres {
        cells.push(Cell::Int(lane.into()));
    }
    let rows = read_all(db, &sql, cells, COLUMNS.len() + 1)?;
    let numbered = rows.into_iter().map(|mut row| match row.pop() {
        Some(Value::Int(no)) => Ok((no, row)),
        _ => Err(db::Error::cell("a block has no number".to_owned())),
    });
    numbered.collect()
}

/// Writes blocks behind those that are there, with what finds them, and where the source is by then.
fn write(db: &Connection, page: Vec<(i64, Values)>, at: Cursor) -> Result<(), Fault> {
    let mut heads = heads(db)?;
    let mut reach: BTreeMap<(u16, i64), i64> = BTreeMap::new();
    let mut rows = Vec::with_capacity(page.len());
    for (_, mut row) in page {
        let lane = lane_for(db, &row[AGENT])?;
        let head = heads.entry(lane.0).or_insert(0);
        *head += 1;
        if let Value::Int(to) = row[TO_MS] {
            let latest = reach.entry((lane.0, head.div_euclid(SEGMENT))).or_insert(to);
            *latest = (*latest).max(to);
        }
        row.push(Value::Int(*head));
        if db.engine() == Engine::Postgres {
            row.push(Value::Int(lane.0.into()));
        }
        rows.push(row);
    }
    let mut columns: Vec<String> = COLUMNS.iter().map(ToString::to_string).collect();
    columns.push("no".to_owned());
    if db.engine() == Engine::Postgres {
        columns.push("lane".to_owned());
        let mut move_head = db.prepare_cached("UPDATE lane SET head = ?2 WHERE lane = ?1 AND head < ?2")?;
        for lane in reach.keys().map(|(lane, _)| lane).collect::<BTreeSet<_>>() {
            move_head.execute((lane, heads.get(lane).copied()))?;
        }
    }
    insert(db, "block", &columns, &rows)?;
    let mut upsert = db.prepare_cached(
        "INSERT INTO block_reach (lane, segment, to_ms) VALUES (?1, ?2, ?3)
         ON CONFLICT (lane, segment) DO UPDATE SET to_ms = excluded.to_ms WHERE excluded.to_ms > block_reach.to_ms",
    )?;
    for ((lane, segment), to) in reach {
        upsert.execute((lane, segment, to))?;
    }
    Ok(note(db, "log", &at.word())?)
}

/// The number given last in every lane.
fn heads(db: &Connection) -> db::Result<BTreeMap<u16, i64>> {
    let ask = match db.engine() {
        Engine::Sqlite => "SELECT 0, COALESCE(MAX(no), 0) FROM block",
        Engine::Postgres => "SELECT lane, head FROM lane WHERE head > 0",
    };
    db.prepare_cached(ask)?.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Every job has been through what is there now.
fn mark(db: &Connection, jobs: &[String]) -> db::Result<()> {
    let heads = heads(db)?;
    let mut insert = db.prepare_cached("INSERT INTO watermark (job, lane, through) VALUES (?1, ?2, ?3)")?;
    for job in jobs {
        for (lane, head) in heads.iter().filter(|(_, head)| **head > 0) {
            insert.execute((job, lane, head))?;
        }
    }
    Ok(())
}

/// Writes rows of agents, each under the lane its agent has here.
pub(super) fn insert_by_lane(db: &Connection, table: &str, columns: &[String], page: Vec<Values>) -> Result<(), Fault> {
    let nameless = StoreError::Damaged { what: "a table of agents" };
    let agent = columns.iter().position(|column| column == "agent").ok_or(nameless)?;
    let mut columns = columns.to_vec();
    columns.push("lane".to_owned());
    let placed = page.into_iter().map(|mut row| {
        let lane = lane_for(db, &row[agent])?;
        row.push(Value::Int(lane.0.into()));
        Ok(row)
    });
    let rows = placed.collect::<Result<Vec<_>, Fault>>()?;
    Ok(insert(db, table, &columns, &rows)?)
}

/// The lane of an agent here.
fn lane_for(db: &Connection, agent: &Value) -> Result<Lane, Fault> {
    match db.engine() {
        Engine::Sqlite => Ok(Lane(0)),
        Engine::Postgres => Ok(lane_of(agent_of(agent)?)),
    }
}

fn agent_of(value: &Value) -> Result<AgentId, Fault> {
    let damaged = StoreError::Damaged { what: "the agent of a block" };
    match value {
        Value::Blob(bytes) => <[u8; 16]>::try_from(bytes.as_slice()).map(AgentId).map_err(|_| damaged.into()),
        _ => Err(damaged.into()),
    }
}

/// Shows every block with its number until `look` finds something.
pub(super) fn each<T>(
    db: &Connection,
    mut look: impl FnMut(i64, &[u8]) -> Option<T>,
) -> Result<Option<T>, TransferError> {
    let read = |error: db::Error| failed("read blocks")(error.into());
    for lane in lanes(db).map_err(read)? {
        let mut after = 0;
        loop {
            let page = page(db, lane, after, i64::MAX).map_err(read)?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            let found = page.iter().find_map(|(no, row)| match &row[BYTES] {
                Value::Blob(bytes) => look(*no, bytes),
                _ => None,
            });
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    Ok(None)
}

/// The sum over all blocks: over each agent's in order, then over the agents'.
pub(super) fn sum(db: &Connection) -> db::Result<Sum> {
    let mut by_agent: BTreeMap<Vec<u8>, Sum> = BTreeMap::new();
    for lane in lanes(db)? {
        let mut after = 0;
        loop {
            let page = page(db, lane, after, i64::MAX)?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (_, row) in page {
                if let Value::Blob(agent) = &row[AGENT] {
                    by_agent.entry(agent.clone()).or_insert_with(Sum::new).add(&row);
                }
            }
        }
    }
    let (mut sum, mut rows) = (Sum::new(), 0);
    for (agent, of_agent) in by_agent {
        rows += of_agent.rows;
        sum.add(&[Value::Blob(agent), Value::Blob(of_agent.finish().to_vec())]);
    }
    sum.rows = rows;
    Ok(sum)
}
