//! Kinds that speak in datagrams: `udp`, `ntp`, and `dns` over UDP, TCP and TLS. The servers answer each datagram with
//! what a function makes of it.

use std::net::SocketAddr;
use std::str::FromStr as _;
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};
use peil_agent::probe::{AddressPolicy, Phase, ProbeContext, run};
use peil_proto::plan::{CheckKind, Dns, DnsTransport, Ntp, Pattern, TlsOptions, Udp};
use peil_proto::sample::{FailureKind, Outcome, State};
use peil_proto::time::{UtcTime, WallClock};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::pki::{Pki, good};
use crate::target::{Target, closed_port};
use crate::{PATIENT_MS, SHORT_MS, check, context_of_other_loopback, failure, probe};

/// Answers each datagram with those that `answers` makes of it.
struct Server {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Server {
    async fn answering(answers: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let address = socket.local_addr().expect("has an address");
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut buffer = vec![0; 65_535];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                for answer in answers(&buffer[..length]) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Self { address, _serving: serving }
    }
}

fn udp(address: SocketAddr, send: &str, expect: Option<&str>) -> CheckKind {
    let expect = expect.map(Pattern::new);
    CheckKind::Udp(Udp { address: address.to_string(), send: Some(send.into()), expect, ..Udp::default() })
}

#[tokio::test]
async fn a_datagram_is_sent_and_the_first_answer_decides() {
    let server = Server::answering(|asked| vec![[b"you said ", asked].concat(), b"more".to_vec()]).await;
    let seen = probe(udp(server.address, "hello", Some("^you said hello$")), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    assert_eq!(seen.phases.to_array().map(|phase| phase.is_some()), [false, false, false, true, false]);
    let seen = probe(udp(server.address, "hello", Some("^more")), PATIENT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Content, None));
    let hex = Udp { address: server.address.to_string(), send_hex: Some("00 ff".into()), ..Udp::default() };
    let expect = Some(Pattern::new(r"(?-u)said \x00\xff$"));
    assert_eq!(probe(CheckKind::Udp(Udp { expect, ..hex }), PATIENT_MS).await.outcome, Outcome::Up { code: 0 });
}

#[tokio::test]
async fn silence_and_a_closed_port_are_told_apart_and_a_denied_address_hears_nothing() {
    let mute = Server::answering(|_| Vec::new()).await;
    let seen = probe(udp(mute.address, "x", None), SHORT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Timeout, Some(Phase::FirstByte)));
    let seen = probe(udp(closed_port().await, "x", None), PATIENT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::Refused, Some(Phase::FirstByte)));
    let seen = run(&check(udp(mute.address, "x", None), PATIENT_MS), &context_of_other_loopback()).await;
    assert_eq!((failure(&seen).0, seen.outcome.state()), (FailureKind::Denied, State::Unknown));
}

type Change = fn(&mut Vec<u8>);

/// A time server: `change` has the last word on its answer.
async fn time_server(ahead_ms: i64, change: Change) -> Server {
    Server::answering(move |asked| {
        let now = WallClock::System.now().0 + ahead_ms;
        let (seconds, millis) = ((now / 1_000 + 2_208_988_800).unsigned_abs(), (now % 1_000).unsigned_abs());
        let stamp = ((seconds << 32) | ((millis << 32) / 1_000)).to_be_bytes();
        let mut answer = vec![0; 48];
        answer[0] = 0x24;
        answer[1] = 2;
        answer[24..32].copy_from_slice(&asked[40..48]);
        answer[32..40].copy_from_slice(&stamp);
        answer[40..48].copy_from_slice(&stamp);
        change(&mut answer);
        vec![answer]
    })
    .await
}

fn ntp(server: &Server) -> Ntp {
    Ntp { host: server.address.to_string(), offset_max_ms: 60_000, ..Ntp::default() }
}

