//! Story to come.

pub mod schedule;
pub mod spool;
