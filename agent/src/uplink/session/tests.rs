//! A real gRPC stream on loopback; the collector's part is played by hand, word for word.

use std::net::SocketAddr;

use peil_proto::ids::CheckNo;
use peil_proto::plan::{CheckDef, CheckKind, Tcp};
use peil_proto::record::{Record, Vitals};
use peil_proto::wire::telemetry_server::{Telemetry, TelemetryServer};
use peil_proto::wire::{Ack, Refusal, RetryAfter, Welcome};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status};

use super::*;
use crate::recorder::{Ledger, SpoolThread};
use crate::spool::{Limits, Spool};

/// The collector's end of one stream.
struct Conversation {
    hear: Streaming<AgentMessage>,
    say: mpsc::Sender<Result<CollectorMessage, Status>>,
}

impl Conversation {
    async fn say(&self, kind: Hear) {
        self.say.send(Ok(CollectorMessage { kind: Some(kind) })).await.expect("the agent listens");
    }

    async fn greeted(&mut self) -> Hello {
        let Some(AgentMessage { kind: Some(Say::Hello(hello)) }) = self.hear.message().await.expect("a greeting")
        else {
            panic!("the agent greets first");
        };
        hello
    }

    async fn welcome(&mut self, acked: u64, unacked_bytes_max: u32) -> Hello {
        let hello = self.greeted().await;
        self.say(Hear::Welcome(Welcome { acked, wall_ms: i64::MIN, unacked_bytes_max, renew_epoch: false })).await;
        hello
    }

    /// The next batch: its epoch, first sequence and number of records.
    async fn batch(&mut self) -> (u64, u64, usize) {
        match self.hear.message().await.expect("a message") {
            Some(AgentMessage { kind: Some(Say::Batch(batch)) }) => {
                let block = block::decode(&batch.block).expect("a block");
                assert_eq!(block.first.0, batch.first_seq);
                (batch.epoch, batch.first_seq, block.items.len())
            }
            other => panic!("a batch was due, not {other:?}"),
        }
    }

    async fn plan_result(&mut self) -> PlanResult {
        match self.hear.message().await.expect("a message") {
            Some(AgentMessage { kind: Some(Say::PlanResult(result)) }) => result,
            other => panic!("an answer to the plan was due, not {other:?}"),
        }
    }
}

#[derive(Clone)]
struct Stage(mpsc::Sender<Conversation>);

#[tonic::async_trait]
impl Telemetry for Stage {
    type StreamStream = ReceiverStream<Result<CollectorMessage, Status>>;

