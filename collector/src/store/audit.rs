//! The audit log: who did what when, in a chain of hashes.
//!
//! Each entry holds the SHA-256 over the hash before it and its own fields, so that changing, removing or
//! moving an entry breaks every one after it. The database refuses UPDATE and DELETE on the table; whoever
//! has the file can still do both, and [`Store::audit_verify`] then says where. What the chain alone cannot
//! show is that its end was cut off: note [`AuditVerdict::Whole`]'s `head` elsewhere (a report, a ticket)
//! and compare.
//!
//! ```text
//! hash = SHA-256( "peil audit 1\n" ‖ previous (32 bytes, zeros for the first) ‖ seq u64 ‖ at i64
//!                 ‖ for who, what, detail: length u64 ‖ UTF-8 )            integers big-endian
//! ```
//!
//! An entry about a write is made inside the transaction of that write: neither is there without the
//! other.

use peil_proto::time::UtcTime;
use ring::digest::{Context, SHA256};

use super::db::{self, Connection, OptionalExtension, Row};
use super::error::Fault;
use super::{Store, StoreError, cells};

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Place in the log, dense, from 1.
    pub seq: u64,
    /// When.
    pub at: UtcTime,
    /// A person, a program or an agent.
    pub who: String,
    /// What was done, as a word: `agent.revoke`.
    pub what: String,
    /// To what, and how.
    pub detail: String,
    /// Hash of the entry before it.
    pub previous: [u8; 32],
    /// Hash of this entry.
    pub hash: [u8; 32],
}

/// What checking the chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditVerdict {
    /// Every entry follows from the one before it.
    Whole {
        /// How many there are.
        entries: u64,
        /// Hash of the last one; zeros when there is none.
        head: [u8; 32],
    },
    /// From here on the log is not what was written.
    Broken {
        /// The first entry that does not follow.
        seq: u64,
        /// In what way.
        fault: ChainFault,
    },
}

/// In what way an entry does not follow from the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainFault {
    /// An entry is missing before it.
    Missing,
    /// It was made to follow another entry.
    Previous,
    /// Its fields are not those its hash was made from.
    Changed,
}

/// Entries read at a time when the chain is checked.
const PAGE: u32 = 4096;

const COLUMNS: &str = "seq, at, who, what, detail, previous, hash";

impl Store {
    /// Adds an entry that goes with no other write (a sign-in, a report issued).
    ///
    /// # Errors
    /// As every write.
    pub async fn audit(&self, at: UtcTime, who: &str, what: &str, detail: &str) -> Result<(), StoreError> {
        let [who, what, detail] = [who, what, detail].map(str::to_owned);
        self.write("write the audit log", move |db| enter(db, at, &who, &what, &detail)).await
    }

    /// Checks the whole chain.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn audit_verify(&self) -> Result<AuditVerdict, StoreError> {
        self.read("check the audit log", verify).await
    }

    /// The last entries, newest first.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn audit_tail(&self, entries: u32) -> Result<Vec<AuditEntry>, StoreError> {
        self.read("read the audit log", move |db| {
            let mut ask = db.prepare_cached(&format!("SELECT {COLUMNS} FROM audit ORDER BY seq DESC LIMIT ?1"))?;
            let rows = ask.query_map([entries], entry_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// Adds an entry inside the caller's transaction.
pub(super) fn enter(db: &Connection, at: UtcTime, who: &str, what: &str, detail: &str) -> Result<(), Fault> {
    let mut last = db.prepare_cached("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")?;
    let last = last.query_row((), |row| Ok((cells::number(row, 0)?, row.get(1)?))).optional()?;
    let (seq, previous) = last.unwrap_or((0, [0; 32]));
    let mut entry = AuditEntry {
        seq: seq.saturating_add(1),
        at,
        who: who.to_owned(),
        what: what.to_owned(),
        detail: detail.to_owned(),
        previous,
        hash: [0; 32],
    };
    entry.hash = hash_of(&entry);
    let mut insert =
        db.prepare_cached(&format!("INSERT INTO audit ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"))?;
    insert.execute((
        cells::bits(entry.seq),
        entry.at.0,
        &entry.who,
        &entry.what,
        &entry.detail,
        entry.previous,
        entry.hash,
    ))?;
    Ok(())
}

/// Checks the whole chain.
pub(super) fn verify(db: &Connection) -> Result<AuditVerdict, Fault> {
    let mut ask =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM audit WHERE seq > ?1 ORDER BY seq LIMIT {PAGE}"))?;
    let (mut entries, mut head) = (0_u64, [0; 32]);
    let mut read = i64::MIN;
    loop {
        let page: Vec<AuditEntry> = ask.query_map([read], entry_row)?.collect::<Result<_, _>>()?;
        let Some(last) = page.last() else { return Ok(AuditVerdict::Whole { entries, head }) };
        read = cells::bits(last.seq);
        for entry in page {
            if let Some(fault) = fault_of(&entry, entries, &head) {
                return Ok(AuditVerdict::Broken { seq: entry.seq, fault });
            }
            (entries, head) = (entry.seq, entry.hash);
        }
    }
}

fn fault_of(entry: &AuditEntry, before: u64, head: &[u8; 32]) -> Option<ChainFault> {
    if entry.seq != before.saturating_add(1) {
        Some(ChainFault::Missing)
    } else if entry.previous != *head {
        Some(ChainFault::Previous)
    } else if entry.hash != hash_of(entry) {
        Some(ChainFault::Changed)
    } else {
        None
    }
}

fn hash_of(entry: &AuditEntry) -> [u8; 32] {
    let mut sum = Context::new(&SHA256);
    sum.update(b"peil audit 1\n");
    sum.update(&entry.previous);
    sum.update(&entry.seq.to_be_bytes());
    sum.update(&entry.at.0.to_be_bytes());
    for field in [&entry.who, &entry.what, &entry.detail] {
        sum.update(&(field.len() as u64).to_be_bytes());
        sum.update(field.as_bytes());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(sum.finish().as_ref());
    hash
}

fn entry_row(row: &Row<'_>) -> db::Result<AuditEntry> {
    Ok(AuditEntry {
        seq: cells::number(row, 0)?,
        at: cells::time(row, 1)?,
        who: row.get(2)?,
        what: row.get(3)?,
        detail: row.get(4)?,
        previous: row.get(5)?,
        hash: row.get(6)?,
    })
}
