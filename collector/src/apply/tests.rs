//! Applying is showing, writing and ending, and nothing silently.

use super::*;

const FILE: &str = r#"
[[contract]]
name = "office"
target = "99.5"
window = [{ days = ["mon"], from = "08:00", to = "18:00" }]
[contract.holidays]
good_friday = true
[[check]]
name = "web"
kind = "tcp"
address = "localhost:80"
[[service]]
name = "portal"
contract = "office"
expression = { any = ["web", { at_least = 1, of = ["web"] }] }
"#;

fn config() -> Config {
    Config::parse("collector.toml", "").expect("valid")
}

fn written(text: &str) -> Vec<Written> {
    read_files(&[("a.toml".to_owned(), text.to_owned())]).expect("readable")
}

async fn apply(store: &Store, text: &str, now: i64) -> Result<Plan, ApplyError> {
    apply_and(store, text, &Missing::GoOn, now).await
}

async fn apply_and(store: &Store, text: &str, missing: &Missing, now: i64) -> Result<Plan, ApplyError> {
    let (plan, seen) = prepare(store, &config(), &written(text), missing, "anna", UtcTime(now)).await?;
    commit(store, &plan, seen, "anna").await?;
    Ok(plan)
}

#[tokio::test]
async fn the_same_files_twice_change_nothing_and_a_changed_key_is_one_version() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(apply(&store, FILE, 1_000).await.expect("applied").changes.len(), 3);
    let again = apply(&store, FILE, 2_000).await.expect("applied");
    assert_eq!((again.changes.len(), again.unchanged), (0, 3));
    let stricter = FILE.replace("99.5", "99.9").replace("[[check]]", "[[contract]]\nname = \"other\"\n[[check]]");
    let plan = apply(&store, &stricter, 3_000).await.expect("applied");
    let words = plan.in_words();
    assert!(
        words.contains("contract \"office\" from 1970-01-01T00:00:03Z\n  ~ target = \"99.5\" -> \"99.9\"\n"),
        "{words}"
    );
    assert!(words.contains("contract \"other\" since ever\n  + name = \"other\"\n"), "{words}");
    assert!(words.ends_with("2 new versions, 2 objects unchanged\n"), "{words}");
    assert_eq!(store.audit_tail(20).await.expect("read").len(), 5);
    store.close().await;
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_one_mistake_keeps_everything_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("opens");
    let (plan, seen) =
        prepare(&store, &config(), &written(FILE), &Missing::GoOn, "anna", UtcTime(5)).await.expect("good");
    assert_eq!(store.object_generation().await.expect("read"), Generation(0));
    let wrong = apply(&store, &FILE.replace("expression = { any = [\"web\"", "expression = { any = [\"wbe\""), 5).await;
    assert!(matches!(&wrong, Err(ApplyError::Refused(_))) && wrong.expect_err("refused").to_string().contains("wbe"));
    assert_eq!(store.object_generation().await.expect("read"), Generation(0));
    apply(&store, FILE, 6).await.expect("applied");
    assert!(matches!(commit(&store, &plan, seen, "bert").await, Err(ApplyError::Overtaken)));
    store.close().await;
}

#[tokio::test]
async fn the_past_changes_only_with_a_date_and_a_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("opens");
    apply(&store, FILE, 1_000).await.expect("applied");
    let past = FILE.replace("target = \"99.5\"", "target = \"99\"\nfrom = \"1970-01-01T00:00:01Z\"");
    let refused = apply(&store, &past, 9_000).await.expect_err("without a reason").to_string();
    assert!(refused.contains("changes the past from 1970-01-01T00:00:01Z without saying why"), "{refused}");
    let told = past.replace("target = \"99\"", "target = \"99\"\nreason = \"as signed\"");
    let plan = apply(&store, &told, 9_000).await.expect("with a reason");
    assert!(plan.in_words().contains("from 1970-01-01T00:00:01Z, changes the past"), "{}", plan.in_words());
    store.close().await;
}

#[tokio::test]
async fn what_was_exported_applies_as_unchanged() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("opens");
    apply(&store, FILE, 1_000).await.expect("applied");
    apply(&store, &FILE.replace("99.5", "99.9"), 2_000).await.expect("applied");
    let (_, versions) = store.object_versions().await.expect("read");
    let exported = export(&versions, UtcTime(5_000));
    let plan = apply(&store, &exported, 6_000).await.expect("applied");
    assert_eq!((plan.changes.len(), plan.unchanged), (0, 3), "{exported}");
    store.close().await;
}

/// The file with `ends` in each table.
fn ending(at: &str) -> String {
    FILE.replace("name = ", &format!("ends = \"{at}\"\nname = "))
}

