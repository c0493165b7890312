//! The identity on disk: generations, and the pointer to the one in force.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use peil_proto::keyfile::{self, Readers, certificate_pem};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tracing::warn;

use super::{Authorities, Identity, IdentityError, Meta};

const CURRENT: &str = "current";
const CURRENT_NEW: &str = "current.new";
const GENERATION: &str = "gen-";
const KEY: &str = "key.pem";
const CERTIFICATE: &str = "cert.pem";
const AUTHORITY: &str = "ca.pem";
const META: &str = "agent.json";

/// A point in a save where the machine may stop. Tests let it stop at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    MakeGeneration,
    WriteKey,
    WriteCertificate,
    WriteAuthority,
    WriteMeta,
    MakePointer,
    Switch,
    Sweep,
}

pub(super) fn load(directory: &Path) -> Result<Identity, IdentityError> {
    let current = directory.join(CURRENT);
    match fs::symlink_metadata(&current) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(IdentityError::NotEnrolled { directory: directory.to_owned() });
        }
        Err(source) => return Err(IdentityError::Directory { attempt: "look at", path: current, source }),
    }
    let damaged = |reason: String| IdentityError::Damaged { directory: current.clone(), reason };
    let key =
        KeyPair::from_pem(&keyfile::read_private(&current.join(KEY))?).map_err(|e| damaged(format!("{KEY}: {e}")))?;
    let meta: Meta = serde_json::from_str(&keyfile::read_public(&current.join(META))?)
        .map_err(|e| damaged(format!("{META}: {e}")))?;
    let certificate = read_certificate(&current, CERTIFICATE)?;
    let authorities = read_authorities(&current)?;
    Identity::assemble(key, certificate, authorities, meta).map_err(|e| damaged(format!("{CERTIFICATE}: {e}")))
}

pub(super) fn save(directory: &Path, identity: &Identity) -> Result<(), IdentityError> {
    save_stepwise(directory, identity, &mut |_| Ok(()))
}

/// `before` is asked before each step; its error ends the save there, as a crash would.
pub(super) fn save_stepwise(
    directory: &Path,
    identity: &Identity,
    before: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<(), IdentityError> {
    let failed = |attempt, path: &Path| {
        let path = path.to_owned();
        move |source| IdentityError::Directory { attempt, path, source }
    };
    let mut may = |step: Step| before(step).map_err(failed("write", directory));

    may(Step::MakeGeneration)?;
    make_private_directory(directory).map_err(failed("make", directory))?;
    let name = next_generation(directory).map_err(failed("list", directory))?;
    let generation = directory.join(&name);
    make_private_directory(&generation).map_err(failed("make", &generation))?;

    let meta = serde_json::to_vec(&identity.meta).map_err(|e| IdentityError::Directory {
        attempt: "write",
        path: generation.join(META),
        source: e.into(),
    })?;
    may(Step::WriteKey)?;
    keyfile::write(&generation.join(KEY), identity.key.serialize_pem().as_bytes(), Readers::OwnerOnly)?;
    may(Step::WriteCertificate)?;
    keyfile::write(
        &generation.join(CERTIFICATE),
        certificate_pem(&identity.certificate).as_bytes(),
        Readers::OwnerOnly,
    )?;
    may(Step::WriteAuthority)?;
    let authorities: String = identity.authorities.all().map(|authority| certificate_pem(authority)).collect();
    keyfile::write(&generation.join(AUTHORITY), authorities.as_bytes(), Readers::OwnerOnly)?;
    may(Step::WriteMeta)?;
    keyfile::write(&generation.join(META), &meta, Readers::OwnerOnly)?;

    let (current, pointer) = (directory.join(CURRENT), directory.join(CURRENT_NEW));
    may(Step::MakePointer)?;
    remove_file_if_there(&pointer).map_err(failed("remove", &pointer))?;
    symlink(&name, &pointer).map_err(failed("make", &pointer))?;
    may(Step::Switch)?;
    fs::rename(&pointer, &current).map_err(failed("switch to", &current))?;
    keyfile::sync_directory_of(&current).map_err(failed("sync", directory))?;

    may(Step::Sweep)?;
    // The new identity is in force; that an old one could not be removed must not undo that.
    if let Err(error) = sweep(directory, &name) {
        warn!(%error, directory = %directory.display(), "cannot remove a former identity");
    }
    Ok(())
}

fn read_certificate(current: &Path, file: &str) -> Result<CertificateDer<'static>, IdentityError> {
    let text = keyfile::read_public(&current.join(file))?;
    CertificateDer::from_pem_slice(text.as_bytes())
        .map_err(|e| IdentityError::Damaged { directory: current.to_owned(), reason: format!("{file}: {e}") })
}

fn read_authorities(current: &Path) -> Result<Authorities, IdentityError> {
    let damaged = |reason: &str| IdentityError::Damaged {
        directory: current.to_owned(),
        reason: format!("{AUTHORITY}: {reason}"),
    };
    let text = keyfile::read_public(&current.join(AUTHORITY))?;
    let mut all = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| damaged(&e.to_string()))?
        .into_iter();
    let issuer = all.next().ok_or_else(|| damaged("there is no certificate in it"))?;
    Ok(Authorities { issuer, others: all.collect() })
}

/// One more than the highest there is, in force or left behind: its directory is always new.
fn next_generation(directory: &Path) -> io::Result<String> {
    let mut highest = 0_u64;
    for (_, number) in generations(directory)? {
        highest = highest.max(number);
    }
    Ok(format!("{GENERATION}{:06}", highest.saturating_add(1)))
}

fn sweep(directory: &Path, keep: &str) -> io::Result<()> {
    for (path, _) in generations(directory)? {
        if path.file_name().is_none_or(|name| name != keep) {
            fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

fn generations(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix(GENERATION)).and_then(|n| n.parse().ok());
        if let Some(number) = number {
            found.push((entry.path(), number));
        }
    }
    Ok(found)
}

fn make_private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn remove_file_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
