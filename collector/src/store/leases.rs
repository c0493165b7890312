//! Who drives what, when several collectors share a database: leases with a fencing epoch, by the database's clock.
//!
//! There is one lease per lane of the log and one for alerts. A collector tends its leases every few seconds: it says
//! that it is here, renews what it holds and is to hold, lets go of what another live collector is to hold, and takes
//! what is free or over. Who is to hold a lease is decided by rendezvous hashing, so every collector comes to the same
//! answer without asking, and a collector that comes or goes moves no more than its share.
//!
//! The epoch rises whenever a lease changes hands. Whoever writes something derived shows what it holds ([`Held`]) in
//! the transaction of the write, and rows of the lease stay locked until its end: a collector that stood still while
//! its leases went to others can write nothing more, however sure it is of itself.
//!
//! With SQLite there is one lane and one collector; it goes through the same door.

use std::collections::BTreeMap;

use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use ring::digest::{SHA256, digest};

use super::blocks::{Lane, lane::LANES};
use super::db::{self, Connection, Engine, OptionalExtension};
use super::error::Fault;
use super::{Place, Store, StoreError, cells};

/// A lease that is not renewed for this long is free.
pub const LEASE: Millis = Millis(20_000);

/// A collector: an id made once in its data directory, and a mark of this start of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Which collector.
    pub id: String,
    /// Which start of it: what another start held is taken over at once.
    pub start: String,
}

impl Holder {
    fn cell(&self) -> String {
        format!("{}/{}", self.id, self.start)
    }
}

/// What other collectors and people see of a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorRow {
    /// Its id.
    pub id: String,
    /// Name of its machine.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// When it started, by its own clock.
    pub started_at: UtcTime,
    /// When it was last here, by the database's clock.
    pub seen_at: UtcTime,
}

/// What may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Duty {
    /// What is derived from a lane.
    Lane(Lane),
    /// Alerts and their delivery.
    Alerts,
}

impl Duty {
    fn name(self) -> String {
        match self {
            Self::Lane(lane) => format!("lane/{:03}", lane.0),
            Self::Alerts => "alerts".to_owned(),
        }
    }
}

/// What a collector holds: each duty with its fencing epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Who.
    pub holder: Holder,
    epochs: BTreeMap<Duty, i64>,
}

impl Held {
    /// Nothing.
    pub fn nothing(holder: Holder) -> Self {
        Self { holder, epochs: BTreeMap::new() }
    }

    /// The epoch under which this duty is held.
    pub fn epoch(&self, duty: Duty) -> Option<i64> {
        self.epochs.get(&duty).copied()
    }

    /// How many duties.
    pub fn len(&self) -> usize {
        self.epochs.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }
}

/// What tending found.
#[derive(Debug, Clone)]
pub struct Tended {
    /// What is held now.
    pub held: Held,
    /// Collectors that are here, this one among them.
    pub here: Vec<CollectorRow>,
}

/// A lease as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// Its name.
    pub name: String,
    /// Id of the collector that has it.
    pub holder: String,
    /// Rises when it changes hands.
    pub epoch: i64,
    /// Until when, by the database's clock.
    pub until: UtcTime,
    /// Whether it is over by now.
    pub over: bool,
}

impl Store {
    /// True when other collectors may share this database.
    pub fn is_shared(&self) -> bool {
        matches!(self.inner.place, Place::Server(_))
    }

    /// Every duty there is with this engine.
    fn duties(&self) -> Vec<Duty> {
        let lanes = if self.is_shared() { LANES } else { 1 };
        (0..lanes).map(|lane| Duty::Lane(Lane(lane))).chain([Duty::Alerts]).collect()
    }

    /// Says that `me` is here, and renews, lets go and takes leases. To be called every few seconds.
    ///
    /// # Errors
    /// As every write; what was held may be over by the time it works again.
    pub async fn tend_leases(&self, holder: Holder, me: CollectorRow) -> Result<Tended, StoreError> {
        let duties = self.duties();
        self.write("tend the leases", move |db| tend(db, &holder, &me, &duties)).await
    }

    /// Lets go of everything, so that others need not wait. For a collector that stops.
    ///
    /// # Errors
    /// As every write.
    pub async fn leave(&self, holder: Holder) -> Result<(), StoreError> {
        self.write("let go of the leases", move |db| {
            db.execute("UPDATE lease SET until = 0 WHERE holder = ?1", [holder.cell()])?;
            db.execute("DELETE FROM collector WHERE holder = ?1", [&holder.id])?;
            Ok(())
        })
        .await
    }

