//! `http`: asks for a URL; status, headers, content and certificate must be right.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `url` | `http://…` or `https://…`, without a password | required |
//! | `method` | a method in capitals | `GET` |
//! | `headers`, `secret_headers` | `{ "Name" = "value" }`; the second names secrets | none |
//! | `user` with `password_file`; `bearer_file` | basic or bearer authentication | none |
//! | `body`, `body_file` | text to send; a secret to send | none |
//! | `status` | `"200-299,401"` | `200-299` |
//! | `contains` | text in the first 64 KiB of the body, after decompression | none |
//! | `body_matches`, `body_lacks` | patterns over the same bytes | none |
//! | `json` | `[{ path = "$.status", equals = "ok" }]`, `matches`, or neither (it must be there); body up to 1 MiB | none |
//! | `header_matches` | `{ "Name" = "pattern" }`: the header is there and matches | none |
//! | `redirects`, `redirects_max` | `follow`, `same_host`, `none`; 0 to 10 | `follow`, 10 |
//! | `version` | `auto` (as ALPN agrees), `1.1`, `2` (without TLS: with prior knowledge) | `auto` |
//! | `compression` | `none` or `gzip`: what is asked for; gzip and deflate that come unasked are read too | `none` |
//! | `proxy` | `http://host:port`; with `proxy_user` and `proxy_password_file` | none |
//! | `server_name`, `ca_file`, `cert_days_min`, `whole_chain`, `tls_min`, `client_cert_file`, `client_key_file` | see [`TlsOptions`] | |
//! | `family` | `any`, `4`, `6`, `both` | `any` |
//!
//! Fails with: everything `tls` fails with, `protocol`, `status`, `content` (body, JSON or header), `redirect`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::options::{Family, Options, Pattern, SecretRef, TlsOptions, read_map, read_number, split_address};
use crate::settings::Fields;

/// Redirects followed at most.
pub const REDIRECTS_MAX: u8 = 10;
/// Headers of one's own, and headers and JSON paths asserted, at most each.
const LIST_MAX: usize = 32;

/// Options of an `http` check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// `http://` or `https://`.
    pub url: String,
    /// Method of the first request.
    pub method: String,
    /// Headers to send.
    pub headers: BTreeMap<String, String>,
    /// Headers to send whose values are secrets. Not sent to another host after a redirect.
    pub secret_headers: BTreeMap<String, SecretRef>,
    /// User name for basic authentication.
    pub user: Option<String>,
    /// Its password.
    pub password_file: Option<SecretRef>,
    /// Token for bearer authentication.
    pub bearer_file: Option<SecretRef>,
    /// Text to send as the body.
    pub body: Option<String>,
    /// Secret to send as the body.
    pub body_file: Option<SecretRef>,
    /// Accepted status codes as inclusive ranges; empty means 200–299.
    pub status: Vec<(u16, u16)>,
    /// Text the first 64 KiB of the body must contain.
    pub contains: Option<String>,
    /// Pattern those bytes must match.
    pub body_matches: Option<Pattern>,
    /// Pattern they must not match.
    pub body_lacks: Option<Pattern>,
    /// What must hold in a body of JSON.
    pub json: Vec<JsonWanted>,
    /// Headers of the answer that must be there and match.
    pub header_matches: BTreeMap<String, Pattern>,
    /// Which redirects are followed.
    pub redirects: Redirects,
    /// How many.
    pub redirects_max: u8,
    /// Version of HTTP.
    pub version: HttpVersion,
    /// Whether a compressed body is asked for.
    pub compression: Compression,
    /// `http://host:port` of a proxy. The proxy resolves the name of the target.
    pub proxy: Option<String>,
    /// User name at the proxy.
    pub proxy_user: Option<String>,
    /// Its password.
    pub proxy_password_file: Option<SecretRef>,
    /// How TLS is spoken.
    pub tls: TlsOptions,
    /// Which addresses are used.
    pub family: Family,
}

