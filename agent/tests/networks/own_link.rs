//! A host whose own network goes down, for real.

use std::net::SocketAddr;

use peil_agent::vantage::Vantage;
use peil_proto::sample::{FailureKind, Outcome, State};

use crate::{assert_inside, in_a_network_of_its_own, ip};

const TIMEOUT: Outcome = Outcome::Failed { kind: FailureKind::Timeout, code: 0 };

#[test]
fn f35_a_link_that_goes_down_makes_failures_unknown_and_one_that_comes_back_makes_them_down_again() {
    in_a_network_of_its_own("own_link::inside");
}

#[tokio::test]
#[ignore = "run by the test above, in its namespace"]
async fn inside() {
    assert_inside();
    // An address of this host on a port nobody listens on: reachable exactly as long as the link is up.
    let reference: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let judged = async || Vantage::new(vec![reference]).judge(TIMEOUT).await;
    ip("link set lo up");
    assert_eq!(judged().await, TIMEOUT, "the link is up, so the target did not answer");
    ip("link set lo down");
    let down = judged().await;
    assert_eq!((down, down.state()), (Outcome::Failed { kind: FailureKind::VantageDown, code: 0 }, State::Unknown));
    ip("link set lo up");
    assert_eq!(judged().await, TIMEOUT);
}
