//! A month ready to be judged: names resolved, evidence as timelines, the calendar laid out.
//!
//! A month is made up of *chapters*, stretches in which nothing of the agreement changed. A plain [`Case`] has
//! one; a [`Dated`] month has as many as versions of its objects were in force. Each instant is judged by its
//! chapter; outages, the monthly cap and the sums run through all of them.

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::calendar::Month;
use super::exclusion::{Exclusion, Weighed, weigh};
use super::expr::{Expr, Judge};
use super::figure::{Buckets, Facts, Figure, Grounds};
use super::outage::{self, Outage, Scene};
use super::percent::Allowance;
use super::span::{Span, Spans};
use super::terms::Terms;
use super::timeline::{self, Reading, Timeline};
use super::{Case, CheckEvidence, Dated};

/// A [`Case`] or a [`Dated`] month, ready to be judged.
pub struct Docket<'a> {
    pub(super) month: Month,
    pub(super) span: Span,
    pub(super) exclusions: &'a [Exclusion],
    /// Names of the checks of all chapters, sorted.
    pub(super) names: Vec<&'a str>,
    /// In order, and together the month.
    chapters: Vec<Standing<'a>>,
    /// Covered window time of all chapters.
    pub(super) agreed: Spans,
}

/// A chapter ready to be judged.
struct Standing<'a> {
    span: Span,
    terms: &'a Terms,
    grounds: Grounds,
    judge: Judge,
    /// By place in the names of the docket.
    checks: Vec<Timeline>,
}

/// What one chapter is made of.
struct Source<'a> {
    span: Span,
    terms: &'a Terms,
    service: &'a Expr,
    checks: &'a BTreeMap<String, CheckEvidence>,
}

/// A month whose instants all have their bucket.
pub(super) struct Settled<'a> {
    pub(super) weighed: Weighed,
    /// By chapter.
    pub(super) parts: Vec<(&'a Terms, Buckets)>,
    pub(super) outages: Vec<Outage>,
}

/// The denominator of a whole month, seen from within it.
pub(super) struct Outlook {
    /// With the exclusions ahead as they are known.
    pub(super) agreed_ms: Millis,
    /// Loss allowed of that.
    pub(super) budget_ms: Millis,
    /// Loss allowed if all exclusions ahead are called off: the largest it can still become.
    pub(super) most_budget_ms: Millis,
}

impl<'a> From<&'a Case> for Docket<'a> {
    fn from(case: &'a Case) -> Self {
        let Case { month, terms, service, checks, exclusions } = case;
        let span = month.span(&terms.timezone);
        Self::new(*month, span, exclusions, vec![Source { span, terms, service, checks }])
    }
}

impl<'a> From<&'a Dated> for Docket<'a> {
    fn from(dated: &'a Dated) -> Self {
        let source = |chapter: &'a super::Chapter| Source {
            span: chapter.span,
            terms: &chapter.terms,
            service: &chapter.service,
            checks: &chapter.checks,
        };
        let chapters: Vec<_> = dated.chapters.iter().map(source).collect();
        let from = chapters.first().map_or(Span::ALWAYS.from, |chapter| chapter.span.from);
        let to = chapters.last().map_or(from, |chapter| chapter.span.to);
        Self::new(dated.month, Span::new(from, to), &dated.exclusions, chapters)
    }
}

impl<'a> Docket<'a> {
    fn new(month: Month, span: Span, exclusions: &'a [Exclusion], chapters: Vec<Source<'a>>) -> Self {
        let names: BTreeSet<&str> = chapters.iter().flat_map(|chapter| chapter.service.names()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let chapters: Vec<_> = chapters.into_iter().map(|source| Standing::new(&source, &names)).collect();
        let agreed = match chapters.as_slice() {
            [only] => only.grounds.agreed.clone(),
            many => many.iter().flat_map(|chapter| chapter.grounds.agreed.iter()).collect(),
        };
        Self { month, span, exclusions, names, chapters, agreed }
    }

    /// The month until `now`, which is held at its ends.
    pub(super) fn until(&self, now: UtcTime) -> Span {
        Span::new(self.span.from, now.clamp(self.span.from, self.span.to))
    }

    /// Everything in its bucket, as if the agreement ended with `past`, which starts with the month.
    pub(super) fn settle(&self, past: Span) -> Settled<'a> {
        let clauses: Vec<_> = self.chapters.iter().map(|chapter| (chapter.span, &chapter.terms.maintenance)).collect();
        let weighed = weigh(self.exclusions, &clauses, &self.agreed, past);
        let judged = outage::follow(&self.scenes(), &self.names, past);
        let when = |state| judged.timeline.spans(state, past.to);
        let (up, down, unknown) = (when(State::Up), when(State::Down), when(State::Unknown));
        let facts =
            Facts { excluded: &weighed.excluded, as_up: &weighed.as_up, up: &up, down: &down, unknown: &unknown };
        let of_chapter = |chapter: &Standing<'a>| (chapter.terms, Buckets::new(&chapter.grounds.until(past), &facts));
        let parts: Vec<_> = self.chapters.iter().map(of_chapter).collect();
        let mut outages = judged.outages;
        for (_, buckets) in &parts {
            outage::count(&mut outages, &buckets.down);
        }
        Settled { weighed, parts, outages }
    }

