//! The vocabulary both Peil programs share, and the only crate that knows the wire.
//!
//! Suggested reading order is the order below. Nothing here depends on the agent or the collector.

pub mod ids;
pub mod labels;
pub mod units;
pub mod time;
pub mod sample;
pub mod summary;
pub mod record;
pub mod plan;
pub mod block;
pub mod convert;
pub mod wire;
pub mod settings;
pub mod token;
pub mod tls;
pub mod keyfile;
#[cfg(feature = "manual")]
pub mod manual;
