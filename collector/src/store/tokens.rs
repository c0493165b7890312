//! Enrolment tokens: each admits one agent, once.
//!
//! Kept as the SHA-256 of the secret; the secret itself is shown once by whoever made it. Redeeming marks
//! the token used and makes the agent's row in one transaction of the one writer (and, between processes,
//! under the database's write lock), so of two that race exactly one wins and the other is told when the
//! token was used.

use peil_proto::ids::AgentId;
use peil_proto::time::UtcTime;

use super::agents::{self, NewAgent};
use super::db::{self, Connection, OptionalExtension, Row};
use super::{Store, StoreError, audit, cells};

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// SHA-256 of the secret; names the token.
    pub hash: [u8; 32],
    /// What it is for, in the maker's words.
    pub label: String,
    /// Group the agent will be in.
    pub group: String,
    /// When it was made.
    pub created_at: UtcTime,
    /// By whom.
    pub created_by: String,
    /// From when on it is refused.
    pub expires_at: UtcTime,
    /// When it admitted an agent, and which.
    pub used: Option<(UtcTime, AgentId)>,
    /// When it was withdrawn.
    pub revoked_at: Option<UtcTime>,
}

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// What it is for, in the maker's words.
    pub label: String,
    /// Group the agent will be in.
    pub group: String,
    /// Now.
    pub created_at: UtcTime,
    /// From when on it is refused.
    pub expires_at: UtcTime,
}

/// Why a token admits nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// Nobody made it here.
    #[error("this enrolment token was not made by this collector")]
    Unknown,
    /// Its time is over.
    #[error("this enrolment token expired at {at}")]
    Expired {
        /// Since when.
        at: UtcTime,
    },
    /// It has admitted an agent.
    #[error("this enrolment token was used at {at}; each admits one agent")]
    Used {
        /// When.
        at: UtcTime,
    },
    /// It was withdrawn.
    #[error("this enrolment token was withdrawn at {at}")]
    Revoked {
        /// When.
        at: UtcTime,
    },
}

/// Why redeeming failed: the token, or the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedeemError {
    /// The token admits nobody; nothing was written.
    #[error(transparent)]
    Refused(#[from] TokenRefusal),
    /// The store could not; the token is as it was.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Makes a token.
    ///
    /// # Errors
    /// As every write.
    pub async fn create_token(&self, token: NewToken, by: &str) -> Result<(), StoreError> {
        let by = by.to_owned();
        self.write("make an enrolment token", move |db| {
            db.execute(
                "INSERT INTO token (hash, label, host_group, created_at, created_by, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                (token.hash, &token.label, &token.group, token.created_at.0, &by, token.expires_at.0),
            )?;
            let detail = format!("{} {:?} group {:?}", short(&token.hash), token.label, token.group);
            audit::enter(db, token.created_at, &by, "token.create", &detail)
        })
        .await
    }

    /// Uses up a token and admits the agent, or neither.
    ///
    /// # Errors
    /// [`RedeemError::Refused`] with the reason; [`RedeemError::Store`] as every write.
    pub async fn redeem_token(&self, hash: [u8; 32], now: UtcTime, agent: NewAgent) -> Result<(), RedeemError> {
        let redeemed = self.write("redeem an enrolment token", move |db| {
            let token = match find(db, &hash)?.ok_or(TokenRefusal::Unknown).and_then(|token| usable(token, now)) {
                Ok(token) => token,
                Err(refusal) => return Ok(Err(refusal)),
            };
            agents::insert(db, &agent, &token.group, now)?;
            db.execute("UPDATE token SET used_at = ?2, used_by = ?3 WHERE hash = ?1", (hash, now.0, agent.agent.0))?;
            let detail = format!("{} with token {} {:?}", agent.hostname, short(&hash), token.label);
            audit::enter(db, now, &format!("agent {}", agent.agent), "agent.enrol", &detail)?;
            Ok(Ok(()))
        });
        Ok(redeemed.await??)
    }

    /// Every token ever made, newest first.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        self.read("list the enrolment tokens", |db| {
            let mut ask = db.prepare_cached(
                "SELECT hash, label, host_group, created_at, created_by, expires_at, used_at, used_by, revoked_at
                 FROM token ORDER BY created_at DESC, hash",
            )?;
            let rows = ask.query_map((), token_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Withdraws a token. A used or withdrawn one stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and as every write.
    pub async fn revoke_token(&self, hash: [u8; 32], at: UtcTime, by: &str) -> Result<(), StoreError> {
        let by = by.to_owned();
        self.write("withdraw an enrolment token", move |db| {
            let found = find(db, &hash)?;
            let token = found.ok_or_else(|| StoreError::NotFound { what: "enrolment token", name: short(&hash) })?;
            if token.used.is_some() || token.revoked_at.is_some() {
                return Ok(());
            }
            db.execute("UPDATE token SET revoked_at = ?2 WHERE hash = ?1", (hash, at.0))?;
            audit::enter(db, at, &by, "token.revoke", &format!("{} {:?}", short(&hash), token.label))
        })
        .await
    }
}

/// The first reason why not, the most final one first.
fn usable(token: TokenRow, now: UtcTime) -> Result<TokenRow, TokenRefusal> {
    if let Some((at, _)) = token.used {
        return Err(TokenRefusal::Used { at });
    }
    if let Some(at) = token.revoked_at {
        return Err(TokenRefusal::Revoked { at });
    }
    if now >= token.expires_at {
        return Err(TokenRefusal::Expired { at: token.expires_at });
    }
    Ok(token)
}

fn find(db: &Connection, hash: &[u8; 32]) -> db::Result<Option<TokenRow>> {
    let mut ask = db.prepare_cached(
        "SELECT hash, label, host_group, created_at, created_by, expires_at, used_at, used_by, revoked_at
         FROM token WHERE hash = ?1",
    )?;
    ask.query_row([hash], token_row).optional()
}

fn token_row(row: &Row<'_>) -> db::Result<TokenRow> {
    let used_by: Option<[u8; 16]> = row.get(7)?;
    Ok(TokenRow {
        hash: row.get(0)?,
        label: row.get(1)?,
        group: row.get(2)?,
        created_at: cells::time(row, 3)?,
        created_by: row.get(4)?,
        expires_at: cells::time(row, 5)?,
        used: cells::time_or_none(row, 6)?.zip(used_by.map(AgentId)),
        revoked_at: cells::time_or_none(row, 8)?,
    })
}

/// Enough of a hash to tell tokens apart in a log.
pub(super) fn short(hash: &[u8; 32]) -> String {
    data_encoding::HEXLOWER.encode(hash.get(..6).unwrap_or_default())
}