    /// Every lease, and every collector that was ever here and did not say good-bye.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn leases(&self) -> Result<(Vec<LeaseRow>, Vec<CollectorRow>), StoreError> {
        self.read("read the leases", |db| Ok(all(db)?)).await
    }

    /// Notes a fact about the database as a whole, or finds what it was before: the first value stands.
    ///
    /// # Errors
    /// As every write.
    pub async fn settle(&self, name: &'static str, value: String) -> Result<String, StoreError> {
        self.write("note a fact about the database", move |db| {
            db.execute(
                "INSERT INTO house (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING",
                (name, &value),
            )?;
            Ok(db.query_row("SELECT value FROM house WHERE name = ?1", [name], |row| row.get(0))?)
        })
        .await
    }
}

/// Every lease and every collector.
pub(super) fn all(db: &Connection) -> db::Result<(Vec<LeaseRow>, Vec<CollectorRow>)> {
    let now = clock(db)?;
    let mut ask = db.prepare_cached("SELECT name, holder, epoch, until FROM lease ORDER BY name")?;
    let leases = ask.query_map((), |row| {
        let (holder, until): (String, UtcTime) = (row.get(1)?, cells::time(row, 3)?);
        let holder = holder.split('/').next().unwrap_or_default().to_owned();
        Ok(LeaseRow { name: row.get(0)?, holder, epoch: row.get(2)?, until, over: until <= now })
    })?;
    Ok((leases.collect::<db::Result<_>>()?, collectors(db)?))
}

/// Id of a collector that holds a lease now, if there is any.
pub(super) fn anyone(db: &Connection) -> db::Result<Option<String>> {
    let now = clock(db)?;
    let mut ask = db.prepare_cached("SELECT holder FROM lease WHERE until > ?1 ORDER BY name LIMIT 1")?;
    let holder: Option<String> = ask.query_row([now.0], |row| row.get(0)).optional()?;
    Ok(holder.map(|cell| cell.split('/').next().unwrap_or_default().to_owned()))
}

/// The database's clock: the only one leases are measured by.
pub(super) fn clock(db: &Connection) -> db::Result<UtcTime> {
    let now = match db.engine() {
        Engine::Sqlite => "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        Engine::Postgres => "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
    };
    db.query_row(now, (), |row| cells::time(row, 0))
}

fn collectors(db: &Connection) -> db::Result<Vec<CollectorRow>> {
    let mut ask =
        db.prepare_cached("SELECT holder, name, version, started_at, seen_at FROM collector ORDER BY holder")?;
    let rows = ask.query_map((), |row| {
        Ok(CollectorRow {
            id: row.get(0)?,
            name: row.get(1)?,
            version: row.get(2)?,
            started_at: cells::time(row, 3)?,
            seen_at: cells::time(row, 4)?,
        })
    })?;
    rows.collect()
}

fn tend(db: &Connection, holder: &Holder, me: &CollectorRow, duties: &[Duty]) -> Result<Tended, Fault> {
    let now = clock(db)?;
    db.execute(
        "INSERT INTO collector (holder, name, version, started_at, seen_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (holder) DO UPDATE SET name = excluded.name, version = excluded.version,
           started_at = excluded.started_at, seen_at = excluded.seen_at",
        (&holder.id, &me.name, &me.version, me.started_at.0, now.0),
    )?;
    let here: Vec<_> = collectors(db)?.into_iter().filter(|row| now.since(row.seen_at) <= LEASE).collect();
    let standing = standing(db)?;
    let mut held = Held::nothing(holder.clone());
    let mut renewed = Vec::new();
    for duty in duties {
        let name = duty.name();
        let wanted = winner(&here, &name) == Some(holder.id.as_str());
        match decide(standing.get(&name), holder, wanted, now) {
            Decision::Leave => {}
            Decision::Renew(epoch) => {
                held.epochs.insert(*duty, epoch);
                renewed.push(name);
            }
            Decision::LetGo => {
                db.execute("UPDATE lease SET until = 0 WHERE name = ?1", [&name])?;
            }
            Decision::Take(epoch) => {
                db.execute(
                    "INSERT INTO lease (name, holder, epoch, until) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch,
                       until = excluded.until",
                    (&name, holder.cell(), epoch, now.plus(LEASE).0),
                )?;
                held.epochs.insert(*duty, epoch);
            }
        }
    }
    if !renewed.is_empty() {
        // All of them at once: those to be let go or lost have another holder or end by now.
        db.execute("UPDATE lease SET until = ?2 WHERE holder = ?1 AND until > 0", (holder.cell(), now.plus(LEASE).0))?;
    }
    Ok(Tended { held, here })
}

/// Holder, epoch and end of every lease, by name.
fn standing(db: &Connection) -> db::Result<BTreeMap<String, (String, i64, UtcTime)>> {
    let mut ask = db.prepare_cached("SELECT name, holder, epoch, until FROM lease")?;
    ask.query_map((), |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, cells::time(row, 3)?))))?.collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It is another's, or not for us.
    Leave,
    /// It is ours and stays so.
    Renew(i64),
    /// It is ours, and another who is here is to have it.
    LetGo,
    /// It is free, and ours under this epoch.
    Take(i64),
}

