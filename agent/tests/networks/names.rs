//! Resolvers that hang, refuse or know nothing: whose fault it is, and that nobody else has to wait.

use std::net::UdpSocket;

use peil_agent::probe::{Observation, Phase};
use peil_proto::plan::{CheckKind, Tcp};
use peil_proto::sample::{FailureKind, Outcome, State};
use tokio::net::TcpListener;

use crate::{assert_inside, in_a_network_of_its_own, ip, probe, replace};

#[test]
fn f13_a_resolver_that_hangs_or_fails_is_our_trouble_and_one_that_knows_no_such_name_is_the_targets() {
    in_a_network_of_its_own("names::inside");
}

/// Answers every question on `at` as its first label says: `up` with an address, `empty` without one, `nx` and
/// `servfail` with their codes, `hang` not at all.
fn serve(at: &str) {
    let socket = UdpSocket::bind(at).expect("binds");
    std::thread::spawn(move || {
        let mut question = [0; 1_500];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            if let Some(answer) = answer(&question[..length]) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
}

/// RFC 1035, 4.1: header, the question as it came, and for `up` the address 127.0.0.1.
fn answer(asked: &[u8]) -> Option<Vec<u8>> {
    let mut end = 12;
    while *asked.get(end)? != 0 {
        end += 1 + usize::from(asked[end]);
    }
    let question = asked.get(12..end + 5)?;
    let asks_for_v4 = question.ends_with(&[0, 1, 0, 1]);
    let label = &question[1..=usize::from(question[0])];
    let (code, found) = match label {
        b"up" => (0, asks_for_v4),
        b"empty" => (0, false),
        b"nx" => (3, false),
        b"servfail" => (2, false),
        _ => return None,
    };
    let mut answer = asked[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    answer.extend(question);
    if found {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

async fn connect(name: &str, port: u16) -> Observation {
    probe(CheckKind::Tcp(Tcp { address: format!("{name}:{port}"), ..Tcp::default() })).await
}

#[tokio::test]
#[ignore = "run by the test above, in its namespace"]
async fn inside() {
    assert_inside();
    ip("link set lo up");
    let dir = tempfile::tempdir().expect("a directory");
    replace(dir.path(), "/etc/nsswitch.conf", "hosts: files dns\n");
    // The first of the two is dead.
    replace(dir.path(), "/etc/resolv.conf", "nameserver 127.0.0.98\nnameserver 127.0.0.99\n");
    serve("127.0.0.99:53");
    let target = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = target.local_addr().expect("an address").port();

    assert_eq!(connect("up.test", port).await.outcome, Outcome::Up { code: 0 }, "one of two resolvers is enough");
    for (name, kind, state) in [
        ("nx.test", FailureKind::NoSuchName, State::Down),
        ("empty.test", FailureKind::NoSuchName, State::Down),
        ("servfail.test", FailureKind::Resolver, State::Unknown),
    ] {
        let seen = connect(name, port).await;
        assert_eq!(seen.outcome, Outcome::Failed { kind, code: 0 }, "{name}: {seen:?}");
        assert_eq!(seen.outcome.state(), state, "{name}");
        assert_eq!(seen.detail.failure.and_then(|failure| failure.phase), Some(Phase::Resolve), "{name}");
    }
    // The resolver would go on for longer than the whole check may take; what needs no name does not wait for it.
    let hanging = connect("hang.test", port);
    tokio::pin!(hanging);
    tokio::select! {
        biased;
        seen = connect("127.0.0.1", port) => assert_eq!(seen.outcome, Outcome::Up { code: 0 }),
        seen = &mut hanging => panic!("the one without a name came second: {seen:?}"),
    }
    let seen = hanging.await;
    assert_eq!(seen.outcome, Outcome::Failed { kind: FailureKind::Resolver, code: 0 }, "{seen:?}");
    assert!(seen.phases.resolve.is_some() && seen.phases.connect.is_none());
}
