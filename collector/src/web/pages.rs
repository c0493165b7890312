//! Pages: snapshot → sections → page.
//!
//! A page is a list of sections, each rendered by itself, so that the very same text is served with the
//! page and pushed by `live`. The files in `pages/` put the values of the snapshot into words for their
//! template; the templates hold the markup. Everything that is text in the snapshot is escaped there.

mod alerts;
mod exclusions;
mod host;
mod months;
mod overview;
mod service;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use peil_proto::ids::AgentId;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use serde::Deserialize;

use super::assets::Urls;
use super::format::{Zone, span};
use super::{Web, deeds, draw, format};
use crate::access::Principal;
use crate::snapshot::{ServiceView, Snapshot};

/// A snapshot older than this is announced as old: the evaluation has stalled.
const STALE_AFTER: Millis = Millis(3 * Millis::MINUTE.0);

/// What a page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    /// `/`
    Overview,
    /// `/hosts`
    Hosts,
    /// `/alerts`
    Alerts,
    /// `/months`
    Months,
    /// `/exclusions`
    Exclusions,
    /// `/services/{name}`
    Service(String),
    /// `/hosts/{agent}`
    Host(AgentId),
}

#[derive(Deserialize)]
struct LiveQuery {
    page: Option<String>,
    service: Option<String>,
    host: Option<String>,
    at: Option<i64>,
}

impl Page {
    /// The path of the page.
    fn path(&self) -> String {
        match self {
            Self::Overview => "/".to_owned(),
            Self::Hosts => "/hosts".to_owned(),
            Self::Alerts => "/alerts".to_owned(),
            Self::Months => "/months".to_owned(),
            Self::Exclusions => "/exclusions".to_owned(),
            Self::Service(name) => format!("/services/{}", encode(name)),
            Self::Host(agent) => format!("/hosts/{agent}"),
        }
    }

    /// Where its updates come from, given the snapshot it was made from.
    fn live_url(&self, at: UtcTime) -> String {
        let what = match self {
            Self::Overview => "page=overview".to_owned(),
            Self::Hosts => "page=hosts".to_owned(),
            Self::Alerts => "page=alerts".to_owned(),
            Self::Months => "page=months".to_owned(),
            Self::Exclusions => "page=exclusions".to_owned(),
            Self::Service(name) => format!("service={}", encode(name)),
            Self::Host(agent) => format!("host={agent}"),
        };
        format!("/live?{what}&at={}", at.0)
    }

    /// Reads what [`Page::live_url`] wrote.
    pub(super) fn from_live_query(query: &str) -> Option<(Self, Option<i64>)> {
        let uri: Uri = format!("/live?{query}").parse().ok()?;
        let Query(asked) = Query::<LiveQuery>::try_from_uri(&uri).ok()?;
        let page = match (asked.page.as_deref(), asked.service, asked.host) {
            (Some("overview"), None, None) => Self::Overview,
            (Some("hosts"), None, None) => Self::Hosts,
            (Some("alerts"), None, None) => Self::Alerts,
            (Some("months"), None, None) => Self::Months,
            (Some("exclusions"), None, None) => Self::Exclusions,
            (None, Some(name), None) => Self::Service(name),
            (None, None, Some(agent)) => Self::Host(AgentId::parse(&agent)?),
            _ => return None,
        };
        Some((page, asked.at))
    }

    /// The entry of the navigation it belongs to.
    fn tab(&self) -> &'static str {
        match self {
            Self::Overview | Self::Service(_) => "overview",
            Self::Hosts | Self::Host(_) => "hosts",
            Self::Alerts => "alerts",
            Self::Months => "months",
            Self::Exclusions => "exclusions",
        }
    }
}

/// A part of a page that is replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// Its id in the page and the name of its event; so never `open`, `error` or `message`, which a browser
    /// raises by itself on the stream.
    pub(super) id: &'static str,
    /// Its name for people who do not see it; empty for parts that are no landmark.
    label: &'static str,
    /// Rendered and escaped.
    pub(super) html: String,
}

impl Section {
    fn new(id: &'static str, label: &'static str, template: &impl Template) -> Result<Self, Trouble> {
        Ok(Self { id, label, html: template.render().map_err(Trouble::Render)? })
    }
}

