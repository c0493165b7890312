//! The authorities of an installation: the one in force and, while it is being replaced, the one that agents move to.
//!
//! ```text
//! ca.key, ca.pem                             the first one
//! ca-0123456789abcdef.key, ….pem             one that a rotation made, called after its fingerprint
//! ```
//!
//! Which of them is in force and which comes next is not written here: the store says it, by fingerprint, so that
//! every collector of a database agrees and no file is ever renamed. Files of an authority that the store names no
//! more are left alone; they believe nobody, and nobody believes them.
//!
//! While a next one is named: certificates of both are good; agents that can keep two authorities get theirs from
//! the next one and are told to trust both; the collector's own certificate stays with the one in force, because the
//! agents that have not moved yet know no other.
//!
//! Limits: two at a time. A second rotation begins when the first is over.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use peil_proto::keyfile::{self, Readers};
use peil_proto::time::UtcTime;
use peil_proto::tls::provider;
use peil_proto::token::CaFingerprint;
use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::{Authority, PkiError, crypto, make_directory, read_certificate, self_signed, unix};
use crate::store::authorities::Named;

/// The authorities that count, ready to sign and to verify.
pub struct Authorities {
    named: Named,
    in_force: Authority,
    next: Option<Authority>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Authorities {
    /// Those of the pairs in `directory` that `named` names. A next one that is not there is passed over
    /// ([`Authorities::lacks`]): this collector goes on with the one in force.
    ///
    /// # Errors
    /// [`PkiError::NotHere`] without the one in force, and what is wrong with a pair that is there.
    pub fn open(directory: &Path, named: Named, now: UtcTime) -> Result<Self, PkiError> {
        let missing = || PkiError::NotHere { directory: directory.to_owned(), wanted: named.in_force };
        let in_force = find(directory, named.in_force, now)?.ok_or_else(missing)?;
        let next = named.next.map(|next| find(directory, next, now)).transpose()?.flatten();
        Self::of(named, in_force, next)
    }

    /// One authority and no other.
    ///
    /// # Errors
    /// [`PkiError::Verifier`].
    pub fn alone(authority: Authority) -> Result<Self, PkiError> {
        Self::of(Named { in_force: authority.fingerprint(), next: None }, authority, None)
    }

    fn of(named: Named, in_force: Authority, next: Option<Authority>) -> Result<Self, PkiError> {
        let mut roots = RootCertStore::empty();
        for authority in [Some(&in_force), next.as_ref()].into_iter().flatten() {
            roots.add(authority.certificate.clone()).map_err(|e| PkiError::Verifier(e.to_string()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| PkiError::Verifier(e.to_string()))?;
        Ok(Self { named, in_force, next, verifier })
    }

    /// What the store named.
    pub fn named(&self) -> Named {
        self.named
    }

    /// Signs the collector's certificate; tokens name it.
    pub fn in_force(&self) -> &Authority {
        &self.in_force
    }

    /// Whether agents are being moved.
    pub fn is_rotating(&self) -> bool {
        self.next.is_some()
    }

    /// The next authority, when the store names one that is not in this collector's directory.
    pub fn lacks(&self) -> Option<CaFingerprint> {
        self.named.next.filter(|_| self.next.is_none())
    }

    /// Signs for an agent, and which others that agent is to trust besides. An agent that keeps one only stays with the
    /// one in force.
    pub fn issuing(&self, keeps_many: bool) -> (&Authority, Option<&Authority>) {
        match &self.next {
            Some(next) if keeps_many => (next, Some(&self.in_force)),
            _ => (&self.in_force, None),
        }
    }

    /// Whether an agent with certificate and trust like this, the issuer of its certificate first, has nothing to learn.
    pub fn is_up_to_date(&self, trusted: &[CaFingerprint]) -> bool {
        let (issuer, other) = self.issuing(true);
        let wanted = [Some(issuer), other];
        trusted.iter().copied().eq(wanted.into_iter().flatten().map(Authority::fingerprint))
    }

    /// Whether this certificate of an agent is good now: also asked of connections that were let in long ago.
    pub fn vouches_for(&self, certificate: &CertificateDer<'_>, now: UtcTime) -> bool {
        self.verifier.verify_client_cert(certificate, &[], unix(now)).is_ok()
    }

    /// Judges certificates in handshakes.
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }
}

/// Hides the keys.
impl std::fmt::Debug for Authorities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorities").field("in_force", &self.in_force).field("next", &self.next).finish()
    }
}

/// Makes another authority in `directory`, beside those that are there; nothing uses it until the store names it.
/// Gives its certificate's file. A crash leaves at most a key without certificate, which nothing looks at.
///
/// # Errors
/// [`PkiError`], when it cannot be made or kept.
pub fn make_another(directory: &Path, name: &str, now: UtcTime) -> Result<(PathBuf, Authority), PkiError> {
    make_directory(directory)?;
    let pair = KeyPair::generate().map_err(crypto("make the authority's key"))?;
    let made = self_signed(&pair, name, now)?;
    let fingerprint = CaFingerprint::of(made.der()).to_string();
    let stem = directory.join(format!("ca-{}", &fingerprint[..16]));
    let (certificate, key) = (stem.with_extension("pem"), stem.with_extension("key"));
    keyfile::write(&key, pair.serialize_pem().as_bytes(), Readers::OwnerOnly)?;
    keyfile::write(&certificate, made.pem().as_bytes(), Readers::Everybody)?;
    let authority = Authority::open(directory, &certificate, &key, now)?;
    Ok((certificate, authority))
}

