//! Checks of the host's own: `conf.d/*.toml` beside the settings, with the `[[check]]` tables of the collector.
//!
//! Whoever keeps a host can have something watched on it without asking who keeps the collector. The agent reads and
//! judges the files, tells the checks in its greeting, and runs what comes back in the plan: the collector numbers them,
//! shows them on the host's page, and counts them nowhere unless a service names them. `agents`, `labels` and `quorum`
//! are refused here: such a check is this host's.
//!
//! A file with mistakes is told, with file, line and reason, to the log and to the collector; its last good checks stay
//! (`local_checks.json` in the state directory). A file that is gone takes its checks along.
//!
//! Limits: [`CHECKS_MAX`] checks in all of [`CHECK_BYTES_MAX`] bytes, [`FILES_MAX`] files in order of name; what is beyond
//! is left out and told. Of what is wrong the first [`PROBLEMS_MAX`] are told the collector, all of it the log: a greeting
//! must fit in one message, whatever stands in the files.
//! Read when a connection is made; while one is open the directory is looked at every [`LOOK_EVERY`], and one that has
//! changed makes a new connection.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use peil_proto::plan::CheckDef;
use peil_proto::plan::local::{CHECK_BYTES_MAX, CHECKS_MAX, PROBLEM_CHARS_MAX, PROBLEMS_MAX};
use peil_proto::settings::{Document, Mistakes, Refused, read_file};
use tracing::warn;

/// Files that are read.
pub const FILES_MAX: usize = 100;
/// How often the directory is looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Where the last good checks of each file are kept.
const KEPT: &str = "local_checks.json";

/// The directory of files, and where the last good ones are kept.
#[derive(Debug, Clone)]
pub struct LocalChecks {
    /// `conf.d` beside the settings.
    pub directory: PathBuf,
    /// The agent's own directory.
    pub state_dir: PathBuf,
}

/// What the collector is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The checks, each a JSON object.
    pub checks: Vec<String>,
    /// What is wrong, one sentence per mistake, with file and line.
    pub problems: Vec<String>,
}

/// Which files there are, and what shows that one was changed.
pub type Stamp = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

impl LocalChecks {
    /// Reads all files. Never fails: what cannot be read is told.
    pub fn read(&self) -> Told {
        let mut kept = self.kept();
        let (mut good, mut told, mut names) = (BTreeMap::new(), Told::default(), BTreeSet::new());
        let mut broken = Vec::new();
        for path in self.files(&mut told.problems) {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match read_one(&path, &mut names) {
                Ok(checks) => drop(good.insert(file, checks)),
                Err(mistakes) => {
                    told.problems.extend(mistakes);
                    broken.push(file);
                }
            }
        }
        // Last good checks stay, but for a name that stands in a good file by now.
        for file in broken {
            let mut checks = kept.remove(&file).unwrap_or_default();
            checks.retain(|check| name_of(check).is_none_or(|name| names.insert(name)));
            good.insert(file, checks);
        }
        told.checks = good.values().flatten().cloned().collect();
        if told.checks.len() > CHECKS_MAX {
            let beyond = told.checks.len() - CHECKS_MAX;
            told.problems.push(format!(
                "{beyond} checks of {} are left out: {CHECKS_MAX} is the most",
                self.directory.display()
            ));
            told.checks.truncate(CHECKS_MAX);
        }
        for problem in &told.problems {
            warn!(problem, "a check of this host's own is not as it should be");
        }
        self.keep(&good);
        told.problems.truncate(PROBLEMS_MAX);
        for problem in &mut told.problems {
            *problem = problem.chars().take(PROBLEM_CHARS_MAX).collect();
        }
        told
    }

    /// What a later one is compared with.
    pub fn stamp(&self) -> Stamp {
        let files = self.files(&mut Vec::new()).into_iter();
        let facts = files.filter_map(|path| {
            let facts = std::fs::metadata(&path).ok()?;
            Some((path, (facts.len(), facts.modified().ok())))
        });
        facts.collect()
    }

