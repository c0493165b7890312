//! What the probes promise, tried on real sockets of the loopback and certificates made here.
//!
//! `target` holds the servers, `pki` the certificates. No test asserts how fast something is: a deadline
//! test proves that an answer comes at all, and in which phase the time went.

mod answers;
mod cli;
mod databases;
mod datagrams;
mod dialogue;
mod grpc;
mod host;
mod http;
mod http2;
mod icmp;
mod pki;
mod proxy;
mod redirects;
mod requests;
mod target;
mod tcp;
mod tls;
mod websocket;

use peil_agent::config::Network;
use peil_agent::probe::{AddressPolicy, KINDS, Local, Observation, Phase, ProbeContext, run};
use peil_proto::ids::CheckNo;
use peil_proto::plan::{CheckDef, CheckKind, Http};
use peil_proto::sample::{FailureKind, Outcome};
use peil_proto::time::WallClock;

/// Long enough never to matter on a busy machine.
const PATIENT_MS: u32 = 60_000;

/// Short, for targets that never answer; long enough that one that does has begun.
const SHORT_MS: u32 = 1_000;

fn check(kind: CheckKind, timeout_ms: u32) -> CheckDef {
    CheckDef { no: CheckNo(1), name: "probe".into(), interval_ms: 86_400_000, timeout_ms, kind }
}

fn context() -> ProbeContext {
    ProbeContext::new(WallClock::System, AddressPolicy::default())
}

/// A policy that allows loopback addresses other than those the targets of these tests have.
fn context_of_other_loopback() -> ProbeContext {
    let network = Network::parse("127.0.0.77/32").expect("a network");
    ProbeContext::new(WallClock::System, AddressPolicy::Only(vec![network]))
}

/// A host that keeps its secrets in `dir`.
fn context_with_secrets(dir: &std::path::Path) -> ProbeContext {
    let local = Local { secrets_dir: dir.to_owned(), ..Local::default() };
    ProbeContext::on_host(WallClock::System, AddressPolicy::default(), local)
}

async fn probe(kind: CheckKind, timeout_ms: u32) -> Observation {
    let promised = KINDS.iter().find(|known| known.name == kind.name()).expect("stands in the table").phases;
    let seen = run(&check(kind, timeout_ms), &context()).await;
    for (phase, took) in Phase::ALL.iter().zip(seen.phases.to_array()) {
        assert!(took.is_none() || promised.contains(phase), "{phase:?} is not a phase of this kind: {seen:?}");
    }
    assert!(seen.detail.hops.len() <= 11, "never more than eleven connections");
    seen
}

fn get(url: impl Into<String>) -> CheckKind {
    CheckKind::Http(Http { url: url.into(), ..Http::default() })
}

/// The kind and phase of a failure; panics with everything that was seen when it did not fail.
#[expect(clippy::panic, reason = "shows what was seen; clippy does not know this function for a test")]
fn failure(seen: &Observation) -> (FailureKind, Option<Phase>) {
    let Some(found) = &seen.detail.failure else { panic!("did not fail: {seen:?}") };
    let Outcome::Failed { kind, .. } = seen.outcome else { panic!("outcome and detail differ: {seen:?}") };
    assert_eq!(kind, found.kind);
    assert!(!found.text.is_empty());
    (kind, found.phase)
}
