//! `dns`: asks one name server one question.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `query` | the name to ask for | required |
//! | `server` | `host`, `host:port`; the check is of this server | the first in the host's `/etc/resolv.conf` |
//! | `record` | a type of record, such as `A`, `MX`, `SOA` | `A` |
//! | `transport` | `udp`, `tcp`, `tls` (DoT); ports 53, 53, 853 | `udp` |
//! | `rcodes` | response codes that are right | `["NOERROR"]` |
//! | `answers` | patterns; each must match an answer, written `TYPE DATA` (`A 192.0.2.1`, `MX 10 a.example.`) | none |
//! | `serial_min` | least serial of a SOA among the answers | none |
//! | `authenticated` | the server must say that it validated the answer (AD bit) | false |
//! | `rrsig_days_min` | days the signatures among the answers must still hold; 0 to 365; there must be one | none |
//! | `recursion` | ask the server to look further | true |
//! | `server_name`, `ca_file`, … | see [`TlsOptions`]; with `transport = "tls"` | |
//! | `family` | `any`, `4`, `6`, `both` | `any` |
//!
//! Fails with: `timeout`, `refused`, `unreachable`, `closed`, `protocol` (not an answer to the question, or cut),
//! `status` (another response code, which is the code of the sample), `content`, `cert_expiring` (a signature ends);
//! over TLS as `tls` does.

use serde::{Deserialize, Serialize};

use super::options::{Family, Options, Pattern, TlsOptions, read_number, split_host};
use crate::settings::Fields;

/// Options of a `dns` check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// The name to ask for.
    pub query: String,
    /// `host` or `host:port`; the host's own first resolver when absent.
    pub server: Option<String>,
    /// Type of record.
    pub record: String,
    /// How the question travels.
    pub transport: DnsTransport,
    /// Response codes that are right.
    pub rcodes: Vec<String>,
    /// Each must match an answer.
    pub answers: Vec<Pattern>,
    /// Least serial of a SOA.
    pub serial_min: Option<u32>,
    /// The AD bit must be set.
    pub authenticated: bool,
    /// Days the signatures must still hold.
    pub rrsig_days_min: Option<u16>,
    /// The RD bit is set.
    pub recursion: bool,
    /// How TLS is spoken.
    pub tls: TlsOptions,
    /// Which addresses of the server are used.
    pub family: Family,
}

/// How a question travels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsTransport {
    /// Datagrams; an answer that does not fit is a failure.
    #[default]
    Udp,
    /// A connection.
    Tcp,
    /// A connection with TLS (RFC 7858).
    Tls,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            query: String::new(),
            server: None,
            record: "A".to_owned(),
            transport: DnsTransport::default(),
            rcodes: vec!["NOERROR".to_owned()],
            answers: Vec::new(),
            serial_min: None,
            authenticated: false,
            rrsig_days_min: None,
            recursion: true,
            tls: TlsOptions::default(),
            family: Family::default(),
        }
    }
}

/// Response codes by name, in the order of their numbers (RFC 1035, 2136).
pub const RCODES: [&str; 11] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH",
    "NOTZONE",
];

impl Options for Dns {
    const TARGET_KEY: &'static str = "query";

    fn target(&self) -> &str {
        &self.query
    }

    fn problems(&self) -> Vec<String> {
        let mut found = self.tls.problems();
        if self.query.is_empty() || self.query.len() > 254 || self.query.chars().any(char::is_whitespace) {
            found.push(format!("query {:?} is not a name", self.query));
        }
        if self.server.as_ref().is_some_and(|server| split_host(server, 53).is_none()) {
            found.push(format!("server {:?} must be a host or host:port", self.server.as_deref().unwrap_or_default()));
        }
        if self.record.is_empty() || !self.record.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()) {
            found.push(format!("record {:?} is not a type such as \"A\" or \"MX\"", self.record));
        }
        for rcode in self.rcodes.iter().filter(|rcode| !RCODES.contains(&rcode.as_str())) {
            found.push(format!("rcode {rcode:?} is none of {}", RCODES.join(", ")));
        }
        if self.rcodes.is_empty() || self.answers.len() > 32 {
            found.push("rcodes must not be empty, and answers have at most 32 patterns".to_owned());
        }
        found.extend(self.answers.iter().filter_map(|pattern| pattern.problem("answers")));
        if self.tls != TlsOptions::default() && self.transport != DnsTransport::Tls {
            found.push("options of TLS mean nothing without transport = \"tls\"".to_owned());
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let query = fields.need_str("query");
        let transports = [("udp", DnsTransport::Udp), ("tcp", DnsTransport::Tcp), ("tls", DnsTransport::Tls)];
        let mut read = Self {
            query: String::new(),
            server: fields.str("server"),
            record: fields.str_or("record", "A"),
            transport: fields.word_or("transport", &transports, DnsTransport::default()),
            rcodes: fields.strings("rcodes"),
            answers: fields.strings("answers").into_iter().map(Pattern::new).collect(),
            serial_min: read_number(fields, "serial_min", 0..=4_294_967_295),
            authenticated: fields.bool_or("authenticated", false),
            rrsig_days_min: read_number(fields, "rrsig_days_min", 0..=365),
            recursion: fields.bool_or("recursion", true),
            tls: TlsOptions::read(fields),
            family: Family::read(fields),
        };
        if read.rcodes.is_empty() {
            read.rcodes = Self::default().rcodes;
        }
        Some(Self { query: query?, ..read })
    }
}
