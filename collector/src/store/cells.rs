//! How values of the domain stand in a cell, and back.
//!
//! Ids are blobs of 16 bytes, times integers of milliseconds. The database has signed 64-bit integers
//! only: an unsigned one is kept as the same 64 bits, so every value comes back exactly; nothing is ever
//! summed or compared in SQL where the sign would matter.

use peil_proto::convert;
use peil_proto::ids::AgentId;
use peil_proto::record::{Boundary, FindingState, Method, Record};
use peil_proto::time::UtcTime;

use super::db::{self, Row};
use super::error::{Fault, StoreError};

/// The 64 bits as the database keeps them.
pub(super) fn bits(value: u64) -> i64 {
    value.cast_signed()
}

/// The value of 64 bits from the database.
pub(super) fn unbits(value: i64) -> u64 {
    value.cast_unsigned()
}

pub(super) fn agent(row: &Row<'_>, column: usize) -> db::Result<AgentId> {
    Ok(AgentId(row.get(column)?))
}

pub(super) fn time(row: &Row<'_>, column: usize) -> db::Result<UtcTime> {
    Ok(UtcTime(row.get(column)?))
}

pub(super) fn time_or_none(row: &Row<'_>, column: usize) -> db::Result<Option<UtcTime>> {
    Ok(row.get::<Option<i64>>(column)?.map(UtcTime))
}

pub(super) fn number(row: &Row<'_>, column: usize) -> db::Result<u64> {
    Ok(unbits(row.get(column)?))
}

/// A word out of a closed list.
pub(super) fn word<T>(row: &Row<'_>, column: usize, read: impl FnOnce(&str) -> Option<T>) -> db::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    read(text).ok_or_else(|| db::Error::cell(format!("unknown word {text:?}")))
}

pub(super) fn method(word: &str) -> Option<Method> {
    [Method::Measured, Method::Estimated, Method::Modelled].into_iter().find(|method| method.word() == word)
}

pub(super) fn boundary(word: &str) -> Option<Boundary> {
    [Boundary::Component, Boundary::Platform, Boundary::Wall].into_iter().find(|boundary| boundary.word() == word)
}

pub(super) fn finding_state_word(state: FindingState) -> &'static str {
    match state {
        FindingState::Installable => "installable",
        FindingState::Held => "held",
        FindingState::BlockedPin => "blocked_pin",
    }
}

pub(super) fn finding_state(word: &str) -> Option<FindingState> {
    [FindingState::Installable, FindingState::Held, FindingState::BlockedPin]
        .into_iter()
        .find(|state| finding_state_word(*state) == word)
}

/// A record kept in the form it had in the agent's spool.
pub(super) fn record(bytes: &[u8], what: &'static str) -> Result<Record, Fault> {
    match convert::from_spool(bytes) {
        Ok(Some(record)) => Ok(record),
        Ok(None) | Err(_) => Err(StoreError::Damaged { what }.into()),
    }
}
