//! Checks of a host's own, told in its greeting: they become applied checks, as if somebody had applied a file, that only
//! this agent runs. So they have numbers, dates and versions like all others, stand in the audit log, and can be named by
//! a service; nothing counts them before one does.
//!
//! A check is called `local.HOST.NAME` and names its agent by id: no other agent ever runs it, whatever it calls its
//! host. A name that belongs to another agent is refused for as long as that one is admitted: a host that was enrolled
//! again takes its names along once its old agent is revoked. What an agent does not tell any more stays, with nobody to
//! run it: its past is evidence.
//!
//! Limits: [`CHECKS_MAX`] at a time per agent of [`CHECK_BYTES_MAX`] bytes, under [`NAMES_MAX`] names in all, because a name
//! stays; what is beyond is refused by name. Each change makes the whole agreement anew, so this is for what few hosts have and seldom change, not for a fleet's checks: those are
//! applied, with labels.

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::ids::AgentId;
use peil_proto::plan::local::{CHECK_BYTES_MAX, CHECKS_MAX};
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

/// Names one agent may ever have used. A host with more has one under a name that it used before.
const NAMES_MAX: usize = 2 * CHECKS_MAX;
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
    let known = in_force(&versions, now);
    let gone = gone(store, &known, host).await?;
    let (written, problems) = written(agent, host, told, &known, &gone);
    let is_known = |one: &Written| known.get(&one.name).is_some_and(|table| canonical(table) == one.body);
    if written.iter().all(is_known) {
        return Ok(problems);
    }
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

/// Who owns checks under the name of this host and is not admitted any more.
async fn gone(store: &Store, known: &BTreeMap<String, Value>, host: &str) -> Result<BTreeSet<String>, ApplyError> {
    let prefix = prefix(host);
    let owners: BTreeSet<_> =
        known.iter().filter(|(name, _)| name.starts_with(&prefix)).filter_map(|(_, table)| owner_of(table)).collect();
    let mut gone = BTreeSet::new();
    for owner in owners {
        let agent = owner.strip_prefix(ONE_AGENT).and_then(AgentId::parse);
        let admitted = match agent {
            Some(agent) => store.is_admitted(agent).await?,
            None => true,
        };
        if !admitted {
            gone.insert(owner.to_owned());
        }
    }
    Ok(gone)
}

