//! Real handshakes on loopback with a server that plays each wrong part.

use super::*;
use crate::identity::enrol_client_config;
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::tls::{ALPN_H2, TlsClock, provider};
use peil_proto::token::CaFingerprint;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// 2026-04-15T00:00:00Z; server certificates are for April 2026.
const NOW: UtcTime = UtcTime(1_776_211_200_000);
const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let der = params.self_signed(&key).unwrap().der().clone();
    Authority { issuer: Issuer::new(params, key), der }
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).unwrap();
    Arc::new(roots)
}

/// A leaf by `signer`, shown together with `shown`.
fn server_config(signer: &Authority, shown: &Authority, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2026, 4, 1);
    params.not_after = rcgen::date_time_ymd(2026, 5, 1);
    let leaf = params.signed_by(&key, &signer.issuer).unwrap().der().clone();
    let builder = ServerConfig::builder_with_details(provider(), TlsClock::shared(&WallClock::manual(NOW)))
        .with_protocol_versions(&[&TLS13])
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots(clients), provider()).build().unwrap(),
        ),
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = builder.with_single_cert(vec![leaf, shown.der.clone()], key).unwrap();
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Arc::new(config)
}

/// One connection: handshake, settings, then silence until the client is gone.
async fn serve(listener: TcpListener, config: Arc<ServerConfig>, settings: &[u8]) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        match TlsAcceptor::from(Arc::clone(&config)).accept(tcp).into_fallible().await {
            Ok(mut tls) => {
                tls.write_all(settings).await.unwrap();
                let _ = tls.read_to_end(&mut Vec::new()).await;
            }
            // Reads what is left, as the collector does: a reset would overtake the alert.
            Err((_, mut tcp)) => {
                tcp.shutdown().await.unwrap();
                let _ = tcp.read_to_end(&mut Vec::new()).await;
            }
        }
    }
}

fn plain(trusted: &Authority, now: UtcTime) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_details(provider(), TlsClock::shared(&WallClock::manual(now)))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots(trusted))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Arc::new(config)
}

fn pinned(authority: &Authority) -> Arc<ClientConfig> {
    Arc::new(enrol_client_config(CaFingerprint::of(&authority.der), &WallClock::manual(NOW)).unwrap())
}

fn limits() -> Timeouts {
    let long = Duration::from_secs(60);
    Timeouts { resolve: long, connect: long, handshake: long, answer: long }
}

/// Connects to `host` while a server with `config` answers.
async fn attempt(host: &str, server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Result<Channel, ConnectError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{host}:{}", listener.local_addr().unwrap().port());
    tokio::select! {
        result = connect(&url, client, limits()) => result,
        () = serve(listener, server, &EMPTY_SETTINGS) => panic!("the server stopped"),
    }
}

#[tokio::test]
async fn a_collector_of_our_authority_is_connected_to() {
    let ours = authority();
    attempt("localhost", server_config(&ours, &ours, None), plain(&ours, NOW)).await.unwrap();
}

#[tokio::test]
async fn a_collector_of_another_authority_is_refused() {
    let (ours, theirs) = (authority(), authority());
    let refused = attempt("localhost", server_config(&theirs, &theirs, None), plain(&ours, NOW)).await.unwrap_err();
    assert!(matches!(refused, ConnectError::ServerNotTrusted { .. }), "{refused:?}");
}

#[tokio::test]
async fn at_enrolment_only_the_authority_of_the_token_will_do() {
    let (ours, theirs) = (authority(), authority());
    attempt("localhost", server_config(&ours, &ours, None), pinned(&ours)).await.unwrap();
    let refused = attempt("localhost", server_config(&theirs, &theirs, None), pinned(&ours)).await.unwrap_err();
    assert!(refused.to_string().starts_with("this is not the collector that made the token"), "{refused}");
    // Anyone can show our authority's certificate; only its key can have signed the leaf.
    let refused = attempt("localhost", server_config(&theirs, &ours, None), pinned(&ours)).await.unwrap_err();
    assert!(matches!(refused, ConnectError::ServerNotTrusted { .. }), "{refused:?}");
    // The right collector under a name it does not have.
    let refused = attempt("127.0.0.1", server_config(&ours, &ours, None), pinned(&ours)).await.unwrap_err();
    assert!(matches!(refused, ConnectError::ServerWrongName { .. }), "{refused:?}");
}

