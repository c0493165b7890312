//! All that is known for a month with when it became known: the file from which any figure can be made again.
//!
//! Every fact has two times: when it holds, and when we knew. [`Dossier::as_known_at`] takes the knowledge of
//! a moment (the versions written down, the samples that had arrived, what had been decided about exclusions by
//! then) and lays the month out in chapters, one for each stretch in which the same versions were in force. The
//! figure of the report of 5 May, and that of today, are the same question with another moment.
//!
//! Before the first version of its contract or of its expression, and after the end of either, a service is not
//! covered. A check before its first version or after its end has no evidence.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::approval::ExclusionFile;
use super::calendar::Month;
use super::expr::Expr;
use super::span::Span;
use super::terms::Terms;
use super::track::Track;
use super::version::{History, Standing, Version};
use super::{Chapter, CheckEvidence, Dated, Evidence, hold};

/// One sample, with when it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// When it was due.
    pub at: UtcTime,
    /// What it saw.
    pub state: State,
    /// When the collector had it.
    pub known_at: UtcTime,
}

/// What one vantage knows.
#[derive(Debug, Clone)]
pub enum Testimony {
    /// Sample by sample, in any order.
    Facts(Vec<Fact>),
    /// Folded under the shortest hold of its check, without the times of arrival: all of it counts as known always.
    Track(Track),
    /// Ready intervals, as in [`Evidence::States`]; known always.
    States(Vec<(UtcTime, UtcTime, State)>, State),
}

/// How a check is run and decided; what an agent probes stands elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckRule {
    /// Time between samples.
    pub interval: Millis,
    /// How long a probe may take.
    pub timeout: Millis,
    /// Votes that decide.
    pub quorum: usize,
}

/// A check: its rule through time, and what is known from each vantage.
#[derive(Debug, Clone)]
pub struct CheckFile {
    /// Versions.
    pub rules: History<CheckRule>,
    /// By vantage.
    pub vantages: BTreeMap<String, Testimony>,
}

/// Everything known about one service.
#[derive(Debug, Clone)]
pub struct Dossier {
    /// The contract it is under. All versions have the same zone (`apply` sees to it): months are cut by it.
    pub contract: History<Terms>,
    /// What it is made of.
    pub service: History<Expr>,
    /// By the names the service uses.
    pub checks: BTreeMap<String, CheckFile>,
    /// What was proposed and decided.
    pub exclusions: Vec<ExclusionFile>,
}

impl Dossier {
    /// `month` as it was known at `known_at`; `None` when the contract or the service was not yet written down.
    pub fn as_known_at(&self, month: Month, known_at: UtcTime) -> Option<Dated> {
        let contract = self.contract.as_known_at(known_at)?;
        let service = self.service.as_known_at(known_at)?;
        let rule = |(name, file): (&String, &CheckFile)| Some((name.clone(), file.rules.as_known_at(known_at)?));
        let rules: BTreeMap<String, History<CheckRule>> = self.checks.iter().filter_map(rule).collect();
        let span = month.span(&zone_of(&contract));

        let mut cuts: BTreeSet<UtcTime> = contract.changes(span).chain(service.changes(span)).collect();
        cuts.extend(rules.values().flat_map(|rule| rule.changes(span)));
        let begins = std::iter::once(span.from).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([span.to]);
        let chapter = |(from, to)| self.chapter(Span::new(from, to), &contract, &service, &rules, known_at);
        let chapters = begins.zip(ends).filter_map(chapter).collect();
        let exclusions = self.exclusions.iter().filter_map(|file| file.as_known_at(known_at)).collect();
        Some(Dated { month, chapters, exclusions })
    }

    /// `None` only for histories without any version, which do not exist.
    fn chapter(
        &self,
        span: Span,
        contract: &History<Terms>,
        service: &History<Expr>,
        rules: &BTreeMap<String, History<CheckRule>>,
        known_at: UtcTime,
    ) -> Option<Chapter> {
        let (in_force, expression) = (holds(contract, span.from)?, holds(service, span.from)?);
        let mut terms = in_force.value.clone();
        let agreed_from = in_force.valid_from.max(expression.valid_from);
        if span.from < agreed_from {
            terms.coverage.from = terms.coverage.from.max(Some(agreed_from));
        }
        if let Some(end) = contract.ended_at(span.from).into_iter().chain(service.ended_at(span.from)).min() {
            terms.coverage = terms.coverage.until(end);
        }
        let evidence = |name: &&str| {
            let (file, rule) = (self.checks.get(*name)?, rules.get(*name)?.in_force(span.from)?);
            if rule.standing == Standing::Ended {
                return None;
            }
            Some(((*name).to_owned(), file.evidence(rule.value, known_at)))
        };
        let names = expression.value.names();
        let checks = names.iter().filter_map(evidence).collect();
        Some(Chapter { span, terms, service: expression.value.clone(), checks })
    }
}

impl CheckFile {
    fn evidence(&self, rule: CheckRule, known_at: UtcTime) -> CheckEvidence {
        let CheckRule { interval, timeout, quorum } = rule;
        let hold = hold(interval, timeout);
        let vantages = self.vantages.iter().map(|(name, said)| (name.clone(), said.as_known_at(known_at, hold)));
        CheckEvidence { interval, timeout, quorum, vantages: vantages.collect() }
    }
}

impl Testimony {
    fn as_known_at(&self, known_at: UtcTime, hold: Millis) -> Evidence {
        match self {
            Self::Facts(facts) => {
                let known = facts.iter().filter(|fact| fact.known_at <= known_at);
                Evidence::Samples(known.map(|fact| (fact.at, fact.state)).collect())
            }
            Self::Track(track) => Evidence::Track(track.clone().held_for(hold)),
            Self::States(intervals, otherwise) => {
                Evidence::States { intervals: intervals.clone(), otherwise: *otherwise }
            }
        }
    }
}

/// The version that holds at `at`, or the first one before there was any.
fn holds<T>(history: &History<T>, at: UtcTime) -> Option<&Version<T>> {
    history.in_force(at).or_else(|| history.first())
}

/// The zone of a contract.
fn zone_of(contract: &History<Terms>) -> TimeZone {
    contract.first().map_or(TimeZone::UTC, |version| version.value.timezone.clone())
}

#[cfg(test)]
mod tests;
