//! Checks of a host's own, told in its greeting: they become applied checks, as if somebody had applied a file, that only
//! this agent runs. So they have numbers, dates and versions like all others, stand in the audit log, and can be named by
//! a service; nothing counts them before one does.
//!
//! A check is called `local.HOST.NAME` and names its agent by id: no other agent ever runs it, whatever it calls its
//! host. A name that belongs to another agent is refused. What an agent does not tell any more stays, with nobody to run
//! it: its past is evidence.
//!
//! Limits: [`CHECKS_MAX`] per agent of [`BYTES_MAX`] bytes; what is beyond is refused by name. Each change makes the
//! whole agreement anew, so this is for what few hosts have and seldom change, not for a fleet's checks: those are
//! applied, with labels.

use std::collections::BTreeMap;

use peil_proto::ids::AgentId;
use peil_proto::settings::{Document, Mistakes};
use peil_proto::time::UtcTime;
use serde_json::{Value, json};

use crate::agreement::{Kind, Written};
use crate::apply::{self, ApplyError, Missing};
use crate::config::tables::read_check;
use crate::config::{Config, LOCAL, ONE_AGENT};
use crate::evaluate::canonical::canonical;
use crate::store::Store;
use crate::store::objects::ObjectVersion;

/// Checks one host may have of its own.
const CHECKS_MAX: usize = 100;
/// Bytes of one of them.
const BYTES_MAX: usize = 8 << 10;
/// Before the agent whose host told a check and does so no more: nobody is called so, so nobody runs it.
const RESTS: &str = "!";
/// Somebody else may apply something at the same moment; so often it is tried again.
const ATTEMPTS: usize = 3;

/// Brings what an agent told into force; gives what is wrong with some of it, a sentence each.
///
/// # Errors
/// When nothing was changed: the store, or a sum of checks that makes no sense.
pub(super) async fn accept(
    store: &Store,
    config: &Config,
    agent: AgentId,
    host: &str,
    told: &[String],
    now: UtcTime,
) -> Result<Vec<String>, ApplyError> {
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match attempt(store, config, agent, host, told, now).await {
            Err(ApplyError::Overtaken) if left > 0 => {}
            done => return done,
        }
    }
}

async fn attempt(
    store: &Store,
    config: &Config,
    agent: AgentId,
    host: &str,
    told: &[String],
    now: UtcTime,
) -> Result<Vec<String>, ApplyError> {
    let (_, versions) = store.object_versions().await?;
    let (written, problems) = written(agent, host, told, &in_force(&versions, now));
    let who = format!("agent {agent} (conf.d)");
    let (plan, seen) = apply::prepare(store, config, &written, &Missing::GoOn, &who, now).await?;
    apply::commit(store, &plan, seen, &who).await?;
    Ok(problems)
}

/// The checks at `now`, by name: who runs them, and their table.
fn in_force(versions: &[ObjectVersion], now: UtcTime) -> BTreeMap<String, Value> {
    let mut newest: BTreeMap<&str, &ObjectVersion> = BTreeMap::new();
    for version in versions.iter().filter(|one| one.kind == Kind::Check.word() && one.valid_from <= now) {
        let begin = |one: &ObjectVersion| (one.valid_from, one.recorded_at);
        let known = newest.entry(&version.name).or_insert(version);
        if begin(version) > begin(known) {
            *known = version;
        }
    }
    let read =
        |(name, version): (&str, &ObjectVersion)| Some((name.to_owned(), serde_json::from_str(&version.body).ok()?));
    newest.into_iter().filter_map(read).collect()
}

/// What is to be in force of one agent's own checks, and what of it cannot be. Pure.
fn written(
    agent: AgentId,
    host: &str,
    told: &[String],
    known: &BTreeMap<String, Value>,
) -> (Vec<Written>, Vec<String>) {
    let owner = format!("{ONE_AGENT}{agent}");
    let (mut good, mut problems) = (BTreeMap::new(), Vec::new());
    for text in told.iter().take(CHECKS_MAX) {
        match one(host, text, &owner) {
            Ok((name, _)) if known.get(&name).is_some_and(|table| owner_of(table) != Some(owner.as_str())) => {
                problems.push(format!("the check {name} belongs to another agent whose host has the same name"));
            }
            Ok((name, table)) => drop(good.insert(name, table)),
            Err(problem) => problems.push(problem),
        }
    }
    if told.len() > CHECKS_MAX {
        problems
            .push(format!("{} checks of the host's own are more than {CHECKS_MAX}; the rest is left out", told.len()));
    }
    // What is not told any more has nobody to run it.
    for (name, table) in known.iter().filter(|(name, _)| name.starts_with(LOCAL)) {
        if owner_of(table) == Some(owner.as_str()) && !good.contains_key(name) {
            let mut table = table.clone();
            table["agents"] = json!([format!("{RESTS}{owner}")]);
            good.insert(name.clone(), table);
        }
    }
    let of = |(name, table): (String, Value)| {
        let reason = "told by its host".to_owned();
        Written { kind: Kind::Check, name, from: None, ends: None, reason, body: canonical(&table) }
    };
    (good.into_iter().map(of).collect(), problems)
}

