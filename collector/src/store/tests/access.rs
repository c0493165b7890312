//! Users, sessions and API tokens.

use peil_proto::time::UtcTime;

use super::on_both;
use crate::store::access::{ApiTokenRow, SessionRow};
use crate::store::{Store, StoreError};

on_both!(
    a_new_password_ends_every_session_of_that_user_and_of_no_other,
    sessions_live_while_used_and_go_when_over_or_idle,
    api_tokens_are_found_by_hash_note_their_use_and_can_be_removed,
);

fn session(no: u8, user: &str, last_used: i64, expires_at: i64) -> SessionRow {
    SessionRow {
        hash: [no; 32],
        user: user.to_owned(),
        created_at: UtcTime(1),
        last_used: UtcTime(last_used),
        expires_at: UtcTime(expires_at),
    }
}

async fn a_new_password_ends_every_session_of_that_user_and_of_no_other(store: Store) {
    assert_eq!(store.user("anna").await.unwrap(), None);
    for name in ["anna", "bert"] {
        store.set_password(name, "$argon2id$old", "admin", UtcTime(1), "setup").await.unwrap();
        store.create_session(session(name.as_bytes()[0], name, 5, 100)).await.unwrap();
    }
    store.set_password("anna", "$argon2id$new", "viewer", UtcTime(9), "bert").await.unwrap();
    let anna = store.user("anna").await.unwrap().unwrap();
    assert_eq!((anna.hash.as_str(), anna.role.as_str(), anna.changed_at), ("$argon2id$new", "viewer", UtcTime(9)));
    assert_eq!(store.find_session([b'a'; 32]).await.unwrap(), None);
    assert_eq!(store.find_session([b'b'; 32]).await.unwrap(), Some(session(b'b', "bert", 5, 100)));
    let entry = store.audit_tail(1).await.unwrap().remove(0);
    assert_eq!((entry.who.as_str(), entry.what.as_str()), ("bert", "user.set_password"));
    assert!(!entry.detail.contains("argon2id"), "no hash in the log: {}", entry.detail);
}

async fn sessions_live_while_used_and_go_when_over_or_idle(store: Store) {
    let nobody = store.create_session(session(1, "nobody", 5, 100)).await;
    assert!(matches!(nobody, Err(StoreError::NotFound { what: "user", .. })));
    store.set_password("anna", "hash", "admin", UtcTime(1), "setup").await.unwrap();
    for (no, last_used, expires_at) in [(1, 50, 100), (2, 10, 100), (3, 50, 60), (4, 10, 100)] {
        store.create_session(session(no, "anna", last_used, expires_at)).await.unwrap();
    }
    store.touch_session([4; 32], UtcTime(55)).await.unwrap();
    store.touch_session([4; 32], UtcTime(20)).await.unwrap();
    store.touch_session([9; 32], UtcTime(55)).await.unwrap();
    assert_eq!(store.expire_sessions(UtcTime(60), UtcTime(30)).await.unwrap(), 2);
    for (no, there) in [(1, true), (2, false), (3, false), (4, true)] {
        assert_eq!(store.find_session([no; 32]).await.unwrap().is_some(), there, "session {no}");
    }
    assert_eq!(store.find_session([4; 32]).await.unwrap().unwrap().last_used, UtcTime(55));
    store.delete_session([1; 32]).await.unwrap();
    store.delete_session([1; 32]).await.unwrap();
    assert_eq!(store.find_session([1; 32]).await.unwrap(), None);
}

async fn api_tokens_are_found_by_hash_note_their_use_and_can_be_removed(store: Store) {
    let mut token = ApiTokenRow {
        hash: [7; 32],
        label: "grafana".to_owned(),
        role: "viewer".to_owned(),
        created_at: UtcTime(1),
        expires_at: None,
        last_used: None,
    };
    store.add_api_token(token.clone(), "anna").await.unwrap();
    assert_eq!(store.find_api_token([7; 32]).await.unwrap(), Some(token.clone()));
    store.touch_api_token([7; 32], UtcTime(8)).await.unwrap();
    store.touch_api_token([7; 32], UtcTime(5)).await.unwrap();
    token.last_used = Some(UtcTime(8));
    assert_eq!(store.api_tokens().await.unwrap(), [token]);
    store.delete_api_token([7; 32], UtcTime(9), "anna").await.unwrap();
    assert_eq!(store.find_api_token([7; 32]).await.unwrap(), None);
    let gone = store.delete_api_token([7; 32], UtcTime(9), "anna").await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
    let log: Vec<String> = store.audit_tail(9).await.unwrap().into_iter().map(|entry| entry.what).collect();
    assert_eq!(log, ["api_token.delete", "api_token.create"], "what failed is not in the log");
}
