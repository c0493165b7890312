//! A real gRPC stream on loopback whose agent is played by hand. Who is on the other side comes from the test
//! instead of a certificate: that the two are the same is the promise of [`crate::tls`].

use std::collections::BTreeMap;

use peil_proto::block;
use peil_proto::convert;
use peil_proto::ids::{Epoch, Seq};
use peil_proto::labels::Labels;
use peil_proto::record::{Record, Vitals};
use peil_proto::time::UtcTime;
use peil_proto::token::CaFingerprint;
use peil_proto::units::Millis;
use peil_proto::wire::agent_message::Kind as Say;
use peil_proto::wire::collector_message::Kind as Hear;
use peil_proto::wire::telemetry_client::TelemetryClient;
use peil_proto::wire::telemetry_server::TelemetryServer;
use peil_proto::wire::{Ack, Batch, Hello, PlanResult, Welcome};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::Code;

use super::*;
use crate::config::Config;
use crate::store::agents::{Copied, NewAgent};

const AGENT: AgentId = AgentId([1; 16]);
const NOW: UtcTime = UtcTime(1_776_247_200_000);
const EPOCH: u64 = 7;

struct Stage {
    service: TelemetryService,
    plans: watch::Sender<Arc<Plans>>,
    authorities: watch::Sender<Arc<Authorities>>,
    pki: std::path::PathBuf,
    address: std::net::SocketAddr,
    _server: JoinSet<()>,
    dir: Arc<TempDir>,
}

/// Plans with these checks for everybody.
fn plans(names: &[&str]) -> Plans {
    let text: String =
        names.iter().map(|name| format!("[[check]]\nname = '{name}'\nkind = 'tcp'\naddress = 'h:1'\n")).collect();
    let checks = Config::parse("c", &text).expect("valid").checks;
    let numbers: BTreeMap<_, _> =
        checks.keys().zip(1..).map(|(name, no)| (name.clone(), peil_proto::ids::CheckNo(no))).collect();
    Plans::new(&checks, &numbers, BTreeMap::new())
}

impl Stage {
    async fn new() -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        let store = Store::open(dir.path()).expect("opens");
        let new = NewAgent {
            agent: AGENT,
            hostname: "host".into(),
            cert_serial: "01".into(),
            cert_not_after: NOW.plus(Millis::DAY),
        };
        store.register(new, "", NOW, "test").await.expect("registered");
        Self::on(store, dir).await
    }

    /// Another collector of the same database.
    async fn other_collector(&self) -> Self {
        Self::on(Store::open(self.dir.path()).expect("opens"), Arc::clone(&self.dir)).await
    }

    async fn on(store: Store, dir: Arc<TempDir>) -> Self {
        let pki = dir.path().join("pki");
        let alone = crate::rotation::open(&store, &pki, NOW).await.expect("an authority");
        let authorities = watch::Sender::new(Arc::new(alone));
        let (sender, receiver) = watch::channel(Arc::new(plans(&["web"])));
        let service = TelemetryService {
            store,
            plans: receiver,
            config: Arc::new(Config::parse("c", "").expect("valid")),
            authorities: authorities.subscribe(),
            presence: Presence::default(),
            clock: WallClock::manual(NOW),
            committed: Arc::new(Notify::new()),
            sessions: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let as_agent = move |mut request: Request<()>| {
            request.extensions_mut().insert(ConnectInfo {
                peer: address,
                agent: Some(AGENT),
                serial: None,
                certificate: None,
            });
            Ok(request)
        };
        let server = tonic::transport::Server::builder()
            .add_service(TelemetryServer::with_interceptor(service.clone(), as_agent));
        let mut servers = JoinSet::new();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        servers.spawn(async move { server.serve_with_incoming(incoming).await.expect("serves") });
        Self { service, plans: sender, authorities, pki, address, _server: servers, dir }
    }

    /// What the upkeep does after `ca rotate` and `ca retire`.
    async fn follow(&self) -> Arc<Authorities> {
        let opened = crate::rotation::open(&self.service.store, &self.pki, NOW).await.expect("authorities");
        self.authorities.send_replace(Arc::new(opened));
        Arc::clone(&self.authorities.borrow())
    }

    async fn call(&self) -> Result<Agent, Status> {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", self.address)).expect("a URL");
        let channel = endpoint.connect().await.expect("connects");
        let (say, outbox) = mpsc::channel(16);
        let hear = TelemetryClient::new(channel).stream(ReceiverStream::new(outbox)).await?.into_inner();
        Ok(Agent { say, hear })
    }

    /// An agent that has greeted, was welcomed and got its plan; and the mark it was told.
    async fn agent(&self) -> (Agent, u64) {
        let mut agent = self.call().await.expect("a stream");
        let acked = agent.greet(0).await;
        assert!(matches!(agent.hear().await, Hear::Plan(_)));
        (agent, acked)
    }
}

