//! What was agreed: the clauses of a contract, holding only values that mean something.
//!
//! [`Terms::read`] serves the evaluator's JSON and the collector's TOML alike. An absent key has the
//! value of the example in formats.md §1; those are the values of [`Terms::default`].

use jiff::tz::TimeZone;
use peil_proto::settings::{Fields, Value};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::calendar::zone;
use super::exclusion::read_time;
use super::holiday::Holidays;
use super::percent::Percent;
use super::span::Span;
use super::track::CONFIRM_MAX;
use super::window::Window;

/// When the service is under contract. `None`: open at that side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// First covered instant.
    pub from: Option<UtcTime>,
    /// First instant after.
    pub to: Option<UtcTime>,
}

impl Coverage {
    /// As a span of time.
    pub fn span(self) -> Span {
        Span::new(self.from.unwrap_or(Span::ALWAYS.from), self.to.unwrap_or(Span::ALWAYS.to))
    }

    /// The same when what is covered ends at `end`.
    #[must_use]
    pub fn until(self, end: UtcTime) -> Self {
        let to = self.to.map_or(end, |to| to.min(end));
        Self { from: self.from.filter(|from| *from < to), to: Some(to) }
    }
}

/// What becomes of window time outside the coverage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denominator {
    /// Agreed time starts and ends with the coverage.
    Covered,
    /// It stays in the denominator and counts as up.
    FullMonth,
}

/// How time without evidence counts in the official figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownClause {
    /// As loss: the supplier bears the burden of proof.
    Down,
    /// Out of the denominator.
    Excluded,
    /// As up.
    Up,
}

/// What approved maintenance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountsAs {
    /// Leaves numerator and denominator.
    Excluded,
    /// Stays in as up.
    Up,
}

/// The maintenance clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maintenance {
    /// What it does.
    pub counts_as: CountsAs,
    /// How long before its start it must be announced.
    pub notice: Millis,
    /// The most of it per month that counts.
    pub monthly_cap: Option<Millis>,
}

/// From which sample an outage counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutageStarts {
    /// The first that failed.
    FirstFailure,
    /// The one that confirmed.
    Confirmation,
}

/// Consecutive failed samples that make an outage: 1 to [`CONFIRM_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirm(u8);

impl Confirm {
    /// `None` outside 1 to [`CONFIRM_MAX`].
    pub fn new(samples: u8) -> Option<Self> {
        (1..=CONFIRM_MAX).contains(&samples).then_some(Self(samples))
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// The clauses of one contract.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Zone of months, windows and holidays.
    pub timezone: TimeZone,
    /// The agreed availability.
    pub target: Percent,
    /// The agreed hours.
    pub window: Window,
    /// Days that cancel windows.
    pub holidays: Option<Holidays>,
    /// When the contract runs.
    pub coverage: Coverage,
    /// What uncovered time does.
    pub denominator: Denominator,
    /// What time without evidence does.
    pub unknown: UnknownClause,
    /// What maintenance does.
    pub maintenance: Maintenance,
    /// When failures are an outage.
    pub confirm: Confirm,
    /// From when it counts.
    pub outage_starts: OutageStarts,
    /// How much must be known for a verdict.
    pub min_known: Percent,
}

impl Default for Terms {
    /// 99.5 % around the clock in Amsterdam; no evidence counts as down.
    fn default() -> Self {
        Self {
            timezone: zone("Europe/Amsterdam").unwrap_or(TimeZone::UTC),
            target: Percent::parse("99.5").unwrap_or_default(),
            window: Window::Always,
            holidays: None,
            coverage: Coverage::default(),
            denominator: Denominator::Covered,
            unknown: UnknownClause::Down,
            maintenance: Maintenance { counts_as: CountsAs::Excluded, notice: Millis::ZERO, monthly_cap: None },
            confirm: Confirm(1),
            outage_starts: OutageStarts::FirstFailure,
            min_known: Percent::NONE,
        }
    }
}

impl Terms {
    /// Takes the clauses out of `fields`. Mistakes go to its [`peil_proto::settings::Mistakes`]; the
    /// caller takes keys of its own (a contract's name) and finishes.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let mistakes = fields.mistakes();
        let default = Self::default();
        let denominators = [("covered", Denominator::Covered), ("full_month", Denominator::FullMonth)];
        let unknowns =
            [("down", UnknownClause::Down), ("excluded", UnknownClause::Excluded), ("up", UnknownClause::Up)];
        let starts = [("first_failure", OutageStarts::FirstFailure), ("confirmation", OutageStarts::Confirmation)];
        let confirm = fields.int_or("confirm", 1..=i64::from(CONFIRM_MAX), 1);
        Self {
            timezone: read_zone(fields).unwrap_or(default.timezone),
            target: read_percent(fields, "target").unwrap_or(default.target),
            window: fields.take("window").and_then(|node| Window::read(node, mistakes)).unwrap_or(default.window),
            holidays: fields.table("holidays").map(Holidays::read),
            coverage: fields.table("coverage").map(read_coverage).unwrap_or_default(),
            denominator: fields.word_or("denominator", &denominators, default.denominator),
            unknown: fields.word_or("unknown", &unknowns, default.unknown),
            maintenance: fields.table("maintenance").map_or(default.maintenance, read_maintenance),
            confirm: u8::try_from(confirm).ok().and_then(Confirm::new).unwrap_or(default.confirm),
            outage_starts: fields.word_or("outage_starts", &starts, default.outage_starts),
            min_known: read_percent(fields, "min_known").unwrap_or(default.min_known),
        }
    }
}

