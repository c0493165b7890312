//! One connection that speaks HTTP, driven beside the work that waits for it, in the task of the probe: nothing is
//! spawned, so dropping the probe drops the socket. `grpc` uses it too.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peil_proto::sample::FailureKind;
use peil_proto::units::Micros;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::super::dial::{Stream, failure_kind_of_io};
use super::super::{Failure, Hop, Phase};
use super::BODY_BYTES_MAX;

/// Bytes of a response head, and of the read buffer. A longer head is [`FailureKind::Protocol`].
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes read from one connection, framing and interim responses included: more than a full body can need.
/// Beyond is [`FailureKind::Protocol`]; ends a flood of `100 Continue` before the deadline does.
const WIRE_BYTES_MAX: u64 = 2 * BODY_BYTES_MAX;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Sends requests on a connection.
pub(crate) enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }
}

/// Begins to speak HTTP on an open stream.
pub(crate) async fn open(stream: Stream, http2: bool, watch: &Watch) -> Result<(Sender, Driver), hyper::Error> {
    // Over HTTP/2 the first bytes are the server's settings, not its answer.
    let first_byte = (!http2).then(|| Arc::clone(&watch.first_byte));
    let io = TokioIo::new(Tap { stream, first_byte, left: WIRE_BYTES_MAX });
    let beside = Beside::default();
    if http2 {
        let mut builder = http2::Builder::new(beside.clone());
        builder.max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX));
        // A probe reads one answer: small windows keep what a flood can park in memory small too.
        builder.initial_stream_window_size(64 << 10).initial_connection_window_size(64 << 10);
        let (sender, connection) = builder.handshake(io).await?;
        let connection: Work = Box::pin(async move { drop(connection.await) });
        Ok((Sender::Http2(sender), Driver { connection: Some(connection), beside, running: Vec::new() }))
    } else {
        let (sender, connection) = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(io).await?;
        // How the connection ended is told to the work through its channel, error included.
        let connection: Work = Box::pin(async move { drop(connection.await) });
        Ok((Sender::Http1(sender), Driver { connection: Some(connection), beside, running: Vec::new() }))
    }
}

/// What hyper wants to run beside an HTTP/2 connection; taken up by the [`Driver`].
#[derive(Clone, Default)]
struct Beside(Arc<Mutex<Vec<Work>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Beside {
    fn execute(&self, work: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(work));
    }
}

/// Drives a connection beside the work that waits for it.
pub(crate) struct Driver {
    connection: Option<Work>,
    beside: Beside,
    running: Vec<Work>,
}

impl Driver {
    pub(crate) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            self.drive(cx);
            work.as_mut().poll(cx)
        })
        .await
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            self.connection = None;
        }
        loop {
            self.running.retain_mut(|work| work.as_mut().poll(cx).is_pending());
            let mut new = self.beside.0.lock().unwrap_or_else(PoisonError::into_inner);
            if new.is_empty() {
                return;
            }
            self.running.append(&mut new);
        }
    }
}

/// How an exchange ends before its destination.
pub(crate) enum Trouble {
    /// The connection or the protocol on it.
    Broken(hyper::Error),
    /// What came was understood and is not what must come.
    Judged(Failure),
}

impl From<hyper::Error> for Trouble {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error)
    }
}

impl Trouble {
    pub(crate) fn into_failure(self, phase: Phase) -> Failure {
        match self {
            Self::Judged(failure) => failure,
            Self::Broken(error) => broken(&error, phase),
        }
    }
}

fn broken(error: &hyper::Error, phase: Phase) -> Failure {
    let mut deepest: &(dyn std::error::Error + 'static) = error;
    let mut text = error.to_string();
    let mut kind = None;
    while let Some(source) = deepest.source() {
        text = format!("{text}: {source}");
        if let Some(io) = source.downcast_ref::<io::Error>() {
            kind = Some(failure_kind_of_io(io, FailureKind::Protocol));
        }
        deepest = source;
    }
    let closed = error.is_incomplete_message() || error.is_canceled() || error.is_closed();
    let kind = kind.unwrap_or(if closed { FailureKind::Closed } else { FailureKind::Protocol });
    Failure::during(phase, kind, text)
}

/// When the request left and when the answer began.
pub(crate) struct Watch {
    asked: Instant,
    first_byte: Arc<OnceLock<Instant>>,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { asked: Instant::now(), first_byte: Arc::default() }
    }

    /// The head of the answer is there. Counts as its first byte where that could not be seen.
    pub(crate) fn head_came(&self) {
        self.first_byte.get_or_init(Instant::now);
    }

    /// Notes both phases as they stand now, and tells which one it is.
    pub(crate) fn note(&self, hop: &mut Hop) -> Phase {
        let first = self.first_byte.get().copied();
        let waited = first.map_or_else(|| self.asked.elapsed(), |at| at.duration_since(self.asked));
        hop.phases.first_byte = Some(Micros::from_duration(waited));
        hop.phases.transfer = first.map(|at| Micros::from_duration(at.elapsed()));
        if first.is_some() { Phase::Transfer } else { Phase::FirstByte }
    }
}

/// The stream with an eye on it: when the first byte was read, and how many may still be.
struct Tap {
    stream: Stream,
    first_byte: Option<Arc<OnceLock<Instant>>>,
    left: u64,
}

impl AsyncRead for Tap {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let tap = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut tap.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            if let Some(first_byte) = &tap.first_byte {
                first_byte.get_or_init(Instant::now);
            }
            let left = u64::try_from(read).ok().and_then(|read| tap.left.checked_sub(read));
            let Some(left) = left else {
                return Poll::Ready(Err(io::Error::other(format!("over {WIRE_BYTES_MAX} bytes on one connection"))));
            };
            tap.left = left;
        }
        polled
    }
}

impl AsyncWrite for Tap {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
