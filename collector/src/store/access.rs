//! People, their sessions, and tokens of programs. Only hashes are kept.
//!
//! What a password must be, when a session has been idle too long and what a role may do is decided by the
//! callers; here it is only kept.

use peil_proto::time::UtcTime;

use super::db::{self, OptionalExtension, Row};
use super::tokens::short;
use super::{Store, StoreError, audit, cells};

/// Somebody who can sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// Name to sign in with.
    pub name: String,
    /// Password, argon2id in PHC form.
    pub hash: String,
    /// Role, by its word.
    pub role: String,
    /// When password or role changed last.
    pub changed_at: UtcTime,
}

/// A session in a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// SHA-256 of what the cookie holds.
    pub hash: [u8; 32],
    /// Whose.
    pub user: String,
    /// When it began.
    pub created_at: UtcTime,
    /// When it was used last.
    pub last_used: UtcTime,
    /// When it ends at the latest.
    pub expires_at: UtcTime,
}

/// A token of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiTokenRow {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// What it is for.
    pub label: String,
    /// Role, by its word.
    pub role: String,
    /// When it was made.
    pub created_at: UtcTime,
    /// From when on it is refused; `None` for never.
    pub expires_at: Option<UtcTime>,
    /// When it was used last.
    pub last_used: Option<UtcTime>,
}

const SESSION: &str = "hash, person, created_at, last_used, expires_at";
const API_TOKEN: &str = "hash, label, role, created_at, expires_at, last_used";

