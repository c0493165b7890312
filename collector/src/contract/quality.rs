//! How good the measurement behind a figure was: rhythm, what could be missed, what is known, who looked.
//!
//! *Detection limit*: an outage at least this long is seen by every vantage, whenever it begins: as many
//! intervals as failures that the contract asks for. A shorter one may pass between two samples (a 20 s outage
//! under a probe every 60 s is seen one time in three) or stay transient. Where a rule changed within the month
//! the coarser one is told.
//!
//! The clock error is an argument: the largest that was measured, or nothing when nobody measured it.

use std::collections::BTreeMap;

use peil_proto::units::Millis;

use super::Dated;
use super::figure::Figure;
use super::percent::Percent;

/// How one check was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckQuality {
    /// Name.
    pub name: String,
    /// Time between samples.
    pub interval: Millis,
    /// An outage at least this long is always seen.
    pub detection_limit: Millis,
    /// Vantages with evidence.
    pub vantages: usize,
    /// Votes that decide.
    pub quorum: usize,
}

/// How a figure was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quality {
    /// By name.
    pub checks: Vec<CheckQuality>,
    /// Known share of the judged time.
    pub known: Option<Percent>,
    /// Time without evidence.
    pub unknown_ms: Millis,
    /// The largest clock error measured; `None` when none was.
    pub clock_error: Option<Millis>,
}

/// The quality of `figure`, which is that of `dated`.
pub fn quality(dated: &Dated, figure: &Figure, clock_error: Option<Millis>) -> Quality {
    let mut checks: BTreeMap<&str, CheckQuality> = BTreeMap::new();
    for chapter in &dated.chapters {
        let failures = i64::from(chapter.terms.confirm.get());
        for name in chapter.service.names() {
            let Some(check) = chapter.checks.get(name) else { continue };
            let found = CheckQuality {
                name: name.to_owned(),
                interval: check.interval,
                detection_limit: Millis(check.interval.0.saturating_mul(failures)),
                vantages: check.vantages.len(),
                quorum: check.quorum,
            };
            let known = checks.entry(name).or_insert_with(|| found.clone());
            if found.detection_limit > known.detection_limit {
                *known = found;
            }
        }
    }
    Quality { checks: checks.into_values().collect(), known: figure.known, unknown_ms: figure.unknown_ms, clock_error }
}

#[cfg(test)]
mod tests {
    use peil_proto::sample::State;
    use peil_proto::time::UtcTime;

    use super::super::calendar::Month;
    use super::super::expr::Expr;
    use super::super::terms::{Confirm, Terms};
    use super::super::{Case, CheckEvidence, Evidence, evaluate};
    use super::*;

    /// April, sampled every minute except for `outage` (seconds after its start, length), `confirm` failures asked.
    fn april(confirm: u8, outage: (i64, i64)) -> Dated {
        let terms = Terms { confirm: Confirm::new(confirm).expect("in range"), ..Terms::default() };
        let month = Month { year: 2026, month: 4 };
        let from = month.first(&terms.timezone);
        let samples = (0..720 * 60).map(|minute| {
            let at = minute * 60;
            let down = outage.0 <= at && at < outage.0 + outage.1;
            (UtcTime(from.0 + at * 1_000), if down { State::Down } else { State::Up })
        });
        let check = CheckEvidence {
            interval: Millis::from_secs(60),
            timeout: Millis::from_secs(10),
            quorum: 1,
            vantages: BTreeMap::from([("ams".to_owned(), Evidence::Samples(samples.collect()))]),
        };
        let checks = BTreeMap::from([("web".to_owned(), check)]);
        let service = Expr::Check("web".to_owned());
        Case { month, terms, service, checks, exclusions: Vec::new() }.into()
    }

    #[test]
    fn an_outage_as_long_as_the_detection_limit_is_seen_whenever_it_begins_and_a_shorter_one_can_be_missed() {
        for confirm in [1, 3] {
            let quality = quality(&april(confirm, (0, 0)), &evaluate(&april(confirm, (0, 0))), None);
            let limit = quality.checks[0].detection_limit.0 / 1_000;
            assert_eq!(limit, 60 * i64::from(confirm));
            for begin in [7_200, 7_201, 7_230, 7_259] {
                assert!(evaluate(&april(confirm, (begin, limit))).down_ms > Millis::ZERO, "{begin}");
            }
            assert_eq!(evaluate(&april(confirm, (7_201, limit - 1))).down_ms, Millis::ZERO);
        }
    }
}
