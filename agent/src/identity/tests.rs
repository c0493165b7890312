use super::files::{Step, save_stepwise};
use super::*;
use proptest::prelude::*;
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, Issuer, SanType};
use std::io;
use std::os::unix::fs::PermissionsExt;

/// 2026-04-01T00:00:00Z, when the test certificates begin; they last 30 days.
const START: UtcTime = UtcTime(1_775_001_600_000);
const AGENT: AgentId = AgentId([0x80; 16]);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let der = params.self_signed(&key).unwrap().der().clone();
    Authority { issuer: Issuer::new(params, key), der }
}

fn certify(authority: &Authority, key: &KeyPair, uri: &str) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(2026, 4, 1);
    params.not_after = rcgen::date_time_ymd(2026, 5, 1);
    params.signed_by(key, &authority.issuer).unwrap().der().clone()
}

fn meta() -> Meta {
    Meta { collector: "https://peil.example:7443".to_owned(), issued_at: START }
}

fn days(n: i64) -> UtcTime {
    START.plus(Millis(n * DAY))
}

fn save(directory: &Path, authority: &Authority) -> Result<Identity, IdentityError> {
    let (key, _) = prepare().unwrap();
    let certificate = certify(authority, &key, &AGENT.urn());
    Identity::save(directory, key, certificate, authority.der.clone().into(), meta(), days(1))
}

#[test]
fn an_identity_is_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("identity");
    let saved = save(&place, &authority()).unwrap();
    let loaded = Identity::load(&place).unwrap();
    assert_eq!((loaded.agent(), loaded.meta(), &loaded.certificate), (AGENT, &meta(), &saved.certificate));
    assert_eq!(loaded.key.serialize_der(), saved.key.serialize_der());
    assert_eq!((loaded.not_before, loaded.not_after), (START, days(30)));
    let mode = |name: &str| std::fs::metadata(place.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("current/key.pem"), mode("current/")), (0o600, 0o700));
    loaded.client_config(&peil_proto::time::WallClock::System).unwrap();
}

#[test]
fn two_authorities_are_kept_the_issuer_first_and_a_flood_of_them_is_refused() {
    let (issuer, other) = (authority(), authority());
    let keep = |others: usize| {
        let dir = tempfile::tempdir().unwrap();
        let (key, _) = prepare().unwrap();
        let certificate = certify(&issuer, &key, &AGENT.urn());
        let believed = Authorities { issuer: issuer.der.clone(), others: vec![other.der.clone(); others] };
        Identity::save(dir.path(), key, certificate, believed, meta(), days(1))?;
        Identity::load(dir.path())
    };
    let wanted = [&issuer.der, &other.der].map(|authority| CaFingerprint::of(authority));
    assert_eq!(keep(1).unwrap().trusted(), wanted);
    keep(OTHERS_MAX).unwrap();
    assert!(matches!(keep(OTHERS_MAX + 1), Err(IdentityError::Unusable(_))));
}

#[test]
fn a_host_that_never_enrolled_is_told_how() {
    let dir = tempfile::tempdir().unwrap();
    let refused = Identity::load(dir.path()).unwrap_err();
    assert!(matches!(refused, IdentityError::NotEnrolled { .. }));
    assert!(refused.to_string().contains("peil-agent enroll"));
}

#[test]
fn a_crash_at_any_moment_leaves_the_old_identity_or_the_new_one() {
    let authority = authority();
    let mut reached = Vec::new();
    for stop_at in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let old = save(dir.path(), &authority).unwrap();
        let (key, _) = prepare().unwrap();
        let certificate = certify(&authority, &key, &AGENT.urn());
        let new = Identity::assemble(key, certificate, authority.der.clone().into(), meta()).unwrap();
        let mut taken = 0;
        let crash = save_stepwise(dir.path(), &new, &mut |step| {
            if taken == stop_at {
                reached.push(step);
                return Err(io::Error::other("power failure"));
            }
            taken += 1;
            Ok(())
        });
        let found = Identity::load(dir.path()).unwrap();
        // `load` checks that key and certificate belong together.
        let switched = crash.is_ok() || reached.last() == Some(&Step::Sweep);
        assert_eq!(found.certificate, if switched { &new } else { &old }.certificate, "stopped at {reached:?}");
        // What the crash left behind is in nobody's way.
        let next = save(dir.path(), &authority).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap().certificate, next.certificate);
        let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left.len(), 2, "only the pointer and its generation: {left:?}");
        if crash.is_ok() {
            break;
        }
    }
    assert_eq!(reached.len(), 8, "each step was a crash once: {reached:?}");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), &authority()).unwrap();
    let key = dir.path().join("current/key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = Identity::load(dir.path()).unwrap_err();
    assert!(matches!(refused, IdentityError::File(KeyFileError::Exposed { .. })), "{refused}");
}

