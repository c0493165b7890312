//! Opens connections for every kind of probe: resolve → connect → TLS, each phase timed and capped.
//!
//! - One address per attempt, the first in the resolver's order (so the host's own address selection
//!   rules), and it is reported. There is no happy eyeballs: a probe that silently falls back to the other
//!   family hides exactly the fault it should show.
//! - Names go through the system's resolver (`/etc/hosts`, nsswitch), on the blocking pool. A lookup cannot
//!   be cancelled, so at most [`LOOKUPS_MAX`] run at a time: a dead resolver costs that many threads, not
//!   one per check. An address in the target is not looked up, and has no resolve phase.
//! - No answer from the resolver, or one that says "try again", is our trouble ([`FailureKind::Resolver`]);
//!   only "there is no such name" is about the target.
//! - What was learnt is written into the [`Hop`] as it is learnt, so it is there when a later phase fails.
//!
//! TLS can also begin later on an open connection ([`Session::start`]): STARTTLS, or behind a proxy.
//!
//! Deliberately absent: source addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use peil_proto::plan::{Family, TlsOptions};
use peil_proto::sample::FailureKind;
use peil_proto::units::Micros;
use rustix::io::Errno;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::{Recorder, TlsFacts, TrustError, client_auth, failure_kind_of_tls};
use super::{Failure, Hop, Phase, ProbeContext};

/// Longest wait for the resolver. Then the probe fails with [`FailureKind::Resolver`].
pub const RESOLVE_MAX: Duration = Duration::from_secs(2);
/// Longest wait for the TCP handshake. Then the probe fails with [`FailureKind::Timeout`].
pub const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Longest wait for the TLS handshake. Then the probe fails with [`FailureKind::Timeout`].
pub const TLS_MAX: Duration = Duration::from_secs(3);
/// Name lookups that run at the same time. The others wait their turn within [`RESOLVE_MAX`], and that
/// failing is [`FailureKind::Resolver`]: unknown, not down.
pub const LOOKUPS_MAX: usize = 32;

/// The moment by which a probe must have ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// `timeout_ms` from now.
    pub(crate) fn after_ms(timeout_ms: u32) -> Self {
        Self(Instant::now() + Duration::from_millis(timeout_ms.into()))
    }

    /// Runs `work` for at most `cap` and never beyond the deadline: the time it took, and its answer
    /// unless it was cut off.
    pub(crate) async fn within<T>(self, cap: Duration, work: impl Future<Output = T>) -> (Micros, Option<T>) {
        let started = Instant::now();
        let answer = tokio::time::timeout_at(self.0.min(started + cap), work).await.ok();
        (Micros::from_duration(started.elapsed()), answer)
    }

    /// Runs `work` until the deadline: its answer unless it was cut off.
    pub(crate) async fn allows<T>(self, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.0, work).await.ok()
    }
}

/// Where to connect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint<'a> {
    /// Name or address, IPv6 without brackets.
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    /// Which addresses count; [`Family::Both`] is two endpoints.
    pub(crate) family: Family,
}

/// An open connection. Dropping it closes the socket.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to `to` and notes in `hop` what it learns on the way.
///
/// # Errors
/// The [`Failure`] that ended the attempt, with its phase.
pub(crate) async fn dial(
    to: Endpoint<'_>,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<Stream, Failure> {
    let peer = locate(to, ctx, deadline, hop).await?;
    Ok(Stream::Plain(connect(peer, deadline, hop).await?))
}

/// A socket for datagrams to and from `to` only.
///
/// # Errors
/// The [`Failure`] that ended the attempt, with its phase.
pub(crate) async fn datagrams(
    to: Endpoint<'_>,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<UdpSocket, Failure> {
    let peer = locate(to, ctx, deadline, hop).await?;
    let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let open = async {
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(peer).await.map(|()| socket)
    };
    open.await.map_err(|error| {
        let kind = failure_kind_of_io(&error, FailureKind::LocalResource);
        Failure::during(Phase::Connect, kind, format!("{peer}: {error}"))
    })
}

/// The address of `to`, when the policy of this host allows it.
///
/// # Errors
/// The [`Failure`] that ended the attempt, with its phase.
pub(crate) async fn locate(
    to: Endpoint<'_>,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<SocketAddr, Failure> {
    let peer = resolve(to, ctx, deadline, hop).await?;
    hop.peer = Some(peer);
    match ctx.addresses.refusal(peer.ip()) {
        Some(why) => Err(Failure::during(Phase::Connect, FailureKind::Denied, format!("{}: {why}", peer.ip()))),
        None => Ok(peer),
    }
}

fn is_of(family: Family, ip: IpAddr) -> bool {
    match family {
        Family::Any | Family::Both => true,
        Family::V4 => ip.is_ipv4(),
        Family::V6 => ip.is_ipv6(),
    }
}

