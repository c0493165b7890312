//! What there is, and who may see it: the table of routes.
//!
//! Deny by default: whatever is not marked [`Gate::Open`] here, unknown paths included, answers only to
//! somebody known. A test walks this table without credentials and another compares its API part with
//! the OpenAPI document.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, get, post};

use super::{Web, WebState, api, assets, decide, deeds, gate, live, metrics, pages, ready, session};

/// A form has at most this many bytes; more is refused with 413.
const BODY_BYTES_MAX: usize = 16 * 1_024;

/// All files of an agreement have at most this many bytes.
const AGREEMENT_BYTES_MAX: usize = 8 << 20;

/// Who gets an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Anybody.
    Open,
    /// Only somebody known: by session, and for `/api/` and `/metrics` also by token or HTTP Basic.
    Known,
}

/// One route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Path in the form of axum and OpenAPI: `/services/{name}`.
    pub path: &'static str,
    /// Who gets an answer.
    pub gate: Gate,
    handler: fn() -> MethodRouter<Web>,
}

const fn open(path: &'static str, handler: fn() -> MethodRouter<Web>) -> Route {
    Route { path, gate: Gate::Open, handler }
}

const fn known(path: &'static str, handler: fn() -> MethodRouter<Web>) -> Route {
    Route { path, gate: Gate::Known, handler }
}

/// Every route there is.
pub const ROUTES: &[Route] = &[
    open("/healthz", || get(ready::healthz)),
    open("/readyz", || get(ready::readyz)),
    open("/login", || get(session::form).post(session::log_in)),
    open("/assets/peil.css", || get(assets::style)),
    open("/assets/icon.svg", || get(assets::icon)),
    known("/assets/htmx.min.js", || get(assets::htmx)),
    known("/assets/htmx-sse.min.js", || get(assets::htmx_sse)),
    known("/assets/peil.js", || get(assets::script)),
    known("/", || get(pages::overview)),
    known("/services/{name}", || get(pages::service)),
    known("/hosts", || get(pages::hosts)),
    known("/hosts/{agent}", || get(pages::host)),
    known("/alerts", || get(pages::alerts)),
    known("/months", || get(pages::months).post(deeds::month)),
    known("/exclusions", || get(pages::exclusions).post(deeds::exclusion)),
    known("/logout", || post(session::log_out)),
    known("/live", || get(live::live)),
    known("/metrics", || get(metrics::scrape)),
    known("/api/v1/snapshot", || get(api::snapshot)),
    known("/api/v1/services", || get(api::services)),
    known("/api/v1/services/{name}", || get(api::service)),
    known("/api/v1/hosts", || get(api::hosts)),
    known("/api/v1/hosts/{agent}", || get(api::host)),
    known("/api/v1/alerts", || get(api::alerts)),
    known("/api/v1/exclusions", || get(decide::exclusions).post(decide::propose)),
    known("/api/v1/exclusions/{id}", || get(decide::exclusion).post(decide::act)),
    known("/api/v1/months", || get(decide::months)),
    known("/api/v1/months/{service}/{month}", || get(decide::month_part).post(decide::make_edition)),
    known("/api/v1/agreement", || {
        get(decide::agreement).post(decide::apply_files).layer(DefaultBodyLimit::max(AGREEMENT_BYTES_MAX))
    }),
    known("/api/v1/openapi.json", || get(api::openapi)),
];

/// The whole web, ready to be served over TLS.
pub fn router(state: WebState) -> Router {
    let web = Web::new(state);
    let part = |gate| {
        let routes = ROUTES.iter().filter(move |route| route.gate == gate);
        routes.fold(Router::new(), |router, route| router.route(route.path, (route.handler)()))
    };
    // `layer`, not `route_layer`: a stranger must not learn from a 404 which paths exist.
    let guarded = part(Gate::Known)
        .fallback(gate::unknown_path)
        .method_not_allowed_fallback(gate::unknown_method)
        .layer(from_fn_with_state(web.clone(), gate::require_known));
    part(Gate::Open)
        .method_not_allowed_fallback(gate::unknown_method)
        .merge(guarded)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(gate::refuse_cross_site))
        .layer(from_fn(gate::seal))
        .with_state(web)
}