#[tokio::test]
async fn each_fault_of_the_collectors_certificate_has_its_own_error() {
    let ours = authority();
    let server = server_config(&ours, &ours, None);
    let wrong_name = attempt("127.0.0.1", Arc::clone(&server), plain(&ours, NOW)).await.unwrap_err();
    assert!(matches!(wrong_name, ConnectError::ServerWrongName { .. }), "{wrong_name:?}");
    let month = 31 * 24 * 3_600_000;
    let late = attempt("localhost", Arc::clone(&server), plain(&ours, UtcTime(NOW.0 + month))).await.unwrap_err();
    assert!(matches!(late, ConnectError::ServerExpired { .. }), "{late:?}");
    let early = attempt("localhost", server, plain(&ours, UtcTime(NOW.0 - month))).await.unwrap_err();
    assert!(matches!(early, ConnectError::ServerNotYetValid { .. }), "{early:?}");
}

#[tokio::test]
async fn a_refusal_of_our_certificate_is_heard_although_the_handshake_seemed_done() {
    let (ours, theirs) = (authority(), authority());
    let refused = attempt("localhost", server_config(&ours, &ours, Some(&theirs)), plain(&ours, NOW)).await;
    let refused = refused.map(|_| ()).unwrap_err();
    assert!(matches!(refused, ConnectError::CertificateRefused { refusal: Refusal::Unknown, .. }), "{refused:?}");
    assert_eq!(about_our_certificate(AlertDescription::CertificateRevoked), Some(Refusal::Revoked));
    assert_eq!(about_our_certificate(AlertDescription::CertificateExpired), Some(Refusal::Expired));
    assert_eq!(about_our_certificate(AlertDescription::ProtocolVersion), None);
}

#[tokio::test]
async fn nothing_listening_is_a_refused_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = connect(&format!("https://{address}"), plain(&authority(), NOW), limits()).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { address: a } if a == address), "{refused:?}");
}

#[tokio::test]
async fn f4_silence_runs_into_the_limit_of_its_stage() {
    let ours = authority();
    let short = Duration::from_millis(20);
    // Listens in the kernel's queue, says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", mute.local_addr().unwrap().port());
    let slow = connect(&url, plain(&ours, NOW), Timeouts { handshake: short, ..limits() }).await.unwrap_err();
    assert!(matches!(slow, ConnectError::TimedOut { stage: Stage::Handshake, .. }), "{slow:?}");
    // Shakes hands, then says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let slow = tokio::select! {
        result = connect(&url, plain(&ours, NOW), Timeouts { answer: short, ..limits() }) => result.unwrap_err(),
        () = serve(listener, server_config(&ours, &ours, None), &[]) => panic!("the server stopped"),
    };
    assert!(matches!(slow, ConnectError::TimedOut { stage: Stage::Answer, .. }), "{slow:?}");
}

#[tokio::test]
async fn what_is_not_tls_is_told_apart_from_what_hangs_up() {
    for (says, tls) in [(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], true), (&b""[..], false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let other = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            // The hello first, so that closing is a plain end and not a reset.
            tcp.read_buf(&mut Vec::with_capacity(4096)).await.unwrap();
            tcp.write_all(says).await.unwrap();
            tcp.shutdown().await.unwrap();
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        };
        let (result, ()) = tokio::join!(connect(&url, plain(&authority(), NOW), limits()), other);
        match result.unwrap_err() {
            ConnectError::Tls { .. } => assert!(tls),
            ConnectError::Closed { stage: Stage::Handshake, .. } => assert!(!tls),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_address_is_refused_with_what_is_wrong_before_anything_is_dialled() {
    for (url, reason) in [
        ("", "empty"),
        ("peil.example", "https://"),
        ("http://peil.example", "https://"),
        ("https://peil.example/path", "after the port"),
        ("https://peil.example?x", "after the port"),
        ("https://me:secret@peil.example", "no place"),
        ("https://peil.example:0", "port"),
        ("https://peil.example:99999", "port"),
        ("https://peil_.-example", "neither"),
    ] {
        match Target::parse(url).map(|t| t.host) {
            Err(ConnectError::BadUrl { reason: given, .. }) => assert!(given.contains(reason), "{url}: {given}"),
            other => panic!("{url}: {other:?}"),
        }
    }
    for (url, host, port) in [
        ("https://peil.example", "peil.example", 443),
        ("https://peil.example:7443/", "peil.example", 7443),
        ("https://[::1]:7443", "::1", 7443),
        ("https://[::1]", "::1", 443),
    ] {
        let target = Target::parse(url).map(|t| (t.host, t.port)).unwrap();
        assert_eq!(target, (host.to_owned(), port));
    }
}
