//! Which agents there are, their certificates, and when each was heard last.
//!
//! A row is made at enrolment and stays for ever: a revoked agent keeps its figures and its id is not
//! given to another. When an agent was last heard is the later of two times: its last block (kept with the
//! stream, so that storing a block touches one row and not two) and [`Store::touch_contact`].

use peil_proto::ids::AgentId;
use peil_proto::labels::Labels;
use peil_proto::time::UtcTime;

use super::db::{self, Connection, Engine, OptionalExtension};
use super::error::Fault;
use super::{Store, StoreError, audit, blocks, cells};

/// An agent to be admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAgent {
    /// Its identity, new.
    pub agent: AgentId,
    /// Name of its host, for people.
    pub hostname: String,
    /// Serial number of its certificate.
    pub cert_serial: String,
    /// End of its certificate.
    pub cert_not_after: UtcTime,
}

/// How it showed that an agent runs from a copy of its state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// Two hosts use its identity in turns.
    Twin,
    /// It came back without knowing what it had sent.
    Rewound,
}

impl Copied {
    const WORDS: [(&'static str, Self); 2] = [("twin", Self::Twin), ("rewound", Self::Rewound)];

    /// The word in the database and in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Twin => "twin",
            Self::Rewound => "rewound",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, copied)| *copied)
    }
}

/// An agent, admitted or revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    /// Its identity.
    pub agent: AgentId,
    /// Name of its host at enrolment.
    pub hostname: String,
    /// The group its token was made for.
    pub group: String,
    /// When it enrolled.
    pub enrolled_at: UtcTime,
    /// When it was revoked, if it was.
    pub revoked_at: Option<UtcTime>,
    /// When anything last came from it.
    pub last_contact: Option<UtcTime>,
    /// Serial number of the certificate given last.
    pub cert_serial: String,
    /// End of that certificate.
    pub cert_not_after: UtcTime,
    /// Authority of the certificate it came with last, while it is being replaced; empty when that was never noted.
    pub authority: String,
    /// What its host is for, as it said last.
    pub labels: Labels,
    /// When it was last seen to run from a copy of its state, until somebody has seen to it.
    pub copied: Option<(UtcTime, Copied)>,
}

impl Store {
    /// Admits an agent without a token (an operator's own doing; agents use [`Store::redeem_token`]).
    ///
    /// # Errors
    /// [`StoreError::Write`] when the id is taken, and as every write.
    pub async fn register(&self, agent: NewAgent, group: &str, at: UtcTime, by: &str) -> Result<(), StoreError> {
        let (group, by) = (group.to_owned(), by.to_owned());
        self.write("register an agent", move |db| {
            insert(db, &agent, &group, at)?;
            audit::enter(db, at, &by, "agent.register", &format!("{} {}", agent.agent, agent.hostname))
        })
        .await
    }