struct Agent {
    say: mpsc::Sender<AgentMessage>,
    hear: Streaming<CollectorMessage>,
}

impl Agent {
    async fn say(&self, kind: Say) {
        self.say.send(AgentMessage { kind: Some(kind) }).await.expect("the collector listens");
    }

    async fn hear(&mut self) -> Hear {
        let message = self.hear.message().await.expect("an answer").expect("the stream goes on");
        message.kind.expect("a kind")
    }

    async fn greet(&mut self, plan_version: u64) -> u64 {
        self.greet_as(0, plan_version).await.acked
    }

    async fn greet_as(&mut self, run: u64, plan_version: u64) -> Welcome {
        let hello = Hello { protocol: 1, epoch: EPOCH, plan_version, hostname: "host".into(), run, ..Hello::default() };
        self.say(Say::Hello(hello)).await;
        match self.hear().await {
            Hear::Welcome(welcome) => welcome,
            other => panic!("a welcome was due, not {other:?}"),
        }
    }

    async fn send(&self, epoch: u64, first: u64, records: usize, at: UtcTime) {
        let record = convert::to_spool(&Record::Vitals(Vitals { at, ..Vitals::default() }));
        let items = vec![convert::to_item(&record).expect("a record"); records];
        let block = block::encode(Seq(first), &items).into();
        self.say(Say::Batch(Batch { epoch, first_seq: first, block })).await;
    }

    async fn ack(&mut self) -> u64 {
        match self.hear().await {
            Hear::Ack(Ack { epoch: EPOCH, through }) => through,
            other => panic!("an ack was due, not {other:?}"),
        }
    }

    /// The status the stream ends with.
    async fn end(mut self) -> Code {
        loop {
            match self.hear.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Code::Ok,
                Err(status) => return status.code(),
            }
        }
    }
}

#[tokio::test]
async fn f1_an_ack_means_committed_and_a_repetition_is_acked_and_not_stored_again() {
    let stage = Stage::new().await;
    let (mut agent, acked) = stage.agent().await;
    assert_eq!(acked, 0);
    agent.send(EPOCH, 1, 3, NOW).await;
    assert_eq!(agent.ack().await, 3);
    assert_eq!(stage.service.store.acked(AGENT, Epoch(EPOCH)).await.expect("read"), Seq(3));
    agent.send(EPOCH, 1, 3, NOW).await;
    assert_eq!(agent.ack().await, 3);
    agent.send(EPOCH, 2, 4, NOW).await;
    assert_eq!(agent.ack().await, 5);
    let totals = stage.service.store.stream_totals(AGENT).await.expect("read");
    assert_eq!((totals.records, totals.lost), (5, 0));
    drop(agent);
    assert_eq!(stage.agent().await.1, 5, "the next stream goes on after the mark");
}

