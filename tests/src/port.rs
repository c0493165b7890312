//! A port of 127.0.0.1 that stays ours while nobody listens on it.
//!
//! Programs here are stopped and must come back on the same port. A port that is merely remembered could be
//! given to another test in between; so a socket stays bound to it without listening. Whoever connects meanwhile is
//! refused, as by a machine whose service is down, and with `SO_REUSEADDR` (which every server here sets) the service may
//! bind beside it.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use tokio::net::TcpSocket;

/// Held until dropped.
pub(crate) struct Port {
    address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    /// Any free one.
    pub(crate) fn reserve() -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4().context("no socket")?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).context("no port")?;
        Ok(Self { address: socket.local_addr()?, _held: socket })
    }

    /// With 127.0.0.1.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}
