//! The programs under test: where they lie, and running one to its end.
//!
//! They lie beside the test's own executable (`target/<profile>/`). Cargo does not know that these tests need
//! them, so they are brought up to date here, once per run: a test of yesterday's binary proves nothing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, bail, ensure};

/// Path of `peil-collector`.
///
/// # Errors
/// When it is not there and cannot be built.
pub fn collector() -> anyhow::Result<PathBuf> {
    program("peil-collector")
}

/// Path of `peil-agent`.
///
/// # Errors
/// When it is not there and cannot be built.
pub fn agent() -> anyhow::Result<PathBuf> {
    program("peil-agent")
}

fn program(name: &str) -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let directory = directory()?;
    if let Err(why) = BUILT.get_or_init(|| build(&directory).map_err(|error| format!("{error:#}"))) {
        bail!("{why}");
    }
    let path = directory.join(name);
    ensure!(
        path.is_file(),
        "{} is not there: run `cargo build -p peil-collector -p peil-agent` first, or tests/run",
        path.display()
    );
    Ok(path)
}

/// `target/<profile>`, from `target/<profile>/deps/it-…`.
fn directory() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this test lies")?;
    let directory = own.parent().and_then(Path::parent).context("the test lies nowhere")?;
    Ok(directory.to_owned())
}

/// With `cargo test` around us, cargo decides whether anything is to do. An executable started by hand takes what lies there.
fn build(directory: &Path) -> anyhow::Result<()> {
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(()) };
    let profile = match directory.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let built = Command::new(cargo)
        .args(["build", "--locked", "-p", "peil-collector", "-p", "peil-agent", "--bins"])
        .args(["--profile", profile, "--manifest-path", manifest])
        .output()
        .context("cannot start cargo")?;
    ensure!(
        built.status.success(),
        "the programs cannot be built; try `cargo build -p peil-collector -p peil-agent`:\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
    Ok(())
}

/// What a program that ended said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Answer {
    /// Standard output of a program that succeeded.
    ///
    /// # Errors
    /// When it did not, with what it said.
    pub fn good(self) -> anyhow::Result<String> {
        ensure!(self.status == Some(0), "exit status {:?}: {}{}", self.status, self.out, self.err);
        Ok(self.out)
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started.
pub fn run<A: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = A>) -> anyhow::Result<Answer> {
    let done = Command::new(program).args(args).stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = done.with_context(|| format!("cannot run {}", program.display()))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Answer { status: status.code(), out: text(stdout), err: text(stderr) })
}