impl Store {
    /// The user of this name.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn user(&self, name: &str) -> Result<Option<UserRow>, StoreError> {
        let name = name.to_owned();
        self.read("look up a user", move |db| {
            let mut ask = db.prepare_cached("SELECT name, password, role, changed_at FROM person WHERE name = ?1")?;
            Ok(ask.query_row([&name], user_row).optional()?)
        })
        .await
    }

    /// Makes a user or gives one a new password and role. Ends all sessions of that user: whoever had the
    /// old password is out.
    ///
    /// # Errors
    /// As every write.
    pub async fn set_password(
        &self,
        name: &str,
        hash: &str,
        role: &str,
        at: UtcTime,
        by: &str,
    ) -> Result<(), StoreError> {
        let [name, hash, role, by] = [name, hash, role, by].map(str::to_owned);
        self.write("set a password", move |db| {
            db.execute(
                "INSERT INTO person (name, password, role, changed_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (name) DO UPDATE SET
                   password = excluded.password, role = excluded.role, changed_at = excluded.changed_at",
                (&name, &hash, &role, at.0),
            )?;
            db.execute("DELETE FROM session WHERE person = ?1", [&name])?;
            audit::enter(db, at, &by, "user.set_password", &format!("{name} role {role}"))
        })
        .await
    }

    /// Everybody who can sign in, by name.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn users(&self) -> Result<Vec<UserRow>, StoreError> {
        self.read("list the users", |db| {
            let mut ask = db.prepare_cached("SELECT name, password, role, changed_at FROM person ORDER BY name")?;
            Ok(ask.query_map((), user_row)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Removes a user and ends all sessions of that user.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and as every write.
    pub async fn remove_user(&self, name: &str, at: UtcTime, by: &str) -> Result<(), StoreError> {
        let [name, by] = [name, by].map(str::to_owned);
        self.write("remove a user", move |db| {
            db.execute("DELETE FROM session WHERE person = ?1", [&name])?;
            if db.execute("DELETE FROM person WHERE name = ?1", [&name])? == 0 {
                return Err(StoreError::NotFound { what: "user", name: name.clone() }.into());
            }
            audit::enter(db, at, &by, "user.remove", &name)
        })
        .await
    }

    /// Begins a session.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such user, and as every write.
    pub async fn create_session(&self, session: SessionRow) -> Result<(), StoreError> {
        self.write("begin a session", move |db| {
            let known = db.query_row("SELECT 1 FROM person WHERE name = ?1", [&session.user], |_| Ok(())).optional()?;
            known.ok_or_else(|| StoreError::NotFound { what: "user", name: session.user.clone() })?;
            db.execute(
                &format!("INSERT INTO session ({SESSION}) VALUES (?1, ?2, ?3, ?4, ?5)"),
                (session.hash, &session.user, session.created_at.0, session.last_used.0, session.expires_at.0),
            )?;
            Ok(())
        })
        .await
    }

    /// The session with this hash, also when its time is over: that is the caller's to judge.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn find_session(&self, hash: [u8; 32]) -> Result<Option<SessionRow>, StoreError> {
        self.read("look up a session", move |db| {
            let mut ask = db.prepare_cached(&format!("SELECT {SESSION} FROM session WHERE hash = ?1"))?;
            let session = ask.query_row([hash], |row| {
                Ok(SessionRow {
                    hash: row.get(0)?,
                    user: row.get(1)?,
                    created_at: cells::time(row, 2)?,
                    last_used: cells::time(row, 3)?,
                    expires_at: cells::time(row, 4)?,
                })
            });
            Ok(session.optional()?)
        })
        .await
    }

    /// Notes that a session was used. Nothing happens when it is gone.
    ///
    /// # Errors
    /// As every write.
    pub async fn touch_session(&self, hash: [u8; 32], at: UtcTime) -> Result<(), StoreError> {
        self.write("note that a session was used", move |db| {
            db.execute("UPDATE session SET last_used = ?2 WHERE hash = ?1 AND last_used < ?2", (hash, at.0))?;
            Ok(())
        })
        .await
    }

    /// Ends a session. Nothing happens when it is gone.
    ///
    /// # Errors
    /// As every write.
    pub async fn delete_session(&self, hash: [u8; 32]) -> Result<(), StoreError> {
        self.write("end a session", move |db| {
            db.execute("DELETE FROM session WHERE hash = ?1", [hash])?;
            Ok(())
        })
        .await
    }

    /// Removes sessions that ended by `now` or were last used before `idle_since`; says how many.
    ///
    /// # Errors
    /// As every write.
    pub async fn expire_sessions(&self, now: UtcTime, idle_since: UtcTime) -> Result<usize, StoreError> {
        self.write("remove ended sessions", move |db| {
            Ok(db.execute("DELETE FROM session WHERE expires_at <= ?1 OR last_used < ?2", (now.0, idle_since.0))?)
        })
        .await
    }

    /// Makes a token for a program; `last_used` of the row is not looked at.
    ///
    /// # Errors
    /// As every write.
    pub async fn add_api_token(&self, token: ApiTokenRow, by: &str) -> Result<(), StoreError> {
        let by = by.to_owned();
        self.write("make an API token", move |db| {
            db.execute(
                "INSERT INTO api_token (hash, label, role, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                (token.hash, &token.label, &token.role, token.created_at.0, token.expires_at.map(|at| at.0)),
            )?;
            let detail = format!("{} {:?} role {}", short(&token.hash), token.label, token.role);
            audit::enter(db, token.created_at, &by, "api_token.create", &detail)
        })
        .await
    }

    /// The token with this hash, also when its time is over: that is the caller's to judge.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn find_api_token(&self, hash: [u8; 32]) -> Result<Option<ApiTokenRow>, StoreError> {
        self.read("look up an API token", move |db| {
            let mut ask = db.prepare_cached(&format!("SELECT {API_TOKEN} FROM api_token WHERE hash = ?1"))?;
            Ok(ask.query_row([hash], api_token_row).optional()?)
        })
        .await
    }

    /// Every token of a program, newest first.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn api_tokens(&self) -> Result<Vec<ApiTokenRow>, StoreError> {
        self.read("list the API tokens", |db| {
            let mut ask =
                db.prepare_cached(&format!("SELECT {API_TOKEN} FROM api_token ORDER BY created_at DESC, hash"))?;
            let rows = ask.query_map((), api_token_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Notes that a token was used. Nothing happens when it is gone.
    ///
    /// # Errors
    /// As every write.
    pub async fn touch_api_token(&self, hash: [u8; 32], at: UtcTime) -> Result<(), StoreError> {
        self.write("note that an API token was used", move |db| {
            db.execute(
                "UPDATE api_token SET last_used = ?2 WHERE hash = ?1 AND COALESCE(last_used, ?2) <= ?2",
                (hash, at.0),
            )?;
            Ok(())
        })
        .await
    }

    /// Removes a token of a program.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and as every write.
    pub async fn delete_api_token(&self, hash: [u8; 32], at: UtcTime, by: &str) -> Result<(), StoreError> {
        let by = by.to_owned();
        self.write("remove an API token", move |db| {
            if db.execute("DELETE FROM api_token WHERE hash = ?1", [hash])? == 0 {
                return Err(StoreError::NotFound { what: "API token", name: short(&hash) }.into());
            }
            audit::enter(db, at, &by, "api_token.delete", &short(&hash))
        })
        .await
    }
}

fn user_row(row: &Row<'_>) -> db::Result<UserRow> {
    Ok(UserRow { name: row.get(0)?, hash: row.get(1)?, role: row.get(2)?, changed_at: cells::time(row, 3)? })
}

fn api_token_row(row: &Row<'_>) -> db::Result<ApiTokenRow> {
    Ok(ApiTokenRow {
        hash: row.get(0)?,
        label: row.get(1)?,
        role: row.get(2)?,
        created_at: cells::time(row, 3)?,
        expires_at: cells::time_or_none(row, 4)?,
        last_used: cells::time_or_none(row, 5)?,
    })
}
