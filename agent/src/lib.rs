//! The agent: schedule → probe → spool → uplink, with patch level and energy beside it.
//!
//! Suggested reading order is the order below. `app` ties the parts together and is the only place that
//! spawns; `schedule` and the integrator of `energy` are pure; everything durable is in `spool`.

pub mod cli;
pub mod manual;
pub mod config;
pub mod app;

pub mod schedule;
pub mod runner;
pub mod vantage;
pub mod probe;

pub mod recorder;
pub mod spool;
pub mod spool_command;

pub mod uplink;
pub mod plan_file;
pub mod local_checks;
pub mod identity;
pub mod enrol;

pub mod patch;
pub mod energy;
pub mod host;
pub mod status;
pub mod check;
pub mod systemd;
