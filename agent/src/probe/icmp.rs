//! `icmp`: pings a host; up when few enough packets are lost and the answers are quick and steady enough. Options:
//! `peil_proto::plan::Icmp`.
//!
//! An unprivileged socket is tried first (`net.ipv4.ping_group_range`), then a raw one (CAP_NET_RAW); a host that allows
//! neither answers `permission`. Answers are matched by a random mark in the payload, so one of another probe, a late
//! one, a double one, or one whose identifier was rewritten on the way is counted rightly or not at all.
//!
//! `first_byte` is the average round trip; loss, least, average, most and jitter (the average difference between
//! neighbours, as RFC 3550 means it, not smoothed) are facts.

mod packet;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use peil_proto::plan::{Family, Icmp};
use peil_proto::sample::FailureKind;
use peil_proto::units::Micros;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::dial::{Deadline, Endpoint, failure_kind_of_io, locate};
use super::{Fact, Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "icmp",
    about: "pings a host",
    example: "icmp://router.example.org",
    phases: &[Phase::Resolve, Phase::FirstByte],
};

/// Bytes of a packet that are read.
const PACKET_BYTES_MAX: usize = 2_048;

pub(super) async fn run(check: &Icmp, family: Family, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.host.clone(), ..Hop::default() };
    let mut facts = Vec::new();
    let end = ping(check, family, ctx, deadline, &mut hop, &mut facts).await.map(|()| 0);
    Observation::from_end(vec![hop], None, end).with_facts(facts)
}

async fn ping(
    check: &Icmp,
    family: Family,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
    facts: &mut Vec<Fact>,
) -> Result<(), Failure> {
    let peer = locate(Endpoint { host: &check.host, port: 0, family }, ctx, deadline, hop).await?;
    let mut mark = [0; 14];
    getrandom::fill(&mut mark).map_err(|error| Failure::unusable(format!("no random number: {error}")))?;
    let door = Door::open(peer).map_err(|error| not_opened(&error))?;
    let mut round = Round { peer: peer.ip(), door, mark, sent: Vec::new(), took: vec![None; check.count.into()] };
    let began = Instant::now();
    // When the deadline cuts it short, what has not come back by then is lost.
    let end = deadline.allows(round.run(check)).await.unwrap_or(Ok(()));
    if let Err(error) = end {
        hop.phases.first_byte = Some(Micros::from_duration(began.elapsed()));
        let kind = failure_kind_of_io(&error, FailureKind::Unreachable);
        return Err(Failure::during(Phase::FirstByte, kind, error.to_string()));
    }
    let figures = Figures::of(&round.took[..round.sent.len()]);
    let waited = Micros::from_duration(began.elapsed());
    hop.phases.first_byte = Some(figures.as_ref().map_or(waited, |figures| figures.average));
    facts.push(Fact::new("sent", round.sent.len()));
    let Some(figures) = figures else {
        let text = format!("none of {} packets came back", round.sent.len());
        return Err(Failure::during(Phase::FirstByte, FailureKind::Timeout, text));
    };
    figures.tell(facts);
    figures.judge(check)
}

fn not_opened(error: &io::Error) -> Failure {
    let kind = failure_kind_of_io(error, FailureKind::LocalResource);
    let hint = match kind {
        FailureKind::Permission => "; allow it with sysctl net.ipv4.ping_group_range, or give CAP_NET_RAW",
        _ => "",
    };
    Failure::judged(kind, format!("cannot open a socket for ICMP: {error}{hint}"))
}

/// A socket for ICMP with one peer.
struct Door {
    socket: UdpSocket,
    raw: bool,
}

impl Door {
    fn open(peer: SocketAddr) -> io::Result<Self> {
        let (domain, protocol) =
            if peer.is_ipv4() { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
        let (socket, raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
            Ok(socket) => (socket, false),
            Err(_) => (Socket::new(domain, Type::RAW, Some(protocol))?, true),
        };
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::from(peer))?;
        // The runtime only waits for the descriptor and calls send and recv, which are the same for ICMP.
        let socket = UdpSocket::from_std(std::net::UdpSocket::from(OwnedFd::from(socket)))?;
        Ok(Self { socket, raw })
    }
}

/// The packets of one probe.
struct Round {
    peer: IpAddr,
    door: Door,
    mark: packet::Mark,
    sent: Vec<Instant>,
    took: Vec<Option<Micros>>,
}

impl Round {
    async fn run(&mut self, check: &Icmp) -> io::Result<()> {
        let (every, wait) = (Duration::from_millis(check.every_ms.into()), Duration::from_millis(check.wait_ms.into()));
        let began = Instant::now();
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        loop {
            let all_sent = self.sent.len() == self.took.len();
            if all_sent && self.took.iter().all(Option::is_some) {
                return Ok(());
            }
            let position = u32::try_from(self.sent.len()).unwrap_or(u32::MAX);
            let wake = match self.sent.last() {
                Some(last) if all_sent => *last + wait,
                _ => began + every * position,
            };
            tokio::select! {
                biased;
                read = self.door.socket.recv(&mut buffer) => self.heard(&buffer[..read?], wait),
                () = tokio::time::sleep_until(wake) => {
                    if all_sent {
                        return Ok(());
                    }
                    self.send(check).await?;
                }
            }
        }
    }