    /// The figure of what was settled.
    pub(super) fn figure(&self, settled: Settled<'_>) -> Figure {
        Figure::new(self.month, &settled.parts, settled.outages, settled.weighed.rows)
    }

    pub(super) fn scenes(&self) -> Vec<Scene<'_>> {
        let mut scenes = Vec::with_capacity(self.chapters.len());
        for Standing { span, judge, checks, .. } in &self.chapters {
            scenes.push(Scene { span: *span, judge, checks });
        }
        scenes
    }

    /// Uncovered working time that counts as up.
    pub(super) fn credited(&self) -> Spans {
        self.chapters.iter().flat_map(|chapter| chapter.grounds.credited.iter()).collect()
    }

    /// The month's denominator and budgets when `settled` is all until `now`.
    pub(super) fn outlook(&self, settled: &Settled<'_>, now: UtcTime) -> Outlook {
        let ahead = Span::new(now, self.span.to);
        let (mut agreed_ms, mut known, mut most) = (Millis::ZERO, Allowance::default(), Allowance::default());
        for (chapter, (terms, buckets)) in self.chapters.iter().zip(&settled.parts) {
            let (past_ms, _) = buckets.agreed_and_lost(terms);
            let past_ms = past_ms.saturating_add(chapter.grounds.credited.total_within(ahead));
            let agreed = chapter.grounds.agreed.within(ahead);
            let planned_ms = past_ms.saturating_add(agreed.without(&settled.weighed.excluded).total());
            agreed_ms = agreed_ms.saturating_add(planned_ms);
            known = known.plus(Allowance::of(planned_ms, terms.target));
            most = most.plus(Allowance::of(past_ms.saturating_add(agreed.total()), terms.target));
        }
        Outlook { agreed_ms, budget_ms: known.budget(), most_budget_ms: most.budget() }
    }

    /// The terms in force at `at`; before and after the month those at its ends.
    pub(super) fn terms_at(&self, at: UtcTime) -> Option<&'a Terms> {
        self.chapter_at(at).map(|chapter| chapter.terms)
    }

    /// How the service is at `at`, and the checks that make it so, sorted; none when it is up.
    pub(super) fn reading_at(&self, at: UtcTime) -> (State, Vec<String>) {
        let Some(chapter) = self.chapter_at(at) else { return (State::Unknown, Vec::new()) };
        let readings: Vec<Reading> = chapter.checks.iter().map(|check| check.at(at)).collect();
        let state = chapter.judge.read(&readings).counted;
        let mut because = BTreeSet::new();
        if state != State::Up {
            chapter.judge.blame(&readings, |reading| reading.counted, state, &mut because);
        }
        let names = because.into_iter().filter_map(|i| self.names.get(i).map(|name| (*name).to_owned()));
        (state, names.collect())
    }

    fn chapter_at(&self, at: UtcTime) -> Option<&Standing<'a>> {
        self.chapters.iter().find(|chapter| at < chapter.span.to).or(self.chapters.last())
    }
}

impl<'a> Standing<'a> {
    fn new(source: &Source<'a>, names: &[&str]) -> Self {
        let Source { span, terms, service, checks } = *source;
        let used = service.names();
        let of_check = |name: &&str| match checks.get(*name).filter(|_| used.contains(*name)) {
            Some(check) => timeline::of_check(check, terms),
            None => Timeline::starting(Span::ALWAYS.from, Reading::UNKNOWN),
        };
        Self {
            span,
            terms,
            grounds: Grounds::new(span, terms),
            judge: Judge::new(service, names),
            checks: names.iter().map(of_check).collect(),
        }
    }
}

impl Settled<'_> {
    /// The buckets of all chapters as one.
    pub(super) fn buckets(&self) -> Option<Buckets> {
        let mut parts = self.parts.iter().map(|(_, buckets)| buckets);
        let first = parts.next()?.clone();
        Some(parts.fold(first, |sum, part| sum.union(part)))
    }
}
