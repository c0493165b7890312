//! Status, content, and every way an answer can fail to come.

use std::sync::Arc;

use peil_agent::probe::{Body, Phase, run};
use peil_proto::plan::{CheckKind, Http};
use peil_proto::sample::{FailureKind, Outcome};
use peil_proto::units::Micros;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::target::{Target, read_head};
use crate::{PATIENT_MS, SHORT_MS, check, context, failure, get, probe};

const EMPTY_200: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn expecting(url: String, ranges: &[(u16, u16)]) -> CheckKind {
    CheckKind::Http(Http { url, status: ranges.to_vec(), ..Http::default() })
}

fn containing(url: String, text: &str) -> CheckKind {
    CheckKind::Http(Http { url, contains: Some(text.into()), ..Http::default() })
}

#[tokio::test]
async fn an_answer_is_up_with_its_status_and_all_its_phases() {
    let target = Target::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    let seen = probe(get(target.url("/")), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 200 });
    assert_eq!(seen.phases.to_array().map(|phase| phase.is_some()), [false, true, false, true, true]);
    assert_eq!(seen.detail.body, Some(Body { bytes: 5, truncated: false }));
    assert_eq!(seen.detail.hops[0].peer, Some(target.address));
}

#[tokio::test]
async fn the_request_is_plain_and_says_who_asks() {
    let target = Target::echoing().await;
    let ours = concat!("user-agent: peil-agent/", env!("CARGO_PKG_VERSION"), "\r\n");
    let host = format!("host: {}\r\n", target.address);
    for text in ["GET /a?b=c HTTP/1.1\r\n", ours, &host, "connection: close\r\n"] {
        let seen = probe(containing(target.url("/a?b=c"), text), PATIENT_MS).await;
        assert_eq!(seen.outcome, Outcome::Up { code: 200 }, "{text:?}");
    }
    let seen = probe(containing(target.url("?q#fragment"), "GET /?q HTTP/1.1\r\n"), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 200 });
}

#[tokio::test]
async fn every_run_opens_a_connection_of_its_own() {
    let target = Target::answering(EMPTY_200).await;
    let (ctx, def) = (context(), check(get(target.url("/")), PATIENT_MS));
    for _ in 0..3 {
        assert_eq!(run(&def, &ctx).await.outcome, Outcome::Up { code: 200 });
    }
    assert_eq!(target.visits(), 3);
}

#[tokio::test]
async fn the_status_set_decides() {
    for (status, ranges, up) in [
        (200, vec![], true),
        (204, vec![], true),
        (299, vec![], true),
        (404, vec![], false),
        (500, vec![], false),
        (304, vec![], false),
        (401, vec![(200, 299), (401, 401)], true),
        (402, vec![(200, 299), (401, 401)], false),
        (200, vec![(404, 404)], false),
        (301, vec![(300, 399)], true),
    ] {
        let target = Target::answering(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")).await;
        let seen = probe(expecting(target.url("/"), &ranges), PATIENT_MS).await;
        let expected = match up {
            true => Outcome::Up { code: status },
            false => Outcome::Failed { kind: FailureKind::Status, code: status },
        };
        assert_eq!(seen.outcome, expected, "{status} in {ranges:?}");
    }
}

#[tokio::test]
async fn content_is_looked_for_in_the_first_64_kib_and_nowhere_else() {
    let page = |before: usize| {
        let body = format!("{}needle", "x".repeat(before));
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    for (before, found) in [(0, true), (65_530, true), (65_531, false), (70_000, false)] {
        let target = Target::answering(page(before)).await;
        let seen = probe(containing(target.url("/"), "needle"), PATIENT_MS).await;
        let expected = match found {
            true => Outcome::Up { code: 200 },
            false => Outcome::Failed { kind: FailureKind::Content, code: 200 },
        };
        assert_eq!(seen.outcome, expected, "after {before} bytes");
        assert_eq!(seen.detail.body.map(|body| body.bytes), Some(before as u64 + 6));
    }
}

#[tokio::test]
async fn f17_binary_content_is_searched_without_a_panic() {
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n".to_vec();
    answer.extend(b"\xff\xfe\x00\x80needle\xc3\x28");
    let target = Target::answering(answer).await;
    assert_eq!(probe(containing(target.url("/"), "needle"), PATIENT_MS).await.outcome, Outcome::Up { code: 200 });
    assert_eq!(failure(&probe(containing(target.url("/"), "pin"), PATIENT_MS).await).0, FailureKind::Content);
}

#[tokio::test]
async fn f15_silence_after_accepting_times_out_in_first_byte() {
    let target = Target::silent().await;
    let seen = probe(get(target.url("/")), SHORT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Timeout, Some(Phase::FirstByte)));
    assert!(seen.phases.first_byte.is_some_and(|took| took > Micros(SHORT_MS * 1_000 / 2)), "{:?}", seen.phases);
    assert_eq!(seen.phases.transfer, None);
}

#[tokio::test]
async fn f15_a_head_that_drips_in_times_out_in_transfer() {
    let target = Target::dripping("HTTP/1.1 200 OK\r\nX-Slow: ", b'a').await;
    let seen = probe(get(target.url("/")), SHORT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Timeout, Some(Phase::Transfer)));
    assert_eq!(seen.detail.hops[0].status, None);
}