#[tokio::test]
async fn f3_an_agent_that_goes_on_at_another_collector_in_the_middle_of_a_batch_is_stored_once() {
    let stage = Stage::new().await;
    let other = stage.other_collector().await;
    let (agent, _) = stage.agent().await;
    agent.send(EPOCH, 1, 3, NOW).await;
    // Stored, and the ack is lost with the connection.
    let mut acked = Seq(0);
    while acked < Seq(3) {
        acked = stage.service.store.acked(AGENT, Epoch(EPOCH)).await.expect("read");
    }
    drop(agent);
    let (mut agent, mark) = other.agent().await;
    assert_eq!(mark, 3, "the mark is the database's, not the collector's");
    // It does not believe the mark and sends all of it again, with two more.
    agent.send(EPOCH, 1, 5, NOW).await;
    assert_eq!(agent.ack().await, 5);
    let totals = stage.service.store.stream_totals(AGENT).await.expect("read");
    assert_eq!((totals.records, totals.lost), (5, 0));
}

#[tokio::test]
async fn what_can_never_be_stored_is_refused_by_number_and_the_stream_goes_on() {
    let stage = Stage::new().await;
    let (mut agent, _) = stage.agent().await;
    agent.send(EPOCH + 1, 1, 1, NOW).await;
    agent.send(EPOCH, 1, 2, NOW.plus(Millis(2 * Millis::DAY.0))).await;
    for last in [1, 2] {
        match agent.hear().await {
            Hear::Refusal(refusal) => assert_eq!((refusal.first_seq, refusal.last_seq), (1, last)),
            other => panic!("a refusal was due, not {other:?}"),
        }
    }
    agent.send(EPOCH, 3, 1, NOW).await;
    assert_eq!(agent.ack().await, 3);
    assert_eq!(stage.service.store.stream_totals(AGENT).await.expect("read").lost, 2);
}

#[tokio::test]
async fn a_plan_travels_when_it_differs_and_only_then() {
    let stage = Stage::new().await;
    let running = plans(&["web"]).for_agent(AGENT, "host", &Labels::default()).version;
    let mut agent = stage.call().await.expect("a stream");
    agent.greet(running).await;
    agent.send(EPOCH, 1, 1, NOW).await;
    assert_eq!(agent.ack().await, 1, "no plan came before it: the agent runs it already");
    stage.plans.send_replace(Arc::new(plans(&["web", "db"])));
    let Hear::Plan(plan) = agent.hear().await else { panic!("a plan was due") };
    assert_eq!(plan.checks.len(), 2);
    agent
        .say(Say::PlanResult(PlanResult { version: plan.version, refused: vec!["too many".into()], left_out: vec![] }))
        .await;
    stage.plans.send_replace(Arc::new(plans(&["web", "db"])));
    agent.send(EPOCH, 2, 1, NOW).await;
    assert_eq!(agent.ack().await, 2, "the same plan does not travel again, though it was refused");
    assert_eq!(stage.service.presence.contacts()[&AGENT].plan_refused, ["too many"]);
}

#[tokio::test]
async fn a_store_that_cannot_write_sends_the_agent_away_with_its_records() {
    let stage = Stage::new().await;
    let (mut agent, _) = stage.agent().await;
    stage.service.store.clone().close().await;
    agent.send(EPOCH, 1, 1, NOW).await;
    assert!(matches!(agent.hear().await, Hear::RetryAfter(wait) if wait.millis == 5_000));
    assert_eq!(agent.end().await, Code::Ok);
}

#[tokio::test]
async fn a_revoked_agent_is_turned_away_in_the_middle_and_at_the_door() {
    let stage = Stage::new().await;
    let (agent, _) = stage.agent().await;
    stage.service.store.revoke(AGENT, NOW, "test").await.expect("revoked");
    agent.send(EPOCH, 1, 1, NOW).await;
    assert_eq!(agent.end().await, Code::PermissionDenied);
    assert_eq!(stage.call().await.err().map(|status| status.code()), Some(Code::PermissionDenied));
    assert_eq!(stage.service.store.acked(AGENT, Epoch(EPOCH)).await.expect("read"), Seq(0));
}

#[tokio::test]
async fn a_newer_stream_takes_over_and_stopping_ends_all() {
    let stage = Stage::new().await;
    let (first, _) = stage.agent().await;
    let (second, _) = stage.agent().await;
    assert_eq!(first.end().await, Code::Ok);
    assert!(stage.service.presence.contacts()[&AGENT].connected);
    stage.service.stop.cancel();
    assert_eq!(second.end().await, Code::Ok);
    stage.service.sessions.close();
    stage.service.sessions.wait().await;
    assert!(!stage.service.presence.contacts()[&AGENT].connected);
}

