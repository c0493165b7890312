//! A browser and a program for tests: the router, a clock that stands still, and one user.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use peil_collector::access::{Access, AccessStore, PasswordCost, Role};
use peil_collector::agreement::{Agreement, InForce};
use peil_collector::config::Config;
use peil_collector::snapshot::Snapshot;
use peil_collector::store::Store;
use peil_collector::web::decide::Desk;
use peil_collector::web::metrics::Metrics;
use peil_collector::web::ready::Readiness;
use peil_collector::web::{WebState, router};
use peil_proto::time::WallClock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::specimen::NOW;

/// Fewer bytes and passes than in life: these tests are not about the cost of a guess.
const CHEAP: PasswordCost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };

pub(crate) struct Site {
    pub(crate) router: Router,
    pub(crate) access: Access,
    pub(crate) clock: WallClock,
    pub(crate) publish: watch::Sender<Arc<Snapshot>>,
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: Metrics,
    pub(crate) desk: Desk,
    _dir: tempfile::TempDir,
    _in_force: watch::Sender<Arc<InForce>>,
}

/// A service with its contract, for decisions about it.
const SETTINGS: &str = "[[contract]]\nname='c'\n[[check]]\nname='web'\nkind='tcp'\naddress='h:1'\n\
                        [[service]]\nname='Klantportaal'\ncontract='c'\nexpression='web'\n";

fn desk(dir: &std::path::Path) -> (Desk, watch::Sender<Arc<InForce>>) {
    let config = Config::parse("collector.toml", SETTINGS).expect("valid");
    let agreement = Agreement::new(&config, &[]).expect("makes sense");
    let (sender, in_force) = watch::channel(Arc::new(InForce { agreement, numbers: Default::default() }));
    let store = Store::open(dir).expect("opens");
    (Desk { store, config: Arc::new(config), in_force, past_changed: Arc::default() }, sender)
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
}

impl Site {
    pub(crate) async fn showing(snapshot: Snapshot) -> Self {
        Self::with_store(snapshot, Ok(())).await
    }

    pub(crate) async fn with_store(snapshot: Snapshot, store: Result<(), String>) -> Self {
        let clock = WallClock::manual(NOW);
        let access = Access::new(AccessStore::memory(), clock.clone(), CHEAP).expect("random bytes");
        access.set_password("admin", Role::Admin, "horse").await.expect("set");
        let (publish, latest) = watch::channel(Arc::new(snapshot));
        let stop = CancellationToken::new();
        let metrics = Metrics::new(latest.clone());
        let dir = tempfile::tempdir().expect("a directory");
        let (desk, in_force) = desk(dir.path());
        let state = WebState {
            desk: desk.clone(),
            latest,
            access: access.clone(),
            readiness: Readiness::new(move || std::future::ready(store.clone())),
            metrics: metrics.clone(),
            clock: clock.clone(),
            stop: stop.clone(),
        };
        Self { router: router(state), access, clock, publish, stop, metrics, desk, _dir: dir, _in_force: in_force }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.expect("infallible")
    }

    pub(crate) async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.send(request).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), 16 << 20).await.expect("a whole body");
        Answer { status, headers, text: String::from_utf8(bytes.to_vec()).expect("UTF-8") }
    }

    /// A session's cookie.
    pub(crate) async fn cookie(&self) -> String {
        let answer = self.ask(login("admin", "horse", "")).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        answer.header("set-cookie").split(';').next().expect("a pair").to_owned()
    }

    /// What somebody who is logged in gets.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        let cookie = self.cookie().await;
        self.ask(with_cookie(path, &cookie)).await
    }

    /// The text of a page that must be there.
    pub(crate) async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer.text
    }
}

pub(crate) fn with_cookie(path: &str, cookie: &str) -> Request<Body> {
    Request::get(path).header(header::COOKIE, cookie).body(Body::empty()).expect("a request")
}

pub(crate) fn plain(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

/// A filled-in log-in form as a browser sends it. The values need no encoding.
pub(crate) fn login(name: &str, password: &str, next: &str) -> Request<Body> {
    Request::post("/login")
        .header("sec-fetch-site", "same-origin")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(format!("name={name}&password={password}&next={next}")))
        .expect("a request")
}
