//! `peil-agent enroll`: a one-use token becomes this host's certificate; later the certificate gets the next.
//!
//! The token carries the fingerprint of the collector's authority, so nobody has to compare anything by
//! eye: another server is refused before the secret is sent. The private key is made here and stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use peil_proto::time::WallClock;
use peil_proto::token::Token;
use peil_proto::wire::enrolment_client::EnrolmentClient;
use peil_proto::wire::{self, EnrolRequest, RenewRequest};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use tonic::transport::Channel;

use crate::identity::{self, Authorities, Identity, IdentityError, Meta};
use crate::uplink::connect::{self, Timeouts};

/// Where the identity lives under the state directory.
pub fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("identity")
}

/// Enrols this host and keeps the identity under `state_dir`. An identity that is already there is not
/// overwritten unless `again`.
///
/// # Errors
/// One sentence with the remedy, the cause behind it.
pub async fn enrol(
    collector: &str,
    token: &str,
    hostname: &str,
    state_dir: &Path,
    again: bool,
    clock: &WallClock,
) -> anyhow::Result<Identity> {
    let token = Token::parse(token)?;
    let dir = directory(state_dir);
    match Identity::load(&dir) {
        Ok(_) if !again => anyhow::bail!("this host has an identity in {}; use --again to replace it", dir.display()),
        Ok(_) | Err(IdentityError::NotEnrolled { .. }) => {}
        Err(cause) if again => tracing::warn!(%cause, "replacing an identity that cannot be used"),
        Err(cause) => return Err(cause.into()),
    }
    // Before the token is spent: it works once.
    prove_writable(state_dir)?;
    let (key, csr) = identity::prepare()?;
    let config = Arc::new(identity::enrol_client_config(token.authority, clock)?);
    let channel = connect::connect(collector, config, Timeouts::default()).await?;
    let request =
        EnrolRequest { token: token.secret.reveal(), csr, hostname: hostname.to_owned(), many_authorities: true };
    let answer = EnrolmentClient::new(channel).enrol(request).await;
    let given =
        answer.map_err(|status| anyhow::anyhow!("the collector refused to enrol this host: {}", status.message()))?;
    keep(&dir, key, given.into_inner(), collector, clock)
}

/// Makes the state directory and writes in it.
fn prove_writable(state_dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(state_dir).with_context(|| format!("cannot make {}", state_dir.display()))?;
    let mark = state_dir.join("enrolling");
    let written = std::fs::write(&mark, b"").and_then(|()| std::fs::remove_file(&mark));
    written.with_context(|| format!("cannot write in {}; enrol as the user the agent runs as", state_dir.display()))
}

/// Asks for the next certificate over a connection that the present one opened.
///
/// # Errors
/// Why not; the present one stays in force.
pub async fn renew(channel: Channel, identity: &Identity, dir: &Path, clock: &WallClock) -> anyhow::Result<Identity> {
    let (key, csr) = identity::prepare()?;
    let answer = EnrolmentClient::new(channel).renew(RenewRequest { csr, many_authorities: true }).await;
    let given = answer.map_err(|status| anyhow::anyhow!("the collector refused: {}", status.message()))?;
    keep(dir, key, given.into_inner(), &identity.meta().collector, clock)
}

fn keep(
    dir: &Path,
    key: KeyPair,
    given: wire::Identity,
    collector: &str,
    clock: &WallClock,
) -> anyhow::Result<Identity> {
    let now = clock.now();
    let meta = Meta { collector: collector.to_owned(), issued_at: now };
    let certificate = CertificateDer::from(given.certificate);
    let others = given.also_trusted.into_iter().map(CertificateDer::from).collect();
    let authorities = Authorities { issuer: CertificateDer::from(given.authority), others };
    Ok(Identity::save(dir, key, certificate, authorities, meta, now)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peil_proto::token::CaFingerprint;

    #[tokio::test]
    async fn a_host_that_cannot_keep_its_identity_does_not_spend_the_token() {
        let dir = tempfile::tempdir().expect("directory");
        let in_the_way = dir.path().join("state");
        std::fs::write(&in_the_way, "a file").expect("written");
        let token = Token::make([7; 20], CaFingerprint([9; 32])).reveal();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let collector = format!("https://{}", listener.local_addr().expect("an address"));
        let error = enrol(&collector, &token, "host", &in_the_way, true, &WallClock::System).await.expect_err("cannot");
        assert!(error.to_string().starts_with("cannot make"), "{error:#}");
    }
}
