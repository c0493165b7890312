//! Exclusions: what was proposed, and what people did about it, in order.
//!
//! Rows are only added. Who may do what is decided in `contract/approval.rs`; here is decided only what needs the
//! transaction: that an act follows the very acts its author saw ([`Store::act_on_exclusion`]), and that an id is
//! used once.
//!
//! Limits: [`EXCLUSIONS_READ_MAX`] proposals are read at once, the latest first.

use std::collections::BTreeMap;

use peil_proto::time::UtcTime;

use super::db::Row;
use super::{Store, StoreError, audit, cells, db};

/// Proposals one answer has at most.
pub const EXCLUSIONS_READ_MAX: u32 = 50_000;

/// What was proposed, with what followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExclusionRow {
    /// What people call it.
    pub id: String,
    /// The service it is about.
    pub service: String,
    /// Word of the format.
    pub kind: String,
    /// First instant.
    pub from: UtcTime,
    /// First instant after.
    pub to: UtcTime,
    /// When the customer was told.
    pub announced_at: Option<UtcTime>,
    /// What is done or happened.
    pub reason: String,
    /// When it was proposed.
    pub proposed_at: UtcTime,
    /// By whom.
    pub proposed_by: String,
    /// What followed, in order.
    pub acts: Vec<ActRow>,
}

/// One thing somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActRow {
    /// When.
    pub at: UtcTime,
    /// Who.
    pub who: String,
    /// `approve`, `refuse`, `close`.
    pub deed: String,
    /// Why, for a refusal.
    pub detail: String,
    /// The end, for a closing.
    pub end: Option<UtcTime>,
}

/// What became of a proposal or an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is there.
    Done,
    /// The id is taken, or somebody else acted meanwhile: nothing was written; look again.
    Overtaken,
}

const COLUMNS: &str = "id, service, kind, from_ms, to_ms, announced_at, reason, proposed_at, proposed_by";

impl Store {
    /// Adds a proposal.
    ///
    /// # Errors
    /// As every write.
    pub async fn propose_exclusion(&self, row: ExclusionRow) -> Result<Added, StoreError> {
        self.write("write an exclusion", move |db| {
            let ExclusionRow { id, service, kind, from, to, announced_at, reason, proposed_at, proposed_by, .. } = &row;
            let mut insert = db.prepare_cached(&format!(
                "INSERT INTO exclusion ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING"
            ))?;
            let announced = announced_at.map(|at| at.0);
            let cells = (id, service, kind, from.0, to.0, announced, reason, proposed_at.0, proposed_by);
            if insert.execute(cells)? == 0 {
                return Ok(Added::Overtaken);
            }
            let detail = format!("{id} ({kind}) for {service:?} from {from} to {to}: {reason}");
            audit::enter(db, *proposed_at, proposed_by, "exclusion.propose", &detail)?;
            Ok(Added::Done)
        })
        .await
    }

    /// Adds an act to the exclusion `id`, if exactly `seen` acts were there before.
    ///
    /// # Errors
    /// As every write.
    pub async fn act_on_exclusion(&self, id: &str, seen: usize, act: ActRow) -> Result<Added, StoreError> {
        let (id, seq) = (id.to_owned(), i64::try_from(seen).unwrap_or(i64::MAX));
        self.write("write what became of an exclusion", move |db| {
            let count: i64 = db
                .prepare_cached("SELECT COUNT(*) FROM exclusion_act WHERE exclusion = ?1")?
                .query_row([id.as_str()], |row| row.get(0))?;
            if count != seq {
                return Ok(Added::Overtaken);
            }
            let mut insert = db.prepare_cached(
                "INSERT INTO exclusion_act (exclusion, seq, at, who, deed, detail, end_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
            )?;
            let ActRow { at, who, deed, detail, end } = &act;
            if insert.execute((&id, seq, at.0, who, deed, detail, end.map(|end| end.0)))? == 0 {
                return Ok(Added::Overtaken);
            }
            let until = end.map_or(String::new(), |end| format!(" at {end}"));
            audit::enter(db, *at, who, &format!("exclusion.{deed}"), &format!("{id}{until} {detail}"))?;
            Ok(Added::Done)
        })
        .await
    }

    /// Exclusions that end after `since`, in order of their beginning; all with `UtcTime(i64::MIN)`.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn exclusions(&self, since: UtcTime) -> Result<Vec<ExclusionRow>, StoreError> {
        self.read("read the exclusions", move |db| {
            let mut ask = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM exclusion WHERE to_ms > ?1 ORDER BY to_ms DESC LIMIT {EXCLUSIONS_READ_MAX}"
            ))?;
            let mut rows: Vec<_> = ask.query_map([since.0], exclusion_row)?.collect::<Result<_, _>>()?;
            let mut acts = db.prepare_cached(
                "SELECT a.exclusion, a.at, a.who, a.deed, a.detail, a.end_ms FROM exclusion_act a
                 JOIN exclusion e ON e.id = a.exclusion WHERE e.to_ms > ?1 ORDER BY a.exclusion, a.seq
                 LIMIT 200000",
            )?;
            let mut by_id: BTreeMap<String, Vec<ActRow>> = BTreeMap::new();
            for act in acts.query_map([since.0], |row| Ok((row.get::<String>(0)?, act_row(row)?)))? {
                let (id, act) = act?;
                by_id.entry(id).or_default().push(act);
            }
            for row in &mut rows {
                row.acts = by_id.remove(&row.id).unwrap_or_default();
            }
            rows.sort_by(|a, b| (a.from, &a.id).cmp(&(b.from, &b.id)));
            Ok(rows)
        })
        .await
    }
}

fn exclusion_row(row: &Row<'_>) -> db::Result<ExclusionRow> {
    Ok(ExclusionRow {
        id: row.get(0)?,
        service: row.get(1)?,
        kind: row.get(2)?,
        from: cells::time(row, 3)?,
        to: cells::time(row, 4)?,
        announced_at: cells::time_or_none(row, 5)?,
        reason: row.get(6)?,
        proposed_at: cells::time(row, 7)?,
        proposed_by: row.get(8)?,
        acts: Vec::new(),
    })
}

/// From the second column on.
fn act_row(row: &Row<'_>) -> db::Result<ActRow> {
    Ok(ActRow {
        at: cells::time(row, 1)?,
        who: row.get(2)?,
        deed: row.get(3)?,
        detail: row.get(4)?,
        end: cells::time_or_none(row, 5)?,
    })
}
