//! Connecting: what every kind has in common.

use peil_agent::probe::{Phase, problems, run};
use peil_proto::plan::{CheckKind, Tcp, Tls, TlsOptions};
use peil_proto::sample::{FailureKind, Outcome, Phases, State};

use crate::target::{Target, closed_port};
use crate::{PATIENT_MS, check, context, context_of_other_loopback, failure, get, probe};

fn tcp(address: impl ToString) -> CheckKind {
    CheckKind::Tcp(Tcp { address: address.to_string(), ..Tcp::default() })
}

#[tokio::test]
async fn an_accepted_connection_is_up_and_only_its_phases_are_timed() {
    let target = Target::silent().await;
    let seen = probe(tcp(target.address), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 });
    assert_eq!(seen.detail.hops[0].peer, Some(target.address));
    let timed = seen.phases.to_array().map(|phase| phase.is_some());
    assert_eq!(timed, [false, true, false, false, false], "an address is not looked up");
}

#[tokio::test]
async fn a_name_is_looked_up_and_that_is_timed_apart() {
    let target = Target::silent().await;
    // The host decides what its name for itself means: only IPv4 listens here.
    let seen = probe(tcp(format!("localhost:{}", target.address.port())), PATIENT_MS).await;
    assert!(seen.phases.resolve.is_some());
    let peer = seen.detail.hops[0].peer.expect("found an address");
    assert!(peer.ip().is_loopback());
    match peer.ip().is_ipv4() {
        true => assert_eq!(seen.outcome, Outcome::Up { code: 0 }),
        false => assert_eq!(failure(&seen).0, FailureKind::Refused),
    }
}

#[tokio::test]
async fn an_ipv6_address_in_brackets_is_dialled() {
    if tokio::net::TcpListener::bind("[::1]:0").await.is_err() {
        let seen = probe(tcp("[::1]:9"), PATIENT_MS).await;
        assert_eq!(seen.outcome.state(), State::Unknown, "a host without IPv6 cannot tell: {seen:?}");
        return;
    }
    let target = Target::on("[::1]:0", crate::target::echo).await;
    let seen = probe(tcp(target.address), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 });
    let seen = probe(get(target.url("/")), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 200 });
}

#[tokio::test]
async fn a_refused_connection_is_down() {
    let seen = probe(tcp(closed_port().await), PATIENT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Refused, Some(Phase::Connect)));
    assert_eq!(seen.outcome.state(), State::Down);
    assert!(seen.phases.connect.is_some(), "holds the time until it was refused");
}

#[tokio::test]
async fn a_name_that_does_not_exist_fails_in_resolve_and_nothing_is_dialled() {
    let seen = probe(tcp("peil-test.invalid:80"), PATIENT_MS).await;
    let (kind, phase) = failure(&seen);
    // A machine without any resolver cannot know that the name does not exist.
    assert!(matches!(kind, FailureKind::NoSuchName | FailureKind::Resolver), "{seen:?}");
    assert_eq!(phase, Some(Phase::Resolve));
    assert!(seen.phases.resolve.is_some() && seen.phases.connect.is_none());
    assert_eq!(seen.detail.hops[0].peer, None);
}

/// The policy of these tests allows one loopback address and the target is another, which listens: should the policy
/// ever break, this test fails, and still nothing has left the host. Link-local and metadata addresses stand in the
/// table in `probe/addresses.rs`, where nothing is dialled.
#[tokio::test]
async fn f14_a_denied_address_is_never_dialled_whatever_kind_asks_and_however_it_is_written() {
    let target = Target::silent().await;
    let port = target.address.port();
    for kind in [
        tcp(format!("127.0.0.1:{port}")),
        tcp(format!("[::ffff:127.0.0.1]:{port}")),
        tcp(format!("0x7f000001:{port}")),
        tcp(format!("localhost:{port}")),
        CheckKind::Tls(Tls { address: format!("127.0.0.1:{port}"), ..Tls::default() }),
        get(format!("http://127.0.0.1:{port}/")),
        get(format!("https://[::ffff:7f00:1]:{port}/")),
        get(format!("http://2130706433:{port}/")),
    ] {
        let seen = run(&check(kind.clone(), PATIENT_MS), &context_of_other_loopback()).await;
        assert_eq!(failure(&seen).0, FailureKind::Denied, "{kind:?}: {seen:?}");
        assert_eq!(seen.outcome.state(), State::Unknown);
        assert_eq!(seen.phases.connect, None, "no packet was sent: {kind:?}");
    }
    assert_eq!(target.visits(), 0);
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_unknown_and_named_before_it_runs() {
    let missing = Some("/nonexistent/ca.pem".to_owned());
    let target = Target::silent().await;
    let address = target.address.to_string();
    for kind in [
        tcp("nowhere"),
        get("http://user:secret@127.0.0.1/"),
        get("http://127.0.0.1:99999/"),
        get(format!("https://127..0.1:{}/", target.address.port())),
        CheckKind::Tls(Tls {
            address: address.clone(),
            tls: TlsOptions { ca_file: missing, ..TlsOptions::default() },
            ..Tls::default()
        }),
        CheckKind::Tls(Tls {
            address,
            tls: TlsOptions { server_name: Some("not a name".into()), ..TlsOptions::default() },
            ..Tls::default()
        }),
    ] {
        let def = check(kind, PATIENT_MS);
        let found = problems(&def, &context());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(!found[0].contains("secret"), "{found:?}");
        let seen = run(&def, &context()).await;
        assert_eq!(seen.outcome.state(), State::Unknown, "{seen:?}");
        assert_eq!(seen.phases, Phases::default(), "nothing was tried");
    }
    assert_eq!(problems(&check(get("https://[::1]:8443/x?y"), 1_000), &context()), Vec::<String>::new());
}

/// F20: many at once, all hanging.
#[tokio::test]
async fn a_hundred_probes_of_a_silent_target_all_end_with_their_deadline() {
    let target = Target::silent().await;
    let ctx = std::sync::Arc::new(context());
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (ctx, def) = (ctx.clone(), check(get(target.url("/")), 500));
        running.spawn(async move { run(&def, &ctx).await });
    }
    let all = running.join_all().await;
    assert_eq!(all.len(), 100);
    for seen in all {
        assert_eq!(failure(&seen).0, FailureKind::Timeout);
    }
}
