//! Probes: what every kind of check promises, and the one table of kinds.
//!
//! [`run`] carries out one check once and returns an [`Observation`]. It never returns an error, never
//! panics and never takes longer than the check's timeout: whatever the target, the network or this host
//! does becomes an [`Outcome`]. A failure that says nothing about the target (our resolver, descriptors,
//! rights, policy) has a [`FailureKind`] that counts as UNKNOWN.
//!
//! Promises each kind keeps:
//! - one new connection per visit, a full TLS handshake each time, nothing kept between two runs;
//! - one total deadline over all phases, tighter caps per early phase (see [`dial`]); at the end the socket
//!   is closed and its memory released;
//! - every phase that took place is timed apart; the phase in which it failed holds the time until then;
//! - what was learnt before a failure (address, certificate chain, status) stands in the [`Detail`];
//! - the address policy is asked about the resolved address of every connection, and that very address
//!   is dialled.
//!
//! Deliberately absent: retries (the contract decides what one failure means), scheduling, concurrency
//! limits (the scheduler holds the permit), and any state of a check.

pub mod certificate;
pub mod dial;
mod http;
mod location;
mod tcp;
mod tls;
pub mod trace;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::config::Network;
use peil_proto::plan::{CheckDef, CheckKind};
use peil_proto::sample::{FailureKind, Outcome, PHASES, Phases};
use peil_proto::time::WallClock;
use peil_proto::units::Micros;
use tokio::sync::Semaphore;

use certificate::{TlsConfigs, TlsFacts};
use dial::Deadline;

/// A kind of check as people meet it. The rest of a kind is its file.
pub struct Kind {
    /// Name in configuration.
    pub name: &'static str,
    /// What it finds out, in one sentence.
    pub about: &'static str,
    /// A target as one writes it on the command line.
    pub example: &'static str,
    /// The phases it can fill.
    pub phases: &'static [Phase],
    /// Reads a target from the command line: `None` when it is not written for this kind.
    pub read_target: fn(&str) -> Option<CheckKind>,
}

/// Every kind, in the order in which a target without a kind is tried.
pub const KINDS: &[Kind] = &[http::KIND, tls::KIND, tcp::KIND];

/// Carries out `def` once. Always answers within `def.timeout_ms`.
///
/// Needs a tokio runtime with time and I/O. Dropping the future ends the probe and closes its socket; a
/// name lookup in progress ends by itself on the blocking pool.
pub async fn run(def: &CheckDef, ctx: &ProbeContext) -> Observation {
    let deadline = Deadline::after_ms(def.timeout_ms);
    match &def.kind {
        CheckKind::Http { url, status, contains, ca_file, cert_days_min } => {
            let trust = Trust { ca_file: ca_file.as_deref(), cert_days_min: *cert_days_min };
            let wanted = http::Wanted { url, status, contains: contains.as_deref(), trust };
            Box::pin(http::run(&wanted, ctx, deadline)).await
        }
        CheckKind::Tcp { address } => Box::pin(tcp::run(address, ctx, deadline)).await,
        CheckKind::Tls { address, server_name, ca_file, cert_days_min } => {
            let trust = Trust { ca_file: ca_file.as_deref(), cert_days_min: *cert_days_min };
            Box::pin(tls::run(address, server_name.as_deref(), trust, ctx, deadline)).await
        }
    }
}

/// Everything wrong with `def` that shows without touching the network: what the vocabulary checks plus
/// what only this host knows (can the URL be dialled, can the CA file be read). Empty when it can run.
pub fn problems(def: &CheckDef, ctx: &ProbeContext) -> Vec<String> {
    let mut found = def.problems();
    let (server_name, ca_file) = match &def.kind {
        CheckKind::Http { url, ca_file, .. } => match location::Location::parse(url) {
            Ok(location) => (location.secure.then_some(location.host), ca_file),
            Err(why) => {
                // Without the URL: it may hold the very password that is refused here.
                found.push(format!("check {}: the url {why}", def.name));
                (None, ca_file)
            }
        },
        CheckKind::Tcp { .. } => (None, &None),
        CheckKind::Tls { address, server_name, ca_file, .. } => {
            let host = || peil_proto::plan::split_address(address).map(|(host, _)| host.to_owned());
            (server_name.clone().or_else(host), ca_file)
        }
    };
    if let Some(name) = server_name
        && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
    {
        found.push(format!("check {}: server name {name:?} is neither a DNS name nor an address", def.name));
    }
    if let Some(path) = ca_file
        && let Err(error) = ctx.tls.trusting(Some(path))
    {
        found.push(format!("check {}: {}", def.name, error.chain()));
    }
    found.dedup();
    found
}

/// What a certificate must satisfy beside being valid.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trust<'a> {
    /// PEM bundle to trust instead of the public roots.
    pub(crate) ca_file: Option<&'a str>,
    /// Days the leaf must still have.
    pub(crate) cert_days_min: Option<u16>,
}

/// What all probes of one agent share. Cheap to keep, meant to live as long as the agent.
#[derive(Debug)]
pub struct ProbeContext {
    clock: WallClock,
    addresses: AddressPolicy,
    tls: TlsConfigs,
    lookups: Arc<Semaphore>,
}

