//! Alerts: the open ones with what to do, and those resolved within a day.

use askama::Template;
use peil_proto::time::UtcTime;

use super::{Body, Section, Trouble, encode};
use crate::snapshot::{AlertView, DeliveryView, Snapshot};
use crate::web::draw::{self, Mood, Svg};
use crate::web::format::{TimeTag, Zone, ago, count, span};

/// An alert in words.
#[derive(Template)]
#[template(path = "alert_card.html")]
pub(super) struct AlertCard<'a> {
    alert: &'a AlertView,
    /// The page of what it is about, when there is one.
    url: Option<String>,
    now: UtcTime,
}

impl<'a> AlertCard<'a> {
    pub(super) fn new(alert: &'a AlertView, snapshot: &Snapshot, now: UtcTime) -> Self {
        let service = snapshot.services.iter().find(|service| service.name == alert.subject);
        let host = snapshot.hosts.iter().find(|host| host.host == alert.subject);
        let url = match (service, host) {
            (Some(service), _) => Some(format!("/services/{}", encode(&service.name))),
            (None, Some(host)) => Some(format!("/hosts/{}", host.agent)),
            (None, None) => None,
        };
        Self { alert, url, now }
    }

    fn severity(&self) -> Svg {
        match (self.alert.resolved_at, self.alert.severity.as_str()) {
            (Some(_), _) => draw::badge(Mood::Good, "Resolved"),
            (None, "critical") => draw::badge(Mood::Bad, "Critical"),
            (None, "warning") => draw::badge(Mood::Warn, "Warning"),
            (None, _) => draw::badge(Mood::Plain, "Notice"),
        }
    }

    fn mood(&self) -> &'static str {
        if self.alert.severity == "critical" { Mood::Bad.class() } else { Mood::Warn.class() }
    }

    fn opened(&self) -> (TimeTag, String) {
        (Zone::UTC.minute(self.alert.opened_at), ago(self.alert.opened_at, self.now))
    }

    fn resolved(&self) -> Option<(TimeTag, String)> {
        self.alert.resolved_at.map(|at| (Zone::UTC.minute(at), span(at.since(self.alert.opened_at))))
    }

    /// Deliveries in half a line: who was told, and what did not arrive.
    fn told(&self) -> String {
        let waiting = self.alert.deliveries.iter().filter(|d| d.sent_at.is_none()).count();
        match (self.alert.deliveries.len(), waiting) {
            (0, _) => "Nobody is told: no channel is set up for it.".to_owned(),
            (all, 0) => format!("Delivered: {}.", count(all, "message", "messages")),
            (all, n) => format!("{n} of {} not delivered yet.", count(all, "message", "messages")),
        }
    }

    fn deliveries(&self) -> Vec<DeliveryRow<'a>> {
        self.alert.deliveries.iter().map(DeliveryRow).collect()
    }
}

/// One delivery in a row.
struct DeliveryRow<'a>(&'a DeliveryView);

impl DeliveryRow<'_> {
    fn standing(&self) -> Svg {
        match (self.0.sent_at, self.0.attempts) {
            (Some(_), _) => draw::badge(Mood::Good, "Delivered"),
            (None, 0) => draw::badge(Mood::Unknown, "Waiting"),
            (None, _) => draw::badge(Mood::Bad, "Failing, will be tried again"),
        }
    }

    fn sent(&self) -> Option<TimeTag> {
        self.0.sent_at.map(|at| Zone::UTC.minute(at))
    }
}

#[derive(Template)]
#[template(path = "alerts_open.html")]
struct Open<'a> {
    cards: Vec<AlertCard<'a>>,
}

#[derive(Template)]
#[template(path = "alerts_recent.html")]
struct Recent<'a> {
    cards: Vec<AlertCard<'a>>,
}

/// `/alerts`
pub(super) fn page(snapshot: &Snapshot, now: UtcTime) -> Result<Body, Trouble> {
    let all = snapshot.alerts.iter().map(|alert| AlertCard::new(alert, snapshot, now));
    let (open, recent) = all.partition(|card| card.alert.resolved_at.is_none());
    Ok(Body {
        title: "Alerts".to_owned(),
        lead: String::new(),
        sections: vec![
            Section::new("firing", "Open alerts", &Open { cards: open })?,
            Section::new("resolved", "Resolved within a day", &Recent { cards: recent })?,
        ],
    })
}
