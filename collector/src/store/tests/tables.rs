//! The list of tables is the schema, on both engines: what it does not know no back-up would hold.

use std::collections::BTreeSet;

use super::on_both;
use crate::store::Store;
use crate::store::db::{Connection, Engine};
use crate::store::error::Fault;
use crate::store::tables::{How, TABLES, Table};
use crate::store::transfer::log::COLUMNS;

on_both!(every_table_of_the_schema_is_in_the_list_with_its_key_and_what_holds_lanes_is_not_copied_as_it_is);

fn tables(db: &Connection) -> Result<BTreeSet<String>, Fault> {
    let ask = match db.engine() {
        Engine::Sqlite => "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
        Engine::Postgres => {
            "SELECT table_name FROM information_schema.tables
             WHERE table_schema = CURRENT_SCHEMA AND table_type = 'BASE TABLE'"
        }
    };
    Ok(db.prepare_cached(ask)?.query_map((), |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// Names of columns of a table: all, and those of its key in order.
fn columns(db: &Connection, table: &str) -> Result<(Vec<String>, Vec<String>), Fault> {
    let (all, key) = match db.engine() {
        Engine::Sqlite => (
            "SELECT name FROM pragma_table_info(?1)",
            "SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk",
        ),
        Engine::Postgres => (
            "SELECT column_name FROM information_schema.columns
             WHERE table_schema = CURRENT_SCHEMA AND table_name = ?1",
            "SELECT k.column_name FROM information_schema.key_column_usage k
             JOIN information_schema.table_constraints c
               ON c.constraint_name = k.constraint_name AND c.table_schema = k.table_schema
             WHERE k.table_schema = CURRENT_SCHEMA AND k.table_name = ?1 AND c.constraint_type = 'PRIMARY KEY'
             ORDER BY k.ordinal_position",
        ),
    };
    let ask = |sql| -> Result<Vec<String>, Fault> {
        Ok(db.prepare_cached(sql)?.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?)
    };
    Ok((ask(all)?, ask(key)?))
}

fn check(db: &Connection, table: &Table) -> Result<(), Fault> {
    let (all, key) = columns(db, table.name)?;
    if table.how == How::Log {
        let copied: BTreeSet<&str> = COLUMNS.into_iter().chain(["no"]).collect();
        let there: BTreeSet<&str> = all.iter().map(String::as_str).filter(|column| *column != "lane").collect();
        assert_eq!(copied, there, "a migration added a column to the log: copy it (transfer/log.rs)");
    }
    match (table.how, db.engine()) {
        (How::Log, Engine::Postgres) => assert_eq!(key, ["lane", "no"]),
        (How::ByLane, _) => {
            assert_eq!(key[0], "lane");
            assert_eq!(key[1..], *table.key, "the key of {}", table.name);
        }
        _ => assert_eq!(key, table.key, "the key of {}", table.name),
    }
    // A number of a block means another block in a copy.
    let tells_places = all.iter().any(|column| column == "lane");
    assert!(!(tells_places && table.how == How::Copied), "{} tells places in the log", table.name);
    Ok(())
}

async fn every_table_of_the_schema_is_in_the_list_with_its_key_and_what_holds_lanes_is_not_copied_as_it_is(
    store: Store,
) {
    let read = store.read("read the schema", |db| {
        let wanted = TABLES.iter().filter(|table| table.name != "lane" || db.engine() == Engine::Postgres);
        let names: BTreeSet<String> = wanted.clone().map(|table| table.name.to_owned()).collect();
        assert_eq!(tables(db)?, names, "a migration added a table: say in tables.rs what becomes of it in a copy");
        wanted.clone().try_for_each(|table| check(db, table))
    });
    read.await.unwrap();
}
