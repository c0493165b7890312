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

mod addresses;
pub mod certificate;
mod cpu;
pub mod dial;
pub mod dialogue;
pub mod dns;
pub mod exec;
mod file;
mod grpc;
pub mod heartbeat;
mod host;
mod http;
mod icmp;
mod listen;
mod location;
mod memory;
mod mount;
mod mysql;
pub mod ntp;
mod postgres;
mod pressure;
mod process;
mod redis;
mod secret;
mod talk;
mod tcp;
mod tls;
pub mod trace;
mod udp;
mod unit;
mod websocket;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use peil_proto::plan::{CheckDef, CheckKind, Family, TlsOptions, split_address};
use peil_proto::sample::{FailureKind, Outcome, PHASES, Phases, State};
use peil_proto::time::WallClock;
use peil_proto::units::Micros;
use tokio::sync::Semaphore;

pub use addresses::AddressPolicy;
use certificate::{TlsConfigs, TlsFacts};
use dial::Deadline;
use host::Host;
use secret::Secrets;
use trace::Safe;

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
}

/// Every kind, in the order of the vocabulary (`CheckKind::WORDS`).
pub const KINDS: &[Kind] = &[
    http::KIND,
    tls::KIND,
    tcp::KIND,
    udp::KIND,
    dns::KIND,
    icmp::KIND,
    ntp::KIND,
    grpc::KIND,
    websocket::KIND,
    postgres::KIND,
    mysql::KIND,
    redis::KIND,
    unit::KIND,
    process::KIND,
    listen::KIND,
    file::KIND,
    mount::KIND,
    cpu::KIND,
    memory::KIND,
    pressure::KIND,
    exec::KIND,
    heartbeat::KIND,
];

/// Carries out `def` once. Always answers within `def.timeout_ms`.
///
/// Needs a tokio runtime with time and I/O. Dropping the future ends the probe and closes its socket; a
/// name lookup in progress ends by itself on the blocking pool.
pub async fn run(def: &CheckDef, ctx: &ProbeContext) -> Observation {
    let end = Deadline::after_ms(def.timeout_ms);
    match &def.kind {
        CheckKind::Http(check) => over(check.family, |family| http::run(check, family, ctx, end)).await,
        CheckKind::Tls(check) => over(check.family, |family| tls::run(check, family, ctx, end)).await,
        CheckKind::Tcp(check) => over(check.family, |family| tcp::run(check, family, ctx, end)).await,
        CheckKind::Udp(check) => over(check.family, |family| udp::run(check, family, ctx, end)).await,
        CheckKind::Dns(check) => over(check.family, |family| dns::run(check, family, ctx, end)).await,
        CheckKind::Icmp(check) => over(check.family, |family| icmp::run(check, family, ctx, end)).await,
        CheckKind::Ntp(check) => over(check.family, |family| ntp::run(check, family, ctx, end)).await,
        CheckKind::Grpc(check) => over(check.family, |family| grpc::run(check, family, ctx, end)).await,
        CheckKind::WebSocket(check) => over(check.family, |family| websocket::run(check, family, ctx, end)).await,
        CheckKind::Postgres(check) => over(check.family, |family| postgres::run(check, family, ctx, end)).await,
        CheckKind::Mysql(check) => over(check.family, |family| mysql::run(check, family, ctx, end)).await,
        CheckKind::Redis(check) => over(check.family, |family| redis::run(check, family, ctx, end)).await,
        CheckKind::Unit(check) => unit::run(check, ctx, end).await,
        CheckKind::Process(check) => process::run(check, ctx, end).await,
        CheckKind::Listen(check) => listen::run(check, ctx, end).await,
        CheckKind::File(check) => file::run(check, ctx, end).await,
        CheckKind::Mount(check) => mount::run(def.no, check, ctx, end).await,
        CheckKind::Cpu(check) => cpu::run(def.no, check, ctx, end).await,
        CheckKind::Memory(check) => memory::run(def.no, check, ctx, end).await,
        CheckKind::Pressure(check) => pressure::run(def.no, check, ctx, end).await,
        CheckKind::Exec(check) => exec::run(check, ctx, end).await,
        CheckKind::Heartbeat(check) => heartbeat::run(check, ctx, end).await,
        CheckKind::Unknown(check) => Observation::from_end(Vec::new(), None, Err(Failure::unusable(&check.why))),
    }
}

