//! What an agent is asked to do: the checks, their rhythm and what must hold.
//!
//! The collector validates a plan before it pushes it and the agent validates it again on arrival
//! ([`CheckDef::problems`]): a bad plan is refused with its reason and the last good one stays.

use serde::{Deserialize, Serialize};

use crate::ids::CheckNo;

/// Checks one agent will run at most. A larger plan is refused.
pub const CHECKS_MAX: usize = 10_000;

/// The kinds of check. Adding one: a variant here, a file in `agent/src/probe/`, a line in its table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum CheckKind {
    /// GET a URL; status and (optionally) content must match.
    Http {
        /// `http://` or `https://`.
        url: String,
        /// Accepted status codes as inclusive ranges; empty means 200–299.
        #[serde(default)]
        status: Vec<(u16, u16)>,
        /// Text the first 64 KiB of the body must contain.
        #[serde(default)]
        contains: Option<String>,
        /// PEM bundle on the agent's host to trust instead of the public roots.
        #[serde(default)]
        ca_file: Option<String>,
        /// Fail when the leaf certificate ends within this many days.
        #[serde(default)]
        cert_days_min: Option<u16>,
    },
    /// Connect to `host:port`.
    Tcp {
        /// `host:port`; IPv6 in brackets.
        address: String,
    },
    /// Connect, shake hands, check the certificate.
    Tls {
        /// `host:port`; IPv6 in brackets.
        address: String,
        /// Name to send and verify; the host of `address` when absent.
        #[serde(default)]
        server_name: Option<String>,
        /// PEM bundle on the agent's host to trust instead of the public roots.
        #[serde(default)]
        ca_file: Option<String>,
        /// Fail when the leaf certificate ends within this many days.
        #[serde(default)]
        cert_days_min: Option<u16>,
    },
}

impl CheckKind {
    /// The kind's name as it stands in configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Tcp { .. } => "tcp",
            Self::Tls { .. } => "tls",
        }
    }

    /// What is probed, as people write it.
    pub fn target(&self) -> &str {
        match self {
            Self::Http { url, .. } => url,
            Self::Tcp { address } | Self::Tls { address, .. } => address,
        }
    }
}

/// One check as an agent gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDef {
    /// Number that stands in the samples.
    pub no: CheckNo,
    /// Name people know; unique in the collector.
    pub name: String,
    /// Rhythm in ms: 1 s to 1 day.
    pub interval_ms: u32,
    /// Total deadline in ms, shorter than the interval.
    pub timeout_ms: u32,
    /// What to probe and what must hold.
    #[serde(flatten)]
    pub kind: CheckKind,
}

impl CheckDef {
    /// Everything that is wrong with this definition, in words; empty when it can run.
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let name = &self.name;
        if name.is_empty() || name.len() > 128 || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        {
            found.push(format!("check name {name:?} must be 1 to 128 letters, digits, '-', '_' or '.'"));
        }
        if !(1_000..=86_400_000).contains(&self.interval_ms) {
            found.push(format!("check {name}: interval of {} ms must lie between 1 s and 24 h", self.interval_ms));
        }
        if self.timeout_ms == 0 || self.timeout_ms >= self.interval_ms {
            found.push(format!(
                "check {name}: timeout of {} ms must be above 0 and below the interval of {} ms",
                self.timeout_ms, self.interval_ms
            ));
        }
        match &self.kind {
            CheckKind::Http { url, status, .. } => {
                if !url.starts_with("http://") && !url.starts_with("https://") {
                    found.push(format!("check {name}: url {url:?} must begin with http:// or https://"));
                }
                // Checks are shown to many people; a password in one would be too. Not echoed here for that reason.
                let authority = url.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next());
                if authority.is_some_and(|authority| authority.contains('@')) {
                    found.push(format!("check {name}: the url must not carry a user name or password"));
                }
                for (from, to) in status {
                    if from > to || *from < 100 || *to > 599 {
                        found.push(format!("check {name}: status range {from}-{to} must lie within 100-599"));
                    }
                }
            }
            CheckKind::Tcp { address } | CheckKind::Tls { address, .. } => {
                if split_address(address).is_none() {
                    found.push(format!("check {name}: address {address:?} must be host:port (IPv6 in brackets)"));
                }
            }
        }
        found
    }
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

/// All checks of one agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Identifies the content; the agent reports the one it runs and gets another when they differ.
    pub version: u64,
    /// The checks.
    pub checks: Vec<CheckDef>,
}

impl Plan {
    /// Everything that is wrong with this plan; empty when an agent may run it.
    pub fn problems(&self) -> Vec<String> {
        let mut found: Vec<String> = self.checks.iter().flat_map(CheckDef::problems).collect();
        if self.checks.len() > CHECKS_MAX {
            found.push(format!("{} checks; an agent runs at most {CHECKS_MAX}", self.checks.len()));
        }
        let mut numbers: Vec<_> = self.checks.iter().map(|check| check.no).collect();
        numbers.sort_unstable();
        if let Some(pair) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
            found.push(format!("check number {} stands twice", pair[0]));
        }
        found
    }
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
    }

    #[test]
    fn a_url_with_a_password_is_refused_without_repeating_it() {
        for (url, refused) in
            [("https://u:secret@a.test/", true), ("http://u@a.test?x", true), ("https://a.test/@x?y=a@b", false)]
        {
            let kind =
                CheckKind::Http { url: url.into(), status: vec![], contains: None, ca_file: None, cert_days_min: None };
            let check = CheckDef { no: CheckNo(1), name: "a".into(), interval_ms: 60_000, timeout_ms: 1_000, kind };
            let problems = check.problems();
            assert_eq!(!problems.is_empty(), refused, "{url}: {problems:?}");
            assert!(!problems.concat().contains("secret"), "{problems:?}");
        }
    }

    #[test]
    fn a_plan_is_refused_with_every_reason() {
        let kind = CheckKind::Tcp { address: "nowhere".into() };
        let check = CheckDef { no: CheckNo(1), name: "a b".into(), interval_ms: 10, timeout_ms: 20, kind };
        let plan = Plan { version: 1, checks: vec![check.clone(), check] };
        assert_eq!(plan.problems().len(), 9, "{:#?}", plan.problems());
    }
}