    async fn stream(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::StreamStream>, Status> {
        let (say, answers) = mpsc::channel(16);
        let conversation = Conversation { hear: request.into_inner(), say };
        self.0.send(conversation).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// An agent with a spool of its own, and a collector to talk to.
struct Play {
    uplink: Uplink,
    thread: SpoolThread,
    address: SocketAddr,
    conversations: mpsc::Receiver<Conversation>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    sessions: JoinSet<Result<(), SessionError>>,
    dir: TempDir,
}

impl Play {
    async fn new(batch_every: Millis) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let limits = Limits { keep_free_bytes: 0, ..Limits::default() };
        let (spool, _) = Spool::open(&dir.path().join("spool"), "machine", limits).expect("opens");
        let clock = WallClock::manual(UtcTime(1_776_247_200_000));
        let (recorder, thread) =
            Recorder::start(spool, clock.clone(), Ledger::open(dir.path().join("gaps"), Millis::DAY)).expect("starts");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stage, conversations) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(TelemetryServer::new(Stage(stage)));
        tasks.spawn(async move { server.serve_with_incoming(incoming).await.expect("serves") });
        let uplink = Uplink {
            recorder,
            plans: Arc::new(watch::channel(Arc::new(Plan::default())).0),
            state_dir: dir.path().to_owned(),
            hostname: "host".into(),
            labels: Labels::default(),
            local: Told::default(),
            trusted: vec![CaFingerprint([7; 32])],
            renew: Arc::new(watch::channel(None).0),
            run: 42,
            batch_every,
            clock,
            board: Board::default(),
        };
        let (stop, sessions) = (CancellationToken::new(), JoinSet::new());
        Self { uplink, thread, address, conversations, stop, tasks, sessions, dir }
    }

    /// Connects the agent and returns the collector's end.
    async fn connect(&mut self) -> Conversation {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", self.address)).expect("a URL");
        let channel = endpoint.connect().await.expect("connects");
        let (uplink, stop) = (self.uplink.clone(), self.stop.clone());
        self.sessions.spawn(async move { run(&uplink, channel, &stop).await });
        self.conversations.recv().await.expect("a stream")
    }

    async fn ended(&mut self) -> Result<(), SessionError> {
        self.sessions.join_next().await.expect("a session").expect("did not panic")
    }

    async fn record(&self, count: usize, urgent: bool) {
        for _ in 0..count {
            self.uplink.recorder.record(&Record::Vitals(Vitals::default()), urgent).await;
        }
        self.uplink.recorder.sync().await;
    }

    async fn acked(&self, seq: u64) {
        let mut state = self.uplink.recorder.state();
        state.wait_for(|state| state.acked == Seq(seq)).await.expect("the spool is there");
    }

    async fn close(mut self) {
        self.tasks.shutdown().await;
        self.sessions.shutdown().await;
        drop(self.uplink);
        self.thread.join().await;
    }
}

const WINDOW: u32 = 256 << 10;
const PATIENT: Millis = Millis(3_600_000);

#[tokio::test]
async fn f1_what_was_not_acked_is_sent_again_and_what_was_is_not() {
    let mut play = Play::new(PATIENT).await;
    play.record(3, true).await;
    let mut one = play.connect().await;
    let hello = one.welcome(0, WINDOW).await;
    assert_eq!((hello.acked, hello.last), (0, 3));
    assert_eq!(one.batch().await, (hello.epoch, 1, 3));
    one.say(Hear::Ack(Ack { epoch: hello.epoch, through: 2 })).await;
    play.acked(2).await;
    drop(one);
    assert!(matches!(play.ended().await, Err(SessionError::Ended | SessionError::Stream(_))));
    let mut two = play.connect().await;
    let hello = two.welcome(2, WINDOW).await;
    assert_eq!((hello.acked, hello.last), (2, 3));
    assert_eq!(two.batch().await, (hello.epoch, 3, 1));
    two.say(Hear::Ack(Ack { epoch: hello.epoch, through: 3 })).await;
    play.acked(3).await;
    play.close().await;
}

#[tokio::test]
async fn the_collectors_mark_releases_what_an_ack_that_was_lost_would_have() {
    let mut play = Play::new(PATIENT).await;
    play.record(3, true).await;
    let mut collector = play.connect().await;
    collector.welcome(0, WINDOW).await;
    collector.batch().await;
    drop(collector);
    play.ended().await.expect_err("broken off");
    let mut collector = play.connect().await;
    let hello = collector.welcome(2, WINDOW).await;
    assert_eq!(collector.batch().await, (hello.epoch, 3, 1));
    play.acked(2).await;
    play.close().await;
}

#[tokio::test]
async fn an_ack_for_another_epoch_or_for_what_was_never_sent_releases_nothing_more() {
    let mut play = Play::new(PATIENT).await;
    play.record(2, true).await;
    let mut collector = play.connect().await;
    let hello = collector.welcome(0, WINDOW).await;
    assert_eq!(collector.batch().await.2, 2);
    // Routine records that wait for their batch: durable, not sent.
    play.record(2, false).await;
    collector.say(Hear::Ack(Ack { epoch: hello.epoch ^ 1, through: 2 })).await;
    collector.say(Hear::Ack(Ack { epoch: hello.epoch, through: 4 })).await;
    play.acked(2).await;
    play.close().await;
}

#[tokio::test]
async fn f6_a_refused_batch_is_set_aside_and_what_follows_is_sent() {
    let mut play = Play::new(PATIENT).await;
    play.record(2, true).await;
    let mut collector = play.connect().await;
    let hello = collector.welcome(0, WINDOW).await;
    assert_eq!(collector.batch().await, (hello.epoch, 1, 2));
    let reason = "poison".to_owned();
    collector.say(Hear::Refusal(Refusal { epoch: hello.epoch, first_seq: 1, last_seq: 2, reason })).await;
    play.acked(2).await;
    play.record(1, true).await;
    assert_eq!(collector.batch().await, (hello.epoch, 3, 1));
    let aside = std::fs::read_dir(play.dir.path().join("quarantine")).expect("a directory").next();
    let bytes = std::fs::read(aside.expect("one file").expect("readable").path()).expect("readable");
    let kept = block::decode(&bytes).expect("a block");
    assert_eq!((kept.first, kept.items.len()), (Seq(1), 2));
    // The collector's mark did not move; still nothing that was set aside comes again.
    drop(collector);
    let _ = play.ended().await;
    let mut again = play.connect().await;
    again.welcome(0, WINDOW).await;
    assert_eq!(again.batch().await, (hello.epoch, 3, 1));
    play.close().await;
}

#[tokio::test]
async fn f5_a_pause_the_collector_asks_for_is_kept_but_never_for_days() {
    for (asked_ms, kept) in [(5_000, Duration::from_secs(5)), (u32::MAX, RETRY_AFTER_MAX)] {
        let mut play = Play::new(PATIENT).await;
        play.record(1, true).await;
        let mut collector = play.connect().await;
        collector.welcome(0, WINDOW).await;
        collector.batch().await;
        collector.say(Hear::RetryAfter(RetryAfter { millis: asked_ms, reason: "busy".into() })).await;
        match play.ended().await {
            Err(SessionError::RetryAfter { after, .. }) => assert_eq!(after, kept),
            other => panic!("{other:?}"),
        }
        assert_eq!(play.uplink.recorder.state().borrow().acked, Seq(0), "nothing is released");
        play.close().await;
    }
}

#[tokio::test]
async fn f29_a_spool_that_was_put_back_from_a_copy_goes_on_under_a_new_epoch_and_loses_nothing() {
    let mut play = Play::new(PATIENT).await;
    play.record(3, true).await;
    let mut collector = play.connect().await;
    let old = collector.welcome(9, WINDOW).await.epoch;
    let ended = play.ended().await.expect_err("cannot go on");
    assert!(matches!(ended, SessionError::Rewound { acked: Seq(9), last: Seq(0) }), "{ended:?}");
    let mut collector = play.connect().await;
    let hello = collector.welcome(0, WINDOW).await;
    assert_ne!(hello.epoch, old);
    assert_eq!(collector.batch().await, (hello.epoch, 1, 3));
    collector.say(Hear::Ack(Ack { epoch: hello.epoch, through: 3 })).await;
    play.acked(3).await;
    play.close().await;
}

#[tokio::test]
async fn f29_an_agent_that_is_told_of_a_twin_releases_nothing_and_takes_a_new_epoch() {
    let mut play = Play::new(PATIENT).await;
    play.record(3, true).await;
    let mut collector = play.connect().await;
    let first = collector.welcome(0, WINDOW).await;
    assert_eq!((collector.batch().await, first.run), ((first.epoch, 1, 3), 42));
    drop(collector);
    play.ended().await.expect_err("broken off");
    let mut collector = play.connect().await;
    collector.greeted().await;
    collector.say(Hear::Welcome(Welcome { acked: 2, wall_ms: 0, unacked_bytes_max: WINDOW, renew_epoch: true })).await;
    play.ended().await.expect_err("comes again");
    let mut collector = play.connect().await;
    let second = collector.welcome(0, WINDOW).await;
    assert_ne!(second.epoch, first.epoch);
    assert_eq!(collector.batch().await, (second.epoch, 1, 3), "also what the mark would have released");
    play.close().await;
}

#[tokio::test]
async fn a_collector_that_was_put_back_from_a_copy_gets_again_what_the_spool_still_has() {
    let mut play = Play::new(PATIENT).await;
    play.record(3, true).await;
    let mut collector = play.connect().await;
    let hello = collector.welcome(0, WINDOW).await;
    assert_eq!(collector.batch().await, (hello.epoch, 1, 3));
    collector.say(Hear::Ack(Ack { epoch: hello.epoch, through: 3 })).await;
    play.acked(3).await;
    drop(collector);
    let _ = play.ended().await;
    let mut restored = play.connect().await;
    let hello = restored.welcome(1, WINDOW).await;
    assert_eq!((hello.acked, hello.last), (3, 3), "it says what it was told");
    assert_eq!(restored.batch().await, (hello.epoch, 2, 2));
    restored.say(Hear::Ack(Ack { epoch: hello.epoch, through: 3 })).await;
    play.acked(3).await;
    play.close().await;
}

#[tokio::test]
async fn f25_a_plan_is_kept_and_a_bad_one_leaves_the_last_good_one_in_force() {
    let mut play = Play::new(PATIENT).await;
    let mut collector = play.connect().await;
    collector.welcome(0, WINDOW).await;
    let kind = CheckKind::Tcp(Tcp { address: "localhost:22".into(), ..Tcp::default() });
    let good = CheckDef { no: CheckNo(1), name: "ssh".into(), interval_ms: 5_000, timeout_ms: 1_000, kind };
    let bad = CheckDef { timeout_ms: 9_000, ..good.clone() };
    collector.say(Hear::Plan(convert::plan_to_wire(&Plan { version: 1, checks: vec![good] }))).await;
    assert_eq!(collector.plan_result().await, PlanResult { version: 1, refused: vec![], left_out: vec![] });
    collector.say(Hear::Plan(convert::plan_to_wire(&Plan { version: 2, checks: vec![bad] }))).await;
    let answer = collector.plan_result().await;
    assert_eq!((answer.version, answer.refused.len()), (2, 1));
    assert_eq!(play.uplink.plans.borrow().version, 1);
    assert_eq!(crate::plan_file::load(play.dir.path()).map(|plan| plan.version), Some(1));
    play.close().await;
}

#[tokio::test]
async fn f32_stopping_hands_over_what_is_durable_and_waits_for_the_ack() {
    let mut play = Play::new(PATIENT).await;
    let mut collector = play.connect().await;
    let hello = collector.welcome(0, WINDOW).await;
    play.record(2, false).await;
    play.stop.cancel();
    assert_eq!(collector.batch().await, (hello.epoch, 1, 2));
    collector.say(Hear::Ack(Ack { epoch: hello.epoch, through: 2 })).await;
    play.ended().await.expect("an orderly end");
    play.acked(2).await;
    play.close().await;
}

fn session(uplink: &Uplink, say: mpsc::Sender<AgentMessage>) -> Session<'_> {
    Session {
        uplink,
        epoch: uplink.recorder.state().borrow().epoch,
        say,
        sent: Seq(0),
        in_flight: VecDeque::new(),
        window_bytes: 1_000,
        waiting_since: None,
    }
}

