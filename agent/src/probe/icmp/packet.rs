//! Echo requests and what comes back (RFC 792, RFC 4443): bytes to values and the other way.
//!
//! Ours is known by 16 bytes at the start of its payload, random per probe, not by identifier and sequence number: the
//! kernel sets the identifier on an unprivileged socket, and translators rewrite it.

use std::net::IpAddr;

/// What marks the packets of one probe.
pub(super) type Mark = [u8; 14];

/// An echo request with this mark and number, ready to send; the kernel fills in identifier and, for IPv6, checksum.
pub(super) fn request(to: IpAddr, id: u16, number: u16, mark: Mark, size: usize) -> Vec<u8> {
    let mut packet = vec![if to.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&number.to_be_bytes());
    packet.extend_from_slice(&mark);
    packet.extend_from_slice(&number.to_be_bytes());
    packet.resize(8 + size.max(16), 0x5a);
    if to.is_ipv4() {
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// The number of our echo request that `packet` answers; `None` for everything else. `with_header`: an IPv4 header
/// stands in front, as raw sockets deliver it.
pub(super) fn answered(packet: &[u8], v4: bool, with_header: bool, mark: Mark) -> Option<u16> {
    let packet = if with_header { packet.get(usize::from(packet.first()? & 15) * 4..)? } else { packet };
    let reply = if v4 { 0 } else { 129 };
    let payload = packet.get(8..24)?;
    let ours = packet[0] == reply && packet[1] == 0 && payload[..14] == mark;
    ours.then(|| u16::from_be_bytes([payload[14], payload[15]]))
}

/// The checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f23_a_reply_is_known_by_its_mark_whatever_happened_to_its_identifier() {
        let to = IpAddr::from([127, 0, 0, 1]);
        let mut packet = request(to, 7, 3, [9; 14], 56);
        assert_eq!(packet.len(), 64);
        assert_eq!(checksum(&packet), 0, "a packet with its checksum sums up to nothing");
        assert_eq!(answered(&packet, true, false, [9; 14]), None, "a request is no reply");
        packet[0] = 0;
        packet[4..6].copy_from_slice(&[1, 2]);
        assert_eq!(answered(&packet, true, false, [9; 14]), Some(3));
        assert_eq!(answered(&packet, true, false, [8; 14]), None, "of another probe");
        let mut raw = vec![0x46; 24];
        raw.extend_from_slice(&packet);
        assert_eq!(answered(&raw, true, true, [9; 14]), Some(3), "behind a header with options");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_reply_or_not(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120),
            v4: bool,
            with_header: bool,
        ) {
            let _ = answered(&bytes, v4, with_header, [0; 14]);
        }
    }
}
