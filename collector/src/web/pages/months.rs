//! Months that are over: drafts, and what was sealed by whom.

use askama::Template;

use super::{Body, Section, Trouble, encode};
use crate::snapshot::{MonthView, Snapshot};
use crate::web::draw::{self, Mood, Svg};
use crate::web::format::{self, TimeTag, Zone};

/// One month of one service in a row.
struct Row<'a>(&'a MonthView);

impl Row<'_> {
    fn url(&self) -> String {
        format!("/services/{}", encode(&self.0.service))
    }

    fn official(&self) -> String {
        self.0.official.as_deref().map_or_else(|| "No agreed time".to_owned(), format::percent)
    }

    fn verdict(&self) -> Svg {
        match self.0.verdict.as_str() {
            "met" => draw::badge(Mood::Good, "Target met"),
            "breached" => draw::badge(Mood::Bad, "Breached"),
            "undetermined" => draw::badge(Mood::Unknown, "Undetermined"),
            _ => draw::badge(Mood::Plain, "Not applicable"),
        }
    }

    fn stage(&self) -> String {
        self.0.edition.map_or_else(|| "Draft".to_owned(), |edition| format!("Edition {edition}"))
    }

    fn sealed(&self) -> Option<(TimeTag, String)> {
        let at = Zone::UTC.minute(self.0.sealed_at?);
        let by = self
            .0
            .sealed_by
            .as_ref()
            .map_or_else(|| "on the agreed day; nobody approved it".to_owned(), |name| format!("by {name}"));
        Some((at, by))
    }

    /// Where the report and the data of the edition are.
    fn parts(&self) -> Option<[(String, &'static str); 2]> {
        let edition = self.0.edition?;
        let (service, month) = (encode(&self.0.service), &self.0.month);
        let url = |part: &str| format!("/api/v1/months/{service}/{month}?part={part}&edition={edition}");
        Some([(url("report"), "Report"), (url("data"), "Data to verify it with")])
    }
}

#[derive(Template)]
#[template(path = "months.html")]
struct Table<'a> {
    rows: Vec<Row<'a>>,
}

/// `/months`
pub(super) fn page(snapshot: &Snapshot) -> Result<Body, Trouble> {
    let rows = snapshot.months.iter().map(Row).collect();
    Ok(Body {
        title: "Months".to_owned(),
        lead: "What was sealed never changes; what is known later makes another edition.".to_owned(),
        sections: vec![Section::new("months", "Months that are over", &Table { rows })?],
    })
}
