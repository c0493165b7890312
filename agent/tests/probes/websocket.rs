//! WebSockets: opened, refused, and spoken wrongly.

use data_encoding::BASE64;
use peil_agent::probe::Phase;
use peil_proto::plan::{CheckKind, Pattern, TlsOptions, WebSocket};
use peil_proto::sample::{FailureKind, Outcome};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::pki::{Pki, good};
use crate::target::{Target, read_head};
use crate::{PATIENT_MS, SHORT_MS, failure, probe};

/// Opens a WebSocket as a server must; `None` when nobody asks for one.
async fn open(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), more: &str) -> Option<()> {
    let head = read_head(stream).await;
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))?;
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    let accept = BASE64.encode(hash.as_ref());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    );
    stream.write_all(answer.as_bytes()).await.ok()
}

/// A server that opens and then says these bytes, whatever it hears.
async fn saying(more: &'static str, bytes: &'static [u8]) -> Target {
    Target::serving(move |mut socket| async move {
        if open(&mut socket, more).await.is_some() {
            let _ = socket.write_all(bytes).await;
            let _ = socket.read(&mut [0; 1_024]).await;
        }
    })
    .await
}

fn socket(target: &Target, expect: Option<&str>) -> WebSocket {
    WebSocket { url: format!("ws://{}/s", target.address), expect: expect.map(Pattern::new), ..WebSocket::default() }
}

#[tokio::test]
async fn opening_is_enough_and_an_expected_message_is_put_together_from_its_pieces() {
    let target = saying("", b"\x89\x01p\x01\x03hel\x8a\x00\x80\x02lo").await;
    let seen = probe(CheckKind::WebSocket(socket(&target, None)), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    assert_eq!(seen.detail.hops[0].status, Some(101));
    let seen = probe(CheckKind::WebSocket(socket(&target, Some("^hello$"))), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    let seen = probe(CheckKind::WebSocket(socket(&target, Some("bye"))), PATIENT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Content, None));
}

#[tokio::test]
async fn a_message_is_sent_masked_and_over_tls_too() {
    let pki = Pki::new();
    let acceptor = pki.leaf(good()).acceptor();
    let target = Target::serving(move |tcp| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut session) = acceptor.accept(tcp).await else { return };
            if open(&mut session, "Sec-WebSocket-Protocol: chat\r\n").await.is_none() {
                return;
            }
            let mut frame = [0; 10];
            if session.read_exact(&mut frame).await.is_err() {
                return;
            }
            let said: Vec<u8> = (0..4).map(|at| frame[6 + at] ^ frame[2 + at]).collect();
            let _ = session.write_all(&[&[0x81, 4], &said[..]].concat()).await;
            let _ = session.read(&mut [0; 64]).await;
        }
    })
    .await;
    let check = WebSocket {
        url: format!("wss://{}/", target.address),
        send: Some("ping".into()),
        subprotocol: Some("chat".into()),
        tls: TlsOptions { ca_file: Some(pki.ca_file()), ..TlsOptions::default() },
        ..socket(&target, Some("^ping$"))
    };
    let seen = probe(CheckKind::WebSocket(check.clone()), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    let other = WebSocket { subprotocol: Some("other".into()), ..check };
    assert_eq!(failure(&probe(CheckKind::WebSocket(other), PATIENT_MS).await).0, FailureKind::Protocol);
}

#[tokio::test]
async fn a_server_that_does_not_open_fails_by_its_own_kind() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", FailureKind::Status),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", FailureKind::Status),
        ("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: bm8=\r\n\r\n", FailureKind::Protocol),
        ("SSH-2.0-x\r\n\r\n", FailureKind::Protocol),
        ("HTTP/1.1 101", FailureKind::Closed),
        ("", FailureKind::Closed),
    ] {
        let target = Target::answering(answer).await;
        let seen = probe(CheckKind::WebSocket(socket(&target, None)), PATIENT_MS).await;
        assert_eq!(failure(&seen).0, expected, "{answer:?}: {seen:?}");
    }
    let endless = Target::pouring("HTTP/1.1 101 X\r\nX: ", b"x".repeat(1_000)).await;
    let seen = probe(CheckKind::WebSocket(socket(&endless, None)), PATIENT_MS).await;
    assert_eq!(failure(&seen).0, FailureKind::Protocol);
    let silent = Target::silent().await;
    let seen = probe(CheckKind::WebSocket(socket(&silent, None)), SHORT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Timeout, Some(Phase::FirstByte)));
}

#[tokio::test]
async fn frames_against_the_protocol_floods_and_silence_end_the_check() {
    let cases: [(&'static [u8], FailureKind); 6] = [
        (b"\xc1\x01x", FailureKind::Protocol),
        (b"\x81\x81aaaax", FailureKind::Protocol),
        (b"\x81\x7f\x00\x00\x00\x00\xff\xff\xff\xff", FailureKind::Protocol),
        (b"\x88\x02\x03\xe8", FailureKind::Closed),
        (b"\x83\x00", FailureKind::Protocol),
        (b"\x8a\x00", FailureKind::Timeout),
    ];
    for (bytes, expected) in cases {
        let target = saying("", bytes).await;
        let patience = if expected == FailureKind::Timeout { SHORT_MS } else { PATIENT_MS };
        let seen = probe(CheckKind::WebSocket(socket(&target, Some("x"))), patience).await;
        assert_eq!(failure(&seen).0, expected, "{bytes:?}: {seen:?}");
    }
    let flood = Target::serving(|mut socket| async move {
        if open(&mut socket, "").await.is_some() {
            while socket.write_all(b"\x8a\x00\x01\x01x").await.is_ok() {}
        }
    })
    .await;
    let seen = probe(CheckKind::WebSocket(socket(&flood, Some("never"))), PATIENT_MS).await;
    assert_eq!(failure(&seen).0, FailureKind::Protocol);
}