#[tokio::test]
async fn whoever_does_not_greet_or_speaks_another_version_is_told_so() {
    let stage = Stage::new().await;
    let agent = stage.call().await.expect("a stream");
    agent.send(EPOCH, 1, 1, NOW).await;
    assert_eq!(agent.end().await, Code::InvalidArgument);
    let agent = stage.call().await.expect("a stream");
    agent.say(Say::Hello(Hello { protocol: 2, ..Hello::default() })).await;
    assert_eq!(agent.end().await, Code::FailedPrecondition);
}

#[tokio::test]
async fn f29_two_hosts_with_one_identity_are_told_apart_and_each_is_asked_for_an_epoch_of_its_own() {
    let stage = Stage::new().await;
    let mut told = Vec::new();
    // The original, its connection lost once, the clone, the original again, the clone again.
    for run in [1, 1, 2, 1, 2] {
        let mut host = stage.call().await.expect("a stream");
        let welcome = host.greet_as(run, 0).await;
        told.push(welcome.renew_epoch);
        if welcome.renew_epoch {
            assert_eq!(host.end().await, Code::Ok, "it comes back with its new epoch");
        }
    }
    assert_eq!(told, [false, false, false, true, true]);
}

/// A message as an agent of 25 November 2026 sent it.
fn recorded(name: &str) -> Say {
    use prost::Message as _;
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/tests/fixtures/protocol-1");
    let bytes = std::fs::read(std::path::Path::new(dir).join(name)).expect(name);
    AgentMessage::decode(&*bytes).expect(name).kind.expect(name)
}

#[tokio::test]
async fn f33_an_old_agent_is_welcomed_gets_its_plan_and_its_batch_is_acked() {
    let stage = Stage::new().await;
    let mut agent = stage.call().await.expect("a stream");
    agent.say(recorded("agent-hello")).await;
    assert!(matches!(agent.hear().await, Hear::Welcome(welcome) if welcome.acked == 0 && !welcome.renew_epoch));
    assert!(matches!(agent.hear().await, Hear::Plan(_)));
    agent.say(recorded("agent-batch")).await;
    assert_eq!(agent.ack().await, 3);
    agent.say(recorded("agent-plan-result")).await;
    agent.send(EPOCH, 4, 1, NOW).await;
    assert_eq!(agent.ack().await, 4);
    assert_eq!(stage.service.presence.contacts()[&AGENT].plan_refused, ["no"]);
}

/// An agent that trusts these, the issuer of its certificate first, and runs its plan.
async fn trusting(stage: &Stage, trusted: &[CaFingerprint]) -> Agent {
    let running = plans(&["web"]).for_agent(AGENT, "host", &Labels::default()).version;
    let mut agent = stage.call().await.expect("a stream");
    let authorities = trusted.iter().map(|authority| authority.0.to_vec()).collect();
    let hello = Hello { protocol: 1, epoch: EPOCH, plan_version: running, authorities, ..Hello::default() };
    agent.say(Say::Hello(hello)).await;
    assert!(matches!(agent.hear().await, Hear::Welcome(_)));
    agent
}

/// Whether a wish for a renewal came before the answer to the next batch.
async fn is_asked(agent: &mut Agent, first: u64) -> bool {
    agent.send(EPOCH, first, 1, NOW).await;
    match agent.hear().await {
        Hear::RenewIdentity(_) => agent.ack().await == first,
        Hear::Ack(_) => false,
        other => panic!("an ack was due, not {other:?}"),
    }
}