/// One thing that must hold in a body of JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JsonWanted {
    /// JSONPath (RFC 9535), such as `$.checks[*].state`. It must find something, and all it finds must fit.
    pub path: String,
    /// The value as text: a string without quotes, a number, `true`, `false` or `null`.
    pub equals: Option<String>,
    /// Pattern over the value as text.
    pub matches: Option<Pattern>,
}

/// Which redirects are followed. From https to http: never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redirects {
    /// All.
    #[default]
    Follow,
    /// Those to the same host name; another one fails.
    SameHost,
    /// None: the redirect is the answer, and its status is judged.
    None,
}

/// Version of HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpVersion {
    /// HTTP/2 where ALPN agrees on it, else HTTP/1.1.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// HTTP/1.1 only.
    #[serde(rename = "1.1")]
    V11,
    /// HTTP/2 only: a server that does not agree fails.
    #[serde(rename = "2")]
    V2,
}

/// Whether a compressed body is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not.
    #[default]
    None,
    /// With gzip.
    Gzip,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            url: String::new(),
            method: "GET".to_owned(),
            headers: BTreeMap::new(),
            secret_headers: BTreeMap::new(),
            user: None,
            password_file: None,
            bearer_file: None,
            body: None,
            body_file: None,
            status: Vec::new(),
            contains: None,
            body_matches: None,
            body_lacks: None,
            json: Vec::new(),
            header_matches: BTreeMap::new(),
            redirects: Redirects::default(),
            redirects_max: REDIRECTS_MAX,
            version: HttpVersion::default(),
            compression: Compression::default(),
            proxy: None,
            proxy_user: None,
            proxy_password_file: None,
            tls: TlsOptions::default(),
            family: Family::default(),
        }
    }
}

impl Http {
    /// Whether this status is the answer that was wanted.
    pub fn accepts(&self, status: u16) -> bool {
        let ranges: &[_] = if self.status.is_empty() { &[(200, 299)] } else { &self.status };
        ranges.iter().any(|(from, to)| (*from..=*to).contains(&status))
    }

