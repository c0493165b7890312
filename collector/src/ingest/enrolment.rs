//! How a host gets its identity: a one-use token for the first certificate, the certificate in force for the next.

use std::sync::Arc;

use peil_proto::ids::AgentId;
use peil_proto::time::WallClock;
use peil_proto::token::TokenSecret;
use peil_proto::units::Millis;
use peil_proto::wire::enrolment_server::Enrolment;
use peil_proto::wire::{EnrolRequest, Identity, RenewRequest};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::authenticated;
use crate::pki::{Authorities, IssuedCertificate};
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
    /// Sign.
    pub authorities: watch::Receiver<Arc<Authorities>>,
    /// Wall clock.
    pub clock: WallClock,
    /// Life of a certificate.
    pub certificate_life: Millis,
}

impl EnrolmentService {
    /// A certificate, and the answer that carries it: both by the authorities of one moment.
    fn issue(
        &self,
        csr: &[u8],
        agent: AgentId,
        keeps_many: bool,
    ) -> Result<(IssuedCertificate, Response<Identity>), Status> {
        let authorities = Arc::clone(&self.authorities.borrow());
        let (issuer, other) = authorities.issuing(keeps_many);
        let issued = issuer
            .sign_agent(csr, agent, self.clock.now(), self.certificate_life)
            .map_err(|error| Status::invalid_argument(format!("certificate request refused: {error}")))?;
        let identity = Identity {
            agent_id: agent.to_string(),
            certificate: issued.der.to_vec(),
            authority: issuer.certificate().to_vec(),
            also_trusted: other.map(|other| other.certificate().to_vec()).into_iter().collect(),
        };
        Ok((issued, Response::new(identity)))
    }

    /// A connection that was let in long ago may have been let in by an authority that is retired by now.
    fn still_good(&self, peer: Option<&ConnectInfo>) -> Result<(), Status> {
        let shown = peer.and_then(|peer| peer.certificate.as_ref());
        let good = shown.is_none_or(|shown| self.authorities.borrow().vouches_for(shown, self.clock.now()));
        if good { Ok(()) } else { Err(Status::permission_denied("this certificate is not good any more; enrol again")) }
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<Identity>, Status> {
        let peer = request.extensions().get::<ConnectInfo>().map(|peer| peer.peer.to_string()).unwrap_or_default();
        let EnrolRequest { token, csr, hostname, many_authorities } = request.into_inner();
        if hostname.is_empty() || hostname.len() > HOSTNAME_MAX || hostname.chars().any(char::is_control) {
            return Err(Status::invalid_argument("the host name must be 1 to 255 printable characters"));
        }
        let hash = TokenSecret::parse(&token).map_err(|error| Status::invalid_argument(error.to_string()))?.hash();
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| Status::internal("no randomness"))?;
        let agent = AgentId(id);
        let (issued, identity) = self.issue(&csr, agent, many_authorities)?;
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
        Ok(identity)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Identity>, Status> {
        let agent = authenticated(&request)?;
        let admitted = self.store.is_admitted(agent).await.map_err(|error| Status::unavailable(error.to_string()))?;
        if !admitted {
            return Err(Status::permission_denied("this agent is revoked or unknown here; enrol it again"));
        }
        self.still_good(request.extensions().get::<ConnectInfo>())?;
        let RenewRequest { csr, many_authorities } = request.into_inner();
        let (issued, identity) = self.issue(&csr, agent, many_authorities)?;
        let noted = self.store.renewed(agent, &issued.serial.to_string(), issued.not_after).await;
        noted.map_err(|error| Status::unavailable(error.to_string()))?;
        info!(%agent, not_after = %issued.not_after, "certificate renewed");
        Ok(identity)
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
