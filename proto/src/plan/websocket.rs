//! `websocket`: opens a WebSocket (RFC 6455) and, when asked, sends a message and expects one.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `url` | `ws://…` or `wss://…`, without a password | required |
//! | `secret_headers` | `{ "Name" = "/path" }`: headers whose values are secrets | none |
//! | `subprotocol` | the server must agree on it | none |
//! | `send` | text message to send | none |
//! | `expect` | pattern the first message (up to 64 KiB) must match | none: opening is enough |
//! | `server_name`, `ca_file`, `cert_days_min`, … | see [`TlsOptions`]; with `wss` | |
//! | `family` | `any`, `4`, `6`, `both` | `any` |
//!
//! Fails with: everything `tls` fails with, `status` (not 101; redirects are not followed), `protocol`, `closed`,
//! `content`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::options::{Family, Options, Pattern, SecretRef, TlsOptions, read_map};
use crate::settings::Fields;

/// Options of a `websocket` check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocket {
    /// `ws://` or `wss://`.
    pub url: String,
    /// Headers to send whose values are secrets.
    pub secret_headers: BTreeMap<String, SecretRef>,
    /// Subprotocol the server must agree on.
    pub subprotocol: Option<String>,
    /// Text message to send.
    pub send: Option<String>,
    /// What the first message must match.
    pub expect: Option<Pattern>,
    /// How TLS is spoken.
    pub tls: TlsOptions,
    /// Which addresses are used.
    pub family: Family,
}

impl WebSocket {
    /// The URL as one of http.
    pub fn http_url(&self) -> Option<String> {
        let plain = self.url.strip_prefix("ws://").map(|rest| format!("http://{rest}"));
        plain.or_else(|| self.url.strip_prefix("wss://").map(|rest| format!("https://{rest}")))
    }
}

impl Options for WebSocket {
    const TARGET_KEY: &'static str = "url";

    fn target(&self) -> &str {
        &self.url
    }

    fn problems(&self) -> Vec<String> {
        let mut found = self.tls.problems();
        if self.http_url().is_none() {
            found.push(format!("url {:?} must begin with ws:// or wss://", self.url));
        }
        let authority = self.url.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next());
        if authority.is_some_and(|authority| authority.contains('@')) {
            found.push("the url must not carry a user name or password".to_owned());
        }
        let token = |text: &str| {
            !text.is_empty()
                && text.len() <= 128
                && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
        };
        if self.subprotocol.as_ref().is_some_and(|name| !token(name)) || !self.secret_headers.keys().all(|k| token(k)) {
            found.push("subprotocol and names of headers are letters, digits, '-', '_' and '.'".to_owned());
        }
        found.extend(self.secret_headers.values().filter_map(|secret| secret.problem("secret_headers")));
        found.extend(self.expect.iter().filter_map(|pattern| pattern.problem("expect")));
        if self.send.as_ref().is_some_and(|text| text.len() > 16 << 10) {
            found.push("send is over 16 KiB".to_owned());
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let url = fields.need_str("url");
        let read = Self {
            url: String::new(),
            secret_headers: read_map(fields, "secret_headers", SecretRef),
            subprotocol: fields.str("subprotocol"),
            send: fields.str("send"),
            expect: Pattern::read(fields, "expect"),
            tls: TlsOptions::read(fields),
            family: Family::read(fields),
        };
        Some(Self { url: url?, ..read })
    }
}
