//! The agent's own client against the collector's own listener, with tonic on both sides: from token to
//! enrolment, renewal, expiry and revocation. What is done with an identity behind the door is not tested
//! here; the service only answers who is asking.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test fail as the test does")]

use std::path::Path;
use std::sync::Arc;

use peil_agent::identity::{Identity, Meta, enrol_client_config, prepare};
use peil_agent::uplink::connect::{ConnectError, Refusal, Timeouts, connect};
use peil_collector::pki::{Authorities, Authority};
use peil_collector::tls::{Admission, ConnectInfo, LiveCertificate, TlsListener, profile};
use peil_proto::ids::AgentId;
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::token::{Token, TokenSecret};
use peil_proto::units::Millis;
use peil_proto::wire;
use peil_proto::wire::enrolment_client::EnrolmentClient;
use peil_proto::wire::enrolment_server::{Enrolment, EnrolmentServer};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

const NOW: UtcTime = UtcTime(1_776_211_200_000);
const DAY: i64 = 24 * 3_600_000;
const AGENT: AgentId = AgentId([0x5e; 16]);

/// Knows one token and answers who asks.
struct Door {
    authority: Arc<Authority>,
    secret_hash: [u8; 32],
    clock: WallClock,
}

impl Door {
    fn identity(&self, agent: AgentId, csr: &[u8]) -> Result<Response<wire::Identity>, Status> {
        let issued = self
            .authority
            .sign_agent(csr, agent, self.clock.now(), Millis(30 * DAY))
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok(Response::new(wire::Identity {
            agent_id: agent.to_string(),
            certificate: issued.der.to_vec(),
            authority: self.authority.certificate().to_vec(),
            also_trusted: Vec::new(),
        }))
    }
}

#[tonic::async_trait]
impl Enrolment for Door {
    async fn enrol(&self, request: Request<wire::EnrolRequest>) -> Result<Response<wire::Identity>, Status> {
        let request = request.into_inner();
        let secret = TokenSecret::parse(&request.token).map_err(|e| Status::invalid_argument(e.to_string()))?;
        if secret.hash() != self.secret_hash {
            return Err(Status::permission_denied("unknown token"));
        }
        self.identity(AGENT, &request.csr)
    }

    async fn renew(&self, request: Request<wire::RenewRequest>) -> Result<Response<wire::Identity>, Status> {
        let agent = request.extensions().get::<ConnectInfo>().and_then(|info| info.agent);
        let agent = agent.ok_or_else(|| Status::unauthenticated("renewing takes a certificate"))?;
        self.identity(agent, &request.into_inner().csr)
    }
}

/// A collector that runs as long as `visit` does.
struct Collector {
    url: String,
    token: Token,
    clock: WallClock,
    admission: Admission,
}

async fn with_collector<F: Future<Output = ()>>(directory: &Path, visit: impl FnOnce(Collector) -> F) {
    let authority = Arc::new(Authority::open_or_create(directory, "Peil test", NOW).unwrap());
    let token = Token::make([0x17; 20], authority.fingerprint());
    let (clock, admission, stop) = (WallClock::manual(NOW), Admission::default(), CancellationToken::new());
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let shown = LiveCertificate::new(authority.server_certificate(&names, NOW).unwrap()).unwrap();
    let same = Authority::open_or_create(directory, "Peil test", NOW).unwrap();
    let believed = watch::channel(Arc::new(Authorities::alone(same).unwrap())).1;
    let config = profile::agents(believed, admission.clone(), shown, &clock).unwrap();
    let listener = TlsListener::bind("127.0.0.1:0".parse().unwrap(), config, stop.clone()).await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().port());
    let door = Door { authority, secret_hash: token.secret_hash(), clock: clock.clone() };
    let serve = tonic::transport::Server::builder()
        .add_service(EnrolmentServer::new(door))
        .serve_with_incoming_shutdown(listener, stop.clone().cancelled_owned());
    let visit = async {
        Box::pin(visit(Collector { url, token, clock, admission })).await;
        stop.cancel();
    };
    let (served, ()) = tokio::join!(serve, visit);
    served.unwrap();
}

