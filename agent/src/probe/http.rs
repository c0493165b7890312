//! `http`: gets a URL; up when the status is in the accepted set, the content is there and, for `https`, the
//! certificate is valid and has enough days left.
//!
//! - Phases come from our own connector (`dial`) and from watching the socket: `first_byte` ends when the first
//!   byte of the answer is read, not when its head is complete; the rest, head included, is `transfer`.
//! - A status in the accepted set is the answer, also when it is a redirect (so 300–399 in the set means "do
//!   not follow"). Any other 301, 302, 303, 307 or 308 with a `Location` is followed, [`REDIRECTS_MAX`] times,
//!   each hop on a new connection with the address policy asked again, never from https to http. There are no
//!   cookies and no credentials, so none can leak to another host.
//! - A status that is neither ends the probe at once: the body of an error page is not read.
//! - The body is read to its end or to [`BODY_BYTES_MAX`]; beyond, it is cut and judged on what was read.
//!   `contains` looks at the first [`CONTENT_BYTES_MAX`] bytes as they come; no compression is asked for.
//! - Judged in this order: transport, status, content, days left. The first that fails is the outcome.
//!
//! HTTP/1.1 only (HTTP/2 by ALPN may come later). Deliberately absent: other methods, headers, bodies, proxies.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peil_proto::plan::CheckKind;
use peil_proto::sample::FailureKind;
use peil_proto::units::Micros;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::certificate::too_short;
use super::dial::{Deadline, Endpoint, Stream, TlsWanted, dial, failure_kind_of_io};
use super::location::Location;
use super::{Body, Failure, Hop, Kind, Observation, Phase, ProbeContext, Trust};

/// Redirects followed. One more is [`FailureKind::Redirect`].
pub(super) const REDIRECTS_MAX: usize = 10;
/// Bytes of a body that are read. Then reading stops, the body counts as truncated and is judged as it is.
pub(super) const BODY_BYTES_MAX: u64 = 10 << 20;
/// Bytes at the start of a body in which `contains` looks. Text beyond is not found.
pub(super) const CONTENT_BYTES_MAX: usize = 64 << 10;
/// Bytes of a response head, and of the read buffer. A longer head is [`FailureKind::Protocol`].
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes read from one connection, framing and interim responses included: more than a full body can need.
/// Beyond is [`FailureKind::Protocol`]; ends a flood of `100 Continue` before the deadline does.
const WIRE_BYTES_MAX: u64 = 2 * BODY_BYTES_MAX;

pub(super) const KIND: Kind = Kind {
    name: "http",
    about: "gets a URL and judges status, content and certificate",
    example: "https://www.example.org/health",
    phases: &Phase::ALL,
    read_target: |text| {
        (text.starts_with("http://") || text.starts_with("https://")).then(|| CheckKind::Http {
            url: text.to_owned(),
            status: Vec::new(),
            contains: None,
            ca_file: None,
            cert_days_min: None,
        })
    },
};

/// What is asked and what must hold.
pub(super) struct Wanted<'a> {
    pub(super) url: &'a str,
    /// Inclusive ranges; empty means 200–299.
    pub(super) status: &'a [(u16, u16)],
    pub(super) contains: Option<&'a str>,
    pub(super) trust: Trust<'a>,
}

impl Wanted<'_> {
    fn accepts(&self, status: u16) -> bool {
        let ranges = if self.status.is_empty() { &[(200, 299)] } else { self.status };
        ranges.iter().any(|(from, to)| (*from..=*to).contains(&status))
    }
}

/// How a hop ended when nothing failed.
enum Visit {
    /// At its destination, with this status.
    Arrived(u16),
    /// With a redirect to here.
    SentOn(Location),
}

pub(super) async fn run(wanted: &Wanted<'_>, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let (mut hops, mut body) = (Vec::new(), None);
    let end = follow(wanted, ctx, deadline, &mut hops, &mut body).await;
    Observation::from_end(hops, body, end)
}

async fn follow(
    wanted: &Wanted<'_>,
    ctx: &ProbeContext,
    deadline: Deadline,
    hops: &mut Vec<Hop>,
    body: &mut Option<Body>,
) -> Result<u16, Failure> {
    let mut location = Location::parse(wanted.url).map_err(|why| Failure::unusable(format!("the URL {why}")))?;
    for _ in 0..=REDIRECTS_MAX {
        let mut hop = Hop { target: location.to_string(), ..Hop::default() };
        let end = visit(&location, wanted, ctx, deadline, &mut hop, body).await;
        hops.push(hop);
        match end? {
            Visit::SentOn(next) => location = next,
            Visit::Arrived(status) => {
                let now = ctx.clock.now();
                let short = hops.iter().find_map(|hop| too_short(hop.tls.as_ref(), wanted.trust.cert_days_min, now));
                return short.map_or(Ok(status), Err);
            }
        }
    }
    Err(Failure::judged(FailureKind::Redirect, format!("more than {REDIRECTS_MAX} redirects, the next to {location}")))
}

