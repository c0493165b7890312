//! The service window: when, by the local clock, the service is agreed to work.
//!
//! Membership is the whole rule: an instant is in the window if and only if its local wall-clock time
//! lies in `[from, to)`. It is applied to each stretch of constant offset apart, so a gap hour does not
//! exist and a repeated hour counts twice. A window that crosses midnight is two pieces; weekday and
//! holiday of the day on which it *starts* decide about both, also when the clock skipped that day.
//!
//! `from` equal to `to` crosses midnight too and lasts a whole day. `always` is every day from 00:00 to
//! 24:00: holidays cancel those as well.

use jiff::tz::TimeZone;
use peil_proto::settings::{Fields, Mistakes, Node, Value};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::calendar::{Day, offsets, two_digits};
use super::span::{Span, Spans};

/// Entries a window may have; more is a generated file gone wrong, and is refused.
const SHIFTS_MAX: usize = 100;

const DAYS: [(&str, usize); 7] = [("mon", 0), ("tue", 1), ("wed", 2), ("thu", 3), ("fri", 4), ("sat", 5), ("sun", 6)];

/// When the service is agreed to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Window {
    /// Day and night.
    Always,
    /// In any of these.
    Weekly(Vec<Shift>),
}

/// The same hours on some days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift {
    /// Days on which it starts, Monday first.
    days: [bool; 7],
    /// Local ms after midnight, below a day.
    from_ms: i64,
    /// Local ms after midnight, up to a day; at or before `from_ms` it is on the next day.
    to_ms: i64,
}

impl Shift {
    const WHOLE_DAY: Self = Self { days: [true; 7], from_ms: 0, to_ms: Millis::DAY.0 };

    fn read(mut fields: Fields<'_>) -> Option<Self> {
        let mistakes = fields.mistakes();
        let days = fields.need("days").map(|node| read_days(node, mistakes));
        let from = fields.need("from").and_then(|node| read_clock(&node, mistakes, "00:00", 23));
        let to = fields.need("to").and_then(|node| read_clock(&node, mistakes, "24:00", 24));
        fields.finish();
        Some(Self { days: days?, from_ms: from?, to_ms: to? })
    }

    /// The days on which it starts, as the words of the format.
    pub fn days(&self) -> Vec<&'static str> {
        DAYS.iter().filter(|(_, day)| self.days[*day]).map(|(word, _)| *word).collect()
    }

    /// From when to when, as the format writes it: `22:00`, `24:00`.
    pub fn hours(&self) -> [String; 2] {
        [self.from_ms, self.to_ms].map(|ms| {
            let minutes = ms / Millis::MINUTE.0;
            format!("{:02}:{:02}", minutes / 60, minutes % 60)
        })
    }

    /// The pieces of local time on `day`, in local ms.
    fn pieces(&self, day: Day, starts: &impl Fn(Day) -> bool) -> [Option<(i64, i64)>; 2] {
        let (midnight, eve) = (day.start(), day.plus(-1));
        let crosses = self.to_ms <= self.from_ms;
        let end_ms = if crosses { Millis::DAY.0 } else { self.to_ms };
        let today = self.days[day.weekday()] && starts(day);
        let since_eve = crosses && self.days[eve.weekday()] && starts(eve);
        [
            today.then_some((midnight + self.from_ms, midnight + end_ms)),
            since_eve.then_some((midnight, midnight + self.to_ms)),
        ]
    }
}

impl Window {
    /// Reads `"always"` or the list of entries.
    pub fn read(node: Node, mistakes: &Mistakes) -> Option<Self> {
        if let Value::Str(word) = &node.value {
            if word == "always" {
                return Some(Self::Always);
            }
            node.refuse(mistakes, format_args!("is {word:?}; it must be \"always\" or a list of {{days, from, to}}"));
            return None;
        }
        if !matches!(node.value, Value::List(_)) {
            let kind = node.value.kind();
            node.refuse(mistakes, format_args!("must be \"always\" or a list of {{days, from, to}}, not {kind}"));
            return None;
        }
        let place = Node { value: Value::Null, ..node.clone() };
        let items = node.into_list(mistakes);
        if items.is_empty() {
            place.refuse(mistakes, "is an empty list: no time would be agreed; name hours or write \"always\"");
        } else if items.len() > SHIFTS_MAX {
            place.refuse(mistakes, format_args!("has {} entries; the limit is {SHIFTS_MAX}", items.len()));
        }
        let shifts: Vec<_> = items.into_iter().map(|item| Shift::read(item.fields(mistakes))).collect();
        shifts.into_iter().collect::<Option<Vec<_>>>().map(Self::Weekly)
    }

    /// The instants of `within` that are in the window, counting only the entries that start on a local
    /// date for which `starts` is true.
    pub fn spans(&self, zone: &TimeZone, within: Span, starts: impl Fn(Day) -> bool) -> Spans {
        let shifts = match self {
            Self::Always => std::slice::from_ref(&Shift::WHOLE_DAY),
            Self::Weekly(shifts) => shifts,
        };
        let mut spans = Vec::new();
        for (stretch, offset_ms) in offsets(zone, within) {
            let first = Day::of_local(stretch.from.0 + offset_ms);
            let last = Day::of_local(stretch.to.0 + offset_ms - 1);
            for day in (first.0..=last.0).map(Day) {
                let pieces = shifts.iter().flat_map(|shift| shift.pieces(day, &starts)).flatten();
                spans.extend(
                    pieces
                        .map(|(from, to)| Span::new(UtcTime(from - offset_ms), UtcTime(to - offset_ms)).clip(stretch)),
                );
            }
        }
        spans.into_iter().collect()
    }
}

/// A list of days of the week, Monday first.
pub(super) fn read_days(node: Node, mistakes: &Mistakes) -> [bool; 7] {
    let mut days = [false; 7];
    let place = Node { value: Value::Null, ..node.clone() };
    let items = node.into_list(mistakes);
    if items.is_empty() {
        place.refuse(mistakes, "names no day; give at least one of \"mon\" to \"sun\"");
    }
    for day in items.iter().filter_map(|item| item.as_word(mistakes, &DAYS)) {
        days[day] = true;
    }
    days
}

/// `HH:MM` up to `hours_max:00` as ms after midnight.
fn read_clock(node: &Node, mistakes: &Mistakes, example: &str, hours_max: i64) -> Option<i64> {
    let text = node.as_str(mistakes)?;
    let read = text.split_once(':').and_then(|(hours, minutes)| {
        let (hours, minutes) = (i64::from(two_digits(hours)?), i64::from(two_digits(minutes)?));
        let exists = hours <= hours_max && minutes < 60 && (hours < 24 || minutes == 0);
        exists.then_some(hours * Millis::HOUR.0 + minutes * Millis::MINUTE.0)
    });
    if read.is_none() {
        let range = if hours_max == 24 { "\"00:00\" to \"24:00\"" } else { "\"00:00\" to \"23:59\"" };
        node.refuse(mistakes, format_args!("is {text:?}; it must be a time {range} such as {example:?}"));
    }
    read
}
