//! Style sheet, scripts and icon: compiled in, so that nothing is fetched from elsewhere.
//!
//! Pages refer to them with the beginning of their SHA-256 as a query, so a browser may keep them for
//! ever and still gets the new one after an upgrade.

use std::fmt::Write;
use std::sync::LazyLock;

use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use ring::digest;

struct Asset {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
    version: LazyLock<String>,
}

macro_rules! asset {
    ($name:ident, $file:literal, $kind:literal) => {
        static $name: Asset = Asset {
            path: concat!("/assets/", $file),
            kind: $kind,
            bytes: include_bytes!(concat!("../../assets/", $file)),
            version: LazyLock::new(|| version($name.bytes)),
        };
    };
}

asset!(STYLE, "peil.css", "text/css; charset=utf-8");
asset!(ICON, "icon.svg", "image/svg+xml");
asset!(SCRIPT, "peil.js", "text/javascript; charset=utf-8");
asset!(HTMX, "htmx.min.js", "text/javascript; charset=utf-8");
asset!(HTMX_SSE, "htmx-sse.min.js", "text/javascript; charset=utf-8");

fn version(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().iter().take(6).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Asset {
    fn url(&self) -> String {
        format!("{}?v={}", self.path, *self.version)
    }

    fn answer(&self, uri: &Uri, headers: &HeaderMap) -> Response {
        let tag = format!("\"{}\"", *self.version);
        let current = uri.query().is_some_and(|query| query == format!("v={}", *self.version));
        let keep = if current { "public, max-age=31536000, immutable" } else { "no-cache" };
        let facts = [
            (header::CONTENT_TYPE, HeaderValue::from_static(self.kind)),
            (header::CACHE_CONTROL, HeaderValue::from_static(keep)),
            (header::ETAG, HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""))),
        ];
        if headers.get(header::IF_NONE_MATCH).is_some_and(|seen| seen.as_bytes() == tag.as_bytes()) {
            return (StatusCode::NOT_MODIFIED, facts).into_response();
        }
        (facts, self.bytes).into_response()
    }
}

/// Addresses of the assets, for templates.
#[derive(Debug, Clone)]
pub(super) struct Urls {
    pub(super) style: String,
    pub(super) icon: String,
    pub(super) script: String,
    pub(super) htmx: String,
    pub(super) htmx_sse: String,
}

impl Urls {
    pub(super) fn now() -> Self {
        Self { style: STYLE.url(), icon: ICON.url(), script: SCRIPT.url(), htmx: HTMX.url(), htmx_sse: HTMX_SSE.url() }
    }
}

pub(super) async fn style(uri: Uri, headers: HeaderMap) -> Response {
    STYLE.answer(&uri, &headers)
}

pub(super) async fn icon(uri: Uri, headers: HeaderMap) -> Response {
    ICON.answer(&uri, &headers)
}

pub(super) async fn script(uri: Uri, headers: HeaderMap) -> Response {
    SCRIPT.answer(&uri, &headers)
}

pub(super) async fn htmx(uri: Uri, headers: HeaderMap) -> Response {
    HTMX.answer(&uri, &headers)
}

pub(super) async fn htmx_sse(uri: Uri, headers: HeaderMap) -> Response {
    HTMX_SSE.answer(&uri, &headers)
}
