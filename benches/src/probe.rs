//! CPU per probe on this machine: `cargo run --release -p peil-benches --bin probe [PROBES]`.
//!
//! The server is a process of its own, so all CPU time of this one (user and kernel, resolver threads too) is
//! the prober's, and the figure holds on a busy machine. Every probe is the whole way: new connection, full TLS
//! 1.3 handshake with a chain of two (ECDSA P-256), request, answer of 13 bytes, judgement. The last line asks
//! the system's resolver for `localhost`, which is answered from `/etc/hosts`.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be set up has nothing to tell")]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use peil_agent::probe::{AddressPolicy, ProbeContext, run};
use peil_proto::ids::CheckNo;
use peil_proto::plan::{CheckDef, CheckKind, Http, Tcp, Tls, TlsOptions};
use peil_proto::sample::{Outcome, State};
use peil_proto::time::WallClock;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, word, ca_file] = args.as_slice()
        && word == "serve"
    {
        return runtime().block_on(serve(acceptor(ca_file.as_ref())));
    }
    let probes = args.get(1).and_then(|n| n.parse().ok()).unwrap_or(2_000_u32);
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("root.pem");
    let mut server = Command::new(&args[0]).arg("serve").arg(&ca_file).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(server.stdout.take().unwrap()).lines();
    let (plain, secure) = (told.next().unwrap().unwrap(), told.next().unwrap().unwrap());
    let ca_file = Some(ca_file.display().to_string());
    let http = |url: String| {
        CheckKind::Http(Http {
            url,
            contains: Some("hello".to_owned()),
            tls: TlsOptions { ca_file: ca_file.clone(), cert_days_min: Some(14), ..TlsOptions::default() },
            ..Http::default()
        })
    };
    let tls = CheckKind::Tls(Tls {
        address: secure.clone(),
        tls: TlsOptions { ca_file: ca_file.clone(), cert_days_min: Some(14), ..TlsOptions::default() },
        ..Tls::default()
    });
    measure("tcp", CheckKind::Tcp(Tcp { address: plain.clone(), ..Tcp::default() }), probes);
    measure("http", http(format!("http://{plain}/")), probes);
    measure("tls", tls, probes);
    measure("https", http(format!("https://{secure}/")), probes);
    let port = plain.rsplit_once(':').unwrap().1;
    measure("http by name", http(format!("http://localhost:{port}/")), probes);
    server.kill().unwrap();
    server.wait().unwrap();
}

fn measure(name: &str, kind: CheckKind, probes: u32) {
    let ctx = ProbeContext::new(WallClock::System, AddressPolicy::default());
    let def = CheckDef { no: CheckNo(1), name: name.to_owned(), interval_ms: 60_000, timeout_ms: 10_000, kind };
    runtime().block_on(async {
        // The first ones pay for roots, allocator and caches.
        for _ in 0..100 {
            expect_up(run(&def, &ctx).await.outcome);
        }
        let before = clock_gettime(ClockId::ProcessCPUTime);
        for _ in 0..probes {
            expect_up(run(&def, &ctx).await.outcome);
        }
        let after = clock_gettime(ClockId::ProcessCPUTime);
        let spent_ns = (after.tv_sec - before.tv_sec) * 1_000_000_000 + (after.tv_nsec - before.tv_nsec);
        println!("{name:<12} {:>6} µs of CPU per probe", spent_ns / i64::from(probes) / 1_000);
    });
}

fn expect_up(outcome: Outcome) {
    assert_eq!(outcome.state(), State::Up, "{outcome:?}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn acceptor(ca_file: &std::path::Path) -> TlsAcceptor {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "root");
    let root = CertifiedIssuer::self_signed(params.clone(), KeyPair::generate().unwrap()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "intermediate");
    let intermediate = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap();
    std::fs::write(ca_file, root.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "leaf");
    let leaf = params.signed_by(&key, &intermediate).unwrap();
    let chain = vec![leaf.der().clone(), intermediate.der().clone()];
    let key = key.serialize_der().try_into().unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Serves http and https on a port each, and tells their addresses.
async fn serve(acceptor: TlsAcceptor) {
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let secure = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}\n{}", plain.local_addr().unwrap(), secure.local_addr().unwrap());
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            Ok((socket, _)) = plain.accept() => { open.spawn(answer(socket)); }
            Ok((socket, _)) = secure.accept() => {
                let acceptor = acceptor.clone();
                open.spawn(async move {
                    if let Ok(session) = acceptor.accept(socket).await {
                        answer(session).await;
                    }
                });
            }
            Some(_) = open.join_next() => {}
        }
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut request = [0; 4_096];
    if matches!(stream.read(&mut request).await, Ok(1..)) {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nhello, world\n").await;
        let _ = stream.shutdown().await;
    }
}
