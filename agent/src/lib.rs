//! Story to come.

pub mod spool;