#[tokio::test]
async fn f15_a_body_that_drips_in_times_out_in_transfer_and_the_status_is_known() {
    let target = Target::dripping("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b'a').await;
    let seen = probe(get(target.url("/")), SHORT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Timeout, Some(Phase::Transfer)));
    assert_eq!(seen.outcome, Outcome::Failed { kind: FailureKind::Timeout, code: 200 });
    let body = seen.detail.body.expect("had begun");
    assert!(body.bytes > 0 && body.bytes < 1_000_000 && !body.truncated, "{body:?}");
}

#[tokio::test]
async fn f17_a_body_over_the_limit_is_cut_and_judged_on_what_was_read() {
    let piece = vec![b'x'; 65_536];
    let endless = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\nneedle", piece.clone()),
        ("HTTP/1.1 200 OK\r\n\r\nneedle", piece),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nneedle\r\n", {
            let mut chunk = b"8000\r\n".to_vec();
            chunk.resize(6 + 0x8000, b'x');
            chunk.extend(b"\r\n");
            chunk
        }),
    ];
    for (start, piece) in endless {
        let target = Target::pouring(start, piece).await;
        let seen = probe(containing(target.url("/"), "needle"), PATIENT_MS).await;
        assert_eq!(seen.outcome, Outcome::Up { code: 200 }, "{start:?}");
        let body = seen.detail.body.expect("was read");
        assert!(body.truncated && body.bytes > 10 << 20 && body.bytes < 11 << 20, "{body:?}");
    }
}

#[tokio::test]
async fn f19_a_flood_of_interim_answers_or_an_endless_head_ends_before_the_deadline() {
    for (start, piece) in
        [("", "HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000)), ("HTTP/1.1 200 OK\r\n", "X-A: b\r\n".repeat(1_000))]
    {
        let target = Target::pouring(start, piece).await;
        let seen = probe(get(target.url("/")), PATIENT_MS).await;
        assert_eq!(failure(&seen).0, FailureKind::Protocol, "{seen:?}");
    }
}

#[tokio::test]
async fn f17_a_body_shorter_than_announced_is_a_broken_connection() {
    let target = Target::answering("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort").await;
    let seen = probe(get(target.url("/")), PATIENT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Closed, Some(Phase::Transfer)));
    assert_eq!(seen.detail.body.map(|body| body.bytes), Some(5));
}

#[tokio::test]
async fn f17_more_bytes_than_announced_are_left_alone() {
    let target = Target::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay and more").await;
    let seen = probe(get(target.url("/")), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 200 });
    assert_eq!(seen.detail.body.map(|body| body.bytes), Some(2));
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_told_apart_from_one_that_is_reset() {
    let target = Target::answering("").await;
    assert_eq!(failure(&probe(get(target.url("/")), PATIENT_MS).await), (FailureKind::Closed, Some(Phase::FirstByte)));
    // Closing with the request unread makes the kernel send a reset.
    let target = Target::serving(|mut socket| async move {
        let _ = socket.read_u8().await;
    })
    .await;
    assert_eq!(failure(&probe(get(target.url("/")), PATIENT_MS).await), (FailureKind::Closed, Some(Phase::FirstByte)));
}

#[tokio::test]
async fn f19_what_is_not_http_is_a_protocol_failure() {
    for garbage in [
        &b"\x00\x01\x02\x03garbage\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n\r\n",
        b"220 mail.example.org ESMTP\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let target = Target::answering(garbage).await;
        let seen = probe(get(target.url("/")), PATIENT_MS).await;
        assert_eq!(failure(&seen).0, FailureKind::Protocol, "{}: {seen:?}", String::from_utf8_lossy(garbage));
    }
}

#[tokio::test]
async fn f15_a_probe_that_is_dropped_closes_its_socket() {
    let (arrived, closed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell_arrived, tell_closed) = (arrived.clone(), closed.clone());
    let target = Target::serving(move |mut socket| {
        let (arrived, closed) = (tell_arrived.clone(), tell_closed.clone());
        async move {
            read_head(&mut socket).await;
            arrived.notify_one();
            // Ends with 0 bytes or a reset once the other side is gone.
            let _ = socket.read(&mut [0]).await;
            closed.notify_one();
            let _ = socket.shutdown().await;
        }
    })
    .await;
    let (ctx, def) = (context(), check(get(target.url("/")), PATIENT_MS));
    {
        let mut running = Box::pin(run(&def, &ctx));
        tokio::select! {
            seen = &mut running => panic!("ended by itself: {seen:?}"),
            () = arrived.notified() => {}
        }
    }
    closed.notified().await;
}