#[test]
fn a_damaged_file_is_named() {
    for file in ["key.pem", "cert.pem", "ca.pem", "agent.json"] {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &authority()).unwrap();
        let path = dir.path().join("current").join(file);
        let mode = std::fs::metadata(&path).unwrap().permissions();
        std::fs::write(&path, "half").unwrap();
        std::fs::set_permissions(&path, mode).unwrap();
        let refused = Identity::load(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(file) && refused.contains("new token"), "{refused}");
    }
}

#[test]
fn what_is_not_ours_never_replaces_a_good_identity() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, other) = (authority(), authority());
    let good = save(dir.path(), &authority).unwrap();
    let (key, _) = prepare().unwrap();
    let (theirs, _) = prepare().unwrap();
    let urn = AGENT.urn();
    let cases = [
        ("another key", certify(&authority, &theirs, &urn)),
        ("no agent", certify(&authority, &key, "urn:peil:collector")),
        ("invalid peer certificate", certify(&other, &key, &urn)),
        ("not an X.509", CertificateDer::from(vec![0x30, 0])),
    ];
    for (reason, certificate) in cases {
        let key = KeyPair::try_from(key.serialize_der()).unwrap();
        let refused =
            Identity::save(dir.path(), key, certificate, authority.der.clone().into(), meta(), days(1)).unwrap_err();
        assert!(matches!(&refused, IdentityError::Unusable(why) if why.contains(reason)), "{reason}: {refused}");
    }
    assert_eq!(Identity::load(dir.path()).unwrap().certificate, good.certificate);
}

#[test]
fn f27_a_clock_that_is_behind_is_said_at_enrolment() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, (key, _)) = (authority(), prepare().unwrap());
    let certificate = certify(&authority, &key, &AGENT.urn());
    let refused = Identity::save(dir.path(), key, certificate, authority.der.into(), meta(), days(-1)).unwrap_err();
    assert!(refused.to_string().contains("set the clock"), "{refused}");
}

#[test]
fn the_request_names_nobody_and_proves_its_key() {
    let (key, request) = prepare().unwrap();
    let (rest, parsed) = x509_parser::certification_request::X509CertificationRequest::from_der(&request).unwrap();
    let info = &parsed.certification_request_info;
    assert!(rest.is_empty() && info.subject.iter().next().is_none());
    assert_eq!(info.subject_pki.subject_public_key.data.as_ref(), key.public_key_raw());
}

#[test]
fn an_operator_is_told_how_the_certificate_stands() {
    let dir = tempfile::tempdir().unwrap();
    let identity = save(dir.path(), &authority()).unwrap();
    // Two thirds of 30 days, and half of a twelfth of them for an id that begins with 0x80.
    assert_eq!(identity.renew_at().since(START), Millis(20 * DAY + 30 * DAY / 24 + 30 * DAY / 12 * 0x80 / 65_536));
    for (now, standing, words) in [
        (days(-1), Standing::NotYet { from: START }, "clock"),
        (days(10), Standing::Good { days_left: 20 }, "20 more days"),
        (days(25), Standing::RenewDue { days_left: 5 }, "by itself"),
        (days(30), Standing::RenewDue { days_left: 0 }, "by itself"),
        (days(30).plus(Millis(1)), Standing::Expired { at: days(30) }, "peil-agent enroll"),
    ] {
        assert_eq!(identity.standing(now), standing);
        assert!(standing.to_string().contains(words), "{standing}");
    }
    assert_eq!((identity.days_left(days(30)), identity.days_left(days(31))), (0, -1));
}

proptest! {
    #[test]
    fn renewal_lies_between_two_thirds_and_three_quarters(start in 0_i64..4_000_000_000_000, life in 12_i64..400 * DAY, id: [u8; 16]) {
        let at = renewal_moment(UtcTime(start), UtcTime(start + life), AgentId(id)).0 - start;
        prop_assert!(at >= life / 3 * 2 && at <= life * 3 / 4 + 1, "{} of {}", at, life);
    }
}
