//! Pings of the loopback. A host that allows no ICMP socket must say `permission`, and that is then what is tested.

use peil_agent::probe::run;
use peil_proto::plan::{CheckKind, Icmp};
use peil_proto::sample::{FailureKind, State};

use crate::{PATIENT_MS, check, context_of_other_loopback, failure, probe};

fn ping(host: &str) -> Icmp {
    Icmp { host: host.into(), every_ms: 10, ..Icmp::default() }
}

#[tokio::test]
async fn the_loopback_answers_every_ping_or_the_host_says_that_it_does_not_let_us() {
    for host in ["127.0.0.1", "::1"] {
        let seen = probe(CheckKind::Icmp(Icmp { count: 5, loss_max: 0, ..ping(host) }), PATIENT_MS).await;
        match seen.outcome.state() {
            State::Up => {
                let fact =
                    |name: &str| seen.detail.facts.iter().find(|fact| fact.name == name).map(|fact| fact.value.clone());
                assert_eq!((fact("sent").as_deref(), fact("received").as_deref()), (Some("5"), Some("5")));
                assert_eq!(fact("loss").as_deref(), Some("0 %"));
                assert!(fact("jitter").is_some() && seen.phases.first_byte.is_some());
            }
            State::Unknown => {
                let kind = failure(&seen).0;
                assert!(matches!(kind, FailureKind::Permission | FailureKind::LocalResource), "{seen:?}");
            }
            State::Down => assert!(host == "::1", "the loopback is there: {seen:?}"),
        }
    }
}

#[tokio::test]
async fn two_probes_at_once_do_not_take_each_others_answers() {
    let (one, two) = tokio::join!(
        probe(CheckKind::Icmp(Icmp { count: 10, loss_max: 0, ..ping("127.0.0.1") }), PATIENT_MS),
        probe(CheckKind::Icmp(Icmp { count: 10, loss_max: 0, size: 1_400, ..ping("127.0.0.1") }), PATIENT_MS),
    );
    assert_eq!(one.outcome.state(), two.outcome.state());
    assert_ne!(one.outcome.state(), State::Down, "{one:?} {two:?}");
}

#[tokio::test]
async fn a_denied_address_is_not_pinged() {
    let seen = run(&check(CheckKind::Icmp(ping("127.0.0.1")), PATIENT_MS), &context_of_other_loopback()).await;
    assert_eq!(failure(&seen).0, FailureKind::Denied);
    assert_eq!(seen.detail.facts, [], "nothing was sent");
}
