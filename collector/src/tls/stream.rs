//! A connection whose handshake is done, and who is at the other end.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::connect_info;
use axum::serve::IncomingStream;
use peil_proto::ids::AgentId;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::server::Connected;

use super::TlsListener;
use crate::pki::{CertificateFacts, Serial};

/// Who is at the other end. In tonic: `request.extensions().get::<ConnectInfo>()`; in axum:
/// `axum::extract::ConnectInfo<ConnectInfo>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectInfo {
    /// Address and port, as TCP knows them.
    pub peer: SocketAddr,
    /// The agent whose certificate was verified; `None` without certificate.
    pub agent: Option<AgentId>,
    /// The number of that certificate; there when `agent` is.
    pub serial: Option<Serial>,
    /// The certificate itself; there when `agent` is. It may have to be judged again while the connection lasts.
    pub certificate: Option<CertificateDer<'static>>,
}

/// An encrypted connection.
#[derive(Debug)]
pub struct TlsStream {
    inner: tokio_rustls::server::TlsStream<TcpStream>,
    info: ConnectInfo,
}

impl TlsStream {
    /// `inner` has finished its handshake, so its certificate, if any, was verified.
    pub(super) fn new(inner: tokio_rustls::server::TlsStream<TcpStream>, peer: SocketAddr) -> Self {
        let leaf = inner.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let facts = leaf.and_then(|leaf| CertificateFacts::read(leaf));
        let named = facts.and_then(|facts| facts.agent.map(|agent| (agent, facts.serial)));
        let certificate = leaf.filter(|_| named.is_some()).map(|leaf| leaf.clone().into_owned());
        let (agent, serial) = named.unzip();
        Self { inner, info: ConnectInfo { peer, agent, serial, certificate } }
    }

    /// Who is at the other end.
    pub fn info(&self) -> &ConnectInfo {
        &self.info
    }
}

impl Connected for TlsStream {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        self.info.clone()
    }
}

impl connect_info::Connected<IncomingStream<'_, TlsListener>> for ConnectInfo {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.io().info.clone()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