async fn resolve(
    to: Endpoint<'_>,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<SocketAddr, Failure> {
    let host = to.host;
    let wanted = match to.family {
        Family::V4 => "IPv4 address",
        Family::V6 => "IPv6 address",
        Family::Any | Family::Both => "address",
    };
    let none = || Failure::during(Phase::Resolve, FailureKind::NoSuchName, format!("{host} has no {wanted}"));
    if let Ok(ip) = host.parse::<IpAddr>() {
        return if is_of(to.family, ip) { Ok(SocketAddr::new(ip, to.port)) } else { Err(none()) };
    }
    let looking = lookup(host.to_owned(), to.port, to.family, Arc::clone(&ctx.lookups));
    let (took, answer) = deadline.within(RESOLVE_MAX, looking).await;
    hop.phases.resolve = Some(took);
    let (kind, text) = match answer {
        Some(Ok(Some(address))) => return Ok(address),
        Some(Ok(None)) => return Err(none()),
        Some(Err(error)) => (failure_kind_of_lookup(&error), format!("{host}: {error}")),
        None => (FailureKind::Resolver, format!("{host}: no answer from the resolver")),
    };
    Err(Failure::during(Phase::Resolve, kind, text))
}

/// The permit goes along onto the blocking thread: it is given back when the lookup has really ended, not
/// when we stopped waiting for it.
async fn lookup(host: String, port: u16, family: Family, slots: Arc<Semaphore>) -> io::Result<Option<SocketAddr>> {
    let permit = slots.acquire_owned().await.map_err(io::Error::other)?;
    let looking = tokio::task::spawn_blocking(move || {
        let found = (host.as_str(), port).to_socket_addrs();
        let found = found.map(|mut addresses| addresses.find(|address| is_of(family, address.ip())));
        drop(permit);
        found
    });
    looking.await.map_err(io::Error::other)?
}

async fn connect(peer: SocketAddr, deadline: Deadline, hop: &mut Hop) -> Result<TcpStream, Failure> {
    let (took, answer) = deadline.within(CONNECT_MAX, TcpStream::connect(peer)).await;
    hop.phases.connect = Some(took);
    let fail = |kind, text| Err(Failure::during(Phase::Connect, kind, text));
    match answer {
        Some(Ok(socket)) => {
            // Without this, Nagle's algorithm would hold back the second half of a handshake and be
            // measured as the target's latency. A socket that cannot do it still works.
            let _ = socket.set_nodelay(true);
            Ok(socket)
        }
        Some(Err(error)) => fail(failure_kind_of_io(&error, FailureKind::Unreachable), format!("{peer}: {error}")),
        None => fail(FailureKind::Timeout, format!("{peer}: no answer to the connection request")),
    }
}

/// A TLS session before its socket: one per connection.
pub(crate) struct Session {
    server_name: ServerName<'static>,
    recorder: Arc<Recorder>,
    connector: TlsConnector,
}

impl Session {
    /// Gets ready to speak TLS with `host`. Done before anything is dialled: a definition that cannot be carried out
    /// must not be taken for a target that is down.
    ///
    /// # Errors
    /// Why this host cannot do it.
    pub(crate) fn prepare(
        host: &str,
        options: &TlsOptions,
        alpn: Vec<Vec<u8>>,
        ctx: &ProbeContext,
    ) -> Result<Self, Failure> {
        let name = options.server_name.as_deref().unwrap_or(host);
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| Failure::unusable(format!("server name {name:?} is neither a DNS name nor an address")))?;
        let trusted = ctx.tls.trusting(options).map_err(TrustError::into_failure)?;
        let recorder = Arc::new(Recorder::new(&trusted));
        let config = trusted.config(&recorder, alpn, client_auth(options, ctx)?);
        Ok(Self { server_name, recorder, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Goes over to TLS on an open connection.
    ///
    /// # Errors
    /// The [`Failure`] that ended the handshake.
    pub(crate) async fn start(self, on: Stream, deadline: Deadline, hop: &mut Hop) -> Result<Stream, Failure> {
        match on {
            Stream::Plain(socket) => self.shake_hands(socket, deadline, hop).await,
            Stream::Tls(_) => Err(Failure::unusable("TLS cannot begin twice on one connection")),
        }
    }

    async fn shake_hands(self, socket: TcpStream, deadline: Deadline, hop: &mut Hop) -> Result<Stream, Failure> {
        let name = self.server_name.to_str().into_owned();
        let (took, answer) = deadline.within(TLS_MAX, self.connector.connect(self.server_name, socket)).await;
        hop.phases.tls = Some(took);
        hop.tls = self.recorder.presented().map(|chain| TlsFacts::of_chain(name, chain));
        let fail = |kind, text: String| Err(Failure::during(Phase::Tls, kind, text));
        match answer {
            Some(Ok(stream)) => {
                if let Some(facts) = &mut hop.tls {
                    facts.note_agreed(stream.get_ref().1);
                }
                Ok(Stream::Tls(Box::new(stream)))
            }
            Some(Err(error)) => fail(failure_kind_of_io(&error, FailureKind::Closed), error.to_string()),
            None => fail(FailureKind::Timeout, "the TLS handshake did not end".to_owned()),
        }
    }
}

/// What an error of the socket, or of the TLS session on it, says; `otherwise` when it says nothing known.
pub(crate) fn failure_kind_of_io(error: &io::Error, otherwise: FailureKind) -> FailureKind {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return failure_kind_of_tls(tls);
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return FailureKind::Closed;
    }
    match Errno::from_io_error(error) {
        // A host without IPv6 answers AFNOSUPPORT or, when it is switched off, ADDRNOTAVAIL.
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT) => {
            FailureKind::LocalResource
        }
        Some(Errno::ACCESS | Errno::PERM) => FailureKind::Permission,
        Some(Errno::NETDOWN) => FailureKind::VantageDown,
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH) => FailureKind::Unreachable,
        Some(Errno::CONNREFUSED) => FailureKind::Refused,
        Some(Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE | Errno::NOTCONN) => FailureKind::Closed,
        Some(Errno::TIMEDOUT) => FailureKind::Timeout,
        _ => otherwise,
    }
}

