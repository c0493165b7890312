//! The agent: probes endpoints, patch level and energy of one host and delivers every result.

pub mod patch;