impl Collector {
    /// What `peil-agent enroll` does.
    async fn enrol(&self, directory: &Path) -> Identity {
        let token = Token::parse(&self.token.reveal()).unwrap();
        let config = enrol_client_config(token.authority, &self.clock).unwrap();
        let channel = connect(&self.url, Arc::new(config), Timeouts::default()).await.unwrap();
        let (key, csr) = prepare().unwrap();
        let request = wire::EnrolRequest {
            token: token.secret.reveal(),
            csr,
            hostname: "host".to_owned(),
            many_authorities: false,
        };
        let answer = EnrolmentClient::new(channel).enrol(request).await.unwrap().into_inner();
        assert_eq!(answer.agent_id, AGENT.to_string());
        self.save(directory, key, answer)
    }

    /// What the agent does at two thirds of its certificate's life.
    async fn renew(&self, directory: &Path, identity: &Identity) -> Result<Identity, ConnectError> {
        let config = identity.client_config(&self.clock).unwrap();
        let channel = connect(&self.url, Arc::new(config), Timeouts::default()).await?;
        let (key, csr) = prepare().unwrap();
        let answer =
            EnrolmentClient::new(channel).renew(wire::RenewRequest { csr, many_authorities: false }).await.unwrap();
        Ok(self.save(directory, key, answer.into_inner()))
    }

    fn save(&self, directory: &Path, key: rcgen::KeyPair, answer: wire::Identity) -> Identity {
        let now = self.clock.now();
        let meta = Meta { collector: self.url.clone(), issued_at: now };
        Identity::save(
            directory,
            key,
            answer.certificate.into(),
            CertificateDer::from(answer.authority).into(),
            meta,
            now,
        )
        .unwrap()
    }
}

fn refusal(result: Result<Identity, ConnectError>) -> Refusal {
    match result.unwrap_err() {
        ConnectError::CertificateRefused { refusal, .. } => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_host_enrols_renews_and_is_revoked() {
    let (keys, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    with_collector(keys.path(), |collector| async move {
        let first = collector.enrol(host.path()).await;
        assert_eq!(first.agent(), AGENT);

        collector.clock.set(UtcTime(NOW.0 + 23 * DAY));
        assert!(first.renew_due(collector.clock.now()));
        let second = collector.renew(host.path(), &first).await.unwrap();
        assert_eq!((second.agent(), second.days_left(collector.clock.now())), (AGENT, 30));
        assert_eq!(Identity::load(host.path()).unwrap().not_after(), second.not_after());

        collector.clock.set(UtcTime(NOW.0 + 31 * DAY));
        assert_eq!(refusal(collector.renew(host.path(), &first).await), Refusal::Expired);
        collector.renew(host.path(), &second).await.unwrap();

        collector.admission.revoke(AGENT);
        assert_eq!(refusal(collector.renew(host.path(), &second).await), Refusal::Revoked);
    })
    .await;
}

#[tokio::test]
async fn a_host_without_certificate_may_only_enrol() {
    let keys = tempfile::tempdir().unwrap();
    with_collector(keys.path(), |collector| async move {
        let config = enrol_client_config(collector.token.authority, &collector.clock).unwrap();
        let channel = connect(&collector.url, Arc::new(config), Timeouts::default()).await.unwrap();
        let (_, csr) = prepare().unwrap();
        let refused =
            EnrolmentClient::new(channel).renew(wire::RenewRequest { csr, many_authorities: false }).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    })
    .await;
}

#[tokio::test]
async fn an_identity_is_worth_nothing_at_another_collector() {
    let (keys, other_keys, host) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    with_collector(keys.path(), |collector| async move {
        let identity = collector.enrol(host.path()).await;
        with_collector(other_keys.path(), |other| async move {
            // The agent notices first: it never shows its certificate to a stranger.
            let refused = other.renew(host.path(), &identity).await.unwrap_err();
            assert!(matches!(refused, ConnectError::ServerNotTrusted { .. }), "{refused:?}");
            // And a token of one does not open the door of the other.
            let config = enrol_client_config(collector.token.authority, &other.clock).unwrap();
            let refused = connect(&other.url, Arc::new(config), Timeouts::default()).await.unwrap_err();
            assert!(matches!(refused, ConnectError::NotTheTokensCollector(_)), "{refused:?}");
        })
        .await;
    })
    .await;
}
