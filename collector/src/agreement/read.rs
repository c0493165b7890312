//! From files and from stored rows to versions; every mistake in one answer, each with its place.
//!
//! A file of `apply` has the tables `[[contract]]`, `[[service]]` and `[[check]]` of `collector.toml`, each with three
//! more keys: `from`, since when it holds, `ends`, when it ends, and `reason`. One name once over all files: its earlier versions stand in
//! the store. What is stored is the table itself as JSON, so that `export` gives back what was written.

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::plan::CHECKS_MAX;
use peil_proto::settings::{Document, Entry, Mistakes, Node, Refused, Value};
use peil_proto::time::UtcTime;
use serde_json::{Map, Value as Json};

use super::{Agreement, ServiceFile};
use crate::config::tables::{read_check, read_contract, read_service};
use crate::config::{Check, Clauses, SERVICES_MAX};
use crate::contract::exclusion::read_time;
use crate::contract::expr::Expr;
use crate::contract::version::{History, Standing, Version};
use crate::evaluate::canonical::canonical;
use crate::store::objects::ObjectVersion;

/// What can be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Clauses.
    Contract,
    /// What is probed.
    Check,
    /// What a contract names.
    Service,
}

impl Kind {
    /// In the order in which they are read: what is named comes before what names it.
    pub const ALL: [Self; 3] = [Self::Contract, Self::Check, Self::Service];

    /// The word in files, in the store and in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Contract => "contract",
            Self::Check => "check",
            Self::Service => "service",
        }
    }
}

/// One table of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Since when it is to hold, where the file says so.
    pub from: Option<UtcTime>,
    /// When it is to end, where the file says so.
    pub ends: Option<UtcTime>,
    /// Why.
    pub reason: String,
    /// The table without `from`, `ends` and `reason`, canonical JSON.
    pub body: String,
}

/// Reads the tables of `files` (name, text). That they make sense together is seen when they are added to an
/// [`Agreement`].
///
/// # Errors
/// One [`Refused`] per file with mistakes.
pub fn read_files(files: &[(String, String)]) -> Result<Vec<Written>, Vec<Refused>> {
    let (mut written, mut refused) = (Vec::new(), Vec::new());
    let mut taken: BTreeMap<(Kind, String), String> = BTreeMap::new();
    for (file, text) in files {
        let mistakes = Mistakes::new(file);
        let mut root = Document::toml(text, &mistakes).fields(&mistakes);
        for kind in Kind::ALL {
            let tables = root.take_some(kind.word()).map(|node| node.into_list(&mistakes)).unwrap_or_default();
            for node in tables {
                let (path, line) = (node.path.clone(), node.line);
                let Some(table) = read_table(kind, node, &mistakes) else { continue };
                let key = (kind, table.name.clone());
                if let Some(before) = taken.insert(key, format!("{file} at line {line}")) {
                    let word = kind.word();
                    mistakes
                        .add(line, format!("{path} is the {word} {:?}, which stands in {before} as well", table.name));
                }
                written.push(table);
            }
        }
        root.finish();
        refused.extend(mistakes.into_result(()).err());
    }
    if refused.is_empty() { Ok(written) } else { Err(refused) }
}

