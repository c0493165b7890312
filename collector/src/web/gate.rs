//! What every request passes: credentials, the cross-site check, and the headers that seal an answer.
//!
//! Credentials by path: a page takes only the session cookie; `/api/` and `/metrics` take the cookie, an
//! API token (`Authorization: Bearer peil_…`) or HTTP Basic. A stranger is sent to `/login` (pages) or
//! gets 401 with one JSON message (the rest).
//!
//! A request that may change something must come from our own pages: browsers say so in
//! `Sec-Fetch-Site`, or by `Origin`, which must name the host asked. A program that sends its credential in
//! `Authorization` needs neither. Together with `SameSite=Lax` and
//! the `__Host-` cookie this needs no token in forms.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{Peer, Web, api, pages, session};
use crate::access::{AccessError, Principal, Refusal};
use crate::tls;

/// Sent with every answer.
const SEAL: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Whom a path speaks to: decides credentials and the form of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// A person with a browser.
    Person,
    /// A program.
    Program,
    /// A part of a page (stream, script): sessions only, errors in short.
    Part,
}

impl Audience {
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/metrics" | "/api" => Self::Program,
            "/live" => Self::Part,
            _ if path.starts_with("/api/") => Self::Program,
            _ if path.starts_with("/assets/") => Self::Part,
            _ => Self::Person,
        }
    }
}

