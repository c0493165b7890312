//! What no loopback of a shared machine can play: resolvers that hang, families that lead nowhere, pings answered by
//! somebody else, a link that goes down. Each in a network namespace that the test makes, with files of its own in the
//! place of those of the host.
//!
//! A test is two functions: one starts this program again inside a namespace (`unshare`; no root needed where user
//! namespaces are allowed), the other is what runs there. What is not there makes the test fail, not pass.

mod families;
mod names;
mod own_link;
mod pings;

use std::path::Path;
use std::process::Command;

use peil_agent::probe::{AddressPolicy, Observation, ProbeContext, run};
use peil_proto::ids::CheckNo;
use peil_proto::plan::{CheckDef, CheckKind};
use peil_proto::time::WallClock;

/// Set for the copy of this program that runs in the namespace.
const INSIDE: &str = "PEIL_TEST_IN_NAMESPACE";
/// Long enough never to matter on a busy machine.
const PATIENT_MS: u32 = 60_000;

/// Runs the ignored test `name` in namespaces for network and mounts.
fn in_a_network_of_its_own(name: &str) {
    let us = std::env::current_exe().expect("this program");
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let inside = unshare
        .args(["--net", "--mount"])
        .arg(us)
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare (util-linux) is there");
    let said = String::from_utf8_lossy(&inside.stdout).into_owned() + &String::from_utf8_lossy(&inside.stderr);
    assert!(inside.status.success() && said.contains("1 passed"), "{said}");
}

fn assert_inside() {
    assert!(std::env::var_os(INSIDE).is_some(), "this changes the network: only for the test that makes one for it");
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().expect("ip (Debian: iproute2) is there");
    assert!(status.success(), "ip {words}");
}

/// Puts a file with `text` in the place of `path`, for this namespace.
fn replace(dir: &Path, path: &str, text: &str) {
    let file = dir.join(path.trim_start_matches('/').replace('/', "-"));
    std::fs::write(&file, text).expect("written");
    let status = Command::new("mount").arg("--bind").arg(&file).arg(path).status().expect("mount is there");
    assert!(status.success(), "mount --bind {} {path}", file.display());
}

async fn probe(kind: CheckKind) -> Observation {
    let def = CheckDef { no: CheckNo(1), name: "probe".into(), interval_ms: 86_400_000, timeout_ms: PATIENT_MS, kind };
    run(&def, &ProbeContext::new(WallClock::System, AddressPolicy::default())).await
}
