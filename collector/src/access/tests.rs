//! Who gets in, and who no longer does.

use std::net::Ipv4Addr;

use super::*;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const START: UtcTime = UtcTime(1_795_000_000_000);
const CHEAP: PasswordCost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };

async fn access() -> (Access, WallClock) {
    let clock = WallClock::manual(START);
    let access = Access::new(AccessStore::memory(), clock.clone(), CHEAP).expect("random bytes");
    access.set_password("admin", Role::Admin, "horse").await.expect("set");
    (access, clock)
}

#[tokio::test]
async fn a_session_ends_by_logout_idleness_age_and_a_new_password() {
    let (access, clock) = access().await;
    let lives = async |secret: &str| access.by_session(secret).await.expect("store").is_some();

    let out = access.log_in("admin", "horse", PEER).await.expect("in").secret;
    assert!(lives(&out).await);
    access.log_out(&out).await.expect("out");
    assert!(!lives(&out).await);

    let idle = access.log_in("admin", "horse", PEER).await.expect("in").secret;
    clock.set(START.plus(SESSION_IDLE));
    assert!(!lives(&idle).await);

    clock.set(START);
    let busy = access.log_in("admin", "horse", PEER).await.expect("in").secret;
    for hour in 1..24 {
        clock.set(START.plus(Millis(hour * Millis::HOUR.0)));
        assert!(lives(&busy).await, "hour {hour}");
    }
    clock.set(START.plus(SESSION_AGE));
    assert!(!lives(&busy).await);

    let old = access.log_in("admin", "horse", PEER).await.expect("in").secret;
    access.set_password("admin", Role::Admin, "donkey").await.expect("set");
    assert!(!lives(&old).await);
}

#[tokio::test]
async fn asking_whether_a_session_lives_does_not_keep_it_alive() {
    let (access, clock) = access().await;
    let secret = access.log_in("admin", "horse", PEER).await.expect("in").secret;
    clock.set(START.plus(Millis(SESSION_IDLE.0 - 1)));
    assert!(access.session_lives(hash_secret(&secret)).await.expect("store"));
    clock.set(START.plus(SESSION_IDLE));
    assert!(!access.session_lives(hash_secret(&secret)).await.expect("store"));
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_are_refused_alike_and_then_slowed() {
    let (access, clock) = access().await;
    for name in ["admin", "nobody", "admin", "admin", "admin"] {
        assert!(matches!(access.log_in(name, "wrong", PEER).await, Err(Refusal::Wrong)), "{name}");
    }
    assert!(matches!(access.log_in("admin", "wrong", PEER).await, Err(Refusal::Wrong)));
    let refused = access.log_in("admin", "horse", PEER).await;
    assert!(matches!(refused, Err(Refusal::TooMany { wait_s: 2 })), "{refused:?}");
    clock.set(START.plus(Millis::from_secs(2)));
    assert!(access.log_in("admin", "horse", PEER).await.is_ok());
}

#[tokio::test]
async fn api_tokens_work_until_they_expire_and_only_whole() {
    let (access, clock) = access().await;
    let end = START.plus(Millis::DAY);
    let token = access.issue_api_token("grafana", Role::Viewer, Some(end)).await.expect("issued");
    let who = access.by_api_token(&token).await.expect("store").expect("known");
    assert_eq!((who.name.as_str(), who.role), ("grafana", Role::Viewer));
    for wrong in [&token[..token.len() - 1], &token[5..], "peil_", ""] {
        assert!(access.by_api_token(wrong).await.expect("store").is_none(), "{wrong}");
    }
    clock.set(end);
    assert!(access.by_api_token(&token).await.expect("store").is_none());
}

#[tokio::test]
async fn a_remembered_password_is_void_once_it_was_changed() {
    let (access, _) = access().await;
    assert!(access.by_password("admin", "horse", PEER).await.is_ok());
    assert!(access.by_password("admin", "horse", PEER).await.is_ok());
    access.set_password("admin", Role::Admin, "donkey").await.expect("set");
    assert!(matches!(access.by_password("admin", "horse", PEER).await, Err(Refusal::Wrong)));
    assert!(access.by_password("admin", "donkey", PEER).await.is_ok());
}

#[tokio::test]
async fn scrapes_do_not_hash_again_while_strangers_are_being_slowed() {
    let (access, clock) = access().await;
    assert!(access.by_password("admin", "horse", PEER).await.is_ok());
    for _ in 0..12 {
        let _ = access.by_password("admin", "wrong", PEER).await;
    }
    assert!(matches!(access.by_password("admin", "wrong", PEER).await, Err(Refusal::TooMany { .. })));
    assert!(access.by_password("admin", "horse", PEER).await.is_ok(), "the verified one is remembered");
    clock.set(START.plus(BASIC_CACHE));
    assert!(access.by_password("admin", "horse", PEER).await.is_ok(), "and verified anew afterwards");
}