/// What is to be in force of one agent's own checks, and what of it cannot be; checks of those who are `gone` are free.
/// Pure.
fn written(
    agent: AgentId,
    host: &str,
    told: &[String],
    known: &BTreeMap<String, Value>,
    gone: &BTreeSet<String>,
) -> (Vec<Written>, Vec<String>) {
    let owner = format!("{ONE_AGENT}{agent}");
    let is_ours = |table: &Value| owner_of(table) == Some(owner.as_str());
    let is_free = |table: &Value| is_ours(table) || owner_of(table).is_some_and(|owner| gone.contains(owner));
    let mut names = known.iter().filter(|(name, table)| name.starts_with(LOCAL) && is_ours(table)).count();
    let (mut good, mut problems) = (BTreeMap::new(), Vec::new());
    for text in told.iter().take(CHECKS_MAX) {
        match one(host, text, &owner) {
            Ok((name, _)) if known.get(&name).is_some_and(|table| !is_free(table)) => {
                problems.push(format!(
                    "the check {name} belongs to another agent whose host has the same name; if that was this host, revoke it"
                ));
            }
            Ok((name, _)) if good.contains_key(&name) => problems.push(format!("the check {name} is told twice")),
            Ok((name, table)) => {
                if known.get(&name).is_none_or(|table| !is_ours(table)) {
                    names += 1;
                }
                if names > NAMES_MAX {
                    names = NAMES_MAX;
                    problems.push(format!(
                        "the check {name} is left out: this host has used {NAMES_MAX} names, and a name stays; use one of them"
                    ));
                    continue;
                }
                good.insert(name, table);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if told.len() > CHECKS_MAX {
        problems
            .push(format!("{} checks of the host's own are more than {CHECKS_MAX}; the rest is left out", told.len()));
    }
    // What is not told any more has nobody to run it.
    for (name, table) in known.iter().filter(|(name, _)| name.starts_with(LOCAL)) {
        if is_ours(table) && !good.contains_key(name) {
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
    if text.len() > CHECK_BYTES_MAX {
        return Err(format!("a check of the host's own has {} bytes; {CHECK_BYTES_MAX} is the most", text.len()));
    }
    let Ok(Value::Object(mut table)) = serde_json::from_str(text) else {
        return Err("a check of the host's own is not a table".to_owned());
    };
    let own = table.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    if own.is_empty() {
        return Err("a check of the host's own has no name".to_owned());
    }
    let foreign = ["agents", "labels", "quorum"].into_iter().find(|key| table.contains_key(*key));
    if let Some(key) = foreign {
        return Err(format!("the check {own:?} of the host's own has {key:?}, which only the collector's have"));
    }
    let name = format!("{}{own}", prefix(host));
    table.insert("name".to_owned(), name.clone().into());
    table.insert("agents".to_owned(), json!([owner]));
    let table = Value::Object(table);
    let mistakes = Mistakes::new(&name);
    let mut fields = Document::json(&table.to_string(), &mistakes).fields(&mistakes);
    read_check(&mut fields);
    fields.finish();
    mistakes.into_result(()).map_err(|refused| format!("{}: {}", refused.file, refused.mistakes.join("; ")))?;
    Ok((name, table))
}

/// How the names of a host's checks begin.
fn prefix(host: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    format!("{LOCAL}{}.", host.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::agents::NewAgent;

    const NOW: UtcTime = UtcTime(1_776_247_200_000);
    const DISK: &str = r#"{"name": "disk", "kind": "mount", "mount": "/"}"#;

    async fn tell(store: &Store, agent: u8, told: &[&str], at: i64) -> Vec<String> {
        let config = Config::parse("c", "").expect("valid");
        let told: Vec<_> = told.iter().map(|text| (*text).to_owned()).collect();
        let now = UtcTime(NOW.0 + at);
        accept(store, &config, AgentId([agent; 16]), "web 1", &told, now).await.expect("accepted")
    }

    async fn enrolled(store: &Store) {
        for no in [1, 2] {
            let new = NewAgent {
                agent: AgentId([no; 16]),
                hostname: "web 1".to_owned(),
                cert_serial: no.to_string(),
                cert_not_after: NOW,
            };
            store.register(new, "", NOW, "test").await.expect("registered");
        }
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
        enrolled(&store).await;
        tell(&store, 1, &[DISK], 0).await;
        let everywhere = r#"{"name": "all", "kind": "mount", "mount": "/", "agents": ["*"]}"#;
        let odd = r#"{"name": "odd", "kind": "mount", "muont": "/"}"#;
        let good = r#"{"name": "tmp", "kind": "mount", "mount": "/tmp"}"#;
        let nameless = r#"{"kind": "mount", "mount": "/"}"#;
        let problems = tell(&store, 2, &[DISK, everywhere, odd, "no JSON", good, good, nameless], 1).await;
        assert_eq!(problems.len(), 6, "{problems:?}");
        assert!(problems.iter().all(|problem| !problem.contains('\n')), "{problems:?}");
        let all = problems.join("\n");
        for part in
            ["belongs to another agent", "\"agents\"", "muont", "not a table", "tmp is told twice", "has no name"]
        {
            assert!(all.contains(part), "{part} in {all}");
        }
        let names: Vec<_> = runs(&store, 5).await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["local.web-1.disk", "local.web-1.tmp"]);
    }

    #[tokio::test]
    async fn a_host_that_was_enrolled_again_has_its_checks_back_once_its_old_agent_is_revoked() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("opens");
        enrolled(&store).await;
        tell(&store, 1, &[DISK], 0).await;
        assert_eq!(tell(&store, 2, &[DISK], 1).await.len(), 1, "the old one is still admitted");
        store.revoke(AgentId([1; 16]), UtcTime(NOW.0 + 2), "test").await.expect("revoked");
        assert_eq!(tell(&store, 2, &[DISK], 3).await, Vec::<String>::new());
        assert_eq!(runs(&store, 3).await[0].1, json!([format!("agent:{}", AgentId([2; 16]))]));
    }

    #[test]
    fn names_are_bounded_because_they_stay() {
        let owner = AgentId([1; 16]);
        let resting = json!({"agents": [format!("{RESTS}{ONE_AGENT}{owner}")]});
        let known: BTreeMap<_, _> =
            (0..NAMES_MAX - 1).map(|no| (format!("local.web-1.old{no}"), resting.clone())).collect();
        let told: Vec<_> = ["a", "b"]
            .map(|name| format!(r#"{{"name": "{name}", "kind": "mount", "mount": "/"}}"#))
            .into_iter()
            .chain([r#"{"name": "old0", "kind": "mount", "mount": "/"}"#.to_owned()])
            .collect();
        let (written, problems) = written(owner, "web-1", &told, &known, &BTreeSet::new());
        assert_eq!((written.len(), problems.len()), (NAMES_MAX, 1), "{problems:?}");
        assert!(problems[0].contains("local.web-1.b is left out"), "{problems:?}");
    }
}