#[tokio::test]
async fn a_time_server_is_up_when_it_agrees_and_is_synchronised() {
    let server = time_server(0, |_| {}).await;
    let seen = probe(CheckKind::Ntp(ntp(&server)), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    assert_eq!(
        seen.detail.facts.iter().map(|fact| fact.name.as_str()).collect::<Vec<_>>(),
        ["offset", "stratum", "leap", "dispersion"]
    );
    let ahead = time_server(3_600_000, |_| {}).await;
    assert_eq!(failure(&probe(CheckKind::Ntp(ntp(&ahead)), PATIENT_MS).await).0, FailureKind::Content);
    let behind = time_server(-3_600_000, |_| {}).await;
    let seen = probe(CheckKind::Ntp(ntp(&behind)), PATIENT_MS).await;
    assert!(seen.detail.failure.is_some_and(|failure| failure.text.contains("-36")), "says in which direction");
    let third = Ntp { stratum_max: 1, ..ntp(&server) };
    assert_eq!(failure(&probe(CheckKind::Ntp(third), PATIENT_MS).await).0, FailureKind::Content);
}

#[tokio::test]
async fn a_time_server_that_is_lost_sends_us_away_or_talks_nonsense_fails_by_its_own_kind() {
    let cases: [(Change, FailureKind); 4] = [
        (|answer| answer[0] |= 0xc0, FailureKind::Content),
        (|answer| answer[1] = 16, FailureKind::Content),
        (
            |answer| {
                answer[1] = 0;
                answer[12..16].copy_from_slice(b"RATE");
            },
            FailureKind::Status,
        ),
        (|answer| answer.truncate(40), FailureKind::Protocol),
    ];
    for (change, expected) in cases {
        let server = time_server(0, change).await;
        let seen = probe(CheckKind::Ntp(ntp(&server)), SHORT_MS).await;
        assert_eq!(failure(&seen).0, expected, "{seen:?}");
    }
    let forged = time_server(0, |answer| answer[24] ^= 1).await;
    let seen = probe(CheckKind::Ntp(ntp(&forged)), SHORT_MS).await;
    assert_eq!(failure(&seen).0, FailureKind::Protocol, "an answer to a question we did not ask");
}

/// Makes an answer to the question in `asked`.
fn answer_to(asked: &[u8], change: impl Fn(&mut Message)) -> Vec<u8> {
    let question = Message::from_vec(asked).expect("a question");
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.add_queries(question.queries.clone());
    change(&mut answer);
    answer.to_vec().expect("an answer")
}

fn record(data: RData) -> Record {
    Record::from_rdata(Name::from_ascii("www.example.test.").expect("a name"), 60, data)
}

fn address() -> Record {
    record(RData::A(rdata::A::new(192, 0, 2, 1)))
}

fn soa(serial: u32) -> Record {
    let name = Name::from_ascii("example.test.").expect("a name");
    record(RData::SOA(rdata::SOA::new(name.clone(), name, serial, 1, 1, 1, 1)))
}

/// A signature that ends at `ends` (seconds since 1970).
fn signature(ends: u32) -> Record {
    let mut data = vec![0, 1, 8, 2, 0, 0, 0, 60];
    data.extend_from_slice(&ends.to_be_bytes());
    data.extend_from_slice(&[0; 12]);
    record(RData::Unknown { code: RecordType::RRSIG, rdata: rdata::NULL::with(data) })
}

fn dns(server: SocketAddr) -> Dns {
    Dns { query: "www.example.test".into(), server: Some(server.to_string()), ..Dns::default() }
}

#[tokio::test]
async fn a_name_server_is_up_when_its_answer_is_as_wanted() {
    let server = Server::answering(|asked| {
        vec![answer_to(asked, |answer| {
            answer.add_answer(address());
        })]
    })
    .await;
    let wanted = Dns { answers: vec![Pattern::new(r"^A 192\.0\.2\.1$")], ..dns(server.address) };
    let seen = probe(CheckKind::Dns(wanted.clone()), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    assert!(seen.detail.facts.iter().any(|fact| fact.value == "A 192.0.2.1"), "{seen:?}");
    let other = Dns { answers: vec![Pattern::new("198")], ..wanted.clone() };
    assert_eq!(failure(&probe(CheckKind::Dns(other), PATIENT_MS).await), (FailureKind::Content, None));
    let validated = Dns { authenticated: true, ..wanted };
    assert_eq!(failure(&probe(CheckKind::Dns(validated), PATIENT_MS).await).0, FailureKind::Content);
}

#[tokio::test]
async fn response_codes_are_a_set_and_another_one_is_the_code_of_the_sample() {
    let server = Server::answering(|asked| {
        vec![answer_to(asked, |answer| answer.metadata.response_code = ResponseCode::NXDomain)]
    })
    .await;
    let seen = probe(CheckKind::Dns(dns(server.address)), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Failed { kind: FailureKind::Status, code: 3 });
    let wanted = Dns { rcodes: vec!["NXDOMAIN".into()], ..dns(server.address) };
    assert_eq!(probe(CheckKind::Dns(wanted), PATIENT_MS).await.outcome.state(), State::Up);
}

#[tokio::test]
async fn serial_validation_and_the_end_of_signatures_are_asserted() {
    let server = Server::answering(|asked| {
        vec![answer_to(asked, |answer| {
            answer.metadata.authentic_data = true;
            answer.add_answers([soa(100), signature(1_000_000_000)]);
        })]
    })
    .await;
    let base = Dns { record: "SOA".into(), authenticated: true, ..dns(server.address) };
    for (serial, up) in [(99, true), (100, true), (101, false), (u32::MAX, true)] {
        let seen = probe(CheckKind::Dns(Dns { serial_min: Some(serial), ..base.clone() }), PATIENT_MS).await;
        assert_eq!(seen.outcome.state() == State::Up, up, "{serial}: {seen:?}");
    }
    let at = |seconds: i64| ProbeContext::new(WallClock::manual(UtcTime(seconds * 1_000)), AddressPolicy::default());
    let signed = check(CheckKind::Dns(Dns { rrsig_days_min: Some(3), ..base }), PATIENT_MS);
    assert_eq!(run(&signed, &at(1_000_000_000 - 4 * 86_400)).await.outcome.state(), State::Up);
    assert_eq!(failure(&run(&signed, &at(1_000_000_000 - 86_400)).await).0, FailureKind::CertExpiring);
    let unsigned = Server::answering(|asked| {
        vec![answer_to(asked, |answer| {
            answer.add_answer(soa(1));
        })]
    })
    .await;
    let none = Dns { record: "SOA".into(), rrsig_days_min: Some(3), ..dns(unsigned.address) };
    assert_eq!(failure(&probe(CheckKind::Dns(none), PATIENT_MS).await).0, FailureKind::Content);
}

#[tokio::test]
async fn what_is_no_answer_is_passed_over_and_a_cut_one_says_so() {
    let server = Server::answering(|asked| {
        let mut other = asked.to_vec();
        other[0] ^= 0xff;
        let named = answer_to(asked, |answer| {
            answer.queries[0].name = Name::from_str("evil.test.").expect("a name");
        });
        vec![b"junk".to_vec(), asked.to_vec(), answer_to(&other, |_| {}), named, answer_to(asked, |_| {})]
    })
    .await;
    assert_eq!(probe(CheckKind::Dns(dns(server.address)), PATIENT_MS).await.outcome.state(), State::Up);
    let junk = Server::answering(|_| vec![vec![0xff; 40]]).await;
    assert_eq!(failure(&probe(CheckKind::Dns(dns(junk.address)), SHORT_MS).await).0, FailureKind::Protocol);
    let mute = Server::answering(|_| Vec::new()).await;
    assert_eq!(failure(&probe(CheckKind::Dns(dns(mute.address)), SHORT_MS).await).0, FailureKind::Timeout);
    let cut = Server::answering(|asked| vec![answer_to(asked, |answer| answer.metadata.truncation = true)]).await;
    let seen = probe(CheckKind::Dns(dns(cut.address)), PATIENT_MS).await;
    assert!(seen.detail.failure.is_some_and(|failure| failure.text.contains("tcp")));
    let seen = probe(CheckKind::Dns(dns(closed_port().await)), PATIENT_MS).await;
    assert_eq!(failure(&seen).0, FailureKind::Refused);
}

/// Makes what is sent of what was asked.
type Making = dyn Fn(&[u8]) -> Vec<u8> + Send + Sync;

async fn serve_stream(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Arc<Making>) {
    let Ok(length) = stream.read_u16().await else { return };
    let mut asked = vec![0; length.into()];
    if stream.read_exact(&mut asked).await.is_err() {
        return;
    }
    let _ = stream.write_all(&answer(&asked)).await;
    let _ = stream.shutdown().await;
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).expect("short").to_be_bytes()[..], message].concat()
}

