//! Servers that will not do, each told in one clear sentence that says what to change.

use std::error::Error as _;

use peil_test_postgres::{Care, Server, shared};
use rcgen::{CertificateParams, KeyPair};

use super::server_place;
use crate::store::place::Beside;
use crate::store::{Place, Store, StoreError};

fn refused(url: &str, beside: Beside) -> StoreError {
    Store::connect(&Place::parse(url, beside).unwrap()).unwrap_err()
}

/// The sentence and its causes, as an operator sees them.
fn told(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

fn accepting(settings: &[&str]) -> Beside {
    Beside { accepts: settings.iter().map(|&setting| setting.to_owned()).collect(), ..Beside::default() }
}

#[test]
fn a_server_that_would_lose_commits_is_refused_setting_by_setting_until_each_is_named() {
    let url = shared().fresh_schema();
    let weak = ["fsync=off", "full_page_writes=off", "synchronous_commit=off"];
    for named in 0..weak.len() {
        let error = refused(&url, accepting(&weak[..named]));
        let (setting, _) = weak[named].split_once('=').unwrap();
        assert!(matches!(&error, StoreError::WeakServer { setting: found, .. } if *found == setting), "{error:?}");
        let text = told(&error);
        assert!(
            text.contains("does not keep what it commits") && text.contains(&format!("\"{}\"", weak[named])),
            "{text}"
        );
    }
    Store::connect(&Place::parse(&url, accepting(&weak)).unwrap()).unwrap();
}

#[test]
fn a_standby_alone_is_refused_and_beside_its_primary_it_is_passed_over() {
    let primary = Server::start(Care::Quick, &[]);
    Store::connect(&server_place(&primary.url())).unwrap();
    let standby = primary.replica();
    let error = refused(&standby.url(), accepting(&["fsync=off", "full_page_writes=off", "synchronous_commit=off"]));
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    assert!(told(&error).contains("takes no writes: it is a standby"), "{}", told(&error));
    let both = |attributes: &str| {
        format!("postgres://peil@127.0.0.1:{},127.0.0.1:{}/peil{attributes}", standby.port(), primary.port())
    };
    Store::connect(&server_place(&both("?target_session_attrs=read-write"))).unwrap();
    let alone =
        Store::connect(&server_place(&format!("{}?target_session_attrs=read-write", standby.url()))).unwrap_err();
    let text = told(&alone);
    assert!(matches!(alone, StoreError::Connect { .. }) && text.contains("does not allow writes"), "{text}");
}

#[test]
fn a_wrong_password_and_an_unknown_database_are_told() {
    let server = Server::start(Care::Quick, &[]);
    server.sql("postgres", "CREATE ROLE guest LOGIN PASSWORD 'right'");
    server.admit("host all guest 127.0.0.1/32 scram-sha-256");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "wrong\n").unwrap();
    let url = |user: &str, database: &str| format!("postgres://{user}@127.0.0.1:{}/{database}", server.port());
    let with_file = || Beside { password_file: Some(file.clone()), ..Beside::default() };
    let text = told(&refused(&url("guest", "peil"), with_file()));
    assert!(
        text.contains("cannot connect") && text.contains("password authentication failed for user \"guest\""),
        "{text}"
    );
    assert!(!text.contains("wrong"), "the password is not shown: {text}");
    let text = told(&refused(&url("guest", "peil"), Beside::default()));
    assert!(text.contains("password"), "{text}");
    std::fs::remove_file(&file).unwrap();
    let text = told(&refused(&url("guest", "peil"), with_file()));
    assert!(text.contains(&file.display().to_string()) && text.contains("cannot be read"), "{text}");
    let text = told(&refused(&url("peil", "nowhere"), Beside::default()));
    assert!(text.contains("database \"nowhere\" does not exist"), "{text}");
}

#[test]
fn a_server_without_tls_and_one_with_a_certificate_of_another_authority_are_told() {
    let server = Server::start(Care::Quick, &[]);
    let url = format!("postgres://peil@localhost:{}/peil?sslmode=require", server.port());
    let text = told(&refused(&url, Beside::default()));
    assert!(text.contains("TLS"), "{text}");

    let (ours, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let signed =
        |key: &KeyPair| CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(key).unwrap();
    server.speak_tls(&signed(&ours).pem(), &ours.serialize_pem());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let trusting = |key| {
        std::fs::write(&file, signed(key).pem()).unwrap();
        Beside {
            ca_file: Some(file.clone()),
            ..accepting(&["fsync=off", "full_page_writes=off", "synchronous_commit=off"])
        }
    };
    let text = told(&refused(&url, trusting(&other)));
    assert!(text.contains("certificate"), "{text}");
    let text = told(&refused(&url, Beside::default()));
    assert!(text.contains("certificate") && text.contains("UnknownIssuer"), "{text}");
    std::fs::write(&file, "not a certificate").unwrap();
}