#[tokio::test]
async fn with_a_full_window_only_an_ack_or_its_absence_wakes_the_session() {
    let play = Play::new(Millis(1)).await;
    let mut session = session(&play.uplink, mpsc::channel(1).0);
    let now = Instant::now();
    session.waiting_since = Some(now);
    assert_eq!(session.wake_at(), now + Duration::from_millis(1));
    session.in_flight.push_back(InFlight { last: Seq(1), bytes: 1_000, sent_at: now });
    assert!(session.wake_at() > now + ACK_MAX, "no spinning until the ack comes");
    drop(session);
    play.close().await;
}

#[tokio::test]
async fn records_that_cannot_be_read_are_not_asked_for_in_a_loop() {
    let play = Play::new(Millis(1)).await;
    let mut session = session(&play.uplink, mpsc::channel(1).0);
    let long_ago = Instant::now() - Duration::from_secs(60);
    session.waiting_since = Some(long_ago);
    let state = SpoolState { durable: Seq(5), ..SpoolState::default() };
    assert!(session.send_due(state, true).await.expect("goes on") == Left::Nothing, "a stopping agent may stop");
    assert!(session.waiting_since.is_some_and(|since| since > long_ago), "looked at again after the usual patience");
    drop(session);
    play.close().await;
}

/// A message as a collector of 25 November 2026 sent it.
fn recorded(name: &str) -> Hear {
    use prost::Message as _;
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/tests/fixtures/protocol-1");
    let bytes = std::fs::read(std::path::Path::new(dir).join(name)).expect(name);
    CollectorMessage::decode(&*bytes).expect(name).kind.expect(name)
}

