//! Logging in and out.

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{FromRequest, Query, Request, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::gate::{log_failure, peer, refusal_status, refusal_words, retry_after};
use super::{Web, pages};
use crate::access::SESSION_AGE;

/// `__Host-`: browsers take it only over TLS, for this host alone and the whole of it.
const COOKIE: &str = "__Host-peil";

/// The session id a request carries.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

/// Where a stranger who asked for `uri` logs in.
pub(super) fn login_url(uri: &Uri) -> String {
    let wanted = uri.path_and_query().map_or("/", |all| all.as_str());
    if wanted == "/" || local_path(wanted).is_none() {
        return "/login".to_owned();
    }
    format!("/login?next={}", pages::encode(wanted))
}

/// `next` when it stays on this host: a path, not `//host`, `/\host` or anything with control characters.
fn local_path(next: &str) -> Option<&str> {
    let rest = next.strip_prefix('/')?;
    let leaves = rest.starts_with(['/', '\\']) || next.chars().any(char::is_control) || !next.is_ascii();
    (!leaves).then_some(next)
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    next: String,
}

/// `GET /login`
pub(super) async fn form(State(web): State<Web>, Query(wanted): Query<Wanted>, headers: HeaderMap) -> Response {
    if let Some(secret) = cookie(&headers) {
        match web.state.access.by_session(secret).await {
            Ok(Some(_)) => return Redirect::to(local_path(&wanted.next).unwrap_or("/")).into_response(),
            Ok(None) => {}
            Err(error) => log_failure(&error),
        }
    }
    pages::login(StatusCode::OK, &wanted.next, "")
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
    #[serde(default)]
    next: String,
}

/// `POST /login`
pub(super) async fn log_in(State(web): State<Web>, request: Request) -> Response {
    let peer = peer(&request);
    let form: Result<Form<Credentials>, FormRejection> = Form::from_request(request, &web).await;
    let Form(given) = match form {
        Ok(form) => form,
        Err(rejection) => return pages::login(rejection.status(), "", "Fill in name and password."),
    };
    match web.state.access.log_in(&given.name, &given.password, peer).await {
        Ok(session) => {
            tracing::info!(user = %given.name, %peer, "logged in");
            let seconds = SESSION_AGE.0 / 1_000;
            with_cookie(&session.secret, seconds, local_path(&given.next).unwrap_or("/"))
        }
        Err(refusal) => {
            tracing::warn!(user = %given.name, %peer, why = %refusal, "log-in refused");
            let mut response = pages::login(refusal_status(&refusal), &given.next, &refusal_words(&refusal));
            if let Some(wait) = retry_after(&refusal) {
                response.headers_mut().insert(header::RETRY_AFTER, wait);
            }
            response
        }
    }
}

/// `POST /logout`
pub(super) async fn log_out(State(web): State<Web>, headers: HeaderMap) -> Response {
    if let Some(secret) = cookie(&headers)
        && let Err(error) = web.state.access.log_out(secret).await
    {
        log_failure(&error);
        return pages::error(StatusCode::SERVICE_UNAVAILABLE, "The session could not be ended. Try again in a minute.");
    }
    with_cookie("", 0, "/login")
}

fn with_cookie(value: &str, seconds: i64, to: &str) -> Response {
    let cookie = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax");
    // A session id is base64url, so this is always a valid header.
    let Ok(cookie) = HeaderValue::from_str(&cookie) else {
        return pages::error(StatusCode::INTERNAL_SERVER_ERROR, "The session could not be opened.");
    };
    ([(header::SET_COOKIE, cookie)], Redirect::to(to)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_logging_in_nobody_is_sent_to_another_host() {
        for next in ["/", "/services/a%20b?live=off", "/hosts/"] {
            assert_eq!(local_path(next), Some(next));
        }
        for next in ["", "https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example", "/é"] {
            assert_eq!(local_path(next), None, "{next}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others_and_only_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; x__Host-peil=no"));
        assert_eq!(cookie(&headers), None);
        headers.append(header::COOKIE, HeaderValue::from_static("b=2; __Host-peil=yes"));
        assert_eq!(cookie(&headers), Some("yes"));
    }
}