/// Runs a probe over one family, or over both side by side, so that one that hangs does not delay the other.
async fn over<'a, F>(family: Family, probe: impl Fn(Family) -> F) -> Observation
where
    F: Future<Output = Observation> + 'a,
{
    if family != Family::Both {
        return Box::pin(probe(family)).await;
    }
    let (v4, v6) = tokio::join!(Box::pin(probe(Family::V4)), Box::pin(probe(Family::V6)));
    Observation::of_both(v4, v6)
}

/// Everything wrong with `def` that shows without touching the network: what the vocabulary checks plus
/// what only this host knows (can the URL be dialled, can the CA file be read). Empty when it can run.
pub fn problems(def: &CheckDef, ctx: &ProbeContext) -> Vec<String> {
    let mut found = def.problems();
    let host_of = |address: &str| split_address(address).map(|(host, _)| host.to_owned());
    let (host, tls) = match &def.kind {
        CheckKind::Http(http) => match location::Location::parse(&http.url) {
            Ok(location) => (location.secure.then_some(location.host), Some(&http.tls)),
            Err(why) => {
                // Without the URL: it may hold the very password that is refused here.
                found.push(format!("check {}: the url {why}", def.name));
                (None, Some(&http.tls))
            }
        },
        CheckKind::Tls(tls) => (host_of(&tls.address), Some(&tls.tls)),
        CheckKind::Tcp(tcp) => (None, Some(&tcp.tls)),
        CheckKind::Dns(dns) => (None, Some(&dns.tls)),
        CheckKind::Grpc(grpc) => (host_of(&grpc.address), Some(&grpc.tls)),
        CheckKind::WebSocket(socket) => (None, Some(&socket.tls)),
        CheckKind::Postgres(postgres) => (None, Some(&postgres.tls)),
        CheckKind::Mysql(mysql) => (None, Some(&mysql.tls)),
        CheckKind::Redis(redis) => (None, Some(&redis.tls)),
        // Nothing of TLS in them.
        _ => (None, None),
    };
    if let Some(tls) = tls {
        found.extend(tls_problems(host, tls, ctx).into_iter().map(|what| format!("check {}: {what}", def.name)));
    }
    found.dedup();
    found
}

fn tls_problems(host: Option<String>, tls: &TlsOptions, ctx: &ProbeContext) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(name) = tls.server_name.clone().or(host)
        && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
    {
        found.push(format!("server name {name:?} is neither a DNS name nor an address"));
    }
    if tls.ca_file.is_some()
        && let Err(error) = ctx.tls.trusting(tls)
    {
        found.push(error.chain());
    }
    if let Err(failure) = certificate::client_auth(tls, ctx) {
        found.push(failure.text);
    }
    found
}

/// What all probes of one agent share. Cheap to keep, meant to live as long as the agent.
#[derive(Debug)]
pub struct ProbeContext {
    clock: WallClock,
    addresses: AddressPolicy,
    tls: TlsConfigs,
    lookups: Arc<Semaphore>,
    secrets: Secrets,
    host: Host,
    local: Local,
}

/// Where on this host a probe may look for what a plan only names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Secrets of checks are files in here.
    pub secrets_dir: PathBuf,
    /// The commands that `exec` may run; only root may write it.
    pub commands_file: PathBuf,
    /// Where `peil-agent report` leaves its reports.
    pub reports_dir: PathBuf,
    /// The kernel's files about processes.
    pub proc_dir: PathBuf,
    /// The program that knows about units.
    pub systemctl: PathBuf,
}

impl Default for Local {
    fn default() -> Self {
        Self {
            secrets_dir: "/etc/peil/secrets".into(),
            commands_file: "/etc/peil/commands.toml".into(),
            reports_dir: "/var/lib/peil-agent/reports".into(),
            proc_dir: "/proc".into(),
            systemctl: "/usr/bin/systemctl".into(),
        }
    }
}

impl ProbeContext {
    /// A context that judges certificates by `clock` and dials what `addresses` allows.
    pub fn new(clock: WallClock, addresses: AddressPolicy) -> Self {
        Self::on_host(clock, addresses, Local::default())
    }

