//! Which addresses may be dialled: the guard against a check, a redirect or a name that leads a probe where it must
//! not go (server-side request forgery).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::Network;

/// Which addresses may be dialled. Asked about the resolved address, at every hop: a name, a redirect or
/// an odd spelling of an address cannot get around it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AddressPolicy {
    /// Any address.
    AllowAll,
    /// Any address except link-local ones and the metadata services of clouds: 169.254.0.0/16, fe80::/10,
    /// fd00:ec2::254, and the IPv4 range in its IPv6 disguises (mapped, compatible, NAT64).
    #[default]
    DenyLinkLocal,
    /// These networks and no other address; link-local ones only when named.
    Only(Vec<Network>),
}

impl AddressPolicy {
    /// Why `ip` may not be dialled; `None` when it may.
    pub fn refusal(&self, ip: IpAddr) -> Option<&'static str> {
        match self {
            Self::Only(networks) if networks.iter().any(|network| network.contains(ip)) => None,
            Self::Only(_) => Some("the policy of this host does not name its network"),
            Self::AllowAll => None,
            Self::DenyLinkLocal => denied_by_default(ip),
        }
    }
}

fn denied_by_default(ip: IpAddr) -> Option<&'static str> {
    const METADATA_AWS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);
    const NAT64: [u16; 6] = [0x0064, 0xff9b, 0, 0, 0, 0];
    match ip {
        IpAddr::V4(v4) => v4.is_link_local().then_some("link-local and metadata addresses are denied"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local addresses are denied"),
        IpAddr::V6(METADATA_AWS_V6) => Some("metadata addresses are denied"),
        IpAddr::V6(v6) => {
            let [_, _, _, _, _, _, high, low] = v6.segments();
            let behind_nat64 = (v6.segments()[..6] == NAT64).then(|| {
                let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                Ipv4Addr::new(a, b, c, d)
            });
            denied_by_default(IpAddr::V4(behind_nat64.or_else(|| v6.to_ipv4())?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f14_link_local_and_metadata_addresses_are_denied_in_every_disguise() {
        for (address, denied) in [
            ("169.254.169.254", true),
            ("169.254.0.1", true),
            ("::ffff:169.254.169.254", true),
            ("::169.254.169.254", true),
            ("64:ff9b::169.254.169.254", true),
            ("fe80::1", true),
            ("febf::1", true),
            ("fd00:ec2::254", true),
            ("169.253.255.255", false),
            ("127.0.0.1", false),
            ("::1", false),
            ("10.0.0.1", false),
            ("fd00::1", false),
            ("fec0::1", false),
            ("::ffff:10.0.0.1", false),
            ("64:ff9b::8.8.8.8", false),
        ] {
            let ip: IpAddr = address.parse().expect("an address");
            assert_eq!(AddressPolicy::default().refusal(ip).is_some(), denied, "{address}");
            assert_eq!(AddressPolicy::AllowAll.refusal(ip), None, "{address}");
        }
    }
}
