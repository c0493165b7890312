//! One connection to the collector, or the exact reason why not.
//!
//! Name, TCP, TLS and the first answer are separate stages with separate time limits and errors, because
//! each has another remedy. The last stage matters most: in TLS 1.3 the client is done before the server
//! has looked at the client's certificate, so a refusal arrives where the first answer should. Waiting for
//! the first bytes of HTTP/2 (every server sends its settings at once) turns "connection reset" in some
//! later call into "your certificate is revoked" here.
//!
//! A [`Channel`] is this one connection. When it ends, calls fail and the caller connects anew with its
//! own back-off; nothing reconnects behind its back with a certificate that was renewed since.
//!
//! Deliberately absent: proxies, racing addresses (they are tried in the resolver's order).

pub mod first_word;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::identity::PinMismatch;
use first_word::{FirstWord, Word};

/// Addresses tried of one name; the rest are left for the next attempt.
const ADDRESSES_MAX: usize = 4;

/// A ping this often, also when nothing is said: finds a dead path before the next batch does.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A ping unanswered for so long ends the connection.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(10);

/// The longest each stage may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Finding the addresses of the name.
    pub resolve: Duration,
    /// Each address.
    pub connect: Duration,
    /// The TLS handshake.
    pub handshake: Duration,
    /// The collector's first bytes after it.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let ten = Duration::from_secs(10);
        Self { resolve: Duration::from_secs(5), connect: ten, handshake: ten, answer: ten }
    }
}

/// A part of connecting, for the error message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Finding the addresses of the name.
    Resolve,
    /// TCP.
    Connect,
    /// TLS.
    Handshake,
    /// The collector's first bytes.
    Answer,
}