/// A page without its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    title: String,
    /// A line under the title.
    lead: String,
    pub(super) sections: Vec<Section>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// What was asked for is not in the snapshot.
    #[error("{0}")]
    Missing(String),
    /// A template failed.
    #[error("render a template")]
    Render(#[source] askama::Error),
}

/// The sections of a page.
pub(super) fn body(page: &Page, snapshot: &Snapshot, now: UtcTime) -> Result<Body, Trouble> {
    let mut body = match page {
        Page::Overview => overview::overview(snapshot, now)?,
        Page::Hosts => overview::hosts(snapshot, now)?,
        Page::Alerts => alerts::page(snapshot, now)?,
        Page::Months => months::page(snapshot)?,
        Page::Exclusions => exclusions::page(snapshot, now)?,
        Page::Service(name) => {
            let found = snapshot.services.iter().find(|service| service.name == *name);
            let service = found.ok_or_else(|| Trouble::Missing(format!("There is no service “{name}”.")))?;
            service::page(service, now)?
        }
        Page::Host(agent) => {
            let found = snapshot.hosts.iter().find(|host| host.agent == *agent);
            let host = found.ok_or_else(|| Trouble::Missing(format!("There is no agent {agent}.")))?;
            host::page(host, snapshot, now)?
        }
    };
    body.sections.insert(0, notice(snapshot, now)?);
    Ok(body)
}

#[derive(Template)]
#[template(path = "notice.html")]
struct Notice {
    at: Option<format::TimeTag>,
    stale: Option<String>,
}

/// How old the figures are; loud when they are too old or not there.
fn notice(snapshot: &Snapshot, now: UtcTime) -> Result<Section, Trouble> {
    let exists = snapshot.at != UtcTime::default();
    let age = now.since(snapshot.at);
    let stale = (exists && age > STALE_AFTER).then(|| span(Millis(age.0 - age.0 % Millis::MINUTE.0)));
    Section::new("notice", "", &Notice { at: exists.then(|| Zone::UTC.minute(snapshot.at)), stale })
}

#[derive(Template)]
#[template(path = "page.html")]
struct Frame {
    urls: Urls,
    title: String,
    lead: String,
    tab: &'static str,
    user: String,
    path: String,
    /// `None` when the reader has paused the updates.
    live_url: Option<String>,
    open_alerts: usize,
    sections: Vec<Section>,
    /// Forms for whoever looks, rendered and escaped; apart from the sections, which are the same for everybody.
    deeds: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Choice {
    /// `off`: the reader does not want the page to change by itself.
    #[serde(default)]
    live: String,
}

fn show(web: &Web, principal: Principal, choice: &Choice, page: &Page) -> Response {
    let snapshot = web.snapshot();
    let body = match body(page, &snapshot, web.now()) {
        Ok(body) => body,
        Err(Trouble::Missing(message)) => return error(StatusCode::NOT_FOUND, &message),
        Err(trouble) => return failed(&trouble),
    };
    let deeds = match deeds::forms(page, &snapshot, &principal) {
        Ok(deeds) => deeds,
        Err(cause) => return failed(&Trouble::Render(cause)),
    };
    let frame = Frame {
        urls: Urls::now(),
        deeds,
        title: body.title,
        lead: body.lead,
        tab: page.tab(),
        user: principal.name,
        path: page.path(),
        live_url: (choice.live != "off").then(|| page.live_url(snapshot.at)),
        open_alerts: snapshot.alerts.iter().filter(|alert| alert.resolved_at.is_none()).count(),
        sections: body.sections,
    };
    render(StatusCode::OK, &frame)
}

pub(super) async fn overview(
    State(web): State<Web>,
    Extension(principal): Extension<Principal>,
    Query(choice): Query<Choice>,
) -> Response {
    show(&web, principal, &choice, &Page::Overview)
}

pub(super) async fn hosts(
    State(web): State<Web>,
    Extension(principal): Extension<Principal>,
    Query(choice): Query<Choice>,
) -> Response {
    show(&web, principal, &choice, &Page::Hosts)
}

pub(super) async fn alerts(
    State(web): State<Web>,
    Extension(principal): Extension<Principal>,
    Query(choice): Query<Choice>,
) -> Response {
    show(&web, principal, &choice, &Page::Alerts)
}

pub(super) async fn months(
    State(web): State<Web>,
    Extension(principal): Extension<Principal>,
    Query(choice): Query<Choice>,
) -> Response {
    show(&web, principal, &choice, &Page::Months)
}

pub(super) async fn exclusions(
    State(web): State<Web>,
    Extension(principal): Extension<Principal>,
    Query(choice): Query<Choice>,
) -> Response {
    show(&web, principal, &choice, &Page::Exclusions)
}

pub(super) async fn service(
    State(web): State<Web>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    Query(choice): Query<Choice>,
) -> Response {
    show(&web, principal, &choice, &Page::Service(name))
}

pub(super) async fn host(
    State(web): State<Web>,
    Extension(principal): Extension<Principal>,
    Path(agent): Path<String>,
    Query(choice): Query<Choice>,
) -> Response {
    match AgentId::parse(&agent) {
        Some(agent) => show(&web, principal, &choice, &Page::Host(agent)),
        None => error(StatusCode::NOT_FOUND, &format!("There is no agent “{agent}”.")),
    }
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login<'a> {
    urls: Urls,
    next: &'a str,
    problem: &'a str,
}

/// The log-in page, with what went wrong.
pub(super) fn login(status: StatusCode, next: &str, problem: &str) -> Response {
    render(status, &Login { urls: Urls::now(), next, problem })
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    urls: Urls,
    title: &'static str,
    message: &'a str,
}

/// A page that says what went wrong.
pub(super) fn error(status: StatusCode, message: &str) -> Response {
    let title = match status {
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::FORBIDDEN => "Refused",
        StatusCode::METHOD_NOT_ALLOWED => "Not possible",
        StatusCode::TOO_MANY_REQUESTS => "Too many attempts",
        _ => "Something went wrong",
    };
    render(status, &ErrorPage { urls: Urls::now(), title, message })
}

fn render(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => failed(&Trouble::Render(error)),
    }
}

