//! What an `http` check sends, to whom, and what it never sends.

use peil_agent::probe::{problems, run};
use peil_proto::plan::{CheckKind, Http, SecretRef};
use peil_proto::sample::{FailureKind, Outcome, State};

use crate::target::{Target, read_head};
use crate::{PATIENT_MS, check, context_with_secrets, failure, probe};

/// A target whose answer is the request, and a check that it contains `text`.
fn asking(url: String, text: &str) -> Http {
    Http { url, contains: Some(text.into()), ..Http::default() }
}

struct Vault(tempfile::TempDir);

impl Vault {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn keep(&self, name: &str, secret: &str) -> Option<SecretRef> {
        let path = self.0.path().join(name);
        std::fs::write(&path, secret).expect("writes");
        Some(SecretRef(path.display().to_string()))
    }

    async fn sees(&self, check_: Http) -> peil_agent::probe::Observation {
        run(&check(CheckKind::Http(check_), PATIENT_MS), &context_with_secrets(self.0.path())).await
    }
}

#[tokio::test]
async fn method_headers_and_body_are_sent_as_written() {
    let target = Target::echoing().await;
    let base = Http { method: "OPTIONS".into(), headers: [("X-Who".into(), "me".into())].into(), ..Http::default() };
    for text in ["OPTIONS /x HTTP/1.1\r\n", "x-who: me\r\n"] {
        let kind = Http { url: target.url("/x"), contains: Some(text.into()), ..base.clone() };
        assert_eq!(probe(CheckKind::Http(kind), PATIENT_MS).await.outcome, Outcome::Up { code: 200 }, "{text:?}");
    }
    let post =
        Http { method: "POST".into(), body: Some("four".into()), ..asking(target.url("/"), "content-length: 4\r\n") };
    assert_eq!(probe(CheckKind::Http(post), PATIENT_MS).await.outcome, Outcome::Up { code: 200 });
}

#[tokio::test]
async fn credentials_come_from_the_hosts_secrets_and_show_nowhere() {
    let (target, vault) = (Target::echoing().await, Vault::new());
    let password = vault.keep("password", "open sesame\n");
    let basic = Http {
        user: Some("ali".into()),
        password_file: password,
        ..asking(target.url("/"), "authorization: Basic YWxpOm9wZW4gc2VzYW1l\r\n")
    };
    let seen = vault.sees(basic.clone()).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 200 });
    assert!(!format!("{seen:?} {basic:?}").contains("sesame"));
    let bearer = Http { bearer_file: vault.keep("token", "t0k3n"), ..asking(target.url("/"), "Bearer t0k3n\r\n") };
    assert_eq!(vault.sees(bearer).await.outcome, Outcome::Up { code: 200 });
    let header = vault.keep("api", "k3y").expect("kept");
    let keyed =
        Http { secret_headers: [("X-Api-Key".into(), header)].into(), ..asking(target.url("/"), "x-api-key: k3y") };
    assert_eq!(vault.sees(keyed).await.outcome, Outcome::Up { code: 200 });
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_unknown_and_nothing_is_sent() {
    let (target, vault, other) = (Target::echoing().await, Vault::new(), Vault::new());
    for (secret, kind) in [
        (other.keep("shadow", "root:hash"), FailureKind::Permission),
        (Some(SecretRef(vault.0.path().join("gone").display().to_string())), FailureKind::LocalResource),
        (Some(SecretRef("credential:none".into())), FailureKind::LocalResource),
    ] {
        let seen = vault.sees(Http { bearer_file: secret, ..asking(target.url("/"), "x") }).await;
        assert_eq!(failure(&seen).0, kind);
        assert_eq!(seen.outcome.state(), State::Unknown);
        assert!(!format!("{seen:?}").contains("root:hash"));
    }
    let broken = vault.keep("broken", "two\nlines");
    let seen = vault.sees(Http { bearer_file: broken, ..asking(target.url("/"), "x") }).await;
    assert_eq!(failure(&seen).0, FailureKind::LocalResource, "a header cannot carry it");
    assert_eq!(target.visits(), 0);
}

#[tokio::test]
async fn f18_secrets_stay_with_their_origin_when_a_redirect_leads_away() {
    let (end, vault) = (Target::echoing().await, Vault::new());
    let answer = format!("HTTP/1.1 307 Away\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", end.url("/end"));
    let first = Target::answering(answer).await;
    let token = vault.keep("token", "t0k3n");
    let away = Http { bearer_file: token, ..asking(first.url("/"), "GET /end") };
    assert_eq!(vault.sees(away.clone()).await.outcome, Outcome::Up { code: 200 });
    let told = vault.sees(Http { contains: Some("t0k3n".into()), ..away }).await;
    assert_eq!(failure(&told).0, FailureKind::Content, "the token did not go along");
    let body = vault.keep("body", "s3cret");
    let posting = Http { method: "POST".into(), body_file: body, ..asking(first.url("/"), "x") };
    assert_eq!(failure(&vault.sees(posting).await).0, FailureKind::Redirect);
}

#[tokio::test]
async fn a_post_becomes_a_get_where_browsers_do_that_and_stays_one_where_they_do_not() {
    for (status, expected) in [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")] {
        let target = Target::serving(move |mut socket| async move {
            let head = read_head(&mut socket).await;
            if head.contains(" /end ") {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
                let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, answer.as_bytes()).await;
            } else {
                let answer = format!("HTTP/1.1 {status} X\r\nLocation: /end\r\nContent-Length: 0\r\n\r\n");
                let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, answer.as_bytes()).await;
            }
        })
        .await;
        let post = Http { method: "POST".into(), ..asking(target.url("/"), &format!("{expected} /end")) };
        let seen = probe(CheckKind::Http(post), PATIENT_MS).await;
        assert_eq!(seen.outcome, Outcome::Up { code: 200 }, "after {status}: {seen:?}");
    }
}

#[tokio::test]
async fn a_definition_that_cannot_be_sent_is_named_before_it_runs() {
    let vault = Vault::new();
    let def = check(CheckKind::Http(Http { method: "G T".into(), ..asking("http://127.0.0.1/".into(), "x") }), 1_000);
    assert!(problems(&def, &context_with_secrets(vault.0.path())).concat().contains("capitals"));
}
