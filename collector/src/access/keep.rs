//! Where users, sessions and API tokens are kept: the one place to delegate to the store.
//!
//! Each function is one statement of SQL later. [`AccessStore::Memory`] serves tests and previews and
//! forgets at exit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use peil_proto::time::UtcTime;

use super::{AccessError, Role, SESSION_AGE, SecretHash, lock};

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

#[expect(clippy::unused_async, reason = "the store that follows answers asynchronously")]
impl AccessStore {
    /// An empty store in memory.
    pub fn memory() -> Self {
        Self::Memory(MemoryAccess::default())
    }

    /// The user of this name.
    pub(super) async fn user(&self, name: &str) -> Result<Option<UserRow>, AccessError> {
        match self {
            Self::Memory(maps) => Ok(lock(&maps.0).users.get(name).cloned()),
        }
    }

    /// Creates or replaces the user and ends all their sessions, in one transaction.
    pub(super) async fn set_password(&self, name: &str, user: UserRow) -> Result<(), AccessError> {
        match self {
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
            Self::Memory(maps) => Ok(lock(&maps.0).sessions.get(&hash).cloned()),
        }
    }

    /// Notes the use of a session.
    pub(super) async fn touch_session(&self, hash: SecretHash, at: UtcTime) -> Result<(), AccessError> {
        match self {
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
            Self::Memory(maps) => {
                lock(&maps.0).sessions.remove(&hash);
                Ok(())
            }
        }
    }

    /// The API token with this hash.
    pub(super) async fn find_api_token(&self, hash: SecretHash) -> Result<Option<ApiTokenRow>, AccessError> {
        match self {
            Self::Memory(maps) => Ok(lock(&maps.0).tokens.get(&hash).cloned()),
        }
    }

    /// Keeps an API token.
    pub(super) async fn add_api_token(&self, hash: SecretHash, row: ApiTokenRow) -> Result<(), AccessError> {
        match self {
            Self::Memory(maps) => {
                lock(&maps.0).tokens.insert(hash, row);
                Ok(())
            }
        }
    }
}
