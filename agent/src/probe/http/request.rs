//! What is asked: the request of each hop, with the secrets that belong to it.
//!
//! Secrets are read once per probe and marked sensitive in the header map, which keeps them out of `Debug`.

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION,
    USER_AGENT,
};
use hyper::{Method, Request, Version};
use peil_proto::plan::{Compression, Http, SecretRef};
use peil_proto::sample::FailureKind;

use super::super::location::Location;
use super::super::{Failure, ProbeContext};

/// A request that can be made at every hop.
pub(super) struct Asking {
    method: Method,
    /// Sent everywhere.
    headers: HeaderMap,
    /// Sent to the origin of the check only.
    secret_headers: HeaderMap,
    body: Bytes,
    body_is_secret: bool,
    proxy_authorization: Option<HeaderValue>,
    origin: Location,
}

impl Asking {
    pub(super) fn of(check: &Http, location: &Location, ctx: &ProbeContext) -> Result<Self, Failure> {
        let method = Method::from_bytes(check.method.as_bytes())
            .map_err(|_| Failure::unusable(format!("method {:?} cannot be sent", check.method)))?;
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("peil-agent/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if check.compression == Compression::Gzip {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        for (name, value) in &check.headers {
            headers.insert(name_of(name)?, plain(name, value.as_bytes())?);
        }
        let body = match &check.body_file {
            Some(secret) => Bytes::copy_from_slice(ctx.secrets.read(secret)?.bytes()),
            None => check.body.clone().unwrap_or_default().into(),
        };
        let proxy_authorization = match (&check.proxy_user, &check.proxy_password_file) {
            (Some(user), Some(password)) => Some(basic(user, password, ctx)?),
            _ => None,
        };
        Ok(Self {
            method,
            headers,
            secret_headers: secret_headers(check, ctx)?,
            body,
            body_is_secret: check.body_file.is_some(),
            proxy_authorization,
            origin: location.clone(),
        })
    }

    /// Prepares for the next hop.
    ///
    /// # Errors
    /// When following would carry a secret body elsewhere.
    pub(super) fn redirected(&mut self, status: u16, next: &Location) -> Result<(), Failure> {
        let drops_body = status == 303 || (matches!(status, 301 | 302) && self.method == Method::POST);
        if drops_body && self.method != Method::HEAD {
            self.method = Method::GET;
            self.body = Bytes::new();
        }
        if self.body_is_secret && !self.body.is_empty() && !next.same_origin(&self.origin) {
            let text = format!("redirect to {next} would carry the secret body along");
            return Err(Failure::judged(FailureKind::Redirect, text));
        }
        Ok(())
    }

    /// The request for `location`. HTTP/2 and plain proxies want the whole URL, servers the path.
    pub(super) fn request(
        &self,
        location: &Location,
        http2: bool,
        through_proxy: bool,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let uri = if http2 || through_proxy { location.to_string() } else { location.path.clone() };
        let unusable = |error: String| Failure::unusable(format!("cannot ask for {location}: {error}"));
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(uri)
            .version(if http2 { Version::HTTP_2 } else { Version::HTTP_11 })
            .body(Full::new(self.body.clone()))
            .map_err(|error| unusable(error.to_string()))?;
        let headers = request.headers_mut();
        if !http2 {
            let host = HeaderValue::from_str(&location.authority()).map_err(|error| unusable(error.to_string()))?;
            headers.insert(HOST, host);
            // The server then closes first, and the port in TIME_WAIT is its, not one of ours.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        headers.extend(self.headers.clone());
        if location.same_origin(&self.origin) {
            headers.extend(self.secret_headers.clone());
        }
        if through_proxy && let Some(value) = &self.proxy_authorization {
            headers.insert(PROXY_AUTHORIZATION, value.clone());
        }
        Ok(request)
    }

    /// What the proxy wants to know of us.
    pub(super) fn proxy_authorization(&self) -> Option<&HeaderValue> {
        self.proxy_authorization.as_ref()
    }
}

fn secret_headers(check: &Http, ctx: &ProbeContext) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, secret) in &check.secret_headers {
        headers.insert(name_of(name)?, sensitive(name, ctx.secrets.read(secret)?.bytes())?);
    }
    if let (Some(user), Some(password)) = (&check.user, &check.password_file) {
        headers.insert(AUTHORIZATION, basic(user, password, ctx)?);
    }
    if let Some(token) = &check.bearer_file {
        let token = [b"Bearer ", ctx.secrets.read(token)?.bytes()].concat();
        headers.insert(AUTHORIZATION, sensitive("Authorization", &token)?);
    }
    Ok(headers)
}

fn basic(user: &str, password: &SecretRef, ctx: &ProbeContext) -> Result<HeaderValue, Failure> {
    let pair = [user.as_bytes(), b":", ctx.secrets.read(password)?.bytes()].concat();
    sensitive("Authorization", format!("Basic {}", BASE64.encode(&pair)).as_bytes())
}

fn name_of(name: &str) -> Result<HeaderName, Failure> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| Failure::unusable(format!("header {name:?} cannot be sent")))
}

fn plain(name: &str, value: &[u8]) -> Result<HeaderValue, Failure> {
    // Without the value: it may be a secret.
    HeaderValue::from_bytes(value)
        .map_err(|_| Failure::unusable(format!("the value of header {name:?} cannot be sent")))
}

fn sensitive(name: &str, value: &[u8]) -> Result<HeaderValue, Failure> {
    let mut value = plain(name, value)?;
    value.set_sensitive(true);
    Ok(value)
}
