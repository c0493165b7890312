//! Where an `http` probe goes: a URL that can be dialled, and the next one after a redirect.
//!
//! Userinfo is refused in a configured URL and dropped from a redirect: this program never sends
//! credentials it was not told to send. Fragments are dropped. A `Location` may be relative (RFC 3986 §5);
//! bytes outside ASCII, and blanks, are percent-encoded as browsers do. International names must be
//! written in their ASCII form (`xn--…`).

use http::Uri;
use http::uri::{Authority, PathAndQuery};

/// A URL with everything needed to dial and ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    /// True for `https`.
    pub(super) secure: bool,
    /// Name or address, IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query, beginning with `/`.
    pub(super) path: String,
}

impl Location {
    /// Reads a configured URL.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with the URL.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("is not a URL: {error}"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("must not carry a user name or password".to_owned());
        }
        Self::from_uri(&uri)
    }

    fn from_uri(uri: &Uri) -> Result<Self, String> {
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("must begin with http:// or https://".to_owned()),
        };
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err("has no host".to_owned());
        }
        // `http` reads "host:" and "host:99999" as a host without a port; a typing error must not probe
        // the default port instead.
        let authority = uri.authority().map(Authority::as_str).unwrap_or_default();
        let after_host = authority.rsplit_once('@').map_or(authority, |(_, rest)| rest);
        let after_host = after_host.rsplit_once(']').map_or(after_host, |(_, rest)| rest);
        let port = match (uri.port_u16(), after_host.contains(':')) {
            (Some(0), _) | (None, true) => return Err("has a port that is not a number from 1 to 65535".to_owned()),
            (Some(port), _) => port,
            (None, false) => Self::default_port(secure),
        };
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { secure, host: host.to_owned(), port, path })
    }

    fn default_port(secure: bool) -> u16 {
        if secure { 443 } else { 80 }
    }

    /// `host` or `host:port`, as it stands in a `Host` header.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == Self::default_port(self.secure) { host } else { format!("{host}:{}", self.port) }
    }

    /// Whether scheme, host and port are the same: whatever was told to one may be told to the other.
    pub(super) fn same_origin(&self, other: &Self) -> bool {
        self.secure == other.secure && self.port == other.port && self.host.eq_ignore_ascii_case(&other.host)
    }

    /// Where `location` leads from here.
    ///
    /// # Errors
    /// Why it may or can not be followed, as a sentence fragment.
    pub(super) fn join(&self, location: &[u8]) -> Result<Self, String> {
        let reference = encoded(location);
        let absolute = self.absolute(&reference);
        let uri: Uri = absolute.parse().map_err(|error| format!("redirect to {reference:?}: {error}"))?;
        let next = Self::from_uri(&uri).map_err(|why| format!("redirect to {reference:?}, which {why}"))?;
        if self.secure && !next.secure {
            return Err(format!("redirect from https to {next}"));
        }
        Ok(next)
    }

    fn absolute(&self, reference: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        if has_scheme(reference) {
            return reference.to_owned();
        }
        if reference.starts_with("//") {
            return format!("{scheme}:{reference}");
        }
        let origin = format!("{scheme}://{}", self.authority());
        let reference = reference.split('#').next().unwrap_or_default();
        let (own_path, _) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let (path, query) = match reference.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (reference, None),
        };
        let path = match path {
            "" if query.is_none() => return format!("{origin}{}", self.path),
            "" => own_path.to_owned(),
            rooted if rooted.starts_with('/') => without_dots(rooted),
            relative => {
                let directory = own_path.rsplit_once('/').map_or("", |(directory, _)| directory);
                without_dots(&format!("{directory}/{relative}"))
            }
        };
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{origin}{path}{query}")
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// True for `scheme:` in front, by the grammar of RFC 3986 §3.1.
fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// Trims blanks and percent-encodes what may not stand in a URI.
fn encoded(location: &[u8]) -> String {
    let mut text = String::with_capacity(location.len());
    for byte in location.trim_ascii() {
        if byte.is_ascii_graphic() {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Removes `.` and `..` segments (RFC 3986 §5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_to_dial_and_what_to_ask() {
        for (url, host, port, path, authority) in [
            ("http://a.test", "a.test", 80, "/", "a.test"),
            ("https://a.test:443/x?y=1#z", "a.test", 443, "/x?y=1", "a.test"),
            ("https://a.test:8443?y", "a.test", 8443, "/?y", "a.test:8443"),
            ("http://[::1]:8080/", "::1", 8080, "/", "[::1]:8080"),
            ("http://[::1]/", "::1", 80, "/", "[::1]"),
        ] {
            let read = Location::parse(url).expect(url);
            assert_eq!((read.host.as_str(), read.port, read.path.as_str()), (host, port, path), "{url}");
            assert_eq!(read.authority(), authority, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_refused_with_its_reason() {
        for (url, reason) in [
            ("http://user:secret@a.test/", "user name"),
            ("http://user@a.test/", "user name"),
            ("ftp://a.test/", "must begin with"),
            ("a.test/x", "URL"),
            ("http://", "URL"),
            ("http://:80/", "host"),
            ("http://a.test:0/", "port"),
            ("http://a.test:99999/", "port"),
            ("http://a.test:/", "port"),
            ("http://a b/", "URL"),
        ] {
            let why = Location::parse(url).expect_err(url);
            assert!(why.contains(reason), "{url}: {why}");
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn redirects_resolve_as_the_standard_says() {
        let base = Location::parse("http://a.test:81/b/c/d?q").expect("a URL");
        for (reference, expected) in [
            ("g", "http://a.test:81/b/c/g"),
            ("./g", "http://a.test:81/b/c/g"),
            ("g/", "http://a.test:81/b/c/g/"),
            ("/g", "http://a.test:81/g"),
            ("//g", "http://g/"),
            ("?y", "http://a.test:81/b/c/d?y"),
            ("g?y", "http://a.test:81/b/c/g?y"),
            ("g#s", "http://a.test:81/b/c/g"),
            ("", "http://a.test:81/b/c/d?q"),
            (".", "http://a.test:81/b/c/"),
            ("..", "http://a.test:81/b/"),
            ("../g", "http://a.test:81/b/g"),
            ("../../../g", "http://a.test:81/g"),
            ("/a/./b/../c", "http://a.test:81/a/c"),
            ("http://user:secret@b.test/x", "http://b.test/x"),
            ("HTTPS://b.test", "https://b.test/"),
            ("/caf\u{e9} x", "http://a.test:81/caf%C3%A9%20x"),
            ("g?u=http://x/y", "http://a.test:81/b/c/g?u=http://x/y"),
        ] {
            assert_eq!(base.join(reference.as_bytes()).expect(reference).to_string(), expected, "{reference}");
        }
    }

    #[test]
    fn a_redirect_never_leaves_http_nor_falls_back_from_https() {
        let base = Location::parse("https://a.test/").expect("a URL");
        for reference in ["http://a.test/", "ftp://a.test/", "javascript:alert(1)", "file:///etc/passwd", "https://"] {
            base.join(reference.as_bytes()).expect_err(reference);
        }
        assert!(base.join(b"//b.test/x").expect("same scheme").secure);
    }

    proptest::proptest! {
        #[test]
        fn any_location_gives_a_url_that_reads_back_or_a_reason(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let base = Location::parse("http://a.test/b/c").expect("a URL");
            if let Ok(next) = base.join(&bytes) {
                proptest::prop_assert!(next.path.starts_with('/'));
                proptest::prop_assert_eq!(Location::parse(&next.to_string()), Ok(next));
            }
        }
    }
}
