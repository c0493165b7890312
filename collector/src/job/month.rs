//! Months that are over: a draft from day 1, sealed on the agreed day, and compared with what was sealed.
//!
//! Looks at the blocks that came since the last round, the agreement and the exclusions; writes the figures of drafts,
//! and editions on the agreed day. A late block makes the affected services' months anew and no others: those with a
//! check that a sample of it is about, in a month for which that sample is evidence. A changed agreement or exclusion
//! makes all of them anew. Twice is harmless: the same figure is written over itself, and an edition exists once.
//!
//! After the seal the draft goes on being made: where what it is made from differs from the newest edition, the month
//! is published as different, which becomes an alert for whoever answers for the contract. The edition stays.
//!
//! One collector of several does this: the one whose alerts are.
//!
//! Limits: [`MONTHS_BACK`] months; older ones are made only when somebody asks (`month supersede`). Of those, months in
//! which no agent was enrolled are followed once somebody asked for a draft or sealed one: their records came later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use peil_proto::block;
use peil_proto::ids::CheckNo;
use peil_proto::time::{UtcTime, WallClock};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::agreement::InForce;
use crate::config::SealDay;
use crate::contract::approval::ExclusionFile;
use crate::contract::calendar::Month;
use crate::contract::span::Span;
use crate::decisions;
use crate::job::beat::Beat;
use crate::job::lead::Leading;
use crate::live;
use crate::months::{self, Made, MonthError, MonthState, Wish};
use crate::refold::{self, Ground, Sight};
use crate::snapshot::{MonthView, Notice};
use crate::store::blocks::{BlockLimit, Through};
use crate::store::months::EditionRow;
use crate::store::{Store, StoreError};

const EVERY: Duration = Duration::from_secs(60);
/// When late blocks about a month that is over were judged, a round comes at once, but not sooner after the one before
/// than this, and than so many times what that took: months are read from blocks, and figures of today go before.
const ROUNDS_APART: Duration = Duration::from_secs(1);
const ROUNDS_SHARE: u32 = 4;
/// Months before the running one that are followed.
const MONTHS_BACK: u32 = 3;

/// Months on the page; older ones are in the store.
const MONTHS_TOLD_MAX: usize = 1_000;

/// What this job tells the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MonthsTold {
    /// Newest first.
    pub listed: Vec<MonthView>,
    /// Sealed months that differ from what is known now.
    pub notices: Vec<Notice>,
}

/// The job.
pub struct Months {
    store: Store,
    clock: WallClock,
    leading: Leading,
    in_force: watch::Receiver<Arc<InForce>>,
    seal_day: Option<SealDay>,
    publish: watch::Sender<Arc<MonthsTold>>,
    /// Wakes the job before its beat: late blocks were judged.
    past_changed: Arc<Notify>,
    /// Looked at through here.
    cursor: Through,
    /// What the drafts were made with.
    made_with: Option<Basis>,
    differing: BTreeMap<(String, Month), Notice>,
}

/// What all drafts depend on besides blocks.
struct Basis {
    in_force: Arc<InForce>,
    exclusions: Vec<ExclusionFile>,
    over: Vec<(String, Month)>,
}

/// Services by the months that are made anew.
type Affected = BTreeMap<Month, BTreeSet<String>>;

impl Months {
    /// Everything is made once at the first round.
    pub fn new(
        store: Store,
        clock: WallClock,
        leading: Leading,
        in_force: watch::Receiver<Arc<InForce>>,
        seal_day: Option<SealDay>,
        publish: watch::Sender<Arc<MonthsTold>>,
        past_changed: Arc<Notify>,
    ) -> Self {
        let (cursor, made_with, differing) = (Through::default(), None, BTreeMap::new());
        Self { store, clock, leading, in_force, seal_day, publish, past_changed, cursor, made_with, differing }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut beat = Beat::every(EVERY, stop);
        let mut not_before = Instant::now();
        while beat.next_or(&self.past_changed).await && beat.during(sleep_until(not_before)).await.is_some() {
            let started = Instant::now();
            let done = self.activate().await;
            beat.tell(done, "months that are over stay as they were; trying again every minute");
            not_before = Instant::now() + (started.elapsed() * ROUNDS_SHARE).max(ROUNDS_APART);
        }
    }

    /// One round.
    ///
    /// # Errors
    /// When the store cannot be read or written; the next round does it again.
    pub async fn activate(&mut self) -> Result<(), StoreError> {
        if self.leading.borrow().alerts() {
            self.follow().await?;
        }
        self.tell().await
    }

