//! Real handshakes on loopback. The clients are plain rustls, so that a mistake in our own agent cannot
//! hide one here; the agent itself meets this listener in the workspace's `tests`.

use super::*;
use crate::pki::{Authorities, Authority, IssuedCertificate, Serial};
use peil_proto::ids::AgentId;
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::tls::{TlsClock, provider};
use peil_proto::units::Millis;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, SupportedProtocolVersion};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

const NOW: UtcTime = UtcTime(1_774_994_400_000);
const DAY: Millis = Millis(24 * Millis::HOUR.0);
const AGENT: AgentId = AgentId([0xa9; 16]);

type Tls = tokio_rustls::client::TlsStream<TcpStream>;

/// An authority, the port it guards, and everything a test turns.
struct Port {
    dir: tempfile::TempDir,
    authority: Authority,
    clock: WallClock,
    admission: Admission,
    certificate: LiveCertificate,
    listener: TlsListener,
    stop: CancellationToken,
}

/// A key with its certificate.
struct Client {
    key: KeyPair,
    issued: IssuedCertificate,
}

fn authority(dir: &tempfile::TempDir, name: &str) -> Authority {
    Authority::open_or_create(dir.path(), name, NOW).unwrap()
}

/// The one of the port: the same again when it is opened again.
fn authority_in(dir: &tempfile::TempDir) -> Authority {
    authority(dir, "Peil test")
}

fn only(authority: Authority) -> tokio::sync::watch::Receiver<Arc<Authorities>> {
    tokio::sync::watch::channel(Arc::new(Authorities::alone(authority).unwrap())).1
}

fn names() -> Vec<String> {
    vec!["localhost".to_owned()]
}

async fn port(web: bool) -> Port {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority_in(&dir);
    let clock = WallClock::manual(NOW);
    let (admission, stop) = (Admission::default(), CancellationToken::new());
    let certificate = LiveCertificate::new(authority.server_certificate(&names(), NOW).unwrap()).unwrap();
    let config = if web {
        profile::web(certificate.clone(), &clock).unwrap()
    } else {
        profile::agents(only(authority_in(&dir)), admission.clone(), certificate.clone(), &clock).unwrap()
    };
    let listener = TlsListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), config, stop.clone()).await.unwrap();
    Port { dir, authority, clock, admission, certificate, listener, stop }
}

fn enrol(authority: &Authority, agent: AgentId, valid: Millis) -> Client {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let issued = authority.sign_agent(csr.der(), agent, NOW, valid).unwrap();
    Client { key, issued }
}

fn client_config(
    port: &Port,
    trusted: &Authority,
    version: &'static SupportedProtocolVersion,
    client: Option<&Client>,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_details(provider(), TlsClock::shared(&port.clock))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(trusted.roots().unwrap());
    Arc::new(match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let key = PrivateKeyDer::try_from(client.key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![client.issued.der.clone()], key).unwrap()
        }
    })
}

fn config(port: &Port, client: Option<&Client>) -> Arc<ClientConfig> {
    client_config(port, &port.authority, &TLS13, client)
}

async fn dial(address: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<Tls> {
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), tcp).await
}

