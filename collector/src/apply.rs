//! `peil-collector apply DIR`: contracts, services and checks as files that can live in git.
//!
//! Every `*.toml` in DIR is read; what differs from the version in force becomes a new version, all or nothing, each
//! with an entry in the audit log. `--dry-run` shows the same difference and writes nothing. Applying the same files
//! twice changes nothing. Objects that no file has are left as they are, and named.
//!
//! A new version begins now. With `from` it begins then; before now only with a `reason`. The first version of an
//! object holds since ever when it has no `from`: nothing was agreed before it that it could change. Months that are
//! sealed keep their figure in any case.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use peil_proto::settings::{Refused, read_file};
use peil_proto::time::UtcTime;
use serde_json::Value;

use crate::agreement::{Agreement, Kind, Written, read_files};
use crate::config::Config;
use crate::contract::span::Span;
use crate::evaluate::mistake_lines;
use crate::store::objects::{Applied, Generation, ObjectVersion};
use crate::store::{Store, StoreError};

/// Files one directory may have; more is refused.
const FILES_MAX: usize = 10_000;

/// Why nothing was applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Mistakes in the files, or in what they would come to.
    #[error("{}", lines(.0))]
    Refused(Vec<Refused>),
    /// The directory cannot be read.
    #[error("cannot read the directory {0}")]
    Directory(String, #[source] std::io::Error),
    /// Somebody else applied something since the difference was made.
    #[error("somebody else applied something at the same time; look at the difference again")]
    Overtaken,
    /// The store is full of versions.
    #[error("the store has as many versions as it keeps; nothing was applied")]
    TooMany,
}

fn lines(refused: &[Refused]) -> String {
    refused.iter().flat_map(mistake_lines).collect::<Vec<_>>().join("\n")
}

/// What is new about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The version to add.
    pub version: ObjectVersion,
    /// Keys that are added, changed or taken away: name, before, after.
    pub keys: Vec<(String, Option<Value>, Option<Value>)>,
}

/// What applying would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// New versions.
    pub changes: Vec<Change>,
    /// Objects that stay as they are.
    pub unchanged: usize,
    /// Applied objects that no file has: kind and name.
    pub elsewhere: Vec<(String, String)>,
}

/// The difference between `written` and the versions there are. Pure.
pub fn plan(written: &[Written], versions: &[ObjectVersion], who: &str, now: UtcTime) -> Plan {
    let mut plan = Plan::default();
    let mut named = BTreeSet::new();
    for table in written {
        let kind = table.kind.word();
        named.insert((kind.to_owned(), table.name.clone()));
        let known = versions.iter().filter(|version| version.kind == kind && version.name == table.name);
        let known: Vec<_> = known.collect();
        let begins = table.from.unwrap_or(if known.is_empty() { Span::ALWAYS.from } else { now });
        // What holds at the instant at which the new version would begin.
        let before = known.iter().filter(|version| version.valid_from <= begins);
        let before = before.max_by_key(|version| (version.valid_from, version.recorded_at));
        if before.is_some_and(|before| before.body == table.body) {
            plan.unchanged += 1;
            continue;
        }
        let version = ObjectVersion {
            kind: kind.to_owned(),
            name: table.name.clone(),
            valid_from: begins,
            recorded_at: now,
            author: who.to_owned(),
            reason: table.reason.clone(),
            body: table.body.clone(),
        };
        let keys = differing(before.map(|before| before.body.as_str()), &table.body);
        plan.changes.push(Change { version, keys });
    }
    let all = versions.iter().map(|version| (version.kind.clone(), version.name.clone()));
    plan.elsewhere = all.filter(|object| !named.contains(object)).collect::<BTreeSet<_>>().into_iter().collect();
    plan
}

fn differing(before: Option<&str>, after: &str) -> Vec<(String, Option<Value>, Option<Value>)> {
    let table = |text: &str| match serde_json::from_str(text) {
        Ok(Value::Object(table)) => table.into_iter().collect::<BTreeMap<_, _>>(),
        _ => BTreeMap::new(),
    };
    let (old, new) = (before.map(table).unwrap_or_default(), table(after));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let pair = |key: &String| (key.clone(), old.get(key).cloned(), new.get(key).cloned());
    keys.into_iter().map(pair).filter(|(_, old, new)| old != new).collect()
}

