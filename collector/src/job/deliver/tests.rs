//! Real receivers on loopback that take, refuse or never answer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use peil_proto::time::UtcTime;
use tokio::sync::mpsc;

use super::*;
use crate::config::{Channel, ChannelKind, kinds_by_default};
use crate::job::trial::{NOON, Trial};
use crate::store::alerts::outbox::Progress;
use crate::store::alerts::{AlertChange, NewAlert};

/// What a receiver does with a message.
#[derive(Clone)]
struct Answer {
    /// Status; 0 never answers.
    status: Arc<AtomicU16>,
    heard: mpsc::Sender<serde_json::Value>,
    /// Closed while the message is taken, to be a store that fails just then.
    closes: Option<Store>,
}

struct Receiver {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    heard: mpsc::Receiver<serde_json::Value>,
    _server: JoinSet<()>,
}

impl Receiver {
    async fn new(status: u16, closes: Option<Store>) -> Self {
        let (tell, heard) = mpsc::channel(100);
        let status = Arc::new(AtomicU16::new(status));
        let answer = Answer { status: status.clone(), heard: tell, closes };
        let app = Router::new().route("/", post(take)).route("/api/v2/alerts", post(take)).with_state(answer);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.expect("serves") });
        Self { address, status, heard, _server: server }
    }

    fn sender(&self, name: &str, kind: ChannelKind) -> Arc<Sender> {
        let url = format!("http://{}", self.address);
        let channel =
            Channel { name: name.into(), kind, url, ca_file: None, token_file: None, kinds: kinds_by_default() };
        Arc::new(Sender::new(channel).expect("a sender"))
    }

    /// `firing outage/portal` for each message so far.
    fn heard(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).map(|body| in_short(&body)).collect()
    }
}

fn in_short(body: &serde_json::Value) -> String {
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} {}", word(&body["status"]), word(&body["groupKey"]))
}

async fn take(State(answer): State<Answer>, body: Bytes) -> StatusCode {
    let body = serde_json::from_slice(&body).expect("JSON");
    answer.heard.send(body).await.expect("the test listens");
    if let Some(store) = answer.closes {
        store.close().await;
    }
    match answer.status.load(Ordering::SeqCst) {
        0 => std::future::pending().await,
        status => StatusCode::from_u16(status).expect("a status"),
    }
}

fn alert(key: &str, at: UtcTime) -> AlertChange {
    AlertChange::Open(NewAlert {
        key: key.into(),
        kind: "outage".into(),
        severity: "critical".into(),
        subject: key.trim_start_matches("outage/").into(),
        summary: "down".into(),
        action: "restore it".into(),
        at,
    })
}

async fn apply(trial: &Trial, changes: Vec<AlertChange>, channels: &[&str]) {
    let channels = channels.iter().map(|name| (*name).to_owned()).collect();
    let held = trial.leading.borrow().held.clone();
    trial.store.apply_alerts(changes, channels, held).await.expect("written");
}

fn deliver(trial: &Trial, senders: &[&Arc<Sender>]) -> Deliver {
    Deliver {
        leading: trial.leading.clone(),
        store: trial.store.clone(),
        senders: senders.iter().map(|sender| (sender.channel().name.clone(), (*sender).clone())).collect(),
        clock: trial.clock.clone(),
        public_url: "https://peil.test".into(),
        raised: Arc::new(Notify::new()),
    }
}

fn lane(trial: &Trial, sender: &Arc<Sender>) -> Lane {
    deliver(trial, &[]).lane(sender.clone())
}

#[test]
fn waits_double_up_to_five_minutes() {
    let waits: Vec<i64> = (0..12).map(|attempts| retry_after(attempts).0 / 1_000).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    assert_eq!(retry_after(u32::MAX), RETRY_MAX);
}

#[tokio::test]
async fn firing_comes_before_resolved_and_each_once() {
    let trial = Trial::new().await;
    let mut receiver = Receiver::new(200, None).await;
    let mut lane = lane(&trial, &receiver.sender("hook", ChannelKind::Webhook));
    apply(&trial, vec![alert("outage/a", NOON), alert("outage/b", NOON)], &["hook"]).await;
    apply(&trial, vec![AlertChange::Resolve { key: "outage/a".into(), at: NOON }], &["hook"]).await;
    for _ in 0..3 {
        lane.activate(&CancellationToken::new()).await.expect("sent");
    }
    assert_eq!(receiver.heard(), ["firing outage/a", "firing outage/b", "resolved outage/a"]);
}

#[tokio::test]
async fn a_receiver_that_refuses_is_tried_again_later_and_gets_it_in_the_end() {
    let trial = Trial::new().await;
    let mut receiver = Receiver::new(500, None).await;
    let mut lane = lane(&trial, &receiver.sender("hook", ChannelKind::Webhook));
    let stop = CancellationToken::new();
    apply(&trial, vec![alert("outage/a", NOON)], &["hook"]).await;
    let mut now = NOON;
    for attempt in 0..3 {
        lane.activate(&stop).await.expect("tried");
        lane.activate(&stop).await.expect("not due yet");
        assert_eq!(receiver.heard(), ["firing outage/a"], "one attempt, then a pause");
        now = now.plus(retry_after(attempt));
        trial.clock.set(now);
    }
    let alerts = trial.store.alerts_open().await.expect("read");
    let rows = trial.store.deliveries_of(vec![alerts[0].id]).await.expect("read");
    assert_eq!((rows[0].attempts, rows[0].progress), (3, Progress::Waiting { due_at: now }));
    assert!(rows[0].last_error.contains("answered 500"), "{}", rows[0].last_error);
    receiver.status.store(200, Ordering::SeqCst);
    lane.activate(&stop).await.expect("sent");
    lane.activate(&stop).await.expect("nothing left");
    assert_eq!(receiver.heard(), ["firing outage/a"]);
}

