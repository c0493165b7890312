//! Terms by table through Easter, King's Day, Christmas and both clock changes, and what always holds.

use peil_proto::settings::{Document, Mistakes};
use proptest::prelude::*;

use super::*;

/// Support hours on these days, in Amsterdam with Dutch holidays.
fn hours(days: &str, from: &str, to: &str, good_friday: bool) -> SupportHours {
    let text = format!(
        "{{\"timezone\": \"Europe/Amsterdam\", \"window\": [{{\"days\": [{days}], \"from\": \"{from}\", \"to\": \"{to}\"}}], \
         \"holidays\": {{\"country\": \"nl\", \"good_friday\": {good_friday}}}}}"
    );
    let mistakes = Mistakes::new("support");
    let mut fields = Document::json(&text, &mistakes).fields(&mistakes);
    let hours = SupportHours::read(&mut fields);
    fields.finish();
    mistakes.into_result(hours).expect("readable")
}

const WEEK: &str = r#""mon", "tue", "wed", "thu", "fri""#;
const ALL: &str = r#""mon", "tue", "wed", "thu", "fri", "sat", "sun""#;

fn office() -> SupportHours {
    hours(WEEK, "09:00", "17:00", false)
}

fn t(text: &str) -> UtcTime {
    UtcTime::parse(text).expect("a time")
}

fn stop(from: &str, to: Option<&str>) -> Stop {
    Stop { from: t(from), to: to.map(t), reason: StopReason::WaitingForCustomer }
}

#[test]
fn one_working_day_has_two_readings() {
    for (reported, end_of_next, eight_hours) in [
        ("2026-04-02T15:00:00+02:00", "2026-04-03T17:00:00+02:00", "2026-04-03T15:00:00+02:00"),
        // Easter: Friday afternoon to Tuesday.
        ("2026-04-03T15:00:00+02:00", "2026-04-07T17:00:00+02:00", "2026-04-07T15:00:00+02:00"),
        // King's Day on a Monday.
        ("2026-04-24T16:00:00+02:00", "2026-04-28T17:00:00+02:00", "2026-04-28T16:00:00+02:00"),
        ("2026-04-25T12:00:00+02:00", "2026-04-28T17:00:00+02:00", "2026-04-28T17:00:00+02:00"),
        // Before and after hours of a working day.
        ("2026-04-14T07:00:00+02:00", "2026-04-15T17:00:00+02:00", "2026-04-14T17:00:00+02:00"),
        ("2026-04-14T20:00:00+02:00", "2026-04-15T17:00:00+02:00", "2026-04-15T17:00:00+02:00"),
        // Christmas on Friday and Saturday, New Year on Friday.
        ("2026-12-24T16:30:00+01:00", "2026-12-28T17:00:00+01:00", "2026-12-28T16:30:00+01:00"),
        ("2026-12-31T09:00:00+01:00", "2027-01-04T17:00:00+01:00", "2026-12-31T17:00:00+01:00"),
        // Over the weekend in which the clock changes.
        ("2026-03-27T16:00:00+01:00", "2026-03-30T17:00:00+02:00", "2026-03-30T16:00:00+02:00"),
        ("2026-10-23T16:00:00+02:00", "2026-10-26T17:00:00+01:00", "2026-10-26T16:00:00+01:00"),
    ] {
        let due = |reading: OneWorkingDay| reading.deadline(t(reported), &office(), &[]).map(|at| at.to_string());
        assert_eq!(due(OneWorkingDay::EndOfNext), Some(t(end_of_next).to_string()), "{reported}");
        assert_eq!(due(OneWorkingDay::EIGHT_HOURS), Some(t(eight_hours).to_string()), "{reported}");
    }
    let free_friday = hours(WEEK, "09:00", "17:00", true);
    let reported = t("2026-04-02T15:00:00+02:00");
    let due = |reading: OneWorkingDay| reading.deadline(reported, &free_friday, &[]);
    assert_eq!(due(OneWorkingDay::EndOfNext), Some(t("2026-04-07T17:00:00+02:00")));
    assert_eq!(due(OneWorkingDay::EIGHT_HOURS), Some(t("2026-04-07T15:00:00+02:00")));
}