/// The file of the certificate with this fingerprint, of those in `directory` that are called as an authority's.
///
/// # Errors
/// [`PkiError`], when the directory or a file that is called so cannot be read.
pub fn file_of(directory: &Path, wanted: CaFingerprint) -> Result<Option<PathBuf>, PkiError> {
    let failed = |source| PkiError::Directory { path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let is_pem = path.extension().is_some_and(|end| end == "pem");
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if is_pem && (stem == "ca" || stem.starts_with("ca-")) && CaFingerprint::of(&read_certificate(&path)?) == wanted
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn find(directory: &Path, wanted: CaFingerprint, now: UtcTime) -> Result<Option<Authority>, PkiError> {
    let Some(certificate) = file_of(directory, wanted)? else { return Ok(None) };
    let key = certificate.with_extension("key");
    if !key.exists() {
        return Err(PkiError::KeyMissing { certificate, key });
    }
    Authority::open(directory, &certificate, &key, now).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peil_proto::ids::AgentId;
    use peil_proto::units::Millis;

    const NOW: UtcTime = UtcTime(1_774_994_400_000);

    fn certificate(authority: &Authority) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        authority.sign_agent(request.der(), AgentId([7; 16]), NOW, Millis::DAY).unwrap().der
    }

    fn rotating() -> (tempfile::TempDir, Named) {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open_or_create(dir.path(), "Peil test", NOW).unwrap();
        let (file, next) = make_another(dir.path(), "Peil test", NOW).unwrap();
        assert_eq!(file_of(dir.path(), next.fingerprint()).unwrap(), Some(file));
        let named = Named { in_force: first.fingerprint(), next: Some(next.fingerprint()) };
        (dir, named)
    }

    #[test]
    fn while_agents_move_both_authorities_are_believed_and_the_next_one_signs_for_those_that_can_keep_two() {
        let (dir, named) = rotating();
        let both = Authorities::open(dir.path(), named, NOW).unwrap();
        let ((moved, other), (stayed, none)) = (both.issuing(true), both.issuing(false));
        assert_eq!((Some(moved.fingerprint()), other.map(Authority::fingerprint)), (named.next, Some(named.in_force)));
        assert_eq!((stayed.fingerprint(), none.is_none()), (named.in_force, true));
        assert!([moved, stayed].iter().all(|authority| both.vouches_for(&certificate(authority), NOW)));
        let (old, new) = (named.in_force, moved.fingerprint());
        let known = [vec![old], vec![old, new], vec![new], vec![new, old], vec![]];
        let up_to_date: Vec<_> = known.iter().filter(|trusted| both.is_up_to_date(trusted)).collect();
        assert_eq!(up_to_date, [&vec![new, old]]);
    }

    #[test]
    fn a_retired_authority_is_believed_no_more_and_its_files_do_no_harm() {
        let (dir, named) = rotating();
        let both = Authorities::open(dir.path(), named, NOW).unwrap();
        let (next, retired) = both.issuing(true);
        let (good, bad) = (certificate(next), certificate(retired.unwrap()));
        let after = Authorities::open(dir.path(), Named { in_force: next.fingerprint(), next: None }, NOW).unwrap();
        assert!(after.vouches_for(&good, NOW) && !after.vouches_for(&bad, NOW));
        assert!(
            after.is_up_to_date(&[next.fingerprint()]) && !after.is_up_to_date(&[next.fingerprint(), named.in_force])
        );
    }

    #[test]
    fn a_collector_without_the_files_of_the_next_authority_goes_on_with_the_one_in_force_and_knows_it() {
        let (dir, named) = rotating();
        let wanted = named.next.unwrap();
        std::fs::remove_file(file_of(dir.path(), wanted).unwrap().unwrap()).unwrap();
        let alone = Authorities::open(dir.path(), named, NOW).unwrap();
        assert_eq!((alone.lacks(), alone.is_rotating()), (Some(wanted), false));
        let elsewhere = tempfile::tempdir().unwrap();
        let refused = Authorities::open(elsewhere.path(), named, NOW).unwrap_err();
        assert!(matches!(refused, PkiError::NotHere { .. }), "{refused}");
    }

    #[test]
    fn a_certificate_of_an_authority_whose_key_is_gone_stops_the_start() {
        let (dir, named) = rotating();
        let file = file_of(dir.path(), named.next.unwrap()).unwrap().unwrap();
        std::fs::remove_file(file.with_extension("key")).unwrap();
        let refused = Authorities::open(dir.path(), named, NOW).unwrap_err();
        assert!(matches!(refused, PkiError::KeyMissing { .. }), "{refused}");
    }
}
