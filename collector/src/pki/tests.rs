use super::*;
use std::os::unix::fs::PermissionsExt;

const NOW: UtcTime = UtcTime(1_774_994_400_000);
const DAY: Millis = Millis(24 * Millis::HOUR.0);

fn authority(directory: &Path) -> Authority {
    Authority::open_or_create(directory, "Peil test", NOW).unwrap()
}

fn request() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["collector.example".to_owned()]).unwrap();
    params.distinguished_name = common_name("somebody else");
    let der = params.serialize_request(&key).unwrap().der().to_vec();
    (key, der)
}

#[test]
fn the_authority_is_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = authority(dir.path());
    let again = Authority::open_or_create(dir.path(), "another name", NOW.plus(DAY)).unwrap();
    assert_eq!(first.fingerprint(), again.fingerprint());
    let mode = std::fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_agent_gets_its_own_name_whatever_it_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (key, csr) = request();
    let agent = AgentId([7; 16]);
    let issued = authority(dir.path()).sign_agent(&csr, agent, NOW, Millis(30 * DAY.0)).unwrap();
    let facts = CertificateFacts::read(&issued.der).unwrap();
    assert_eq!((facts.agent, agent_of(&issued.der)), (Some(agent), Some(agent)));
    assert_eq!((facts.serial, facts.not_after), (issued.serial, NOW.plus(Millis(30 * DAY.0))));
    assert_eq!(facts.not_before, NOW.plus(Millis(-CLOCK_SKEW.0)));
    assert_eq!(facts.public_key, key.public_key_raw());
    assert!(facts.names.is_empty(), "{:?}", facts.names);
    assert!(!certificate::may_sign(&issued.der));
}

#[test]
fn no_two_certificates_have_the_same_number() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let (_, csr) = request();
    let serials: std::collections::BTreeSet<_> =
        (0..50).map(|_| authority.sign_agent(&csr, AgentId([7; 16]), NOW, DAY).unwrap().serial).collect();
    assert_eq!(serials.len(), 50);
}

#[test]
fn no_certificate_outlives_the_authority() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let (_, csr) = request();
    let late = authority.not_after().plus(Millis(-DAY.0));
    let issued = authority.sign_agent(&csr, AgentId([7; 16]), late, Millis(30 * DAY.0)).unwrap();
    assert_eq!(issued.not_after, authority.not_after());
    for (now, valid) in [(authority.not_after(), DAY), (NOW, Millis(0)), (NOW, Millis(-1)), (UtcTime(0), DAY)] {
        let refused = authority.sign_agent(&csr, AgentId([7; 16]), now, valid);
        assert!(matches!(refused, Err(PkiError::Validity { .. })), "{now} {valid:?}: {refused:?}");
    }
    let refused = Authority::open_or_create(dir.path(), "x", authority.not_after()).unwrap_err();
    assert!(refused.to_string().contains("expired on"), "{refused}");
}

#[test]
fn a_key_that_others_can_read_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let key = dir.path().join(KEY_FILE);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = Authority::open_or_create(dir.path(), "Peil test", NOW).unwrap_err().to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
}

#[test]
fn a_crash_between_key_and_certificate_is_made_good() {
    let dir = tempfile::tempdir().unwrap();
    let before = CertificateFacts::read(authority(dir.path()).certificate()).unwrap().public_key;
    std::fs::remove_file(dir.path().join(CERTIFICATE_FILE)).unwrap();
    let after = CertificateFacts::read(authority(dir.path()).certificate()).unwrap().public_key;
    assert_eq!(before, after);
}

#[test]
fn a_lost_key_is_not_replaced_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    std::fs::remove_file(dir.path().join(KEY_FILE)).unwrap();
    let refused = Authority::open_or_create(dir.path(), "Peil test", NOW).unwrap_err();
    assert!(matches!(refused, PkiError::KeyMissing { .. }), "{refused}");
}

