//! PostgreSQL as the store's back-end: how a server is reached, and what we insist on.
//!
//! We assume a server of version 13 or later, or one that speaks its protocol; several hosts may be named, and the one
//! that takes writes is used (`target_session_attrs=read-write`), so after a fail-over the next connection finds the
//! new primary. What was acknowledged must survive a crash of the server: `fsync`, `full_page_writes` and
//! `synchronous_commit` are read back on every connection, and a weaker one is refused unless the settings name it
//! ([`Beside::accepts`](target::Beside::accepts)). With a replica, only `synchronous_standby_names` on the server makes a fail-over lose
//! nothing; whether there is one is exported, not demanded.
//!
//! Traffic to another machine is TLS with a verified certificate, unless the URL says `sslmode=disable`.
//!
//! Limits, per connection: 5 s to connect, 10 s for a lock, 30 s for a statement, 10 s idle inside a transaction. So a
//! collector that stands still in the middle of a transaction holds up the others for ten seconds, then the server
//! ends it.

mod session;
pub(super) mod target;
pub(super) mod transact;

pub(super) use session::{Session, seen};
pub use target::Target;

use super::db::Connection;
use super::{StoreError, bi, migrate, transfer};

/// What decides whether a commit survives a crash of the server, and the values that do.
pub(super) const DURABLE: [(&str, &[&str]); 3] =
    [("fsync", &["on"]), ("full_page_writes", &["on"]), ("synchronous_commit", &["on", "remote_apply"])];

/// Settings of every connection of ours.
const SESSION: &str = "SET application_name = 'peil-collector';
SET lock_timeout = '10s';
SET statement_timeout = '30s';
SET idle_in_transaction_session_timeout = '10s';
SET client_min_messages = 'warning'";

/// Connects, and makes sure that what answers keeps what it commits.
///
/// # Errors
/// [`StoreError::Connect`], [`StoreError::ReadOnly`], [`StoreError::WeakServer`].
pub(super) fn connect(target: &Target) -> Result<Connection, StoreError> {
    let refused = |source: super::db::Error| StoreError::Connect { place: target.to_string(), source: source.into() };
    let session = Session::connect(target).map_err(refused)?;
    let db = Connection::Postgres(Box::new(session));
    db.execute_batch(SESSION).map_err(refused)?;
    if shown(&db, "transaction_read_only").map_err(refused)? == "on" {
        return Err(StoreError::ReadOnly { place: target.to_string() });
    }
    for (setting, wanted) in DURABLE {
        let found = shown(&db, setting).map_err(refused)?;
        if !wanted.contains(&found.as_str()) && !target.accepts(setting, &found) {
            return Err(StoreError::WeakServer { setting, found, wanted: wanted[0] });
        }
    }
    Ok(db)
}

/// Connects and brings the schema up to date.
pub(super) fn connect_and_migrate(target: &Target) -> Result<Connection, StoreError> {
    let db = connect(target)?;
    migrate::migrate(&db, &target.to_string())?;
    let refused = |source: super::db::Error| StoreError::Connect { place: target.to_string(), source: source.into() };
    bi::lay_out(&db).map_err(refused)?;
    Ok(db)
}

/// As [`connect_and_migrate`], for a store that is whole, on a thread of its own: whoever opens a store may be async
/// code, where nothing may wait for a server.
pub(super) fn open(target: &Target) -> Result<Connection, StoreError> {
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            let db = connect_and_migrate(target)?;
            transfer::side::require_whole(&db, &target.to_string())?;
            Ok(db)
        });
        opening.join().unwrap_or(Err(StoreError::Closed))
    })
}

/// The value of a setting of the server.
pub(super) fn shown(db: &Connection, setting: &str) -> super::db::Result<String> {
    // Not a statement with values: the name comes from our own lists.
    db.query_row(&format!("SHOW {setting}"), (), |row| row.get(0))
}
