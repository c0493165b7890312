//! Which authority agents trust, which one they are being moved to, and how far they are.
//!
//! Two facts of the house, by fingerprint; the keys themselves are in each collector's directory
//! ([`crate::pki::authorities`]). Whether the old one can be given up is judged by [`crate::rotation`]; here is only
//! made sure that it still holds in the transaction that does it.

use std::collections::BTreeSet;

use peil_proto::ids::AgentId;
use peil_proto::time::UtcTime;
use peil_proto::token::CaFingerprint;

use super::db::{self, Connection, OptionalExtension};
use super::{Store, StoreError, audit, cells};

/// Which authorities count, by the SHA-256 of their certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Signs the collector's certificate.
    pub in_force: CaFingerprint,
    /// Agents move to it.
    pub next: Option<CaFingerprint>,
}

const IN_FORCE: &str = "authority";
const NEXT: &str = "authority_next";

impl Store {
    /// The authorities that count; `None` before the first start.
    ///
    /// # Errors
    /// [`StoreError::Read`], [`StoreError::Damaged`].
    pub async fn authorities(&self) -> Result<Option<Named>, StoreError> {
        self.read("read which authority is in force", |db| {
            let Some(in_force) = fact(db, IN_FORCE)? else { return Ok(None) };
            let next = fact(db, NEXT)?.map(|next| fingerprint(&next)).transpose()?;
            Ok(Some(Named { in_force: fingerprint(&in_force)?, next }))
        })
        .await
    }

    /// The first collector of a database says which authority it made; gives the one that was first.
    ///
    /// # Errors
    /// As every write, and [`StoreError::Damaged`].
    pub async fn settle_authority(&self, ours: CaFingerprint) -> Result<CaFingerprint, StoreError> {
        fingerprint(&self.settle(IN_FORCE, ours.to_string()).await?)
    }

    /// Begins to move agents to `next`.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] when they are being moved already, and as every write.
    pub async fn begin_rotation(&self, next: CaFingerprint, at: UtcTime, by: &str) -> Result<(), StoreError> {
        let by = by.to_owned();
        self.write("begin to replace the authority", move |db| {
            if fact(db, NEXT)?.is_some() {
                return Err(StoreError::Overtaken.into());
            }
            db.execute("INSERT INTO house (name, value) VALUES (?1, ?2)", (NEXT, next.to_string()))?;
            audit::enter(db, at, &by, "ca.rotate", &next.to_string())
        })
        .await
    }

    /// Puts the next authority in the place of the one in force. Agents that have not moved are cut off, and these may
    /// only be `cut_off`.
    ///
    /// # Errors
    /// [`StoreError::Overtaken`] when the authorities are not as `named` any more or another agent would be cut off, and
    /// as every write.
    pub async fn retire_authority(
        &self,
        named: Named,
        cut_off: BTreeSet<AgentId>,
        at: UtcTime,
        by: &str,
    ) -> Result<(), StoreError> {
        let by = by.to_owned();
        self.write("retire the authority", move |db| {
            let (old, next) = (named.in_force.to_string(), named.next.map(|next| next.to_string()));
            let found = fact(db, NEXT)?;
            let Some(next) = next.filter(|next| found.as_ref() == Some(next)) else {
                return Err(StoreError::Overtaken.into());
            };
            if fact(db, IN_FORCE)?.as_ref() != Some(&old) || !unmoved(db, &next)?.is_subset(&cut_off) {
                return Err(StoreError::Overtaken.into());
            }
            db.execute("UPDATE house SET value = ?2 WHERE name = ?1", (IN_FORCE, &next))?;
            db.execute("DELETE FROM house WHERE name = ?1", [NEXT])?;
            let detail = format!("{old} gave way to {next}; cut off: {}", cut_off.len());
            audit::enter(db, at, &by, "ca.retire", &detail)
        })
        .await
    }

    /// The database knows of no authority any more: the next start makes the first one, and no agent trusts it.
    ///
    /// # Errors
    /// As every write.
    pub async fn forget_authorities(&self, at: UtcTime, by: &str) -> Result<(), StoreError> {
        let by = by.to_owned();
        self.write("forget the authorities", move |db| {
            db.execute("DELETE FROM house WHERE name IN (?1, ?2)", (IN_FORCE, NEXT))?;
            audit::enter(db, at, &by, "ca.forget", "every agent has to be enrolled again")
        })
        .await
    }

    /// Notes which authority issued the certificate an agent came with.
    ///
    /// # Errors
    /// As every write.
    pub async fn note_authority(&self, agent: AgentId, issuer: CaFingerprint) -> Result<(), StoreError> {
        self.write("note the authority of an agent", move |db| {
            db.execute(
                "UPDATE agent SET authority = ?2 WHERE agent = ?1 AND authority <> ?2",
                (agent.0, issuer.to_string()),
            )?;
            Ok(())
        })
        .await
    }
}

fn fact(db: &Connection, name: &str) -> db::Result<Option<String>> {
    db.query_row("SELECT value FROM house WHERE name = ?1", [name], |row| row.get(0)).optional()
}

fn fingerprint(hex: &str) -> Result<CaFingerprint, StoreError> {
    CaFingerprint::parse(hex).ok_or(StoreError::Damaged { what: "the name of the authority" })
}

/// Admitted agents that were not seen with a certificate of `next`.
fn unmoved(db: &Connection, next: &str) -> db::Result<BTreeSet<AgentId>> {
    let mut ask = db.prepare_cached("SELECT agent FROM agent WHERE revoked_at IS NULL AND authority <> ?1")?;
    ask.query_map([next], |row| cells::agent(row, 0))?.collect()
}