/// One hop: dials, asks, and reads as far as it matters.
async fn visit(
    location: &Location,
    wanted: &Wanted<'_>,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
    body: &mut Option<Body>,
) -> Result<Visit, Failure> {
    let tls = location.secure.then_some(TlsWanted {
        server_name: &location.host,
        ca_file: wanted.trust.ca_file,
        alpn: Some(b"http/1.1"),
    });
    let endpoint = Endpoint { host: &location.host, port: location.port, tls };
    let stream = dial(&endpoint, ctx, deadline, hop).await?;
    let request = request_for(location)?;
    let watch = Watch::start();
    let end = deadline.allows(exchange(stream, request, &watch, location, wanted, hop, body)).await;
    let phase = watch.note(hop);
    match end {
        Some(Ok(visit)) => Ok(visit),
        Some(Err(Trouble::Judged(failure))) => Err(failure),
        Some(Err(Trouble::Broken(error))) => Err(broken(&error, phase)),
        None if phase == Phase::FirstByte => {
            Err(Failure::during(phase, FailureKind::Timeout, "connected, but no answer came"))
        }
        None => Err(Failure::during(phase, FailureKind::Timeout, "the answer began, but did not end")),
    }
}

fn request_for(location: &Location) -> Result<Request<Empty<Bytes>>, Failure> {
    Request::get(location.path.as_str())
        .header(HOST, location.authority())
        .header(USER_AGENT, concat!("peil-agent/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        // The server then closes first, and the port in TIME_WAIT is its, not one of ours.
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| Failure::unusable(format!("cannot ask for {location}: {error}")))
}

/// How an exchange ends before its destination.
enum Trouble {
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

async fn exchange(
    stream: Stream,
    request: Request<Empty<Bytes>>,
    watch: &Watch,
    location: &Location,
    wanted: &Wanted<'_>,
    hop: &mut Hop,
    body: &mut Option<Body>,
) -> Result<Visit, Trouble> {
    let io = TokioIo::new(Tap { stream, first_byte: Arc::clone(&watch.first_byte), left: WIRE_BYTES_MAX });
    let (mut sender, connection) = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(io).await?;
    let mut connection = pin!(connection);
    let mut driver = Driver { connection: connection.as_mut(), ended: false };
    let response = driver.beside(sender.send_request(request)).await?;
    let status = response.status().as_u16();
    hop.status = Some(status);
    if wanted.accepts(status) {
        let found = driver.beside(read_body(response, wanted.contains, body)).await?;
        return if found {
            Ok(Visit::Arrived(status))
        } else {
            let text = "the answer lacks the text it must contain";
            Err(Trouble::Judged(Failure::judged(FailureKind::Content, text)))
        };
    }
    let next = next_of(&response, location).map_err(Trouble::Judged)?;
    Ok(Visit::SentOn(next))
}

/// Where a response with a status that is not accepted leads.
fn next_of(response: &Response<Incoming>, from: &Location) -> Result<Location, Failure> {
    let status = response.status().as_u16();
    match (status, response.headers().get(LOCATION)) {
        (301 | 302 | 303 | 307 | 308, Some(to)) => {
            from.join(to.as_bytes()).map_err(|why| Failure::judged(FailureKind::Redirect, why))
        }
        _ => Err(Failure::judged(FailureKind::Status, format!("status {status} is not accepted"))),
    }
}

/// Reads to the end or the limit; true when `contains` was found or nothing had to be.
async fn read_body(
    response: Response<Incoming>,
    contains: Option<&str>,
    body: &mut Option<Body>,
) -> Result<bool, hyper::Error> {
    let body = body.insert(Body::default());
    let mut incoming = response.into_body();
    let mut start = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if contains.is_some() {
            let room = CONTENT_BYTES_MAX.saturating_sub(start.len());
            start.extend_from_slice(&data[..data.len().min(room)]);
        }
        body.bytes = body.bytes.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if body.bytes > BODY_BYTES_MAX {
            body.truncated = true;
            break;
        }
    }
    Ok(contains.is_none_or(|text| String::from_utf8_lossy(&start).contains(text)))
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

/// Drives a connection beside the work that waits for it, in the task of the probe: nothing is spawned, so
/// dropping the probe drops the socket.
struct Driver<'a> {
    connection: Pin<&'a mut http1::Connection<TokioIo<Tap>, Empty<Bytes>>>,
    ended: bool,
}

impl Driver<'_> {
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            // How the connection ended is told to the work through its channel, error included.
            if !self.ended && self.connection.as_mut().poll(cx).is_ready() {
                self.ended = true;
            }
            work.as_mut().poll(cx)
        })
        .await
    }
}

/// When the request left and when the first byte of the answer came.
struct Watch {
    asked: Instant,
    first_byte: Arc<OnceLock<Instant>>,
}

impl Watch {
    fn start() -> Self {
        Self { asked: Instant::now(), first_byte: Arc::default() }
    }

    /// Notes both phases as they stand now, and tells which one it is.
    fn note(&self, hop: &mut Hop) -> Phase {
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
    first_byte: Arc<OnceLock<Instant>>,
    left: u64,
}

impl AsyncRead for Tap {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let tap = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut tap.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            tap.first_byte.get_or_init(Instant::now);
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
