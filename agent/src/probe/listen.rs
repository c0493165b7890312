//! `listen`: whether something listens on a port of this host, read from `/proc/net`; nothing is connected to, so the
//! service notices nothing. Options: `peil_proto::plan::Listen`.
//!
//! A socket bound to all addresses also listens on the one that is asked about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use peil_proto::plan::{Listen, ListenAt};
use peil_proto::sample::FailureKind;

use super::dial::Deadline;
use super::host::kernel_text;
use super::{Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "listen",
    about: "looks whether something listens on a port of this host",
    example: "listen://tcp/443",
    phases: &[Phase::FirstByte],
};

pub(super) async fn run(check: &Listen, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.socket.clone(), ..Hop::default() };
    let end = match check.at() {
        Some(wanted) => {
            let proc = ctx.local.proc_dir.clone();
            ctx.host.look(deadline, &mut hop, move || look(&proc, wanted)).await
        }
        None => Err(Failure::unusable(format!("socket {:?} is not one", check.socket))),
    };
    Observation::from_end(vec![hop], None, end.map(|()| 0))
}

fn look(proc: &Path, wanted: ListenAt) -> Result<(), Failure> {
    let names = if wanted.udp { ["udp", "udp6"] } else { ["tcp", "tcp6"] };
    let mut tables = Vec::new();
    for name in names {
        tables.push(kernel_text(&proc.join("net").join(name)));
    }
    // A kernel without IPv6 has no second table; one without any cannot tell.
    if let [Err(first), Err(_)] = tables.as_slice() {
        return Err(first.clone());
    }
    let sockets = tables.iter().flatten().flat_map(|table| table.lines().skip(1).filter_map(bound));
    let state = if wanted.udp { 0x07 } else { 0x0a };
    let mut fitting = sockets.filter(|socket| socket.state == state && socket.port == wanted.port);
    let listens = fitting.any(|socket| {
        wanted.address.is_none_or(|address| socket.address.is_unspecified() || socket.address == address.to_canonical())
    });
    if listens { Ok(()) } else { Err(Failure::judged(FailureKind::Refused, "nobody listens there")) }
}

/// A socket as the kernel lists it.
#[derive(Debug, PartialEq, Eq)]
struct Bound {
    address: IpAddr,
    port: u16,
    state: u8,
}

/// A line of `/proc/net/tcp`: number, local address, remote address, state, … Addresses are words in the byte order of
/// the host, in hexadecimal.
fn bound(line: &str) -> Option<Bound> {
    let mut words = line.split_whitespace().skip(1);
    let (address, port) = words.next()?.split_once(':')?;
    let state = u8::from_str_radix(words.nth(1)?, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let address = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at * 8)?);
            }
            IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(Bound { address, port: u16::from_str_radix(port, 16).ok()?, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn lines_of_the_kernel_are_read_in_both_families() {
        let v4 = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000";
        let expected = Bound { address: "127.0.0.1".parse().expect("ip"), port: 8080, state: 10 };
        assert_eq!(bound(v4), Some(expected));
        let v6 = "   1: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A";
        assert_eq!(bound(v6).map(|socket| (socket.address.to_string(), socket.port)), Some(("::1".to_owned(), 22)));
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_a_socket_or_not(line in ".{0,120}", hex in "[0-9A-F:]{0,60}") {
            let _ = bound(&line);
            let _ = bound(&format!("0: {hex} {hex} 0A"));
        }
    }
}
