//! `udp`: sends one datagram; up when an answer comes that matches. Options: `peil_proto::plan::Udp`.
//!
//! One datagram, never repeated: a path that loses is what shall show. The first answer decides; only datagrams from
//! the address that was asked are seen. `first_byte` is the round trip.

use peil_proto::plan::{Family, Udp, split_address};
use peil_proto::sample::FailureKind;
use peil_proto::units::Micros;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::dial::{Deadline, Endpoint, datagrams, failure_kind_of_io};
use super::dialogue::for_people;
use super::{Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "udp",
    about: "sends a datagram and expects an answer",
    example: "udp://game.example.org:27015",
    phases: &[Phase::Resolve, Phase::FirstByte],
};

/// Bytes of an answer that are looked at: all that a datagram can hold.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_535;

pub(super) async fn run(check: &Udp, family: Family, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.address.clone(), ..Hop::default() };
    let end = ask(check, family, ctx, deadline, &mut hop).await.map(|()| 0);
    Observation::from_end(vec![hop], None, end)
}

async fn ask(
    check: &Udp,
    family: Family,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<(), Failure> {
    let Some((host, port)) = split_address(&check.address) else {
        return Err(Failure::unusable(format!("address {:?} is not host:port", check.address)));
    };
    let Some(datagram) = check.datagram() else { return Err(Failure::unusable("send_hex is not hexadecimal")) };
    let socket = datagrams(Endpoint { host, port, family }, ctx, deadline, hop).await?;
    let mut answer = None;
    exchange(&socket, &datagram, deadline, hop, |bytes| {
        answer = Some(bytes.to_vec());
        true
    })
    .await?;
    let answer = answer.unwrap_or_default();
    if check.expect.as_ref().is_none_or(|wanted| wanted.is_match(&answer)) {
        return Ok(());
    }
    let shown = for_people(&answer);
    Err(Failure::judged(FailureKind::Content, format!("{} bytes that do not match: {shown:?}", answer.len())))
}

/// Sends `datagram` and shows each answer to `is_it` until one is; notes the round trip.
pub(super) async fn exchange(
    socket: &UdpSocket,
    datagram: &[u8],
    deadline: Deadline,
    hop: &mut Hop,
    mut is_it: impl FnMut(&[u8]) -> bool,
) -> Result<(), Failure> {
    let asked = Instant::now();
    let work = async {
        socket.send(datagram).await?;
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let length = socket.recv(&mut buffer).await?;
            if is_it(&buffer[..length]) {
                return Ok::<_, std::io::Error>(());
            }
        }
    };
    let end = deadline.allows(work).await;
    hop.phases.first_byte = Some(Micros::from_duration(asked.elapsed()));
    let fail = |kind, text: String| Err(Failure::during(Phase::FirstByte, kind, text));
    match end {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => fail(failure_kind_of_io(&error, FailureKind::Unreachable), error.to_string()),
        None => fail(FailureKind::Timeout, "no answer".to_owned()),
    }
}
