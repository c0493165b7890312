//! Handshakes and certificates: the right kind of failure, and the chain kept whatever happened.

use peil_agent::probe::certificate::CertificateFacts;
use peil_agent::probe::{AddressPolicy, Observation, Phase, ProbeContext, run};
use peil_proto::plan::{CheckKind, Family, Http, SecretRef, Tcp, Tls, TlsOptions, TlsVersion};
use peil_proto::sample::{FailureKind, Outcome};
use peil_proto::time::{UtcTime, WallClock};
use rcgen::CertificateParams;

use crate::pki::{Leaf, Pki, expired, good, named, not_yet_valid};
use crate::target::Target;
use crate::{PATIENT_MS, SHORT_MS, check, failure, probe};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn tls(target: &Target, ca_file: impl Into<Option<String>>) -> CheckKind {
    let address = target.address.to_string();
    CheckKind::Tls(Tls {
        address,
        tls: TlsOptions { ca_file: ca_file.into(), ..TlsOptions::default() },
        ..Tls::default()
    })
}

fn https(target: &Target, ca_file: impl Into<Option<String>>) -> CheckKind {
    let url = format!("https://{}/", target.address);
    CheckKind::Http(Http {
        url,
        tls: TlsOptions { ca_file: ca_file.into(), ..TlsOptions::default() },
        ..Http::default()
    })
}

/// The facts of the leaf that was presented.
fn leaf_of(seen: &Observation) -> CertificateFacts {
    let tls = seen.detail.hops[0].tls.as_ref().expect("a chain was presented");
    let leaf = tls.certificates().into_iter().next().expect("with a leaf");
    assert_eq!(leaf.sha256.len(), 64);
    leaf.facts.expect("that can be read")
}

/// What both kinds that speak TLS must find at a server with this leaf.
async fn both_find(pki: &Pki, leaf: &Leaf, expected: FailureKind, chain: usize) {
    let target = Target::answering_over_tls(leaf.acceptor(), HELLO).await;
    for kind in [tls(&target, pki.ca_file()), https(&target, pki.ca_file())] {
        let seen = probe(kind, PATIENT_MS).await;
        assert_eq!(failure(&seen), (expected, Some(Phase::Tls)), "{seen:?}");
        assert_eq!(seen.detail.hops[0].tls.as_ref().map(|tls| tls.certificates().len()), Some(chain));
        let facts = leaf_of(&seen);
        assert!(facts.subject.contains("Peil test leaf") && !facts.names.is_empty(), "{facts:?}");
        assert!(seen.phases.tls.is_some() && seen.phases.first_byte.is_none());
    }
}

#[tokio::test]
async fn a_good_certificate_is_up_with_its_facts() {
    let pki = Pki::new();
    let target = Target::answering_over_tls(pki.leaf_of_intermediate(good(), true).acceptor(), HELLO).await;
    let seen = probe(https(&target, pki.ca_file()), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 200 });
    assert_eq!(seen.phases.to_array().map(|phase| phase.is_some()), [false, true, true, true, true]);
    let facts = leaf_of(&seen);
    assert!(facts.issuer.contains("Peil test intermediate"), "{facts:?}");
    assert_eq!(facts.names, ["127.0.0.1"]);
    assert_eq!(facts.not_after.to_string(), "2120-01-01T00:00:00Z");
    let told = seen.detail.hops[0].tls.clone().and_then(|tls| tls.agreed).expect("agreed");
    assert_eq!(told.version, "TLSv1_3");
    let seen = probe(tls(&target, pki.ca_file()), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 });
    assert_eq!(seen.phases.to_array().map(|phase| phase.is_some()), [false, true, true, false, false]);
}

#[tokio::test]
async fn tls_1_2_is_still_spoken() {
    let pki = Pki::new();
    let acceptor = pki.leaf(good()).acceptor_for(&[&rustls::version::TLS12]);
    let target = Target::answering_over_tls(acceptor, HELLO).await;
    let seen = probe(https(&target, pki.ca_file()), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 200 });
    let told = seen.detail.hops[0].tls.clone().and_then(|tls| tls.agreed).expect("agreed");
    assert_eq!(told.version, "TLSv1_2");
}

