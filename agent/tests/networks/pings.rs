//! Pings that are answered late, twice, by somebody else or by a translator: counted right, never for the next probe.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use peil_agent::probe::Observation;
use peil_proto::plan::{CheckKind, Icmp};
use peil_proto::sample::Outcome;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{assert_inside, in_a_network_of_its_own, ip, probe};

#[test]
fn f23_an_answer_that_is_late_double_or_from_elsewhere_is_counted_for_what_it_is_and_never_for_the_next_probe() {
    in_a_network_of_its_own("pings::inside");
}

/// Bytes of an IPv4 header without options.
const HEADER: usize = 20;
/// Where in the message our number of the packet stands: after header and mark.
const NUMBER: usize = 8 + 15;

/// Answers echo requests in the place of the kernel, by the number of the packet in its probe.
struct Impostor {
    itself: Socket,
    elsewhere: Socket,
    /// An answer of the first probe that is held back until the second one asks.
    late: Option<Vec<u8>>,
    probes: usize,
}

impl Impostor {
    fn new() -> Self {
        let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).expect("a raw socket");
        let (itself, elsewhere) = (raw(), raw());
        let other = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), 0);
        elsewhere.bind(&other.into()).expect("another address of the loopback");
        Self { itself, elsewhere, late: None, probes: 0 }
    }

    fn run(mut self) {
        let mut buffer = [0; 2_048];
        while let Ok(length) = self.itself.read(&mut buffer) {
            let packet = &buffer[..length];
            if packet.get(HEADER) == Some(&8) {
                self.answer(&packet[HEADER..]);
            }
        }
    }

    fn answer(&mut self, request: &[u8]) {
        let number = request[NUMBER];
        if number == 0 {
            self.probes += 1;
        }
        let reply = reply_to(request);
        if self.probes > 1 {
            // The answer to the same number of the probe before, then the one that was asked for.
            if let Some(late) = self.late.take() {
                self.say(&self.itself, &late);
            }
            return self.say(&self.itself, &reply);
        }
        match number {
            0 => self.say(&self.itself, &reply),
            1 => (0..2).for_each(|_| self.say(&self.itself, &reply)),
            2 => self.say(&self.elsewhere, &reply),
            _ => self.late = Some(reply),
        }
    }

    fn say(&self, from: &Socket, message: &[u8]) {
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        from.send_to(message, &to.into()).expect("sent");
    }
}

/// A reply behind a translator: everything as asked but for the identifier.
fn reply_to(request: &[u8]) -> Vec<u8> {
    let mut reply = request.to_vec();
    reply[0] = 0;
    reply[4] ^= 0xff;
    reply[2..4].fill(0);
    let words = reply.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    reply[2..4].copy_from_slice(&u16::try_from(folded ^ 0xffff).expect("two bytes").to_be_bytes());
    reply
}

fn received(seen: &Observation) -> &str {
    let fact = seen.detail.facts.iter().find(|fact| fact.name == "received");
    fact.map_or("none", |fact| &fact.value)
}

#[tokio::test]
#[ignore = "run by the test above, in its namespace"]
async fn inside() {
    assert_inside();
    ip("link set lo up");
    std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1").expect("the kernel answers no more");
    let impostor = Impostor::new();
    std::thread::spawn(move || impostor.run());
    let ping = || {
        let host = "127.0.0.1".to_owned();
        probe(CheckKind::Icmp(Icmp { host, count: 4, every_ms: 10, wait_ms: 2_000, ..Icmp::default() }))
    };
    let first = ping().await;
    assert_eq!(first.outcome, Outcome::Up { code: 0 }, "{first:?}");
    assert_eq!(received(&first), "2", "the plain one and one of the doubles: {first:?}");
    let second = ping().await;
    assert_eq!(received(&second), "4", "{second:?}");
    assert_eq!(second.outcome, Outcome::Up { code: 0 });
}