#[test]
fn hours_follow_the_wall_clock_when_it_changes() {
    let night = hours(ALL, "00:00", "06:00", false);
    let six = Millis(6 * Millis::HOUR.0);
    // The night of 29 March has five hours, the one of 25 October seven.
    let due = |from: &str| night.deadline(t(from), six, &[]);
    assert_eq!(due("2026-03-29T00:00:00+01:00"), Some(t("2026-03-30T01:00:00+02:00")));
    assert_eq!(due("2026-10-25T00:00:00+02:00"), Some(t("2026-10-25T05:00:00+01:00")));
    let whole_night =
        |from: &str, to: &str| night.measure(Span::new(t(from), t(to)), &[]).counted_ms.0 / Millis::HOUR.0;
    assert_eq!(whole_night("2026-03-28T12:00:00+01:00", "2026-03-29T12:00:00+02:00"), 5);
    assert_eq!(whole_night("2026-10-24T12:00:00+02:00", "2026-10-25T12:00:00+01:00"), 7);
    // Hours over midnight belong to the day on which they start: none after Christmas Eve's night.
    let late = hours(WEEK, "20:00", "04:00", false);
    let christmas = Span::new(t("2026-12-24T12:00:00+01:00"), t("2026-12-28T12:00:00+01:00"));
    assert_eq!(late.measure(christmas, &[]).counted_ms, Millis(8 * Millis::HOUR.0));
    let end = late.deadline_end_of_next_working_day(t("2026-12-24T12:00:00+01:00"), &[]);
    assert_eq!(end, Some(t("2026-12-29T04:00:00+01:00")));
}

#[test]
fn a_stopped_clock_moves_the_deadline_by_support_time() {
    let reported = t("2026-04-14T10:00:00+02:00");
    let due = |reading: OneWorkingDay, stops: &[Stop]| reading.deadline(reported, &office(), stops);
    // From 16:00 to 10:00 next morning: two hours of support.
    let overnight = [stop("2026-04-14T16:00:00+02:00", Some("2026-04-15T10:00:00+02:00"))];
    assert_eq!(due(OneWorkingDay::EIGHT_HOURS, &overnight), Some(t("2026-04-15T12:00:00+02:00")));
    assert_eq!(due(OneWorkingDay::EndOfNext, &overnight), Some(t("2026-04-16T11:00:00+02:00")));
    // A stop outside the hours moves nothing, one that lasts leaves no deadline.
    let evening = [stop("2026-04-14T17:00:00+02:00", Some("2026-04-15T09:00:00+02:00"))];
    assert_eq!(due(OneWorkingDay::EIGHT_HOURS, &evening), Some(t("2026-04-15T10:00:00+02:00")));
    assert_eq!(due(OneWorkingDay::EndOfNext, &evening), Some(t("2026-04-15T17:00:00+02:00")));
    let open = [stop("2026-04-14T16:00:00+02:00", None)];
    assert_eq!(due(OneWorkingDay::EIGHT_HOURS, &open), None);
    assert_eq!(due(OneWorkingDay::EndOfNext, &open), None);
}

#[test]
fn a_repair_is_taken_apart_by_reason() {
    let stops = [
        Stop { reason: StopReason::Postponed, ..stop("2026-04-15T10:00:00+02:00", Some("2026-04-15T12:00:00+02:00")) },
        stop("2026-04-14T16:00:00+02:00", Some("2026-04-15T11:00:00+02:00")),
        Stop { reason: StopReason::WaitingForThirdParty, ..stop("2026-04-15T16:30:00+02:00", None) },
    ];
    let span = Span::new(t("2026-04-14T15:00:00+02:00"), t("2026-04-15T20:00:00+02:00"));
    let hour = Millis::HOUR.0;
    assert_eq!(
        office().measure(span, &stops),
        Measured {
            wall_ms: Millis(29 * hour),
            outside_ms: Millis(19 * hour),
            stopped_ms: vec![
                (StopReason::Postponed, Millis(hour)),
                (StopReason::WaitingForCustomer, Millis(3 * hour)),
                (StopReason::WaitingForThirdParty, Millis(hour / 2)),
            ],
            counted_ms: Millis(hour + 4 * hour + hour / 2),
        }
    );
}

#[test]
fn a_term_beyond_the_horizon_has_no_deadline() {
    let short = hours("\"mon\"", "09:00", "09:01", false);
    let from = t("2026-04-14T15:00:00+02:00");
    assert_eq!(short.deadline(from, Millis::DAY, &[]), None);
    assert_eq!(office().deadline(from, Millis(i64::MAX), &[]), None);
    assert_eq!(office().measure(Span::new(from, UtcTime(from.0 - 1)), &[]).wall_ms, Millis::ZERO);
    let all_of_time = office().measure(Span::ALWAYS, &[]);
    assert_eq!(all_of_time.wall_ms, HORIZON);
    let never = SupportHours { days: WorkingDays { weekdays: [false; 7], holidays: None }, ..office() };
    assert_eq!(never.deadline_end_of_next_working_day(from, &[]), None);
}

