//! What a look at the store finds, and the views for reports.

use peil_proto::time::{UtcTime, WallClock};

use super::{agent, block, collector, fresh, fresh_on_server, holder, lead, on_both, register, server_place};
use crate::store::judgement::Judgement;
use crate::store::survey::survey;
use crate::store::{Store, StoreError, bi};

on_both!(a_look_finds_how_far_the_judge_is_behind_who_holds_what_and_how_durable_it_is);

async fn a_look_finds_how_far_the_judge_is_behind_who_holds_what_and_how_durable_it_is(store: Store) {
    register(&store, agent(1)).await;
    register(&store, agent(2)).await;
    let held = lead(&store).await;
    let before = store.survey(WallClock::System).await.unwrap();
    assert_eq!((before.behind["judge"], before.unjudged_since), (0, None));
    for first in 1..=4 {
        store.append(block(agent(1), 1, first, 1)).await.unwrap();
        store.append(block(agent(2), 1, first + 10, 1)).await.unwrap();
    }
    let all = store.blocks_after(Default::default(), Default::default()).await.unwrap();
    let first = all.iter().filter(|block| block.first.0 < 3).map(|block| block.id).collect();
    store.commit_judgement(Judgement { through: first, ..Judgement::default() }, held.clone()).await.unwrap();
    let found = store.survey(WallClock::System).await.unwrap();
    let judged = store.judged_through().await.unwrap().blocks().cast_unsigned();
    assert_eq!(found.behind["judge"], 8 - judged);
    // The first block behind the watermark: of a lane there is one, of an agent on a server its own.
    let waits = if store.is_shared() { 3_000 } else { 12_000 };
    assert_eq!(found.unjudged_since, Some(UtcTime(waits)));
    assert_eq!(found.leases.iter().filter(|lease| !lease.over).count(), held.len());
    assert_eq!(found.collectors.len(), 1);
    assert_eq!((found.unsent, found.unsent_since), (0, None));
    let setting = if store.is_shared() { ("fsync", "off") } else { ("journal_mode", "wal") };
    assert!(found.durability.iter().any(|(name, value)| (*name, value.as_str()) == setting), "{found:?}");
    assert!(found.bytes > 0);
    // The same from outside, where nobody has it open.
    let place = store.inner.place.clone();
    let outside = tokio::task::spawn_blocking(move || survey(&place, &WallClock::System)).await.unwrap().unwrap();
    assert_eq!((outside.behind, outside.schema), (found.behind, found.schema));
    store.leave(holder("only", 1)).await.unwrap();
    assert!(store.survey(WallClock::System).await.unwrap().collectors.is_empty());
}

#[test]
fn a_store_that_is_not_there_or_of_another_version_is_told_and_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let place = crate::store::Place::Directory(dir.path().join("none"));
    assert!(matches!(survey(&place, &WallClock::System), Err(StoreError::Open { .. })));
    assert!(!dir.path().join("none").exists());
    let (store, dir) = fresh();
    let place = store.inner.place.clone();
    drop(store);
    let db = rusqlite::Connection::open(dir.path().join("peil.db")).unwrap();
    db.execute("DELETE FROM schema_version WHERE number > 4", []).unwrap();
    assert!(matches!(survey(&place, &WallClock::System), Err(StoreError::OlderSchema { found: 4, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_views_for_reports_are_there_and_their_role_reads_them_and_nothing_else() {
    let store = fresh_on_server();
    register(&store, agent(1)).await;
    store.append(block(agent(1), 1, 1, 3)).await.unwrap();
    store.tend_leases(holder("only", 1), collector("only")).await.unwrap();
    let found = store.survey(WallClock::System).await.unwrap().bi.unwrap();
    assert_eq!((found.missing.as_slice(), found.role, found.remedy()), (&[] as &[_], true, None));
    let server = peil_test_postgres::shared();
    let schema = &found.schema;
    let ask = |sql: &str| server.sql("peil", &format!("SET ROLE {}; {sql}", bi::ROLE));
    let row = ask(&format!("SELECT agent, hostname, records FROM {schema}.agents"));
    assert_eq!(row, format!("{}|host-1|3", "01".repeat(16)));
    for view in ["outages", "findings", "days", "months", "energy_hours", "alerts"] {
        assert_eq!(ask(&format!("SELECT COUNT(*) FROM {schema}.{view}")), "0", "{view}");
    }
    let ours = schema.trim_end_matches("_bi");
    let may = format!("SELECT has_schema_privilege('{}', '{ours}', 'USAGE')", bi::ROLE);
    assert_eq!(server.sql("peil", &may), "f", "the tables are out of its reach");
}

#[test]
fn a_user_who_may_make_neither_schema_nor_role_starts_all_the_same_and_doctor_tells_what_to_run() {
    let server = peil_test_postgres::shared();
    let url = server.fresh_schema();
    let schema = url.rsplit("%3D").next().unwrap();
    let user = format!("{schema}_user");
    server.sql("peil", &format!("CREATE ROLE {user} LOGIN; GRANT ALL ON SCHEMA {schema} TO {user}"));
    let place = server_place(&url.replace("postgres://peil@", &format!("postgres://{user}@")));
    drop(Store::connect(&place).unwrap());
    let found = survey(&place, &WallClock::System).unwrap().bi.unwrap();
    assert_eq!(found.missing, ["agents", "outages", "findings", "days", "months", "energy_hours", "alerts"]);
    let remedy = found.remedy().unwrap();
    assert!(remedy.contains(&format!("CREATE SCHEMA {schema}_bi")), "{remedy}");
    // What it says, done by somebody who may.
    let made = format!("CREATE SCHEMA {schema}_bi AUTHORIZATION {user}");
    server.sql("peil", &made);
    drop(Store::connect(&place).unwrap());
    assert_eq!(survey(&place, &WallClock::System).unwrap().bi.unwrap().missing, [] as [&str; 0]);
}
