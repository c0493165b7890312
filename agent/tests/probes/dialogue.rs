//! Dialogues over TCP: presets against servers that speak so, STARTTLS, captures, and everything said wrongly.

use peil_agent::probe::{Phase, run};
use peil_proto::plan::{CheckKind, Pattern, Preset, SecretRef, Step, Tcp, TlsOptions};
use peil_proto::sample::{FailureKind, Outcome};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio_rustls::TlsAcceptor;

use crate::pki::{Pki, expired, good};
use crate::target::Target;
use crate::{PATIENT_MS, SHORT_MS, check, context_with_secrets, failure, probe};

/// What a server says to a line; `None` ends the connection, `Some("")` says nothing.
type Script = fn(&str) -> Option<&'static str>;

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(stream: S, greeting: &str, script: Script) -> Option<S> {
    let mut stream = BufReader::new(stream);
    stream.write_all(greeting.as_bytes()).await.ok()?;
    stream.flush().await.ok()?;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let answer = script(line.trim_end())?;
        stream.write_all(answer.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        if ["STARTTLS", "STLS", "AUTH TLS"].iter().any(|word| line.trim_end().ends_with(word)) {
            return Some(stream.into_inner());
        }
    }
}

/// A server with a script, which goes over to TLS when its client says the word.
async fn server(greeting: &'static str, script: Script, acceptor: TlsAcceptor) -> Target {
    Target::serving(move |socket| {
        let acceptor = acceptor.clone();
        async move {
            let Some(socket) = talk(socket, greeting, script).await else { return };
            if let Ok(session) = acceptor.accept(socket).await {
                talk(session, "", script).await;
            }
        }
    })
    .await
}

fn smtp(line: &str) -> Option<&'static str> {
    match line.split(' ').next()? {
        "EHLO" => Some("250-mail.test greets you\r\n250-SIZE 1000\r\n250 STARTTLS\r\n"),
        "STARTTLS" => Some("220 go ahead\r\n"),
        "QUIT" => Some("221 bye\r\n"),
        _ => Some("500 what?\r\n"),
    }
}

fn imap(line: &str) -> Option<&'static str> {
    match line {
        "p1 STARTTLS" => Some("p1 OK begin\r\n"),
        "p2 LOGOUT" => Some("* BYE\r\np2 OK done\r\n"),
        _ => Some("* BAD\r\n"),
    }
}

fn pop3(line: &str) -> Option<&'static str> {
    matches!(line, "STLS" | "QUIT").then_some("+OK\r\n")
}

fn ftp(line: &str) -> Option<&'static str> {
    match line {
        "AUTH TLS" => Some("234 go\r\n"),
        "QUIT" => Some("221 bye\r\n"),
        _ => None,
    }
}

fn preset(target: &Target, preset: Preset) -> Tcp {
    Tcp { address: target.address.to_string(), preset: Some(preset), ..Tcp::default() }
}

#[tokio::test]
async fn every_preset_is_understood_by_its_server_with_and_without_tls() {
    let pki = Pki::new();
    let servers: [(Preset, &str, Script); 4] = [
        (Preset::Smtp, "220-hi\r\n220 mail.test ESMTP\r\n", smtp),
        (Preset::Imap, "* OK ready\r\n", imap),
        (Preset::Pop3, "+OK ready\r\n", pop3),
        (Preset::Ftp, "220 ready\r\n", ftp),
    ];
    for (kind, greeting, script) in servers {
        let target = server(greeting, script, pki.leaf(good()).acceptor()).await;
        let seen = probe(CheckKind::Tcp(preset(&target, kind)), PATIENT_MS).await;
        assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{kind:?}: {seen:?}");
        assert_eq!(seen.phases.to_array().map(|phase| phase.is_some()), [false, true, false, true, true]);
        let tls = TlsOptions { ca_file: Some(pki.ca_file()), ..TlsOptions::default() };
        let secure = Tcp { starttls: true, tls, ..preset(&target, kind) };
        let seen = probe(CheckKind::Tcp(secure), PATIENT_MS).await;
        assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{kind:?} with TLS: {seen:?}");
        assert!(seen.phases.tls.is_some() && seen.detail.hops[0].tls.is_some());
    }
    let ssh = Target::serving(|socket| async move {
        talk(socket, "comment before\r\nSSH-2.0-OpenSSH_9.6\r\n", |_| Some("")).await;
    })
    .await;
    let seen = probe(CheckKind::Tcp(preset(&ssh, Preset::Ssh)), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
}

#[tokio::test]
async fn a_bad_certificate_behind_starttls_is_told_with_its_facts() {
    let pki = Pki::new();
    let target = server("220 x\r\n", smtp, pki.leaf(expired()).acceptor()).await;
    let tls = TlsOptions { ca_file: Some(pki.ca_file()), ..TlsOptions::default() };
    let seen = probe(CheckKind::Tcp(Tcp { starttls: true, tls, ..preset(&target, Preset::Smtp) }), PATIENT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::CertExpired, Some(Phase::Tls)));
    assert_eq!(seen.detail.hops[0].tls.as_ref().map(|tls| tls.certificates().len()), Some(1));
}