/// Minutes of 2026 and stops in them.
fn stops(start: i64) -> impl Strategy<Value = Vec<Stop>> {
    prop::collection::vec((0_i64..12_000, 1_i64..3_000), 0..4).prop_map(move |pairs| {
        let of = |(from, length): (i64, i64)| Stop {
            from: minute(start + from),
            to: Some(minute(start + from + length)),
            reason: StopReason::WaitingForCustomer,
        };
        pairs.into_iter().map(of).collect()
    })
}

fn minute(n: i64) -> UtcTime {
    t("2026-01-01T00:00:00Z").plus(Millis(n * Millis::MINUTE.0))
}

fn any_hours() -> impl Strategy<Value = SupportHours> {
    prop::sample::select(vec![
        (WEEK, "09:00", "17:00"),
        (ALL, "00:00", "24:00"),
        (WEEK, "20:00", "04:00"),
        (ALL, "01:30", "02:30"),
        (r#""sat", "sun""#, "22:00", "06:00"),
    ])
    .prop_map(|(days, from, to)| hours(days, from, to, false))
}

/// Places in the year near clock changes and holidays as often as anywhere.
fn moment() -> impl Strategy<Value = i64> {
    prop_oneof![0_i64..520_000, 124_000_i64..128_000, 427_000_i64..430_000, 515_000_i64..520_000]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn support_time_is_the_minutes_at_which_the_wall_clock_is_in_the_window(start in moment(), length in 0_i64..9_000) {
        let hours = office();
        let counted = (start..start + length).filter(|n| {
            let wall = hours.timezone.to_datetime(jiff::Timestamp::from_millisecond(minute(*n).0).expect("in range"));
            let day = Day::of(minute(*n), &hours.timezone);
            (9..17).contains(&wall.hour()) && hours.days.include(day)
        });
        let measured = hours.measure(Span::new(minute(start), minute(start + length)), &[]);
        prop_assert_eq!(measured.counted_ms.0, i64::try_from(counted.count()).expect("small") * Millis::MINUTE.0);
    }

    #[test]
    fn splitting_a_stretch_changes_nothing_and_its_parts_are_the_wall(
        hours in any_hours(),
        (start, stops) in moment().prop_flat_map(|start| (Just(start), stops(start))),
        a in 0_i64..9_000, b in 0_i64..9_000,
    ) {
        let measure = |from, to| hours.measure(Span::new(minute(from), minute(to)), &stops);
        let (first, second, whole) = (measure(start, start + a), measure(start + a, start + a + b), measure(start, start + a + b));
        prop_assert_eq!(first.counted_ms.saturating_add(second.counted_ms), whole.counted_ms);
        for (i, (_, stopped)) in whole.stopped_ms.iter().enumerate() {
            prop_assert_eq!(first.stopped_ms[i].1.saturating_add(second.stopped_ms[i].1), *stopped);
        }
        let stopped: i64 = whole.stopped_ms.iter().map(|(_, ms)| ms.0).sum();
        prop_assert_eq!(whole.outside_ms.0 + stopped + whole.counted_ms.0, whole.wall_ms.0);
    }

    #[test]
    fn deadlines_are_when_the_term_has_passed_and_no_earlier(
        hours in any_hours(),
        (start, stops) in moment().prop_flat_map(|start| (Just(start), stops(start))),
        (a, b, later) in (0_i64..2_000, 0_i64..2_000, 0_i64..5_000),
    ) {
        let term = |minutes: i64| Millis(minutes * Millis::MINUTE.0);
        let due = |from: UtcTime, minutes| hours.deadline(from, term(minutes), &stops).expect("within the horizon");
        let from = minute(start);
        prop_assert_eq!(due(from, 0), from);
        prop_assert_eq!(due(due(from, a), b), due(from, a + b));
        prop_assert!(due(from, a) <= due(from, a + b));
        prop_assert!(due(from, a) <= due(minute(start + later), a));
        let counted = |to| hours.measure(Span::new(from, to), &stops).counted_ms;
        prop_assert_eq!(counted(due(from, a)), term(a));
        prop_assert!(a == 0 || counted(UtcTime(due(from, a).0 - 1)) < term(a));
        let next = |from| hours.deadline_end_of_next_working_day(from, &[]).expect("there is one");
        prop_assert!(from < next(from) && next(from) <= next(minute(start + later)));
    }
}