    /// Comes back when the files are others than in `stamp`.
    pub async fn changed_since(&self, stamp: &Stamp) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.stamp() != *stamp {
                return;
            }
        }
    }

    fn files(&self, problems: &mut Vec<String>) -> Vec<PathBuf> {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    problems.push(format!("{} cannot be read: {error}", self.directory.display()));
                }
                return Vec::new();
            }
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
        paths.sort();
        if paths.len() > FILES_MAX {
            problems
                .push(format!("{} has more than {FILES_MAX} files; the rest is left out", self.directory.display()));
            paths.truncate(FILES_MAX);
        }
        paths
    }

    /// A file that is not there or damaged keeps nothing; the good files are read anew in any case.
    fn kept(&self) -> BTreeMap<String, Vec<String>> {
        let text = std::fs::read(self.state_dir.join(KEPT)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn keep(&self, good: &BTreeMap<String, Vec<String>>) {
        let path = self.state_dir.join(KEPT);
        if *good == self.kept() {
            return;
        }
        let beside = path.with_extension("new");
        let written = serde_json::to_vec_pretty(good).map_err(std::io::Error::other);
        let written =
            written.and_then(|text| std::fs::write(&beside, text)).and_then(|()| std::fs::rename(&beside, &path));
        if let Err(error) = written {
            warn!(%error, path = %path.display(), "the last good checks of this host cannot be kept");
        }
    }
}

/// The checks of a file, or all its mistakes. A name counts once over all files.
fn read_one(path: &Path, names: &mut BTreeSet<String>) -> Result<Vec<String>, Vec<String>> {
    let sentences =
        |refused: Refused| refused.mistakes.iter().map(|m| format!("{}: {m}", refused.file)).collect::<Vec<_>>();
    let text = read_file(path).map_err(sentences)?;
    let mistakes = Mistakes::new(path.display().to_string());
    let mut root = Document::toml(&text, &mistakes).fields(&mistakes);
    let mut own = Vec::new();
    for mut fields in root.tables("check") {
        let def = CheckDef::read(&mut fields);
        if let Some(def) = def {
            if names.contains(&def.name) || own.contains(&def.name) {
                fields.refuse(format_args!("has the name {:?}, which stands twice", def.name));
            }
            own.push(def.name);
        }
        fields.finish();
    }
    root.finish();
    mistakes.into_result(()).map_err(sentences)?;
    let tables = text.parse::<toml::Table>().unwrap_or_default();
    let tables = tables.get("check").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let checks: Vec<_> = tables.iter().filter_map(|table| serde_json::to_string(table).ok()).collect();
    match checks.iter().find(|check| check.len() > CHECK_BYTES_MAX) {
        Some(large) => {
            let (file, name) = (path.display(), name_of(large).unwrap_or_default());
            Err(vec![format!("{file}: the check {name:?} has {} bytes; {CHECK_BYTES_MAX} is the most", large.len())])
        }
        None => {
            names.extend(own);
            Ok(checks)
        }
    }
}

fn name_of(check: &str) -> Option<String> {
    let table: serde_json::Value = serde_json::from_str(check).ok()?;
    table.get("name")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[check]]\nname = 'disk'\nkind = 'mount'\nmount = '/'\n";

    struct Host {
        dir: tempfile::TempDir,
        local: LocalChecks,
    }

    impl Host {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let local = LocalChecks { directory: dir.path().join("conf.d"), state_dir: dir.path().to_owned() };
            Self { dir, local }
        }

        fn write(&self, file: &str, text: &str) {
            std::fs::create_dir_all(&self.local.directory).expect("made");
            std::fs::write(self.local.directory.join(file), text).expect("written");
        }
    }

    #[test]
    fn a_host_without_files_has_nothing_to_tell_and_one_with_files_tells_their_tables() {
        let host = Host::new();
        assert_eq!(host.local.read(), Told::default());
        let stamp = host.local.stamp();
        host.write("disk.toml", GOOD);
        host.write("notes.txt", "not read");
        let told = host.local.read();
        assert_eq!(told.problems, Vec::<String>::new());
        let check: serde_json::Value = serde_json::from_str(&told.checks[0]).expect("JSON");
        assert_eq!((told.checks.len(), &check["mount"]), (1, &"/".into()));
        assert_ne!(host.local.stamp(), stamp);
    }

    #[test]
    fn f25_a_bad_file_is_told_with_line_and_reason_and_its_last_good_checks_stay_also_after_a_restart() {
        let host = Host::new();
        host.write("disk.toml", GOOD);
        host.write("unit.toml", "[[check]]\nname = 'ssh'\nkind = 'unit'\nunit = 'ssh.service'\n");
        let good = host.local.read();
        host.write("disk.toml", "[[check]]\nname = 'disk'\nkind = 'mount'\nmuont = '/'\nagents = ['*']\n");
        for _ in 0..2 {
            let told = LocalChecks { state_dir: host.dir.path().to_owned(), ..host.local.clone() }.read();
            assert_eq!(told.checks, good.checks);
            let all = told.problems.join("\n");
            for part in ["disk.toml", "muont", "agents", "line 4"] {
                assert!(all.contains(part), "{part} in {all}");
            }
        }
        std::fs::remove_file(host.local.directory.join("disk.toml")).expect("removed");
        assert_eq!(host.local.read().checks.len(), 1, "a file that is gone takes its checks along");
    }

    #[test]
    fn last_good_checks_give_way_to_the_same_name_in_a_good_file_and_nothing_told_outgrows_a_greeting() {
        let host = Host::new();
        host.write("a.toml", GOOD);
        assert_eq!(host.local.read().checks.len(), 1);
        host.write("a.toml", &"[[check]]\nname = 'disk'\nmuont = '/'\n".repeat(200));
        host.write("b.toml", GOOD);
        let long = format!("[[check]]\nname = 'long'\nkind = 'file'\npath = '/{}'\n", "x".repeat(CHECK_BYTES_MAX));
        host.write("c.toml", &long);
        let told = host.local.read();
        assert_eq!(told.checks.len(), 1, "{:?}", told.checks);
        assert_eq!(told.problems.len(), PROBLEMS_MAX);
        assert!(told.problems.iter().all(|problem| problem.contains("a.toml") && problem.len() <= 2_000));
        std::fs::remove_file(host.local.directory.join("a.toml")).expect("removed");
        let told = host.local.read();
        assert_eq!((told.checks.len(), told.problems.len()), (1, 1), "{:?}", told.problems);
    }

    #[test]
    fn a_name_that_stands_in_two_files_is_told_for_the_second() {
        let host = Host::new();
        host.write("a.toml", GOOD);
        host.write("b.toml", GOOD);
        let told = host.local.read();
        assert_eq!(told.checks.len(), 1);
        assert!(told.problems.concat().contains("stands twice"), "{:?}", told.problems);
    }
}
