//! Alertmanager's webhook format, version 4: receivers and bridges made for it work as they are.

use serde_json::{Value, json};

use super::{Event, Message};
use crate::alert::alertmanager::{annotations, labels};

/// The body of one POST: a group of one alert.
pub fn body(receiver: &str, message: &Message) -> Value {
    let labels = labels(message);
    let annotations = annotations(message);
    let ends_at = match message.event {
        Event::Firing => "0001-01-01T00:00:00Z".to_owned(),
        Event::Resolved => message.resolved_at.unwrap_or(message.opened_at).to_string(),
    };
    json!({
        "version": "4",
        "groupKey": message.key,
        "truncatedAlerts": 0,
        "status": message.event.word(),
        "receiver": receiver,
        "groupLabels": { "peil_key": message.key },
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": message.link,
        "alerts": [{
            "status": message.event.word(),
            "labels": labels,
            "annotations": annotations,
            "startsAt": message.opened_at.to_string(),
            "endsAt": ends_at,
            "generatorURL": message.link,
            "fingerprint": fingerprint(&message.key),
        }],
    })
}

/// 16 hex digits that stay the same for the same trouble.
fn fingerprint(key: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    data_encoding::HEXLOWER.encode(&digest.as_ref()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use peil_proto::time::UtcTime;

    #[test]
    fn the_same_trouble_has_the_same_fingerprint_when_it_is_over() {
        let mut message = Message {
            key: "outage/portal".into(),
            kind: "outage".into(),
            title: "PeilServiceOutage".into(),
            severity: "critical".into(),
            subject: "portal".into(),
            summary: "portal is down".into(),
            action: "restore it".into(),
            link: "https://peil/services/portal".into(),
            opened_at: UtcTime(0),
            resolved_at: None,
            event: Event::Firing,
            delivery: "1".into(),
        };
        let firing = body("hook", &message);
        message.event = Event::Resolved;
        message.resolved_at = Some(UtcTime(60_000));
        let resolved = body("hook", &message);
        assert_eq!(firing["alerts"][0]["fingerprint"], resolved["alerts"][0]["fingerprint"]);
        assert_eq!(firing["status"], "firing");
        assert_eq!(resolved["alerts"][0]["endsAt"], "1970-01-01T00:01:00Z");
        assert_eq!(firing["alerts"][0]["labels"]["alertname"], "PeilServiceOutage");
    }
}
