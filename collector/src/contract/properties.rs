//! What must hold of every figure, whatever the contract.

use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use proptest::prelude::*;

use super::attribution::{Bucket, Cause};
use super::brute::{any_case, plain, with_tracks};
use super::calendar::Month;
use super::figure::Figure;
use super::outage::Standing;
use super::span::{Span, Spans};
use super::terms::{Confirm, OutageStarts, Terms, UnknownClause};
use super::timeline::as_states;
use super::track::Track;
use super::whatif::{Change, Delta, what_if};
use super::{Case, Evidence, evaluate, evaluate_to_date, evaluate_with_attribution, forecast};

fn for_each_vantage(case: &mut Case, mut change: impl FnMut(&mut Vec<(UtcTime, State)>)) {
    for check in case.checks.values_mut() {
        for evidence in check.vantages.values_mut() {
            if let Evidence::Samples(samples) = evidence {
                change(samples);
            }
        }
    }
}

/// Loss as a share of the agreed time must be at least that of `better`, compared exactly.
fn not_better(worse: &Figure, better: &Figure) -> bool {
    let product = |a: Millis, b: Millis| i128::from(a.0) * i128::from(b.0);
    product(worse.counted_down_ms, better.agreed_ms) >= product(better.counted_down_ms, worse.agreed_ms)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_and_repetition_of_samples_change_nothing((case, now) in any_case(), turn in 0_usize..50) {
        let mut shuffled = case.clone();
        for_each_vantage(&mut shuffled, |samples| {
            samples.extend_from_within(..samples.len() / 2);
            samples.reverse();
            let turn = turn % samples.len().max(1);
            samples.rotate_left(turn);
        });
        prop_assert_eq!(evaluate(&case), evaluate(&shuffled));
        prop_assert_eq!(evaluate_to_date(&case, now), evaluate_to_date(&shuffled, now));
    }

    #[test]
    fn a_track_gives_the_figure_of_its_samples((mut case, now) in any_case(), confirm in 1_u8..=3, first: bool) {
        case.terms.confirm = Confirm::new(confirm).expect("in range");
        case.terms.outage_starts = if first { OutageStarts::FirstFailure } else { OutageStarts::Confirmation };
        let tracks = with_tracks(&case, None);
        prop_assert_eq!(evaluate(&case), evaluate(&tracks));
        prop_assert_eq!(evaluate_to_date(&case, now), evaluate_to_date(&tracks, now));
    }

    #[test]
    fn a_track_pruned_before_the_month_gives_the_same_figure((case, now) in any_case(), earlier in 0_i64..3_000) {
        let first = case.month.first(&case.terms.timezone);
        let pruned = with_tracks(&case, Some(first.plus(Millis(-earlier * 60_000))));
        prop_assert_eq!(evaluate(&case), evaluate(&pruned));
        let now = now.max(first);
        prop_assert_eq!(evaluate_to_date(&case, now), evaluate_to_date(&pruned, now));
    }

    #[test]
    fn the_portable_form_of_the_evidence_gives_the_same_figure((mut case, now) in any_case(), confirm in 1_u8..=3) {
        case.terms.confirm = Confirm::new(confirm).expect("in range");
        let month = case.month.span(&case.terms.timezone);
        let mut portable = with_tracks(&case, None);
        for check in portable.checks.values_mut() {
            let hold = check.hold();
            for evidence in check.vantages.values_mut() {
                let Evidence::Track(track) = &*evidence else { continue };
                prop_assert_eq!(&Track::of_samples(hold, &track.samples()), track);
                *evidence = evidence.portable(hold, &case.terms, month);
            }
        }
        prop_assert_eq!(evaluate(&portable), evaluate(&case));
        let now = now.max(month.from);
        prop_assert_eq!(evaluate_to_date(&portable, now), evaluate_to_date(&case, now));
    }

    #[test]
    fn samples_folded_under_a_shorter_hold_are_judged_alike_under_their_own((case, now) in any_case(), part in 2_i64..9) {
        let mut folded = case.clone();
        for check in folded.checks.values_mut() {
            let hold = check.hold();
            for evidence in check.vantages.values_mut() {
                let Evidence::Samples(samples) = &*evidence else { continue };
                *evidence = Evidence::Track(Track::of_samples(Millis(hold.0 / part), samples).held_for(hold));
            }
        }
        prop_assert_eq!(evaluate(&folded), evaluate(&case));
        prop_assert_eq!(evaluate_to_date(&folded, now), evaluate_to_date(&case, now));
    }

    #[test]
    fn ready_intervals_of_the_evidence_count_the_same((case, _) in any_case()) {
        let month = case.month.span(&case.terms.timezone);
        let mut ready = case.clone();
        for check in ready.checks.values_mut() {
            let hold = check.hold();
            for evidence in check.vantages.values_mut() {
                *evidence = as_states(evidence, hold, &case.terms, month);
            }
        }
        let without_transients = |mut figure: Figure| {
            figure.outages.retain(|outage| outage.standing == Standing::Confirmed);
            figure
        };
        prop_assert_eq!(without_transients(evaluate(&ready)), without_transients(evaluate(&case)));
    }

    #[test]
    fn the_bounds_enclose_the_official_figure((case, _) in any_case()) {
        let figure = evaluate(&case);
        prop_assert!(figure.worst <= figure.best);
        if figure.official.is_some() {
            prop_assert!(figure.worst <= figure.official);
            prop_assert!(figure.official <= figure.best);
        }
        match case.terms.unknown {
            UnknownClause::Down => prop_assert_eq!(figure.worst, figure.official),
            UnknownClause::Up => prop_assert_eq!(figure.best, figure.official),
            UnknownClause::Excluded => {}
        }
    }

    #[test]
    fn more_failures_never_improve_the_figure((case, _) in any_case(), every in 2_usize..9) {
        let mut worse = case.clone();
        for_each_vantage(&mut worse, |samples| {
            samples.iter_mut().step_by(every).for_each(|(_, state)| *state = State::Down);
        });
        let (before, after) = (evaluate(&case), evaluate(&worse));
        prop_assert!(after.down_ms >= before.down_ms);
        if case.terms.unknown == UnknownClause::Up {
            prop_assert!(not_better(&after, &before));
        }
    }

    #[test]
    fn splitting_an_exclusion_changes_nothing_but_its_rows((mut case, _) in any_case(), at in 0_i64..2_000) {
        // Notice is counted from each start, so both halves must have been announced alike.
        case.terms.maintenance.notice = Millis::ZERO;
        let mut split = case.clone();
        split.exclusions = case.exclusions.iter().flat_map(|e| {
            let middle = e.span.from.plus(Millis(at * 60_000)).min(e.span.to);
            [Span::new(e.span.from, middle), Span::new(middle, e.span.to)]
                .into_iter()
                .filter(|span| !span.is_empty())
                .map(|span| super::exclusion::Exclusion { span, announced_at: None, ..e.clone() })
                .collect::<Vec<_>>()
        }).collect();
        case.exclusions.iter_mut().for_each(|e| e.announced_at = None);
        let (whole, parts) = (evaluate(&case), evaluate(&split));
        prop_assert_eq!(Figure { exclusions: Vec::new(), ..whole }, Figure { exclusions: Vec::new(), ..parts });
    }

    #[test]
    fn outages_add_up_to_the_loss_and_stay_inside_the_month((case, _) in any_case()) {
        let figure = evaluate(&case);
        let month = case.month.span(&case.terms.timezone);
        let counted: i64 = figure.outages.iter().map(|outage| outage.counted_ms.0).sum();
        prop_assert_eq!(counted, figure.down_ms.0);
        for outage in &figure.outages {
            prop_assert!(!outage.span.is_empty());
            prop_assert_eq!(outage.span.clip(month), outage.span);
            prop_assert!(!outage.because.is_empty());
            prop_assert!(outage.standing == Standing::Confirmed || outage.counted_ms == Millis::ZERO);
        }
        for pair in figure.outages.windows(2) {
            prop_assert!(pair[0].span.to <= pair[1].span.from);
        }
    }

    #[test]
    fn every_loss_names_its_checks_and_every_exclusion_has_its_own_time((case, _) in any_case()) {
        let (figure, intervals) = evaluate_with_attribution(&case);
        for interval in &intervals {
            let named = match &interval.cause {
                Cause::Checks(names) | Cause::Unconfirmed(names) => names.len(),
                Cause::Plain | Cause::Exclusion(_) | Cause::FullMonth => 0,
            };
            match interval.bucket {
                Bucket::Down | Bucket::Unknown => prop_assert!(named > 0, "{interval:?}"),
                Bucket::Up => prop_assert!(named == 0 || matches!(interval.cause, Cause::Unconfirmed(_))),
                _ => prop_assert_eq!(named, 0),
            }
        }
        for pair in intervals.windows(2) {
            prop_assert_eq!(pair[0].span.to, pair[1].span.from);
            prop_assert!((&pair[0].bucket, &pair[0].cause) != (&pair[1].bucket, &pair[1].cause), "{pair:?}");
        }
        for row in &figure.exclusions {
            let own = intervals.iter().filter(|interval| interval.cause == Cause::Exclusion(row.id.clone()));
            prop_assert_eq!(own.map(|interval| interval.span.length().0).sum::<i64>(), row.counted_ms.0);
        }
        for outage in figure.outages.iter().filter(|outage| outage.standing == Standing::Confirmed) {
            let down = intervals.iter().filter(|interval| interval.bucket == Bucket::Down);
            let inside: i64 = down.map(|interval| interval.span.clip(outage.span).length().0).sum();
            prop_assert_eq!(inside, outage.counted_ms.0);
        }
    }

    #[test]
    fn a_certain_breach_stays_one_whatever_becomes_of_the_exclusions_ahead((case, now) in any_case(), called_off: bool) {
        let (to_date, ahead) = (evaluate_to_date(&case, now), forecast(&case, now));
        let told = (ahead.budget_ms, ahead.spent_ms, ahead.left_ms, ahead.breach_certain);
        let figure = &to_date.figure;
        let expected = (to_date.budget_ms, figure.counted_down_ms, to_date.budget_left_ms, to_date.breach_certain);
        prop_assert_eq!(told, expected);
        if to_date.breach_certain {
            let mut rest = case.clone();
            rest.exclusions.retain(|exclusion| !called_off || exclusion.span.from < now);
            let whole = evaluate(&rest);
            prop_assert!(whole.counted_down_ms > whole.budget_ms, "{whole:?}");
        }
    }

    #[test]
    fn what_would_be_is_the_figure_under_the_other_agreement((case, _) in any_case(), (other, _) in any_case()) {
        let change = Change { terms: Some(other.terms.clone()), exclusions: Some(other.exclusions.clone()) };
        let compared = what_if(case.clone(), change);
        let changed = Case { terms: other.terms, exclusions: other.exclusions, ..case.clone() };
        prop_assert_eq!(&compared.base, &evaluate(&case));
        prop_assert_eq!(&compared.what_if, &evaluate(&changed));
        let delta = compared.delta;
        let outside = [delta.not_covered_ms, delta.out_of_window_ms, delta.holiday_ms, delta.excluded_ms];
        let judged = [delta.up_ms, delta.down_ms, delta.unknown_ms];
        prop_assert_eq!(outside.iter().chain(&judged).map(|ms| ms.0).sum::<i64>(), delta.month_ms.0);
        let same = what_if(case, Change::default());
        prop_assert_eq!(same.delta, Delta::between(&same.base, &same.base));
        prop_assert_eq!(same.base, same.what_if);
    }

    #[test]
    fn splitting_an_interval_of_state_changes_nothing((case, _) in any_case(), from in 0_i64..40_000, cuts in 1_i64..9) {
        let mut case = plain(case);
        let start = case.month.first(&case.terms.timezone);
        let at = |minute: i64| start.plus(Millis(minute * 60_000));
        let mut given = |intervals: Vec<(UtcTime, UtcTime, State)>| {
            for check in case.checks.values_mut() {
                for evidence in check.vantages.values_mut() {
                    *evidence = Evidence::States { intervals: intervals.clone(), otherwise: State::Up };
                }
            }
            evaluate(&case)
        };
        let whole = given(vec![(at(from), at(from + 100 * cuts), State::Down)]);
        let parts = given((0..cuts).map(|i| (at(from + 100 * i), at(from + 100 * (i + 1)), State::Down)).collect());
        prop_assert_eq!(whole, parts);
    }

    #[test]
    fn inside_and_outside_the_window_make_the_month((case, _) in any_case()) {
        let Terms { timezone, window, .. } = &case.terms;
        let month = case.month.span(timezone);
        let inside = window.spans(timezone, month, |_| true);
        let outside = Spans::from(month).without(&inside);
        prop_assert_eq!(inside.total().saturating_add(outside.total()), month.length());
        prop_assert_eq!(inside.intersect(&outside), Spans::default());
        prop_assert_eq!(inside.union(&outside), Spans::from(month));
    }

    #[test]
    fn months_follow_each_other_without_hole_or_overlap((case, _) in any_case(), months in 0_u8..40) {
        let zone = &case.terms.timezone;
        let month = (0..months).fold(case.month, |month, _| month.next());
        prop_assert_eq!(month.span(zone).to, month.next().span(zone).from);
        prop_assert_eq!(Month::parse(&month.to_string()), Some(month));
        let last = UtcTime(month.span(zone).to.0 - 1);
        prop_assert_eq!(Month::of(last, zone), month);
    }
}
