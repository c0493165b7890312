//! What the options of several kinds have in common: the trait of a kind, and the values they share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::settings::{Fields, Node};

/// Bytes a compiled pattern may take. A larger one is refused: it would cost an agent memory per check.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What every kind of check tells about its own options.
///
/// `Default` gives each option its standard value. An option at its standard value does not travel, so an agent that
/// does not know it yet goes on working; one that is set and unknown is refused by its name.
pub trait Options: Default + Serialize + DeserializeOwned {
    /// What is probed, as people write it.
    fn target(&self) -> &str;

    /// The key under which the target stands in a `[[check]]` table.
    const TARGET_KEY: &'static str;

    /// Everything wrong with the options, one sentence fragment each, without the name of the check.
    fn problems(&self) -> Vec<String>;

    /// Takes the options out of a `[[check]]` table; `None` when a required one is missing (the mistake is noted).
    fn read(fields: &mut Fields<'_>) -> Option<Self>;
}

/// `host:port` or `[v6]:port` into its parts.
pub fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let port: u16 = port.parse().ok()?;
    (!host.is_empty() && port != 0).then_some((host, port))
}

/// `host`, `host:port`, `[v6]:port` or a bare address into its parts; `port` when none is written.
pub fn split_host(text: &str, port: u16) -> Option<(&str, u16)> {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Some((text, port));
    }
    if let Some(bare) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Some((bare, port));
    }
    if text.contains(':') {
        return split_address(text);
    }
    (!text.is_empty() && !text.contains(['/', ' ', '@'])).then_some((text, port))
}

/// The mistake of an address that is not `host:port`.
pub(super) fn address_problem(address: &str) -> Option<String> {
    split_address(address).is_none().then(|| format!("address {address:?} must be host:port (IPv6 in brackets)"))
}

/// Which family of addresses is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// The first address in the order of the host's resolver.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// One probe over each family, side by side; up when both are.
    Both,
}

impl Family {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let words = [("any", Self::Any), ("4", Self::V4), ("6", Self::V6), ("both", Self::Both)];
        fields.word_or("family", &words, Self::Any)
    }
}

/// Where an agent finds a secret. The secret itself never travels and never stands in a plan.
///
/// `/etc/peil/secrets/NAME` is a file in the directory that the agent's policy opens for this, `credential:NAME` a
/// credential that systemd hands to the agent's unit (`LoadCredential=`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretRef(pub String);

impl SecretRef {
    /// The name of the credential, if it is one.
    pub fn credential(&self) -> Option<&str> {
        self.0.strip_prefix("credential:")
    }

    pub(super) fn problem(&self, key: &str) -> Option<String> {
        let good = match self.credential() {
            Some(name) => {
                !name.is_empty()
                    && !name.starts_with('.')
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c))
            }
            None => self.0.starts_with('/') && !self.0.split('/').any(|part| part == ".."),
        };
        // Not repeated: whoever wrote the secret itself here must not find it in a log.
        (!good).then(|| format!("{key} must be an absolute path or \"credential:NAME\""))
    }

    pub(super) fn read(fields: &mut Fields<'_>, key: &str) -> Option<Self> {
        fields.str(key).map(Self)
    }
}

/// A regular expression over bytes, compiled once where it is used.
///
/// The syntax is that of the `regex` crate: no look-around, no back-references, linear time in what it is matched with.
#[derive(Clone, Default)]
pub struct Pattern {
    text: String,
    compiled: OnceLock<Result<regex::bytes::Regex, String>>,
}

impl Pattern {
    /// A pattern with this text; whether it can be used shows in [`Pattern::regex`].
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), compiled: OnceLock::new() }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The expression, ready to match.
    ///
    /// # Errors
    /// Why it cannot be used, as the end of a sentence that begins with the pattern.
    pub fn regex(&self) -> Result<&regex::bytes::Regex, &str> {
        let compile = || {
            let built = regex::bytes::RegexBuilder::new(&self.text).size_limit(PATTERN_BYTES_MAX).build();
            built.map_err(|error| format!("cannot be used: {}", error.to_string().replace('\n', " ")))
        };
        self.compiled.get_or_init(compile).as_ref().map_err(String::as_str)
    }

    /// Whether it matches somewhere in `bytes`; an unusable pattern matches nothing (such a check is refused before).
    pub fn is_match(&self, bytes: &[u8]) -> bool {
        self.regex().is_ok_and(|regex| regex.is_match(bytes))
    }

    pub(super) fn problem(&self, key: &str) -> Option<String> {
        self.regex().err().map(|why| format!("{key}: pattern {:?} {why}", self.text))
    }

    pub(super) fn read(fields: &mut Fields<'_>, key: &str) -> Option<Self> {
        fields.str(key).map(Self::new)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::new)
    }
}

/// Lowest version of TLS that is accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TlsVersion {
    /// 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// 1.3.
    #[serde(rename = "1.3")]
    V13,
}

