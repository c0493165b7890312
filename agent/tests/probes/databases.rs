//! Pings of databases, against servers that speak just enough of each protocol, wrongly where it must hurt.

use std::num::NonZeroU32;

use data_encoding::BASE64;
use peil_agent::probe::{Observation, Phase, run};
use peil_proto::plan::{CheckKind, Mysql, Postgres, Redis, RedisRole, SecretRef, TlsOptions};
use peil_proto::sample::{FailureKind, Outcome, State};
use ring::{digest, hmac, pbkdf2};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::pki::{Pki, good};
use crate::target::Target;
use crate::{PATIENT_MS, SHORT_MS, check, context_with_secrets, failure, probe};

/// A host whose secrets hold one password.
struct Host(tempfile::TempDir);

impl Host {
    fn knowing(password: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("pw"), password).expect("writes");
        Self(dir)
    }

    fn secret(&self) -> Option<SecretRef> {
        Some(SecretRef(self.0.path().join("pw").display().to_string()))
    }

    async fn sees(&self, kind: CheckKind) -> Observation {
        run(&check(kind, PATIENT_MS), &context_with_secrets(self.0.path())).await
    }
}

/// A server that says these bytes to whatever it hears first (at once when `first`), then waits.
async fn saying(first: bool, bytes: &'static [u8]) -> Target {
    Target::serving(move |mut socket| async move {
        if !first {
            let _ = socket.read(&mut [0; 1_024]).await;
        }
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let _ = socket.read(&mut [0; 1_024]).await;
    })
    .await
}

fn redis(target: &Target) -> Redis {
    Redis { address: target.address.to_string(), ..Redis::default() }
}

