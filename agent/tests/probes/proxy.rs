//! Through a proxy: whose failure is whose, and what the proxy is told.

use peil_agent::probe::run;
use peil_proto::plan::{CheckKind, Http, SecretRef, TlsOptions};
use peil_proto::sample::{FailureKind, Outcome, State};
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;

use crate::pki::{Pki, good};
use crate::target::{Target, closed_port, read_head};
use crate::{PATIENT_MS, SHORT_MS, check, context_of_other_loopback, context_with_secrets, failure, probe};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// A proxy that digs tunnels and answers plain requests with what it was asked.
async fn proxy() -> Target {
    Target::serving(|mut socket| async move {
        let head = read_head(&mut socket).await;
        let Some(to) = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
            let _ = socket.write_all(answer.as_bytes()).await;
            return;
        };
        match TcpStream::connect(to).await {
            Ok(mut target) => {
                let _ = socket.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await;
                let _ = copy_bidirectional(&mut socket, &mut target).await;
            }
            Err(_) => drop(socket.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await),
        }
    })
    .await
}

fn through(proxy: &Target, url: String) -> Http {
    Http { url, proxy: Some(proxy.url("")), ..Http::default() }
}

#[tokio::test]
async fn https_goes_through_a_tunnel_and_is_verified_end_to_end() {
    let (pki, proxy) = (Pki::new(), proxy().await);
    let target = Target::answering_over_tls(pki.leaf(good()).acceptor(), HELLO).await;
    let tls = TlsOptions { ca_file: Some(pki.ca_file()), ..TlsOptions::default() };
    let check = Http { tls, ..through(&proxy, format!("https://{}/", target.address)) };
    let seen = probe(CheckKind::Http(check), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 200 });
    assert_eq!(seen.detail.hops[0].peer, Some(proxy.address), "the proxy was dialled, nothing else");
    assert!(seen.detail.hops[0].tls.is_some());
}

#[tokio::test]
async fn plain_http_asks_the_proxy_for_the_whole_url_and_only_the_proxy_hears_its_password() {
    let (proxy, dir) = (proxy().await, tempfile::tempdir().expect("a directory"));
    std::fs::write(dir.path().join("p"), "pw").expect("writes");
    let secret = SecretRef(dir.path().join("p").display().to_string());
    for text in
        ["GET http://target.test/x HTTP/1.1", "host: target.test\r\n", "proxy-authorization: Basic dTpwdw==\r\n"]
    {
        let wanted = Http {
            contains: Some(text.into()),
            proxy_user: Some("u".into()),
            proxy_password_file: Some(secret.clone()),
            ..through(&proxy, "http://target.test/x".into())
        };
        let seen = run(&check(CheckKind::Http(wanted), PATIENT_MS), &context_with_secrets(dir.path())).await;
        assert_eq!(seen.outcome, Outcome::Up { code: 200 }, "{text}: {seen:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_or_refuses_us_is_our_way_out_and_a_dead_target_is_the_target() {
    let https = "https://127.0.0.1:1/".to_owned();
    let gone = Http { proxy: Some(format!("http://{}", closed_port().await)), url: https.clone(), ..Http::default() };
    let seen = probe(CheckKind::Http(gone), PATIENT_MS).await;
    assert_eq!((failure(&seen).0, seen.outcome.state()), (FailureKind::VantageDown, State::Unknown));
    for (answer, expected) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", FailureKind::Permission),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", FailureKind::Permission),
        ("HTTP/1.1 504 Gateway Timeout\r\n\r\n", FailureKind::Unreachable),
        ("SSH-2.0-x\r\n\r\n", FailureKind::VantageDown),
        ("HTTP/1.1 2", FailureKind::VantageDown),
    ] {
        let proxy = Target::answering(answer).await;
        let seen = probe(CheckKind::Http(through(&proxy, https.clone())), PATIENT_MS).await;
        assert_eq!(failure(&seen).0, expected, "{answer:?}: {seen:?}");
    }
    let endless = Target::pouring("HTTP/1.1 200 OK\r\n", b"X: y\r\n".to_vec()).await;
    let seen = probe(CheckKind::Http(through(&endless, https.clone())), PATIENT_MS).await;
    assert_eq!(failure(&seen).0, FailureKind::VantageDown, "an answer without end");
    let silent = Target::silent().await;
    let seen = probe(CheckKind::Http(through(&silent, https.clone())), SHORT_MS).await;
    assert_eq!(failure(&seen).0, FailureKind::VantageDown);
    let closed = closed_port().await;
    let seen = probe(CheckKind::Http(through(&proxy().await, format!("https://{closed}/"))), PATIENT_MS).await;
    assert_eq!((failure(&seen).0, seen.outcome.state()), (FailureKind::Unreachable, State::Down));
}

#[tokio::test]
async fn a_proxy_is_no_way_around_the_policy() {
    let proxy = proxy().await;
    let url = "http://127.0.0.77/".to_owned();
    let denied = run(&check(CheckKind::Http(through(&proxy, url)), PATIENT_MS), &context_of_other_loopback()).await;
    assert_eq!(failure(&denied).0, FailureKind::Denied, "the proxy itself is not in the allowed network");
    let literal = Target::on("127.0.0.77:0", crate::target::echo).await;
    let seen = run(
        &check(CheckKind::Http(through(&literal, "http://127.0.0.1/".into())), PATIENT_MS),
        &context_of_other_loopback(),
    )
    .await;
    assert_eq!(failure(&seen).0, FailureKind::Denied, "the address in the URL is not");
    assert_eq!((proxy.visits(), literal.visits()), (0, 0));
}