pub(super) fn read_zone(fields: &mut Fields<'_>) -> Option<TimeZone> {
    let mistakes = fields.mistakes();
    let node = fields.take("timezone")?;
    let name = node.as_str(mistakes)?;
    let found = zone(name);
    if found.is_none() {
        node.refuse(mistakes, format_args!("is {name:?}, which is not a time zone such as \"Europe/Amsterdam\""));
    }
    found
}

fn read_percent(fields: &mut Fields<'_>, key: &str) -> Option<Percent> {
    let mistakes = fields.mistakes();
    let node = fields.take(key)?;
    let Value::Str(text) = &node.value else {
        node.refuse(mistakes, format_args!("must be a string such as \"99.5\", not {}", node.value.kind()));
        return None;
    };
    match Percent::parse(text) {
        Ok(percent) => Some(percent),
        Err(why) => {
            node.refuse(mistakes, format_args!("is {text:?}, which {why}"));
            None
        }
    }
}

fn read_coverage(mut fields: Fields<'_>) -> Coverage {
    let from = fields.take_some("from").and_then(|node| read_time(&node, &fields));
    let to = fields.take_some("to").and_then(|node| read_time(&node, &fields));
    let coverage = Coverage { from, to };
    if coverage.span().is_empty() {
        fields.refuse("ends before it begins; \"to\" must be later than \"from\", or null");
    }
    fields.finish();
    coverage
}

fn read_maintenance(mut fields: Fields<'_>) -> Maintenance {
    /// Over eleven years; more is refused as a typing error.
    const NOTICE_HOURS_MAX: i64 = 100_000;
    /// Over twenty months; more is refused as a typing error.
    const CAP_MINUTES_MAX: i64 = 1_000_000;
    let mistakes = fields.mistakes();
    let counts_as =
        fields.word_or("counts_as", &[("excluded", CountsAs::Excluded), ("up", CountsAs::Up)], CountsAs::Excluded);
    let notice_hours = fields.int_or("notice_hours", 0..=NOTICE_HOURS_MAX, 0);
    let cap_minutes =
        fields.take_some("monthly_cap_minutes").and_then(|node| node.as_int(mistakes, 0..=CAP_MINUTES_MAX));
    fields.finish();
    Maintenance {
        counts_as,
        notice: Millis(notice_hours * Millis::HOUR.0),
        monthly_cap: cap_minutes.map(|minutes| Millis(minutes * Millis::MINUTE.0)),
    }
}
