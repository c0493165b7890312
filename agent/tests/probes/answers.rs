//! What an `http` check wants of an answer: headers, patterns, JSON, and bodies that are compressed.

use std::io::Write as _;

use peil_proto::plan::{CheckKind, Compression, Http, JsonWanted, Pattern};
use peil_proto::sample::{FailureKind, Outcome};

use crate::target::Target;
use crate::{PATIENT_MS, failure, probe};

fn answer(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Asserts what `check` finds at a target that answers so.
async fn finds(answer: Vec<u8>, check: Http, expected: Option<FailureKind>) {
    let target = Target::answering(answer).await;
    let seen = probe(CheckKind::Http(Http { url: target.url("/"), ..check.clone() }), PATIENT_MS).await;
    match expected {
        None => assert_eq!(seen.outcome, Outcome::Up { code: 200 }, "{check:?}: {seen:?}"),
        Some(kind) => assert_eq!(failure(&seen).0, kind, "{check:?}: {seen:?}"),
    }
}

const CONTENT: Option<FailureKind> = Some(FailureKind::Content);

#[tokio::test]
async fn patterns_over_the_body_decide_both_ways() {
    let page = || answer("", "state: ok\nversion: 42\n");
    let matching = |pattern: &str| Http { body_matches: Some(Pattern::new(pattern)), ..Http::default() };
    let lacking = |pattern: &str| Http { body_lacks: Some(Pattern::new(pattern)), ..Http::default() };
    finds(page(), matching("(?m)^version: [0-9]+$"), None).await;
    finds(page(), matching("^version"), CONTENT).await;
    finds(page(), lacking("(?i)error"), None).await;
    finds(page(), lacking("ok"), CONTENT).await;
    finds(answer("", b"\xff\x00\xfe"), matching(r"(?-u)\xff\x00"), None).await;
}

#[tokio::test]
async fn every_value_a_json_path_finds_must_fit_and_it_must_find_one() {
    let page = || answer("", r#"{"status":"ok","n":3,"up":true,"nodes":[{"s":"green"},{"s":"red"}]}"#);
    let wants = |path: &str, equals: Option<&str>, matches: Option<&str>| {
        let wanted =
            JsonWanted { path: path.into(), equals: equals.map(str::to_owned), matches: matches.map(Pattern::new) };
        Http { json: vec![wanted], ..Http::default() }
    };
    for (check, expected) in [
        (wants("$.status", Some("ok"), None), None),
        (wants("$.n", Some("3"), None), None),
        (wants("$.up", Some("true"), None), None),
        (wants("$.status", None, None), None),
        (wants("$.nodes[*].s", None, Some("^(green|red)$")), None),
        (wants("$.nodes[?@.s == 'red']", None, None), None),
        (wants("$.nodes[*].s", Some("green"), None), CONTENT),
        (wants("$.missing", None, None), CONTENT),
        (wants("$.status", Some("bad"), None), CONTENT),
    ] {
        finds(page(), check, expected).await;
    }
    finds(answer("", "<html>"), wants("$.x", None, None), CONTENT).await;
    finds(answer("", "[".repeat(100_000)), wants("$.x", None, None), CONTENT).await;
    let long = format!("[\"{}\"]", "x".repeat(1 << 20));
    finds(answer("", long), wants("$[0]", None, None), CONTENT).await;
}

#[tokio::test]
async fn headers_must_be_there_and_match() {
    let page = || answer("Content-Type: text/html\r\nVia: a\r\nVia: b\r\n", "");
    let header = |name: &str, pattern: &str| {
        let header_matches = [(name.to_owned(), Pattern::new(pattern))].into();
        Http { header_matches, ..Http::default() }
    };
    finds(page(), header("content-type", "^text/"), None).await;
    finds(page(), header("Via", "b"), None).await;
    finds(page(), header("Content-Type", "json"), CONTENT).await;
    finds(page(), header("ETag", ""), CONTENT).await;
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).expect("compresses");
    encoder.finish().expect("compresses")
}

#[tokio::test]
async fn a_compressed_body_is_judged_as_what_it_is() {
    let needle = Http { contains: Some("needle".into()), ..Http::default() };
    finds(answer("Content-Encoding: gzip\r\n", gzip(b"a needle")), needle.clone(), None).await;
    finds(answer("Content-Encoding: gzip\r\n", gzip(b"hay")), needle.clone(), CONTENT).await;
    finds(answer("Content-Encoding: br\r\n", b"needle"), needle.clone(), CONTENT).await;
    finds(answer("Content-Encoding: br\r\n", b"x"), Http::default(), None).await;
    let protocol = Some(FailureKind::Protocol);
    finds(answer("Content-Encoding: gzip\r\n", b"needle, not compressed"), needle.clone(), protocol).await;
    let mut cut = gzip(&[b'x'; 10_000]);
    cut.truncate(cut.len() - 9);
    finds(answer("Content-Encoding: gzip\r\n", cut), needle.clone(), protocol).await;
    let mut deflated = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    deflated.write_all(b"a needle").expect("compresses");
    finds(answer("Content-Encoding: deflate\r\n", deflated.finish().expect("compresses")), needle, None).await;
}

#[tokio::test]
async fn compression_is_asked_for_only_when_the_check_says_so() {
    let target = Target::echoing().await;
    for (compression, asked) in [(Compression::None, false), (Compression::Gzip, true)] {
        let contains = Some("accept-encoding: gzip".to_owned());
        let kind = CheckKind::Http(Http { url: target.url("/"), compression, contains, ..Http::default() });
        assert_eq!(probe(kind, PATIENT_MS).await.outcome == Outcome::Up { code: 200 }, asked);
    }
}

/// F17: what unfolds without end is cut where the limit of the body is.
#[tokio::test]
async fn f17_a_bomb_is_stopped_at_the_limit_after_decompression() {
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 1 << 20);
    let target = Target::answering(answer("Content-Encoding: gzip\r\n", bomb)).await;
    let seen = probe(CheckKind::Http(Http { url: target.url("/"), ..Http::default() }), PATIENT_MS).await;
    let body = seen.detail.body.expect("was read");
    assert!(body.truncated && body.bytes < 11 << 20, "{body:?}");
    assert_eq!(seen.outcome, Outcome::Up { code: 200 });
}
