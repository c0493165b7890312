//! The collector's settings: `collector.toml`, read in one go, every mistake in one answer.
//!
//! Two halves: how this process runs (`[listen]`, `[agents]`, …), and what it judges (`[[contract]]`,
//! `[[service]]`, `[[check]]`), and whom it tells (`[[channel]]`). Names refer to each other and are checked
//! together; a service that names an unknown check is a mistake at its line, not an unknown figure later.

pub(crate) mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use peil_proto::ids::AgentId;
use peil_proto::labels::Labels;
use peil_proto::plan::CheckDef;
use peil_proto::settings::{Document, Fields, Mistakes, Refused, read_file};
use peil_proto::units::Millis;

use crate::alert::AlertKind;
use crate::contract::expr::Expr;
use crate::contract::terms::Terms;
use crate::contract::workday::DayOfMonth;
use crate::store::Place;
use crate::store::place::Beside;
use crate::store::retention::Kind;

/// Where the settings are looked for when `--config` does not say.
pub const DEFAULT_PATH: &str = "/etc/peil/collector.toml";
/// Services one collector judges. More are refused.
pub(crate) const SERVICES_MAX: usize = 10_000;

/// Valid settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Authority and certificates live here, and the store unless `store` says otherwise.
    pub data_dir: PathBuf,
    /// Where everything is kept.
    pub store: Place,
    /// Where it listens.
    pub listen: Listen,
    /// Rules for agents.
    pub agents: Agents,
    /// The patch policy.
    pub patch: PatchPolicy,
    /// Contracts in order of name.
    pub contracts: BTreeMap<String, Clauses>,
    /// When months seal themselves; `None`: only people seal.
    pub seal_day: Option<SealDay>,
    /// How long each kind of data is kept.
    pub retention: BTreeMap<Kind, Millis>,
    /// Services in order of name.
    pub services: BTreeMap<String, Service>,
    /// Checks in order of name.
    pub checks: BTreeMap<String, Check>,
    /// Whom to tell.
    pub channels: Vec<Channel>,
}

/// Addresses and names.
#[derive(Debug, Clone)]
pub struct Listen {
    /// gRPC for agents, mutual TLS.
    pub agents: SocketAddr,
    /// Pages, API and metrics, TLS.
    pub web: SocketAddr,
    /// Names and addresses that stand in the server certificate.
    pub names: Vec<String>,
    /// Base of links in alerts.
    pub public_url: String,
}

/// Rules for agents.
#[derive(Debug, Clone, Copy)]
pub struct Agents {
    /// Silence longer than this is an alert.
    pub silent_after: Millis,
    /// Life of an agent's certificate.
    pub certificate_life: Millis,
}

/// The patch policy.
#[derive(Debug, Clone, Copy)]
pub struct PatchPolicy {
    /// A security fix must be installed within this time of first being seen.
    pub term: Millis,
    /// A report older than this says nothing about today.
    pub stale_after: Millis,
}

/// The day of the next month at whose end a month seals itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealDay(pub DayOfMonth);

/// The clauses of a contract, and two of them as they were written.
#[derive(Debug, Clone)]
pub struct Clauses {
    /// What is judged by.
    pub terms: Terms,
    /// Percentage as written, for people.
    pub target: String,
    /// Zone as written, for people.
    pub timezone: String,
}

/// A service: an expression over checks, judged by a contract.
#[derive(Debug, Clone)]
pub struct Service {
    /// Name of its contract.
    pub contract: String,
    /// What it is made of.
    pub expression: Expr,
    /// The clauses it is judged by.
    pub terms: Terms,
    /// Percentage as written, for people.
    pub target: String,
    /// Zone as written, for people.
    pub timezone: String,
}

/// Before an agent's id, where a check names one agent and no other: `agent:0123…`.
pub const ONE_AGENT: &str = "agent:";

/// How the names of checks of a host's own begin; no other check should be called so.
pub const LOCAL: &str = "local.";

/// A check and who runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What agents get; its number is 0 until the store gave it one.
    pub def: CheckDef,
    /// Hosts, groups or agents ([`ONE_AGENT`]) that run it; `*` is all.
    pub agents: Vec<String>,
    /// Of those, only hosts with all these labels.
    pub labels: Labels,
    /// Vantages that must agree.
    pub quorum: usize,
}

