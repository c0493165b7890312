//! What is judged and who is told: the `[[contract]]`, `[[service]]`, `[[check]]` and `[[channel]]` tables of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use peil_proto::ids::CheckNo;
use peil_proto::plan::{CHECKS_MAX, CheckDef, CheckKind};
use peil_proto::settings::{Fields, Mistakes, Node, Value};

use super::{Channel, ChannelKind, Check, SERVICES_MAX, Service};
use crate::contract::expr::Expr;
use crate::contract::terms::Terms;

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

pub(super) fn read_contracts(tables: Vec<Fields<'_>>) -> BTreeMap<String, (Terms, String, String)> {
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

pub(super) fn read_services(
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

pub(super) fn read_checks(tables: Vec<Fields<'_>>) -> BTreeMap<String, Check> {
    let mut taken = BTreeSet::new();
    let mut checks = BTreeMap::new();
    for mut fields in tables {
        let name = read_name(&mut fields, &mut taken);
        let interval_ms = read_ms(&mut fields, "interval_s", 1..=86_400, 60);
        let timeout_ms = match fields.peek("timeout_s") {
            Some(_) => read_ms(&mut fields, "timeout_s", 1..=600, 10),
            None => default_timeout_ms(interval_ms),
        };
        let quorum = usize::try_from(fields.int_or("quorum", 1..=100, 1)).unwrap_or(1);
        let agents = match fields.peek("agents") {
            Some(_) => fields.strings("agents"),
            None => vec!["*".to_owned()],
        };
        let kind = CheckKind::read(&mut fields);
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

/// Ten seconds; half the interval where that would not fit, so that a short rhythm needs no second key.
fn default_timeout_ms(interval_ms: u32) -> u32 {
    const STANDARD: u32 = 10_000;
    if interval_ms > STANDARD { STANDARD } else { interval_ms / 2 }
}

fn read_ms(fields: &mut Fields<'_>, key: &str, range: std::ops::RangeInclusive<i64>, default: i64) -> u32 {
    u32::try_from(fields.int_or(key, range, default) * 1_000).unwrap_or(u32::MAX)
}

pub(super) fn read_channels(tables: Vec<Fields<'_>>) -> Vec<Channel> {
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
