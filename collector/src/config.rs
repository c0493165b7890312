//! The collector's settings: `collector.toml`, read in one go, every mistake in one answer.
//!
//! Two halves: how this process runs (`[listen]`, `[agents]`, …), and what it judges (`[[contract]]`,
//! `[[service]]`, `[[check]]`), and whom it tells (`[[channel]]`). Names refer to each other and are checked
//! together; a service that names an unknown check is a mistake at its line, not an unknown figure later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use peil_proto::ids::CheckNo;
use peil_proto::plan::{CHECKS_MAX, CheckDef, CheckKind};
use peil_proto::settings::{Document, Fields, Mistakes, Node, Refused, Value, read_file};
use peil_proto::units::Millis;

use crate::contract::expr::Expr;
use crate::contract::terms::Terms;

/// Where the settings are looked for when `--config` does not say.
pub const DEFAULT_PATH: &str = "/etc/peil/collector.toml";
/// Services one collector judges. More are refused.
const SERVICES_MAX: usize = 10_000;

/// Valid settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Store, authority and certificates live here.
    pub data_dir: PathBuf,
    /// Where it listens.
    pub listen: Listen,
    /// Rules for agents.
    pub agents: Agents,
    /// The patch policy.
    pub patch: PatchPolicy,
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

/// A service: an expression over checks, judged by a contract.
#[derive(Debug, Clone)]
pub struct Service {
    /// What it is made of.
    pub expression: Expr,
    /// The clauses it is judged by.
    pub terms: Terms,
    /// Percentage as written, for people.
    pub target: String,
    /// Zone as written, for people.
    pub timezone: String,
}

/// A check and who runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What agents get; its number is 0 until the store gave it one.
    pub def: CheckDef,
    /// Hosts or groups that run it; `*` is all.
    pub agents: Vec<String>,
    /// Vantages that must agree.
    pub quorum: usize,
}

impl Check {
    /// Whether the agent on `hostname` in `group` runs this check.
    pub fn is_for(&self, hostname: &str, group: &str) -> bool {
        self.agents.iter().any(|who| who == "*" || who == hostname || (!group.is_empty() && who == group))
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
        let data_dir = root.str_or("data_dir", "/var/lib/peil-collector").into();
        let listen = read_listen(root.table("listen"));
        let agents = read_agents(root.table("agents"));
        let patch = read_patch(root.table("patch"));
        let checks = read_checks(root.tables("check"));
        let contracts = read_contracts(root.tables("contract"));
        let services = read_services(root.tables("service"), &contracts, &checks);
        let channels = read_channels(root.tables("channel"));
        root.finish();
        mistakes.into_result(Self { data_dir, listen, agents, patch, services, checks, channels })
    }
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

fn read_patch(fields: Option<Fields<'_>>) -> PatchPolicy {
    let mut patch = PatchPolicy { term: Millis(14 * Millis::DAY.0), stale_after: Millis(48 * Millis::HOUR.0) };
    if let Some(mut fields) = fields {
        patch.term = Millis(fields.int_or("term_days", 0..=365, 14) * Millis::DAY.0);
        patch.stale_after = Millis(fields.int_or("stale_after_h", 1..=720, 48) * Millis::HOUR.0);
        fields.finish();
    }
    patch
}

/// Takes the required `name` of a table and refuses a second one like it.
fn read_name(fields: &mut Fields<'_>, taken: &mut BTreeSet<String>) -> Option<String> {
    let name = fields.need_str("name")?;
    if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
        fields.refuse("has a name that is empty, over 128 characters or has control characters");
        return None;
    }
    if !taken.insert(name.clone()) {
        fields.refuse(format_args!("has the name {name:?}, which stands twice"));
    }
    Some(name)
}

fn read_contracts(tables: Vec<Fields<'_>>) -> BTreeMap<String, (Terms, String, String)> {
    let mut taken = BTreeSet::new();
    let mut contracts = BTreeMap::new();
    for mut fields in tables {
        let name = read_name(&mut fields, &mut taken);
        let as_written = |fields: &Fields<'_>, key: &str, default: &str| match fields.peek(key) {
            Some(Value::Str(text)) => text.clone(),
            _ => default.to_owned(),
        };
        let target = as_written(&fields, "target", "99.5");
        let timezone = as_written(&fields, "timezone", "Europe/Amsterdam");
        let terms = Terms::read(&mut fields);
        fields.finish();
        if let Some(name) = name {
            contracts.insert(name, (terms, target, timezone));
        }
    }
    contracts
}