impl Check {
    /// The agent that runs this as a check of its host's own (`ingest/local_checks.rs`).
    pub fn local_to(&self) -> Option<AgentId> {
        let [only] = &self.agents[..] else { return None };
        let of_a_host = self.def.name.starts_with(LOCAL);
        only.strip_prefix(ONE_AGENT).filter(|_| of_a_host).and_then(AgentId::parse)
    }

    /// Whether `agent` on `hostname` in `group`, a host with these `labels`, runs this check.
    pub fn is_for(&self, agent: AgentId, hostname: &str, group: &str, labels: &Labels) -> bool {
        let named = |who: &String| match who.strip_prefix(ONE_AGENT) {
            // A name that a host gives itself is no id.
            Some(id) => AgentId::parse(id) == Some(agent),
            None => who == "*" || who == hostname || (!group.is_empty() && who == group),
        };
        self.agents.iter().any(named) && labels.have_all(&self.labels)
    }
}

/// Where alerts go.
#[derive(Debug, Clone)]
pub struct Channel {
    /// Name, for people.
    pub name: String,
    /// How it is spoken to.
    pub kind: ChannelKind,
    /// Where.
    pub url: String,
    /// PEM bundle to trust instead of the public roots.
    pub ca_file: Option<PathBuf>,
    /// File with a bearer token to send along.
    pub token_file: Option<PathBuf>,
    /// What it is told.
    pub kinds: BTreeSet<AlertKind>,
}

/// What a channel is told when it does not say: all but forecasts, which are not for whoever is on call.
pub fn kinds_by_default() -> BTreeSet<AlertKind> {
    AlertKind::WORDS.iter().map(|(_, kind)| *kind).filter(|kind| *kind != AlertKind::SlaForecast).collect()
}

/// The dialects of [`Channel`]. Adding one: a word here and a file in `alert/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    /// Alertmanager's webhook format, version 4.
    Webhook,
    /// Alertmanager's `/api/v2/alerts`.
    Alertmanager,
}

impl Config {
    /// Reads and checks a settings file.
    ///
    /// # Errors
    /// Every mistake in the file, each with its line and remedy.
    pub fn load(path: &Path) -> Result<Self, Refused> {
        Self::parse(&path.display().to_string(), &read_file(path)?)
    }

    /// Checks settings that are already in memory; `name` is how messages call them.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(name: &str, text: &str) -> Result<Self, Refused> {
        let mistakes = Mistakes::new(name);
        let mut root = Document::toml(text, &mistakes).fields(&mistakes);
        let data_dir: PathBuf = root.str_or("data_dir", "/var/lib/peil-collector").into();
        let store = read_store(&mut root, &data_dir);
        let listen = read_listen(root.table("listen"));
        let agents = read_agents(root.table("agents"));
        let patch = read_patch(root.table("patch"));
        let seal_day = root.table("months").and_then(read_months);
        let retention = read_retention(root.table("retention"));
        let checks = tables::read_checks(root.tables("check"));
        let contracts = tables::read_contracts(root.tables("contract"));
        let services = tables::read_services(root.tables("service"), &contracts, &checks);
        let channels = tables::read_channels(root.tables("channel"));
        root.finish();
        mistakes.into_result(Self {
            data_dir,
            store,
            listen,
            agents,
            patch,
            retention,
            seal_day,
            contracts,
            services,
            checks,
            channels,
        })
    }
}

/// The line that chooses the engine, and what belongs to a server besides its URL.
fn read_store(root: &mut Fields<'_>, data_dir: &Path) -> Place {
    let mistakes = root.mistakes();
    let url = root.take_some("store");
    let beside = Beside {
        password_file: root.str("store_password_file").map(PathBuf::from),
        ca_file: root.str("store_ca_file").map(PathBuf::from),
        accepts: root.strings("store_accepts").into_iter().collect(),
    };
    let parsed = url.as_ref().and_then(|node| {
        let url = node.as_str(mistakes)?;
        let place = Place::parse(url, beside);
        if let Err(cause) = &place {
            node.refuse(mistakes, format_args!("{cause}"));
        }
        place.ok()
    });
    parsed.unwrap_or_else(|| Place::Directory(data_dir.to_owned()))
}

