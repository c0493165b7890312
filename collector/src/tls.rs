//! Both ports of the collector: TCP in, verified connections out.
//!
//! Two profiles. [`profile::agents`] is TLS 1.3 only and asks for a client certificate: a host that has
//! none yet may enrol (the service behind decides that), one that shows any must show a good one.
//! [`profile::web`] is TLS 1.2 and 1.3 without client certificates. [`TlsListener`] does the handshakes
//! off the accept loop and yields [`TlsStream`]s; it plugs into tonic (as a `Stream`) and into axum (as a
//! `serve::Listener`), so that neither knows about TLS.
//!
//! Session resumption is off on the agents' port: a resumed session skips the certificate check, and a
//! revoked agent would stay welcome for a day.
//!
//! What is not here: which call needs which identity (ingest and enrolment ask [`ConnectInfo`]), and
//! closing connections that are open when their agent is revoked (they may ask [`Admission`] again).

pub mod admission;
pub mod certificate;
pub mod listener;
pub mod profile;
pub mod stream;

pub use admission::Admission;
pub use certificate::LiveCertificate;
pub use listener::TlsListener;
pub use stream::{ConnectInfo, TlsStream};

/// Why a port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The address is taken, not ours, or needs privileges.
    #[error("cannot listen on {address}")]
    Bind {
        /// As configured.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Chain and key are no pair, or of a kind that cannot serve.
    #[error("cannot serve with this certificate and key")]
    Certificate(#[source] rustls::Error),
    /// The provider lacks what the profile needs.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
}

#[cfg(test)]
mod tests;
