//! From a case back to the JSON of formats.md §1: what `input.rs` reads, written with every key.
//!
//! Bundles are made of it, digests are taken over it, and `export` uses it for contracts. What is read back is the
//! same case: times in UTC, samples in their smallest form ([`crate::contract::Evidence::portable`]).

use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use serde_json::{Map, Value, json};

use crate::contract::calendar::Month;
use crate::contract::exclusion::{Exclusion, ExclusionKind};
use crate::contract::expr::Expr;
use crate::contract::holiday::{Holidays, LiberationDay};
use crate::contract::span::Span;
use crate::contract::terms::{CountsAs, Coverage, Denominator, Maintenance, OutageStarts, Terms, UnknownClause};
use crate::contract::window::Window;
use crate::contract::{Chapter, CheckEvidence, Evidence};

/// `2026-04-10T08:00:00Z`, to the millisecond where there is one.
pub fn time(at: UtcTime) -> Value {
    Value::from(at.to_string())
}

/// A chapter as a case of its own, with its evidence cut to what the month `span` needs.
pub fn case(month: Month, span: Span, chapter: &Chapter, exclusions: &[Exclusion]) -> Value {
    json!({
        "month": month.to_string(),
        "contract": terms(&chapter.terms),
        "service": expr(&chapter.service),
        "checks": checks(chapter, span),
        "exclusions": exclusions.iter().map(exclusion).collect::<Vec<_>>(),
    })
}

/// Every clause of a contract.
pub fn terms(terms: &Terms) -> Value {
    json!({
        "timezone": terms.timezone.iana_name().unwrap_or("UTC"),
        "target": terms.target.to_string(),
        "window": window(&terms.window),
        "holidays": terms.holidays.as_ref().map(holidays),
        "coverage": coverage(terms.coverage),
        "denominator": match terms.denominator {
            Denominator::Covered => "covered",
            Denominator::FullMonth => "full_month",
        },
        "unknown": match terms.unknown {
            UnknownClause::Down => "down",
            UnknownClause::Excluded => "excluded",
            UnknownClause::Up => "up",
        },
        "maintenance": maintenance(&terms.maintenance),
        "confirm": terms.confirm.get(),
        "outage_starts": match terms.outage_starts {
            OutageStarts::FirstFailure => "first_failure",
            OutageStarts::Confirmation => "confirmation",
        },
        "min_known": terms.min_known.to_string(),
    })
}

fn window(window: &Window) -> Value {
    match window {
        Window::Always => json!("always"),
        Window::Weekly(shifts) => shifts
            .iter()
            .map(|shift| {
                let [from, to] = shift.hours();
                json!({"days": shift.days(), "from": from, "to": to})
            })
            .collect(),
    }
}

fn holidays(holidays: &Holidays) -> Value {
    let dates = |days: &std::collections::BTreeSet<_>| -> Vec<String> {
        days.iter().map(|day: &crate::contract::calendar::Day| day.written()).collect()
    };
    json!({
        "country": "nl",
        "good_friday": holidays.good_friday,
        "liberation_day": match holidays.liberation_day {
            LiberationDay::Never => "never",
            LiberationDay::Lustrum => "lustrum",
            LiberationDay::Always => "always",
        },
        "also": dates(&holidays.also),
        "not": dates(&holidays.not),
    })
}

fn coverage(coverage: Coverage) -> Value {
    match coverage {
        Coverage { from: None, to: None } => Value::Null,
        // The format has no word for "never"; what ended in 1970 covers nothing of any month.
        never if never.span().is_empty() => json!({"from": null, "to": time(UtcTime(0))}),
        Coverage { from, to } => json!({"from": from.map(time), "to": to.map(time)}),
    }
}

fn maintenance(clause: &Maintenance) -> Value {
    json!({
        "counts_as": match clause.counts_as {
            CountsAs::Excluded => "excluded",
            CountsAs::Up => "up",
        },
        "notice_hours": clause.notice.0 / Millis::HOUR.0,
        "monthly_cap_minutes": clause.monthly_cap.map(|cap| cap.0 / Millis::MINUTE.0),
    })
}

