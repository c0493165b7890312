//! Secrets of checks: read where they are needed, never kept, never shown.
//!
//! A plan names a secret ([`SecretRef`]); what it is stands on this host only. A pushed plan could name any file and
//! send it anywhere, so a file must lie in the directory that this host's policy opens for secrets (`secrets_dir`),
//! also after its symbolic links have been followed. A credential is one that systemd gave to this unit
//! (`$CREDENTIALS_DIRECTORY`). One newline at the end is cut off: editors put it there.
//!
//! A secret that cannot be read says nothing about the target: `permission` when this host refuses, `local_resource`
//! otherwise.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use peil_proto::plan::SecretRef;
use peil_proto::sample::FailureKind;

use super::Failure;

/// Bytes of a secret. A larger file is refused: it is not one.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Where this host keeps the secrets of checks.
#[derive(Debug, Clone)]
pub(super) struct Secrets {
    dir: PathBuf,
    credentials: Option<PathBuf>,
}

/// A secret. It cannot be printed.
pub(super) struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// What it is.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Secrets {
    /// Files in `dir`, and the credentials of this unit.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) }
    }

    /// Reads a secret.
    ///
    /// # Errors
    /// Why not, with its name and never with its content.
    pub(super) fn read(&self, named: &SecretRef) -> Result<Secret, Failure> {
        let (dir, path) = match named.credential() {
            Some(name) => {
                let dir = self.credentials.as_deref().ok_or_else(|| {
                    Failure::unusable(format!("credential {name:?}: systemd gave this program no credentials"))
                })?;
                (dir, dir.join(name))
            }
            None => (self.dir.as_path(), PathBuf::from(&named.0)),
        };
        let told = |error: &io::Error| {
            let kind = match error.kind() {
                io::ErrorKind::PermissionDenied => FailureKind::Permission,
                _ => FailureKind::LocalResource,
            };
            Failure::judged(kind, format!("secret {}: {error}", path.display()))
        };
        read_within(dir, &path).map(Secret).map_err(|error| told(&error))
    }
}

fn read_within(dir: &Path, path: &Path) -> io::Result<Vec<u8>> {
    let (dir, path) = (dir.canonicalize()?, path.canonicalize()?);
    if !path.starts_with(&dir) {
        let why = format!("lies outside {}, where the policy of this host keeps secrets", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let file = std::fs::File::open(&path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > SECRET_BYTES_MAX {
        return Err(io::Error::other(format!("is over {SECRET_BYTES_MAX} bytes")));
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_its_directory_and_cannot_be_printed() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("db"), "hunter2\n").expect("writes");
        let secrets = Secrets::new(dir.path().to_owned());
        let secret = secrets.read(&SecretRef(dir.path().join("db").display().to_string())).expect("reads");
        assert_eq!(secret.bytes(), b"hunter2");
        assert!(!format!("{secret:?} {secrets:?}").contains("hunter2"));
    }

    #[test]
    fn what_a_plan_may_not_read_is_refused_without_its_content_and_says_nothing_about_the_target() {
        let (dir, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        std::fs::write(other.path().join("key"), "hunter2").expect("writes");
        std::os::unix::fs::symlink(other.path().join("key"), dir.path().join("link")).expect("links");
        std::fs::write(dir.path().join("huge"), vec![b'x'; 70_000]).expect("writes");
        let secrets = Secrets::new(dir.path().to_owned());
        for (path, kind) in [
            (other.path().join("key"), FailureKind::Permission),
            (dir.path().join("link"), FailureKind::Permission),
            (dir.path().join("missing"), FailureKind::LocalResource),
            (dir.path().join("huge"), FailureKind::LocalResource),
            (dir.path().to_owned(), FailureKind::LocalResource),
        ] {
            let failure = secrets.read(&SecretRef(path.display().to_string())).expect_err("refused");
            assert_eq!(failure.kind, kind, "{failure:?}");
            assert!(!kind.is_about_target() && !failure.text.contains("hunter2"));
        }
    }
}
