//! What was known when, through the front door of the engine.

use peil_proto::units::Millis;
use proptest::prelude::*;

use super::super::approval::{Act, Deed, Proposal};
use super::super::exclusion::ExclusionKind;
use super::super::percent::Percent;
use super::super::{Figure, evaluate};
use super::*;

const MONTH: Month = Month { year: 2026, month: 4 };

fn start() -> UtcTime {
    MONTH.first(&Terms::default().timezone)
}

fn minute(n: i64) -> UtcTime {
    start().plus(Millis(n * Millis::MINUTE.0))
}

fn version<T>(valid_from: UtcTime, recorded_at: UtcTime, value: T) -> Version<T> {
    let (author, reason) = ("sdm".to_owned(), "agreed".to_owned());
    Version { valid_from, recorded_at, author, reason, standing: Standing::InForce, value }
}

/// A service that is one check, sampled every minute; each sample arrives when `known_at` says.
fn dossier(samples: &[(i64, State)], known_at: impl Fn(i64) -> UtcTime) -> Dossier {
    let facts = samples.iter().map(|(n, state)| Fact { at: minute(*n), state: *state, known_at: known_at(*n) });
    let rule = CheckRule { interval: Millis::MINUTE, timeout: Millis::from_secs(10), quorum: 1 };
    let vantages = BTreeMap::from([("ams".to_owned(), Testimony::Facts(facts.collect()))]);
    let file = CheckFile { rules: History::always(rule), vantages };
    Dossier {
        contract: History::always(Terms::default()),
        service: History::always(Expr::Check("web".to_owned())),
        checks: BTreeMap::from([("web".to_owned(), file)]),
        exclusions: Vec::new(),
    }
}

fn figure(dossier: &Dossier, known_at: UtcTime) -> Figure {
    evaluate(&dossier.as_known_at(MONTH, known_at).expect("written down"))
}

/// All of April, up but for one hour of silence that was buffered and arrived on 6 May: down for 15 minutes of it.
fn buffered() -> Dossier {
    let sample = |n| if (6_000..6_015).contains(&n) { (n, State::Down) } else { (n, State::Up) };
    let samples: Vec<_> = (0..43_200).map(sample).collect();
    dossier(&samples, |n| if (6_000..6_060).contains(&n) { minute(50_000) } else { minute(n) })
}

#[test]
fn late_samples_change_what_is_known_and_not_what_was_known() {
    let (then, now) = (figure(&buffered(), minute(49_999)), figure(&buffered(), minute(50_000)));
    // The last sample before the silence holds for 2 × 60 + 10 s.
    assert_eq!(then.unknown_ms, Millis(61 * Millis::MINUTE.0 - 130_000));
    assert_eq!((now.unknown_ms, now.down_ms), (Millis::ZERO, Millis(15 * Millis::MINUTE.0)));
    assert_eq!(figure(&buffered(), minute(49_999)), then, "asked again later it is the same");
}

#[test]
fn a_target_that_changed_in_the_middle_allows_each_half_its_own_loss() {
    let strict = Terms { target: Percent::parse("99.9").expect("a percentage"), ..Terms::default() };
    let mut dossier = buffered();
    let half = minute(21_600);
    let versions = vec![version(start(), start(), Terms::default()), version(half, half, strict)];
    dossier.contract = History::new(versions).expect("a history");
    let figure = figure(&dossier, minute(60_000));
    // 15 days at 0.5 % and 15 days at 0.1 %.
    assert_eq!(figure.budget_ms, Millis(6_480_000 + 1_296_000));
}

#[test]
fn after_its_end_a_service_has_no_agreed_time_and_until_then_the_figure_it_had() {
    let whole = figure(&buffered(), minute(60_000));
    let end = |at| Version { standing: Standing::Ended, ..version(at, at, Expr::Check("web".to_owned())) };
    let mut ended = buffered();
    let first = version(start(), start(), Expr::Check("web".to_owned()));
    ended.service = History::new(vec![first, end(minute(21_600))]).expect("a history");
    let mut covered = buffered();
    let until = |terms: &Terms| {
        let coverage = terms.coverage.until(minute(21_600));
        Terms { coverage, ..terms.clone() }
    };
    covered.contract = covered.contract.map(until);
    let (ended, covered) = (figure(&ended, minute(60_000)), figure(&covered, minute(60_000)));
    assert_eq!(ended.agreed_ms, Millis(21_600 * Millis::MINUTE.0));
    assert_eq!(ended.down_ms, whole.down_ms, "what happened before stays");
    assert_eq!(
        (ended.agreed_ms, ended.budget_ms, ended.official),
        (covered.agreed_ms, covered.budget_ms, covered.official)
    );
    // Nobody is to look any more from the same moment on: nothing is unknown for it.
    let mut all_ended = buffered();
    let rule = CheckRule { interval: Millis::MINUTE, timeout: Millis::from_secs(10), quorum: 1 };
    let gone = Version { standing: Standing::Ended, ..version(minute(21_600), minute(21_600), rule) };
    let web = all_ended.checks.get_mut("web").expect("a check");
    web.rules = History::new(vec![version(start(), start(), rule), gone]).expect("a history");
    all_ended.service =
        History::new(vec![version(start(), start(), Expr::Check("web".to_owned())), end(minute(21_600))])
            .expect("a history");
    assert_eq!(figure(&all_ended, minute(60_000)).official, ended.official);
}

