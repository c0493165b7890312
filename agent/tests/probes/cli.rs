//! `peil-agent probe`, as a person or a script runs it.

use std::process::{Command, Output};

use crate::pki::{Pki, expired, good};
use crate::target::{Target, closed_port};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Runs the program beside the servers of the test.
async fn peil(program: &str, args: Vec<String>) -> (i32, String, String) {
    let mut command = Command::new(program);
    command.args(args);
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("runs");
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8(bytes).expect("utf-8");
    (status.code().expect("an exit status"), text(stdout), text(stderr))
}

async fn probe(args: &[&str]) -> (i32, String, String) {
    let args = std::iter::once("probe").chain(args.iter().copied()).map(str::to_owned).collect();
    peil(env!("CARGO_BIN_EXE_peil-agent"), args).await
}

#[tokio::test]
async fn a_trace_shows_phases_address_and_chain_and_ends_with_0() {
    let pki = Pki::new();
    let target = Target::answering_over_tls(pki.leaf_of_intermediate(good(), true).acceptor(), HELLO).await;
    let url = format!("https://{}/", target.address);
    let (status, out, err) = probe(&[&url, "--trace", "--ca", &pki.ca_file()]).await;
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    let address = target.address.to_string();
    for part in ["up, status 200", &address, "connect ", "tls ", "first_byte ", "|#", "TLSv1_3", "http/1.1"] {
        assert!(out.contains(part), "{part:?} is not in\n{out}");
    }
    for part in ["certificate 0: CN=Peil test leaf", "certificate 1: CN=Peil test intermediate", "days left", "5 bytes"]
    {
        assert!(out.contains(part), "{part:?} is not in\n{out}");
    }
}

#[tokio::test]
async fn json_carries_the_same_and_a_failure_ends_with_1() {
    let pki = Pki::new();
    let target = Target::answering_over_tls(pki.leaf(expired()).acceptor(), HELLO).await;
    let address = format!("tls://{}", target.address);
    let (status, out, _) = probe(&[&address, "--json", "--ca", &pki.ca_file()]).await;
    assert_eq!(status, 1);
    let value: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&value["state"], &value["outcome"]), (&"down".into(), &"cert_expired".into()));
    assert_eq!(value["failure"]["phase"], "tls");
    assert_eq!(value["phases_us"]["resolve"], serde_json::Value::Null);
    assert!(value["phases_us"]["tls"].is_u64());
    let leaf = &value["hops"][0]["tls"]["certificates"][0];
    assert_eq!(leaf["not_after"], "2021-01-01T00:00:00Z");
    assert!(leaf["days_left"].as_i64().is_some_and(|days| days < 0), "{leaf}");
}

#[tokio::test]
async fn one_line_tells_the_outcome_in_words() {
    let closed = closed_port().await;
    let (status, out, _) = probe(&[&closed.to_string()]).await;
    assert_eq!(status, 1);
    assert!(out.contains("down, refused in phase connect") && out.lines().count() == 1, "{out}");
    let dir = tempfile::tempdir().expect("a directory");
    let settings = dir.path().join("agent.toml");
    std::fs::write(&settings, "collector = 'https://localhost:7443'\n[policy]\nnetworks = ['127.0.0.77']\n")
        .expect("writes");
    let (status, out, _) = probe(&[&format!("tcp://{closed}"), "--config", &settings.display().to_string()]).await;
    assert_eq!(status, 1);
    assert!(out.contains("unknown, denied") && out.contains("says nothing about the target"), "{out}");
}

#[tokio::test]
async fn a_question_that_makes_no_sense_ends_with_2_and_one_clear_line() {
    for (args, part) in [
        (vec!["nowhere"], "is not written like"),
        (vec!["https://a.test/", "--kind", "tcp"], "is not written like"),
        (vec!["https://user:secret@a.test/"], "must not carry a user name or password"),
        (vec!["127.0.0.1:80", "--ca", "/nonexistent"], "--ca means nothing"),
        (vec!["https://127.0.0.1/", "--ca", "/nonexistent"], "cannot read CA file /nonexistent"),
        (vec!["https://127.0.0.1/", "--kind", "gopher"], "gopher"),
        (vec!["127.0.0.1:80", "--timeout", "0"], "1..=3600"),
        (vec![], "TARGET"),
    ] {
        let (status, out, err) = probe(&args).await;
        assert_eq!((status, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.contains(part), "{args:?}: {err}");
        assert!(!err.contains("secret"), "{err}");
    }
}

/// F21: the host has no descriptor left for the probe's socket.
#[tokio::test]
async fn a_host_out_of_descriptors_does_not_blame_the_target() {
    let target = Target::answering(HELLO).await;
    let run_with = async |limit: u32| {
        let script = format!("ulimit -n {limit}; exec \"$0\" probe \"$1\" --json");
        let args = [&script, env!("CARGO_BIN_EXE_peil-agent"), &target.url("/")].map(|text| (*text).to_owned());
        peil("sh", ["-c".to_owned()].into_iter().chain(args).collect()).await
    };
    // How many descriptors the program and its runtime hold differs between hosts; going up from too few,
    // the last run that fails is the one in which only the socket was refused.
    let mut failed = Vec::new();
    for limit in 3..40 {
        let (status, out, err) = run_with(limit).await;
        match status {
            0 => break,
            1 => failed.push(serde_json::from_str::<serde_json::Value>(&out).expect("JSON")),
            _ => assert!(!err.is_empty(), "limit {limit}"),
        }
    }
    let last = failed.last().expect("one run had a runtime and no socket");
    assert_eq!((&last["state"], &last["outcome"]), (&"unknown".into(), &"local_resource".into()), "{last}");
}

#[tokio::test]
async fn a_job_reports_and_the_check_sees_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = dir.path().join("agent.toml");
    let text = format!("collector = 'https://localhost:7443'\nstate_dir = '{}'\n", dir.path().display());
    std::fs::write(&settings, text).expect("writes");
    let settings = settings.display().to_string();
    let report = ["report", "nightly", "ok", "--text", "3 files", "--config", &settings].map(str::to_owned);
    let program = env!("CARGO_BIN_EXE_peil-agent");
    assert_eq!(peil(program, report.to_vec()).await.0, 0);
    let (status, out, err) = probe(&["heartbeat", "nightly", "--trace", "--config", &settings]).await;
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("3 files"), "{out}");
    let (status, out, _) = probe(&["heartbeat", "never", "--json", "--config", &settings]).await;
    let value: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((status, &value["outcome"]), (1, &"timeout".into()));
    let wrong = ["report", "../x", "ok", "--config", &settings].map(str::to_owned);
    assert_eq!(peil(program, wrong.to_vec()).await.0, 1);
}

#[tokio::test]
async fn options_of_a_kind_are_given_as_in_the_settings() {
    let target = Target::echoing().await;
    let url = target.url("/");
    let (status, out, err) =
        probe(&["http", &url, "-o", "method = \"OPTIONS\"", "-o", "contains = \"OPTIONS /\""]).await;
    assert_eq!(status, 0, "{out}{err}");
    let (status, out, _) = probe(&[&url, "--option", "contains = \"nothing like it\""]).await;
    assert!(status == 1 && out.contains("content"), "{out}");
    for (option, part) in
        [("metod = \"HEAD\"", "did you mean"), ("body_matches = \"(\"", "unclosed"), ("= 3", "cannot be empty")]
    {
        let (status, _, err) = probe(&["http", &url, "-o", option]).await;
        assert!(status == 2 && err.contains(part), "{option}: {err}");
    }
}
