//! `/healthz`: the process lives. `/readyz`: it can do its work, and if not, why not.
//!
//! Ready means that the store answers and that a first snapshot exists. Agents being silent or services
//! being down does not make a collector unready: telling that is its work.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use peil_proto::time::UtcTime;

use super::Web;

/// The store has this long to answer; after that it counts as not answering.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Asks the store whether it works.
#[derive(Clone)]
pub struct Readiness(Arc<dyn Fn() -> Answer + Send + Sync>);

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readiness(…)")
    }
}

impl Readiness {
    /// `ask` answers `Ok`, or why the store does not work, in words fit for strangers.
    pub fn new<F>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(ask())))
    }

    async fn store_answers(&self) -> Result<(), String> {
        match tokio::time::timeout(ANSWER_WITHIN, (self.0)()).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs())),
        }
    }
}

/// `GET /healthz`
pub(super) async fn healthz() -> &'static str {
    "alive\n"
}

/// `GET /readyz`: 200, or 503 with one line per reason.
pub(super) async fn readyz(State(web): State<Web>) -> Response {
    let mut reasons = String::new();
    if let Err(why) = web.state.readiness.store_answers().await {
        reasons.push_str(&format!("not ready: the store does not answer: {why}\n"));
    }
    if web.snapshot().at == UtcTime::default() {
        reasons.push_str("not ready: nothing has been evaluated yet\n");
    }
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons).into_response()
}