fn read_services(
    tables: Vec<Fields<'_>>,
    contracts: &BTreeMap<String, (Terms, String, String)>,
    checks: &BTreeMap<String, Check>,
) -> BTreeMap<String, Service> {
    let mut taken = BTreeSet::new();
    let mut services = BTreeMap::new();
    for mut fields in tables {
        let mistakes = fields.mistakes();
        let name = read_name(&mut fields, &mut taken);
        let contract = fields.need("contract").and_then(|node| known_contract(&node, mistakes, contracts));
        let expression = fields.need("expression");
        let expression = expression.and_then(|node| Expr::read(node, mistakes, &|check| checks.contains_key(check)));
        if services.len() == SERVICES_MAX {
            fields.refuse(format_args!("is one more than the {SERVICES_MAX} services a collector judges"));
        }
        fields.finish();
        if let (Some(name), Some((terms, target, timezone)), Some(expression)) = (name, contract, expression) {
            services.insert(name, Service { expression, terms, target, timezone });
        }
    }
    services
}

fn known_contract(
    node: &Node,
    mistakes: &Mistakes,
    contracts: &BTreeMap<String, (Terms, String, String)>,
) -> Option<(Terms, String, String)> {
    let name = node.as_str(mistakes)?;
    let found = contracts.get(name).cloned();
    if found.is_none() {
        let known: Vec<_> = contracts.keys().map(String::as_str).collect();
        node.refuse(mistakes, format_args!("is {name:?}; the contracts are: {}", known.join(", ")));
    }
    found
}

fn read_checks(tables: Vec<Fields<'_>>) -> BTreeMap<String, Check> {
    let mut taken = BTreeSet::new();
    let mut checks = BTreeMap::new();
    for mut fields in tables {
        let name = read_name(&mut fields, &mut taken);
        let interval_ms = read_ms(&mut fields, "interval_s", 1..=86_400, 60);
        let timeout_ms = read_ms(&mut fields, "timeout_s", 1..=600, 10);
        let quorum = usize::try_from(fields.int_or("quorum", 1..=100, 1)).unwrap_or(1);
        let agents = match fields.peek("agents") {
            Some(_) => fields.strings("agents"),
            None => vec!["*".to_owned()],
        };
        let kind = read_kind(&mut fields);
        if let (Some(name), Some(kind)) = (name, kind) {
            let def = CheckDef { no: CheckNo(0), name: name.clone(), interval_ms, timeout_ms, kind };
            for problem in def.problems() {
                fields.refuse(format_args!("is not a check: {problem}"));
            }
            if checks.len() == CHECKS_MAX {
                fields.refuse(format_args!("is one more than the {CHECKS_MAX} checks an agent runs"));
            }
            checks.insert(name, Check { def, agents, quorum });
        }
        fields.finish();
    }
    checks
}

fn read_ms(fields: &mut Fields<'_>, key: &str, range: std::ops::RangeInclusive<i64>, default: i64) -> u32 {
    u32::try_from(fields.int_or(key, range, default) * 1_000).unwrap_or(u32::MAX)
}

fn read_kind(fields: &mut Fields<'_>) -> Option<CheckKind> {
    #[derive(Clone)]
    enum Kind {
        Http,
        Tcp,
        Tls,
    }
    let mistakes = fields.mistakes();
    let kind =
        fields.need("kind")?.as_word(mistakes, &[("http", Kind::Http), ("tcp", Kind::Tcp), ("tls", Kind::Tls)])?;
    Some(match kind {
        Kind::Http => CheckKind::Http {
            url: fields.need_str("url")?,
            status: read_statuses(fields),
            contains: fields.str("contains"),
            ca_file: fields.str("ca_file"),
            cert_days_min: read_days(fields),
        },
        Kind::Tcp => CheckKind::Tcp { address: fields.need_str("address")? },
        Kind::Tls => CheckKind::Tls {
            address: fields.need_str("address")?,
            server_name: fields.str("server_name"),
            ca_file: fields.str("ca_file"),
            cert_days_min: read_days(fields),
        },
    })
}

