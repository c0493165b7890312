//! Public holidays that cancel service windows.
//!
//! The Netherlands: the days of the Algemene termijnenwet art. 3, with Good Friday and Liberation Day
//! as explicit choices, because contracts differ on exactly these two. A contract adds and removes
//! single dates. King's Day moves to Saturday 26 April when the 27th is a Sunday; no Monday stands in.
//!
//! Another country: a variant of [`Country`] and its days.

use std::collections::BTreeSet;

use peil_proto::settings::Fields;

use super::calendar::Day;

/// Whose holidays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Country {
    /// `nl`.
    Netherlands,
}

/// In which years 5 May is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiberationDay {
    /// In none.
    Never,
    /// In 2025, 2030, …
    Lustrum,
    /// In all.
    Always,
}

/// The holidays of one contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holidays {
    /// Where the list starts.
    pub country: Country,
    /// Whether Good Friday is free.
    pub good_friday: bool,
    /// Whether 5 May is free.
    pub liberation_day: LiberationDay,
    /// Dates that are free as well.
    pub also: BTreeSet<Day>,
    /// Dates that are not free after all.
    pub not: BTreeSet<Day>,
}

impl Holidays {
    /// Reads the table; defaults: `nl`, no Good Friday, Liberation Day never, no other dates.
    pub fn read(mut fields: Fields<'_>) -> Self {
        let country = fields.word_or("country", &[("nl", Country::Netherlands)], Country::Netherlands);
        let words =
            [("never", LiberationDay::Never), ("lustrum", LiberationDay::Lustrum), ("always", LiberationDay::Always)];
        let good_friday = fields.bool_or("good_friday", false);
        let liberation_day = fields.word_or("liberation_day", &words, LiberationDay::Never);
        let also = dates(&mut fields, "also");
        let not = dates(&mut fields, "not");
        for day in also.intersection(&not) {
            let (year, month, day) = day.ymd();
            fields.refuse(format_args!("has {year:04}-{month:02}-{day:02} under \"also\" and under \"not\"; keep one"));
        }
        fields.finish();
        Self { country, good_friday, liberation_day, also, not }
    }

    /// True when windows that start on `day` do not take place.
    pub fn include(&self, day: Day) -> bool {
        !self.not.contains(&day) && (self.also.contains(&day) || self.is_public(day))
    }

    fn is_public(&self, day: Day) -> bool {
        let Country::Netherlands = self.country;
        let (year, month, of_month) = day.ymd();
        let from_easter = day.0.saturating_sub(easter(year).0);
        let moves = match from_easter {
            -2 => self.good_friday,
            // Easter, Ascension and Whitsun with their Mondays.
            0 | 1 | 39 | 49 | 50 => true,
            _ => false,
        };
        let fixed = match (month, of_month) {
            (1, 1) | (12, 25 | 26) => true,
            (5, 5) => match self.liberation_day {
                LiberationDay::Never => false,
                LiberationDay::Lustrum => year % 5 == 0,
                LiberationDay::Always => true,
            },
            _ => false,
        };
        moves || fixed || day == royal_day(year)
    }
}

/// King's Day since 2014, Queen's Day on 30 April before; a day earlier instead of on a Sunday.
fn royal_day(year: i32) -> Day {
    let day = if year >= 2014 { Day::civil(year, 4, 27) } else { Day::civil(year, 4, 30) };
    match day.weekday() {
        6 if year >= 1980 => day.plus(-1),
        6 => day.plus(1),
        _ => day,
    }
}

/// Easter Sunday by the Gregorian computus (Meeus, Jones, Butcher).
fn easter(year: i32) -> Day {
    let (a, b, c) = (year.rem_euclid(19), year.div_euclid(100), year.rem_euclid(100));
    let (d, e) = (b.div_euclid(4), b.rem_euclid(4));
    let g = (8 * b + 13).div_euclid(25);
    let h = (19 * a + b - d - g + 15).rem_euclid(30);
    let (i, k) = (c / 4, c % 4);
    let l = (32 + 2 * e + 2 * i - h - k).rem_euclid(7);
    let m = (a + 11 * h + 22 * l) / 451;
    let days = h + l - 7 * m + 114;
    // `days` counts from 31 to 155 by construction: month 3 or 4, day 1 to 31.
    Day::civil(year, 3, 1).plus(i64::from(days - 93))
}

fn dates(fields: &mut Fields<'_>, key: &str) -> BTreeSet<Day> {
    let mistakes = fields.mistakes();
    let items = fields.take_some(key).map(|node| node.into_list(mistakes)).unwrap_or_default();
    let read = items.iter().filter_map(|item| {
        let text = item.as_str(mistakes)?;
        let day = Day::parse(text);
        if day.is_none() {
            item.refuse(mistakes, format_args!("is {text:?}, which is not a date such as \"2026-12-24\""));
        }
        day
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Holidays {
        Holidays {
            country: Country::Netherlands,
            good_friday: false,
            liberation_day: LiberationDay::Never,
            also: BTreeSet::new(),
            not: BTreeSet::new(),
        }
    }

    fn of_year(holidays: &Holidays, year: i32) -> Vec<(u8, u8)> {
        let days = (0..366).map(|n| Day::civil(year, 1, 1).plus(n)).map(|day| (day, day.ymd()));
        days.filter(|(day, ymd)| ymd.0 == year && holidays.include(*day)).map(|(_, ymd)| (ymd.1, ymd.2)).collect()
    }

    #[test]
    fn dutch_holidays_fall_where_the_calendar_has_them() {
        let nl_2026 = [(1, 1), (4, 5), (4, 6), (4, 27), (5, 14), (5, 24), (5, 25), (12, 25), (12, 26)];
        assert_eq!(of_year(&plain(), 2026), nl_2026);
        let nl_2025 = [(1, 1), (4, 20), (4, 21), (4, 26), (5, 29), (6, 8), (6, 9), (12, 25), (12, 26)];
        assert_eq!(of_year(&plain(), 2025), nl_2025);
        for (year, month, day) in [(1961, 4, 2), (2000, 4, 23), (2008, 3, 23), (2027, 3, 28), (2038, 4, 25)] {
            assert_eq!(easter(year), Day::civil(year, month, day), "{year}");
        }
    }

    #[test]
    fn liberation_day_and_good_friday_are_choices() {
        let day = |year| Day::civil(year, 5, 5);
        for (choice, in_2025, in_2026) in [
            (LiberationDay::Never, false, false),
            (LiberationDay::Lustrum, true, false),
            (LiberationDay::Always, true, true),
        ] {
            let holidays = Holidays { liberation_day: choice, ..plain() };
            assert_eq!((holidays.include(day(2025)), holidays.include(day(2026))), (in_2025, in_2026));
        }
        let good_friday = Day::civil(2026, 4, 3);
        assert!(!plain().include(good_friday));
        assert!(Holidays { good_friday: true, ..plain() }.include(good_friday));
    }

    #[test]
    fn a_contract_adds_and_removes_single_dates() {
        let (eve, kings_day) = (Day::civil(2026, 12, 24), Day::civil(2026, 4, 27));
        let holidays = Holidays { also: [eve].into(), not: [kings_day].into(), ..plain() };
        assert!(holidays.include(eve));
        assert!(!holidays.include(kings_day));
    }
}