/// Adds [`SEAL`], and `Cache-Control: no-store` where the handler did not say otherwise.
pub(super) async fn seal(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in SEAL {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Lets through who is known, with the [`Principal`] in the request's extensions.
pub(super) async fn require_known(State(web): State<Web>, mut request: Request, next: Next) -> Response {
    let audience = Audience::of(request.uri().path());
    // The body is not `Sync`, so the request itself cannot be lent across an await.
    let (headers, peer) = (request.headers().clone(), peer(&request));
    match identify(&web, audience, &headers, peer).await {
        Ok(Some(principal)) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Ok(None) => stranger(audience, request.uri()),
        Err(Refusal::Wrong) => stranger(audience, request.uri()),
        Err(refusal) => refused(audience, &refusal),
    }
}

/// Looks at the one credential that counts: an `Authorization` header for programs, else the cookie.
async fn identify(
    web: &Web,
    audience: Audience,
    headers: &HeaderMap,
    peer: IpAddr,
) -> Result<Option<Principal>, Refusal> {
    let access = &web.state.access;
    let authorization = headers.get(header::AUTHORIZATION);
    if let (Audience::Program, Some(value)) = (audience, authorization) {
        return match Authorization::read(value) {
            Some(Authorization::Bearer(token)) => Ok(access.by_api_token(&token).await?),
            Some(Authorization::Basic { name, password }) => access.by_password(&name, &password, peer).await.map(Some),
            None => Ok(None),
        };
    }
    match session::cookie(headers) {
        Some(secret) => Ok(access.by_session(secret).await?),
        None => Ok(None),
    }
}

/// An `Authorization` header.
enum Authorization {
    Bearer(String),
    Basic { name: String, password: String },
}

impl Authorization {
    fn read(value: &HeaderValue) -> Option<Self> {
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(rest.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
        let (name, password) = decoded.split_once(':')?;
        Some(Self::Basic { name: name.to_owned(), password: password.to_owned() })
    }
}

fn stranger(audience: Audience, uri: &Uri) -> Response {
    match audience {
        Audience::Person => Redirect::to(&session::login_url(uri)).into_response(),
        Audience::Part => (StatusCode::UNAUTHORIZED, "The session has ended. Log in again.\n").into_response(),
        Audience::Program => {
            let error = api::Error::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "No valid credential. Send an API token (Authorization: Bearer peil_…) or name and password by HTTP Basic.",
            );
            let challenge = HeaderValue::from_static(r#"Basic realm="Peil", charset="UTF-8""#);
            ([(header::WWW_AUTHENTICATE, challenge)], error).into_response()
        }
    }
}

/// Too many attempts, too busy, or our own failure.
fn refused(audience: Audience, refusal: &Refusal) -> Response {
    let status = refusal_status(refusal);
    let message = refusal_words(refusal);
    let mut response = match audience {
        Audience::Person => pages::error(status, &message),
        Audience::Part => (status, message).into_response(),
        Audience::Program => api::Error::new(status, refusal_code(refusal), message).into_response(),
    };
    if let Some(wait) = retry_after(refusal) {
        response.headers_mut().insert(header::RETRY_AFTER, wait);
    }
    response
}

/// The status that goes with a refusal.
pub(super) fn refusal_status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Wrong => StatusCode::UNAUTHORIZED,
        Refusal::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Busy | Refusal::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn refusal_code(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Wrong => "unauthorized",
        Refusal::TooMany { .. } => "too_many_attempts",
        Refusal::Busy | Refusal::Failed(_) => "unavailable",
    }
}

/// Words for the one who asked; our own failures are logged with their cause and told without it.
pub(super) fn refusal_words(refusal: &Refusal) -> String {
    if let Refusal::Failed(error) = refusal {
        log_failure(error);
        return "The collector cannot check credentials just now. Try again in a minute; its log says why.".to_owned();
    }
    refusal.to_string()
}

pub(super) fn log_failure(error: &AccessError) {
    tracing::error!(error = error as &dyn std::error::Error, "credentials cannot be checked");
}

/// When to try again, in seconds.
pub(super) fn retry_after(refusal: &Refusal) -> Option<HeaderValue> {
    match refusal {
        Refusal::TooMany { wait_s } => Some(HeaderValue::from(*wait_s)),
        Refusal::Busy => Some(HeaderValue::from(5)),
        Refusal::Wrong | Refusal::Failed(_) => None,
    }
}

/// Where a request came from; all requests without the fact count as one peer.
pub(super) fn peer(request: &Request) -> IpAddr {
    let extensions = request.extensions();
    if let Some(ConnectInfo(Peer(ip))) = extensions.get::<ConnectInfo<Peer>>() {
        return *ip;
    }
    if let Some(ConnectInfo(connection)) = extensions.get::<ConnectInfo<tls::ConnectInfo>>() {
        return connection.peer.ip();
    }
    match extensions.get::<ConnectInfo<SocketAddr>>() {
        Some(ConnectInfo(address)) => address.ip(),
        None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Refuses a request that may change something unless it comes from our own pages.
pub(super) async fn refuse_cross_site(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let program = Audience::of(request.uri().path()) == Audience::Program && sent_by_a_program(request.headers());
    if reads || program || same_site(request.headers(), request.uri()) {
        return next.run(request).await;
    }
    let message = "This request did not come from a page of this collector, so nothing was done.";
    match Audience::of(request.uri().path()) {
        Audience::Program => api::Error::new(StatusCode::FORBIDDEN, "cross_site", message).into_response(),
        Audience::Person | Audience::Part => pages::error(StatusCode::FORBIDDEN, message),
    }
}

/// No browser sends these headers by itself for another site: a bearer token never, a password it remembers only
/// together with where the request came from. The credential is then that header, never the cookie.
fn sent_by_a_program(headers: &HeaderMap) -> bool {
    match headers.get(header::AUTHORIZATION).and_then(Authorization::read) {
        Some(Authorization::Bearer(_)) => true,
        Some(Authorization::Basic { .. }) => {
            !headers.contains_key("sec-fetch-site") && !headers.contains_key(header::ORIGIN)
        }
        None => false,
    }
}

fn same_site(headers: &HeaderMap, uri: &Uri) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    // HTTP/2 carries the host in the URI's authority, HTTP/1 in a header.
    let host = uri.authority().map(Authority::as_str).or_else(|| text(header::HOST));
    match (text(header::ORIGIN).and_then(|origin| origin.split_once("://")), host) {
        (Some((_, origin_host)), Some(host)) => origin_host.eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// The answer to a path that does not exist.
pub(super) async fn unknown_path(uri: Uri) -> Response {
    let message = format!("There is nothing at {}.", uri.path());
    match Audience::of(uri.path()) {
        Audience::Program => api::Error::new(StatusCode::NOT_FOUND, "not_found", message).into_response(),
        Audience::Person | Audience::Part => pages::error(StatusCode::NOT_FOUND, &message),
    }
}

/// The answer to a method the path does not have.
pub(super) async fn unknown_method(method: Method, uri: Uri) -> Response {
    let message = format!("{} does not take {method}.", uri.path());
    let status = StatusCode::METHOD_NOT_ALLOWED;
    match Audience::of(uri.path()) {
        Audience::Program => api::Error::new(status, "method_not_allowed", message).into_response(),
        Audience::Person | Audience::Part => pages::error(status, &message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages_may_change_things() {
        let table: [(&[(&str, &str)], bool); 8] = [
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://peil.example"), ("host", "peil.example")], false),
            (&[("origin", "https://peil.example:8443"), ("host", "peil.example:8443")], true),
            (&[("origin", "https://evil.example"), ("host", "peil.example")], false),
            (&[("origin", "null"), ("host", "peil.example")], false),
            (&[("host", "peil.example")], false),
            (&[], false),
        ];
        for (pairs, want) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            assert_eq!(same_site(&headers, &Uri::from_static("/logout")), want, "{pairs:?}");
        }
    }
}