/// Without a template: it may be the templates that fail.
fn failed(trouble: &Trouble) -> Response {
    tracing::error!(error = trouble as &dyn std::error::Error, "a page cannot be rendered");
    (StatusCode::INTERNAL_SERVER_ERROR, "This page cannot be shown; the collector's log says why.\n").into_response()
}

/// Percent-encodes everything but letters, digits and `_.-~`: for one segment of a path or a query value.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The verdict of the month to date, as mood and words.
fn verdict(service: &ServiceView) -> draw::Svg {
    let (mood, word) = match service.verdict.as_str() {
        "breached" if service.breach_certain => (draw::Mood::Bad, "Breached this month"),
        "breached" => (draw::Mood::Warn, "Below target so far"),
        "met" => (draw::Mood::Good, "Target met so far"),
        "undetermined" => (draw::Mood::Unknown, "Undetermined: too little is known"),
        _ => (draw::Mood::Plain, "No agreed time yet"),
    };
    draw::badge(mood, word)
}

/// Both bounds, when unknown time makes them differ.
fn bounds(service: &ServiceView) -> Option<String> {
    match (&service.worst, &service.best) {
        (Some(worst), Some(best)) if worst != best => {
            let unknown = span(service.unknown_ms);
            Some(format!("between {} and {}: {unknown} unknown", format::percent(worst), format::percent(best)))
        }
        _ => None,
    }
}

/// What is left of the budget, in words.
fn budget(service: &ServiceView) -> String {
    match (service.budget_ms, service.budget_left_ms) {
        (Millis::ZERO, Millis(..=0)) if service.counted_down_ms == Millis::ZERO => "No downtime allowed".to_owned(),
        (budget, left) if left < Millis::ZERO => {
            format!("Over by {} (budget {})", span(left), span(budget))
        }
        (budget, left) => format!("{} of {} left", span(left), span(budget)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_shows_the_page_it_was_opened_from() {
        for page in [
            Page::Overview,
            Page::Hosts,
            Page::Alerts,
            Page::Months,
            Page::Exclusions,
            Page::Service("a b/&=?é".to_owned()),
            Page::Host(AgentId([7; 16])),
        ] {
            let url = page.live_url(UtcTime(42));
            let query = url.split_once('?').map(|(_, query)| query).expect("a query");
            assert_eq!(Page::from_live_query(query), Some((page, Some(42))), "{url}");
        }
        for query in ["", "page=nothing", "page=overview&service=x", "host=zz", "page=overview&at=x"] {
            assert_eq!(Page::from_live_query(query), None, "{query:?}");
        }
    }
}
