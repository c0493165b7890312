//! TELL, for eyes and machines: the pages, their live updates, the API and the metrics.
//!
//! Everything shown is the newest [`Snapshot`]; nothing is computed here but
//! words and pictures. Suggested reading order: [`routes`] (what there is and who may see it), `gate`
//! (how that is kept), `pages` (snapshot → sections → page), `live` (sections again, pushed), `api`,
//! `metrics`, `ready`.
//!
//! Pages work without JavaScript; with it htmx swaps in the sections that `live` sends. The policy sent
//! with each answer allows no inline script and no inline style.
//!
//! What it does not do: TLS and listening (the caller serves [`router`] over its listener), judging
//! (`contract/`). What is written goes through `decide` (and sessions through `session`).

mod api;
mod page;
mod assets;
pub mod decide;
mod deeds;
mod draw;
mod format;
mod gate;
mod live;
pub mod metrics;
mod pages;
pub mod ready;
pub mod routes;
mod session;

use std::net::IpAddr;
use std::sync::Arc;

use peil_proto::time::{UtcTime, WallClock};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::snapshot::{Latest, Snapshot};
use metrics::Metrics;
use ready::Readiness;

pub use routes::router;

/// What the web needs from the rest of the collector.
#[derive(Debug, Clone)]
pub struct WebState {
    /// What is known now.
    pub latest: Latest,
    /// Who is asking.
    pub access: Access,
    /// Whether the parts behind the web answer.
    pub readiness: Readiness,
    /// What `/metrics` tells besides the snapshot.
    pub metrics: Metrics,
    /// For what people decide.
    pub desk: decide::Desk,
    /// For "3 min ago".
    pub clock: WallClock,
    /// Cancelled when the collector stops: ends the streams, which would otherwise hold up the stop.
    pub stop: CancellationToken,
}

/// Where a request came from, for slowing down guesses. The server puts it in the request's extensions
/// as `ConnectInfo<Peer>` (or `ConnectInfo<SocketAddr>`); without it all requests count as one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// The state every handler gets.
#[derive(Debug, Clone)]
struct Web {
    state: WebState,
    streams: Arc<live::Streams>,
}

impl Web {
    fn new(state: WebState) -> Self {
        Self { state, streams: Arc::new(live::Streams::default()) }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state.latest.borrow())
    }

    fn now(&self) -> UtcTime {
        self.state.clock.now()
    }
}
