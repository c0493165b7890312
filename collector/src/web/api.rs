//! `/api/v1`: the snapshot for other programs, described by OpenAPI.
//!
//! Every resource is a part of the one snapshot and says its time. Errors have one shape,
//! `{"error": {"code", "message"}}`: `code` for programs (never changes), `message` for people. A
//! parameter that does not exist is refused, so that a typing error never widens an answer.
//!
//! Lists come in pages (`page.rs`): `limit` entries, 500 unless it is said, 2 000 at most, and `next`, which is given back
//! as `after` to go on. Pages follow a key, not a count: an entry that comes or goes between two of them shifts nothing.

use std::cmp::Reverse;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use peil_proto::ids::AgentId;
use peil_proto::time::UtcTime;
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use super::{Web, decide, page};
use crate::snapshot::{AlertView, HostView, ServiceView, Snapshot};

/// An error, as it goes out.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    /// What went wrong.
    error: ErrorFact,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorFact {
    /// For programs: `not_found`, `invalid_parameter`, `unauthorized`, `method_not_allowed`, `too_many_attempts`, `unavailable`, `cross_site`, `forbidden`, `conflict`.
    #[schema(example = "not_found")]
    code: &'static str,
    /// For people.
    #[schema(example = "There is no service \"webb\".")]
    message: String,
}

/// An error with its status.
#[derive(Debug)]
pub(super) struct Error {
    status: StatusCode,
    fact: ErrorFact,
}

impl Error {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, fact: ErrorFact { code, message: message.into() } }
    }

    pub(super) fn not_found(message: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// What it says, for a page.
    pub(super) fn into_parts(self) -> (StatusCode, String) {
        (self.status, self.fact.message)
    }

    pub(super) fn invalid(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", message)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.fact })).into_response()
    }
}

/// Services.
#[derive(Debug, Serialize, ToSchema)]
struct ServiceList<'a> {
    /// When the snapshot was made, ms since 1970 UTC; 0 until the first one.
    #[schema(value_type = i64)]
    at: UtcTime,
    /// In order of name.
    #[schema(value_type = Vec<ServiceView>)]
    services: Vec<&'a ServiceView>,
    /// Where the next page begins: give it back as `after`. `null` on the last page.
    next: Option<String>,
}

/// Hosts.
#[derive(Debug, Serialize, ToSchema)]
struct HostList<'a> {
    /// When the snapshot was made, ms since 1970 UTC; 0 until the first one.
    #[schema(value_type = i64)]
    at: UtcTime,
    /// In order of name.
    #[schema(value_type = Vec<HostView>)]
    hosts: Vec<&'a HostView>,
    /// Where the next page begins: give it back as `after`. `null` on the last page.
    next: Option<String>,
}

/// Alerts.
#[derive(Debug, Serialize, ToSchema)]
struct AlertList<'a> {
    /// When the snapshot was made, ms since 1970 UTC; 0 until the first one.
    #[schema(value_type = i64)]
    at: UtcTime,
    /// Open ones first, then by number, newest first.
    #[schema(value_type = Vec<AlertView>)]
    alerts: Vec<&'a AlertView>,
    /// Where the next page begins: give it back as `after`. `null` on the last page.
    next: Option<String>,
}

/// Refuses every parameter but those named; gives the value of each that is there.
pub(super) fn parameters<const N: usize>(uri: &Uri, names: [&'static str; N]) -> Result<[Option<String>; N], Error> {
    let mut values = [const { None }; N];
    for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(at) = names.iter().position(|known| *known == name) else {
            return Err(Error::invalid(match names.as_slice() {
                [] => format!("Unknown parameter {name:?}: this resource takes none."),
                known => format!("Unknown parameter {name:?}: this resource takes {}.", known.join(", ")),
            }));
        };
        values[at] = Some(value.to_owned());
    }
    Ok(values)
}

/// Everything known now.
#[utoipa::path(get, path = "/api/v1/snapshot", responses((status = 200, body = Snapshot)))]
pub(super) async fn snapshot(State(web): State<Web>, uri: Uri) -> Result<Response, Error> {
    let [] = parameters(&uri, [])?;
    Ok(Json(&*web.snapshot()).into_response())
}

/// All services.
#[utoipa::path(
    get,
    path = "/api/v1/services",
    params(
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "Entries in a page: 1 to 2000, 500 by default")
    ),
    responses((status = 200, body = ServiceList), (status = 400, body = ErrorBody))
)]
pub(super) async fn services(State(web): State<Web>, uri: Uri) -> Result<Response, Error> {
    let [after, limit] = parameters(&uri, ["after", "limit"])?;
    let now = web.snapshot();
    let (services, next) = page::of(now.services.iter(), |service| service.name.clone(), after, limit)?;
    Ok(Json(ServiceList { at: now.at, services, next }).into_response())
}