#[tokio::test]
async fn a_message_one_receiver_always_refuses_does_not_hold_up_the_others_of_its_channel() {
    let trial = Trial::new().await;
    let mut receiver = Receiver::new(400, None).await;
    let mut lane = lane(&trial, &receiver.sender("hook", ChannelKind::Webhook));
    let stop = CancellationToken::new();
    apply(&trial, vec![alert("outage/poison", NOON)], &["hook"]).await;
    lane.activate(&stop).await.expect("tried");
    receiver.status.store(200, Ordering::SeqCst);
    apply(&trial, vec![AlertChange::Resolve { key: "outage/poison".into(), at: NOON }], &["hook"]).await;
    apply(&trial, vec![alert("outage/b", NOON)], &["hook"]).await;
    lane.activate(&stop).await.expect("sent");
    assert_eq!(receiver.heard(), ["firing outage/poison", "firing outage/b"], "its end waits for its beginning");
}

#[tokio::test]
async fn a_receiver_that_never_answers_holds_up_no_other() {
    let trial = Trial::new().await;
    let mut dead = Receiver::new(0, None).await;
    let mut good = Receiver::new(200, None).await;
    let (one, other) = (dead.sender("dead", ChannelKind::Webhook), good.sender("good", ChannelKind::Webhook));
    let job = deliver(&trial, &[&one, &other]);
    let (raised, stop) = (job.raised.clone(), CancellationToken::new());
    apply(&trial, vec![alert("outage/a", NOON)], &["dead", "good"]).await;
    let mut running = JoinSet::new();
    running.spawn(job.run(stop.clone()));
    dead.heard.recv().await.expect("tried, and left hanging");
    good.heard.recv().await.expect("delivered");
    // What is raised while the dead one hangs must get through as well.
    apply(&trial, vec![alert("outage/b", NOON)], &["dead", "good"]).await;
    raised.notify_one();
    let second = good.heard.recv().await.expect("delivered");
    assert_eq!(in_short(&second), "firing outage/b");
    assert_eq!(dead.heard(), Vec::<String>::new(), "still busy with its first");
    running.shutdown().await;
}

#[tokio::test]
async fn hundreds_of_deliveries_for_others_do_not_hide_ones_own() {
    let trial = Trial::new().await;
    let mut receiver = Receiver::new(200, None).await;
    let many = (0..300).map(|n| alert(&format!("outage/{n}"), NOON.plus(Millis(-1)))).collect();
    apply(&trial, many, &["busy"]).await;
    apply(&trial, vec![alert("outage/a", NOON)], &["hook"]).await;
    lane(&trial, &receiver.sender("hook", ChannelKind::Webhook))
        .activate(&CancellationToken::new())
        .await
        .expect("sent");
    assert_eq!(receiver.heard(), ["firing outage/a"]);
}

#[tokio::test]
async fn what_waits_for_a_channel_that_is_gone_is_given_up_and_says_why() {
    let trial = Trial::new().await;
    apply(&trial, vec![alert("outage/a", NOON)], &["gone"]).await;
    apply(&trial, vec![AlertChange::Resolve { key: "outage/a".into(), at: NOON }], &["gone"]).await;
    deliver(&trial, &[]).abandon_strangers().await.expect("given up");
    assert_eq!(trial.store.deliveries_due(NOON, 10).await.expect("read"), []);
    let id = trial.store.alerts_recent(UtcTime(0), 10).await.expect("read")[0].id;
    let rows = trial.store.deliveries_of(vec![id]).await.expect("read");
    assert!(rows.iter().all(|row| row.last_error.contains("not configured any more")), "{rows:?}");
}

#[tokio::test]
async fn what_was_taken_is_not_sent_again_because_the_store_could_not_note_it() {
    let trial = Trial::new().await;
    let dying = Store::open(trial.path()).expect("opens");
    let mut receiver = Receiver::new(200, Some(dying.clone())).await;
    let mut lane = lane(&trial, &receiver.sender("hook", ChannelKind::Webhook));
    lane.store = dying;
    apply(&trial, vec![alert("outage/a", NOON)], &["hook"]).await;
    lane.activate(&CancellationToken::new()).await.expect_err("the store was closed while it was sent");
    lane.store = trial.store.clone();
    lane.activate(&CancellationToken::new()).await.expect("noted");
    assert_eq!(receiver.heard(), ["firing outage/a"]);
    assert_eq!(trial.store.deliveries_due(NOON, 10).await.expect("read"), []);
}

#[tokio::test]
async fn alertmanager_is_told_again_what_is_open_and_only_that() {
    let trial = Trial::new().await;
    let mut receiver = Receiver::new(200, None).await;
    let lane = lane(&trial, &receiver.sender("am", ChannelKind::Alertmanager));
    lane.refresh().await.expect("nothing to tell");
    apply(&trial, vec![alert("outage/a", NOON), alert("outage/b", NOON)], &["am"]).await;
    apply(&trial, vec![AlertChange::Resolve { key: "outage/a".into(), at: NOON }], &["am"]).await;
    lane.refresh().await.expect("told");
    let body = receiver.heard.try_recv().expect("one message");
    let alerts = body.as_array().expect("a list");
    assert_eq!(alerts.len(), 1);
    assert_eq!(alerts[0]["labels"]["peil_key"], "outage/b");
    assert_eq!(alerts[0]["endsAt"], NOON.plus(Millis(5 * Millis::MINUTE.0)).to_string());
    assert!(receiver.heard.try_recv().is_err());
}
