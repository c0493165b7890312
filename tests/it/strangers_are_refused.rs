//! Who may speak to a collector: only agents it enrolled, with a certificate in force. Everybody else hears why not.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use peil_agent::identity::enrol_client_config;
use peil_agent::uplink::connect::{Timeouts, connect};
use peil_proto::keyfile::certificate_pem;
use peil_proto::time::WallClock;
use peil_proto::token::{CaFingerprint, Token};
use peil_proto::wire::AgentMessage;
use peil_proto::wire::telemetry_client::TelemetryClient;
use peil_tests::{Agent, Collector, ONLY_CHECKS, eventually};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};

/// When a forged certificate ends.
enum End {
    LongAgo,
    FarAhead,
}

/// A certificate for the agent's own key and id, signed by `issuer`: right in everything but its issuer or its time.
fn forge(agent: &Agent, issuer: &Issuer<'_, KeyPair>, end: End) -> anyhow::Result<()> {
    let current = agent.identity().join("current");
    let key = KeyPair::from_pem(&std::fs::read_to_string(current.join("key.pem"))?)?;
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(format!("urn:peil:agent:{}", agent.id()).try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = match end {
        End::LongAgo => date_time_ymd(2020, 2, 1),
        End::FarAhead => date_time_ymd(2099, 1, 1),
    };
    let certificate = params.signed_by(&key, issuer)?;
    std::fs::write(current.join("cert.pem"), certificate_pem(certificate.der()))?;
    Ok(())
}

fn collectors_own(pki: &Path) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let key = KeyPair::from_pem(&std::fs::read_to_string(pki.join("ca.key"))?)?;
    Ok(Issuer::from_ca_cert_pem(&std::fs::read_to_string(pki.join("ca.pem"))?, key)?)
}

fn foreign() -> anyhow::Result<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    // Even its name is the same.
    params.distinguished_name.push(rcgen::DnType::CommonName, peil_collector::app::AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(Issuer::new(params, KeyPair::generate()?))
}

async fn connected(collector: &Collector, agent: &Agent, wanted: bool) -> anyhow::Result<()> {
    eventually(&format!("the agent's connection is {wanted}"), async || {
        let host = collector.api().host(agent.id()).await?;
        ensure!(host["connected"] == wanted, "{host:#}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn f27_a_certificate_that_is_not_in_force_opens_no_stream() -> anyhow::Result<()> {
    let collector = Collector::start("").await?;
    let own = collectors_own(&collector.pki())?;
    for (issuer, end, reason) in
        [(&foreign()?, End::FarAhead, "its authority is not the collector's"), (&own, End::LongAgo, "it has expired")]
    {
        let mut agent = Agent::enrol(&collector, ONLY_CHECKS)?;
        forge(&agent, issuer, end)?;
        agent.run()?;
        agent.says(&format!("refuses our certificate: {reason}")).await?;
        connected(&collector, &agent, false).await?;
        ensure!(collector.api().host(agent.id()).await?["records"] == 0, "records came all the same");
    }
    // What was forged is right but for that: signed by the collector's own key and in time, it is let in.
    let mut agent = Agent::enrol(&collector, ONLY_CHECKS)?;
    forge(&agent, &own, End::FarAhead)?;
    agent.run()?;
    connected(&collector, &agent, true).await
}

#[tokio::test]
async fn without_a_certificate_nothing_can_be_sent() -> anyhow::Result<()> {
    let collector = Collector::start("").await?;
    let token = Token::parse(&collector.token()?)?;
    let config = Arc::new(enrol_client_config(token.authority, &WallClock::System)?);
    let channel = connect(&collector.url(), config, Timeouts::default()).await?;
    let nothing = tokio_stream::iter(Vec::<AgentMessage>::new());
    let refused = TelemetryClient::new(channel).stream(nothing).await.err().context("let in")?;
    ensure!(refused.code() == tonic::Code::Unauthenticated, "{refused:?}");
    ensure!(refused.message().contains("needs the certificate of an enrolled agent"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn f27_a_revoked_agent_is_put_out_and_stays_out() -> anyhow::Result<()> {
    let mut collector = Collector::start("").await?;
    let mut agent = Agent::start(&collector, ONLY_CHECKS)?;
    let other = Agent::start(&collector, ONLY_CHECKS)?;
    connected(&collector, &agent, true).await?;
    connected(&collector, &other, true).await?;

    let said = collector.command(&["agent", "revoke", agent.id()])?.good()?;
    ensure!(said.contains("is revoked"), "{said}");
    connected(&collector, &agent, false).await?;
    agent.says("refuses our certificate: it was revoked").await?;
    ensure!(collector.api().host(agent.id()).await?["revoked"] == true, "not shown as revoked");

    // Neither side forgets by a restart.
    agent.kill9()?;
    collector.stop().await?;
    collector.restart().await?;
    agent.run()?;
    agent.says("refuses our certificate: it was revoked").await?;
    connected(&collector, &other, true).await?;
    let audit = collector.command(&["audit", "tail"])?.good()?;
    ensure!(audit.contains("revoke") && audit.contains(agent.id()), "nobody wrote it down:\n{audit}");
    collector.command(&["audit", "verify"])?.good().map(|_| ())
}

#[tokio::test]
async fn f28_a_token_works_once_in_time_here_and_whole() -> anyhow::Result<()> {
    let collector = Collector::start("").await?;
    let refused = |token: &str, reason: &str| -> anyhow::Result<()> {
        let agent = Agent::prepare(&collector, ONLY_CHECKS)?;
        let answer = agent.enrol_with(token)?;
        ensure!(answer.status == Some(1) && answer.err.contains(reason), "{reason:?} is not in {answer:?}");
        ensure!(!agent.identity().join("current").exists(), "an identity all the same");
        Ok(())
    };

    let token = collector.token()?;
    Agent::prepare(&collector, ONLY_CHECKS)?.enrol_with(&token)?.good()?;
    refused(&token, "a token works once")?;

    let late = Token::parse(&collector.token()?)?;
    let db = rusqlite::Connection::open(collector.database())?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    let changed = db.execute("UPDATE token SET expires_at = created_at - 1 WHERE hash = ?1", [late.secret_hash()])?;
    ensure!(changed == 1, "no such token in the store");
    refused(&late.reveal(), "the token has expired")?;

    let mine = Token::parse(&token)?.authority;
    refused(&Token::make([7; 20], mine).reveal(), "the token is not known here")?;
    // Of another collector: noticed before the secret is sent.
    refused(&Token::make([7; 20], CaFingerprint([9; 32])).reveal(), "this is not the collector that made the token")?;
    let whole = collector.token()?;
    refused(&whole[..whole.len() - 1], "this token is not complete")?;
    refused(&whole[1..], "this is not an enrolment token")?;
    let mut damaged = whole.clone();
    damaged.replace_range(8..9, "*");
    refused(&damaged, "the secret (second part) of this token is damaged")?;
    // Nobody's attempt used it up.
    Agent::prepare(&collector, ONLY_CHECKS)?.enrol_with(&whole)?.good().map(|_| ())
}