fn read_table(kind: Kind, node: Node, mistakes: &Mistakes) -> Option<Written> {
    let place = Node { value: Value::Null, ..node.clone() };
    let Value::Table(mut entries) = node.value else {
        place.refuse(mistakes, "must be a table");
        return None;
    };
    let mut own = Vec::new();
    for key in ["from", "ends", "reason"] {
        own.extend(entries.iter().position(|entry| entry.key == key).map(|at| entries.remove(at)));
    }
    let body = canonical(&json(&Value::Table(entries.clone())));
    let mut fields = Node { value: Value::Table(own), ..place.clone() }.fields(mistakes);
    let from = fields.take_some("from").and_then(|node| read_time(&node, &fields));
    let ends = fields.take_some("ends").and_then(|node| read_time(&node, &fields));
    if let (Some(from), Some(ends)) = (from, ends)
        && ends <= from
    {
        fields.refuse(format_args!("ends at {ends}, before it begins; \"ends\" must be later than \"from\""));
    }
    let reason = fields.str_or("reason", "");
    let name = entries.iter().find(|entry| entry.key == "name").and_then(|entry| match &entry.node.value {
        Value::Str(name) => Some(name.clone()),
        _ => None,
    });
    // Read as what it is, so that its mistakes carry the lines of this file. Names of others are checked later.
    let mut fields = Node { value: Value::Table(entries), ..place }.fields(mistakes);
    let good = match kind {
        Kind::Contract => read_contract(&mut fields).is_some(),
        Kind::Check => read_check(&mut fields).is_some(),
        Kind::Service => read_service(&mut fields, &|_| true).is_some(),
    };
    fields.finish();
    good.then_some(Written { kind, name: name?, from, ends, reason, body })
}

/// A table as JSON; a number with a fraction, which no object has, as its text.
fn json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::Bool(*flag),
        Value::Int(number) => Json::from(*number),
        Value::Decimal(text) | Value::Str(text) => Json::from(text.as_str()),
        Value::List(items) => items.iter().map(|item| json(&item.value)).collect(),
        Value::Table(entries) => {
            let pair = |entry: &Entry| (entry.key.clone(), json(&entry.node.value));
            Json::Object(entries.iter().map(pair).collect::<Map<_, _>>())
        }
    }
}

/// Adds what was applied to what the settings say, each kind after those it names.
pub(super) fn add_applied(agreement: &mut Agreement, applied: &[ObjectVersion]) -> Result<(), Refused> {
    let mistakes = Mistakes::new("what was applied");
    let of = |kind: Kind| {
        let mut by_name: BTreeMap<&str, Vec<&ObjectVersion>> = BTreeMap::new();
        for version in applied.iter().filter(|version| version.kind == kind.word()) {
            by_name.entry(&version.name).or_default().push(version);
        }
        by_name
    };
    for (name, rows) in of(Kind::Contract) {
        refuse_second_source(agreement.contracts.contains_key(name), Kind::Contract, name, &mistakes);
        if let Some(history) = history(Kind::Contract, name, &rows, &mistakes, |node| read_clauses(node, &mistakes)) {
            let zones: BTreeSet<_> = history.versions().iter().map(|version| &version.value.timezone).collect();
            if zones.len() > 1 {
                let why = "changes its timezone; months are cut by it, so make another contract";
                mistakes.add(0, format!("the contract {name:?} {why}"));
            }
            agreement.contracts.insert(name.to_owned(), history);
        }
    }
    for (name, rows) in of(Kind::Check) {
        refuse_second_source(agreement.checks.contains_key(name), Kind::Check, name, &mistakes);
        if let Some(history) = history(Kind::Check, name, &rows, &mistakes, |node| read_one_check(node, &mistakes)) {
            agreement.checks.insert(name.to_owned(), history);
        }
    }
    for (name, rows) in of(Kind::Service) {
        refuse_second_source(agreement.services.contains_key(name), Kind::Service, name, &mistakes);
        let known = |check: &str| agreement.checks.contains_key(check);
        let read = |node: Node| read_one_service(node, &known, &mistakes);
        let Some(versions) = history(Kind::Service, name, &rows, &mistakes, read) else { continue };
        let contracts: BTreeSet<_> = versions.versions().iter().map(|version| version.value.0.clone()).collect();
        for contract in contracts.iter().filter(|contract| !agreement.contracts.contains_key(*contract)) {
            mistakes.add(0, format!("the service {name:?} is under the contract {contract:?}, which does not exist"));
        }
        if contracts.len() > 1 {
            let why = "changes its contract; end its coverage and make another service";
            mistakes.add(0, format!("the service {name:?} {why}"));
        }
        let contract = contracts.into_iter().next().unwrap_or_default();
        let expression = versions.map(|(_, expression)| expression.clone());
        agreement.services.insert(name.to_owned(), ServiceFile { contract, expression });
    }
    refuse_left_behind(agreement, &mistakes);
    for (count, most, what) in [
        (agreement.checks.len(), CHECKS_MAX, "checks an agent runs"),
        (agreement.services.len(), SERVICES_MAX, "services a collector judges"),
    ] {
        if count > most {
            mistakes.add(0, format!("there would be {count}, more than the {most} {what}"));
        }
    }
    mistakes.into_result(())
}

