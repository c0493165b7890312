//! A directory of one test.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

/// Removed when dropped, unless `PEIL_KEEP` is set: then it stays for a person to look at.
pub(crate) struct Directory(TempDir);

impl Directory {
    pub(crate) fn new(what: &str) -> anyhow::Result<Self> {
        let keep = std::env::var_os("PEIL_KEEP").is_some();
        let made = tempfile::Builder::new().prefix(&format!("peil-{what}-")).disable_cleanup(keep).tempdir();
        let made = made.context("cannot make a directory for the test")?;
        eprintln!("[test] {what} in {}", made.path().display());
        Ok(Self(made))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}