    /// Drafts, comparisons and the agreed day.
    async fn follow(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let in_force = Arc::clone(&self.in_force.borrow());
        let through = self.store.judged_through().await?;
        let exclusions = decisions::exclusions(&self.store, UtcTime(i64::MIN)).await?;
        let enrolled = self.store.agents().await?.into_iter().map(|row| row.enrolled_at).min();
        let editions = self.store.editions().await?;
        let drafted = self.store.month_figures().await?.into_iter().map(|row| (row.service, row.month));
        let asked_for = drafted.chain(editions.iter().map(|row| (row.service.clone(), row.month.clone()))).collect();
        let over = enrolled.map(|first| months_over(&in_force, first, &asked_for, now)).unwrap_or_default();
        let same = self.made_with.as_ref().is_some_and(|before| {
            Arc::ptr_eq(&before.in_force, &in_force) && before.exclusions == exclusions && before.over == over
        });
        let affected = match same {
            true => self.touched(&in_force, &over, &through).await?,
            false => grouped(&over),
        };
        for (month, services) in affected {
            self.make(&in_force, &exclusions, (month, &services), &editions, &through, now).await?;
        }
        self.seal_what_is_due(&in_force, &over, now).await?;
        (self.cursor, self.made_with) = (through, Some(Basis { in_force, exclusions, over }));
        Ok(())
    }

    /// What there is, for the pages, and what differs, for the alerts.
    async fn tell(&self) -> Result<(), StoreError> {
        let listed = months::list(&self.store).await?.into_iter().take(MONTHS_TOLD_MAX).map(view).collect();
        let told = MonthsTold { listed, notices: self.differing.values().cloned().collect() };
        self.publish.send_if_modified(|current| {
            let changed = **current != told;
            if changed {
                *current = Arc::new(told);
            }
            changed
        });
        Ok(())
    }

    /// What the blocks since the last round say something about.
    async fn touched(
        &self,
        in_force: &InForce,
        over: &[(String, Month)],
        through: &Through,
    ) -> Result<Affected, StoreError> {
        let evidence = |(service, month): &(String, Month)| {
            let zone = in_force.agreement.service_at(service, self.clock.now())?.terms.timezone;
            Some((service.clone(), *month, refold::evidence_of(*month, &zone)))
        };
        let months: Vec<(String, Month, Span)> = over.iter().filter_map(evidence).collect();
        let latest = months.iter().map(|(_, _, span)| span.to).max().unwrap_or(UtcTime(i64::MIN));
        let mut seen: BTreeSet<(CheckNo, UtcTime)> = BTreeSet::new();
        let mut at = self.cursor.clone();
        while !at.covers_all(through) {
            let page = self.store.blocks_after(at.clone(), BlockLimit::default()).await?;
            // A lane has no holes: what is missing was compacted before anybody here looked at it, and may be about
            // any month.
            let dense = page.iter().all(|block| {
                let next = at.of(block.id.lane).saturating_add(1);
                at.pass(block.id);
                block.id.no == next
            });
            if page.is_empty() || !dense {
                return Ok(grouped(over));
            }
            for stored in page.iter().filter(|block| through.covers(block.id) && block.from < latest) {
                let Ok(decoded) = block::decode(&stored.bytes) else { continue };
                // To the hour: enough to tell which month, and few.
                let due = decoded.items.iter().flat_map(live::states).filter(|(_, at, _)| *at < latest);
                seen.extend(due.map(|(check, at, _)| (check, at.hour_start())));
            }
        }
        let mut affected = Affected::new();
        for (service, month, span) in months {
            let named = in_force.agreement.checks_of(&service);
            let numbers: BTreeSet<CheckNo> =
                named.iter().filter_map(|name| in_force.numbers.get(name)).copied().collect();
            let speaks = |(check, hour): &(CheckNo, UtcTime)| {
                numbers.contains(check) && span.from.hour_start() <= *hour && *hour < span.to
            };
            if seen.iter().any(speaks) {
                affected.entry(month).or_default().insert(service);
            }
        }
        Ok(affected)
    }

