//! One open alert per key, and every delivery made once, in order.

use peil_proto::time::UtcTime;

use super::{lead, on_both};
use crate::store::Store;
use crate::store::alerts::outbox::{Delivery, Event, Progress};
use crate::store::alerts::{AlertChange, Applied, NewAlert};

on_both!(
    an_open_alert_is_not_opened_again_and_a_resolved_one_may_be,
    resolved_never_overtakes_its_firing_also_when_that_was_never_tried,
    the_end_is_told_to_those_who_were_told_the_beginning,
    a_second_trouble_with_the_same_key_waits_its_turn_and_other_keys_do_not,
    alerts_are_kept_without_any_channel_and_the_limit_is_kept,
);

fn open(key: &str, at: i64) -> AlertChange {
    AlertChange::Open(NewAlert {
        key: key.to_owned(),
        kind: "outage".to_owned(),
        severity: "critical".to_owned(),
        subject: "shop".to_owned(),
        summary: "shop is down".to_owned(),
        action: "look at web".to_owned(),
        at: UtcTime(at),
    })
}

fn resolve(key: &str, at: i64) -> AlertChange {
    AlertChange::Resolve { key: key.to_owned(), at: UtcTime(at) }
}

async fn apply(store: &Store, changes: Vec<AlertChange>, channels: &[&str]) -> Applied {
    let channels = channels.iter().map(|name| (*name).to_owned()).collect();
    store.apply_alerts(changes, channels, lead(store).await).await.unwrap()
}

async fn due(store: &Store, now: i64) -> Vec<Delivery> {
    store.deliveries_due(UtcTime(now), 100).await.unwrap()
}

fn told(deliveries: &[Delivery]) -> Vec<(&str, &str, Event)> {
    deliveries.iter().map(|d| (d.alert.key.as_str(), d.channel.as_str(), d.event)).collect()
}

async fn an_open_alert_is_not_opened_again_and_a_resolved_one_may_be(store: Store) {
    let first = apply(&store, vec![open("a", 10), open("a", 11), open("b", 12)], &["chat"]).await;
    assert_eq!((first.opened.len(), first.resolved.len()), (2, 0));
    assert_eq!(apply(&store, vec![open("a", 13)], &["chat"]).await, Applied::default());
    assert_eq!(due(&store, 100).await.len(), 2);
    let update = AlertChange::Update { key: "a".to_owned(), summary: "shop is still down".to_owned() };
    assert_eq!(apply(&store, vec![update], &["chat"]).await, Applied::default());
    let alerts = store.alerts_open().await.unwrap();
    assert_eq!(alerts.iter().map(|alert| alert.key.as_str()).collect::<Vec<_>>(), ["b", "a"], "newest first");
    assert_eq!((alerts[1].summary.as_str(), alerts[1].opened_at), ("shop is still down", UtcTime(10)));
    let ended = apply(&store, vec![resolve("a", 20), resolve("a", 21), resolve("never", 22)], &["chat"]).await;
    assert_eq!(ended.resolved, [first.opened[0]]);
    let recent = store.alerts_recent(UtcTime(20), 10).await.unwrap();
    assert_eq!(
        recent.iter().map(|a| (a.id, a.resolved_at)).collect::<Vec<_>>(),
        [(first.opened[0], Some(UtcTime(20)))]
    );
    assert_eq!(store.alerts_recent(UtcTime(21), 10).await.unwrap(), []);
    let again = apply(&store, vec![open("a", 30)], &["chat"]).await;
    assert!(again.opened[0] > first.opened[1], "another alert with the same key");
}

async fn resolved_never_overtakes_its_firing_also_when_that_was_never_tried(store: Store) {
    let id = apply(&store, vec![open("a", 10), resolve("a", 11)], &["chat", "mail"]).await.opened[0];
    let firing = [("a", "chat", Event::Firing), ("a", "mail", Event::Firing)];
    let first = due(&store, 20).await;
    assert_eq!(told(&first), firing);
    store.delivery_sent(first[0].id, UtcTime(21)).await.unwrap();
    store.delivery_failed(first[1].id, UtcTime(21), "503", Some(UtcTime(50))).await.unwrap();
    let second = due(&store, 30).await;
    assert_eq!(told(&second), [("a", "chat", Event::Resolved)], "mail waits for its retry, chat goes on");
    assert_eq!(second[0].dedup_key(), first[0].dedup_key());
    store.delivery_sent(second[0].id, UtcTime(31)).await.unwrap();
    store.delivery_sent(second[0].id, UtcTime(99)).await.unwrap();
    assert_eq!(told(&due(&store, 49).await), []);
    let third = due(&store, 50).await;
    assert_eq!((told(&third), third[0].attempts, third[0].last_error.as_str()), (firing[1..].to_vec(), 1, "503"));
    store.delivery_failed(third[0].id, UtcTime(51), "no such mailbox", None).await.unwrap();
    assert_eq!(told(&due(&store, 52).await), [("a", "mail", Event::Resolved)], "given up: those behind it move on");
    let all = store.deliveries_of(vec![id, id]).await.unwrap();
    let progress: Vec<Progress> = all.iter().map(|delivery| delivery.progress).collect();
    assert_eq!(
        progress,
        [
            Progress::Sent { at: UtcTime(21) },
            Progress::Abandoned { at: UtcTime(51) },
            Progress::Sent { at: UtcTime(31) },
            Progress::Waiting { due_at: UtcTime(11) },
        ]
    );
}

async fn the_end_is_told_to_those_who_were_told_the_beginning(store: Store) {
    apply(&store, vec![open("a", 10), open("b", 10)], &["chat"]).await;
    for delivery in due(&store, 20).await {
        store.delivery_sent(delivery.id, UtcTime(20)).await.unwrap();
    }
    // Meanwhile the channels were configured anew.
    apply(&store, vec![resolve("a", 30)], &["mail"]).await;
    assert_eq!(told(&due(&store, 40).await), [("a", "chat", Event::Resolved)]);
}

async fn a_second_trouble_with_the_same_key_waits_its_turn_and_other_keys_do_not(store: Store) {
    apply(&store, vec![open("a", 10), resolve("a", 11), open("a", 12), open("b", 13)], &["chat"]).await;
    let mut order = Vec::new();
    loop {
        let due = due(&store, 100).await;
        let Some(next) = due.first() else { break };
        if order.is_empty() {
            assert_eq!(told(&due), [("a", "chat", Event::Firing), ("b", "chat", Event::Firing)]);
        }
        order.push((next.alert.key.clone(), next.event, next.dedup_key()));
        store.delivery_sent(next.id, UtcTime(100)).await.unwrap();
    }
    let events: Vec<_> = order.iter().filter(|(key, ..)| key == "a").map(|(_, event, _)| *event).collect();
    assert_eq!(events, [Event::Firing, Event::Resolved, Event::Firing]);
    let keys: std::collections::BTreeSet<_> = order.iter().map(|(.., key)| key).collect();
    assert_eq!(keys.len(), 3, "each trouble has its own key: {order:?}");
}

async fn alerts_are_kept_without_any_channel_and_the_limit_is_kept(store: Store) {
    apply(&store, vec![open("quiet", 1), resolve("quiet", 2)], &[]).await;
    assert_eq!(due(&store, 100).await, []);
    apply(&store, (0..5).map(|no| open(&format!("k{no}"), no)).collect(), &["chat", "chat"]).await;
    assert_eq!(due(&store, 100).await.len(), 5, "a channel named twice is told once");
    assert_eq!(store.deliveries_due(UtcTime(100), 2).await.unwrap().len(), 2);
}
