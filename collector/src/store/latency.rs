//! Times and states that were derived from blocks: hours, days, months, pieces. Overwritten whole whenever they are
//! derived again; what the bytes of a histogram mean is for `derive/` to know.

use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::sample::State;
use peil_proto::time::{UtcDay, UtcTime};
use peil_proto::units::Millis;

use super::db::{self, Connection, Row};
use super::{Store, StoreError, cells};

/// How many samples came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Successes.
    pub up: u64,
    /// Failures.
    pub failed: u64,
    /// Ticks without a probe.
    pub not_run: u64,
    /// Successes whose total time was beyond the range of the histogram.
    pub held: u64,
}

/// An hour of one vantage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HourRow {
    /// Who saw it.
    pub agent: AgentId,
    /// What was probed.
    pub check: CheckNo,
    /// Start of the hour.
    pub hour: UtcTime,
    /// Samples.
    pub tally: Tally,
    /// Total times as V2; empty for none.
    pub total: Vec<u8>,
}

/// A day or a month of one vantage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeriodRow {
    /// Who saw it.
    pub agent: AgentId,
    /// What was probed.
    pub check: CheckNo,
    /// The day, or the first of the month.
    pub from: UtcDay,
    /// Samples.
    pub tally: Tally,
    /// Total times and those of each phase as V2; empty for none.
    pub times: [Vec<u8>; 6],
}

/// A stretch of one state within a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceRow {
    /// Who saw it.
    pub agent: AgentId,
    /// What was probed.
    pub check: CheckNo,
    /// The day it belongs to.
    pub day: UtcDay,
    /// What was seen.
    pub state: State,
    /// The first sample of it.
    pub first: UtcTime,
    /// The last sample of it.
    pub last: UtcTime,
    /// How long a sample held by the settings of the time.
    pub hold: Millis,
}

/// Days of one agent, derived whole: what is stored of them is replaced by this. Hours are written apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DerivedDays {
    /// Which days; those without rows below have nothing any more.
    pub days: Vec<UtcDay>,
    /// Themselves.
    pub periods: Vec<PeriodRow>,
    /// Their states.
    pub pieces: Vec<PieceRow>,
    /// The months they lie in, whole.
    pub months: Vec<PeriodRow>,
}

const OF_PERIOD: &str = "agent, check_no, day, up, failed, not_run, held, total, resolve, connect, tls, first_byte, \
                         transfer";

