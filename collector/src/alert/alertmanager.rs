//! Alertmanager's API v2. It forgets an alert that nobody repeats, so open ones are sent again every
//! minute with an end five minutes ahead, as Prometheus does; a resolved one is sent with its end.

use std::collections::BTreeMap;

use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use serde_json::{Value, json};

use super::{Event, Message};

/// How long Alertmanager keeps an alert nobody repeats.
const HOLD: Millis = Millis(5 * Millis::MINUTE.0);
/// How often open alerts are repeated.
pub const REFRESH_EVERY: Millis = Millis::MINUTE;

/// Where alerts are posted, from the base the operator configured.
pub fn url(base: &str) -> String {
    if base.ends_with("/api/v2/alerts") { base.to_owned() } else { format!("{base}/api/v2/alerts") }
}

/// The body of one POST.
pub fn body<'m>(messages: impl IntoIterator<Item = &'m Message>, now: UtcTime) -> Value {
    let alert = |message: &Message| {
        let ends_at = match message.event {
            Event::Firing => now.plus(HOLD),
            Event::Resolved => message.resolved_at.unwrap_or(now),
        };
        json!({
            "labels": labels(message),
            "annotations": annotations(message),
            "startsAt": message.opened_at.to_string(),
            "endsAt": ends_at.to_string(),
            "generatorURL": message.link,
        })
    };
    messages.into_iter().map(alert).collect()
}

/// The identity of an alert in Alertmanager: nothing in it may change while it is open.
pub fn labels(message: &Message) -> BTreeMap<&'static str, &str> {
    let about =
        if message.key.starts_with("outage/") || message.key.starts_with("sla_breach/") { "service" } else { "host" };
    BTreeMap::from([
        ("alertname", message.title.as_str()),
        ("severity", message.severity.as_str()),
        ("peil_key", message.key.as_str()),
        (about, message.subject.as_str()),
    ])
}

/// The words.
pub fn annotations(message: &Message) -> BTreeMap<&'static str, &str> {
    BTreeMap::from([("summary", message.summary.as_str()), ("description", message.action.as_str())])
}
