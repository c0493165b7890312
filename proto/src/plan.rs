//! What an agent is asked to do: the checks, their rhythm and what must hold.
//!
//! The collector validates a plan before it pushes it and the agent validates it again on arrival
//! ([`CheckDef::problems`]): a bad plan is refused with its reason and the last good one stays. A check this program
//! does not know is not a bad plan: it stays in it as [`CheckKind::Unknown`].
//!
//! Each kind has a file with its options, what is wrong with them and how they are read from settings; the list of
//! kinds below is the only other place that names it.

use serde::{Deserialize, Serialize};

use crate::ids::CheckNo;
use crate::settings::Fields;

/// Checks one agent will run at most. A larger plan is refused.
pub const CHECKS_MAX: usize = 10_000;

mod cpu;
mod definition;
mod dns;
mod exec;
mod file;
mod grpc;
mod heartbeat;
mod http;
mod icmp;
mod listen;
pub mod local;
mod memory;
mod mount;
mod mysql;
mod ntp;
mod options;
mod postgres;
mod pressure;
mod process;
mod redis;
mod tcp;
mod threshold;
mod tls;
mod udp;
mod unit;
mod unknown;
mod websocket;

pub use cpu::Cpu;
pub use definition::read_name;
pub use dns::{Dns, DnsTransport, RCODES};
pub use exec::{Exec, Warning};
pub use file::File;
pub use grpc::{Grpc, GrpcCall};
pub use heartbeat::Heartbeat;
pub use http::{Compression, Http, HttpVersion, JsonWanted, REDIRECTS_MAX, Redirects};
pub use icmp::Icmp;
pub use listen::{Listen, ListenAt};
pub use memory::Memory;
pub use mount::Mount;
pub use mysql::Mysql;
pub use ntp::Ntp;
pub use options::{Family, Options, Pattern, SecretRef, TlsOptions, TlsVersion, split_address, split_host};
pub use postgres::Postgres;
pub use pressure::Pressure;
pub use process::Process;
pub use redis::{Redis, RedisRole};
pub use tcp::{Preset, Step, Tcp};
pub use tls::Tls;
pub use udp::Udp;
pub use unit::Unit;
pub use unknown::Unknown;
pub use websocket::WebSocket;

/// The one list of kinds: variant, word in configuration and on the wire. The rest of a kind is its file.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal),+ $(,)?) => {
        /// The kinds of check, each with its options. Adding one: a file beside this one, a line in the list below, and
        /// a file and a line in `agent/src/probe.rs`.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "lowercase")]
        #[expect(clippy::large_enum_variant, reason = "a plan holds few checks, and each is allocated once")]
        pub enum CheckKind {
            $($(#[$doc])* $kind($kind),)+
            /// A check from a newer collector that cannot run here.
            Unknown(Unknown),
        }

        impl CheckKind {
            /// The words of all kinds, in the order of the list.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The kind's name as it stands in configuration.
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$kind(_) => $word,)+
                    Self::Unknown(unknown) => &unknown.of_kind,
                }
            }

            /// What is probed, as people write it.
            pub fn target(&self) -> &str {
                match self {
                    $(Self::$kind(options) => options.target(),)+
                    Self::Unknown(_) => "",
                }
            }

            /// The key under which the target of this kind stands in a `[[check]]` table; `None` for no such kind.
            pub fn target_key(word: &str) -> Option<&'static str> {
                match word {
                    $($word => Some(<$kind as Options>::TARGET_KEY),)+
                    _ => None,
                }
            }

            /// Everything wrong with the options, one sentence fragment each.
            pub fn problems(&self) -> Vec<String> {
                match self {
                    $(Self::$kind(options) => options.problems(),)+
                    Self::Unknown(_) => Vec::new(),
                }
            }

            /// Takes `kind` and its options out of a `[[check]]` table.
            pub fn read(fields: &mut Fields<'_>) -> Option<Self> {
                type Read = fn(&mut Fields<'_>) -> Option<CheckKind>;
                let kinds: &[(&str, Read)] = &[$(($word, |fields| $kind::read(fields).map(CheckKind::$kind))),+];
                let mistakes = fields.mistakes();
                let read = fields.need("kind")?.as_word(mistakes, kinds)?;
                read(fields)
            }

            /// The options as JSON, without those at their standard value; `None` for a check that cannot run.
            pub fn to_options(&self) -> Option<String> {
                match self {
                    $(Self::$kind(options) => options_to_json(options),)+
                    Self::Unknown(_) => None,
                }
            }

            /// The kind `word` with these options; [`CheckKind::Unknown`] with the reason when it cannot be read.
            pub fn from_options(word: &str, options: &str) -> Self {
                let read = match word {
                    $($word => serde_json::from_str(options).map(Self::$kind).map_err(|error| error.to_string()),)+
                    _ => Err(format!("this agent does not know checks of kind {word:?}")),
                };
                read.unwrap_or_else(|why| Self::Unknown(Unknown { of_kind: word.to_owned(), why }))
            }
        }
    };
}