/// How TLS is spoken and what the certificate must satisfy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsOptions {
    /// Name to send and verify; the host of the target when absent.
    pub server_name: Option<String>,
    /// PEM bundle on the agent's host to trust instead of the public roots.
    pub ca_file: Option<String>,
    /// Fail when a certificate ends within this many days. See `whole_chain`.
    pub cert_days_min: Option<u16>,
    /// True: `cert_days_min` is about every certificate presented. False: about the leaf.
    pub whole_chain: bool,
    /// Older versions are refused; standard 1.2.
    pub min_version: TlsVersion,
    /// PEM chain to present when the server asks for a client certificate; together with `client_key_file`.
    pub client_cert_file: Option<String>,
    /// Its private key.
    pub client_key_file: Option<SecretRef>,
}

impl TlsOptions {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let mistakes = fields.mistakes();
        let days = fields.take_some("cert_days_min").and_then(|node| node.as_int(mistakes, 0..=3_650));
        Self {
            server_name: fields.str("server_name"),
            ca_file: fields.str("ca_file"),
            cert_days_min: days.and_then(|days| u16::try_from(days).ok()),
            whole_chain: fields.bool_or("whole_chain", false),
            min_version: fields.word_or(
                "tls_min",
                &[("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)],
                TlsVersion::default(),
            ),
            client_cert_file: fields.str("client_cert_file"),
            client_key_file: SecretRef::read(fields, "client_key_file"),
        }
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut found: Vec<_> = self.client_key_file.iter().filter_map(|key| key.problem("client_key_file")).collect();
        if self.client_cert_file.is_some() != self.client_key_file.is_some() {
            found.push("client_cert_file and client_key_file go together".to_owned());
        }
        found
    }
}

/// The mistakes of an address, and of options of TLS where TLS is only spoken when `key` says so.
pub(super) fn address_and_tls_problems(address: &str, tls: &TlsOptions, speaks_tls: bool, key: &str) -> Vec<String> {
    let mut found: Vec<_> = address_problem(address).into_iter().chain(tls.problems()).collect();
    if *tls != TlsOptions::default() && !speaks_tls {
        found.push(format!("options of TLS mean nothing without {key}"));
    }
    found
}

/// The mistake of a word that is empty, too long or unprintable.
pub(super) fn word_problem(key: &str, word: &str) -> Option<String> {
    let good = !word.is_empty() && word.len() <= 128 && !word.chars().any(char::is_control);
    (!good).then(|| format!("{key} {word:?} must be 1 to 128 characters"))
}

/// A table whose keys are names: `{ "X-Name" = "value" }`.
pub(super) fn read_map<T>(fields: &mut Fields<'_>, key: &str, make: impl Fn(String) -> T) -> BTreeMap<String, T> {
    let mistakes = fields.mistakes();
    let Some(mut table) = fields.table(key) else { return BTreeMap::new() };
    let value = |node: Node| node.as_str(mistakes).map(|text| make(text.to_owned()));
    table.rest().into_iter().filter_map(|entry| Some((entry.key, value(entry.node)?))).collect()
}

/// A whole number that fits its type, with a range and a standard value.
pub(super) fn read_number<T: TryFrom<i64> + Copy>(
    fields: &mut Fields<'_>,
    key: &str,
    range: std::ops::RangeInclusive<i64>,
) -> Option<T> {
    let mistakes = fields.mistakes();
    fields.take_some(key)?.as_int(mistakes, range).and_then(|number| T::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_split_with_and_without_brackets() {
        assert_eq!(split_address("example.org:443"), Some(("example.org", 443)));
        assert_eq!(split_address("[::1]:22"), Some(("::1", 22)));
        assert_eq!(split_address("::1:22"), None);
        assert_eq!(split_address("host"), None);
        assert_eq!(split_address("host:0"), None);
        assert_eq!(split_host("ns.example.org", 53), Some(("ns.example.org", 53)));
        assert_eq!(split_host("::1", 53), Some(("::1", 53)));
        assert_eq!(split_host("[::1]:5353", 53), Some(("::1", 5353)));
        assert_eq!(split_host("a:b", 53), None);
    }

    #[test]
    fn a_secret_is_named_never_written_and_a_mistake_does_not_repeat_it() {
        for (text, good) in [
            ("/etc/peil/secrets/db", true),
            ("credential:db-password", true),
            ("hunter2", false),
            ("credential:", false),
            ("credential:../x", false),
            ("/etc/peil/secrets/../../shadow", false),
        ] {
            let problem = SecretRef(text.to_owned()).problem("password_file");
            assert_eq!(problem.is_none(), good, "{text}");
            assert!(!problem.unwrap_or_default().contains("hunter2"));
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_used_says_why_and_matches_nothing() {
        let broken = Pattern::new("(");
        assert!(broken.problem("body_matches").is_some_and(|text| text.contains("unclosed group")));
        assert!(!broken.is_match(b"("));
        assert!(Pattern::new("\\w{1000}{1000}").problem("x").is_some(), "too large to compile");
        assert!(Pattern::new("^ok$").is_match(b"ok"));
    }
}
