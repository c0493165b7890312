//! One service: its figure with all buckets, its outages, and what each vantage sees.
//!
//! Times are told in the zone of the contract, because its days and windows are.

use askama::Template;
use peil_proto::sample::{PHASES, State};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::{Body, Section, Trouble, bounds, budget, verdict};
use crate::snapshot::{CheckView, OutageView, ServiceView, VantageView};
use crate::web::draw::{self, Mood, Svg};
use crate::web::format::{TimeTag, Zone, ago, clock, days_until, micros, percent, span};

/// Fewer days left than this on a certificate are a warning.
const CERT_DAYS_WARN: i64 = 21;

#[derive(Template)]
#[template(path = "service_now.html")]
struct Now<'a> {
    service: &'a ServiceView,
    state: Svg,
    verdict: Svg,
    since: Option<(TimeTag, String)>,
    because: String,
    availability: Option<String>,
    bounds: Option<String>,
    target: String,
    budget: String,
    budget_bar: Svg,
}

#[derive(Template)]
#[template(path = "service_checks.html")]
struct Checks<'a> {
    checks: Vec<Check<'a>>,
}

#[derive(Template)]
#[template(path = "service_figure.html")]
struct Figure<'a> {
    service: &'a ServiceView,
    stack: Svg,
    buckets: Vec<Bucket>,
    total: Option<String>,
    agreed: Option<String>,
    excluded: Vec<Excluded>,
}

#[derive(Template)]
#[template(path = "service_outages.html")]
struct Outages<'a> {
    month: &'a str,
    rows: Vec<OutageRow<'a>>,
}

/// `/services/{name}`
pub(super) fn page(service: &ServiceView, now: UtcTime) -> Result<Body, Trouble> {
    let zone = Zone::named(&service.timezone);
    let state = Now {
        service,
        state: draw::state_badge(service.state),
        verdict: verdict(service),
        since: service.since.map(|at| (zone.time(at), ago(at, now))),
        because: service.because.join(", "),
        availability: service.official.as_deref().map(percent),
        bounds: bounds(service),
        target: percent(&service.target),
        budget: budget(service),
        budget_bar: draw::budget_bar(service.budget_left_ms, service.budget_ms),
    };
    let checks = service.checks.iter().map(|check| Check::new(check, &zone, now)).collect();
    let rows = service.outages.iter().map(|outage| OutageRow { outage, zone: &zone, now }).collect();
    Ok(Body {
        title: service.name.clone(),
        lead: format!("Service · month {} · {}", service.month, service.timezone),
        sections: vec![
            Section::new("now", "Now", &state)?,
            Section::new("checks", "Checks", &Checks { checks })?,
            Section::new("outages", "Outages", &Outages { month: &service.month, rows })?,
            Section::new("figure", "Figure", &figure(service))?,
        ],
    })
}

/// A bucket of the month's time.
struct Bucket {
    class: &'static str,
    name: &'static str,
    time: String,
    share: String,
}

/// An exclusion and what became of it.
struct Excluded {
    id: String,
    counted: String,
    refused: String,
}

/// Every millisecond of the month is in one of these (formats.md §1).
const BUCKETS: [(&str, &str, &str); 7] = [
    ("up_ms", "good", "Up"),
    ("down_ms", "bad", "Down"),
    ("unknown_ms", "unknown", "Unknown"),
    ("excluded_ms", "excluded", "Excluded by agreement"),
    ("out_of_window_ms", "outside", "Outside service hours"),
    ("holiday_ms", "holiday", "Holidays"),
    ("not_covered_ms", "plain", "Not under contract"),
];

fn figure(service: &ServiceView) -> Figure<'_> {
    let amount = |key: &str| service.figure.get(key).and_then(serde_json::Value::as_i64);
    let total = amount("month_ms");
    let parts = BUCKETS.map(|(key, class, _)| (class, amount(key).unwrap_or(0)));
    let buckets = BUCKETS.iter().filter_map(|(key, class, name)| {
        let ms = amount(key)?;
        Some(Bucket { class, name, time: clock(Millis(ms)), share: share(ms, total?) })
    });
    Figure {
        service,
        stack: draw::stack(&parts),
        buckets: buckets.collect(),
        total: total.map(|ms| clock(Millis(ms))),
        agreed: amount("agreed_ms").map(|ms| clock(Millis(ms))),
        excluded: excluded(&service.figure),
    }
}