kinds! {
    /// Ask for a URL.
    Http = "http",
    /// Connect, shake hands, judge the certificate.
    Tls = "tls",
    /// Connect, and hold a dialogue.
    Tcp = "tcp",
    /// Send a datagram, expect an answer.
    Udp = "udp",
    /// Ask a name server.
    Dns = "dns",
    /// Ping a host.
    Icmp = "icmp",
    /// Ask a time server.
    Ntp = "ntp",
    /// Ask a gRPC service for its health.
    Grpc = "grpc",
    /// Open a WebSocket.
    WebSocket = "websocket",
    /// Ping a PostgreSQL server.
    Postgres = "postgres",
    /// Ping a MySQL server.
    Mysql = "mysql",
    /// Ping a Redis server.
    Redis = "redis",
    /// The state of a systemd unit.
    Unit = "unit",
    /// Processes of a program.
    Process = "process",
    /// Something listens on a port.
    Listen = "listen",
    /// A file is there and new enough.
    File = "file",
    /// A file system is mounted and has room.
    Mount = "mount",
    /// How busy the processors are.
    Cpu = "cpu",
    /// How much memory is in use.
    Memory = "memory",
    /// How long tasks wait for a resource.
    Pressure = "pressure",
    /// A command the host allows.
    Exec = "exec",
    /// A job that reports.
    Heartbeat = "heartbeat",
}

fn options_to_json<O: Options>(options: &O) -> Option<String> {
    let mut value = serde_json::to_value(options).ok()?;
    let standard = serde_json::to_value(O::default()).ok()?;
    if let Some(entries) = value.as_object_mut() {
        entries.retain(|key, value| standard.get(key) != Some(value));
    }
    Some(value.to_string())
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
        found.extend(self.kind.problems().into_iter().map(|problem| format!("check {name}: {problem}")));
        found
    }
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
    /// The checks that cannot run here, one sentence each; see [`Unknown`].
    pub fn left_out(&self) -> Vec<String> {
        let reason = |check: &CheckDef| match &check.kind {
            CheckKind::Unknown(unknown) => Some(format!("check {}: {}", check.name, unknown.why)),
            _ => None,
        };
        self.checks.iter().filter_map(reason).collect()
    }

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
    fn a_plan_is_refused_with_every_reason() {
        let kind = CheckKind::Tcp(Tcp { address: "nowhere".into(), ..Tcp::default() });
        let check = CheckDef { no: CheckNo(1), name: "a b".into(), interval_ms: 10, timeout_ms: 20, kind };
        let plan = Plan { version: 1, checks: vec![check.clone(), check] };
        assert_eq!(plan.problems().len(), 9, "{:#?}", plan.problems());
    }

    #[test]
    fn options_travel_without_those_at_their_standard_value_and_read_back() {
        let kind = CheckKind::Tcp(Tcp { address: "a:1".into(), preset: Some(Preset::Smtp), ..Tcp::default() });
        let options = kind.to_options().expect("has options");
        assert_eq!(options, r#"{"address":"a:1","preset":"smtp"}"#);
        assert_eq!(CheckKind::from_options("tcp", &options), kind);
    }

    #[test]
    fn what_a_newer_collector_asks_for_is_unknown_by_its_name() {
        for (word, options, part) in
            [("teapot", "{}", "teapot"), ("tcp", r#"{"address":"a:1","warp":9}"#, "warp"), ("tcp", "[", "EOF")]
        {
            let read = CheckKind::from_options(word, options);
            let CheckKind::Unknown(unknown) = &read else { panic!("{read:?} was understood") };
            assert!(unknown.why.contains(part), "{unknown:?}");
            assert_eq!(read.name(), word);
            assert_eq!(read.problems(), Vec::<String>::new(), "it must not take the plan down with it");
        }
    }

    #[test]
    fn every_kind_is_read_from_settings_by_its_word() {
        for word in CheckKind::WORDS {
            let key = CheckKind::target_key(word).expect("has a target");
            let text = format!("kind = {word:?}\n{key} = \"x\"");
            let mistakes = crate::settings::Mistakes::new("test");
            let mut fields = crate::settings::Document::toml(&text, &mistakes).fields(&mistakes);
            let read = CheckKind::read(&mut fields);
            assert_eq!(read.as_ref().map(CheckKind::name), Some(*word));
            assert_eq!(read.as_ref().map(CheckKind::target), Some("x"), "{word}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_options_are_a_check_or_refused_by_name(
            word in proptest::sample::select(CheckKind::WORDS),
            options in ".{0,60}",
            key in "[a-z_]{1,12}",
            value in "(true|[0-9]{1,20}|\"[a-z/:]{0,9}\"|null|\\[\\]|\\{\\})",
        ) {
            for options in [options, format!("{{\"{key}\":{value}}}")] {
                let read = CheckKind::from_options(word, &options);
                proptest::prop_assert_eq!(read.name(), word);
                let _ = read.problems();
                if let Some(again) = read.to_options() {
                    proptest::prop_assert_eq!(CheckKind::from_options(word, &again), read);
                }
            }
        }
    }
}
