//! How a host gets its identity: a one-use token for the first certificate, the certificate in force for the next.

use std::sync::Arc;

use peil_proto::ids::AgentId;
use peil_proto::time::WallClock;
use peil_proto::token::TokenSecret;
use peil_proto::units::Millis;
use peil_proto::wire::enrolment_server::Enrolment;
use peil_proto::wire::{EnrolRequest, Identity, RenewRequest};
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::authenticated;
use crate::pki::{Authority, IssuedCertificate};
use crate::store::Store;
use crate::store::agents::NewAgent;
use crate::store::tokens::{RedeemError, TokenRefusal};
use crate::tls::ConnectInfo;

/// Longest host name taken over from an agent; a longer one is refused.
const HOSTNAME_MAX: usize = 255;

/// The enrolment service.
#[derive(Clone)]
pub struct EnrolmentService {
    /// Tokens and agents.
    pub store: Store,
    /// Signs.
    pub authority: Arc<Authority>,
    /// Wall clock.
    pub clock: WallClock,
    /// Life of a certificate.
    pub certificate_life: Millis,
}

impl EnrolmentService {
    fn sign(&self, csr: &[u8], agent: AgentId) -> Result<IssuedCertificate, Status> {
        let issued = self.authority.sign_agent(csr, agent, self.clock.now(), self.certificate_life);
        issued.map_err(|error| Status::invalid_argument(format!("certificate request refused: {error}")))
    }

    fn identity(&self, agent: AgentId, issued: IssuedCertificate) -> Response<Identity> {
        let authority = self.authority.certificate().to_vec();
        Response::new(Identity { agent_id: agent.to_string(), certificate: issued.der.to_vec(), authority })
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<Identity>, Status> {
        let peer = request.extensions().get::<ConnectInfo>().map(|peer| peer.peer.to_string()).unwrap_or_default();
        let EnrolRequest { token, csr, hostname } = request.into_inner();
        if hostname.is_empty() || hostname.len() > HOSTNAME_MAX || hostname.chars().any(char::is_control) {
            return Err(Status::invalid_argument("the host name must be 1 to 255 printable characters"));
        }
        let hash = TokenSecret::parse(&token).map_err(|error| Status::invalid_argument(error.to_string()))?.hash();
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| Status::internal("no randomness"))?;
        let agent = AgentId(id);
        let issued = self.sign(&csr, agent)?;
        let now = self.clock.now();
        let new = NewAgent {
            agent,
            hostname: hostname.clone(),
            cert_serial: issued.serial.to_string(),
            cert_not_after: issued.not_after,
        };
        match self.store.redeem_token(hash, now, new).await {
            Ok(()) => {}
            Err(RedeemError::Refused(refusal)) => {
                warn!(peer, hostname, %refusal, "enrolment refused");
                return Err(Status::permission_denied(in_words(&refusal)));
            }
            Err(RedeemError::Store(error)) => return Err(Status::unavailable(error.to_string())),
        }
        info!(%agent, peer, hostname, "agent enrolled");
        Ok(self.identity(agent, issued))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Identity>, Status> {
        let agent = authenticated(&request)?;
        let admitted = self.store.is_admitted(agent).await.map_err(|error| Status::unavailable(error.to_string()))?;
        if !admitted {
            return Err(Status::permission_denied("this agent is revoked or unknown here; enrol it again"));
        }
        let issued = self.sign(&request.into_inner().csr, agent)?;
        let noted = self.store.renewed(agent, &issued.serial.to_string(), issued.not_after).await;
        noted.map_err(|error| Status::unavailable(error.to_string()))?;
        info!(%agent, not_after = %issued.not_after, "certificate renewed");
        Ok(self.identity(agent, issued))
    }
}

fn in_words(refusal: &TokenRefusal) -> String {
    match refusal {
        TokenRefusal::Unknown => "the token is not known here; make one with `peil-collector token create`".to_owned(),
        TokenRefusal::Expired { .. } => {
            "the token has expired; make a new one with `peil-collector token create`".to_owned()
        }
        TokenRefusal::Used { at } => format!("the token was used at {at}; a token works once, make a new one"),
        TokenRefusal::Revoked { .. } => "the token was revoked".to_owned(),
    }
}