impl ProbeContext {
    /// A context that judges certificates by `clock` and dials what `addresses` allows.
    pub fn new(clock: WallClock, addresses: AddressPolicy) -> Self {
        let tls = TlsConfigs::new(clock.clone());
        Self { clock, addresses, tls, lookups: Arc::new(Semaphore::new(dial::LOOKUPS_MAX)) }
    }
}

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

/// A step of a probe, in the order of [`PHASES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Name to address.
    Resolve,
    /// TCP handshake.
    Connect,
    /// TLS handshake.
    Tls,
    /// Request sent until the first byte of the answer.
    FirstByte,
    /// First byte until the end of the answer.
    Transfer,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 5] = [Self::Resolve, Self::Connect, Self::Tls, Self::FirstByte, Self::Transfer];

    /// The name that stands in [`PHASES`].
    pub fn name(self) -> &'static str {
        PHASES[self as usize]
    }
}

/// What one run found: the [`Outcome`] and [`Phases`] go into the sample, the [`Detail`] is for people.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Up, or why not.
    pub outcome: Outcome,
    /// Time per phase, summed over hops.
    pub phases: Phases,
    /// What people need to understand the outcome.
    pub detail: Detail,
}

/// Evidence beside the outcome. Holds no headers and no body: those may carry secrets.
#[derive(Debug, Clone, Default)]
pub struct Detail {
    /// One entry per connection, in order; more than one only when redirects were followed. Never empty
    /// unless the check could not be started as it is defined.
    pub hops: Vec<Hop>,
    /// What went wrong, if anything.
    pub failure: Option<Failure>,
    /// How much of the answer was read (http, once the last hop's body began).
    pub body: Option<Body>,
}

/// One connection and what was learnt on it, as far as it got.
#[derive(Debug, Clone, Default)]
pub struct Hop {
    /// URL or `host:port`.
    pub target: String,
    /// The address that was dialled (or denied).
    pub peer: Option<SocketAddr>,
    /// Time per phase of this connection.
    pub phases: Phases,
    /// The certificates presented and what was agreed, also when they were refused.
    pub tls: Option<TlsFacts>,
    /// HTTP status.
    pub status: Option<u16>,
}

/// The failure that decided the outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// In which step; `None` when the steps all went well and what came back was judged (status, content,
    /// expiry), or when nothing could be started.
    pub phase: Option<Phase>,
    /// One lower-case sentence fragment.
    pub text: String,
}

/// The body of the last hop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Body {
    /// Bytes read, after removal of chunk framing.
    pub bytes: u64,
    /// True when reading stopped at the limit; the outcome was then judged on what had been read.
    pub truncated: bool,
}

impl Failure {
    fn during(phase: Phase, kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, phase: Some(phase), text: text.into() }
    }

    fn judged(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, phase: None, text: text.into() }
    }

    /// The definition cannot be carried out on this host (a URL that does not parse, a CA file that is
    /// gone): nothing was learnt about the target, so this must not count as DOWN.
    fn unusable(text: impl Into<String>) -> Self {
        Self::judged(FailureKind::LocalResource, text)
    }
}

impl Observation {
    /// Puts an observation together; `Ok` carries the protocol's code (HTTP status, else 0).
    fn from_end(hops: Vec<Hop>, body: Option<Body>, end: Result<u16, Failure>) -> Self {
        let code = hops.last().and_then(|hop| hop.status).unwrap_or(0);
        let (outcome, failure) = match end {
            Ok(code) => (Outcome::Up { code }, None),
            Err(failure) => (Outcome::Failed { kind: failure.kind, code }, Some(failure)),
        };
        let phases = hops.iter().map(|hop| hop.phases).fold(Phases::default(), sum);
        Self { outcome, phases, detail: Detail { hops, failure, body } }
    }
}

fn sum(a: Phases, b: Phases) -> Phases {
    let b = b.to_array();
    let mut total = a.to_array();
    for (into, more) in total.iter_mut().zip(b) {
        *into = match (*into, more) {
            (Some(x), Some(y)) => Some(Micros::saturating_add(x, y)),
            (one, other) => one.or(other),
        };
    }
    Phases::from_array(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_its_own_example_and_has_its_place_in_the_readme() {
        let readme = include_str!("probe/README.md");
        for kind in KINDS {
            let read = (kind.read_target)(kind.example).expect("reads its example");
            assert_eq!(read.name(), kind.name);
            assert!(readme.contains(&format!("| `{}` |", kind.name)), "{} is not in the README", kind.name);
            assert!(kind.phases.is_sorted(), "{}", kind.name);
        }
    }

    #[test]
    fn phases_have_the_names_of_the_vocabulary() {
        assert_eq!(Phase::ALL.map(Phase::name), PHASES);
    }

    #[test]
    fn link_local_and_metadata_addresses_are_denied_in_every_disguise() {
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

    #[test]
    fn phases_add_up_over_hops_and_absent_ones_stay_absent() {
        let first = Phases { connect: Some(Micros(3)), ..Phases::default() };
        let second = Phases { connect: Some(Micros(4)), tls: Some(Micros(9)), ..Phases::default() };
        let expected = Phases { connect: Some(Micros(7)), tls: Some(Micros(9)), ..Phases::default() };
        assert_eq!(sum(first, second), expected);
    }
}