#[tokio::test]
async fn a_server_that_refuses_hangs_up_or_is_another_one_fails_by_its_own_kind() {
    for (greeting, expected) in [
        ("554 go away\r\n", FailureKind::Content),
        ("", FailureKind::Closed),
        ("SSH-2.0-x\r\n", FailureKind::Closed),
        ("220", FailureKind::Closed),
    ] {
        let target = Target::serving(move |mut socket| async move {
            let _ = socket.write_all(greeting.as_bytes()).await;
            let _ = socket.shutdown().await;
            let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut [0; 64]).await;
        })
        .await;
        let seen = probe(CheckKind::Tcp(preset(&target, Preset::Smtp)), PATIENT_MS).await;
        assert!([expected, FailureKind::Closed].contains(&failure(&seen).0), "{greeting:?}: {seen:?}");
    }
    let target = server("220 x\r\n", |_| Some("502 no\r\n"), Pki::new().leaf(good()).acceptor()).await;
    let seen = probe(CheckKind::Tcp(preset(&target, Preset::Smtp)), PATIENT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Content, Some(Phase::Transfer)));
}

#[tokio::test]
async fn endless_talk_is_a_protocol_failure_and_silence_ends_with_the_deadline() {
    for piece in [&b"noise\r\n"[..], b"\0\xff\x80"] {
        let target =
            Target::serving(move |mut socket| async move { while socket.write_all(piece).await.is_ok() {} }).await;
        let seen = probe(CheckKind::Tcp(preset(&target, Preset::Smtp)), PATIENT_MS).await;
        assert_eq!(failure(&seen), (FailureKind::Protocol, Some(Phase::Transfer)));
    }
    let silent = Target::silent().await;
    let seen = probe(CheckKind::Tcp(preset(&silent, Preset::Imap)), SHORT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Timeout, Some(Phase::FirstByte)));
    let stalls = Target::serving(|mut socket| async move {
        let _ = socket.write_all(b"220 x\r\n250-never").await;
        std::future::pending::<()>().await;
    })
    .await;
    let seen = probe(CheckKind::Tcp(preset(&stalls, Preset::Smtp)), SHORT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Timeout, Some(Phase::Transfer)));
}

#[tokio::test]
async fn what_is_smuggled_in_front_of_tls_is_not_taken_for_the_protected_answer() {
    let target = server(
        "220 x\r\n",
        |line| match line {
            "STARTTLS" => Some("220 go\r\n250 smuggled\r\n"),
            _ => smtp(line),
        },
        Pki::new().leaf(good()).acceptor(),
    )
    .await;
    let seen = probe(CheckKind::Tcp(Tcp { starttls: true, ..preset(&target, Preset::Smtp) }), PATIENT_MS).await;
    assert_eq!(failure(&seen).0, FailureKind::Protocol, "{seen:?}");
}

#[tokio::test]
async fn a_dialogue_of_ones_own_answers_with_what_it_heard_and_with_a_secret() {
    let target = Target::serving(|socket| async move {
        talk(socket, "CHALLENGE 42\n", |line| match line {
            "ANSWER 42" => Some("PASSWORD?\n"),
            "open sesame" => Some("WELCOME\n"),
            _ => Some("NO\n"),
        })
        .await;
    })
    .await;
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("login"), "open sesame\n\n").expect("writes");
    let expect = |line: &str| Step::Expect { line: Pattern::new(line), fail: Some(Pattern::new("^NO$")) };
    let dialogue = vec![
        expect("^CHALLENGE (?P<n>[0-9]+)"),
        Step::Send("ANSWER ${n}\n".into()),
        expect("^PASSWORD"),
        Step::SendFile(SecretRef(dir.path().join("login").display().to_string())),
        expect("^WELCOME"),
    ];
    let kind = |dialogue| CheckKind::Tcp(Tcp { address: target.address.to_string(), dialogue, ..Tcp::default() });
    let ctx = context_with_secrets(dir.path());
    let seen = run(&check(kind(dialogue.clone()), PATIENT_MS), &ctx).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    assert!(!format!("{seen:?} {dialogue:?}").contains("sesame"));
    let wrong = vec![expect("^CHALLENGE"), Step::Send("ANSWER ${missing}\n".into()), expect("^PASSWORD")];
    let seen = run(&check(kind(wrong), PATIENT_MS), &ctx).await;
    assert_eq!(failure(&seen).0, FailureKind::Content);
    assert!(seen.detail.failure.is_some_and(|failure| failure.text.starts_with("step 3: ")));
}
