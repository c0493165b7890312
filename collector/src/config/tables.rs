//! What is judged and who is told: the `[[contract]]`, `[[service]]`, `[[check]]` and `[[channel]]` tables of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use peil_proto::labels::Labels;
use peil_proto::plan::{CHECKS_MAX, CheckDef, read_name};
use peil_proto::settings::{Fields, Mistakes, Node, Value};

use super::{Channel, ChannelKind, Check, Clauses, SERVICES_MAX, Service, kinds_by_default};
use crate::alert::AlertKind;
use crate::contract::expr::Expr;
use crate::contract::terms::Terms;

/// Refuses a second table of one name.
fn refuse_twice(fields: &Fields<'_>, name: Option<&String>, taken: &mut BTreeSet<String>) {
    if let Some(name) = name
        && !taken.insert(name.clone())
    {
        fields.refuse(format_args!("has the name {name:?}, which stands twice"));
    }
}

pub(super) fn read_contracts(tables: Vec<Fields<'_>>) -> BTreeMap<String, Clauses> {
    let mut taken = BTreeSet::new();
    let mut contracts = BTreeMap::new();
    for mut fields in tables {
        let read = read_contract(&mut fields);
        refuse_twice(&fields, read.as_ref().map(|(name, _)| name), &mut taken);
        fields.finish();
        contracts.extend(read);
    }
    contracts
}

/// Takes name and clauses of a contract.
pub(crate) fn read_contract(fields: &mut Fields<'_>) -> Option<(String, Clauses)> {
    let name = read_name(fields);
    let as_written = |fields: &Fields<'_>, key: &str, default: &str| match fields.peek(key) {
        Some(Value::Str(text)) => text.clone(),
        _ => default.to_owned(),
    };
    let target = as_written(fields, "target", "99.5");
    let timezone = as_written(fields, "timezone", "Europe/Amsterdam");
    let terms = Terms::read(fields);
    Some((name?, Clauses { terms, target, timezone }))
}

pub(super) fn read_services(
    tables: Vec<Fields<'_>>,
    contracts: &BTreeMap<String, Clauses>,
    checks: &BTreeMap<String, Check>,
) -> BTreeMap<String, Service> {
    let mut taken = BTreeSet::new();
    let mut services = BTreeMap::new();
    for mut fields in tables {
        let contract = fields.peek("contract").cloned();
        if let Some(Value::Str(contract)) = contract
            && !contracts.contains_key(&contract)
        {
            let known: Vec<_> = contracts.keys().map(String::as_str).collect();
            let known = known.join(", ");
            fields.refuse(format_args!("is under the contract {contract:?}; the contracts are: {known}"));
        }
        let read = read_service(&mut fields, &|check| checks.contains_key(check));
        refuse_twice(&fields, read.as_ref().map(|(name, _, _)| name), &mut taken);
        if services.len() == SERVICES_MAX {
            fields.refuse(format_args!("is one more than the {SERVICES_MAX} services a collector judges"));
        }
        fields.finish();
        if let Some((name, contract, expression)) = read
            && let Some(Clauses { terms, target, timezone }) = contracts.get(&contract).cloned()
        {
            services.insert(name, Service { contract, expression, terms, target, timezone });
        }
    }
    services
}

/// Takes name, contract and expression of a service; `known` says which checks there are.
pub(crate) fn read_service(fields: &mut Fields<'_>, known: &dyn Fn(&str) -> bool) -> Option<(String, String, Expr)> {
    let mistakes = fields.mistakes();
    let name = read_name(fields);
    let contract = fields.need_str("contract");
    let expression = fields.need("expression").and_then(|node| Expr::read(node, mistakes, known));
    Some((name?, contract?, expression?))
}

pub(super) fn read_checks(tables: Vec<Fields<'_>>) -> BTreeMap<String, Check> {
    let mut taken = BTreeSet::new();
    let mut checks = BTreeMap::new();
    for mut fields in tables {
        let read = read_check(&mut fields);
        refuse_twice(&fields, read.as_ref().map(|check| &check.def.name), &mut taken);
        if checks.len() == CHECKS_MAX {
            fields.refuse(format_args!("is one more than the {CHECKS_MAX} checks an agent runs"));
        }
        fields.finish();
        checks.extend(read.map(|check| (check.def.name.clone(), check)));
    }
    checks
}

/// Takes everything of a check.
pub(crate) fn read_check(fields: &mut Fields<'_>) -> Option<Check> {
    let quorum = usize::try_from(fields.int_or("quorum", 1..=100, 1)).unwrap_or(1);
    let agents = match fields.peek("agents") {
        Some(_) => fields.strings("agents"),
        None => vec!["*".to_owned()],
    };
    let labels = fields.table("labels").map(Labels::read).unwrap_or_default();
    let def = CheckDef::read(fields)?;
    Some(Check { def, agents, labels, quorum })
}

pub(super) fn read_channels(tables: Vec<Fields<'_>>) -> Vec<Channel> {
    let mut taken = BTreeSet::new();
    let mut channels = Vec::new();
    for mut fields in tables {
        let mistakes = fields.mistakes();
        let name = read_name(&mut fields);
        refuse_twice(&fields, name.as_ref(), &mut taken);
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
        let kinds = fields.take_some("kinds").map(|node| read_alert_kinds(node, mistakes));
        let kinds = kinds.unwrap_or_else(kinds_by_default);
        fields.finish();
        if let (Some(name), Some(kind), Some(url)) = (name, kind, url) {
            channels.push(Channel { name, kind, url, ca_file, token_file, kinds });
        }
    }
    channels
}

fn read_alert_kinds(node: Node, mistakes: &Mistakes) -> BTreeSet<AlertKind> {
    let place = Node { value: Value::Null, ..node.clone() };
    let items = node.into_list(mistakes);
    if items.is_empty() {
        place.refuse(mistakes, "is empty: such a channel would never be told anything; leave it out or name kinds");
    }
    items.iter().filter_map(|item| item.as_word(mistakes, &AlertKind::WORDS)).collect()
}
