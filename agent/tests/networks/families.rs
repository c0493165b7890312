//! A host with two families of which one leads nowhere.

use peil_proto::plan::{CheckKind, Family, Tcp};
use peil_proto::sample::{FailureKind, Outcome};
use tokio::net::TcpListener;

use crate::{assert_inside, in_a_network_of_its_own, ip, probe, replace};

#[test]
fn f34_ipv6_that_swallows_everything_neither_delays_nor_hides_what_ipv4_says() {
    in_a_network_of_its_own("families::inside");
}

#[tokio::test]
#[ignore = "run by the test above, in its namespace"]
async fn inside() {
    assert_inside();
    ip("link set lo up");
    // The other end of the wire takes frames and answers none: no reset, no "unreachable".
    ip("link add near type veth peer name far");
    ip("link set near up");
    ip("link set far up");
    ip("-6 addr add 2001:db8::1/64 dev near nodad");
    ip("-6 neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev near");
    let dir = tempfile::tempdir().expect("a directory");
    replace(dir.path(), "/etc/nsswitch.conf", "hosts: files\n");
    replace(dir.path(), "/etc/hosts", "127.0.0.1 both.test\n2001:db8::2 both.test\n");
    let target = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let here = target.local_addr().expect("an address");
    let asked = |family| {
        let address = format!("both.test:{}", here.port());
        probe(CheckKind::Tcp(Tcp { address, family, ..Tcp::default() }))
    };

    assert_eq!(asked(Family::V4).await.outcome, Outcome::Up { code: 0 });
    target.accept().await.expect("that one");
    let seen = asked(Family::V6).await;
    assert_eq!(seen.outcome, Outcome::Failed { kind: FailureKind::Timeout, code: 0 }, "{seen:?}");

    let both = asked(Family::Both);
    tokio::pin!(both);
    tokio::select! {
        biased;
        seen = &mut both => panic!("IPv4 waited for IPv6: {seen:?}"),
        arrived = target.accept() => drop(arrived.expect("the connection over IPv4")),
    }
    let seen = both.await;
    let [v4, v6] = &seen.detail.hops[..] else { panic!("one hop for each family: {seen:?}") };
    assert_eq!((v4.peer, v6.peer.map(|peer| peer.is_ipv6())), (Some(here), Some(true)));
    let failure = seen.detail.failure.expect("IPv6 fails");
    assert!(failure.kind == FailureKind::Timeout && failure.text.starts_with("over IPv6: "), "{failure:?}");
}