async fn services_at(store: &Store, at: i64) -> Vec<(String, Option<UtcTime>)> {
    let (_, versions) = store.object_versions().await.expect("read");
    let agreement = Agreement::new(&config(), &versions).expect("makes sense");
    let known = agreement.service_names().filter(|name| agreement.service_at(name, UtcTime(at)).is_some());
    known.map(|name| (name.to_owned(), agreement.ended_at(name, UtcTime(at)))).collect()
}

#[tokio::test]
async fn an_object_ends_when_its_table_says_so_and_the_end_can_be_moved_or_taken_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("opens");
    apply(&store, FILE, 1_000).await.expect("applied");
    let plan = apply(&store, &ending("1970-01-01T00:00:09Z"), 2_000).await.expect("applied");
    assert!(plan.in_words().contains("service \"portal\" ends 1970-01-01T00:00:09Z\n"), "{}", plan.in_words());
    assert_eq!(plan.changes.len(), 3);
    let portal = |end: Option<i64>| vec![("portal".to_owned(), end.map(UtcTime))];
    assert_eq!(services_at(&store, 8_999).await, portal(None));
    assert_eq!(services_at(&store, 9_000).await, portal(Some(9_000)), "known, and ended");
    let again = apply(&store, &ending("1970-01-01T00:00:09Z"), 3_000).await.expect("applied");
    assert_eq!((again.changes.len(), again.unchanged), (0, 3));
    let (_, versions) = store.object_versions().await.expect("read");
    let exported = export(&versions, UtcTime(3_500));
    let plan = apply(&store, &exported, 3_500).await.expect("applied");
    assert_eq!((plan.changes.len(), plan.unchanged), (0, 3), "{exported}");
    assert_eq!(export(&versions, UtcTime(9_500)), "", "what has ended is in no file");

    apply(&store, &ending("1970-01-01T00:00:12Z"), 4_000).await.expect("moved");
    assert_eq!(services_at(&store, 11_000).await, portal(None));
    assert_eq!(services_at(&store, 12_000).await, portal(Some(12_000)));
    apply(&store, FILE, 5_000).await.expect("taken back");
    assert_eq!(services_at(&store, 20_000).await, portal(None));
    let audit = store.audit_tail(30).await.expect("read");
    assert!(audit.iter().any(|entry| entry.detail.contains("service \"portal\" ends 1970-01-01T00:00:12Z")));
    let past = ending("1970-01-01T00:00:07Z");
    let refused = apply(&store, &past, 20_000).await.expect_err("without a reason").to_string();
    assert!(refused.contains("changes the past from 1970-01-01T00:00:07Z without saying why"), "{refused}");
    store.close().await;
}

#[tokio::test]
async fn what_no_file_has_ends_only_when_asked_and_with_everything_that_goes_on_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("opens");
    let other = "[[contract]]\nname = \"other\"\n";
    apply(&store, &format!("{FILE}{other}"), 1_000).await.expect("applied");
    let plan = apply(&store, other, 2_000).await.expect("applied");
    assert_eq!((plan.changes.len(), plan.elsewhere.len()), (0, 3));
    let end = Missing::End { reason: "the customer left".to_owned() };
    let without_service = FILE.split("[[service]]").next().unwrap_or_default();
    let service = FILE.split_once("[[service]]").map(|(_, rest)| format!("[[service]]{rest}")).unwrap_or_default();
    let refused = apply_and(&store, &format!("{other}{service}"), &end, 3_000).await.expect_err("left behind");
    let said = refused.to_string();
    let left = "the contract \"office\" ends at 1970-01-01T00:00:03Z, and the service \"portal\" goes on with it";
    assert!(said.contains(left), "{said}");
    let plan = apply_and(&store, &format!("{other}{without_service}"), &end, 4_000).await.expect("ended");
    assert_eq!(plan.changes.len(), 1);
    assert_eq!(services_at(&store, 4_000).await, [("portal".to_owned(), Some(UtcTime(4_000)))]);
    let plan = apply_and(&store, other, &end, 5_000).await.expect("ended");
    assert!(plan.in_words().contains("check \"web\" ends 1970-01-01T00:00:05Z\n"), "{}", plan.in_words());
    let plan = apply_and(&store, other, &end, 6_000).await.expect("nothing left");
    assert_eq!((plan.changes.len(), plan.elsewhere.len(), plan.unchanged), (0, 0, 1));
    apply(&store, FILE, 7_000).await.expect("begins again");
    assert_eq!(services_at(&store, 7_000).await, [("portal".to_owned(), None)]);
    store.close().await;
}
