//! One side of a copy: an open database, what it is called, and whether it may be read or filled.

use std::path::Path;

use super::{Asked, TransferError, failed, rows};
use crate::store::db::{self, Connection, Engine, OptionalExtension};
use crate::store::error::Fault;
use crate::store::tables::kept;
use crate::store::{Place, StoreError, migrate, postgres, sqlite};
use crate::store::{audit, leases};

/// An open database.
pub(super) struct Side {
    pub(super) db: Connection,
    pub(super) name: String,
}

impl Side {
    /// A database that is there, brought up to date; it is only read.
    pub(super) fn source(place: &Place) -> Result<Self, TransferError> {
        let db = match place {
            Place::Directory(dir) if !sqlite::database_file(dir).is_file() => {
                return Err(TransferError::Nothing(dir.display().to_string()));
            }
            Place::Directory(dir) => {
                drop(sqlite::open_and_migrate(dir)?);
                reading(&sqlite::database_file(dir))?
            }
            Place::Server(target) => postgres::connect_and_migrate(target)?,
        };
        Ok(Self { db, name: place.to_string() })
    }

    /// A back-up: never written to, so it must have our schema.
    pub(super) fn file(path: &Path) -> Result<Self, TransferError> {
        if !path.is_file() {
            return Err(TransferError::Nothing(path.display().to_string()));
        }
        Ok(Self { db: reading(path)?, name: path.display().to_string() })
    }

    /// A database to be filled, made where there is none.
    pub(super) fn target(place: &Place) -> Result<Self, TransferError> {
        let db = match place {
            Place::Directory(dir) => sqlite::open_and_migrate(dir)?,
            Place::Server(target) => postgres::connect_and_migrate(target)?,
        };
        Ok(Self { db, name: place.to_string() })
    }

    /// From here to [`Side::release`] everything read is of one moment.
    pub(super) fn hold(&self) -> Result<(), TransferError> {
        let begin = match self.db.engine() {
            Engine::Sqlite => "BEGIN",
            // The other side may take its time between two questions.
            Engine::Postgres => {
                "SET idle_in_transaction_session_timeout = '10min';
                 BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
            }
        };
        // The moment is that of the first question.
        let held = self.db.execute_batch(begin).and_then(|()| rows::count(&self.db, "schema_version"));
        held.map(drop).map_err(|error| failed("begin to read")(error.into()))
    }

    /// Ends what [`Side::hold`] began.
    pub(super) fn release(&self) -> Result<(), TransferError> {
        self.db.execute_batch("ROLLBACK").map_err(|error| failed("end reading")(error.into()))
    }

    /// Refuses a schema that is not ours.
    pub(super) fn require_schema(&self) -> Result<(), TransferError> {
        let found = migrate::version(&self.db).map_err(|error| failed("read the schema")(error.into()))?;
        let known = migrate::newest();
        if found > known {
            return Err(StoreError::NewerSchema { place: self.name.clone(), found, known }.into());
        }
        if found < known {
            return Err(TransferError::Schema { place: self.name.clone(), found, known });
        }
        Ok(())
    }

    /// Whether its schema is ours.
    pub(super) fn is_ours(&self) -> Result<bool, TransferError> {
        let found = migrate::version(&self.db).map_err(|error| failed("read the schema")(error.into()))?;
        Ok(found == migrate::newest())
    }

    /// What ran on the database that this one is a copy of does not run here.
    pub(super) fn forget_collectors(&self) -> Result<(), TransferError> {
        self.transact("forget the collectors", |db| {
            for table in ["lease", "connection", "collector"] {
                db.execute(&format!("DELETE FROM {table}"), ())?;
            }
            Ok(())
        })
    }

    /// Refuses a database on which a collector runs.
    pub(super) fn require_unused(&self) -> Result<(), TransferError> {
        let holder = leases::anyone(&self.db).map_err(|error| failed("read the leases")(error.into()))?;
        holder.map_or(Ok(()), |holder| Err(TransferError::InUse { place: self.name.clone(), holder }))
    }

    /// Takes the database for what comes from `from`: it is empty, or was taken for the same before.
    pub(super) fn take_for(&self, from: &str) -> Result<(), TransferError> {
        match filled_from(&self.db).map_err(|error| failed("read how far the copy is")(error.into()))? {
            Some(before) if before == from => return Ok(()),
            Some(before) => return Err(TransferError::HalfFilled { place: self.name.clone(), from: before }),
            None => {}
        }
        for table in kept() {
            if !rows::is_empty(&self.db, table.name).map_err(|error| failed("look for rows")(error.into()))? {
                return Err(TransferError::NotEmpty { place: self.name.clone(), table: table.name });
            }
        }
        self.transact("begin a copy", |db| Ok(note(db, "from", from)?))
    }

    /// The copy is whole: collectors may start. `what` was done with what goes into its audit log.
    pub(super) fn finish(&self, asked: &Asked, what: Option<(&str, &str)>) -> Result<(), TransferError> {
        self.transact("end a copy", |db| {
            if let Some((what, detail)) = what {
                audit::enter(db, asked.at, &asked.who, what, detail)?;
            }
            db.execute("DELETE FROM transfer", ())?;
            Ok(())
        })
    }

    /// Runs `work` in a transaction of its own; an error leaves nothing of it.
    pub(super) fn transact<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, TransferError> {
        let begun = self.db.execute_batch(match self.db.engine() {
            Engine::Sqlite => "BEGIN IMMEDIATE",
            Engine::Postgres => "BEGIN",
        });
        let done = begun.map_err(Fault::from).and_then(|()| work(&self.db));
        let done = done.and_then(|value| Ok(self.db.execute_batch("COMMIT").map(|()| value)?));
        if done.is_err() {
            // What is not committed is not there.
            let _ = self.db.execute_batch("ROLLBACK");
        }
        done.map_err(failed(what))
    }
}

fn reading(path: &Path) -> Result<Connection, TransferError> {
    let open = sqlite::open_to_read(path);
    let db = open.map_err(|source| StoreError::Open { path: path.to_owned(), source: source.into() })?;
    Ok(Connection::Sqlite(db))
}

/// What this database is being filled from; nothing when it is whole.
pub(in crate::store) fn filled_from(db: &Connection) -> db::Result<Option<String>> {
    noted(db, "from")
}

/// Refuses a database that is being filled from another one.
pub(in crate::store) fn require_whole(db: &Connection, place: &str) -> Result<(), StoreError> {
    match filled_from(db) {
        Ok(None) => Ok(()),
        Ok(Some(from)) => Err(StoreError::HalfFilled { place: place.to_owned(), from }),
        Err(error) => Err(StoreError::reading("read whether the database is whole", error)),
    }
}

/// Notes how far a copy is.
pub(super) fn note(db: &Connection, name: &str, value: &str) -> db::Result<()> {
    db.execute(
        "INSERT INTO transfer (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )?;
    Ok(())
}

/// What [`note`] wrote.
pub(super) fn noted(db: &Connection, name: &str) -> db::Result<Option<String>> {
    db.query_row("SELECT value FROM transfer WHERE name = ?1", [name], |row| row.get(0)).optional()
}