/// What the resolver's error says. The standard library keeps the text of getaddrinfo and drops its number,
/// so the texts for "no such name" of glibc, musl and the BSDs stand here; whatever is not among them is
/// taken as the resolver's own trouble, which errs towards UNKNOWN, never towards DOWN.
fn failure_kind_of_lookup(error: &io::Error) -> FailureKind {
    const NO_SUCH_NAME: [&str; 6] = [
        "Name or service not known",
        "No address associated with hostname",
        "Address family for hostname not supported",
        "Name does not resolve",
        "Name has no usable address",
        "nodename nor servname provided",
    ];
    let text = error.to_string();
    if NO_SUCH_NAME.iter().any(|known| text.contains(known)) {
        return FailureKind::NoSuchName;
    }
    failure_kind_of_io(error, FailureKind::Resolver)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(session) => Pin::new(session).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(session) => Pin::new(session).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(session) => Pin::new(session).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(session) => Pin::new(session).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_shortages_are_told_apart_from_the_targets_answers() {
        for (errno, expected) in [
            (Errno::MFILE, FailureKind::LocalResource),
            (Errno::NFILE, FailureKind::LocalResource),
            (Errno::ADDRNOTAVAIL, FailureKind::LocalResource),
            (Errno::NOMEM, FailureKind::LocalResource),
            (Errno::ACCESS, FailureKind::Permission),
            (Errno::PERM, FailureKind::Permission),
            (Errno::NETDOWN, FailureKind::VantageDown),
            (Errno::NETUNREACH, FailureKind::Unreachable),
            (Errno::HOSTUNREACH, FailureKind::Unreachable),
            (Errno::CONNREFUSED, FailureKind::Refused),
            (Errno::CONNRESET, FailureKind::Closed),
            (Errno::PIPE, FailureKind::Closed),
            (Errno::TIMEDOUT, FailureKind::Timeout),
            (Errno::INVAL, FailureKind::Protocol),
        ] {
            let error = io::Error::from(errno);
            assert_eq!(failure_kind_of_io(&error, FailureKind::Protocol), expected, "{error}");
        }
        let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(failure_kind_of_io(&ended, FailureKind::Protocol), FailureKind::Closed);
    }

    #[test]
    fn only_an_answer_that_the_name_is_not_there_speaks_about_the_target() {
        for (text, expected) in [
            ("failed to lookup address information: Name or service not known", FailureKind::NoSuchName),
            ("failed to lookup address information: No address associated with hostname", FailureKind::NoSuchName),
            ("failed to lookup address information: Name does not resolve", FailureKind::NoSuchName),
            ("failed to lookup address information: Temporary failure in name resolution", FailureKind::Resolver),
            ("failed to lookup address information: Try again", FailureKind::Resolver),
            ("failed to lookup address information: Non-recoverable failure in name resolution", FailureKind::Resolver),
            ("something nobody has seen before", FailureKind::Resolver),
        ] {
            assert_eq!(failure_kind_of_lookup(&io::Error::other(text)), expected, "{text}");
        }
        assert_eq!(failure_kind_of_lookup(&io::Error::from(Errno::MFILE)), FailureKind::LocalResource);
    }

    /// Stands in for a resolver that never answers: every slot is taken.
    #[tokio::test]
    async fn a_resolver_without_an_answer_is_our_trouble_and_ends_with_the_deadline() {
        let ctx = ProbeContext::new(peil_proto::time::WallClock::System, super::super::AddressPolicy::AllowAll);
        let taken = ctx.lookups.clone().acquire_many_owned(32).await.expect("free slots");
        let mut hop = Hop::default();
        let deadline = Deadline::after_ms(30);
        let to = Endpoint { host: "localhost", port: 1, family: Family::Any };
        let failure = resolve(to, &ctx, deadline, &mut hop).await.expect_err("no slot");
        assert_eq!((failure.kind, failure.phase), (FailureKind::Resolver, Some(Phase::Resolve)));
        assert!(hop.phases.resolve.is_some_and(|took| took >= Micros(30_000)), "{:?}", hop.phases);
        drop(taken);
        let found = resolve(to, &ctx, Deadline::after_ms(60_000), &mut hop).await;
        assert!(found.is_ok_and(|address| address.ip().is_loopback()));
    }
}