/// What the collector has against our certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too old, or our clock or the collector's is wrong.
    Expired,
    /// An operator revoked this agent.
    Revoked,
    /// Made by another authority: the collector was set up anew, or is another one.
    Unknown,
    /// Not an agent's certificate.
    NotAnAgent,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not something to connect to.
    #[error("{url:?} is not the address of a collector: {reason} (example: https://peil.example.org:7443)")]
    BadUrl {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The resolver knows no address.
    #[error("cannot find the address of {host}")]
    NameNotFound {
        /// The name.
        host: String,
        /// What the resolver says.
        #[source]
        source: io::Error,
    },
    /// A machine answered, but nothing listens there.
    #[error("{address} refuses the connection: is the collector running, and is the port right?")]
    Refused {
        /// The last address tried.
        address: SocketAddr,
    },
    /// No route, filtered, local trouble.
    #[error("cannot reach {address}")]
    Unreachable {
        /// The last address tried.
        address: SocketAddr,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A stage took longer than it may.
    #[error("no answer from {host} within {} ms ({stage})", limit.as_millis())]
    TimedOut {
        /// Whom we wanted.
        host: String,
        /// Which part.
        stage: Stage,
        /// Its limit.
        limit: Duration,
    },
    /// The token is of another collector, or somebody stands in between.
    #[error(transparent)]
    NotTheTokensCollector(PinMismatch),
    /// Not signed by the authority this host was enrolled with.
    #[error(
        "{host} shows a certificate that our authority did not sign: it is another server, or the collector was set up anew"
    )]
    ServerNotTrusted {
        /// Whom we wanted.
        host: String,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// The collector's certificate is past its end, or our clock is ahead.
    #[error("the certificate of {host} has expired: check the clock of this machine, then the collector")]
    ServerExpired {
        /// Whom we wanted.
        host: String,
    },
    /// The collector's certificate is before its start, or our clock is behind.
    #[error("the certificate of {host} is not valid yet: check the clock of this machine")]
    ServerNotYetValid {
        /// Whom we wanted.
        host: String,
    },
    /// Right authority, other name.
    #[error(
        "the certificate of the collector is not for {host}: add this name to its server names, or use one of them"
    )]
    ServerWrongName {
        /// Whom we wanted.
        host: String,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// The collector will not have us.
    #[error("{host} refuses our certificate: {refusal}")]
    CertificateRefused {
        /// Whom we wanted.
        host: String,
        /// Why.
        refusal: Refusal,
    },
    /// Not TLS 1.3, not TLS at all, no HTTP/2.
    #[error("{host} does not speak TLS 1.3 with HTTP/2 as a collector does")]
    Tls {
        /// Whom we wanted.
        host: String,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// The connection ended in the middle.
    #[error("{host} closed the connection before it answered ({stage})")]
    Closed {
        /// Whom we wanted.
        host: String,
        /// How far we got.
        stage: Stage,
    },
    /// HTTP/2 could not start.
    #[error("cannot start HTTP/2 with {host}")]
    Http2 {
        /// Whom we wanted.
        host: String,
        /// What tonic says.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Connects to `url` (`https://host[:port]`, port 443 by default) with one of the identity's
/// configurations. The channel has heard from the collector, so our certificate was accepted.
///
/// # Errors
/// [`ConnectError`]: each variant is one remedy.
pub async fn connect(url: &str, config: Arc<ClientConfig>, timeouts: Timeouts) -> Result<Channel, ConnectError> {
    let target = Target::parse(url)?;
    let tcp = dial(&target, timeouts).await?;
    let tls = shake_hands(&target, tcp, config, timeouts.handshake).await?;
    let (io, answer) = FirstWord::listen(tls);

    let endpoint = Endpoint::from(target.uri.clone())
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .keep_alive_while_idle(true)
        .user_agent(concat!("peil-agent/", env!("CARGO_PKG_VERSION")))
        .map_err(|source| ConnectError::Http2 { host: target.host.clone(), source })?;
    // Handed over once: see the story above about reconnecting.
    let mut once = Some(TokioIo::new(io));
    let hand_over = tower::service_fn(move |_: Uri| {
        std::future::ready(once.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    let channel = endpoint
        .connect_with_connector(hand_over)
        .await
        .map_err(|source| ConnectError::Http2 { host: target.host.clone(), source })?;
    hear(&target, answer, timeouts.answer).await?;
    Ok(channel)
}

/// Where to.
struct Target {
    uri: Uri,
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Target {
    fn parse(url: &str) -> Result<Self, ConnectError> {
        let bad = |reason: &str| ConnectError::BadUrl { url: url.to_owned(), reason: reason.to_owned() };
        let uri: Uri = url.parse().map_err(|e: http::uri::InvalidUri| bad(&e.to_string()))?;
        if uri.scheme_str() != Some("https") {
            return Err(bad("it must begin with https://"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("it must end after the port"));
        }
        let authority = uri.authority().ok_or_else(|| bad("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(bad("a user name or password has no place in it"));
        }
        // `host()` keeps the brackets of an IPv6 address.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| bad("the host is neither a name nor an address"))?;
        let port =
            match authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest).rsplit_once(':') {
                Some((_, digits)) => {
                    digits.parse().ok().filter(|p| *p > 0).ok_or_else(|| bad("the port is not a port"))?
                }
                None => 443,
            };
        Ok(Self { uri, host, port, name })
    }

    fn timed_out(&self, stage: Stage, limit: Duration) -> ConnectError {
        ConnectError::TimedOut { host: self.host.clone(), stage, limit }
    }
}

async fn dial(target: &Target, timeouts: Timeouts) -> Result<TcpStream, ConnectError> {
    let not_found = |source| ConnectError::NameNotFound { host: target.host.clone(), source };
    let addresses = timeout(timeouts.resolve, lookup_host((target.host.as_str(), target.port)))
        .await
        .map_err(|_| target.timed_out(Stage::Resolve, timeouts.resolve))?
        .map_err(not_found)?;
    let mut failed = not_found(io::Error::from(io::ErrorKind::NotFound));
    for address in addresses.take(ADDRESSES_MAX) {
        match timeout(timeouts.connect, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Acks and urgent records are small and must not wait for one another.
                tcp.set_nodelay(true).map_err(|source| ConnectError::Unreachable { address, source })?;
                return Ok(tcp);
            }
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => failed = ConnectError::Refused { address },
            Ok(Err(source)) => failed = ConnectError::Unreachable { address, source },
            Err(_) => failed = target.timed_out(Stage::Connect, timeouts.connect),
        }
    }
    Err(failed)
}

async fn shake_hands(
    target: &Target,
    tcp: TcpStream,
    config: Arc<ClientConfig>,
    limit: Duration,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    match timeout(limit, TlsConnector::from(config).connect(target.name.clone(), tcp)).await {
        Ok(Ok(tls)) => Ok(tls),
        Ok(Err(error)) => match first_word::tls_error(&error) {
            Some(cause) => Err(in_words(target, cause.clone())),
            None => Err(ConnectError::Closed { host: target.host.clone(), stage: Stage::Handshake }),
        },
        Err(_) => Err(target.timed_out(Stage::Handshake, limit)),
    }
}

async fn hear(target: &Target, answer: oneshot::Receiver<Word>, limit: Duration) -> Result<(), ConnectError> {
    match timeout(limit, answer).await {
        Ok(Ok(Word::Heard)) => Ok(()),
        Ok(Ok(Word::Refused(error))) => Err(in_words(target, error)),
        Ok(Ok(Word::Closed) | Err(_)) => Err(ConnectError::Closed { host: target.host.clone(), stage: Stage::Answer }),
        Err(_) => Err(target.timed_out(Stage::Answer, limit)),
    }
}

fn in_words(target: &Target, error: rustls::Error) -> ConnectError {
    let host = target.host.clone();
    match error {
        rustls::Error::InvalidCertificate(reason) => about_their_certificate(host, reason),
        rustls::Error::AlertReceived(alert) => match about_our_certificate(alert) {
            Some(refusal) => ConnectError::CertificateRefused { host, refusal },
            None => ConnectError::Tls { host, source: rustls::Error::AlertReceived(alert) },
        },
        source => ConnectError::Tls { host, source },
    }
}

fn about_their_certificate(host: String, reason: CertificateError) -> ConnectError {
    if let CertificateError::Other(other) = &reason
        && let Some(mismatch) = other.0.downcast_ref::<PinMismatch>()
    {
        return ConnectError::NotTheTokensCollector(*mismatch);
    }
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => ConnectError::ServerExpired { host },
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ConnectError::ServerNotYetValid { host }
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ConnectError::ServerWrongName { host, source: reason.into() }
        }
        _ => ConnectError::ServerNotTrusted { host, source: reason.into() },
    }
}

/// Which alert means what: RFC 8446 6.2, as rustls sends them.
fn about_our_certificate(alert: AlertDescription) -> Option<Refusal> {
    match alert {
        AlertDescription::CertificateExpired => Some(Refusal::Expired),
        AlertDescription::CertificateRevoked => Some(Refusal::Revoked),
        AlertDescription::AccessDenied | AlertDescription::UnsupportedCertificate => Some(Refusal::NotAnAgent),
        // An authority with the name of ours but another key is found out by its signature.
        AlertDescription::UnknownCA
        | AlertDescription::DecryptError
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRequired => Some(Refusal::Unknown),
        _ => None,
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resolve => "looking up the name",
            Self::Connect => "connecting",
            Self::Handshake => "TLS handshake",
            Self::Answer => "first answer",
        })
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Expired => "it has expired (or a clock is wrong); enrol this host again with a new token",
            Self::Revoked => "it was revoked; if that was a mistake, enrol this host again with a new token",
            Self::Unknown => {
                "its authority is not the collector's; the collector was set up anew, or this is another one"
            }
            Self::NotAnAgent => "it is not an agent's",
        })
    }
}

#[cfg(test)]
mod tests;
