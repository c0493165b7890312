//! HTTP/2: agreed by ALPN, wanted, refused, and broken.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use peil_agent::probe::Phase;
use peil_proto::plan::{CheckKind, Http, HttpVersion, TlsOptions};
use peil_proto::sample::{FailureKind, Outcome};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::pki::{Pki, good};
use crate::target::Target;
use crate::{PATIENT_MS, SHORT_MS, failure, probe};

/// Speaks HTTP/2; the body tells method and path, as `/big` it is 20 MiB.
async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let answer = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
        let text = format!("{} {} of {:?}", request.method(), request.uri().path(), request.uri().authority());
        let body = if request.uri().path() == "/big" { Bytes::from(vec![b'x'; 20 << 20]) } else { Bytes::from(text) };
        Ok::<_, Infallible>(hyper::Response::new(Full::new(body)))
    });
    let _ =
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), answer).await;
}

async fn secure(pki: &Pki) -> Target {
    let acceptor = pki.leaf(good()).acceptor_agreeing_on(&["h2"]);
    Target::serving(move |socket| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(session) = acceptor.accept(socket).await {
                serve(session).await;
            }
        }
    })
    .await
}

fn https(target: &Target, pki: &Pki, version: HttpVersion) -> Http {
    let tls = TlsOptions { ca_file: Some(pki.ca_file()), ..TlsOptions::default() };
    Http { url: format!("https://{}/a", target.address), version, tls, ..Http::default() }
}

#[tokio::test]
async fn http_2_is_spoken_where_the_server_agrees_and_every_phase_is_timed() {
    let pki = Pki::new();
    let target = secure(&pki).await;
    for version in [HttpVersion::Auto, HttpVersion::V2] {
        let check = Http { contains: Some("GET /a of Some(127.0.0.1".into()), ..https(&target, &pki, version) };
        let seen = probe(CheckKind::Http(check), PATIENT_MS).await;
        assert_eq!(seen.outcome, Outcome::Up { code: 200 }, "{seen:?}");
        assert_eq!(seen.phases.to_array().map(|phase| phase.is_some()), [false, true, true, true, true]);
        assert_eq!(seen.detail.facts[0].value, "HTTP/2.0");
    }
    let seen = probe(CheckKind::Http(https(&target, &pki, HttpVersion::V11)), PATIENT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Tls, Some(Phase::Tls)), "nothing was agreed");
}

#[tokio::test]
async fn a_server_that_only_knows_http_1_1_fails_a_check_that_wants_http_2() {
    let pki = Pki::new();
    let acceptor = pki.leaf(good()).acceptor_agreeing_on(&[]);
    let target = Target::answering_over_tls(acceptor, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let seen = probe(CheckKind::Http(https(&target, &pki, HttpVersion::V2)), PATIENT_MS).await;
    assert_eq!(failure(&seen).0, FailureKind::Protocol);
    let seen = probe(CheckKind::Http(https(&target, &pki, HttpVersion::Auto)), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 200 });
}

#[tokio::test]
async fn without_tls_http_2_is_spoken_with_prior_knowledge_and_a_long_body_is_cut() {
    let target = Target::serving(serve).await;
    let check = |path: &str| Http { url: target.url(path), version: HttpVersion::V2, ..Http::default() };
    assert_eq!(probe(CheckKind::Http(check("/x")), PATIENT_MS).await.outcome, Outcome::Up { code: 200 });
    let seen = probe(CheckKind::Http(check("/big")), PATIENT_MS).await;
    assert!(seen.detail.body.is_some_and(|body| body.truncated), "{seen:?}");
}

/// F19: a server that goes away, resets, or speaks something else.
#[tokio::test]
async fn f19_a_broken_http_2_server_is_a_protocol_failure_or_a_closed_connection() {
    let goaway = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\x0b".to_vec();
    let reset = b"\0\0\0\x04\0\0\0\0\0\0\0\x04\x03\0\0\0\0\x01\0\0\0\x02".to_vec();
    let huge = b"\0\0\0\x04\0\0\0\0\0\xff\xff\xff\0\0\0\0\0\x01".to_vec();
    for answer in [goaway, reset, huge, b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), b"\0".to_vec(), Vec::new()] {
        let told = answer.clone();
        let target = Target::serving(move |mut socket| {
            let answer = answer.clone();
            async move {
                let _ = socket.read(&mut [0; 1_024]).await;
                let _ = socket.write_all(&answer).await;
                let _ = socket.shutdown().await;
                let _ = socket.read(&mut [0; 1_024]).await;
            }
        })
        .await;
        let kind = CheckKind::Http(Http { url: target.url("/"), version: HttpVersion::V2, ..Http::default() });
        let seen = probe(kind, PATIENT_MS).await;
        let kind = failure(&seen).0;
        assert!(matches!(kind, FailureKind::Protocol | FailureKind::Closed), "{told:?}: {seen:?}");
    }
    let target = Target::silent().await;
    let kind = CheckKind::Http(Http { url: target.url("/"), version: HttpVersion::V2, ..Http::default() });
    assert_eq!(failure(&probe(kind, SHORT_MS).await), (FailureKind::Timeout, Some(Phase::FirstByte)));
}