#[test]
fn a_retroactive_version_changes_the_past_only_for_those_who_know_it() {
    let mut dossier = buffered();
    let uncovered = {
        let mut terms = Terms::default();
        terms.coverage.from = Some(minute(6_060));
        terms
    };
    let versions = vec![version(start(), start(), Terms::default()), version(start(), minute(55_000), uncovered)];
    dossier.contract = History::new(versions).expect("a history");
    let (before, after) = (figure(&dossier, minute(54_999)), figure(&dossier, minute(55_000)));
    assert_eq!((before.down_ms, before.not_covered_ms), (Millis(15 * Millis::MINUTE.0), Millis::ZERO));
    assert_eq!((after.down_ms, after.not_covered_ms), (Millis::ZERO, Millis(6_060 * Millis::MINUTE.0)));
}

#[test]
fn a_service_is_not_covered_before_its_first_version() {
    let mut dossier = buffered();
    let begun = vec![version(minute(10_000), minute(10_000), Expr::Check("web".to_owned()))];
    dossier.service = History::new(begun).expect("a history");
    assert_eq!(figure(&dossier, minute(60_000)).not_covered_ms, Millis(10_000 * Millis::MINUTE.0));
    assert!(dossier.as_known_at(MONTH, minute(9_999)).is_none());
}

#[test]
fn a_changed_rhythm_holds_for_its_own_stretch() {
    // Sampled every ten minutes all along: known throughout only where that was the rhythm.
    let samples: Vec<_> = (0..4_320).map(|n| (n * 10, State::Up)).collect();
    let mut dossier = dossier(&samples, minute);
    let rule = |minutes: i64| CheckRule {
        interval: Millis(minutes * Millis::MINUTE.0),
        timeout: Millis::from_secs(10),
        quorum: 1,
    };
    let versions = vec![version(start(), start(), rule(1)), version(minute(21_600), minute(21_600), rule(10))];
    dossier.checks.get_mut("web").expect("the check").rules = History::new(versions).expect("a history");
    let figure = figure(&dossier, minute(60_000));
    // Of each ten minutes in the first half 130 s are known.
    assert_eq!(figure.unknown_ms, Millis(2_160 * (600_000 - 130_000)));
}

#[test]
fn an_exclusion_counts_from_its_approval_and_shrinks_when_it_is_closed() {
    let proposal = Proposal {
        id: "CHG-7".to_owned(),
        service: "web".to_owned(),
        kind: ExclusionKind::Dependency,
        span: Span::new(minute(6_000), minute(6_100)),
        announced_at: None,
        reason: "their line was cut".to_owned(),
    };
    let act = |n, by: &str, deed| Act { at: minute(n), by: by.to_owned(), deed };
    let acts = vec![act(51_000, "bert", Deed::Approve), act(52_000, "anna", Deed::Close(minute(6_010)))];
    let file = ExclusionFile { proposal, proposed_at: minute(50_500), proposed_by: "anna".to_owned(), acts };
    let dossier = Dossier { exclusions: vec![file], ..buffered() };
    let excluded = |n| figure(&dossier, minute(n)).excluded_ms.0 / Millis::MINUTE.0;
    assert_eq!([50_499, 50_500, 51_000, 52_000].map(excluded), [0, 0, 100, 10]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_known_is_the_figure_of_the_facts_that_had_arrived(
        facts in prop::collection::vec((0_i64..43_200, prop::sample::select(vec![State::Up, State::Down]), 0_i64..5_000), 1..60),
        moment in 0_i64..50_000,
    ) {
        let samples: Vec<_> = facts.iter().map(|(n, state, _)| (*n, *state)).collect();
        let arrival: BTreeMap<i64, i64> = facts.iter().map(|(n, _, late)| (*n, n + late)).collect();
        let all = dossier(&samples, |n| minute(arrival[&n]));
        let arrived: Vec<_> = samples.iter().copied().filter(|(n, _)| arrival[n] <= moment).collect();
        let only = dossier(&arrived, |n| minute(arrival[&n]));
        prop_assert_eq!(figure(&all, minute(moment)), figure(&only, minute(1_000_000)));
    }
}