#[tokio::test]
async fn while_the_authority_is_replaced_agents_are_asked_to_renew_and_those_that_came_back_count_as_moved() {
    let stage = Stage::new().await;
    let old = stage.authorities.borrow().named().in_force;
    let mut settled = trusting(&stage, &[old]).await;
    assert!(!is_asked(&mut settled, 1).await, "nothing is to be learnt");

    crate::rotation::begin(&stage.service.store, &stage.pki, false, false, NOW, "test").await.expect("begun");
    let next = stage.follow().await.named().next.expect("a next one");
    assert!(matches!(settled.hear().await, Hear::RenewIdentity(_)), "asked over the stream that is open");
    drop(settled);
    let mut of_one = trusting(&stage, &[]).await;
    assert!(!is_asked(&mut of_one, 2).await, "an agent that keeps one only is left alone");
    drop(of_one);
    let issuer = async || stage.service.store.agents().await.expect("read")[0].authority.clone();
    let mut unmoved = trusting(&stage, &[old]).await;
    assert!(is_asked(&mut unmoved, 3).await);
    assert_eq!(issuer().await, old.to_string());
    drop(unmoved);
    let mut moved = trusting(&stage, &[next, old]).await;
    assert!(!is_asked(&mut moved, 4).await);
    assert_eq!(issuer().await, next.to_string());

    let named = stage.authorities.borrow().named();
    stage.service.store.retire_authority(named, [].into(), NOW, "test").await.expect("retired");
    stage.follow().await;
    assert!(matches!(moved.hear().await, Hear::RenewIdentity(_)), "it is to forget the old one");
    drop(moved);
    let mut done = trusting(&stage, &[next]).await;
    assert!(!is_asked(&mut done, 5).await);
}

#[tokio::test]
async fn f29_a_twin_and_an_agent_that_forgot_what_it_sent_are_noted_until_somebody_has_seen_to_it() {
    let stage = Stage::new().await;
    let store = &stage.service.store;
    let noted = async || store.agents().await.expect("read")[0].copied;
    let greet = async |run, last| {
        let mut agent = stage.call().await.expect("a stream");
        agent.say(Say::Hello(Hello { protocol: 1, epoch: EPOCH, run, last, ..Hello::default() })).await;
        assert!(matches!(agent.hear().await, Hear::Welcome(_)));
        agent
    };
    let mut agent = greet(1, 0).await;
    assert!(matches!(agent.hear().await, Hear::Plan(_)));
    agent.send(EPOCH, 1, 3, NOW).await;
    assert_eq!(agent.ack().await, 3);
    drop(greet(1, 3).await);
    assert_eq!(noted().await, None, "a lost connection is no copy");
    drop(greet(2, 2).await);
    assert_eq!(noted().await, Some((NOW, Copied::Rewound)));
    store.accept_copied(AGENT, NOW, "test").await.expect("accepted");
    assert_eq!(noted().await, None);
    drop(greet(1, 3).await);
    assert_eq!(noted().await, Some((NOW, Copied::Twin)));
}

#[tokio::test]
async fn what_a_host_says_it_is_for_chooses_its_checks_at_once_and_is_kept() {
    let stage = Stage::new().await;
    let text = "[[check]]\nname='shop'\nkind='tcp'\naddress='h:1'\nlabels={role='web'}\n";
    let checks = Config::parse("c", text).expect("valid").checks;
    let numbers = BTreeMap::from([("shop".to_owned(), peil_proto::ids::CheckNo(1))]);
    stage.plans.send_replace(Arc::new(Plans::new(&checks, &numbers, BTreeMap::new())));
    for (role, expected) in [("web", 1), ("db", 0)] {
        let mut agent = stage.call().await.expect("a stream");
        let labels = vec![peil_proto::wire::Label { name: "role".into(), value: role.into() }];
        agent.say(Say::Hello(Hello { protocol: 1, epoch: EPOCH, labels, ..Hello::default() })).await;
        assert!(matches!(agent.hear().await, Hear::Welcome(_)));
        let Hear::Plan(plan) = agent.hear().await else { panic!("a plan was due") };
        assert_eq!(plan.checks.len(), expected, "{role}");
        let kept = stage.service.store.agents().await.expect("read")[0].labels.to_string();
        assert_eq!(kept, format!("role={role}"));
    }
}