    /// Every agent, in order of host name.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn agents(&self) -> Result<Vec<AgentRow>, StoreError> {
        self.read("list the agents", |db| {
            let mut ask = db.prepare_cached(
                "SELECT a.agent, a.hostname, a.host_group, a.enrolled_at, a.revoked_at, a.last_contact,
                   (SELECT MAX(s.last_at) FROM agent_stream s WHERE s.agent = a.agent), a.cert_serial, a.cert_not_after,
                   a.authority, a.labels, a.copied_at, a.copied_how
                 FROM agent a ORDER BY a.hostname, a.agent",
            )?;
            let rows = ask.query_map((), |row| {
                Ok(AgentRow {
                    agent: cells::agent(row, 0)?,
                    hostname: row.get(1)?,
                    group: row.get(2)?,
                    enrolled_at: cells::time(row, 3)?,
                    revoked_at: cells::time_or_none(row, 4)?,
                    last_contact: cells::time_or_none(row, 5)?.max(cells::time_or_none(row, 6)?),
                    cert_serial: row.get(7)?,
                    cert_not_after: cells::time(row, 8)?,
                    authority: row.get(9)?,
                    // Written by this program; whoever changed it gets a host without labels, not a collector that stands still.
                    labels: serde_json::from_str(&row.get::<String>(10)?).unwrap_or_default(),
                    copied: cells::time_or_none(row, 11)?.zip(Copied::from_word(&row.get::<String>(12)?)),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Notes when agents were heard without a block (hello, keep-alive). Never moves a time back; unknown
    /// agents are passed over.
    ///
    /// # Errors
    /// As every write.
    pub async fn touch_contact(&self, heard: Vec<(AgentId, UtcTime)>) -> Result<(), StoreError> {
        self.write("note when agents were heard", move |db| {
            let mut touch = db.prepare_cached(
                "UPDATE agent SET last_contact = ?2 WHERE agent = ?1 AND COALESCE(last_contact, ?2) <= ?2",
            )?;
            for (agent, at) in &heard {
                touch.execute((agent.0, at.0))?;
            }
            Ok(())
        })
        .await
    }

    /// Shuts an agent out: nothing is taken from it after this is answered. The first revocation stands;
    /// a second one changes nothing.
    ///
    /// # Errors
    /// [`StoreError::UnknownAgent`], and as every write.
    pub async fn revoke(&self, agent: AgentId, at: UtcTime, by: &str) -> Result<(), StoreError> {
        let by = by.to_owned();
        self.write("revoke an agent", move |db| {
            // On a server another collector may be storing a block of this agent just now.
            if db.engine() == Engine::Postgres {
                blocks::postgres::lock_lane(db, agent)?;
            }
            if revoked_at(db, agent)?.is_some() {
                return Ok(());
            }
            db.execute("UPDATE agent SET revoked_at = ?2 WHERE agent = ?1", (agent.0, at.0))?;
            audit::enter(db, at, &by, "agent.revoke", &agent.to_string())
        })
        .await
    }

    /// Notes the certificate an agent was given in place of its last one.
    ///
    /// # Errors
    /// [`StoreError::UnknownAgent`], [`StoreError::RevokedAgent`], and as every write.
    pub async fn renewed(&self, agent: AgentId, serial: &str, not_after: UtcTime) -> Result<(), StoreError> {
        let serial = serial.to_owned();
        self.write("note a renewed certificate", move |db| {
            if let Some(at) = revoked_at(db, agent)? {
                return Err(StoreError::RevokedAgent { agent, at }.into());
            }
            let mut renew =
                db.prepare_cached("UPDATE agent SET cert_serial = ?2, cert_not_after = ?3 WHERE agent = ?1")?;
            renew.execute((agent.0, &serial, not_after.0))?;
            Ok(())
        })
        .await
    }

    /// Notes what the host of an agent is for.
    ///
    /// # Errors
    /// As every write.
    pub async fn note_labels(&self, agent: AgentId, labels: &Labels) -> Result<(), StoreError> {
        let labels = serde_json::to_string(labels).map_err(|_| StoreError::Damaged { what: "labels" })?;
        self.write("note the labels of a host", move |db| {
            db.execute("UPDATE agent SET labels = ?2 WHERE agent = ?1", (agent.0, &labels))?;
            Ok(())
        })
        .await
    }

    /// Notes that an agent was seen to run from a copy of its state.
    ///
    /// # Errors
    /// As every write.
    pub async fn note_copied(&self, agent: AgentId, how: Copied, at: UtcTime) -> Result<(), StoreError> {
        self.write("note a copied agent", move |db| {
            let sql = "UPDATE agent SET copied_at = ?2, copied_how = ?3 WHERE agent = ?1";
            db.execute(sql, (agent.0, at.0, how.word()))?;
            Ok(())
        })
        .await
    }

    /// Somebody has seen to a copied agent: what was seen of it so far is over.
    ///
    /// # Errors
    /// [`StoreError::UnknownAgent`], and as every write.
    pub async fn accept_copied(&self, agent: AgentId, at: UtcTime, by: &str) -> Result<(), StoreError> {
        let by = by.to_owned();
        self.write("accept a copied agent", move |db| {
            revoked_at(db, agent)?;
            db.execute("UPDATE agent SET copied_at = NULL, copied_how = '' WHERE agent = ?1", [agent.0])?;
            audit::enter(db, at, &by, "agent.accept", &agent.to_string())
        })
        .await
    }

    /// The name an agent was enrolled with.
    ///
    /// # Errors
    /// [`StoreError::UnknownAgent`], [`StoreError::Read`].
    pub async fn hostname(&self, agent: AgentId) -> Result<String, StoreError> {
        self.read_for_agent("read the name of a host", move |db| {
            let mut ask = db.prepare_cached("SELECT hostname FROM agent WHERE agent = ?1")?;
            let found = ask.query_row([agent.0], |row| row.get(0)).optional()?;
            found.ok_or_else(|| StoreError::UnknownAgent(agent).into())
        })
        .await
    }

    /// Enrolled and not revoked.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn is_admitted(&self, agent: AgentId) -> Result<bool, StoreError> {
        self.read_for_agent("ask whether an agent is admitted", move |db| match revoked_at(db, agent) {
            Ok(revoked) => Ok(revoked.is_none()),
            Err(Fault::Refused(StoreError::UnknownAgent(_))) => Ok(false),
            Err(fault) => Err(fault),
        })
        .await
    }
}

fn revoked_at(db: &Connection, agent: AgentId) -> Result<Option<UtcTime>, Fault> {
    let mut ask = db.prepare_cached("SELECT revoked_at FROM agent WHERE agent = ?1")?;
    let found = ask.query_row([agent.0], |row| cells::time_or_none(row, 0)).optional()?;
    found.ok_or_else(|| StoreError::UnknownAgent(agent).into())
}

/// Makes the row of a new agent, inside the caller's transaction.
pub(super) fn insert(db: &Connection, agent: &NewAgent, group: &str, at: UtcTime) -> db::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO agent (agent, hostname, host_group, enrolled_at, cert_serial, cert_not_after)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    insert.execute((agent.agent.0, &agent.hostname, group, at.0, &agent.cert_serial, agent.cert_not_after.0))?;
    Ok(())
}