/// Speaks RESP: one answer per command it is sent, by its first word.
async fn redis_server(mut socket: TcpStream) {
    let mut buffer = [0; 1_024];
    let mut open = false;
    while let Ok(length @ 1..) = socket.read(&mut buffer).await {
        let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let words: Vec<&str> = said.split("\r\n").filter(|word| !word.starts_with(['*', '$'])).collect();
        let answer = match words.as_slice() {
            ["AUTH", "sesame", ..] | ["AUTH", "ali", "sesame", ..] => {
                open = true;
                "+OK\r\n"
            }
            ["AUTH", ..] => "-WRONGPASS invalid username-password pair\r\n",
            _ if !open => "-NOAUTH Authentication required.\r\n",
            ["PING", ..] => "+PONG\r\n",
            ["ROLE", ..] => "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n",
            _ => "-ERR unknown command\r\n",
        };
        if socket.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_redis_server_is_up_when_it_answers_and_is_what_it_must_be() {
    let target = Target::serving(redis_server).await;
    let host = Host::knowing("sesame\n");
    let known = Redis { password_file: host.secret(), role: Some(RedisRole::Master), ..redis(&target) };
    let seen = host.sees(CheckKind::Redis(known.clone())).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    let named = Redis { user: Some("ali".into()), ..known.clone() };
    assert_eq!(host.sees(CheckKind::Redis(named)).await.outcome.state(), State::Up);
    let replica = Redis { role: Some(RedisRole::Replica), ..known };
    assert_eq!(failure(&host.sees(CheckKind::Redis(replica)).await), (FailureKind::Content, None));
    let wrong = Host::knowing("guess");
    let seen = wrong.sees(CheckKind::Redis(Redis { password_file: wrong.secret(), ..redis(&target) })).await;
    assert_eq!((failure(&seen).0, seen.outcome.state()), (FailureKind::Permission, State::Unknown));
    assert!(!format!("{seen:?}").contains("guess"));
    assert_eq!(failure(&probe(CheckKind::Redis(redis(&target)), PATIENT_MS).await).0, FailureKind::Permission);
}

#[tokio::test]
async fn a_redis_server_that_cannot_serve_or_is_none_fails_by_its_own_kind() {
    for (bytes, expected) in [
        (&b"-LOADING Redis is loading the dataset in memory\r\n"[..], FailureKind::Status),
        (b"-MASTERDOWN x\r\n", FailureKind::Status),
        (b"+NOPE\r\n", FailureKind::Protocol),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", FailureKind::Protocol),
        (b"+PON", FailureKind::Closed),
        (b"", FailureKind::Closed),
        (b"$1000000\r\n", FailureKind::Protocol),
    ] {
        let target = saying(false, bytes).await;
        let seen = probe(CheckKind::Redis(redis(&target)), PATIENT_MS).await;
        assert_eq!(failure(&seen).0, expected, "{bytes:?}: {seen:?}");
    }
    let endless =
        Target::serving(|mut socket| async move { while socket.write_all(b"+xxxxxxxx").await.is_ok() {} }).await;
    assert_eq!(failure(&probe(CheckKind::Redis(redis(&endless)), PATIENT_MS).await).0, FailureKind::Protocol);
    let silent = Target::silent().await;
    let seen = probe(CheckKind::Redis(redis(&silent)), SHORT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Timeout, Some(Phase::FirstByte)));
}

const GREETING: &[u8] = b"\x1c\0\0\0\x0a8.0.36\0\x01\0\0\0saltsalt\0\xff\xff\xff\x02\0\0\0";

fn mysql(target: &Target) -> Mysql {
    Mysql { address: target.address.to_string(), ..Mysql::default() }
}

#[tokio::test]
async fn a_mysql_server_is_up_when_it_greets_and_its_certificate_can_be_asked() {
    let target = saying(true, GREETING).await;
    let seen = probe(CheckKind::Mysql(mysql(&target)), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    assert_eq!(seen.detail.facts[0].value, "8.0.36");
    let pki = Pki::new();
    let acceptor = pki.leaf(good()).acceptor_agreeing_on(&[]);
    let target = Target::serving(move |mut socket| {
        let acceptor = acceptor.clone();
        async move {
            let _ = socket.write_all(GREETING).await;
            let mut request = [0; 36];
            if socket.read_exact(&mut request).await.is_ok() && request[..4] == [32, 0, 0, 1] && request[5] & 8 != 0 {
                let _ = acceptor.accept(socket).await;
            }
        }
    })
    .await;
    let tls = TlsOptions { ca_file: Some(pki.ca_file()), ..TlsOptions::default() };
    let seen = probe(CheckKind::Mysql(Mysql { starttls: true, tls, ..mysql(&target) }), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    assert!(seen.detail.hops[0].tls.is_some());
}

#[tokio::test]
async fn a_mysql_server_that_is_full_blocks_us_or_is_none_fails_by_its_own_kind() {
    for (bytes, expected) in [
        (&b"\x17\0\0\0\xff\x10\x04Too many connections"[..], FailureKind::Status),
        (b"\x0a\0\0\0\xff\x69\x04blocked", FailureKind::Permission),
        (b"\x0a\0\0\0\x0a8.0", FailureKind::Closed),
        (b"\x02\0\0\0\x09\0", FailureKind::Protocol),
        (b"SSH-2.0-OpenSSH\r\n", FailureKind::Protocol),
        (b"", FailureKind::Closed),
    ] {
        let target = saying(true, bytes).await;
        let seen = probe(CheckKind::Mysql(mysql(&target)), PATIENT_MS).await;
        assert_eq!(failure(&seen).0, expected, "{bytes:?}: {seen:?}");
    }
    let without = saying(true, b"\x17\0\0\0\x0a8.0.36\0\x01\0\0\0saltsalt\0\x00\x00").await;
    let seen = probe(CheckKind::Mysql(Mysql { starttls: true, ..mysql(&without) }), PATIENT_MS).await;
    assert_eq!(failure(&seen).0, FailureKind::Tls, "{seen:?}");
    let silent = Target::silent().await;
    assert_eq!(failure(&probe(CheckKind::Mysql(mysql(&silent)), SHORT_MS).await).0, FailureKind::Timeout);
}

fn postgres(target: &Target) -> Postgres {
    Postgres { address: target.address.to_string(), ..Postgres::default() }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
    [&[kind], &length[..], body].concat()
}

async fn read_message(stream: &mut (impl AsyncRead + Unpin), has_kind: bool) -> Option<Vec<u8>> {
    if has_kind {
        stream.read_u8().await.ok()?;
    }
    let length = usize::try_from(stream.read_u32().await.ok()?).ok()?;
    let mut body = vec![0; length.checked_sub(4)?];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}

fn sign(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

/// The server's side of SCRAM-SHA-256 and of `SELECT 1`. `honest`: it proves that it knows the password.
async fn log_in(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), password: &str, honest: bool) -> Option<()> {
    read_message(stream, false).await?;
    let offer = [&10_u32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat();
    stream.write_all(&message(b'R', &offer)).await.ok()?;
    let first = read_message(stream, true).await?;
    let first = String::from_utf8(first.get(18..)?.to_vec()).ok()?;
    let bare = first.strip_prefix("n,,")?;
    let nonce = format!("{}server", bare.strip_prefix("n=,r=")?);
    let server_first = format!("r={nonce},s={},i=4096", BASE64.encode(b"salt"));
    stream.write_all(&message(b'R', &[&11_u32.to_be_bytes()[..], server_first.as_bytes()].concat())).await.ok()?;
    let last = String::from_utf8(read_message(stream, true).await?).ok()?;
    let (without_proof, proof) = last.split_once(",p=")?;
    let mut salted = [0; 32];
    let rounds = NonZeroU32::new(4_096)?;
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, b"salt", password.as_bytes(), &mut salted);
    let signed = format!("{bare},{server_first},{without_proof}");
    let client_key = sign(&salted, b"Client Key");
    let stored = digest::digest(&digest::SHA256, &client_key);
    let expected: Vec<u8> =
        client_key.iter().zip(sign(stored.as_ref(), signed.as_bytes())).map(|(a, b)| a ^ b).collect();
    if BASE64.decode(proof.as_bytes()).ok()? != expected {
        stream.write_all(&message(b'E', b"SFATAL\0C28P01\0Mpassword authentication failed\0\0")).await.ok()?;
        return None;
    }
    let server_key = sign(&salted, if honest { b"Server Key" } else { b"Other Key!" });
    let proof = format!("v={}", BASE64.encode(&sign(&server_key, signed.as_bytes())));
    stream.write_all(&message(b'R', &[&12_u32.to_be_bytes()[..], proof.as_bytes()].concat())).await.ok()?;
    let ready = [message(b'R', &[0; 4]), message(b'S', b"server_version\x0016\0"), message(b'Z', b"I")].concat();
    stream.write_all(&ready).await.ok()?;
    let asked = read_message(stream, true).await?;
    assert_eq!(asked, b"SELECT 1\0");
    let answer = [message(b'T', b"\0\x01"), message(b'D', b"\0\x01\0\0\0\x011"), message(b'C', b"SELECT 1\0")].concat();
    stream.write_all(&answer).await.ok()?;
    let _ = stream.read(&mut [0; 64]).await;
    Some(())
}

#[tokio::test]
async fn a_postgres_server_is_up_when_it_asks_who_we_are_or_answers_one() {
    let target = Target::serving(|mut socket| async move {
        let _ = log_in(&mut socket, "sesame", true).await;
    })
    .await;
    assert_eq!(probe(CheckKind::Postgres(postgres(&target)), PATIENT_MS).await.outcome, Outcome::Up { code: 0 });
    let host = Host::knowing("sesame");
    let known = Postgres { password_file: host.secret(), ..postgres(&target) };
    let seen = host.sees(CheckKind::Postgres(known)).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    let wrong = Host::knowing("guess");
    let seen = wrong.sees(CheckKind::Postgres(Postgres { password_file: wrong.secret(), ..postgres(&target) })).await;
    assert_eq!((failure(&seen).0, seen.outcome.state()), (FailureKind::Permission, State::Unknown));
    assert!(!format!("{seen:?}").contains("guess"));
}

#[tokio::test]
async fn over_tls_the_same_holds_and_a_server_without_it_fails() {
    let pki = Pki::new();
    let acceptor = pki.leaf(good()).acceptor_agreeing_on(&["postgresql"]);
    let target = Target::serving(move |mut socket| {
        let acceptor = acceptor.clone();
        async move {
            let mut request = [0; 8];
            let _ = socket.read_exact(&mut request).await;
            let _ = socket.write_all(b"S").await;
            if let Ok(mut session) = acceptor.accept(socket).await {
                let _ = log_in(&mut session, "sesame", true).await;
            }
        }
    })
    .await;
    let host = Host::knowing("sesame");
    let tls = TlsOptions { ca_file: Some(pki.ca_file()), ..TlsOptions::default() };
    let known = Postgres { password_file: host.secret(), starttls: true, tls, ..postgres(&target) };
    let seen = host.sees(CheckKind::Postgres(known)).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    assert!(seen.phases.tls.is_some() && seen.detail.hops[0].tls.is_some());
    for (answer, expected) in
        [(&b"N"[..], FailureKind::Tls), (b"E", FailureKind::Protocol), (b"SZ\0\0\0\x05I", FailureKind::Protocol)]
    {
        let target = saying(false, answer).await;
        let seen = probe(CheckKind::Postgres(Postgres { starttls: true, ..postgres(&target) }), PATIENT_MS).await;
        assert_eq!(failure(&seen).0, expected, "{answer:?}: {seen:?}");
    }
}

#[tokio::test]
async fn a_postgres_server_that_does_not_know_the_password_itself_is_an_impostor() {
    let target = Target::serving(|mut socket| async move {
        let _ = log_in(&mut socket, "sesame", false).await;
    })
    .await;
    let host = Host::knowing("sesame");
    let seen = host.sees(CheckKind::Postgres(Postgres { password_file: host.secret(), ..postgres(&target) })).await;
    assert_eq!(failure(&seen).0, FailureKind::Protocol, "{seen:?}");
    // One that asks for the password in the clear does not get it without TLS.
    let clear = Target::serving(|mut socket| async move {
        read_message(&mut socket, false).await;
        let _ = socket.write_all(&message(b'R', &3_u32.to_be_bytes())).await;
        let told = read_message(&mut socket, true).await;
        assert_eq!(told, None, "the password was told");
    })
    .await;
    let seen = host.sees(CheckKind::Postgres(Postgres { password_file: host.secret(), ..postgres(&clear) })).await;
    assert_eq!(failure(&seen).0, FailureKind::Permission);
}

#[tokio::test]
async fn a_postgres_server_that_cannot_serve_or_is_none_fails_by_its_own_kind() {
    for (bytes, expected) in [
        (&b"E\0\0\0\x22SFATAL\0C57P03\0Mstarting up now!\0\0"[..], FailureKind::Status),
        (b"E\0\0\0\x21SFATAL\0C53300\0Mtoo many of you\0\0", FailureKind::Status),
        (b"E\0\0\0\x1cSFATAL\0C28000\0Mno entry!!\0", FailureKind::Permission),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", FailureKind::Protocol),
        (b"R\0\0\0\x03", FailureKind::Protocol),
        (b"R\0\0\0\x05x", FailureKind::Protocol),
        (b"R\0\0", FailureKind::Closed),
        (b"", FailureKind::Closed),
    ] {
        let target = saying(false, bytes).await;
        let seen = probe(CheckKind::Postgres(postgres(&target)), PATIENT_MS).await;
        assert_eq!(failure(&seen).0, expected, "{bytes:?}: {seen:?}");
    }
    let chatty =
        Target::serving(|mut socket| async move { while socket.write_all(b"N\0\0\0\x05x").await.is_ok() {} }).await;
    assert_eq!(failure(&probe(CheckKind::Postgres(postgres(&chatty)), PATIENT_MS).await).0, FailureKind::Protocol);
    let silent = Target::silent().await;
    assert_eq!(failure(&probe(CheckKind::Postgres(postgres(&silent)), SHORT_MS).await).0, FailureKind::Timeout);
}
