//! What was agreed, decided and sealed is only added to, by one after the other, and each addition stands in the log.

use peil_proto::time::UtcTime;

use super::on_both;
use crate::store::Store;
use crate::store::audit::AuditVerdict;
use crate::store::exclusions::{ActRow, Added, ExclusionRow};
use crate::store::months::{EditionRow, EditionTexts, MonthFigureRow};
use crate::store::objects::{Applied, Generation, ObjectVersion};

on_both!(
    versions_are_added_all_or_nothing_and_only_by_who_saw_the_last_ones,
    an_act_follows_the_acts_its_author_saw,
    an_edition_is_written_once_and_its_digest_stands_in_the_log,
    the_figure_of_a_draft_is_overwritten,
);

fn version(name: &str, recorded_at: i64) -> ObjectVersion {
    ObjectVersion {
        kind: "contract".to_owned(),
        name: name.to_owned(),
        valid_from: UtcTime(i64::MIN),
        recorded_at: UtcTime(recorded_at),
        author: "anna".to_owned(),
        reason: "new".to_owned(),
        body: "{}".to_owned(),
    }
}

async fn entries(store: &Store) -> u64 {
    match store.audit_verify().await.unwrap() {
        AuditVerdict::Whole { entries, .. } => entries,
        AuditVerdict::Broken { seq, fault } => panic!("broken at {seq}: {fault:?}"),
    }
}

async fn versions_are_added_all_or_nothing_and_only_by_who_saw_the_last_ones(store: Store) {
    let (seen, none) = store.object_versions().await.unwrap();
    assert_eq!((seen, none), (Generation(0), Vec::new()));
    let both = vec![version("a", 5), version("b", 5)];
    assert_eq!(store.apply_objects(both.clone(), seen, "anna").await.unwrap(), Applied::Done(Generation(2)));
    let late = store.apply_objects(vec![version("c", 6)], seen, "bert").await.unwrap();
    assert_eq!(late, Applied::Overtaken(Generation(2)));
    // The second of these is there already, so neither is written.
    let twice = vec![version("c", 6), version("a", 5)];
    assert!(store.apply_objects(twice, Generation(2), "bert").await.is_err());
    assert_eq!(store.object_versions().await.unwrap(), (Generation(2), both));
    assert_eq!(store.object_generation().await.unwrap(), Generation(2));
    assert_eq!(entries(&store).await, 2);
    let last = store.audit_tail(1).await.unwrap().remove(0);
    assert_eq!((last.what.as_str(), last.detail.as_str()), ("agreement.apply", "contract \"b\" from ever: new"));
}

fn proposal(id: &str, from: i64) -> ExclusionRow {
    ExclusionRow {
        id: id.to_owned(),
        service: "portal".to_owned(),
        kind: "maintenance".to_owned(),
        from: UtcTime(from),
        to: UtcTime(from + 10),
        announced_at: None,
        reason: "disks".to_owned(),
        proposed_at: UtcTime(1),
        proposed_by: "anna".to_owned(),
        acts: Vec::new(),
    }
}

async fn an_act_follows_the_acts_its_author_saw(store: Store) {
    assert_eq!(store.propose_exclusion(proposal("CHG-2", 200)).await.unwrap(), Added::Done);
    assert_eq!(store.propose_exclusion(proposal("CHG-1", 100)).await.unwrap(), Added::Done);
    assert_eq!(store.propose_exclusion(proposal("CHG-1", 300)).await.unwrap(), Added::Overtaken);
    let act = |deed: &str, end| ActRow {
        at: UtcTime(2),
        who: "bert".to_owned(),
        deed: deed.to_owned(),
        detail: String::new(),
        end,
    };
    let (approve, close) = (act("approve", None), act("close", Some(UtcTime(105))));
    assert_eq!(store.act_on_exclusion("CHG-1", 0, approve.clone()).await.unwrap(), Added::Done);
    assert_eq!(store.act_on_exclusion("CHG-1", 0, close.clone()).await.unwrap(), Added::Overtaken);
    assert_eq!(store.act_on_exclusion("CHG-1", 1, close.clone()).await.unwrap(), Added::Done);
    let rows = store.exclusions(UtcTime(i64::MIN)).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["CHG-1", "CHG-2"]);
    assert_eq!((&rows[0].acts, rows[1].acts.len()), (&vec![approve, close], 0));
    assert_eq!(store.exclusions(UtcTime(110)).await.unwrap().len(), 1, "what ended before is left out");
    assert_eq!(entries(&store).await, 4);
}

fn edition(version: u32) -> (EditionRow, EditionTexts) {
    let row = EditionRow {
        service: "portal".to_owned(),
        month: "2026-04".to_owned(),
        version,
        sealed_at: UtcTime(9),
        sealed_by: (version > 1).then(|| "bert".to_owned()),
        reason: String::new(),
        author: String::new(),
        inputs: [7; 32],
    };
    (row, EditionTexts { document: "{}".to_owned(), data: format!("{version}") })
}

async fn an_edition_is_written_once_and_its_digest_stands_in_the_log(store: Store) {
    for (version, becomes) in [(1, Added::Done), (1, Added::Overtaken), (2, Added::Done)] {
        let (row, texts) = edition(version);
        assert_eq!(store.add_edition(row, texts, "bert").await.unwrap(), becomes);
    }
    assert_eq!(store.editions().await.unwrap(), [edition(1).0, edition(2).0]);
    let texts = store.edition_texts("portal", "2026-04", 2).await.unwrap();
    assert_eq!(texts, Some(edition(2).1));
    assert_eq!(store.edition_texts("portal", "2026-05", 1).await.unwrap(), None);
    let tail = store.audit_tail(5).await.unwrap();
    assert_eq!(tail.iter().map(|entry| entry.what.as_str()).collect::<Vec<_>>(), ["month.supersede", "month.seal"]);
    // printf '{}' | sha256sum
    let sha256 = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    assert_eq!(tail[1].detail, format!("\"portal\" 2026-04 edition 1 sha256 {sha256}"));
}

async fn the_figure_of_a_draft_is_overwritten(store: Store) {
    let figure = |text: &str, at: i64| MonthFigureRow {
        service: "portal".to_owned(),
        month: "2026-04".to_owned(),
        computed_at: UtcTime(at),
        inputs: [1; 32],
        figure: text.to_owned(),
    };
    store.put_month_figures(vec![figure("{}", 1)]).await.unwrap();
    store.put_month_figures(vec![figure("{\"a\":1}", 2)]).await.unwrap();
    assert_eq!(store.month_figures().await.unwrap(), [figure("{\"a\":1}", 2)]);
}