    /// The same, with the places of this host.
    pub fn on_host(clock: WallClock, addresses: AddressPolicy, local: Local) -> Self {
        Self {
            tls: TlsConfigs::new(clock.clone()),
            clock,
            addresses,
            lookups: Arc::new(Semaphore::new(dial::LOOKUPS_MAX)),
            secrets: Secrets::new(local.secrets_dir.clone()),
            host: Host::new(),
            local,
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
    /// What was measured or read beside the phases, in the order in which it was learnt.
    pub facts: Vec<Fact>,
}

/// Something measured or read: `loss` `20 %`. Never a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Its name, lower case.
    pub name: String,
    /// Its value with its unit.
    pub value: String,
}

impl Fact {
    /// What a peer sent may hold anything: what would move a terminal's cursor is written out.
    fn new(name: impl Into<String>, value: impl std::fmt::Display) -> Self {
        Self { name: name.into(), value: Safe(&value.to_string()).to_string() }
    }
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

/// A peer for people: kinds without ports (`icmp`) have none to show.
pub fn peer_text(peer: SocketAddr) -> String {
    if peer.port() == 0 { peer.ip().to_string() } else { peer.to_string() }
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
        Self { outcome, phases, detail: Detail { hops, failure, body, facts: Vec::new() } }
    }

    /// The same with what was learnt beside the phases.
    fn with_facts(mut self, facts: Vec<Fact>) -> Self {
        self.detail.facts = facts;
        self
    }

    /// One observation of two, over IPv4 and IPv6: up when both are, else what the worse one says (down before
    /// unknown). The phases are those of the one that decided, the slower one when both are up.
    fn of_both(v4: Self, v6: Self) -> Self {
        let rank = |seen: &Self| match seen.outcome.state() {
            State::Up => 0,
            State::Unknown => 1,
            State::Down => 2,
        };
        let key = |seen: &Self| (rank(seen), seen.phases.total());
        let second_decides = key(&v6) > key(&v4);
        let decides = if second_decides { &v6 } else { &v4 };
        let (outcome, phases) = (decides.outcome, decides.phases);
        let family = if second_decides { "IPv6" } else { "IPv4" };
        let failure = decides.detail.failure.clone().map(|mut failure| {
            failure.text = format!("over {family}: {}", failure.text);
            failure
        });
        let body = decides.detail.body;
        let hops = [v4.detail.hops, v6.detail.hops].concat();
        let facts = [v4.detail.facts, v6.detail.facts].concat();
        Self { outcome, phases, detail: Detail { hops, failure, body, facts } }
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
        let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(names, CheckKind::WORDS, "every kind of the vocabulary stands in the table");
        for kind in KINDS {
            let read = trace::kind_of(kind.example, None, &[]).expect("reads its example");
            assert_eq!(read.name(), kind.name);
            assert_eq!(read.problems(), Vec::<String>::new(), "{}", kind.name);
            assert!(readme.contains(&format!("| `{}` |", kind.name)), "{} is not in the README", kind.name);
            assert!(kind.phases.is_sorted(), "{}", kind.name);
        }
    }

    /// Found by fuzzing: a TXT record of zeros was told as it came.
    #[test]
    fn what_a_peer_sent_prints_safely() {
        assert_eq!(Fact::new("answer", "TXT a\0\u{1b}[2Jé").value, "TXT a\\u{0}\\u{1b}[2Jé");
    }

    #[test]
    fn phases_have_the_names_of_the_vocabulary() {
        assert_eq!(Phase::ALL.map(Phase::name), PHASES);
    }

    #[test]
    fn over_both_families_the_worse_one_decides_and_down_is_worse_than_unknown() {
        let seen = |end| Observation::from_end(vec![Hop::default()], None, end);
        let failed = |kind| seen(Err(Failure::judged(kind, "x")));
        let outcome = |v4, v6| Observation::of_both(v4, v6).outcome.state();
        assert_eq!(outcome(seen(Ok(0)), seen(Ok(0))), State::Up);
        assert_eq!(outcome(seen(Ok(0)), failed(FailureKind::Refused)), State::Down);
        assert_eq!(outcome(failed(FailureKind::LocalResource), seen(Ok(0))), State::Unknown);
        let both = Observation::of_both(failed(FailureKind::LocalResource), failed(FailureKind::Timeout));
        assert_eq!(both.outcome.state(), State::Down);
        assert_eq!(both.detail.failure.map(|failure| failure.text), Some("over IPv6: x".to_owned()));
        assert_eq!(both.detail.hops.len(), 2);
    }

    #[test]
    fn phases_add_up_over_hops_and_absent_ones_stay_absent() {
        let first = Phases { connect: Some(Micros(3)), ..Phases::default() };
        let second = Phases { connect: Some(Micros(4)), tls: Some(Micros(9)), ..Phases::default() };
        let expected = Phases { connect: Some(Micros(7)), tls: Some(Micros(9)), ..Phases::default() };
        assert_eq!(sum(first, second), expected);
    }
}
