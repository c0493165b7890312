//! The way to the collector: connect, stream, wait, again. One connection at a time, always outward.

pub mod connect;