#[tokio::test]
async fn f33_an_old_collector_is_understood_from_welcome_to_the_last_ack() {
    let mut play = Play::new(PATIENT).await;
    play.record(3, true).await;
    let mut collector = play.connect().await;
    let hello = collector.greeted().await;
    collector.say(recorded("collector-welcome")).await;
    assert_eq!(collector.batch().await, (hello.epoch, 1, 3));
    collector.say(recorded("collector-plan")).await;
    assert_eq!(collector.plan_result().await, PlanResult { version: 5, ..PlanResult::default() });
    let Hear::Ack(ack) = recorded("collector-ack") else { panic!("an ack") };
    collector.say(Hear::Ack(Ack { epoch: hello.epoch, ..ack })).await;
    play.acked(3).await;
    collector.say(recorded("collector-retry-after")).await;
    assert!(matches!(play.ended().await, Err(SessionError::RetryAfter { .. })));
    play.close().await;
}

#[tokio::test]
async fn a_renewal_the_collector_asks_for_is_handed_on_and_the_greeting_tells_whom_this_host_believes() {
    let mut play = Play::new(Millis(20)).await;
    let mut wish = play.uplink.renew.subscribe();
    let mut collector = play.connect().await;
    let hello = collector.welcome(0, 1 << 20).await;
    assert_eq!(hello.authorities, [vec![7; 32]]);
    collector.say(Hear::RenewIdentity(peil_proto::wire::RenewIdentity { within_ms: 250 })).await;
    wish.wait_for(|within| *within == Some(Millis(250))).await.expect("the wish arrives");
    play.close().await;
}
