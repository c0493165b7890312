//! Following redirects: how far, where to, and what is never sent along.

use peil_agent::probe::{Phase, run};
use peil_proto::plan::{CheckKind, Http, TlsOptions};
use peil_proto::sample::{FailureKind, Outcome, State};
use tokio::io::AsyncWriteExt as _;

use crate::pki::{Pki, good};
use crate::target::{Target, read_head};
use crate::{PATIENT_MS, SHORT_MS, check, context_of_other_loopback, failure, get, probe};

/// `/N` leads to `/N-1`, and `/0` is the end.
async fn countdown() -> Target {
    Target::serving(|mut socket| async move {
        let head = read_head(&mut socket).await;
        let left = head.strip_prefix("GET /").and_then(|rest| rest.split(' ').next()).and_then(|n| n.parse().ok());
        let answer = match left {
            Some(0) | None => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Some(n) => format!("HTTP/1.1 302 Found\r\nLocation: /{}\r\nContent-Length: 0\r\n\r\n", n - 1_u32),
        };
        let _ = socket.write_all(answer.as_bytes()).await;
    })
    .await
}

fn redirect_to(location: &str) -> String {
    format!("HTTP/1.1 301 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}

#[tokio::test]
async fn ten_redirects_are_followed_and_their_phases_add_up() {
    let target = countdown().await;
    let seen = probe(get(target.url("/10")), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 200 });
    let hops = &seen.detail.hops;
    assert_eq!((hops.len(), target.visits()), (11, 11), "each on a connection of its own");
    assert_eq!(hops[0].status, Some(302));
    assert_eq!(hops[10].target, target.url("/0"));
    let connects: u32 = hops.iter().filter_map(|hop| hop.phases.connect).map(|took| took.0).sum();
    assert_eq!(seen.phases.connect.map(|took| took.0), Some(connects));
}

#[tokio::test]
async fn f18_the_eleventh_redirect_is_refused() {
    let target = countdown().await;
    let seen = probe(get(target.url("/11")), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Failed { kind: FailureKind::Redirect, code: 302 });
    assert_eq!(target.visits(), 11, "the request after it was not sent");
}

#[tokio::test]
async fn f18_a_loop_of_redirects_ends() {
    let target = Target::answering(redirect_to("/again")).await;
    let seen = probe(get(target.url("/again")), PATIENT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Redirect, None));
    assert_eq!(target.visits(), 11);
}

#[tokio::test]
async fn one_deadline_holds_over_all_hops() {
    let end = Target::silent().await;
    let target = Target::answering(redirect_to(&end.url("/"))).await;
    let seen = probe(get(target.url("/")), SHORT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Timeout, Some(Phase::FirstByte)));
    assert_eq!(seen.detail.hops.len(), 2);
    assert_eq!(seen.outcome, Outcome::Failed { kind: FailureKind::Timeout, code: 0 }, "no status of another hop");
}

#[tokio::test]
async fn f18_a_redirect_to_a_denied_address_is_not_dialled() {
    let denied = Target::on("127.0.0.78:0", crate::target::echo).await;
    let port = denied.address.port();
    for to in [
        format!("http://127.0.0.78:{port}/"),
        format!("http://[::ffff:7f00:4e]:{port}/"),
        format!("//0x7f00004e:{port}/"),
    ] {
        let answer = redirect_to(&to);
        let target = Target::on("127.0.0.77:0", move |mut socket| {
            let answer = answer.clone();
            async move { crate::target::reply(&mut socket, answer.as_bytes()).await }
        })
        .await;
        let seen = run(&check(get(target.url("/")), PATIENT_MS), &context_of_other_loopback()).await;
        assert_eq!(failure(&seen).0, FailureKind::Denied, "{to}");
        assert_eq!(seen.outcome.state(), State::Unknown);
        assert_eq!(seen.detail.hops[1].phases.connect, None);
    }
    assert_eq!(denied.visits(), 0);
}

#[tokio::test]
async fn f18_credentials_in_a_redirect_are_not_sent() {
    let end = Target::echoing().await;
    let target = Target::answering(redirect_to(&format!("http://user:secret@{}/x", end.address))).await;
    for text in ["uthorization", "secret"] {
        let url = target.url("/");
        let kind = CheckKind::Http(Http { url, contains: Some(text.into()), ..Http::default() });
        let seen = probe(kind, PATIENT_MS).await;
        assert_eq!(failure(&seen).0, FailureKind::Content, "{text} was sent: {seen:?}");
        assert_eq!(seen.detail.hops[1].target, end.url("/x"));
    }
}

#[tokio::test]
async fn f18_a_redirect_from_https_to_http_is_refused_and_the_other_way_is_followed() {
    let pki = Pki::new();
    let plain = Target::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let secure = Target::answering_over_tls(pki.leaf(good()).acceptor(), redirect_to(&plain.url("/"))).await;
    let first = Target::answering(redirect_to(&format!("https://{}/", secure.address))).await;
    let kind = CheckKind::Http(Http {
        url: first.url("/"),
        tls: TlsOptions { ca_file: Some(pki.ca_file()), ..TlsOptions::default() },
        ..Http::default()
    });
    let seen = probe(kind, PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Failed { kind: FailureKind::Redirect, code: 301 });
    assert_eq!((seen.detail.hops.len(), plain.visits()), (2, 0));
    assert!(seen.detail.hops[1].tls.is_some());
}

#[tokio::test]
async fn a_redirect_without_a_place_or_to_another_protocol_is_not_followed() {
    let target = Target::answering("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(failure(&probe(get(target.url("/")), PATIENT_MS).await).0, FailureKind::Status);
    for to in ["ftp://127.0.0.1/", "file:///etc/passwd", "http://", "http://127.0.0.1:99999/"] {
        let target = Target::answering(redirect_to(to)).await;
        let seen = probe(get(target.url("/")), PATIENT_MS).await;
        assert_eq!(seen.outcome, Outcome::Failed { kind: FailureKind::Redirect, code: 301 }, "{to}");
    }
}
