//! Story to come.

pub mod identity;
pub mod uplink;
