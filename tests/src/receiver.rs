//! On-call's end of a webhook: takes deliveries, and refuses them when told to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, ensure};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::eventually;
use crate::port::Port;

/// A request that came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Answered with 200.
    pub taken: bool,
    /// `groupKey`: the key of the alert.
    pub key: String,
    /// `firing` or `resolved`.
    pub status: String,
    /// `Idempotency-Key`.
    pub idempotency: String,
    /// The whole body.
    pub body: Value,
}

#[derive(Default)]
struct Desk {
    refuse: bool,
    came: Vec<Delivery>,
}

type Shared = Arc<Mutex<Desk>>;

/// Listens until dropped.
pub struct Receiver {
    port: Port,
    desk: Shared,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// One that takes everything.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> anyhow::Result<Self> {
        let port = Port::reserve()?;
        let (desk, stop) = (Shared::default(), CancellationToken::new());
        let listener = std::net::TcpListener::bind(port.address()).context("the receiver cannot listen")?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (router, stopped) = (Router::new().route("/hook", post(take)).with_state(desk.clone()), stop.clone());
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                tokio::select! {
                    _ = async { axum::serve(listener, router).await } => {}
                    () = stopped.cancelled() => {}
                }
            });
        });
        Ok(Self { port, desk, stop, thread: Some(thread) })
    }

    /// Where to post.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.port.address())
    }

    /// From now on everything is answered with 500, or taken.
    pub fn refuse(&self, refuse: bool) {
        lock(&self.desk).refuse = refuse;
    }

    /// What came about alerts whose key begins with `key`, in order.
    pub fn came(&self, key: &str) -> Vec<Delivery> {
        lock(&self.desk).came.iter().filter(|delivery| delivery.key.starts_with(key)).cloned().collect()
    }

    /// `firing`, `resolved`, … of what was taken about `key`, in order.
    pub fn taken(&self, key: &str) -> Vec<String> {
        self.came(key).into_iter().filter(|delivery| delivery.taken).map(|delivery| delivery.status).collect()
    }

    /// Waits until exactly `statuses` were taken about `key`.
    ///
    /// # Errors
    /// When it does not come to that.
    pub async fn has_taken(&self, key: &str, statuses: &[&str]) -> anyhow::Result<()> {
        eventually(&format!("the receiver has {statuses:?} about {key}"), async || {
            let taken = self.taken(key);
            ensure!(taken == statuses, "it has {taken:?}");
            Ok(())
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(desk: &Shared) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn take(State(desk): State<Shared>, headers: HeaderMap, Json(body): Json<Value>) -> StatusCode {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let idempotency = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut desk = lock(&desk);
    let taken = !desk.refuse;
    let delivery = Delivery {
        taken,
        key: text(&body["groupKey"]),
        status: text(&body["status"]),
        idempotency: idempotency.to_owned(),
        body,
    };
    desk.came.push(delivery);
    if taken { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }
}
