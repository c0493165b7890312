//! Where users, sessions and API tokens are kept: in the collector's store.
//!
//! [`AccessStore::Memory`] serves tests and previews and forgets at exit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use peil_proto::time::UtcTime;

use super::{AccessError, Role, SESSION_AGE, SecretHash, lock};
use crate::store::{Store, StoreError, access};

/// Who changes users and tokens, in the audit log; the command line is the only way to do it so far.
const OPERATOR: &str = "command line";

fn failed(attempt: &'static str) -> impl FnOnce(StoreError) -> AccessError {
    move |source| AccessError::Store { attempt, source: Box::new(source) }
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// PHC string of the password.
    pub hash: String,
    /// What they may do.
    pub role: Role,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Whose.
    pub user: String,
    /// Log-in.
    pub created_at: UtcTime,
    /// Last request, to the minute.
    pub last_used: UtcTime,
}

/// An API token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiTokenRow {
    /// What it is for.
    pub label: String,
    /// What it may do.
    pub role: Role,
    /// End; `None` never.
    pub expires_at: Option<UtcTime>,
}

/// Keeps users, sessions and API tokens.
#[derive(Debug, Clone)]
pub enum AccessStore {
    /// In this process only.
    Memory(MemoryAccess),
    /// In the collector's store.
    Store(Store),
}

/// Maps behind a lock that is never held across an await.
#[derive(Debug, Clone, Default)]
pub struct MemoryAccess(Arc<Mutex<Maps>>);

#[derive(Debug, Default)]
struct Maps {
    users: BTreeMap<String, UserRow>,
    sessions: BTreeMap<SecretHash, SessionRow>,
    tokens: BTreeMap<SecretHash, ApiTokenRow>,
}

impl AccessStore {
    /// An empty store in memory.
    pub fn memory() -> Self {
        Self::Memory(MemoryAccess::default())
    }

    /// The user of this name.
    pub(super) async fn user(&self, name: &str) -> Result<Option<UserRow>, AccessError> {
        match self {
            Self::Store(store) => {
                let row = store.user(name).await.map_err(failed("look up a user"))?;
                Ok(row.and_then(|row| Some(UserRow { role: Role::from_word(&row.role)?, hash: row.hash })))
            }
            Self::Memory(maps) => Ok(lock(&maps.0).users.get(name).cloned()),
        }
    }

    /// Creates or replaces the user and ends all their sessions, in one transaction.
    pub(super) async fn set_password(&self, name: &str, user: UserRow, at: UtcTime) -> Result<(), AccessError> {
        match self {
            Self::Store(store) => {
                let set = store.set_password(name, &user.hash, user.role.word(), at, OPERATOR).await;
                set.map_err(failed("set a password"))
            }
            Self::Memory(maps) => {
                let mut maps = lock(&maps.0);
                maps.users.insert(name.to_owned(), user);
                maps.sessions.retain(|_, session| session.user != name);
                Ok(())
            }
        }
    }

    /// Keeps a session, and drops those that are past [`SESSION_AGE`].
    pub(super) async fn create_session(&self, hash: SecretHash, row: SessionRow) -> Result<(), AccessError> {
        match self {
            Self::Store(store) => {
                let SessionRow { user, created_at, last_used } = row;
                let expires_at = created_at.plus(SESSION_AGE);
                let row = access::SessionRow { hash, user, created_at, last_used, expires_at };
                store.create_session(row).await.map_err(failed("begin a session"))
            }
            Self::Memory(maps) => {
                let mut maps = lock(&maps.0);
                maps.sessions.retain(|_, old| row.created_at.since(old.created_at) < SESSION_AGE);
                maps.sessions.insert(hash, row);
                Ok(())
            }
        }
    }

    /// The session with this hash, ended or not: the caller judges by its times.
    pub(super) async fn find_session(&self, hash: SecretHash) -> Result<Option<SessionRow>, AccessError> {
        match self {
            Self::Store(store) => {
                let row = store.find_session(hash).await.map_err(failed("look up a session"))?;
                Ok(row.map(|row| SessionRow { user: row.user, created_at: row.created_at, last_used: row.last_used }))
            }
            Self::Memory(maps) => Ok(lock(&maps.0).sessions.get(&hash).cloned()),
        }
    }

    /// Notes the use of a session.
    pub(super) async fn touch_session(&self, hash: SecretHash, at: UtcTime) -> Result<(), AccessError> {
        match self {
            Self::Store(store) => store.touch_session(hash, at).await.map_err(failed("note the use of a session")),
            Self::Memory(maps) => {
                if let Some(session) = lock(&maps.0).sessions.get_mut(&hash) {
                    session.last_used = at;
                }
                Ok(())
            }
        }
    }

    /// Ends a session; one that is not there is no error.
    pub(super) async fn delete_session(&self, hash: SecretHash) -> Result<(), AccessError> {
        match self {
            Self::Store(store) => store.delete_session(hash).await.map_err(failed("end a session")),
            Self::Memory(maps) => {
                lock(&maps.0).sessions.remove(&hash);
                Ok(())
            }
        }
    }

    /// The API token with this hash.
    pub(super) async fn find_api_token(&self, hash: SecretHash) -> Result<Option<ApiTokenRow>, AccessError> {
        match self {
            Self::Store(store) => {
                let row = store.find_api_token(hash).await.map_err(failed("look up an API token"))?;
                let known = |row: access::ApiTokenRow| {
                    Some(ApiTokenRow {
                        role: Role::from_word(&row.role)?,
                        label: row.label,
                        expires_at: row.expires_at,
                    })
                };
                Ok(row.and_then(known))
            }
            Self::Memory(maps) => Ok(lock(&maps.0).tokens.get(&hash).cloned()),
        }
    }

    /// Keeps an API token.
    pub(super) async fn add_api_token(
        &self,
        hash: SecretHash,
        row: ApiTokenRow,
        at: UtcTime,
    ) -> Result<(), AccessError> {
        match self {
            Self::Store(store) => {
                let (label, role, expires_at) = (row.label, row.role.word().to_owned(), row.expires_at);
                let row = access::ApiTokenRow { hash, label, role, created_at: at, expires_at, last_used: None };
                store.add_api_token(row, OPERATOR).await.map_err(failed("make an API token"))
            }
            Self::Memory(maps) => {
                lock(&maps.0).tokens.insert(hash, row);
                Ok(())
            }
        }
    }
}
