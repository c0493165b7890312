//! The files of a Debian host with one package, for the patch scan: what dpkg and apt would have written.

use std::path::Path;

use anyhow::Context as _;

use crate::directory::Directory;

/// A root for `[patch] root` with package `demo` (source `demo-src`) and a security archive.
pub struct FakeHost(Directory);

impl FakeHost {
    /// `demo` is installed as `installed`; the security archive has `fixed`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(installed: &str, fixed: &str) -> anyhow::Result<Self> {
        let host = Self(Directory::new("host")?);
        let lists = "var/lib/apt/lists/security.example_dists_bookworm-security";
        host.put("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n")?;
        host.put(
            &format!("{lists}_InRelease"),
            "Origin: Debian\nLabel: Debian-Security\nSuite: oldstable-security\nCodename: bookworm-security\n\
             Date: Sat, 21 Nov 2020 00:53:02 UTC\nArchitectures: amd64\nComponents: main\n",
        )?;
        host.put(
            &format!("{lists}_main_binary-amd64_Packages"),
            &format!("Package: demo\nVersion: {fixed}\nArchitecture: all\nSource: demo-src\n\n"),
        )?;
        host.install(installed)?;
        Ok(host)
    }

    /// `demo` is installed in this version from now on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn install(&self, version: &str) -> anyhow::Result<()> {
        let stanza = format!(
            "Package: demo\nStatus: install ok installed\nVersion: {version}\nArchitecture: all\nSource: demo-src\n\n"
        );
        // As dpkg does it: beside, then over.
        self.put("var/lib/dpkg/status-new", &stanza)?;
        let dpkg = self.path().join("var/lib/dpkg");
        std::fs::rename(dpkg.join("status-new"), dpkg.join("status")).context("cannot replace the status file")
    }

    /// Its root.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn put(&self, inside: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path().join(inside);
        let parent = path.parent().context("a file lies in a directory")?;
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