/// One service.
#[utoipa::path(
    get,
    path = "/api/v1/services/{name}",
    params(("name" = String, Path, description = "Name in the contract")),
    responses((status = 200, body = ServiceView), (status = 404, body = ErrorBody))
)]
pub(super) async fn service(State(web): State<Web>, Path(name): Path<String>, uri: Uri) -> Result<Response, Error> {
    let [] = parameters(&uri, [])?;
    let now = web.snapshot();
    let found = now.services.iter().find(|service| service.name == name);
    let service = found.ok_or_else(|| Error::not_found(format!("There is no service {name:?}.")))?;
    Ok(Json(service).into_response())
}

/// All hosts.
#[utoipa::path(
    get,
    path = "/api/v1/hosts",
    params(
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "Entries in a page: 1 to 2000, 500 by default")
    ),
    responses((status = 200, body = HostList), (status = 400, body = ErrorBody))
)]
pub(super) async fn hosts(State(web): State<Web>, uri: Uri) -> Result<Response, Error> {
    let [after, limit] = parameters(&uri, ["after", "limit"])?;
    let now = web.snapshot();
    let key = |host: &HostView| (host.host.clone(), host.agent.to_string());
    let (hosts, next) = page::of(now.hosts.iter(), key, after, limit)?;
    Ok(Json(HostList { at: now.at, hosts, next }).into_response())
}

/// One host.
#[utoipa::path(
    get,
    path = "/api/v1/hosts/{agent}",
    params(("agent" = String, Path, description = "Identity of its agent: 32 hex digits")),
    responses((status = 200, body = HostView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(super) async fn host(State(web): State<Web>, Path(agent): Path<String>, uri: Uri) -> Result<Response, Error> {
    let [] = parameters(&uri, [])?;
    let id = AgentId::parse(&agent)
        .ok_or_else(|| Error::invalid(format!("{agent:?} is not an agent: it has 32 hex digits.")))?;
    let now = web.snapshot();
    let found = now.hosts.iter().find(|host| host.agent == id);
    let host = found.ok_or_else(|| Error::not_found(format!("There is no agent {id}.")))?;
    Ok(Json(host).into_response())
}

/// Alerts: the open ones, or also those resolved within a day.
#[utoipa::path(
    get,
    path = "/api/v1/alerts",
    params(
        ("state" = Option<String>, Query, description = "`open` (default) or `all`"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "Entries in a page: 1 to 2000, 500 by default")
    ),
    responses((status = 200, body = AlertList), (status = 400, body = ErrorBody))
)]
pub(super) async fn alerts(State(web): State<Web>, uri: Uri) -> Result<Response, Error> {
    let [state, after, limit] = parameters(&uri, ["state", "after", "limit"])?;
    let all = match state.as_deref() {
        None | Some("open") => false,
        Some("all") => true,
        Some(other) => return Err(Error::invalid(format!("state is \"open\" or \"all\", not {other:?}."))),
    };
    let now = web.snapshot();
    let alerts = now.alerts.iter().filter(|alert| all || alert.resolved_at.is_none());
    let key = |alert: &AlertView| (alert.resolved_at.is_some(), Reverse(alert.id));
    let (alerts, next) = page::of(alerts, key, after, limit)?;
    Ok(Json(AlertList { at: now.at, alerts, next }).into_response())
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", responses((status = 200, body = Object)))]
pub(super) async fn openapi(uri: Uri) -> Result<Response, Error> {
    let [] = parameters(&uri, [])?;
    Ok(Json(Document::openapi()).into_response())
}

/// The OpenAPI document.
#[derive(OpenApi)]
#[openapi(
    info(title = "Peil", description = "What the collector knows now. Times are ms since 1970 UTC, percentages are floored decimal strings."),
    paths(
        snapshot, services, service, hosts, host, alerts, openapi, decide::exclusions, decide::propose, decide::exclusion,
        decide::act, decide::months, decide::month_part, decide::make_edition, decide::agreement, decide::apply_files
    ),
    components(schemas(ErrorBody)),
    modifiers(&Security)
)]
struct Document;

/// Every resource takes a token or name and password, and answers a stranger alike.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        for (name, scheme) in [("token", HttpAuthScheme::Bearer), ("password", HttpAuthScheme::Basic)] {
            components.add_security_scheme(name, SecurityScheme::Http(HttpBuilder::new().scheme(scheme).build()));
        }
        let none: [&str; 0] = [];
        document.security =
            Some(["token", "password"].map(|name| utoipa::openapi::SecurityRequirement::new(name, none)).to_vec());
    }
}