fn refuse_second_source(taken: bool, kind: Kind, name: &str, mistakes: &Mistakes) {
    if taken {
        let word = kind.word();
        mistakes.add(0, format!("the {word} {name:?} stands in the settings file as well; take it out of one of them"));
    }
}

/// Refuses what ends while a service goes on with it: its time would be unknown, or not agreed, without anybody having
/// said so.
fn refuse_left_behind(agreement: &Agreement, mistakes: &Mistakes) {
    for (service, file) in &agreement.services {
        let Some(contract) = agreement.contracts.get(&file.contract) else { continue };
        let mut begins: BTreeSet<UtcTime> =
            file.expression.versions().iter().map(|version| version.valid_from).collect();
        begins.extend(contract.versions().iter().map(|version| version.valid_from));
        let checks = file.check_names().into_iter().filter_map(|name| Some((agreement.checks.get(&name)?, name)));
        let checks: Vec<_> = checks.collect();
        begins.extend(checks.iter().flat_map(|(check, _)| check.versions()).map(|version| version.valid_from));
        let mut left = BTreeSet::new();
        for at in begins {
            let Some(expression) = file.expression.in_force(at) else { continue };
            if file.expression.ended_at(at).is_some() {
                continue;
            }
            if let Some(end) = contract.ended_at(at) {
                left.insert((Kind::Contract, file.contract.clone(), end));
                continue;
            }
            let named = expression.value.names();
            for (check, name) in checks.iter().filter(|(_, name)| named.contains(name.as_str())) {
                left.extend(check.ended_at(at).map(|end| (Kind::Check, name.clone(), end)));
            }
        }
        for (kind, name, end) in left {
            let why = format!("ends at {end}, and the service {service:?} goes on with it; end it, too, or change it");
            mistakes.add(0, format!("the {} {name:?} {why}", kind.word()));
        }
    }
}

/// The versions of one object; `None` after mistakes.
fn history<T>(
    kind: Kind,
    name: &str,
    rows: &[&ObjectVersion],
    mistakes: &Mistakes,
    read: impl Fn(Node) -> Option<T>,
) -> Option<History<T>> {
    let version = |row: &&ObjectVersion| {
        let value = read(Document::json(&row.table(), mistakes))?;
        let standing = if row.is_end() { Standing::Ended } else { Standing::InForce };
        let ObjectVersion { valid_from, recorded_at, author, reason, .. } = (*row).clone();
        Some(Version { valid_from, recorded_at, author, reason, standing, value })
    };
    let versions: Vec<_> = rows.iter().filter_map(version).collect();
    if versions.len() < rows.len() {
        return None;
    }
    match History::new(versions) {
        Ok(history) => Some(history),
        Err(faults) => {
            let word = kind.word();
            faults.iter().for_each(|fault| mistakes.add(0, format!("the {word} {name:?} {fault}")));
            None
        }
    }
}

fn read_clauses(node: Node, mistakes: &Mistakes) -> Option<Clauses> {
    let mut fields = node.fields(mistakes);
    let read = read_contract(&mut fields);
    fields.finish();
    read.map(|(_, clauses)| clauses)
}

fn read_one_check(node: Node, mistakes: &Mistakes) -> Option<Check> {
    let mut fields = node.fields(mistakes);
    let read = read_check(&mut fields);
    fields.finish();
    read
}

fn read_one_service(node: Node, known: &dyn Fn(&str) -> bool, mistakes: &Mistakes) -> Option<(String, Expr)> {
    let mut fields = node.fields(mistakes);
    let read = read_service(&mut fields, known);
    fields.finish();
    read.map(|(_, contract, expression)| (contract, expression))
}