#[tokio::test]
async fn every_run_is_a_full_handshake() {
    let pki = Pki::new();
    let target = Target::answering_over_tls(pki.leaf(good()).acceptor(), HELLO).await;
    let ctx = ProbeContext::new(WallClock::System, AddressPolicy::default());
    let def = check(https(&target, pki.ca_file()), PATIENT_MS);
    for _ in 0..3 {
        let seen = run(&def, &ctx).await;
        // A resumed session presents no certificate.
        assert_eq!(leaf_of(&seen).names, ["127.0.0.1"]);
    }
}

#[tokio::test]
async fn f16_an_expired_certificate_is_told_with_its_dates() {
    let pki = Pki::new();
    both_find(&pki, &pki.leaf(expired()), FailureKind::CertExpired, 1).await;
}

#[tokio::test]
async fn f16_a_certificate_before_its_time_is_told() {
    let pki = Pki::new();
    both_find(&pki, &pki.leaf(not_yet_valid()), FailureKind::CertNotYetValid, 1).await;
}

#[tokio::test]
async fn f16_a_certificate_for_another_name_is_told() {
    let pki = Pki::new();
    both_find(&pki, &pki.leaf(named("other.test")), FailureKind::CertWrongName, 1).await;
}

#[tokio::test]
async fn f16_a_self_signed_certificate_is_not_trusted() {
    let pki = Pki::new();
    both_find(&pki, &Leaf::self_signed(good(), false), FailureKind::CertUntrusted, 1).await;
    both_find(&pki, &Leaf::self_signed(good(), true), FailureKind::CertUntrusted, 1).await;
}

#[tokio::test]
async fn f16_a_missing_intermediate_is_not_trusted_and_sending_it_mends_that() {
    let pki = Pki::new();
    both_find(&pki, &pki.leaf_of_intermediate(good(), false), FailureKind::CertUntrusted, 1).await;
}

#[tokio::test]
async fn a_private_root_is_not_trusted_by_the_public_ones() {
    let pki = Pki::new();
    let target = Target::answering_over_tls(pki.leaf(good()).acceptor(), HELLO).await;
    let seen = probe(tls(&target, None), PATIENT_MS).await;
    assert_eq!(failure(&seen), (FailureKind::CertUntrusted, Some(Phase::Tls)));
}

#[tokio::test]
async fn a_self_signed_certificate_named_in_the_ca_file_is_trusted_but_its_dates_and_names_still_count() {
    let pki = Pki::new();
    let outcome = async |params: CertificateParams, ca: bool| {
        let leaf = Leaf::self_signed(params, ca);
        let target = Target::answering_over_tls(leaf.acceptor(), HELLO).await;
        probe(https(&target, pki.file_of(&leaf)), PATIENT_MS).await.outcome
    };
    for ca in [false, true] {
        assert_eq!(outcome(good(), ca).await, Outcome::Up { code: 200 }, "ca: {ca}");
        let failed = |kind| Outcome::Failed { kind, code: 0 };
        assert_eq!(outcome(expired(), ca).await, failed(FailureKind::CertExpired), "ca: {ca}");
        assert_eq!(outcome(not_yet_valid(), ca).await, failed(FailureKind::CertNotYetValid), "ca: {ca}");
        assert_eq!(outcome(named("other.test"), ca).await, failed(FailureKind::CertWrongName), "ca: {ca}");
    }
}

#[tokio::test]
async fn the_name_to_verify_can_differ_from_the_address() {
    let pki = Pki::new();
    let target = Target::answering_over_tls(pki.leaf(named("mail.test")).acceptor(), HELLO).await;
    let named_as = |name: &str| {
        CheckKind::Tls(Tls {
            address: target.address.to_string(),
            tls: TlsOptions {
                server_name: Some(name.to_owned()),
                ca_file: Some(pki.ca_file()),
                ..TlsOptions::default()
            },
            ..Tls::default()
        })
    };
    assert_eq!(probe(named_as("mail.test"), PATIENT_MS).await.outcome, Outcome::Up { code: 0 });
    assert_eq!(failure(&probe(named_as("www.test"), PATIENT_MS).await).0, FailureKind::CertWrongName);
}

