//! What was derived, as rows, and back.

use std::collections::BTreeMap;

use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::time::{UtcDay, UtcTime};

use crate::contract::track::Piece;
use crate::derive::histogram::{Histogram, HistogramError};
use crate::derive::period::{Counts, Day, Hour, Period};
use crate::derive::{Derived, Holds, Seen};
use crate::store::latency::{DerivedDays, HourRow, PeriodRow, PieceRow, Tally};

/// An hour as a row.
pub(in crate::job) fn hour(agent: AgentId, check: CheckNo, hour: UtcTime, value: &Hour) -> HourRow {
    HourRow { agent, check, hour, tally: tally(value.counts), total: bytes(&value.total) }
}

/// A day or a month as a row.
pub(in crate::job) fn period(agent: AgentId, check: CheckNo, from: UtcDay, value: &Period) -> PeriodRow {
    let [resolve, connect, tls, first_byte, transfer] = &value.phases;
    let times = [&value.total, resolve, connect, tls, first_byte, transfer].map(bytes);
    PeriodRow { agent, check, from, tally: tally(value.counts), times }
}

/// The days of one agent as rows; `days` are those that are replaced.
pub(in crate::job) fn days(agent: AgentId, derived: &Derived, days: Vec<UtcDay>, holds: &Holds) -> DerivedDays {
    let mut rows = DerivedDays::default();
    for ((_, check), seen) in derived.seen.iter().filter(|((of, _), _)| *of == agent) {
        for (day, value) in seen.days.iter().filter(|(day, _)| days.contains(day)) {
            rows.periods.push(period(agent, *check, *day, &value.period));
            rows.pieces.extend(value.pieces.iter().map(|piece| PieceRow {
                agent,
                check: *check,
                day: *day,
                state: piece.state,
                first: piece.first,
                last: piece.last,
                // Without a hold there are no pieces.
                hold: holds.get(check).copied().unwrap_or_default(),
            }));
        }
    }
    rows.days = days;
    rows
}

/// What rows say; the first that cannot be read is told.
pub(in crate::job) fn derived(
    hours: &[HourRow],
    days: &[PeriodRow],
    pieces: &[PieceRow],
) -> Result<Derived, HistogramError> {
    let mut seen: BTreeMap<(AgentId, CheckNo), Seen> = BTreeMap::new();
    for row in hours {
        let value = Hour { counts: counts(row.tally), total: histogram(&row.total)? };
        seen.entry((row.agent, row.check)).or_default().hours.insert(row.hour, value);
    }
    for row in days {
        let day = Day { period: opened(row)?, pieces: Vec::new() };
        seen.entry((row.agent, row.check)).or_default().days.insert(row.from, day);
    }
    for row in pieces {
        let days = &mut seen.entry((row.agent, row.check)).or_default().days;
        let piece = Piece { state: row.state, first: row.first, last: row.last };
        days.entry(row.day).or_default().pieces.push(piece);
    }
    Ok(Derived { seen })
}

/// A stored day or month.
pub(in crate::job) fn opened(row: &PeriodRow) -> Result<Period, HistogramError> {
    let [total, resolve, connect, tls, first_byte, transfer] = &row.times;
    let of = |bytes: &Vec<u8>| histogram(bytes);
    let phases = [of(resolve)?, of(connect)?, of(tls)?, of(first_byte)?, of(transfer)?];
    Ok(Period { counts: counts(row.tally), total: histogram(total)?, phases })
}

/// No bytes stand for no values: most checks lack a phase.
fn bytes(histogram: &Histogram) -> Vec<u8> {
    if *histogram == Histogram::default() { Vec::new() } else { histogram.to_v2() }
}

/// A stored histogram.
pub(in crate::job) fn histogram(bytes: &[u8]) -> Result<Histogram, HistogramError> {
    if bytes.is_empty() { Ok(Histogram::default()) } else { Histogram::from_v2(bytes) }
}

fn tally(counts: Counts) -> Tally {
    let Counts { up, failed, not_run, held } = counts;
    Tally { up, failed, not_run, held }
}

fn counts(tally: Tally) -> Counts {
    let Tally { up, failed, not_run, held } = tally;
    Counts { up, failed, not_run, held }
}
