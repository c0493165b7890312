//! What the measuring programs share: a load like the real one, a collector of their own, agents that
//! talk to it over mutual TLS, and the kernel's account of what that cost.
//!
//! The programs are `ingest`, `block`, `day`, `figure` and `probe`; `README.md` says how to run them and what
//! they measured. They print figures and judge nothing: a limit in a measurement fails on a busy machine
//! and teaches people to ignore it. What they do insist on is that the work was done: every acked record
//! is counted in the store before a figure is believed.

pub mod load;
pub mod layout;

pub mod account;
pub mod daemon;
pub mod wire;
pub mod fleet;
pub mod proof;
