//! Live updates: the sections of a page, pushed over server-sent events when they change.
//!
//! A page says what it shows (`/live?page=overview`, `?service=NAME`, `?host=HEX`) and from which
//! snapshot it was made (`at=`, or `Last-Event-ID` when the browser reconnects). The stream renders the
//! same sections as the page and sends those whose text differs from what the reader has: one event per
//! section, named by it, with its HTML. Then one event `snapshot` with `{"at", "changed"}` for scripts.
//!
//! Limits: [`STREAMS_MAX`] streams, then 503 with the reason (pages go on working; htmx asks again).
//! Snapshots closer together than [`PUSH_EVERY`] are folded into one push. Every [`LOOK_EVERY`] the
//! sections are rendered again without a new snapshot ("3 min ago" moves, a stalled evaluation shows)
//! and the session is looked up: a stream does not outlive it, and does not keep it alive either. A
//! comment goes out every [`HEARTBEAT`] of silence, so that proxies keep the connection.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::convert::Infallible;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::Stream;

use super::Web;
use super::pages::{self, Page};
use crate::access::Principal;
use crate::snapshot::Latest;

/// Streams at the same time; further ones get 503 and "try again".
pub(super) const STREAMS_MAX: usize = 256;

/// At most one push per stream in this time.
const PUSH_EVERY: Duration = Duration::from_secs(2);

/// Sections and session are looked at again after this long without a new snapshot.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// A comment after this long without an event.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The streams there are.
#[derive(Debug)]
pub(super) struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS_MAX)))
    }
}

/// `GET /live`
pub(super) async fn live(
    State(web): State<Web>,
    Extension(principal): Extension<Principal>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let Some((page, at)) = Page::from_live_query(uri.query().unwrap_or_default()) else {
        return (StatusCode::BAD_REQUEST, "say which page: page=overview, service=NAME or host=HEX\n").into_response();
    };
    let Ok(permit) = Arc::clone(&web.streams.0).try_acquire_owned() else {
        let busy = format!("{STREAMS_MAX} pages are being kept up to date already; reload to see newer data\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "30")], busy).into_response();
    };
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok()).or(at);
    let reader = Reader::new(web, principal, page, seen, permit);
    let stream = Sse::new(Unfold::new(reader)).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    ([(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"))], stream).into_response()
}

/// One reader: what it shows, and what it has.
struct Reader {
    web: Web,
    principal: Principal,
    page: Page,
    latest: Latest,
    /// Digest of each section as the reader has it.
    has: BTreeMap<&'static str, u64>,
    /// Events made and not yet sent.
    queue: Vec<Event>,
    next_push: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    fn new(web: Web, principal: Principal, page: Page, seen: Option<i64>, permit: OwnedSemaphorePermit) -> Self {
        let mut latest = web.state.latest.clone();
        latest.mark_unchanged();
        let now = Instant::now();
        let mut reader = Self {
            web,
            principal,
            page,
            latest,
            has: BTreeMap::new(),
            queue: Vec::new(),
            next_push: now,
            _permit: permit,
        };
        let current = reader.web.snapshot().at.0;
        if seen == Some(current) {
            // The page was made from this very snapshot: what would be sent now, it has.
            reader.render();
            reader.queue.clear();
        } else {
            reader.render();
        }
        reader
    }

    /// The next event; `None` ends the stream: session over, page gone, or collector stopping.
    async fn next(mut self) -> Option<(Event, Self)> {
        let stop = self.web.state.stop.clone();
        loop {
            if let Some(event) = self.queue.pop() {
                return Some((event, self));
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = self.wait() => {}
            }
            if !self.may_read().await || !self.render() {
                return None;
            }
        }
    }

    /// Until there is a reason to look again.
    async fn wait(&mut self) {
        let _ = timeout(LOOK_EVERY, async {
            if self.latest.changed().await.is_err() {
                // Nobody publishes any more; the collector is stopping.
                std::future::pending::<()>().await;
            }
            sleep_until(self.next_push).await;
        })
        .await;
    }

    async fn may_read(&self) -> bool {
        match self.principal.session {
            Some(session) => self.web.state.access.session_lives(session).await.unwrap_or(false),
            None => false,
        }
    }

    /// Queues the sections that differ from what the reader has. False when the page is gone.
    fn render(&mut self) -> bool {
        self.latest.mark_unchanged();
        let snapshot = self.web.snapshot();
        let Ok(body) = pages::body(&self.page, &snapshot, self.web.now()) else { return false };
        let mut changed = Vec::new();
        let mut events = Vec::new();
        for section in body.sections {
            let digest = digest(&section.html);
            if self.has.insert(section.id, digest) != Some(digest) {
                changed.push(section.id);
                events.push(Event::default().event(section.id).data(section.html));
            }
        }
        if changed.is_empty() {
            return true;
        }
        let note = serde_json::json!({"at": snapshot.at, "changed": changed}).to_string();
        events.push(Event::default().event("snapshot").id(snapshot.at.0.to_string()).data(note));
        events.reverse();
        self.queue = events;
        self.next_push = Instant::now() + PUSH_EVERY;
        true
    }
}

/// Only compared within this process, so the hash need not be stable or strong.
fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

type Step = Pin<Box<dyn Future<Output = Option<(Event, Reader)>> + Send>>;

/// The reader as a stream: runs `Reader::next` again and again.
struct Unfold(Option<Step>);

impl Unfold {
    fn new(reader: Reader) -> Self {
        Self(Some(Box::pin(reader.next())))
    }
}

impl Stream for Unfold {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(step) = self.0.as_mut() else { return Poll::Ready(None) };
        match step.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.0 = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some((event, reader))) => {
                self.0 = Some(Box::pin(reader.next()));
                Poll::Ready(Some(Ok(event)))
            }
        }
    }
}