impl Store {
    /// The hours of `agent` (or of all) that begin in `[from, to)`, by agent, check and time.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn latency_hours(
        &self,
        agent: Option<AgentId>,
        from: UtcTime,
        to: UtcTime,
    ) -> Result<Vec<HourRow>, StoreError> {
        self.read("read the times of hours", move |db| {
            let mut ask = db.prepare_cached(
                "SELECT agent, check_no, hour_ms, up, failed, not_run, held, total FROM latency_hour
                 WHERE hour_ms >= ?1 AND hour_ms < ?2 AND (agent = ?3 OR ?4 = 1) ORDER BY agent, check_no, hour_ms",
            )?;
            let (id, all) = one_or_all(agent);
            Ok(ask.query_map((from.0, to.0, id, all), hour_row)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The days of `agent` (or of all) in `[from, to)`, by agent, check and day.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn latency_days(
        &self,
        agent: Option<AgentId>,
        from: UtcDay,
        to: UtcDay,
    ) -> Result<Vec<PeriodRow>, StoreError> {
        self.periods("read the times of days", "latency_day", agent, from, to).await
    }

    /// The months of `agent` (or of all) that begin in `[from, to)`, by agent, check and month.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn latency_months(
        &self,
        agent: Option<AgentId>,
        from: UtcDay,
        to: UtcDay,
    ) -> Result<Vec<PeriodRow>, StoreError> {
        self.periods("read the times of months", "latency_month", agent, from, to).await
    }

    /// Total times of the month that begins on `month`, of every vantage: the month as far as its days are compacted, and
    /// the hours from `hours_from` on of days that are not. Several per vantage; their sum is the month to date.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn month_totals(
        &self,
        month: UtcDay,
        hours_from: UtcTime,
    ) -> Result<Vec<(CheckNo, Vec<u8>)>, StoreError> {
        self.read("read the times of this month", move |db| {
            let mut ask = db.prepare_cached("SELECT check_no, total FROM latency_month WHERE day = ?1")?;
            let mut totals: Vec<(CheckNo, Vec<u8>)> = ask.query_map([month.0], total_row)?.collect::<Result<_, _>>()?;
            let since = hours_from.max(month.start());
            let mut ask = db.prepare_cached(
                "SELECT h.check_no, h.total FROM latency_hour h WHERE h.hour_ms >= ?1 AND NOT EXISTS (
                   SELECT 1 FROM latency_day d
                   WHERE d.agent = h.agent AND d.check_no = h.check_no AND d.day = h.hour_ms / 86400000)",
            )?;
            for row in ask.query_map([since.0], total_row)? {
                totals.push(row?);
            }
            Ok(totals)
        })
        .await
    }

    async fn periods(
        &self,
        what: &'static str,
        table: &'static str,
        agent: Option<AgentId>,
        from: UtcDay,
        to: UtcDay,
    ) -> Result<Vec<PeriodRow>, StoreError> {
        self.read(what, move |db| {
            let mut ask = db.prepare_cached(&format!(
                "SELECT {OF_PERIOD} FROM {table}
                 WHERE day >= ?1 AND day < ?2 AND (agent = ?3 OR ?4 = 1) ORDER BY agent, check_no, day"
            ))?;
            let (id, all) = one_or_all(agent);
            Ok(ask.query_map((from.0, to.0, id, all), period_row)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The states an agent saw in `[from, to)`, by check and time.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn state_pieces(&self, agent: AgentId, from: UtcDay, to: UtcDay) -> Result<Vec<PieceRow>, StoreError> {
        self.read("read the states of days", move |db| {
            let mut ask = db.prepare_cached(
                "SELECT agent, check_no, day, state, first_ms, last_ms, hold_ms FROM state_piece
                 WHERE agent = ?1 AND day >= ?2 AND day < ?3 ORDER BY check_no, day, first_ms",
            )?;
            Ok(ask.query_map((agent.0, from.0, to.0), piece_row)?.collect::<Result<_, _>>()?)
        })
        .await
    }
}

fn one_or_all(agent: Option<AgentId>) -> ([u8; 16], i64) {
    agent.map_or(([0; 16], 1), |agent| (agent.0, 0))
}

/// Overwrites hours, inside the caller's transaction.
pub(super) fn write_hours(db: &Connection, hours: &[HourRow]) -> db::Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO latency_hour (agent, check_no, hour_ms, up, failed, not_run, held, total)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (agent, check_no, hour_ms) DO UPDATE SET up = excluded.up, failed = excluded.failed,
           not_run = excluded.not_run, held = excluded.held, total = excluded.total",
    )?;
    for row in hours {
        let [up, failed, not_run, held] = tally_cells(row.tally);
        upsert.execute((row.agent.0, row.check.0, row.hour.0, up, failed, not_run, held, &row.total))?;
    }
    Ok(())
}

/// Puts these hours in the place of all that are stored of a day, inside the caller's transaction.
pub(super) fn replace_hours(db: &Connection, agent: AgentId, day: UtcDay, hours: &[HourRow]) -> db::Result<()> {
    db.execute(
        "DELETE FROM latency_hour WHERE agent = ?1 AND hour_ms >= ?2 AND hour_ms < ?3",
        (agent.0, day.start().0, day.next().start().0),
    )?;
    write_hours(db, hours)
}

/// Puts these days in the place of what is stored of them, inside the caller's transaction.
pub(super) fn replace_days(db: &Connection, agent: AgentId, derived: &DerivedDays) -> db::Result<()> {
    let mut no_day = db.prepare_cached("DELETE FROM latency_day WHERE agent = ?1 AND day = ?2")?;
    let mut no_pieces = db.prepare_cached("DELETE FROM state_piece WHERE agent = ?1 AND day = ?2")?;
    for day in &derived.days {
        no_day.execute((agent.0, day.0))?;
        no_pieces.execute((agent.0, day.0))?;
    }
    write_periods(db, "latency_day", &derived.periods)?;
    write_periods(db, "latency_month", &derived.months)?;
    let mut insert = db.prepare_cached(
        "INSERT INTO state_piece (agent, check_no, day, first_ms, last_ms, state, hold_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for piece in &derived.pieces {
        let PieceRow { check, day, first, last, state, hold, .. } = piece;
        insert.execute((agent.0, check.0, day.0, first.0, last.0, state.word(), hold.0))?;
    }
    Ok(())
}

fn write_periods(db: &Connection, table: &str, periods: &[PeriodRow]) -> db::Result<()> {
    let mut upsert = db.prepare_cached(&format!(
        "INSERT INTO {table} ({OF_PERIOD}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (agent, check_no, day) DO UPDATE SET up = excluded.up, failed = excluded.failed,
           not_run = excluded.not_run, held = excluded.held, total = excluded.total, resolve = excluded.resolve,
           connect = excluded.connect, tls = excluded.tls, first_byte = excluded.first_byte,
           transfer = excluded.transfer"
    ))?;
    for row in periods {
        let [up, failed, not_run, held] = tally_cells(row.tally);
        let [total, resolve, connect, tls, first_byte, transfer] = &row.times;
        let key = (row.agent.0, row.check.0, row.from.0);
        upsert.execute((
            key.0, key.1, key.2, up, failed, not_run, held, total, resolve, connect, tls, first_byte, transfer,
        ))?;
    }
    Ok(())
}

fn total_row(row: &Row<'_>) -> db::Result<(CheckNo, Vec<u8>)> {
    Ok((CheckNo(row.get(0)?), row.get(1)?))
}

fn tally_cells(tally: Tally) -> [i64; 4] {
    [tally.up, tally.failed, tally.not_run, tally.held].map(cells::bits)
}

fn tally(row: &Row<'_>, at: usize) -> db::Result<Tally> {
    Ok(Tally {
        up: cells::number(row, at)?,
        failed: cells::number(row, at + 1)?,
        not_run: cells::number(row, at + 2)?,
        held: cells::number(row, at + 3)?,
    })
}

fn hour_row(row: &Row<'_>) -> db::Result<HourRow> {
    Ok(HourRow {
        agent: cells::agent(row, 0)?,
        check: CheckNo(row.get(1)?),
        hour: cells::time(row, 2)?,
        tally: tally(row, 3)?,
        total: row.get(7)?,
    })
}

fn period_row(row: &Row<'_>) -> db::Result<PeriodRow> {
    Ok(PeriodRow {
        agent: cells::agent(row, 0)?,
        check: CheckNo(row.get(1)?),
        from: UtcDay(row.get(2)?),
        tally: tally(row, 3)?,
        times: [row.get(7)?, row.get(8)?, row.get(9)?, row.get(10)?, row.get(11)?, row.get(12)?],
    })
}

fn piece_row(row: &Row<'_>) -> db::Result<PieceRow> {
    Ok(PieceRow {
        agent: cells::agent(row, 0)?,
        check: CheckNo(row.get(1)?),
        day: UtcDay(row.get(2)?),
        state: cells::word(row, 3, |word| {
            [State::Up, State::Down, State::Unknown].into_iter().find(|s| s.word() == word)
        })?,
        first: cells::time(row, 4)?,
        last: cells::time(row, 5)?,
        hold: Millis(row.get(6)?),
    })
}