    /// Makes the drafts of `services` in `month` anew, and compares them with what was sealed. The blocks are read
    /// once for all services of a zone.
    async fn make(
        &mut self,
        in_force: &InForce,
        exclusions: &[ExclusionFile],
        (month, services): (Month, &BTreeSet<String>),
        editions: &[EditionRow],
        through: &Through,
        now: UtcTime,
    ) -> Result<(), StoreError> {
        let agents = self.store.agents().await?;
        let ground = Ground { in_force, agents: &agents, exclusions };
        let mut by_evidence: BTreeMap<Span, Vec<&String>> = BTreeMap::new();
        for service in services {
            let Some(agreed) = in_force.agreement.service_at(service, now) else { continue };
            by_evidence.entry(refold::evidence_of(month, &agreed.terms.timezone)).or_default().push(service);
        }
        let mut drafts = Vec::new();
        for (evidence, services) in by_evidence {
            let checks = services.iter().flat_map(|service| ground.checks_of(service)).collect();
            let sight = Sight { evidence, known_at: now, through: through.clone() };
            let seen = refold::tracks(&self.store, &checks, &sight).await?;
            for service in services {
                let Some(bundle) = ground.bundle(service, month, now, &seen) else { continue };
                let draft = Made::of(bundle, seen.blocks, None).draft(now);
                self.compare(service, month, editions, draft.inputs, now);
                drafts.push(draft);
            }
        }
        info!(%month, services = drafts.len(), "figures of a month that is over were made anew");
        self.store.put_month_figures(drafts).await
    }

    fn compare(&mut self, service: &str, month: Month, editions: &[EditionRow], inputs: [u8; 32], now: UtcTime) {
        let of_month = |row: &&EditionRow| row.service == service && row.month == month.to_string();
        let key = (service.to_owned(), month);
        match editions.iter().filter(of_month).max_by_key(|row| row.version) {
            Some(newest) if newest.inputs != inputs => {
                self.differing.entry(key).or_insert_with(|| Notice::month_differs(service, month, newest.version, now));
            }
            _ => drop(self.differing.remove(&key)),
        }
    }

    /// Seals what the agreed day is over for.
    async fn seal_what_is_due(
        &self,
        in_force: &InForce,
        over: &[(String, Month)],
        now: UtcTime,
    ) -> Result<(), StoreError> {
        if self.seal_day.is_none() {
            return Ok(());
        }
        let editions = self.store.editions().await?;
        for (service, month) in over {
            let sealed = editions.iter().any(|row| row.service == *service && row.month == month.to_string());
            if sealed || !months::is_due(in_force, self.seal_day, service, *month, now) {
                continue;
            }
            match months::fulfil(&self.store, in_force, self.seal_day, (service, *month), Wish::SealItself, now).await {
                Ok(edition) => {
                    info!(service, %month, version = edition.version, "sealed on the agreed day; nobody approved it");
                }
                Err(MonthError::Store(cause)) => return Err(cause),
                Err(cause) => error!(service, %month, cause = %crate::chain(&cause), "not sealed on the agreed day"),
            }
        }
        Ok(())
    }
}

/// The months before the running one of every service, newest first, as far as anything was covered and the first
/// agent was enrolled (`first`): where nobody looked there is nothing to report, unless somebody asked for it.
fn months_over(
    in_force: &InForce,
    first: UtcTime,
    asked_for: &BTreeSet<(String, String)>,
    now: UtcTime,
) -> Vec<(String, Month)> {
    let mut over = Vec::new();
    for name in in_force.agreement.service_names() {
        let Some(service) = in_force.agreement.service_at(name, now) else { continue };
        let zone = &service.terms.timezone;
        let mut month = Month::of(now, zone);
        for _ in 0..MONTHS_BACK {
            month = month.previous();
            let covered = month.span(zone).clip(service.terms.coverage.span());
            let is_asked_for = || asked_for.contains(&(name.to_owned(), month.to_string()));
            if !covered.is_empty() && (first < covered.to || is_asked_for()) {
                over.push((name.to_owned(), month));
            }
        }
    }
    over
}

fn view(state: MonthState) -> MonthView {
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let newest = state.editions.last();
    MonthView {
        stage: state.stage.word().to_owned(),
        edition: newest.map(|edition| edition.version),
        sealed_at: newest.map(|edition| edition.sealed_at),
        sealed_by: newest.and_then(|edition| edition.sealed_by.clone()),
        official: text(&state.figure["availability"]["official"]),
        verdict: text(&state.figure["verdict"]).unwrap_or_default(),
        differs: state.differs,
        service: state.service,
        month: state.month,
    }
}

fn grouped(over: &[(String, Month)]) -> Affected {
    let mut affected = Affected::new();
    for (service, month) in over {
        affected.entry(*month).or_default().insert(service.clone());
    }
    affected
}

#[cfg(test)]
mod tests;
