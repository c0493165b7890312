//! The harness of the end-to-end tests: real processes, real sockets, real files, each test in its own directory.
//!
//! A test starts a [`Collector`] and [`Agent`]s from the binaries beside it, lets them watch a [`Target`], and asks over
//! the same ways a user has: API, pages, `/metrics`, webhooks ([`Receiver`]), [`Alertmanager`], the command
//! line, and at the end the store itself ([`records`]).
//!
//! Waiting is [`eventually()`]: look again until it is so, with a bound far beyond what is normal and a message that says what was
//! awaited and what was seen last. There is no sleep that hopes something has happened by then.
//! Everything ends with the test: processes are killed when their handle goes, directories are removed (unless
//! `PEIL_KEEP` is set). What the programs log is shown with a test that fails.
//!
//! Deliberately absent: mocks of our own programs, a clock to turn, a network beyond loopback.

mod eventually;
pub mod programs;
mod process;
mod port;
mod directory;
pub mod http;
mod api;
mod collector;
mod agent;
mod target;
mod receiver;
mod alertmanager;
mod fake_host;
mod balancer;
pub mod fleet;
pub mod kept;
pub mod peace;
pub mod powercut;
pub mod records;
pub mod dice;

pub use agent::{Agent, ONLY_CHECKS};
pub use alertmanager::Alertmanager;
pub use api::Api;
pub use balancer::Balancer;
pub use collector::Collector;
pub use eventually::eventually;
pub use fake_host::FakeHost;
pub use process::Process;
pub use receiver::{Delivery, Receiver};
pub use target::Target;