/// Share of the month in per cent with two decimals, cut; so that little is not shown as nothing.
fn share(ms: i64, total: i64) -> String {
    if total <= 0 {
        return "–".to_owned();
    }
    let hundredths = i128::from(ms.max(0)) * 10_000 / i128::from(total);
    if hundredths == 0 && ms > 0 {
        return "< 0.01 %".to_owned();
    }
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

fn excluded(figure: &serde_json::Value) -> Vec<Excluded> {
    let list = figure.get("excluded").and_then(serde_json::Value::as_array).into_iter().flatten();
    let text = |item: &serde_json::Value, key| item.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
    list.map(|item| Excluded {
        id: text(item, "id").unwrap_or_default(),
        counted: clock(Millis(item.get("counted_ms").and_then(serde_json::Value::as_i64).unwrap_or(0))),
        refused: match text(item, "refused").as_deref() {
            None => "counts".to_owned(),
            Some("late_notice") => "does not count: announced too late".to_owned(),
            Some("not_approved") => "does not count: not approved".to_owned(),
            Some("over_cap") => "counts in part: over the monthly limit".to_owned(),
            Some("outside_window") => "does not count: outside service hours".to_owned(),
            Some(other) => format!("does not count: {other}"),
        },
    })
    .collect()
}

/// An outage in a row.
struct OutageRow<'a> {
    outage: &'a OutageView,
    zone: &'a Zone,
    now: UtcTime,
}

impl OutageRow<'_> {
    fn from(&self) -> TimeTag {
        self.zone.time(self.outage.from)
    }

    fn to(&self) -> Option<TimeTag> {
        self.outage.to.map(|at| self.zone.time(at))
    }

    fn lasted(&self) -> String {
        span(self.outage.to.unwrap_or(self.now).since(self.outage.from))
    }

    fn counted(&self) -> String {
        match self.outage.counted_ms {
            Millis::ZERO => "nothing".to_owned(),
            counted => span(counted),
        }
    }

    fn because(&self) -> String {
        self.outage.because.join(", ")
    }
}

/// A check and what each vantage sees of it.
struct Check<'a> {
    check: &'a CheckView,
    every: String,
    cert: Option<(Svg, String, TimeTag)>,
    times: Option<Times>,
    vantages: Vec<Vantage<'a>>,
}

/// Times of the month in words.
struct Times {
    p50: String,
    p95: String,
    p99: String,
    of: String,
}

impl<'a> Check<'a> {
    fn new(check: &'a CheckView, zone: &Zone, now: UtcTime) -> Self {
        let longest = check.vantages.iter().map(total_us).max().unwrap_or(0);
        let ends = check.vantages.iter().filter_map(|vantage| vantage.cert_not_after).min();
        Self {
            check,
            every: span(check.interval_ms),
            cert: ends.map(|at| certificate(at, zone, now)),
            times: check.times.map(|times| Times {
                p50: micros(times.p50_us),
                p95: micros(times.p95_us),
                p99: micros(times.p99_us),
                of: format!("of {} successes", times.count),
            }),
            vantages: check.vantages.iter().map(|view| Vantage::new(view, zone, now, longest)).collect(),
        }
    }
}

fn certificate(at: UtcTime, zone: &Zone, now: UtcTime) -> (Svg, String, TimeTag) {
    let left = days_until(at, now);
    let (badge, words) = match left {
        ..0 => (draw::badge(Mood::Bad, "Certificate expired"), format!("{} ago", super::overview::days(-left))),
        0..CERT_DAYS_WARN => {
            (draw::badge(Mood::Warn, "Certificate ends soon"), format!("{} left", super::overview::days(left)))
        }
        _ => (draw::badge(Mood::Good, "Certificate valid"), format!("{} left", super::overview::days(left))),
    };
    (badge, words, zone.date(at))
}

fn total_us(vantage: &VantageView) -> u64 {
    vantage.phases_us.iter().flatten().map(|us| u64::from(*us)).sum()
}

/// What one vantage sees.
struct Vantage<'a> {
    view: &'a VantageView,
    state: Svg,
    last: Option<(TimeTag, String)>,
    waterfall: Option<Svg>,
    total: String,
    /// In the order of [`PHASES`]; a dash where none took place.
    phases: [String; 5],
}

impl<'a> Vantage<'a> {
    fn new(view: &'a VantageView, zone: &Zone, now: UtcTime, longest_us: u64) -> Self {
        let total = total_us(view);
        Self {
            view,
            state: draw::state_badge(view.state),
            last: view.last_at.map(|at| (zone.minute(at), ago(at, now))),
            waterfall: (total > 0).then(|| draw::waterfall(view.phases_us, longest_us)),
            total: micros(u32::try_from(total).unwrap_or(u32::MAX)),
            phases: view.phases_us.map(|us| us.map_or_else(|| "–".to_owned(), micros)),
        }
    }

    /// Outcomes are words of the agent; the colon and underscores are not for people.
    fn outcome(&self) -> String {
        self.view.outcome.replace('_', " ").replacen(':', " ", 1)
    }
}

/// Phases as people read them, for the heads of tables.
fn phase_words() -> [&'static str; 5] {
    PHASES.map(draw::phase_word)
}

/// A span for the tables of the figure.
fn ms(span: &Millis) -> String {
    clock(*span)
}

/// Whether the state needs a reason.
fn troubled(service: &ServiceView) -> bool {
    service.state != State::Up
}