impl Plan {
    /// The difference as people read it, ended by a newline.
    pub fn in_words(&self) -> String {
        let mut text = String::new();
        for Change { version, keys } in &self.changes {
            let since = if version.valid_from == Span::ALWAYS.from {
                "since ever".to_owned()
            } else {
                format!("from {}", version.valid_from)
            };
            let past = if Span::ALWAYS.from < version.valid_from && version.valid_from < version.recorded_at {
                ", changes the past"
            } else {
                ""
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{} {:?} {since}{past}", version.kind, version.name);
            for (key, old, new) in keys {
                let _ = match (old, new) {
                    (None, Some(new)) => writeln!(text, "  + {key} = {new}"),
                    (Some(old), None) => writeln!(text, "  - {key} = {old}"),
                    (Some(old), Some(new)) => writeln!(text, "  ~ {key} = {old} -> {new}"),
                    (None, None) => Ok(()),
                };
            }
        }
        for (kind, name) in &self.elsewhere {
            let _ = writeln!(text, "{kind} {name:?} is in no file and stays as it is");
        }
        let _ = writeln!(text, "{} new versions, {} objects unchanged", self.changes.len(), self.unchanged);
        text
    }
}

/// Reads the files of `dir`, in order of name.
///
/// # Errors
/// [`ApplyError::Directory`], [`ApplyError::Refused`].
pub fn read_dir(dir: &Path) -> Result<Vec<Written>, ApplyError> {
    let failed = |error| ApplyError::Directory(dir.display().to_string(), error);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() || paths.len() > FILES_MAX {
        let why = format!("has {} files that end in .toml; 1 to {FILES_MAX} can be applied", paths.len());
        return Err(ApplyError::Refused(vec![Refused { file: dir.display().to_string(), mistakes: vec![why] }]));
    }
    let texts = paths.iter().map(|path| Ok((path.display().to_string(), read_file(path)?)));
    let (mut files, mut refused) = (Vec::new(), Vec::new());
    for text in texts {
        match text {
            Ok(file) => files.push(file),
            Err(error) => refused.push(error),
        }
    }
    if refused.is_empty() { read_files(&files).map_err(ApplyError::Refused) } else { Err(ApplyError::Refused(refused)) }
}

/// What applying `written` would do to `store`, checked as a whole, and the generation it was compared with.
///
/// # Errors
/// [`ApplyError::Refused`] when it would make no sense together, [`ApplyError::Store`].
pub async fn prepare(
    store: &Store,
    config: &Config,
    written: &[Written],
    who: &str,
    now: UtcTime,
) -> Result<(Plan, Generation), ApplyError> {
    let (seen, mut versions) = store.object_versions().await?;
    let plan = plan(written, &versions, who, now);
    versions.extend(plan.changes.iter().map(|change| change.version.clone()));
    Agreement::new(config, &versions).map_err(|refused| ApplyError::Refused(vec![refused]))?;
    Ok((plan, seen))
}

/// Adds the versions of `plan`, which was made when the store was at `seen`.
///
/// # Errors
/// [`ApplyError`]; nothing was written then.
pub async fn commit(store: &Store, plan: &Plan, seen: Generation, who: &str) -> Result<(), ApplyError> {
    let versions: Vec<_> = plan.changes.iter().map(|change| change.version.clone()).collect();
    if versions.is_empty() {
        return Ok(());
    }
    match store.apply_objects(versions, seen, who).await? {
        Applied::Done(_) => Ok(()),
        Applied::Overtaken(_) => Err(ApplyError::Overtaken),
        Applied::TooMany => Err(ApplyError::TooMany),
    }
}

/// The objects in force at `now` as one file that `apply` takes.
pub fn export(versions: &[ObjectVersion], now: UtcTime) -> String {
    let mut newest: BTreeMap<(Kind, &str), &ObjectVersion> = BTreeMap::new();
    for version in versions.iter().filter(|version| version.valid_from <= now) {
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.word() == version.kind) else { continue };
        let begin = |version: &ObjectVersion| (version.valid_from, version.recorded_at);
        let known = newest.entry((kind, &version.name)).or_insert(version);
        if begin(version) > begin(known) {
            *known = version;
        }
    }
    let mut text = String::new();
    for ((kind, _), version) in newest {
        let table = serde_json::from_str::<toml::Table>(&version.body).unwrap_or_default();
        // Only text, whole numbers, flags, lists and tables: all of them can be written.
        let root = toml::Table::from_iter([(kind.word().to_owned(), toml::Value::Array(vec![table.into()]))]);
        let _ = writeln!(text, "{}", toml::to_string(&root).unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[[contract]]
name = "office"
target = "99.5"
window = [{ days = ["mon"], from = "08:00", to = "18:00" }]
[contract.holidays]
good_friday = true
[[check]]
name = "web"
kind = "tcp"
address = "localhost:80"
[[service]]
name = "portal"
contract = "office"
expression = { any = ["web", { at_least = 1, of = ["web"] }] }
"#;

    fn config() -> Config {
        Config::parse("collector.toml", "").expect("valid")
    }

    fn written(text: &str) -> Vec<Written> {
        read_files(&[("a.toml".to_owned(), text.to_owned())]).expect("readable")
    }

    async fn apply(store: &Store, text: &str, now: i64) -> Result<Plan, ApplyError> {
        let (plan, seen) = prepare(store, &config(), &written(text), "anna", UtcTime(now)).await?;
        commit(store, &plan, seen, "anna").await?;
        Ok(plan)
    }

    #[tokio::test]
    async fn the_same_files_twice_change_nothing_and_a_changed_key_is_one_version() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("opens");
        assert_eq!(apply(&store, FILE, 1_000).await.expect("applied").changes.len(), 3);
        let again = apply(&store, FILE, 2_000).await.expect("applied");
        assert_eq!((again.changes.len(), again.unchanged), (0, 3));
        let stricter = FILE.replace("99.5", "99.9").replace("[[check]]", "[[contract]]\nname = \"other\"\n[[check]]");
        let plan = apply(&store, &stricter, 3_000).await.expect("applied");
        let words = plan.in_words();
        assert!(
            words.contains("contract \"office\" from 1970-01-01T00:00:03Z\n  ~ target = \"99.5\" -> \"99.9\"\n"),
            "{words}"
        );
        assert!(words.contains("contract \"other\" since ever\n  + name = \"other\"\n"), "{words}");
        assert!(words.ends_with("2 new versions, 2 objects unchanged\n"), "{words}");
        assert_eq!(store.audit_tail(20).await.expect("read").len(), 5);
        store.close().await;
    }

    #[tokio::test]
    async fn a_dry_run_writes_nothing_and_one_mistake_keeps_everything_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("opens");
        let (plan, seen) = prepare(&store, &config(), &written(FILE), "anna", UtcTime(5)).await.expect("good");
        assert_eq!(store.object_generation().await.expect("read"), Generation(0));
        let wrong =
            apply(&store, &FILE.replace("expression = { any = [\"web\"", "expression = { any = [\"wbe\""), 5).await;
        assert!(
            matches!(&wrong, Err(ApplyError::Refused(_))) && wrong.expect_err("refused").to_string().contains("wbe")
        );
        assert_eq!(store.object_generation().await.expect("read"), Generation(0));
        apply(&store, FILE, 6).await.expect("applied");
        assert!(matches!(commit(&store, &plan, seen, "bert").await, Err(ApplyError::Overtaken)));
        store.close().await;
    }

