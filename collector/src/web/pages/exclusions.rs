//! Exclusions: what was asked, who decided, how much of it counts and why the rest does not.

use askama::Template;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::{Body, Section, Trouble, encode};
use crate::snapshot::{ExclusionView, Snapshot};
use crate::web::draw::{self, Mood, Svg};
use crate::web::format::{TimeTag, Zone, span};

/// One exclusion in a row, its times in the zone of its contract.
struct Row<'a> {
    exclusion: &'a ExclusionView,
    zone: Zone,
    now: UtcTime,
}

impl Row<'_> {
    fn url(&self) -> String {
        format!("/services/{}", encode(&self.exclusion.service))
    }

    fn kind(&self) -> &'static str {
        match self.exclusion.kind.as_str() {
            "maintenance" => "Maintenance",
            "force_majeure" => "Force majeure",
            "customer" => "Caused by the customer",
            _ => "Caused by another supplier",
        }
    }

    fn from(&self) -> TimeTag {
        self.zone.minute(self.exclusion.from)
    }

    fn to(&self) -> TimeTag {
        self.zone.minute(self.exclusion.to)
    }

    fn progress(&self) -> Svg {
        match self.exclusion.progress.as_str() {
            "approved" => draw::badge(Mood::Good, "Approved"),
            "closed" => draw::badge(Mood::Good, "Closed"),
            "refused" => draw::badge(Mood::Bad, "Refused"),
            _ => draw::badge(Mood::Warn, "Waits for approval"),
        }
    }

    fn decided(&self) -> String {
        let ExclusionView { proposed_by, decided_by, .. } = self.exclusion;
        if decided_by.is_empty() {
            return format!("Proposed by {proposed_by}");
        }
        format!("Proposed by {proposed_by}, decided by {decided_by}")
    }

    fn counts(&self) -> String {
        let why = match self.exclusion.refused.as_deref() {
            Some("late_notice") => " It was announced too late.",
            Some("not_approved") => " Nobody approved it.",
            Some("over_cap") => " The rest is over the monthly cap.",
            Some("outside_window") => " It lies outside the agreed time.",
            _ => "",
        };
        match self.exclusion.counted_ms {
            None => "Not in this month.".to_owned(),
            Some(_) if self.now < self.exclusion.from => format!("Still to come.{why}"),
            Some(Millis::ZERO) => format!("Nothing counts.{why}"),
            Some(counted) => format!("{} left out so far.{why}", span(counted)),
        }
    }

    fn overrun(&self) -> Option<String> {
        self.exclusion.overrun_ms.map(|over| format!("Ran over by {}, which counts as down.", span(over)))
    }
}

#[derive(Template)]
#[template(path = "exclusions.html")]
struct Table<'a> {
    rows: Vec<Row<'a>>,
}

/// `/exclusions`
pub(super) fn page(snapshot: &Snapshot, now: UtcTime) -> Result<Body, Trouble> {
    let zone = |service: &str| {
        let found = snapshot.services.iter().find(|view| view.name == service);
        found.map_or(Zone::UTC, |view| Zone::named(&view.timezone))
    };
    let mut rows = Vec::new();
    for exclusion in snapshot.exclusions.iter().rev() {
        rows.push(Row { exclusion, zone: zone(&exclusion.service), now });
    }
    // Trouble comes first: what waits for somebody.
    rows.sort_by_key(|row| row.exclusion.progress != "proposed");
    Ok(Body {
        title: "Exclusions".to_owned(),
        lead: "Time left out of the figures: proposed by one person, approved by another.".to_owned(),
        sections: vec![Section::new("exclusions", "Exclusions of this and last month", &Table { rows })?],
    })
}
