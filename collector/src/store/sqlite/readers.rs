//! Reading connections: a few, opened when first needed, each used by one question at a time.
//!
//! A read never waits for a write (WAL) and sees one moment of the database, because each runs in a
//! transaction of its own. It runs on the runtime's blocking threads.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::store::error::Fault;
use crate::store::{StoreError, sqlite};

/// Questions answered at a time; the next one waits.
const READERS: u32 = 4;

#[derive(Debug)]
pub(in crate::store) struct Readers {
    path: PathBuf,
    places: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(in crate::store) fn new(dir: &Path) -> Self {
        let places = Arc::new(Semaphore::new(READERS as usize));
        Self { path: sqlite::database_file(dir), places, idle: Arc::default() }
    }

    /// Runs `work` on an idle connection.
    pub(in crate::store) async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (idle, path) = (self.idle.clone(), self.path.clone());
        let answer = tokio::task::spawn_blocking(move || {
            let waiting = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match waiting {
                Some(connection) => connection,
                None => sqlite::open_to_read(&path).map_err(|error| StoreError::reading(what, error))?,
            };
            let answer = one_moment(&connection, work);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            // The place is free only once the connection is back, also when the asker went away.
            drop(place);
            answer.map_err(|fault| match fault {
                Fault::Sql(error) => StoreError::reading(what, error),
                Fault::Refused(refusal) => refusal,
            })
        });
        // A blocking task ends without an answer only when the runtime is being torn down.
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Waits for the reads under way and closes the connections.
    pub(in crate::store) async fn close(&self) {
        let all = self.places.acquire_many(READERS).await;
        self.places.close();
        drop(all);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn one_moment<T>(connection: &Connection, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
    // Ends by rollback when dropped, which for a read is the same as a commit.
    let transaction = connection.unchecked_transaction()?;
    work(&transaction)
}