/// Tells every client who it is, for ever.
async fn tell(listener: &mut TlsListener) {
    while let Some(mut stream) = listener.next_connection().await {
        let info = stream.info().clone();
        let text = match (info.agent, info.serial) {
            (Some(agent), Some(serial)) => format!("{agent} {serial}"),
            (None, None) => "nobody".to_owned(),
            half => format!("{half:?}"),
        };
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

/// What the port says to a client, or why rustls gave up.
async fn ask(port: &mut Port, config: Arc<ClientConfig>) -> Result<String, rustls::Error> {
    let address = port.listener.local_addr();
    let talk = async {
        let mut text = String::new();
        dial(address, config).await?.read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    tokio::select! {
        answer = talk => answer.map_err(|e| {
            e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()).cloned().unwrap_or_else(|| panic!("not TLS: {e}"))
        }),
        () = tell(&mut port.listener) => panic!("the listener stopped"),
    }
}

fn told(client: &Client) -> Result<String, rustls::Error> {
    Ok(format!("{AGENT} {}", client.issued.serial))
}

fn alert(alert: AlertDescription) -> Result<String, rustls::Error> {
    Err(rustls::Error::AlertReceived(alert))
}

#[tokio::test]
async fn an_agent_is_known_by_its_certificate_and_a_host_without_one_is_nobody() {
    let mut port = port(false).await;
    let client = enrol(&port.authority, AGENT, DAY);
    let (with, without) = (config(&port, Some(&client)), config(&port, None));
    assert_eq!(ask(&mut port, with).await, told(&client));
    assert_eq!(ask(&mut port, without).await, Ok("nobody".to_owned()));
}

#[tokio::test]
async fn another_authoritys_certificate_for_the_same_agent_is_refused() {
    let mut port = port(false).await;
    // Once with a name of its own, once with ours: then only the signature tells them apart.
    for (name, answer) in [("Stranger", AlertDescription::UnknownCA), ("Peil test", AlertDescription::DecryptError)] {
        let stranger = enrol(&authority(&tempfile::tempdir().unwrap(), name), AGENT, DAY);
        let config = config(&port, Some(&stranger));
        assert_eq!(ask(&mut port, config).await, alert(answer), "{name}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let mut port = port(false).await;
    let client = enrol(&port.authority, AGENT, DAY);
    let config = config(&port, Some(&client));
    port.clock.set(NOW.plus(DAY));
    assert_eq!(ask(&mut port, Arc::clone(&config)).await, told(&client));
    port.clock.set(NOW.plus(Millis(DAY.0 + 1000)));
    assert_eq!(ask(&mut port, config).await, alert(AlertDescription::CertificateExpired));
}

#[tokio::test]
async fn a_revoked_agent_is_refused_at_its_next_handshake() {
    let mut port = port(false).await;
    let (client, other) = (enrol(&port.authority, AGENT, DAY), enrol(&port.authority, AGENT, DAY));
    // The same configuration again: it would resume its session if it could.
    let (config, other_config) = (config(&port, Some(&client)), config(&port, Some(&other)));
    assert_eq!(ask(&mut port, Arc::clone(&config)).await, told(&client));
    port.admission.revoke_certificate(client.issued.serial.clone());
    assert_eq!(ask(&mut port, Arc::clone(&config)).await, alert(AlertDescription::CertificateRevoked));
    assert_eq!(ask(&mut port, Arc::clone(&other_config)).await, told(&other));
    port.admission.revoke(AGENT);
    assert_eq!(ask(&mut port, Arc::clone(&other_config)).await, alert(AlertDescription::CertificateRevoked));
    port.admission.readmit(AGENT);
    assert_eq!(ask(&mut port, other_config).await, told(&other));
}

#[tokio::test]
async fn a_certificate_of_ours_that_is_no_agents_is_refused() {
    let mut port = port(false).await;
    let server = port.authority.server_certificate(&names(), NOW).unwrap();
    let as_client = |chain: CertificateDer<'static>, key: KeyPair| Client {
        key,
        issued: IssuedCertificate { der: chain, serial: Serial::new(&[1]), not_after: NOW },
    };
    let server_key = KeyPair::try_from(server.key.secret_der()).unwrap();
    let own_server = config(&port, Some(&as_client(server.chain[0].clone(), server_key)));
    assert_eq!(ask(&mut port, own_server).await, alert(AlertDescription::UnsupportedCertificate));

    // Signed by the authority for another purpose of its owner: good, but nobody we know.
    let pem = std::fs::read_to_string(port.dir.path().join("ca.key")).unwrap();
    let issuer =
        rcgen::Issuer::from_ca_cert_der(port.authority.certificate(), KeyPair::from_pem(&pem).unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["laptop.example".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
    let laptop = config(&port, Some(&as_client(certificate, key)));
    assert_eq!(ask(&mut port, laptop).await, alert(AlertDescription::AccessDenied));
}

#[tokio::test]
async fn tls_1_2_is_for_the_web_only() {
    let mut agents = port(false).await;
    let old = client_config(&agents, &agents.authority, &TLS12, None);
    assert_eq!(ask(&mut agents, old).await, alert(AlertDescription::ProtocolVersion));
    let mut web = port(true).await;
    for version in [&TLS12, &TLS13] {
        let config = client_config(&web, &web.authority, version, None);
        assert_eq!(ask(&mut web, config).await, Ok("nobody".to_owned()));
    }
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused_by_the_client() {
    let mut port = port(false).await;
    let other = authority(&tempfile::tempdir().unwrap(), "Other");
    let config = client_config(&port, &other, &TLS13, None);
    let refused = ask(&mut port, config).await;
    assert!(matches!(refused, Err(rustls::Error::InvalidCertificate(_))), "{refused:?}");
}

#[tokio::test]
async fn clients_that_dawdle_do_not_hold_up_others() {
    let mut port = port(false).await;
    let address = port.listener.local_addr();
    let mut dawdlers = Vec::new();
    // More silent ones than there are permits, and some that stop in the middle of their hello.
    for n in 0..listener::HANDSHAKES_MAX + 20 {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        if n < listener::HANDSHAKES_MAX / 2 {
            tcp.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
        }
        dawdlers.push(tcp);
    }
    let client = enrol(&port.authority, AGENT, DAY);
    let config = config(&port, Some(&client));
    assert_eq!(ask(&mut port, config).await, told(&client));
}

#[tokio::test]
async fn noise_is_answered_and_forgotten() {
    let mut port = port(false).await;
    let mut tcp = TcpStream::connect(port.listener.local_addr()).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let client = enrol(&port.authority, AGENT, DAY);
    let config = config(&port, Some(&client));
    assert_eq!(ask(&mut port, config).await, told(&client));
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.first(), Some(&0x15), "a TLS alert, then the end: {answer:?}");
}

#[tokio::test]
async fn a_new_server_certificate_is_shown_without_a_restart() {
    let mut port = port(false).await;
    let address = port.listener.local_addr();
    let config = config(&port, None);
    let mut shown = Vec::new();
    for _ in 0..2 {
        let (stream, _) = tokio::join!(dial(address, Arc::clone(&config)), port.listener.next_connection());
        let chain: Vec<_> =
            stream.unwrap().get_ref().1.peer_certificates().unwrap().iter().map(|c| c.to_vec()).collect();
        assert_eq!(chain[1], port.authority.certificate().to_vec(), "the authority comes along");
        shown.push(chain[0].clone());
        let renewed = port.authority.server_certificate(&names(), NOW.plus(Millis(61 * DAY.0))).unwrap();
        port.clock.set(NOW.plus(Millis(61 * DAY.0)));
        port.certificate.replace(renewed).unwrap();
    }
    assert_ne!(shown[0], shown[1]);
}

#[tokio::test]
async fn a_key_of_another_certificate_is_not_shown() {
    let port = port(false).await;
    let mut mixed = port.authority.server_certificate(&names(), NOW).unwrap();
    mixed.key = PrivateKeyDer::try_from(KeyPair::generate().unwrap().serialize_der()).unwrap();
    assert!(matches!(port.certificate.replace(mixed), Err(TlsError::Certificate(_))));
}

#[tokio::test]
async fn a_stopped_listener_yields_nothing_more_and_frees_its_port() {
    let mut port = port(false).await;
    let address = port.listener.local_addr();
    let _waiting = TcpStream::connect(address).await.unwrap();
    port.stop.cancel();
    assert!(port.listener.next_connection().await.is_none());
    drop(port.listener);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let port = port(true).await;
    let config = profile::web(port.certificate.clone(), &port.clock).unwrap();
    let taken = TlsListener::bind(port.listener.local_addr(), config, CancellationToken::new()).await;
    let refused = taken.map(|_| ()).unwrap_err().to_string();
    assert_eq!(refused, format!("cannot listen on {}", port.listener.local_addr()));
}

#[tokio::test]
async fn axum_serves_on_it_and_knows_the_peer() {
    use axum::extract::ConnectInfo as Info;
    let port = port(true).await;
    let address = port.listener.local_addr();
    let config = config(&port, None);
    let who = |Info(info): Info<ConnectInfo>| async move { format!("{} {:?}", info.peer, info.agent) };
    let app = axum::Router::new().route("/", axum::routing::get(who));
    let stop = port.stop.clone();
    let serve = axum::serve(port.listener, app.into_make_service_with_connect_info::<ConnectInfo>())
        .with_graceful_shutdown(async move { stop.cancelled().await });
    let talk = async {
        let mut stream = dial(address, config).await.unwrap();
        let own = stream.get_ref().0.local_addr().unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with(&format!("{own} None")), "{text}");
        port.stop.cancel();
    };
    let (served, ()) = tokio::join!(async { serve.await }, talk);
    served.unwrap();
}
