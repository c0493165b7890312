//! A host whose own network goes down, for real: in a network namespace that the test makes (`unshare`, no root needed where
//! user namespaces are allowed) and takes down with `ip`. What is not there makes the test fail, not pass.

use std::net::SocketAddr;
use std::process::Command;

use peil_agent::vantage::Vantage;
use peil_proto::sample::{FailureKind, Outcome, State};

const TIMEOUT: Outcome = Outcome::Failed { kind: FailureKind::Timeout, code: 0 };
/// Set for the copy of this program that runs in the namespace.
const INSIDE: &str = "PEIL_TEST_IN_NAMESPACE";

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().expect("ip (Debian: iproute2) is there");
    assert!(status.success(), "ip {words}");
}

#[test]
fn f35_a_link_that_goes_down_makes_failures_unknown_and_one_that_comes_back_makes_them_down_again() {
    let us = std::env::current_exe().expect("this program");
    let name = "inside_a_namespace_of_its_own";
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let inside = unshare
        .arg("--net")
        .arg(us)
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare (util-linux) is there");
    let said = String::from_utf8_lossy(&inside.stdout).into_owned() + &String::from_utf8_lossy(&inside.stderr);
    assert!(inside.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "run by the test above, in its namespace"]
async fn inside_a_namespace_of_its_own() {
    assert!(std::env::var_os(INSIDE).is_some(), "this takes the network down: only for the test above");
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
