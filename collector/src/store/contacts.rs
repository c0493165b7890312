//! Which agents are connected to which collector, where several share a database.
//!
//! Each collector writes only what changed about its own connections. What one that is gone left behind counts for
//! nothing: whoever reads looks at collectors that are here.

use std::collections::BTreeSet;

use peil_proto::ids::AgentId;

use super::{Store, StoreError, cells};

impl Store {
    /// Notes which agents came to this collector and which left it.
    ///
    /// # Errors
    /// As every write.
    pub async fn note_connections(
        &self,
        collector: &str,
        came: Vec<AgentId>,
        left: Vec<AgentId>,
    ) -> Result<(), StoreError> {
        let collector = collector.to_owned();
        self.write("note who is connected", move |db| {
            let mut put = db.prepare_cached(
                "INSERT INTO connection (agent, holder) VALUES (?1, ?2)
                 ON CONFLICT (agent) DO UPDATE SET holder = excluded.holder",
            )?;
            for agent in &came {
                put.execute((agent.0, &collector))?;
            }
            let mut remove = db.prepare_cached("DELETE FROM connection WHERE agent = ?1 AND holder = ?2")?;
            for agent in &left {
                remove.execute((agent.0, &collector))?;
            }
            Ok(())
        })
        .await
    }

    /// Forgets what an earlier start of this collector noted.
    ///
    /// # Errors
    /// As every write.
    pub async fn forget_connections(&self, collector: &str) -> Result<(), StoreError> {
        let collector = collector.to_owned();
        self.write("forget old connections", move |db| {
            db.execute("DELETE FROM connection WHERE holder = ?1", [&collector])?;
            Ok(())
        })
        .await
    }

    /// Agents that are connected to one of these collectors.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn connected_to(&self, collectors: BTreeSet<String>) -> Result<BTreeSet<AgentId>, StoreError> {
        self.read("read who is connected", move |db| {
            let mut ask = db.prepare_cached("SELECT agent, holder FROM connection")?;
            let rows = ask.query_map((), |row| Ok((cells::agent(row, 0)?, row.get::<String>(1)?)))?;
            let mut connected = BTreeSet::new();
            for row in rows {
                let (agent, holder) = row?;
                if collectors.contains(&holder) {
                    connected.insert(agent);
                }
            }
            Ok(connected)
        })
        .await
    }
}