/// What must work.
pub fn expr(service: &Expr) -> Value {
    let all = |parts: &[Expr]| -> Vec<Value> { parts.iter().map(expr).collect() };
    match service {
        Expr::Check(name) => json!(name),
        Expr::All(parts) => json!({"all": all(parts)}),
        Expr::Any(parts) => json!({"any": all(parts)}),
        Expr::AtLeast(k, parts) => json!({"at_least": k, "of": all(parts)}),
    }
}

fn checks(chapter: &Chapter, month: Span) -> Value {
    let names = chapter.service.names();
    let used = chapter.checks.iter().filter(|(name, _)| names.contains(name.as_str()));
    let mut checks: Map<String, Value> =
        used.map(|(name, check)| (name.clone(), check_evidence(check, &chapter.terms, month))).collect();
    for name in names {
        // A check without any evidence is unknown throughout; the format says so with a silent vantage.
        checks.entry(name).or_insert_with(|| json!({"vantages": {"": {"samples": []}}}));
    }
    Value::Object(checks)
}

fn check_evidence(check: &CheckEvidence, terms: &Terms, month: Span) -> Value {
    let of_vantage =
        |(name, known): (&String, &Evidence)| (name.clone(), evidence(&known.portable(check.hold(), terms, month)));
    let mut vantages: Map<String, Value> = check.vantages.iter().map(of_vantage).collect();
    // A quorum that nobody can reach is unknown, and no mistake of the file: silent vantages make it up.
    for place in vantages.len()..check.quorum {
        vantages.insert(format!("(silent {place})"), json!({"samples": []}));
    }
    json!({
        "interval_s": check.interval.0 / 1_000,
        "timeout_s": check.timeout.0 / 1_000,
        "quorum": check.quorum,
        "vantages": vantages,
    })
}

fn evidence(evidence: &Evidence) -> Value {
    let word = |state: State| state.word();
    match evidence {
        Evidence::States { intervals, otherwise } => {
            let states = intervals
                .iter()
                .map(|(from, to, state)| json!({"from": time(*from), "to": time(*to), "state": word(*state)}));
            json!({"states": states.collect::<Vec<_>>(), "otherwise": word(*otherwise)})
        }
        Evidence::Samples(samples) => {
            json!({"samples": samples.iter().map(|(at, state)| json!([time(*at), word(*state)])).collect::<Vec<_>>()})
        }
        // `portable` never leaves a track.
        Evidence::Track(track) => {
            let samples = track.samples();
            json!({"samples": samples.iter().map(|(at, state)| json!([time(*at), word(*state)])).collect::<Vec<_>>()})
        }
    }
}

/// One exclusion.
pub fn exclusion(exclusion: &Exclusion) -> Value {
    json!({
        "id": exclusion.id,
        "kind": kind(exclusion.kind),
        "from": time(exclusion.span.from),
        "to": time(exclusion.span.to),
        "announced_at": exclusion.announced_at.map(time),
        "approved_by": exclusion.approved_by,
    })
}

/// The word of a kind of exclusion.
pub fn kind(kind: ExclusionKind) -> &'static str {
    ExclusionKind::WORDS.iter().find(|(_, known)| *known == kind).map_or("maintenance", |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::contract::{Dated, any_case, evaluate};
    use crate::evaluate::input::read_case;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_case_that_was_written_reads_back_with_the_same_figure((case, _) in any_case()) {
            let (figure, dated) = (evaluate(&case), Dated::from(case));
            let chapter = &dated.chapters[0];
            let written = super::case(dated.month, chapter.span, chapter, &dated.exclusions);
            let read = read_case("written", &written.to_string()).expect("usable");
            prop_assert_eq!(evaluate(&read), figure);
            let again = Dated::from(read);
            let rewritten = super::case(again.month, chapter.span, &again.chapters[0], &again.exclusions);
            prop_assert_eq!(rewritten, written, "the smallest form stays as it is");
        }
    }
}