    #[tokio::test]
    async fn the_past_changes_only_with_a_date_and_a_reason() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("opens");
        apply(&store, FILE, 1_000).await.expect("applied");
        let past = FILE.replace("target = \"99.5\"", "target = \"99\"\nfrom = \"1970-01-01T00:00:01Z\"");
        let refused = apply(&store, &past, 9_000).await.expect_err("without a reason").to_string();
        assert!(refused.contains("changes the past from 1970-01-01T00:00:01Z without saying why"), "{refused}");
        let told = past.replace("target = \"99\"", "target = \"99\"\nreason = \"as signed\"");
        let plan = apply(&store, &told, 9_000).await.expect("with a reason");
        assert!(plan.in_words().contains("from 1970-01-01T00:00:01Z, changes the past"), "{}", plan.in_words());
        store.close().await;
    }

    #[tokio::test]
    async fn what_was_exported_applies_as_unchanged() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("opens");
        apply(&store, FILE, 1_000).await.expect("applied");
        apply(&store, &FILE.replace("99.5", "99.9"), 2_000).await.expect("applied");
        let (_, versions) = store.object_versions().await.expect("read");
        let exported = export(&versions, UtcTime(5_000));
        let plan = apply(&store, &exported, 6_000).await.expect("applied");
        assert_eq!((plan.changes.len(), plan.unchanged), (0, 3), "{exported}");
        store.close().await;
    }
}
