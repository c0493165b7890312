//! IN: an authenticated stream becomes checked blocks, committed, then acked.
//!
//! The peer's certificate says who speaks ([`crate::tls`]); nothing in a message can claim otherwise. A
//! block is decoded once, wholly, before it is stored, so whatever is in the store can be read back.
//! Enrolment is the one call without a certificate; its one-use token is redeemed in the same
//! transaction that registers the agent.

pub mod enrolment;
mod local_checks;
pub mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use peil_proto::ids::AgentId;
use peil_proto::time::WallClock;
use peil_proto::wire::telemetry_server::Telemetry;
use peil_proto::wire::{AgentMessage, CollectorMessage};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::config::Config;
use crate::pki::Authorities;
use crate::plans::Plans;
use crate::presence::Presence;
use crate::store::Store;
use crate::tls::ConnectInfo;

/// Answers waiting for a slow agent. When full, its session waits, and with it the reading of its batches.
const ANSWERS: usize = 16;

/// The telemetry service: one session task per stream.
#[derive(Clone)]
pub struct TelemetryService {
    /// Where blocks go.
    pub store: Store,
    /// What agents are to run.
    pub plans: watch::Receiver<Arc<Plans>>,
    /// What the settings say, with which checks of hosts must make sense.
    pub config: Arc<Config>,
    /// Whom agents are to trust.
    pub authorities: watch::Receiver<Arc<Authorities>>,
    /// Who is here.
    pub presence: Presence,
    /// Wall clock.
    pub clock: WallClock,
    /// Wakes the jobs after a commit.
    pub committed: Arc<Notify>,
    /// Sessions, so that stopping can wait for them.
    pub sessions: TaskTracker,
    /// Ends all sessions.
    pub stop: CancellationToken,
}

/// The agent on the other side.
pub(crate) struct Peer {
    /// Who it is.
    agent: AgentId,
    /// What says so.
    certificate: Option<CertificateDer<'static>>,
}

/// Who is on the other side; refused without a certificate of ours.
pub fn authenticated<T>(request: &Request<T>) -> Result<AgentId, Status> {
    let peer = request.extensions().get::<ConnectInfo>();
    peer.and_then(|peer| peer.agent)
        .ok_or_else(|| Status::unauthenticated("this call needs the certificate of an enrolled agent"))
}

#[tonic::async_trait]
impl Telemetry for TelemetryService {
    type StreamStream = ReceiverStream<Result<CollectorMessage, Status>>;

    async fn stream(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::StreamStream>, Status> {
        let agent = authenticated(&request)?;
        let admitted = self.store.is_admitted(agent).await.map_err(|error| Status::unavailable(error.to_string()))?;
        if !admitted {
            return Err(Status::permission_denied("this agent is revoked or unknown here; enrol it again"));
        }
        let certificate = request.extensions().get::<ConnectInfo>().and_then(|peer| peer.certificate.clone());
        let (answers, stream) = mpsc::channel(ANSWERS);
        self.sessions.spawn(session::run(self.clone(), Peer { agent, certificate }, request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
