//! Which commands this host allows: `commands_file`, read at each run.
//!
//! ```toml
//! [command.raid]
//! argv = ["/usr/lib/nagios/plugins/check_raid", "--all"]
//! ```
//!
//! The file and its directory must belong to root, and nobody else may write to them: whoever can write here can run
//! programs as the agent. A file that does not meet that is refused as a whole, with the remedy. There is no shell.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use peil_proto::sample::FailureKind;
use peil_proto::settings::{Document, Mistakes};

use super::super::Failure;
use super::super::host::failure_of;

/// Bytes of the file. A longer one is refused.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Arguments of a command.
const ARGUMENTS_MAX: usize = 256;

/// Program and arguments of the command `name`.
///
/// # Errors
/// Why it cannot be run. Says nothing about the target.
pub(super) fn find(path: &Path, name: &str) -> Result<Vec<String>, Failure> {
    let told = |error: std::io::Error| {
        let failure = failure_of(&error, path);
        let kind = if failure.kind == FailureKind::NoSuchName { FailureKind::LocalResource } else { failure.kind };
        Failure { kind, ..failure }
    };
    if let Some(dir) = path.parent() {
        is_roots(&std::fs::metadata(dir).map_err(told)?, dir)?;
    }
    let file = std::fs::File::open(path).map_err(told)?;
    is_roots(&file.metadata().map_err(told)?, path)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(told)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(Failure::unusable(format!("{} is over {FILE_BYTES_MAX} bytes", path.display())));
    }
    read(&path.display().to_string(), &text, name).map_err(Failure::unusable)
}

fn is_roots(meta: &std::fs::Metadata, path: &Path) -> Result<(), Failure> {
    if meta.uid() == 0 && meta.mode() & 0o022 == 0 {
        return Ok(());
    }
    let path = path.display();
    let text = format!("{path} must belong to root and be writable by nobody else: chown root, chmod go-w");
    Err(Failure::judged(FailureKind::Permission, text))
}

fn read(file: &str, text: &str, name: &str) -> Result<Vec<String>, String> {
    let mistakes = Mistakes::new(file);
    let mut root = Document::toml(text, &mistakes).fields(&mistakes);
    let mut found = None;
    for entry in root.table("command").map(|mut table| table.rest()).unwrap_or_default() {
        let is_it = entry.key == name;
        let mut fields = entry.node.fields(&mistakes);
        let argv = fields.strings("argv");
        let absolute = argv.first().is_some_and(|program| program.starts_with('/'));
        if !absolute || argv.len() > ARGUMENTS_MAX || argv.iter().any(|word| word.contains('\0')) {
            fields.refuse(format_args!("needs argv: an absolute program and at most {ARGUMENTS_MAX} arguments"));
        }
        fields.finish();
        if is_it {
            found = Some(argv);
        }
    }
    root.finish();
    let found = mistakes.into_result(found).map_err(|refused| refused.to_string())?;
    found.ok_or_else(|| format!("{file} has no command {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_by_its_name_and_a_broken_file_allows_nothing() {
        let text = "[command.raid]\nargv = ['/bin/true', '-w', '1']\n[command.other]\nargv = ['/bin/false']\n";
        assert_eq!(read("c.toml", text, "raid").expect("found"), ["/bin/true", "-w", "1"]);
        assert!(read("c.toml", text, "rm").expect_err("none").contains("no command \"rm\""));
        for broken in
            ["[command.raid]\nargv = ['true']\n", "[command.raid]\n", "[command.raid]\nargv = ['/a']\nshell = true\n"]
        {
            read("c.toml", broken, "raid").expect_err("refused");
        }
    }

    #[test]
    fn a_file_that_others_can_write_allows_nothing_whoever_runs_this() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("commands.toml");
        std::fs::write(&path, "[command.a]\nargv = ['/bin/true']\n").expect("writes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("changes");
        let failure = find(&path, "a").expect_err("refused");
        assert_eq!(failure.kind, FailureKind::Permission);
        assert!(!failure.kind.is_about_target() && failure.text.contains("chmod"));
        assert!(!find(&dir.path().join("gone"), "a").expect_err("gone").kind.is_about_target());
    }
}
