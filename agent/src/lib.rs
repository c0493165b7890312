//! The agent: schedule → probe → spool → uplink, with patch level and energy beside it.

pub mod probe;
pub mod energy;
pub mod identity;
pub mod uplink;
