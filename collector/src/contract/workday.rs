//! Working days, counted in one place for every term that is agreed in days.
//!
//! A working day is a local date on an agreed day of the week that is not a holiday. "Day 5 of the month"
//! has two readings, the fifth working day and the fifth of the calendar; a contract names one of them
//! ([`DayOfMonth`]).
//!
//! Limits: [`SEARCH_DAYS_MAX`]. Deliberately absent: hours ([`super::support`]).

use super::calendar::{Day, Month};
use super::holiday::Holidays;

/// Days looked through for one working day; a calendar without any in a year has none.
const SEARCH_DAYS_MAX: i64 = 366;

/// Working days that may be added or taken off at once, some twenty years; more has no answer.
pub const WORKING_DAYS_MAX: i64 = 5_000;

/// Which days are worked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkingDays {
    /// Days of the week, Monday first.
    pub weekdays: [bool; 7],
    /// Dates off.
    pub holidays: Option<Holidays>,
}

impl WorkingDays {
    /// Monday to Friday, without holidays.
    pub const MONDAY_TO_FRIDAY: Self = Self { weekdays: [true, true, true, true, true, false, false], holidays: None };

    /// True when `day` is worked.
    pub fn include(&self, day: Day) -> bool {
        self.weekdays[day.weekday()] && !self.is_holiday(day)
    }

    /// True when `day` is off, whatever its day of the week.
    pub fn is_holiday(&self, day: Day) -> bool {
        self.holidays.as_ref().is_some_and(|holidays| holidays.include(day))
    }

    /// The nearest working day after `day`, or before it.
    fn step(&self, day: Day, forward: bool) -> Option<Day> {
        let sign = if forward { 1 } else { -1 };
        (1..=SEARCH_DAYS_MAX).map(|n| day.plus(sign * n)).find(|day| self.include(*day))
    }
}

/// The date `n` working days after `date` (before it when negative), which need not be one itself; 0 is
/// `date`. `None` when `calendar` has no working day within a year, or `n` exceeds [`WORKING_DAYS_MAX`].
pub fn add_working_days(date: Day, n: i64, calendar: &WorkingDays) -> Option<Day> {
    if n.saturating_abs() > WORKING_DAYS_MAX {
        return None;
    }
    (0..n.saturating_abs()).try_fold(date, |day, _| calendar.step(day, n > 0))
}

/// A day by which something is due each month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayOfMonth {
    /// The date with this number; the last day of a month that has none.
    Calendar(u8),
    /// The working day with this number.
    Working(u8),
}

impl DayOfMonth {
    /// That day in `month`; `None` for day 0 and for a working day the month does not have.
    pub fn date(self, month: Month, calendar: &WorkingDays) -> Option<Day> {
        let first = Day::civil(month.year, month.month, 1);
        let next = month.next();
        let last = Day::civil(next.year, next.month, 1).plus(-1);
        match self {
            Self::Calendar(0) | Self::Working(0) => None,
            Self::Calendar(n) => Some(first.plus(i64::from(n) - 1).min(last)),
            Self::Working(n) => add_working_days(first.plus(-1), i64::from(n), calendar).filter(|day| *day <= last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::holiday::{Country, LiberationDay};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn dutch(liberation_day: LiberationDay) -> WorkingDays {
        let (also, not) = (BTreeSet::new(), BTreeSet::new());
        let holidays = Holidays { country: Country::Netherlands, good_friday: false, liberation_day, also, not };
        WorkingDays { holidays: Some(holidays), ..WorkingDays::MONDAY_TO_FRIDAY }
    }

    fn day(text: &str) -> Day {
        Day::parse(text).expect("a date")
    }

    #[test]
    fn working_days_skip_weekends_and_holidays() {
        let calendar = dutch(LiberationDay::Never);
        for (from, n, to) in [
            ("2026-04-02", 1, "2026-04-03"),
            ("2026-04-03", 1, "2026-04-07"),
            ("2026-04-04", 1, "2026-04-07"),
            ("2026-04-24", 1, "2026-04-28"),
            ("2026-04-28", -1, "2026-04-24"),
            ("2025-04-25", 1, "2025-04-28"),
            ("2026-05-13", 1, "2026-05-15"),
            ("2026-12-24", 1, "2026-12-28"),
            ("2026-12-24", 5, "2027-01-04"),
            ("2026-12-26", 0, "2026-12-26"),
            ("2026-03-27", 10, "2026-04-13"),
        ] {
            assert_eq!(add_working_days(day(from), n, &calendar), Some(day(to)), "{from} + {n}");
        }
    }

    #[test]
    fn day_five_has_two_readings() {
        for (month, liberation, working, calendar) in [
            ("2026-06", LiberationDay::Never, "2026-06-05", "2026-06-05"),
            ("2026-05", LiberationDay::Never, "2026-05-07", "2026-05-05"),
            ("2026-05", LiberationDay::Always, "2026-05-08", "2026-05-05"),
            ("2026-01", LiberationDay::Never, "2026-01-08", "2026-01-05"),
            ("2027-01", LiberationDay::Never, "2027-01-08", "2027-01-05"),
        ] {
            let (month, days) = (Month::parse(month).expect("a month"), dutch(liberation));
            assert_eq!(DayOfMonth::Working(5).date(month, &days), Some(day(working)), "{month}");
            assert_eq!(DayOfMonth::Calendar(5).date(month, &days), Some(day(calendar)), "{month}");
        }
        let (february, days) = (Month::parse("2026-02").expect("a month"), dutch(LiberationDay::Never));
        assert_eq!(DayOfMonth::Calendar(31).date(february, &days), Some(day("2026-02-28")));
        assert_eq!(DayOfMonth::Working(20).date(february, &days), Some(day("2026-02-27")));
        assert_eq!(DayOfMonth::Working(21).date(february, &days), None);
        assert_eq!(DayOfMonth::Calendar(0).date(february, &days), None);
    }

    #[test]
    fn a_calendar_without_working_days_has_no_answer() {
        let none = WorkingDays { weekdays: [false; 7], holidays: None };
        assert_eq!(add_working_days(Day(0), 1, &none), None);
        for n in [i64::MIN, i64::MAX, WORKING_DAYS_MAX + 1] {
            assert_eq!(add_working_days(Day(0), n, &WorkingDays::MONDAY_TO_FRIDAY), None);
        }
        let _ = add_working_days(Day(i64::MAX), 1, &dutch(LiberationDay::Never));
        let _ = add_working_days(Day(i64::MIN), -1, &dutch(LiberationDay::Never));
    }

    proptest! {
        #[test]
        fn adding_days_is_monotone_and_can_be_split(start in 15_000_i64..30_000, gap in 0_i64..40, a in 0_i64..60, b in 0_i64..60) {
            let (calendar, start) = (dutch(LiberationDay::Lustrum), Day(start));
            let add = |day, n| add_working_days(day, n, &calendar).expect("within a year");
            prop_assert_eq!(add(start, 0), start);
            prop_assert_eq!(add(add(start, a), b), add(start, a + b));
            prop_assert!(add(start, a) <= add(start.plus(gap), a));
            prop_assert!(b == 0 || add(start, a) < add(start, a + b));
            // Back by as many is the day itself when it is a working day.
            let first = add(start, 1);
            prop_assert_eq!(add(add(first, a), -a), first);
            let between = (first.0 + 1..=add(first, a).0).filter(|n| calendar.include(Day(*n))).count();
            prop_assert_eq!(i64::try_from(between), Ok(a));
        }
    }
}
