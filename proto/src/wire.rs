//! Generated from `peil/v1/*.proto`; `tests/wire_is_current.rs` proves it and writes it anew.
//!
//! Only [`crate::convert`], the agent's uplink session and the collector's ingest session see these types.

#[allow(clippy::all, clippy::pedantic, unreachable_pub, unused_qualifications, reason = "generated code keeps its own style")]
#[rustfmt::skip]
mod generated {
    include!("wire/peil.v1.rs");
}

pub use generated::*;
