//! Files that hold a private key: nobody else reads them, and a crash leaves the old or the new one.
//!
//! A file is written beside its place with its final mode, synced, renamed, and the directory synced: on
//! a file system with ordered renames (ext4, xfs, btrfs, zfs) a reader sees all of the old or all of the
//! new. A key that others can read is refused rather than used, because it must be taken for known.
//!
//! Assumes Unix permissions and one writer per directory. Deliberately absent: encryption at rest (the
//! passphrase would lie beside the key) and wiping (no promise to be made on flash or snapshots).

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Largest key or certificate file read; a longer one is refused as the wrong file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Who may read a file we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Mode 0600.
    OwnerOnly,
    /// Mode 0644.
    Everybody,
}

/// Why a file could not be written or must not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Reading failed.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Writing, syncing or renaming failed; what was there before is still there.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can read the key, or the group can write it.
    #[error(
        "{} has mode {mode:04o}: others can read this private key, so it must be taken for known to them. \
         Make a new one, or if you are sure nobody did: chmod 600 {}",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Over [`FILE_BYTES_MAX`].
    #[error("{} is larger than a key or certificate can be ({FILE_BYTES_MAX} bytes)", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl KeyFileError {
    /// True when there is no such file.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a private key. The group may read it (a service gets its credentials so) but not write it;
/// others may do nothing.
///
/// # Errors
/// [`KeyFileError::Exposed`] with the remedy, or why it cannot be read.
pub fn read_private(path: &Path) -> Result<String, KeyFileError> {
    let failed = |source| KeyFileError::Read { path: path.to_owned(), source };
    // One open file for both questions, so that the mode belongs to the bytes read.
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o027 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    read_open(path, file)
}

/// Reads a file that is no secret.
///
/// # Errors
/// Why it cannot be read.
pub fn read_public(path: &Path) -> Result<String, KeyFileError> {
    let file = File::open(path).map_err(|source| KeyFileError::Read { path: path.to_owned(), source })?;
    read_open(path, file)
}

/// Puts `bytes` in the place of `path`, whole or not at all.
///
/// # Errors
/// [`KeyFileError::Write`]; the former file is then untouched.
pub fn write(path: &Path, bytes: &[u8], readers: Readers) -> Result<(), KeyFileError> {
    let beside = path.with_added_extension("new");
    let attempt = || -> io::Result<()> {
        let mode = match readers {
            Readers::OwnerOnly => 0o600,
            Readers::Everybody => 0o644,
        };
        remove_leftover(&beside)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        // The umask may have taken bits away.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        sync_directory_of(path)
    };
    attempt().map_err(|source| KeyFileError::Write { path: path.to_owned(), source })
}

/// Makes the entry of `path` in its directory survive a power failure.
///
/// # Errors
/// What the operating system says.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// A certificate as PEM text, as other tools read it.
pub fn certificate_pem(der: &[u8]) -> String {
    const LINE: usize = 64;
    let body = data_encoding::BASE64.encode(der);
    let mut text = String::with_capacity(body.len() + body.len() / LINE + 64);
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(LINE) {
        // Base64 is ASCII, so every chunk is whole.
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

fn read_open(path: &Path, file: File) -> Result<String, KeyFileError> {
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|source| KeyFileError::Read { path: path.to_owned(), source })?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(KeyFileError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// What a crash between create and rename left behind.
fn remove_leftover(beside: &Path) -> io::Result<()> {
    match std::fs::remove_file(beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_private_file_is_for_its_owner_even_when_a_leftover_was_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        let leftover = dir.path().join("a.key.new");
        std::fs::write(&leftover, "half").unwrap();
        std::fs::set_permissions(&leftover, Permissions::from_mode(0o666)).unwrap();
        write(&path, b"secret", Readers::OwnerOnly).unwrap();
        assert_eq!((mode_of(&path), read_private(&path).unwrap().as_str()), (0o600, "secret"));
        assert!(!leftover.exists());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        write(&path, b"secret", Readers::OwnerOnly).unwrap();
        for (mode, refused) in
            [(0o600, false), (0o400, false), (0o640, false), (0o644, true), (0o660, true), (0o604, true)]
        {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            match read_private(&path) {
                Ok(_) => assert!(!refused, "{mode:o} was accepted"),
                Err(e) => {
                    assert!(refused, "{mode:o}: {e}");
                    assert!(e.to_string().contains(&format!("chmod 600 {}", path.display())), "{e}");
                }
            }
        }
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        write(&path, b"old", Readers::OwnerOnly).unwrap();
        // A directory in the place of the file beside cannot be opened for writing.
        std::fs::create_dir(dir.path().join("a.key.new")).unwrap();
        assert!(write(&path, b"new", Readers::OwnerOnly).is_err());
        assert_eq!(read_private(&path).unwrap(), "old");
    }

    #[test]
    fn a_certificate_reads_back_from_its_pem_text() {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        for length in [0, 1, 47, 48, 49, 500] {
            let der: Vec<u8> = (0..=255).cycle().take(length).collect();
            let text = certificate_pem(&der);
            assert!(text.lines().all(|line| line.len() <= 64));
            assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap().as_ref(), der);
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_unread() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big.pem");
        File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(matches!(read_public(&path), Err(KeyFileError::TooLarge { .. })));
        assert!(read_public(&dir.path().join("none.pem")).unwrap_err().is_absent());
    }
}