fn read_listen(fields: Option<Fields<'_>>) -> Listen {
    let mut listen = Listen {
        agents: SocketAddr::from(([127, 0, 0, 1], 7443)),
        web: SocketAddr::from(([127, 0, 0, 1], 7444)),
        names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        public_url: String::new(),
    };
    if let Some(mut fields) = fields {
        listen.agents = read_address(&mut fields, "agents").unwrap_or(listen.agents);
        listen.web = read_address(&mut fields, "web").unwrap_or(listen.web);
        let names = fields.strings("names");
        if !names.is_empty() {
            listen.names = names;
        }
        listen.public_url = fields.str_or("public_url", "").trim_end_matches('/').to_owned();
        fields.finish();
    }
    if listen.public_url.is_empty() {
        let name = listen.names.first().map_or("localhost", String::as_str);
        listen.public_url = format!("https://{name}:{}", listen.web.port());
    }
    listen
}

fn read_address(fields: &mut Fields<'_>, key: &str) -> Option<SocketAddr> {
    let mistakes = fields.mistakes();
    let node = fields.take(key)?;
    let text = node.as_str(mistakes)?;
    let address = text.parse().ok();
    if address.is_none() {
        node.refuse(mistakes, format_args!("is {text:?}; it must be an address and port such as \"0.0.0.0:7443\""));
    }
    address
}

fn read_agents(fields: Option<Fields<'_>>) -> Agents {
    let mut agents = Agents { silent_after: Millis::from_secs(90), certificate_life: Millis(30 * Millis::DAY.0) };
    if let Some(mut fields) = fields {
        agents.silent_after = Millis::from_secs(fields.int_or("silent_after_s", 5..=86_400, 90));
        agents.certificate_life = Millis(fields.int_or("certificate_days", 1..=825, 30) * Millis::DAY.0);
        fields.finish();
    }
    agents
}

fn read_months(mut fields: Fields<'_>) -> Option<SealDay> {
    let mistakes = fields.mistakes();
    let day = fields.take_some("seal_day").and_then(|node| node.as_int(mistakes, 1..=28));
    let counts = fields.word_or("seal_counts", &[("working", true), ("calendar", false)], true);
    fields.finish();
    let day = u8::try_from(day?).ok()?;
    Some(SealDay(if counts { DayOfMonth::Working(day) } else { DayOfMonth::Calendar(day) }))
}

fn read_patch(fields: Option<Fields<'_>>) -> PatchPolicy {
    let mut patch = PatchPolicy { term: Millis(14 * Millis::DAY.0), stale_after: Millis(48 * Millis::HOUR.0) };
    if let Some(mut fields) = fields {
        patch.term = Millis(fields.int_or("term_days", 0..=365, 14) * Millis::DAY.0);
        patch.stale_after = Millis(fields.int_or("stale_after_h", 1..=720, 48) * Millis::HOUR.0);
        fields.finish();
    }
    patch
}

/// Raw data and days reach back two whole months at least: figures of this month and the last are made from them.
fn read_retention(fields: Option<Fields<'_>>) -> BTreeMap<Kind, Millis> {
    let mut days =
        BTreeMap::from([(Kind::Raw, 400), (Kind::Hourly, 100), (Kind::Daily, 1_900), (Kind::Evidence, 1_900)]);
    if let Some(mut fields) = fields {
        days.insert(Kind::Raw, fields.int_or("raw_days", 70..=36_500, 400));
        days.insert(Kind::Hourly, fields.int_or("hourly_days", 40..=36_500, 100));
        days.insert(Kind::Daily, fields.int_or("daily_days", 70..=36_500, 1_900));
        days.insert(Kind::Evidence, fields.int_or("evidence_days", 70..=36_500, 1_900));
        fields.finish();
    }
    days.into_iter().map(|(kind, days)| (kind, Millis(days * Millis::DAY.0))).collect()
}
