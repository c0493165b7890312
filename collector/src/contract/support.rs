//! Time in the support window: how long a response or a repair took, and by when it is due.
//!
//! The support window is a calendar of its own, apart from the service window: a service may be agreed
//! around the clock and its desk be open in office hours. Only time in that window counts, minus the
//! stretches in which the clock was stopped, each with its reason. All sums add up to the time on the
//! wall: outside the window, stopped, counted.
//!
//! "One working day" has two readings, and a contract names one ([`OneWorkingDay`]): the end of the next
//! working day, or so many working hours. A deadline is the earliest instant at which the term has passed.
//!
//! Limits: [`HORIZON`]. Deliberately absent: where tickets come from, and who is called.

use jiff::tz::TimeZone;
use peil_proto::settings::Fields;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::calendar::Day;
use super::holiday::Holidays;
use super::span::{Span, Spans};
use super::terms::{Terms, read_zone};
use super::window::{Window, read_days};
use super::workday::{WorkingDays, add_working_days};

/// How far the calendar is laid out, ten years: a term that does not fit, or a clock that stands still, has
/// no deadline; a longer stretch is measured up to here.
pub const HORIZON: Millis = Millis(3_660 * Millis::DAY.0);

/// How much of the calendar is laid out at once.
const STRIDE: Millis = Millis(60 * Millis::DAY.0);

/// When the desk is open.
#[derive(Debug, Clone)]
pub struct SupportHours {
    /// Zone of window and days.
    pub timezone: TimeZone,
    /// The hours; holidays cancel those that start on them.
    pub window: Window,
    /// The days that terms are counted in.
    pub days: WorkingDays,
}

/// Why the clock was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The customer must answer or act.
    WaitingForCustomer,
    /// A party the contract names must act.
    WaitingForThirdParty,
    /// The customer asked to go on later.
    Postponed,
}

/// A stretch in which the clock was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// From when.
    pub from: UtcTime,
    /// Until when; `None` while it lasts.
    pub to: Option<UtcTime>,
    /// Why.
    pub reason: StopReason,
}

impl Stop {
    fn span(self) -> Span {
        Span::new(self.from, self.to.unwrap_or(Span::ALWAYS.to))
    }
}

/// A stretch of time on the wall, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// From beginning to end: the sum of the rest.
    pub wall_ms: Millis,
    /// Outside the support window.
    pub outside_ms: Millis,
    /// In the window with the clock stopped, on the account of each stop in the order given; where two
    /// overlap, of the one that began earlier.
    pub stopped_ms: Vec<(StopReason, Millis)>,
    /// What counts.
    pub counted_ms: Millis,
}

/// What one working day means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OneWorkingDay {
    /// The end of the support hours of the next working day.
    EndOfNext,
    /// This much time in the support window.
    Hours(Millis),
}

impl OneWorkingDay {
    /// The usual number of hours.
    pub const EIGHT_HOURS: Self = Self::Hours(Millis(8 * Millis::HOUR.0));

    /// By when what was reported at `from` is due.
    pub fn deadline(self, from: UtcTime, hours: &SupportHours, stops: &[Stop]) -> Option<UtcTime> {
        match self {
            Self::EndOfNext => hours.deadline_end_of_next_working_day(from, stops),
            Self::Hours(term) => hours.deadline(from, term, stops),
        }
    }
}

impl SupportHours {
    /// Takes `timezone`, `window`, `holidays` and `working_days` out of `fields`; the first three as in a
    /// contract's terms, the last a list of days of the week, Monday to Friday when absent.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let mistakes = fields.mistakes();
        let default = Terms::default();
        let weekdays = fields.take_some("working_days").map(|node| read_days(node, mistakes));
        let holidays = fields.table("holidays").map(Holidays::read);
        Self {
            timezone: read_zone(fields).unwrap_or(default.timezone),
            window: fields.take("window").and_then(|node| Window::read(node, mistakes)).unwrap_or(default.window),
            days: WorkingDays { weekdays: weekdays.unwrap_or(WorkingDays::MONDAY_TO_FRIDAY.weekdays), holidays },
        }
    }

    /// The instants of `within` at which the desk is open.
    pub fn open(&self, within: Span) -> Spans {
        self.window.spans(&self.timezone, within, |day| !self.days.is_holiday(day))
    }

    /// What `span` comes to. It is cut at [`HORIZON`]: `wall_ms` says how much of it was looked at.
    pub fn measure(&self, span: Span, stops: &[Stop]) -> Measured {
        let span = span.clip(Span::new(span.from, span.from.plus(HORIZON)));
        let open = if span.is_empty() { Spans::default() } else { self.open(span) };
        let mut order: Vec<usize> = (0..stops.len()).collect();
        order.sort_by_key(|i| (stops[*i].from, *i));
        let mut stopped_ms: Vec<_> = stops.iter().map(|stop| (stop.reason, Millis::ZERO)).collect();
        let mut running = open.clone();
        for i in order {
            let left = running.without(&stops[i].span().into());
            stopped_ms[i].1 = running.total().saturating_sub(left.total());
            running = left;
        }
        Measured {
            wall_ms: span.length(),
            outside_ms: span.length().saturating_sub(open.total()),
            stopped_ms,
            counted_ms: running.total(),
        }
    }

    /// The earliest instant at which `term` has been counted since `from`. `None` when that lies beyond
    /// [`HORIZON`], or a stop lasts until further notice.
    pub fn deadline(&self, from: UtcTime, term: Millis, stops: &[Stop]) -> Option<UtcTime> {
        if term <= Millis::ZERO {
            return Some(from);
        }
        let stopped: Spans = stops.iter().map(|stop| stop.span()).collect();
        let end = from.plus(HORIZON);
        let (mut at, mut left) = (from, term);
        while at < end {
            let stride = Span::new(at, at.plus(STRIDE).min(end));
            let running = self.open(stride).without(&stopped);
            if let Some(due) = running.passed(left) {
                return Some(due);
            }
            left = left.saturating_sub(running.total());
            at = stride.to;
        }
        None
    }

    /// The end of the support hours that start on the next working day after the date of `from`; of that
    /// date itself, when no hours start on it. Support time in which the clock was stopped before then is
    /// added at the end, in support time.
    pub fn deadline_end_of_next_working_day(&self, from: UtcTime, stops: &[Stop]) -> Option<UtcTime> {
        let next = add_working_days(Day::of(from, &self.timezone), 1, &self.days)?;
        let around = Span::new(next.first(&self.timezone), next.plus(2).first(&self.timezone));
        let hours = self.window.spans(&self.timezone, around, |day| day == next);
        let end = hours.iter().last().map_or(next.plus(1).first(&self.timezone), |span| span.to);
        let term = self.measure(Span::new(from, end), &[]).counted_ms;
        self.deadline(from, term, stops).map(|due| due.max(end))
    }
}

#[cfg(test)]
mod tests;
