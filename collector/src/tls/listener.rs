//! Accepts, shakes hands aside, yields: a client that dawdles costs a place, never anybody's time.
//!
//! Every accepted socket is a task in the listener's own `JoinSet`, so nothing outlives the listener.
//! A task waits for the client's first byte before it takes one of [`HANDSHAKES_MAX`] permits: a socket
//! that never speaks holds no permit, and a restart with thousands of agents at the door does not start
//! thousands of key exchanges at once. Accepting happens when the listener is polled, handshakes go on
//! regardless.
//!
//! A refused client is told why (a TLS alert). Closing with unread input would make the kernel send a
//! reset that overtakes the alert, so what the client sent meanwhile is read away first, for a moment.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{debug, warn};

use super::{TlsError, TlsStream};

/// Handshakes under way at once (0.55 ms of CPU each). Further clients wait their turn within their own
/// [`HANDSHAKE_DEADLINE`].
pub const HANDSHAKES_MAX: usize = 64;

/// Sockets accepted and not yet through. Further clients wait in the kernel's queue.
pub const PENDING_MAX: usize = 512;

/// From accept to verified; a client that is slower is dropped.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long, and how many bytes, a refused client is read from so that it sees the alert.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: u64 = 64 << 10;

/// Pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A listening port. Yields connections until its token is cancelled; unfinished handshakes end with it.
pub struct TlsListener {
    tcp: TcpListener,
    local: SocketAddr,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<TlsStream>>,
    permits: Arc<Semaphore>,
    pause: Option<Pin<Box<Sleep>>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl TlsListener {
    /// Listens on `address` (port 0: any free one) with one of the profiles, until `stop` is cancelled.
    ///
    /// # Errors
    /// [`TlsError::Bind`].
    pub async fn bind(
        address: SocketAddr,
        profile: Arc<ServerConfig>,
        stop: CancellationToken,
    ) -> Result<Self, TlsError> {
        let failed = |source| TlsError::Bind { address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let local = tcp.local_addr().map_err(failed)?;
        Ok(Self {
            tcp,
            local,
            acceptor: TlsAcceptor::from(profile),
            handshakes: JoinSet::new(),
            permits: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            pause: None,
            stopped: Box::pin(stop.cancelled_owned()),
        })
    }

    /// Where it listens; with the port the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next connection; `None` once stopped. Safe to cancel.
    pub async fn next_connection(&mut self) -> Option<TlsStream> {
        std::future::poll_fn(|cx| self.poll_connection(cx)).await
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<Option<TlsStream>> {
        if self.stopped.as_mut().poll(cx).is_ready() {
            self.handshakes.abort_all();
            return Poll::Ready(None);
        }
        loop {
            if let Poll::Ready(stream) = self.poll_finished(cx) {
                return Poll::Ready(Some(stream));
            }
            // A new task must be polled for once more, or its end would wake nobody.
            if !self.poll_accept(cx) {
                return Poll::Pending;
            }
        }
    }

    /// A handshake that succeeded; those that failed are passed over.
    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<TlsStream> {
        loop {
            match self.handshakes.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Some(stream)))) => return Poll::Ready(stream),
                Poll::Ready(Some(Ok(None))) => {}
                Poll::Ready(Some(Err(error))) => warn!(%error, "a handshake ended abnormally"),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Takes what is at the door, as far as there is room; true when it took any.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.pause = None;
        }
        let mut took = false;
        while self.handshakes.len() < PENDING_MAX {
            match self.tcp.poll_accept(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok((tcp, peer))) => {
                    let handshake = handshake(self.acceptor.clone(), Arc::clone(&self.permits), tcp, peer);
                    self.handshakes.spawn(handshake);
                    took = true;
                }
                // The client went away while waiting: its loss, look at the next.
                Poll::Ready(Err(error)) if is_about_one_client(&error) => debug!(%error, "accept"),
                Poll::Ready(Err(error)) => {
                    warn!(%error, address = %self.local, "cannot accept connections, trying again");
                    let mut pause = Box::pin(sleep(ACCEPT_PAUSE));
                    // Polled once so that its end wakes this listener.
                    let _ = pause.as_mut().poll(cx);
                    self.pause = Some(pause);
                    break;
                }
            }
        }
        took
    }
}

impl Stream for TlsListener {
    type Item = io::Result<TlsStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_connection(cx).map(|stream| stream.map(Ok))
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream;
    type Addr = SocketAddr;

    /// Waits for ever once stopped: axum ends by its own graceful-shutdown signal, which the caller
    /// connects to the same token.
    async fn accept(&mut self) -> (TlsStream, SocketAddr) {
        match self.next_connection().await {
            Some(stream) => {
                let peer = stream.info().peer;
                (stream, peer)
            }
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    permits: Arc<Semaphore>,
    tcp: TcpStream,
    peer: SocketAddr,
) -> Option<TlsStream> {
    let attempt = async {
        // Small frames (acks) must not wait for one another.
        tcp.set_nodelay(true).ok()?;
        // Readiness alone can be a false alarm; a byte cannot.
        if tcp.peek(&mut [0]).await.ok()? == 0 {
            return None;
        }
        // The semaphore is never closed.
        let permit = permits.acquire().await.ok()?;
        let finished = acceptor.accept(tcp).into_fallible().await;
        drop(permit);
        match finished {
            Ok(stream) => Some(TlsStream::new(stream, peer)),
            Err((error, tcp)) => {
                debug!(%peer, %error, "handshake refused");
                let _ = timeout(LINGER, read_away(tcp)).await;
                None
            }
        }
    };
    match timeout(HANDSHAKE_DEADLINE, attempt).await {
        Ok(stream) => stream,
        Err(_) => {
            debug!(%peer, "handshake not finished in time");
            None
        }
    }
}

async fn read_away(mut tcp: TcpStream) -> io::Result<()> {
    tcp.shutdown().await?;
    tokio::io::copy(&mut tcp.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await.map(|_| ())
}

fn is_about_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