/// Whose check of its own this is, whether it runs or rests.
fn owner_of(table: &Value) -> Option<&str> {
    let only = table["agents"].as_array().filter(|agents| agents.len() == 1)?[0].as_str()?;
    Some(only.strip_prefix(RESTS).unwrap_or(only))
}

/// Name and table of one check, checked as `apply` would.
fn one(host: &str, text: &str, owner: &str) -> Result<(String, Value), String> {
    if text.len() > BYTES_MAX {
        return Err(format!("a check of the host's own has {} bytes; {BYTES_MAX} is the most", text.len()));
    }
    let Ok(Value::Object(mut table)) = serde_json::from_str(text) else {
        return Err("a check of the host's own is not a table".to_owned());
    };
    let own = table.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let foreign = ["agents", "labels", "quorum"].into_iter().find(|key| table.contains_key(*key));
    if let Some(key) = foreign {
        return Err(format!("the check {own:?} of the host's own has {key:?}, which only the collector's have"));
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name = format!("{LOCAL}{}.{own}", host.chars().map(plain).collect::<String>());
    table.insert("name".to_owned(), name.clone().into());
    table.insert("agents".to_owned(), json!([owner]));
    let table = Value::Object(table);
    let mistakes = Mistakes::new(&name);
    let mut fields = Document::json(&table.to_string(), &mistakes).fields(&mistakes);
    read_check(&mut fields);
    fields.finish();
    mistakes.into_result(()).map_err(|refused| refused.to_string())?;
    Ok((name, table))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UtcTime = UtcTime(1_776_247_200_000);
    const DISK: &str = r#"{"name": "disk", "kind": "mount", "mount": "/"}"#;

    async fn tell(store: &Store, agent: u8, told: &[&str], at: i64) -> Vec<String> {
        let config = Config::parse("c", "").expect("valid");
        let told: Vec<_> = told.iter().map(|text| (*text).to_owned()).collect();
        let now = UtcTime(NOW.0 + at);
        accept(store, &config, AgentId([agent; 16]), "web 1", &told, now).await.expect("accepted")
    }

    async fn runs(store: &Store, at: i64) -> Vec<(String, Value)> {
        let (_, versions) = store.object_versions().await.expect("read");
        let known = in_force(&versions, UtcTime(NOW.0 + at));
        known.into_iter().map(|(name, table)| (name, table["agents"].clone())).collect()
    }

    #[tokio::test]
    async fn a_hosts_own_check_is_applied_once_for_its_agent_alone_and_rests_when_it_is_told_no_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("opens");
        let only = json!([format!("agent:{}", AgentId([1; 16]))]);
        for at in [0, 1] {
            assert_eq!(tell(&store, 1, &[DISK], at).await, Vec::<String>::new());
        }
        assert_eq!(runs(&store, 5).await, [("local.web-1.disk".to_owned(), only.clone())]);
        assert_eq!(store.object_versions().await.expect("read").1.len(), 1, "the same again is no version");
        tell(&store, 1, &[], 10).await;
        assert_eq!(
            runs(&store, 10).await,
            [("local.web-1.disk".to_owned(), json!([format!("!agent:{}", AgentId([1; 16]))]))]
        );
        assert_eq!(runs(&store, 9).await[0].1, only, "its past stays");
        tell(&store, 1, &[DISK], 20).await;
        assert_eq!(runs(&store, 20).await[0].1, only);
        assert!(store.audit_tail(9).await.expect("read").iter().any(|entry| entry.who.contains("conf.d")));
    }

    #[tokio::test]
    async fn what_is_no_check_or_belongs_to_another_agent_is_refused_by_name_and_the_rest_holds() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("opens");
        tell(&store, 1, &[DISK], 0).await;
        let everywhere = r#"{"name": "all", "kind": "mount", "mount": "/", "agents": ["*"]}"#;
        let odd = r#"{"name": "odd", "kind": "mount", "muont": "/"}"#;
        let good = r#"{"name": "tmp", "kind": "mount", "mount": "/tmp"}"#;
        let problems = tell(&store, 2, &[DISK, everywhere, odd, "no JSON", good], 1).await;
        assert_eq!(problems.len(), 4, "{problems:?}");
        let all = problems.join("\n");
        for part in ["belongs to another agent", "\"agents\"", "muont", "not a table"] {
            assert!(all.contains(part), "{part} in {all}");
        }
        let names: Vec<_> = runs(&store, 5).await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["local.web-1.disk", "local.web-1.tmp"]);
    }
}
