//! Health of gRPC services, asked of servers that speak it, badly, or not at all.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use peil_agent::probe::{Phase, run};
use peil_proto::plan::{CheckKind, Grpc, GrpcCall, SecretRef, TlsOptions};
use peil_proto::sample::{FailureKind, Outcome};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::pki::{Pki, good};
use crate::target::Target;
use crate::{PATIENT_MS, SHORT_MS, check, context_with_secrets, failure, probe};

/// What a service answers: a message in its frame, and the status in the trailers. `None`: the stream stays open.
#[derive(Clone, Copy)]
struct Health {
    message: &'static [u8],
    status: Option<&'static str>,
}

const SERVING: Health = Health { message: b"\0\0\0\0\x02\x08\x01", status: Some("0") };

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, health: Health) {
    let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| async move {
        let path = request.uri().path().to_owned();
        let token = request.headers().get("authorization").cloned();
        let asked = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let locked = asked.ends_with(b"locked") && token.as_ref().is_none_or(|token| token != "Bearer t0k3n");
        let status = match path.as_str() {
            "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/Watch" if locked => Some("16"),
            "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/Watch" if asked.ends_with(b"nobody") => Some("5"),
            "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/Watch" => health.status,
            _ => Some("12"),
        };
        let mut frames = vec![Ok::<_, Infallible>(Frame::data(Bytes::from_static(health.message)))];
        if let Some(status) = status {
            let trailers = [("grpc-status".parse().expect("a name"), status.parse().expect("a value"))];
            frames.push(Ok(Frame::trailers(trailers.into_iter().collect())));
        }
        if matches!(status, Some(status) if status != "0") {
            drop(frames.remove(0));
        }
        let body = StreamBody::new(tokio_stream::StreamExt::chain(
            tokio_stream::iter(frames),
            tokio_stream::StreamExt::take(tokio_stream::pending(), usize::from(status.is_none())),
        ));
        Ok::<_, Infallible>(
            hyper::Response::builder().header("content-type", "application/grpc").body(body).expect("one"),
        )
    });
    let _ =
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), answer).await;
}

fn plain(target: &Target, service: &str) -> Grpc {
    Grpc { address: target.address.to_string(), service: service.into(), plaintext: true, ..Grpc::default() }
}

#[tokio::test]
async fn a_service_that_serves_is_up_by_check_and_by_watch() {
    let target = Target::serving(|socket| serve(socket, SERVING)).await;
    let endless = Target::serving(|socket| serve(socket, Health { status: None, ..SERVING })).await;
    for (target, call) in [(&target, GrpcCall::Check), (&target, GrpcCall::Watch), (&endless, GrpcCall::Watch)] {
        let seen = probe(CheckKind::Grpc(Grpc { call, ..plain(target, "shop") }), PATIENT_MS).await;
        assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    }
}

#[tokio::test]
async fn over_tls_the_certificate_counts_and_a_token_travels() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().expect("a directory"));
    std::fs::write(dir.path().join("token"), "t0k3n").expect("writes");
    let acceptor = pki.leaf(good()).acceptor_agreeing_on(&["h2"]);
    let target = Target::serving(move |socket| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(session) = acceptor.accept(socket).await {
                serve(session, SERVING).await;
            }
        }
    })
    .await;
    let tls = TlsOptions { ca_file: Some(pki.ca_file()), ..TlsOptions::default() };
    let locked = Grpc { plaintext: false, tls, ..plain(&target, "locked") };
    let seen = probe(CheckKind::Grpc(locked.clone()), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Failed { kind: FailureKind::Status, code: 16 });
    let secret = SecretRef(dir.path().join("token").display().to_string());
    let opened = Grpc { bearer_file: Some(secret), ..locked.clone() };
    let seen = run(&check(CheckKind::Grpc(opened), PATIENT_MS), &context_with_secrets(dir.path())).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    let stranger = Grpc { tls: TlsOptions::default(), ..locked };
    assert_eq!(failure(&probe(CheckKind::Grpc(stranger), PATIENT_MS).await).0, FailureKind::CertUntrusted);
}

#[tokio::test]
async fn every_other_health_is_down_with_its_word() {
    for (message, word) in [
        (&b"\0\0\0\0\x02\x08\x02"[..], "NOT_SERVING"),
        (b"\0\0\0\0\0", "UNKNOWN"),
        (b"\0\0\0\0\x02\x08\x03", "SERVICE_UNKNOWN"),
        (b"\0\0\0\0\x02\x08\x63", "a new word"),
    ] {
        let target = Target::serving(move |socket| serve(socket, Health { message, status: Some("0") })).await;
        let seen = probe(CheckKind::Grpc(plain(&target, "")), PATIENT_MS).await;
        assert_eq!(failure(&seen), (FailureKind::Status, None));
        assert!(seen.detail.failure.is_some_and(|failure| failure.text.contains(word)), "{word}");
    }
    let target = Target::serving(|socket| serve(socket, SERVING)).await;
    let seen = probe(CheckKind::Grpc(plain(&target, "nobody")), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Failed { kind: FailureKind::Status, code: 5 });
}

#[tokio::test]
async fn what_is_not_about_health_is_a_protocol_failure_and_a_hanging_call_a_timeout() {
    for message in [&b"\x01\0\0\0\0"[..], b"\0\xff\xff\xff\xff", b"\0\0\0\0\x01\xff", b"\0\0\0\0\x05\x08", b""] {
        let target = Target::serving(move |socket| serve(socket, Health { message, status: Some("0") })).await;
        let seen = probe(CheckKind::Grpc(plain(&target, "")), PATIENT_MS).await;
        assert_eq!(failure(&seen).0, FailureKind::Protocol, "{message:?}: {seen:?}");
    }
    let http = Target::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let kind = failure(&probe(CheckKind::Grpc(plain(&http, "")), PATIENT_MS).await).0;
    assert!(matches!(kind, FailureKind::Protocol | FailureKind::Closed), "{kind}");
    let hangs = Target::serving(|socket| serve(socket, Health { message: b"", status: None })).await;
    let seen = probe(CheckKind::Grpc(plain(&hangs, "")), SHORT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Timeout, Some(Phase::Transfer)));
}