fn decide(lease: Option<&(String, i64, UtcTime)>, me: &Holder, wanted: bool, now: UtcTime) -> Decision {
    let Some((holder, epoch, until)) = lease else { return if wanted { Decision::Take(1) } else { Decision::Leave } };
    let is_over = *until <= now;
    let mine = *holder == me.cell();
    // What an earlier start of this collector held: it is gone, for there is one per data directory.
    let inherited = !mine && holder.split('/').next() == Some(me.id.as_str());
    match (mine, wanted) {
        (true, true) if *until > UtcTime(0) => Decision::Renew(*epoch),
        (true, false) if !is_over => Decision::LetGo,
        (_, true) if is_over || inherited => Decision::Take(epoch + 1),
        (false, false) if inherited && !is_over => Decision::LetGo,
        _ => Decision::Leave,
    }
}

/// The collector that is to hold a lease: the one whose id and the lease's name give the highest hash.
fn winner<'c>(here: &'c [CollectorRow], lease: &str) -> Option<&'c str> {
    let weight = |row: &&CollectorRow| {
        let hash = digest(&SHA256, format!("{lease}\n{}", row.id).as_bytes());
        (hash.as_ref().to_vec(), row.id.clone())
    };
    here.iter().max_by_key(weight).map(|row| row.id.as_str())
}

/// Makes sure, inside the caller's transaction, that these duties are held as `held` says, and keeps them so until its
/// end.
pub(super) fn require(db: &Connection, held: &Held, duties: impl IntoIterator<Item = Duty>) -> Result<(), Fault> {
    let ask = match db.engine() {
        // One writer: nothing can change before the commit.
        Engine::Sqlite => "SELECT epoch FROM lease WHERE name = ?1 AND holder = ?2",
        Engine::Postgres => "SELECT epoch FROM lease WHERE name = ?1 AND holder = ?2 FOR SHARE",
    };
    let mut ask = db.prepare_cached(ask)?;
    for duty in duties {
        let name = duty.name();
        let standing: Option<i64> = ask.query_row((&name, held.holder.cell()), |row| row.get(0)).optional()?;
        if standing.is_none() || standing != held.epoch(duty) {
            return Err(StoreError::LeaseLost { name }.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Holder {
        Holder { id: "a".into(), start: "2".into() }
    }

    fn collector(id: &str) -> CollectorRow {
        CollectorRow {
            id: id.into(),
            name: String::new(),
            version: String::new(),
            started_at: UtcTime(0),
            seen_at: UtcTime(0),
        }
    }

    #[test]
    fn a_lease_is_taken_renewed_let_go_and_inherited_as_the_table_says() {
        let now = UtcTime(1_000);
        let lease = |holder: &str, until| (holder.to_owned(), 7, UtcTime(until));
        for (standing, wanted, decision) in [
            (None, true, Decision::Take(1)),
            (None, false, Decision::Leave),
            (Some(lease("a/2", 2_000)), true, Decision::Renew(7)),
            (Some(lease("a/2", 900)), true, Decision::Renew(7)),
            (Some(lease("a/2", 2_000)), false, Decision::LetGo),
            (Some(lease("a/2", 0)), true, Decision::Take(8)),
            (Some(lease("a/2", 0)), false, Decision::Leave),
            (Some(lease("a/1", 2_000)), true, Decision::Take(8)),
            (Some(lease("a/1", 2_000)), false, Decision::LetGo),
            (Some(lease("b/1", 2_000)), true, Decision::Leave),
            (Some(lease("b/1", 2_000)), false, Decision::Leave),
            (Some(lease("b/1", 1_000)), true, Decision::Take(8)),
            (Some(lease("b/1", 1_000)), false, Decision::Leave),
        ] {
            assert_eq!(decide(standing.as_ref(), &me(), wanted, now), decision, "{standing:?} wanted {wanted}");
        }
    }

    #[test]
    fn a_collector_that_comes_takes_its_share_and_moves_nothing_else() {
        let (two, three) = ([collector("a"), collector("b")], [collector("a"), collector("b"), collector("c")]);
        let mut moved = 0;
        for lane in 0..LANES {
            let name = Duty::Lane(Lane(lane)).name();
            let (before, after) = (winner(&two, &name), winner(&three, &name));
            if before != after {
                assert_eq!(after, Some("c"), "{name} moved between the two who were there");
                moved += 1;
            }
        }
        assert!((50..=120).contains(&moved), "{moved} of 256 moved to the third");
        assert_eq!(winner(&[], "alerts"), None);
    }
}