#[test]
fn another_authoritys_key_is_refused() {
    let (mine, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    authority(mine.path());
    authority(theirs.path());
    let refused = Authority::open(mine.path(), &mine.path().join(CERTIFICATE_FILE), &theirs.path().join(KEY_FILE), NOW);
    assert!(refused.unwrap_err().to_string().contains("belongs to another certificate"));
}

#[test]
fn your_own_authority_serves_with_its_subject_as_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CountryName, rcgen::DnValue::PrintableString("NL".try_into().unwrap()));
    subject.push(DnType::OrganizationName, rcgen::DnValue::TeletexString("Example".try_into().unwrap()));
    subject.push(DnType::CommonName, "Ünser CA");
    params.distinguished_name = subject;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    set_validity(&mut params, NOW, NOW.plus(DAY)).unwrap();
    let (certificate, key_file) = (dir.path().join("own.pem"), dir.path().join("own.key"));
    std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    keyfile::write(&key_file, key.serialize_pem().as_bytes(), Readers::OwnerOnly).unwrap();
    let own = Authority::open(&dir.path().join("keep"), &certificate, &key_file, NOW).unwrap();
    let server = own.server_certificate(&["peil.example".to_owned()], NOW).unwrap();
    assert_eq!(server.chain.get(1), Some(own.certificate()));
    assert_eq!(server.not_after, NOW.plus(DAY));
}

#[test]
fn a_leaf_cannot_be_the_authority() {
    let dir = tempfile::tempdir().unwrap();
    let leaf = rcgen::generate_simple_self_signed(["peil.example".to_owned()]).unwrap();
    let (certificate, key) = (dir.path().join("leaf.pem"), dir.path().join("leaf.key"));
    std::fs::write(&certificate, leaf.cert.pem()).unwrap();
    keyfile::write(&key, leaf.signing_key.serialize_pem().as_bytes(), Readers::OwnerOnly).unwrap();
    let refused = Authority::open(dir.path(), &certificate, &key, NOW).unwrap_err().to_string();
    assert!(refused.contains("not a certificate of an authority"), "{refused}");
}

#[test]
fn a_server_certificate_is_kept_until_two_thirds_of_its_life() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let names = ["Peil.example".to_owned(), "::1".to_owned(), "127.0.0.1".to_owned()];
    let leaf = |names: &[String], now| authority.server_certificate(names, now).unwrap().chain[0].clone();
    let first = leaf(&names, NOW);
    let facts = CertificateFacts::read(&first).unwrap();
    assert_eq!(facts.names, ["127.0.0.1", "::1", "peil.example"]);
    assert_eq!(agent_of(&first), None);
    assert_eq!(leaf(&names, NOW.plus(Millis(59 * DAY.0))), first);
    let renewed = leaf(&names, NOW.plus(Millis(61 * DAY.0)));
    assert_ne!(renewed, first);
    assert_ne!(leaf(&names[..1], NOW.plus(Millis(61 * DAY.0))), renewed, "other names, other certificate");
}

#[test]
fn a_damaged_or_foreign_server_certificate_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["peil.example".to_owned()];
    let first = authority(dir.path()).server_certificate(&names, NOW).unwrap();
    std::fs::write(dir.path().join("server.pem"), "half a fi").unwrap();
    let second = authority(dir.path()).server_certificate(&names, NOW).unwrap();
    assert_ne!(first.chain, second.chain);
    for file in [CERTIFICATE_FILE, KEY_FILE] {
        std::fs::remove_file(dir.path().join(file)).unwrap();
    }
    let third = authority(dir.path()).server_certificate(&names, NOW).unwrap();
    assert_eq!(third.chain.get(1), Some(authority(dir.path()).certificate()));
}

#[test]
fn a_name_nobody_can_ask_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    for names in [vec![], vec![String::new()], vec!["https://x".to_owned()], vec!["a b".to_owned()]] {
        let refused = authority.server_certificate(&names, NOW);
        assert!(matches!(refused, Err(PkiError::Name { .. })), "{names:?}");
    }
    for name in [String::new(), "n".repeat(65)] {
        let fresh = tempfile::tempdir().unwrap();
        assert!(matches!(Authority::open_or_create(fresh.path(), &name, NOW), Err(PkiError::Name { .. })));
    }
}