#[tokio::test]
async fn certificates_are_judged_by_the_agents_clock() {
    let pki = Pki::new();
    let target = Target::answering_over_tls(pki.leaf(good()).acceptor(), HELLO).await;
    let clock = WallClock::manual(UtcTime::parse("2119-12-01T00:00:00Z").expect("a time"));
    let ctx = ProbeContext::new(clock.clone(), AddressPolicy::default());
    let mut def = check(https(&target, pki.ca_file()), PATIENT_MS);
    assert_eq!(run(&def, &ctx).await.outcome, Outcome::Up { code: 200 });
    if let CheckKind::Http(http) = &mut def.kind {
        http.tls.cert_days_min = Some(30);
    }
    assert_eq!(run(&def, &ctx).await.outcome, Outcome::Up { code: 200 }, "31 days left");
    clock.set(UtcTime::parse("2119-12-02T00:00:00Z").expect("a time"));
    let seen = run(&def, &ctx).await;
    assert_eq!(seen.outcome, Outcome::Failed { kind: FailureKind::CertExpiring, code: 200 });
    let days = Some(30);
    let kind = CheckKind::Tls(Tls {
        address: target.address.to_string(),
        tls: TlsOptions { ca_file: Some(pki.ca_file()), cert_days_min: days, ..TlsOptions::default() },
        ..Tls::default()
    });
    assert_eq!(failure(&run(&check(kind, PATIENT_MS), &ctx).await), (FailureKind::CertExpiring, None));
    clock.set(UtcTime::parse("2120-01-02T00:00:00Z").expect("a time"));
    assert_eq!(failure(&run(&def, &ctx).await).0, FailureKind::CertExpired);
}

#[tokio::test]
async fn f16_a_handshake_that_stalls_times_out_in_tls() {
    let target = Target::silent().await;
    for kind in [tls(&target, None), https(&target, None)] {
        let seen = probe(kind, SHORT_MS).await;
        assert_eq!(failure(&seen), (FailureKind::Timeout, Some(Phase::Tls)));
        assert!(seen.phases.tls.is_some() && seen.detail.hops[0].tls.is_none());
    }
}

#[tokio::test]
async fn a_server_without_tls_is_a_tls_failure_and_one_that_hangs_up_has_closed() {
    let target = Target::serving(|mut socket| async move {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, b"220 mail.test ESMTP\r\n").await;
        let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut [0; 2_048]).await;
    })
    .await;
    assert_eq!(failure(&probe(tls(&target, None), PATIENT_MS).await), (FailureKind::Tls, Some(Phase::Tls)));
    let target = Target::serving(|mut socket| async move {
        let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut [0; 2_048]).await;
    })
    .await;
    assert_eq!(failure(&probe(tls(&target, None), PATIENT_MS).await), (FailureKind::Closed, Some(Phase::Tls)));
}

#[tokio::test]
async fn f16_a_server_that_wants_a_client_certificate_is_a_tls_failure_for_https() {
    let pki = Pki::new();
    let acceptor = pki.leaf(good()).acceptor_that_wants_a_client_certificate(&pki);
    let target = Target::answering_over_tls(acceptor, HELLO).await;
    let seen = probe(https(&target, pki.ca_file()), PATIENT_MS).await;
    assert_eq!(failure(&seen).0, FailureKind::Tls, "{seen:?}");
    assert_eq!(leaf_of(&seen).names, ["127.0.0.1"]);
}

#[tokio::test]
async fn a_client_certificate_opens_the_door_that_asks_for_one() {
    let pki = Pki::new();
    let target =
        Target::answering_over_tls(pki.leaf(good()).acceptor_that_wants_a_client_certificate(&pki), HELLO).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (chain, key) = pki.leaf(named("client.test")).files_in(dir.path());
    let wanted = TlsOptions {
        ca_file: Some(pki.ca_file()),
        client_cert_file: Some(chain.clone()),
        client_key_file: Some(SecretRef(key)),
        ..TlsOptions::default()
    };
    let url = format!("https://{}/", target.address);
    let kind = |tls| CheckKind::Http(Http { url: url.clone(), tls, ..Http::default() });
    let ctx = crate::context_with_secrets(dir.path());
    assert_eq!(run(&check(kind(wanted.clone()), PATIENT_MS), &ctx).await.outcome, Outcome::Up { code: 200 });
    let other = tempfile::tempdir().expect("a directory");
    let (_, stranger) = pki.leaf(named("other.test")).files_in(other.path());
    std::fs::copy(stranger, dir.path().join("wrong.key")).expect("copies");
    let wrong = SecretRef(dir.path().join("wrong.key").display().to_string());
    let mismatch = TlsOptions { client_key_file: Some(wrong), ..wanted };
    let def = check(kind(mismatch), PATIENT_MS);
    assert!(peil_agent::probe::problems(&def, &ctx).concat().contains("does not go with its key"));
    assert_eq!(failure(&run(&def, &ctx).await).0, FailureKind::LocalResource, "our mistake, not the target's");
}