    /// Every secret it names, with its key.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &SecretRef)> {
        let single = [
            ("password_file", &self.password_file),
            ("bearer_file", &self.bearer_file),
            ("body_file", &self.body_file),
            ("proxy_password_file", &self.proxy_password_file),
        ];
        let single = single.into_iter().filter_map(|(key, secret)| Some((key, secret.as_ref()?)));
        single.chain(self.secret_headers.values().map(|secret| ("secret_headers", secret)))
    }

    fn url_problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let url = &self.url;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            found.push(format!("url {url:?} must begin with http:// or https://"));
        }
        // Checks are shown to many people; a password in one would be too. Not echoed here for that reason.
        let authority = url.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next());
        if authority.is_some_and(|authority| authority.contains('@')) {
            found.push("the url must not carry a user name or password".to_owned());
        }
        if let Some(proxy) = &self.proxy {
            let rest = proxy.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
            if rest.is_none_or(|rest| rest.contains('@') || split_address(rest).is_none()) {
                found.push("proxy must be http://host:port, without a user name or password".to_owned());
            }
        }
        found
    }

    fn request_problems(&self) -> Vec<String> {
        const OURS: [&str; 7] =
            ["host", "connection", "content-length", "transfer-encoding", "authorization", "upgrade", "te"];
        let mut found = Vec::new();
        if self.method.is_empty() || self.method.len() > 32 || !self.method.bytes().all(|c| c.is_ascii_uppercase()) {
            found.push(format!("method {:?} must be a word in capitals", self.method));
        }
        for name in self.headers.keys().chain(self.secret_headers.keys()).chain(self.header_matches.keys()) {
            let token = |c: char| c.is_ascii_alphanumeric() || "-_.!#$%&'*+^`|~".contains(c);
            if name.is_empty() || name.len() > 128 || !name.chars().all(token) {
                found.push(format!("{name:?} is not the name of a header"));
            }
        }
        for (name, value) in &self.headers {
            // A token in a plan would be shown to whoever may see the check.
            if OURS.contains(&name.to_ascii_lowercase().as_str()) || name.eq_ignore_ascii_case("cookie") {
                found.push(format!("header {name:?} is set by the agent or must be a secret_header"));
            }
            if value.len() > 4_096 || value.chars().any(|c| c.is_control() && c != '\t') {
                found.push(format!("header {name:?} has a value over 4096 bytes or with control characters"));
            }
        }
        for name in self.secret_headers.keys() {
            let name = name.to_ascii_lowercase();
            if OURS.contains(&name.as_str()) && name != "authorization" {
                found.push(format!("header {name:?} is set by the agent"));
            }
        }
        let ways = [self.user.is_some(), self.bearer_file.is_some()];
        let by_header = self.secret_headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"));
        if ways.into_iter().filter(|way| *way).count() + usize::from(by_header) > 1 {
            found.push("user, bearer_file and a secret header Authorization exclude each other".to_owned());
        }
        if self.user.is_some() != self.password_file.is_some() {
            found.push("user and password_file go together".to_owned());
        }
        if self.user.as_ref().is_some_and(|user| user.contains(':')) {
            found.push("user must not contain a colon".to_owned());
        }
        if self.proxy_user.is_some() != self.proxy_password_file.is_some()
            || (self.proxy_user.is_some() && self.proxy.is_none())
        {
            found.push("proxy_user and proxy_password_file go together, and with proxy".to_owned());
        }
        if self.body.is_some() && self.body_file.is_some() {
            found.push("body and body_file exclude each other".to_owned());
        }
        if self.body.as_ref().is_some_and(|body| body.len() > 64 << 10) {
            found.push("body is over 64 KiB".to_owned());
        }
        found.extend(self.secrets().filter_map(|(key, secret)| secret.problem(key)));
        found
    }

    fn answer_problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (from, to) in &self.status {
            if from > to || *from < 100 || *to > 599 {
                found.push(format!("status range {from}-{to} must lie within 100-599"));
            }
        }
        found.extend(self.body_matches.iter().filter_map(|pattern| pattern.problem("body_matches")));
        found.extend(self.body_lacks.iter().filter_map(|pattern| pattern.problem("body_lacks")));
        found.extend(self.header_matches.values().filter_map(|pattern| pattern.problem("header_matches")));
        for wanted in &self.json {
            if let Err(error) = serde_json_path::JsonPath::parse(&wanted.path) {
                found.push(format!("json path {:?} cannot be used: {error}", wanted.path));
            }
            found.extend(wanted.matches.iter().filter_map(|pattern| pattern.problem("matches")));
        }
        let lists = [
            self.headers.len(),
            self.secret_headers.len(),
            self.header_matches.len(),
            self.json.len(),
            self.status.len(),
        ];
        if lists.into_iter().any(|length| length > LIST_MAX) {
            found.push(format!("more than {LIST_MAX} headers, status ranges or json paths"));
        }
        if self.redirects_max > REDIRECTS_MAX {
            found.push(format!("redirects_max of {} is over {REDIRECTS_MAX}", self.redirects_max));
        }
        found
    }
}

impl Options for Http {
    const TARGET_KEY: &'static str = "url";

    fn target(&self) -> &str {
        &self.url
    }

