//! The collector: IN, KEEP, JUDGE, DRIVE, TELL, TRUST. Suggested reading order is the order below.

pub mod snapshot;
pub mod web;
pub mod access;