#[tokio::test]
async fn f16_an_old_version_and_a_protocol_nobody_agreed_on_are_refused() {
    let pki = Pki::new();
    let acceptor = pki.leaf(good()).acceptor_for(&[&rustls::version::TLS12]);
    let target = Target::answering_over_tls(acceptor, HELLO).await;
    let options = TlsOptions { ca_file: Some(pki.ca_file()), ..TlsOptions::default() };
    let newer = TlsOptions { min_version: TlsVersion::V13, ..options.clone() };
    let address = target.address.to_string();
    let kind = |tls, alpn: &[&str]| {
        let alpn = alpn.iter().map(|name| (*name).to_owned()).collect();
        CheckKind::Tls(Tls { address: address.clone(), tls, alpn, ..Tls::default() })
    };
    assert_eq!(failure(&probe(kind(newer, &[]), PATIENT_MS).await), (FailureKind::Tls, Some(Phase::Tls)));
    assert_eq!(probe(kind(options.clone(), &["h2", "http/1.1"]), PATIENT_MS).await.outcome, Outcome::Up { code: 0 });
    assert_eq!(failure(&probe(kind(options.clone(), &["h2"]), PATIENT_MS).await).0, FailureKind::Tls);
    let mute = Target::answering_over_tls(pki.leaf(good()).acceptor_agreeing_on(&[]), HELLO).await;
    let address = mute.address.to_string();
    let seen =
        probe(CheckKind::Tls(Tls { address, tls: options, alpn: vec!["h2".into()], ..Tls::default() }), PATIENT_MS)
            .await;
    assert_eq!(failure(&seen), (FailureKind::Tls, None));
}

#[tokio::test]
async fn the_days_can_be_asked_of_the_whole_chain() {
    let pki = Pki::with_intermediate_until(2030);
    let target = Target::answering_over_tls(pki.leaf_of_intermediate(good(), true).acceptor(), HELLO).await;
    let clock = WallClock::manual(UtcTime::parse("2029-12-15T00:00:00Z").expect("a time"));
    let ctx = ProbeContext::new(clock, AddressPolicy::default());
    for (whole_chain, expected) in [(false, None), (true, Some(FailureKind::CertExpiring))] {
        let ca_file = Some(pki.ca_file());
        let tls = TlsOptions { ca_file, cert_days_min: Some(30), whole_chain, ..TlsOptions::default() };
        let kind = CheckKind::Tls(Tls { address: target.address.to_string(), tls, ..Tls::default() });
        let seen = run(&check(kind, PATIENT_MS), &ctx).await;
        assert_eq!(seen.detail.failure.map(|failure| failure.kind), expected);
    }
}

/// F34: one family that hangs or is missing neither delays nor hides the other.
#[tokio::test]
async fn both_families_are_probed_side_by_side_and_each_leaves_its_hop() {
    let target = Target::silent().await;
    let address = format!("localhost:{}", target.address.port());
    let kind = CheckKind::Tcp(Tcp { address, family: Family::Both, ..Tcp::default() });
    let seen = probe(kind, PATIENT_MS).await;
    assert_eq!(seen.detail.hops.len(), 2);
    assert_eq!(seen.detail.hops[0].peer, Some(target.address), "IPv4 answers");
    // Nobody listens on ::1; a host without it has no such name or no such family.
    assert!(seen.detail.failure.expect("IPv6 fails").text.starts_with("over IPv6: "));
    let only = CheckKind::Tcp(Tcp { address: target.address.to_string(), family: Family::V6, ..Tcp::default() });
    assert_eq!(failure(&probe(only, PATIENT_MS).await).0, FailureKind::NoSuchName);
}