    fn problems(&self) -> Vec<String> {
        let parts = [self.url_problems(), self.request_problems(), self.answer_problems(), self.tls.problems()];
        parts.into_iter().flatten().collect()
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let url = fields.need_str("url");
        let redirects = [("follow", Redirects::Follow), ("same_host", Redirects::SameHost), ("none", Redirects::None)];
        let versions = [("auto", HttpVersion::Auto), ("1.1", HttpVersion::V11), ("2", HttpVersion::V2)];
        let compressions = [("none", Compression::None), ("gzip", Compression::Gzip)];
        let read = Self {
            url: String::new(),
            method: fields.str_or("method", "GET"),
            headers: read_map(fields, "headers", |value| value),
            secret_headers: read_map(fields, "secret_headers", SecretRef),
            user: fields.str("user"),
            password_file: SecretRef::read(fields, "password_file"),
            bearer_file: SecretRef::read(fields, "bearer_file"),
            body: fields.str("body"),
            body_file: SecretRef::read(fields, "body_file"),
            status: read_statuses(fields),
            contains: fields.str("contains"),
            body_matches: Pattern::read(fields, "body_matches"),
            body_lacks: Pattern::read(fields, "body_lacks"),
            json: fields.tables("json").into_iter().filter_map(read_json).collect(),
            header_matches: read_map(fields, "header_matches", Pattern::new),
            redirects: fields.word_or("redirects", &redirects, Redirects::default()),
            redirects_max: read_number(fields, "redirects_max", 0..=10).unwrap_or(REDIRECTS_MAX),
            version: fields.word_or("version", &versions, HttpVersion::default()),
            compression: fields.word_or("compression", &compressions, Compression::default()),
            proxy: fields.str("proxy"),
            proxy_user: fields.str("proxy_user"),
            proxy_password_file: SecretRef::read(fields, "proxy_password_file"),
            tls: TlsOptions::read(fields),
            family: Family::read(fields),
        };
        Some(Self { url: url?, ..read })
    }
}

fn read_json(mut fields: Fields<'_>) -> Option<JsonWanted> {
    let path = fields.need_str("path");
    let equals = fields.str("equals");
    let matches = Pattern::read(&mut fields, "matches");
    fields.finish();
    Some(JsonWanted { path: path?, equals, matches })
}

/// `"200-299,401"` into ranges.
fn read_statuses(fields: &mut Fields<'_>) -> Vec<(u16, u16)> {
    let mistakes = fields.mistakes();
    let Some(node) = fields.take_some("status") else { return Vec::new() };
    let Some(text) = node.as_str(mistakes) else { return Vec::new() };
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
    };
    let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
    if ranges.is_none() {
        node.refuse(mistakes, format_args!("is {text:?}; it must be status codes such as \"200-299,401\""));
    }
    ranges.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_or_proxy_with_a_password_is_refused_without_repeating_it() {
        for (url, refused) in
            [("https://u:secret@a.test/", true), ("http://u@a.test?x", true), ("https://a.test/@x?y=a@b", false)]
        {
            let check = Http { url: url.into(), ..Http::default() };
            let problems = check.problems();
            assert_eq!(!problems.is_empty(), refused, "{url}: {problems:?}");
            assert!(!problems.concat().contains("secret"), "{problems:?}");
            let proxied = Http { url: "http://a.test/".into(), proxy: Some(url.into()), ..Http::default() };
            assert!(!proxied.problems().concat().contains("secret"));
        }
    }

    #[test]
    fn a_secret_in_plain_sight_and_what_contradicts_itself_are_refused() {
        let good = Http { url: "https://a.test/".into(), ..Http::default() };
        let header = |name: &str| [(name.to_owned(), "x".to_owned())].into();
        for (check, part) in [
            (Http { headers: header("Authorization"), ..good.clone() }, "secret_header"),
            (Http { headers: header("Cookie"), ..good.clone() }, "secret_header"),
            (Http { headers: header("a b"), ..good.clone() }, "not the name of a header"),
            (Http { user: Some("u".into()), ..good.clone() }, "go together"),
            (Http { method: "get".into(), ..good.clone() }, "capitals"),
            (Http { body_matches: Some(Pattern::new("(")), ..good.clone() }, "unclosed"),
            (
                Http { json: vec![JsonWanted { path: "x".into(), ..JsonWanted::default() }], ..good.clone() },
                "json path",
            ),
            (Http { redirects_max: 11, ..good.clone() }, "over 10"),
        ] {
            let found = check.problems();
            assert!(found.len() == 1 && found[0].contains(part), "{part}: {found:?}");
        }
    }
}
