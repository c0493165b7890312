//! Probes endpoints, patch level and energy on one host and delivers every result.

pub mod energy;
