//! `peil-collector apply DIR`: contracts, services and checks as files that can live in git.
//!
//! Every `*.toml` in DIR is read; what differs from the version in force becomes a new version, all or nothing, each
//! with an entry in the audit log. `--dry-run` shows the same difference and writes nothing. Applying the same files
//! twice changes nothing.
//!
//! Nothing ends silently. An object ends at the time its table says (`ends`), or with `--prune`, for a reason that is
//! given there, now when no file has it; otherwise what no file has is left as it is, and named. A service that ended
//! keeps its figures until then, in months that are over and in the running one; a check is no longer run. What others
//! go on with cannot end. A table whose `ends` was taken out goes on; one that comes back begins again.
//!
//! A new version begins now. With `from` it begins then; before now only with a `reason`. The first version of an
//! object holds since ever when it has no `from`: nothing was agreed before it that it could change. Months that are
//! sealed keep their figure in any case.

mod course;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use peil_proto::settings::{Refused, read_file};
use peil_proto::time::UtcTime;
use serde_json::Value;

use self::course::Course;
use crate::agreement::{Agreement, Kind, Written, read_files};
use crate::config::{Config, LOCAL};
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
    /// Applied objects that no file has and that go on: kind and name.
    pub elsewhere: Vec<(String, String)>,
}

/// What becomes of applied objects that no file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// They go on, and are named.
    GoOn,
    /// They end now.
    End {
        /// Why.
        reason: String,
    },
}

/// The difference between `written` and the versions there are. Pure.
pub fn plan(written: &[Written], versions: &[ObjectVersion], missing: &Missing, who: &str, now: UtcTime) -> Plan {
    let mut plan = Plan::default();
    let mut named = BTreeSet::new();
    for table in written {
        let object = (table.kind.word().to_owned(), table.name.clone());
        let mut course = Course::new(&object, versions, who, now);
        course.follow(table);
        plan.unchanged += usize::from(course.changes.is_empty());
        plan.changes.append(&mut course.changes);
        named.insert(object);
    }
    let all = versions.iter().map(|version| (version.kind.clone(), version.name.clone()));
    for object in all.filter(|object| !named.contains(object)).collect::<BTreeSet<_>>() {
        let mut course = Course::new(&object, versions, who, now);
        match missing {
            _ if course.is_over() => {}
            // A host's own checks are in no file here by nature; their host tells them.
            _ if is_of_a_host(&object) => {}
            Missing::GoOn => plan.elsewhere.push(object),
            Missing::End { reason } => {
                course.end_all(reason);
                plan.changes.append(&mut course.changes);
            }
        }
    }
    plan
}

fn is_of_a_host((kind, name): &(String, String)) -> bool {
    kind == Kind::Check.word() && name.starts_with(LOCAL)
}

impl Plan {
    /// The difference as people read it, ended by a newline.
    pub fn in_words(&self) -> String {
        let mut text = String::new();
        for Change { version, keys } in &self.changes {
            let since = match version.valid_from {
                from if from == Span::ALWAYS.from => "since ever".to_owned(),
                from if version.is_end() => format!("ends {from}"),
                from => format!("from {from}"),
            };
            let past = if Span::ALWAYS.from < version.valid_from && version.valid_from < version.recorded_at {
                ", changes the past"
            } else {
                ""
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{} {:?} {since}{past}", version.kind, version.name);
            // Of an end the keys are those that held last.
            for (key, old, new) in keys.iter().filter(|_| !version.is_end()) {
                let _ = match (old, new) {
                    (None, Some(new)) => writeln!(text, "  + {key} = {new}"),
                    (Some(old), None) => writeln!(text, "  - {key} = {old}"),
                    (Some(old), Some(new)) => writeln!(text, "  ~ {key} = {old} -> {new}"),
                    (None, None) => Ok(()),
                };
            }
        }
        for (kind, name) in &self.elsewhere {
            let _ = writeln!(text, "{kind} {name:?} is in no file and stays as it is; --prune ends it");
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
    missing: &Missing,
    who: &str,
    now: UtcTime,
) -> Result<(Plan, Generation), ApplyError> {
    if matches!(missing, Missing::End { reason } if reason.trim().is_empty()) {
        let mistakes = vec!["what no file has ends only for a reason".to_owned()];
        return Err(ApplyError::Refused(vec![Refused { file: "the request".to_owned(), mistakes }]));
    }
    let (seen, mut versions) = store.object_versions().await?;
    let plan = plan(written, &versions, missing, who, now);
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

/// The objects in force at `now`, with their ends as far as they are known, as one file that `apply` takes.
pub fn export(versions: &[ObjectVersion], now: UtcTime) -> String {
    let named = |version: &ObjectVersion| (version.kind.clone(), version.name.clone());
    let all: BTreeSet<_> = versions.iter().map(named).collect();
    let in_order = Kind::ALL
        .into_iter()
        .flat_map(|kind| all.iter().filter(move |(word, _)| word == kind.word()).map(move |object| (kind, object)));
    let mut text = String::new();
    for (kind, object) in in_order {
        let course = Course::new(object, versions, "", now);
        let Some(version) = course.at(now).filter(|version| !version.is_end()) else { continue };
        let mut table = serde_json::from_str::<toml::Table>(&version.body).unwrap_or_default();
        if let Some(end) = course.after(now).iter().find(|version| version.is_end()) {
            table.insert("ends".to_owned(), end.valid_from.to_string().into());
        }
        // Only text, whole numbers, flags, lists and tables: all of them can be written.
        let root = toml::Table::from_iter([(kind.word().to_owned(), toml::Value::Array(vec![table.into()]))]);
        let _ = writeln!(text, "{}", toml::to_string(&root).unwrap_or_default());
    }
    text
}
