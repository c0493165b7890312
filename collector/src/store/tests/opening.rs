//! What a directory must be, and what becomes of an older or newer one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::Connection;

use super::{agent, block, counted, fresh, register};
use crate::store::db;
use crate::store::error::Fault;
use crate::store::migrate::{MIGRATIONS, Migration, migrate_with};
use crate::store::{Store, StoreError, sqlite};

fn schema(db: &Connection) -> Vec<(String, String)> {
    let mut ask = db.prepare("SELECT name, COALESCE(sql, '') FROM sqlite_schema ORDER BY name").unwrap();
    let rows = ask.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn numbers_of_migrations_are_dense_and_rising() {
    // A number that was passed over could be given later, and a database that is beyond it would never take that step.
    let numbers: Vec<u32> = MIGRATIONS.iter().map(|step| step.number).collect();
    assert_eq!(numbers, (1..=u32::try_from(MIGRATIONS.len()).unwrap()).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_old_database_becomes_what_a_fresh_one_is_and_keeps_its_rows() {
    let (fresh, fresh_dir) = fresh();
    fresh.close().await;
    let wanted = schema(&Connection::open(sqlite::database_file(fresh_dir.path())).unwrap());
    assert!(wanted.iter().any(|(name, _)| name == "audit"), "the schema is there: {wanted:?}");
    for old in 1..MIGRATIONS.len() {
        let dir = tempfile::tempdir().unwrap();
        let path = sqlite::database_file(dir.path());
        let db = db::Connection::Sqlite(Connection::open(&path).unwrap());
        migrate_with(&db, "old", &MIGRATIONS[..old]).unwrap();
        let row = "INSERT INTO agent (agent, hostname, host_group, enrolled_at, cert_serial, cert_not_after)
                   VALUES (?1, 'old-host', 'all', 1, '01', 2)";
        db.execute(row, [agent(7).0]).unwrap();
        drop(db);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.agents().await.unwrap()[0].hostname, "old-host");
        store.append(block(agent(7), 1, 1, 3)).await.unwrap();
        store.close().await;
        assert_eq!(schema(&Connection::open(&path).unwrap()), wanted, "from schema {old}");
    }
}

#[tokio::test]
async fn a_newer_database_is_refused_in_one_clear_sentence() {
    let (store, dir) = fresh();
    store.close().await;
    let db = Connection::open(sqlite::database_file(dir.path())).unwrap();
    db.execute("INSERT INTO schema_version VALUES (99, 'from the future')", []).unwrap();
    let refused = Store::open(dir.path()).unwrap_err();
    assert!(
        matches!(refused, StoreError::NewerSchema { found: 99, known, .. } if Some(known) == MIGRATIONS.last().map(|step| step.number))
    );
    assert!(refused.to_string().contains("start the newer peil-collector"), "{refused}");
}

#[test]
fn a_migration_that_fails_leaves_the_database_at_the_one_before() {
    let db = db::Connection::Sqlite(Connection::open_in_memory().unwrap());
    let steps = [
        Migration { number: 1, name: "good", sql: "CREATE TABLE a (x INTEGER)" },
        Migration { number: 2, name: "bad", sql: "CREATE TABLE b (x INTEGER); CREATE TABLE a (x INTEGER)" },
    ];
    let failed = migrate_with(&db, "memory", &steps).unwrap_err();
    assert!(matches!(failed, StoreError::Migrate { number: 2, name: "bad", .. }), "{failed}");
    let there = "SELECT name FROM sqlite_schema ORDER BY name";
    let names = db.prepare_cached(there).unwrap().query_map((), |row| row.get(0)).unwrap();
    let names: Vec<String> = names.map(Result::unwrap).collect();
    assert_eq!(names, ["a", "schema_version"]);
    migrate_with(&db, "memory", &steps[..1]).unwrap();
}

#[test]
fn a_database_that_would_lose_commits_is_refused() {
    let db = Connection::open_in_memory().unwrap();
    let refused = sqlite::require_durable(&db).unwrap_err();
    assert!(matches!(refused, Fault::Refused(StoreError::NotDurable { setting: "journal_mode", .. })), "{refused:?}");
    let dir = tempfile::tempdir().unwrap();
    let db = Connection::open(dir.path().join("x.db")).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON").unwrap();
    let refused = sqlite::require_durable(&db).unwrap_err();
    let Fault::Refused(refused) = refused else { panic!("{refused:?}") };
    assert!(matches!(refused, StoreError::NotDurable { setting: "synchronous", .. }), "{refused}");
    db.execute_batch("PRAGMA synchronous = FULL").unwrap();
    assert!(sqlite::require_durable(&db).is_ok());
}

#[test]
fn two_that_open_a_new_directory_at_once_both_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/by/us");
    let stores: Vec<Store> = std::thread::scope(|scope| {
        let opening: Vec<_> = (0..4).map(|_| scope.spawn(|| Store::open(&path).unwrap())).collect();
        opening.into_iter().map(|store| store.join().unwrap()).collect()
    });
    assert_eq!(stores.len(), 4);
}

#[tokio::test]
async fn the_files_are_the_owners_alone() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let store = Store::open(&dir).unwrap();
    register(&store, agent(1)).await;
    let rights = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(rights(&dir), 0o700);
    for file in ["peil.db", "peil.db-wal", "peil.db-shm"] {
        assert_eq!(rights(&dir.join(file)), 0o600, "{file}");
    }
}

#[test]
fn a_file_that_is_no_database_is_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(sqlite::database_file(dir.path()), "this is a letter to my aunt, not a database".repeat(99))
        .unwrap();
    let refused = Store::open(dir.path()).unwrap_err();
    assert!(matches!(refused, StoreError::Open { .. }) && refused.to_string().contains("peil.db"), "{refused}");
}

#[tokio::test]
async fn closing_commits_what_was_queued_and_other_clones_are_told() {
    let (store, dir) = fresh();
    register(&store, agent(1)).await;
    let other = store.clone();
    let (appended, ()) = tokio::join!(store.append(block(agent(1), 1, 1, 5)), other.clone().close());
    appended.unwrap();
    assert!(matches!(other.append(block(agent(1), 1, 6, 5)).await, Err(StoreError::Closed)));
    assert!(matches!(other.ready().await, Err(StoreError::Closed)));
    assert_eq!((other.health().ok, other.health().reason.as_deref()), (false, Some("the store is closed")));
    other.close().await;
    assert!(!dir.path().join("peil.db-wal").exists(), "the log is folded into the database");
    let again = Store::open(dir.path()).unwrap();
    again.ready().await.unwrap();
    assert_eq!(counted(&again).await.len(), 5);
}