    async fn send(&mut self, check: &Icmp) -> io::Result<()> {
        let number = u16::try_from(self.sent.len()).unwrap_or(u16::MAX);
        let id = u16::from_be_bytes([self.mark[0], self.mark[1]]);
        let packet = packet::request(self.peer, id, number, self.mark, check.size.into());
        self.sent.push(Instant::now());
        self.door.socket.send(&packet).await.map(drop)
    }

    fn heard(&mut self, packet: &[u8], wait: Duration) {
        let v4 = self.peer.is_ipv4();
        let Some(number) = packet::answered(packet, v4, v4 && self.door.raw, self.mark) else { return };
        let number = usize::from(number);
        let (Some(sent), Some(took)) = (self.sent.get(number), self.took.get_mut(number)) else { return };
        let round_trip = sent.elapsed();
        // The first answer counts; a late one is as good as lost.
        if took.is_none() && round_trip <= wait {
            *took = Some(Micros::from_duration(round_trip));
        }
    }
}

/// What a round of packets came to.
#[derive(Debug, PartialEq, Eq)]
struct Figures {
    sent: usize,
    received: usize,
    least: Micros,
    average: Micros,
    most: Micros,
    jitter: Micros,
}

impl Figures {
    /// `None` when nothing came back.
    fn of(took: &[Option<Micros>]) -> Option<Self> {
        let times: Vec<u64> = took.iter().flatten().map(|took| took.0.into()).collect();
        let micros = |us: u64| Micros(u32::try_from(us).unwrap_or(u32::MAX));
        let count = u64::try_from(times.len()).ok().filter(|count| *count > 0)?;
        let steps: Vec<u64> = times.windows(2).map(|pair| pair[0].abs_diff(pair[1])).collect();
        let neighbours = u64::try_from(steps.len().max(1)).unwrap_or(1);
        Some(Self {
            sent: took.len(),
            received: times.len(),
            least: micros(times.iter().copied().min()?),
            average: micros(times.iter().sum::<u64>() / count),
            most: micros(times.iter().copied().max()?),
            jitter: micros(steps.iter().sum::<u64>() / neighbours),
        })
    }

    /// Percent lost, rounded up: one of a thousand is not none.
    fn loss(&self) -> usize {
        ((self.sent - self.received) * 100).div_ceil(self.sent.max(1))
    }

    fn tell(&self, facts: &mut Vec<Fact>) {
        facts.push(Fact::new("received", self.received));
        facts.push(Fact::new("loss", format_args!("{} %", self.loss())));
        for (name, value) in
            [("least", self.least), ("average", self.average), ("most", self.most), ("jitter", self.jitter)]
        {
            facts.push(Fact::new(name, format_args!("{} us", value.0)));
        }
    }

    fn judge(&self, check: &Icmp) -> Result<(), Failure> {
        let over = |what: &str, value: Micros, most: Option<u32>| {
            let most = most?;
            let over = u64::from(value.0) > u64::from(most) * 1_000;
            over.then(|| format!("{what} of {} us is over {most} ms", value.0))
        };
        let loss = self.loss();
        let loss = (loss > usize::from(check.loss_max)).then(|| format!("{loss} % lost, over {} %", check.loss_max));
        let found = loss
            .or_else(|| over("a round trip", self.average, check.rtt_max_ms))
            .or_else(|| over("jitter", self.jitter, check.jitter_max_ms));
        found.map_or(Ok(()), |text| Err(Failure::judged(FailureKind::Content, text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_rounded_up_and_jitter_is_between_neighbours() {
        let figures = Figures::of(&[Some(Micros(100)), None, Some(Micros(300)), Some(Micros(200))]).expect("came back");
        assert_eq!(figures.loss(), 25);
        assert_eq!((figures.least, figures.average, figures.most), (Micros(100), Micros(200), Micros(300)));
        assert_eq!(figures.jitter, Micros(150));
        assert_eq!(Figures::of(&[None, None]), None);
        assert_eq!(Figures::of(&[Some(Micros(1)), Some(Micros(1)), None]).expect("came back").loss(), 34);
    }

    #[test]
    fn loss_time_and_jitter_each_have_their_limit() {
        let figures = Figures::of(&[Some(Micros(1_000)), None, Some(Micros(9_000))]).expect("came back");
        let fails = |check: Icmp| figures.judge(&check).err().map(|failure| failure.text);
        assert_eq!(fails(Icmp::default()), None, "one answer is enough");
        assert!(fails(Icmp { loss_max: 33, ..Icmp::default() }).is_some_and(|text| text.starts_with("34 % lost")));
        assert!(fails(Icmp { rtt_max_ms: Some(4), ..Icmp::default() }).is_some());
        assert_eq!(fails(Icmp { rtt_max_ms: Some(5), ..Icmp::default() }), None);
        assert!(fails(Icmp { jitter_max_ms: Some(7), ..Icmp::default() }).is_some());
    }

    /// F22: what a host without the right says.
    #[test]
    fn a_host_that_forbids_icmp_says_how_to_allow_it_and_blames_nobody() {
        let failure = not_opened(&io::Error::from(rustix::io::Errno::PERM));
        assert_eq!(failure.kind, FailureKind::Permission);
        assert!(failure.text.contains("ping_group_range"));
    }
}