#[tokio::test]
async fn questions_travel_over_tcp_and_tls_too() {
    let answer: Arc<Making> = Arc::new(|asked| {
        framed(&answer_to(asked, |answer| {
            answer.add_answer(address());
        }))
    });
    let plain = answer.clone();
    let target = Target::serving(move |socket| serve_stream(socket, plain.clone())).await;
    let tcp = Dns { transport: DnsTransport::Tcp, answers: vec![Pattern::new("^A ")], ..dns(target.address) };
    assert_eq!(probe(CheckKind::Dns(tcp), PATIENT_MS).await.outcome.state(), State::Up);
    let pki = Pki::new();
    let acceptor = pki.leaf(good()).acceptor_agreeing_on(&["dot"]);
    let target = Target::serving(move |socket| {
        let (acceptor, answer) = (acceptor.clone(), answer.clone());
        async move {
            if let Ok(session) = acceptor.accept(socket).await {
                serve_stream(session, answer).await;
            }
        }
    })
    .await;
    let tls = TlsOptions { ca_file: Some(pki.ca_file()), ..TlsOptions::default() };
    let dot = Dns { transport: DnsTransport::Tls, tls, ..dns(target.address) };
    let seen = probe(CheckKind::Dns(dot.clone()), PATIENT_MS).await;
    assert_eq!(seen.outcome.state(), State::Up, "{seen:?}");
    assert!(seen.phases.tls.is_some());
    let stranger = Dns { tls: TlsOptions::default(), ..dot };
    assert_eq!(failure(&probe(CheckKind::Dns(stranger), PATIENT_MS).await).0, FailureKind::CertUntrusted);
}

#[tokio::test]
async fn a_broken_answer_on_a_connection_ends_by_its_own_kind() {
    type Made = fn(&[u8]) -> Vec<u8>;
    let cases: [(Made, FailureKind); 4] = [
        (|_| vec![0, 40, 1, 2], FailureKind::Closed),
        (|_| framed(&[0xff; 30]), FailureKind::Protocol),
        (|_| Vec::new(), FailureKind::Closed),
        (|asked| framed(asked), FailureKind::Protocol),
    ];
    for (answer, expected) in cases {
        let target = Target::serving(move |socket| serve_stream(socket, Arc::new(answer))).await;
        let tcp = Dns { transport: DnsTransport::Tcp, ..dns(target.address) };
        assert_eq!(failure(&probe(CheckKind::Dns(tcp), PATIENT_MS).await).0, expected);
    }
}