fn read_days(fields: &mut Fields<'_>) -> Option<u16> {
    let mistakes = fields.mistakes();
    fields.take_some("cert_days_min")?.as_int(mistakes, 0..=3_650).and_then(|days| u16::try_from(days).ok())
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

fn read_channels(tables: Vec<Fields<'_>>) -> Vec<Channel> {
    let mut taken = BTreeSet::new();
    let mut channels = Vec::new();
    for mut fields in tables {
        let mistakes = fields.mistakes();
        let name = read_name(&mut fields, &mut taken);
        let kinds = [("webhook", ChannelKind::Webhook), ("alertmanager", ChannelKind::Alertmanager)];
        let kind = fields.need("kind").and_then(|node| node.as_word(mistakes, &kinds));
        let url = fields.need("url").and_then(|node| {
            let url = node.as_str(mistakes)?.trim_end_matches('/').to_owned();
            if reqwest::Url::parse(&url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
                return Some(url);
            }
            node.refuse(mistakes, format_args!("is {url:?}; it must be a URL that begins with http:// or https://"));
            None
        });
        let ca_file = fields.str("ca_file").map(PathBuf::from);
        let token_file = fields.str("token_file").map(PathBuf::from);
        fields.finish();
        if let (Some(name), Some(kind), Some(url)) = (name, kind, url) {
            channels.push(Channel { name, kind, url, ca_file, token_file });
        }
    }
    channels
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
data_dir = "/tmp/peil"
[[contract]]
name = "office"
target = "99.9"
window = [{ days = ["mon", "fri"], from = "08:00", to = "18:00" }]
[[check]]
name = "web"
kind = "http"
url = "https://localhost/"
status = "200-299,401"
interval_s = 15
timeout_s = 5
[[check]]
name = "db"
kind = "tcp"
address = "localhost:5432"
agents = ["db-hosts"]
[[service]]
name = "portal"
contract = "office"
expression = { all = ["web", "db"] }
[[channel]]
name = "hook"
kind = "webhook"
url = "http://127.0.0.1:9999/hook"
"#;

    #[test]
    fn a_whole_file_is_understood() {
        let config = Config::parse("collector.toml", GOOD).expect("valid");
        assert_eq!(config.services["portal"].target, "99.9");
        assert!(config.checks["web"].is_for("any", ""));
        assert!(config.checks["db"].is_for("h", "db-hosts") && !config.checks["db"].is_for("h", ""));
        assert_eq!(config.patch.term, Millis(14 * Millis::DAY.0));
        assert_eq!(config.listen.public_url, "https://localhost:7444");
    }

    #[test]
    fn three_mistakes_are_answered_at_once_with_their_lines() {
        let text = GOOD
            .replace("expression = { all = [\"web\", \"db\"] }", "expression = { all = [\"web\", \"dbb\"] }")
            .replace("interval_s = 15", "intervall_s = 15")
            .replace("target = \"99.9\"", "target = \"101\"");
        let refused = Config::parse("collector.toml", &text).expect_err("mistakes");
        let all = refused.to_string();
        assert_eq!(refused.mistakes.len(), 3, "{all}");
        for part in [
            "target",
            "at line 5",
            "intervall_s\" at line 12 (did you mean",
            "\"dbb\", which is not defined at line 22",
        ] {
            assert!(all.contains(part), "{part} is missing in {all}");
        }
    }

    #[test]
    fn a_name_that_no_message_could_carry_is_a_mistake() {
        let text = GOOD.replace("name = \"portal\"", "name = \"por\\ntal\"");
        assert!(Config::parse("c", &text).expect_err("a line break").to_string().contains("control characters"));
    }

    #[test]
    fn more_checks_than_an_agent_takes_are_refused_here_and_not_by_every_agent() {
        use std::fmt::Write as _;
        let mut text = String::new();
        for n in 0..=CHECKS_MAX {
            let _ = write!(text, "[[check]]\nname='c{n}'\nkind='tcp'\naddress='h:1'\n");
        }
        let refused = Config::parse("c", &text).expect_err("one too many");
        assert_eq!(refused.mistakes.len(), 1, "{refused}");
    }

    #[test]
    fn the_same_name_twice_is_a_mistake() {
        let text = format!("{GOOD}\n[[check]]\nname = 'web'\nkind = 'tcp'\naddress = 'h:1'\n");
        assert!(Config::parse("c", &text).expect_err("twice").to_string().contains("\"web\", which stands twice"));
    }
}
