//! A month from nothing but what is stored: blocks, versions, exclusions.
//!
//! What is sealed, handed to a client and compared at night is made here, never from live state. [`tracks`] reads the
//! blocks of a period once and folds the samples of the checks asked for; [`month`] makes a service's bundle of it.
//!
//! Rules about evidence, so that the same month gives the same digests whenever it is made:
//! - samples due from the first instant of the month before until a day after its end ([`evidence_of`]). Later ones
//!   change nothing about it, and an outage that began before is known as far as it was still seen.
//! - blocks that had arrived at `known_at`, and of those what the collector had judged. Days that were compacted no
//!   longer say when their records arrived: each counts as known from when it was due. What was sealed before is kept
//!   with its data, so nobody needs the blocks to make it again.
//! - a vantage that is revoked or does not run the check any more is retired, as in the live figure.
//!
//! Limits: one track per (check, vantage) in memory, and the samples of those with late ones.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use peil_proto::block::Item;
use peil_proto::block::day::{Ledger, Skimmed};
use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::sample::{Sample, State};
use peil_proto::time::{UtcDay, UtcTime};
use peil_proto::units::Millis;

use crate::agreement::InForce;
use crate::contract::approval::ExclusionFile;
use crate::contract::calendar::Month;
use crate::contract::dossier::Testimony;
use crate::contract::hold;
use crate::contract::sealing::Digest;
use crate::contract::span::Span;
use crate::contract::track::{Pushed, Track};
use crate::derive::compact::{days_in, enter};
use crate::derive::{results_in, results_in_ledger};
use crate::evaluate::bundle::Bundle;
use crate::evaluate::sealed::BlocksSeen;
use crate::job::history::{self, Whole};
use crate::store::agents::AgentRow;
use crate::store::blocks::{StoredBlock, Through};
use crate::store::days::DayRow;
use crate::store::{Store, StoreError};

/// Samples this long after the end of a month can still confirm what began in it.
const AFTER: Millis = Millis::DAY;

/// Which blocks are looked at.
#[derive(Debug, Clone)]
pub struct Sight {
    /// Samples due in it.
    pub evidence: Span,
    /// Blocks that had come by then.
    pub known_at: UtcTime,
    /// Blocks that were judged.
    pub through: Through,
}

/// What the blocks of a period say.
#[derive(Debug, Clone)]
pub struct Seen {
    /// By check and agent.
    pub tracks: BTreeMap<(CheckNo, AgentId), Track>,
    /// The blocks of the agents with a track.
    pub blocks: BlocksSeen,
}

/// The time from which samples are evidence about a month that is `month`.
pub fn evidence_of(month: Month, zone: &jiff::tz::TimeZone) -> Span {
    Span::new(month.previous().first(zone), month.span(zone).to.plus(AFTER))
}

/// The tracks of `checks` (with the hold to fold under) from the blocks in sight.
///
/// # Errors
/// When the store cannot be read. A block that cannot be decoded is passed over: its time is unknown.
pub async fn tracks(store: &Store, checks: &BTreeMap<CheckNo, Millis>, sight: &Sight) -> Result<Seen, StoreError> {
    let mut reading = Whole::begin(store).await?;
    loop {
        let seen = read_tracks(store, checks, sight).await?;
        if reading.is_whole().await? {
            return Ok(seen);
        }
    }
}

async fn read_tracks(store: &Store, checks: &BTreeMap<CheckNo, Millis>, sight: &Sight) -> Result<Seen, StoreError> {
    let mut tracks: BTreeMap<(CheckNo, AgentId), Track> = BTreeMap::new();
    let mut late: BTreeSet<(CheckNo, AgentId)> = BTreeSet::new();
    let mut entered: BTreeMap<AgentId, Ledger> = BTreeMap::new();
    each_block(store, checks, sight, |agent, told| {
        entered.entry(agent).or_default().absorb(told.entry);
        // Of a compacted day all results are of one check.
        for of_check in told.results.chunk_by(|a, b| a.0 == b.0) {
            let Some((check, hold)) = checks.get_key_value(&of_check[0].0) else { continue };
            let track = tracks.entry((*check, agent)).or_insert_with(|| Track::new(*hold));
            let pushed = of_check.iter().map(|(_, at, state)| track.push(*at, *state));
            if pushed.fold(false, |late, pushed| late | (pushed == Pushed::Late)) {
                late.insert((*check, agent));
            }
        }
    })
    .await?;
    if !late.is_empty() {
        let mut samples: BTreeMap<(CheckNo, AgentId), Vec<(UtcTime, State)>> = BTreeMap::new();
        each_block(store, checks, sight, |agent, told| {
            for (check, at, state) in told.results.into_iter().filter(|(check, _, _)| late.contains(&(*check, agent))) {
                samples.entry((check, agent)).or_default().push((at, state));
            }
        })
        .await?;
        for (key, samples) in samples {
            let hold = checks.get(&key.0).copied().unwrap_or_default();
            tracks.insert(key, Track::of_samples(hold, &samples));
        }
    }
    let witnesses: BTreeSet<AgentId> = tracks.keys().map(|(_, agent)| *agent).collect();
    let mut all = Ledger::default();
    entered.into_iter().filter(|(agent, _)| witnesses.contains(agent)).for_each(|(_, entry)| all.absorb(entry));
    Ok(Seen { tracks, blocks: BlocksSeen { count: all.blocks, digest: Digest(all.digest) } })
}

/// What a block, as it came or compacted, tells about the evidence.
struct Told {
    /// Its entries in the ledgers of the days of the evidence, as one. Of a compacted day the ledger itself.
    entry: Ledger,
    /// What is evidence.
    results: Vec<(CheckNo, UtcTime, State)>,
}

/// Every compacted day and every block in sight that tells about the evidence.
async fn each_block(
    store: &Store,
    checks: &BTreeMap<CheckNo, Millis>,
    sight: &Sight,
    mut visit: impl FnMut(AgentId, Told),
) -> Result<(), StoreError> {
    let Sight { evidence, known_at, through } = sight;
    let is_evidence = |at: UtcTime| evidence.from <= at && at < evidence.to;
    let days = evidence.from.day()..=evidence.to.plus(Millis(-1)).day();
    let wanted = |row: &DayRow| days.contains(&row.day) && row.check.is_none_or(|check| checks.contains_key(&check));
    let known = |(_, at, _): &(CheckNo, UtcTime, State)| is_evidence(*at) && at <= known_at;
    history::skim_days(store, evidence.from.day(), wanted, |agent, day| match day {
        Skimmed::Check(check, ticks) => {
            let results = ticks.into_iter().map(|(at, outcome)| (check, at, outcome.state()));
            visit(agent, Told { entry: Ledger::default(), results: results.filter(known).collect() });
        }
        Skimmed::Rest(ledger) => {
            let results = results_in_ledger(&ledger).iter().map(result).filter(known).collect();
            visit(agent, Told { entry: Ledger { others: BTreeMap::new(), ..ledger }, results });
        }
    })
    .await?;
    history::each_block(store, evidence.from.day().start(), Some(through), |stored| {
        if stored.received_at > *known_at || !days_touch(&stored, &days) {
            return;
        }
        let (agent, block) = (stored.agent, history::came(stored));
        let Ok(items) = block.items() else { return };
        let mut entry = Ledger::default();
        for (_, records) in days_in(&items, block.received_at).iter().filter(|(day, _)| days.contains(day)) {
            enter(&mut entry, &block, items.len(), *records);
        }
        let mut results = Vec::with_capacity(items.len());
        for item in &items {
            match item {
                Item::Sample(sample) => results.push(result(sample)),
                Item::Other(_) => results.extend(results_in(item).iter().map(result)),
            }
        }
        results.retain(|(check, at, _)| is_evidence(*at) && checks.contains_key(check));
        visit(agent, Told { entry, results });
    })
    .await
}

fn days_touch(block: &StoredBlock, days: &RangeInclusive<UtcDay>) -> bool {
    block.from.day() <= *days.end() && block.to.day() >= *days.start()
}

fn result(sample: &Sample) -> (CheckNo, UtcTime, State) {
    (sample.check, sample.scheduled_at, sample.outcome.state())
}

/// Everything a month is made of besides blocks.
#[derive(Debug, Clone)]
pub struct Ground<'a> {
    /// What was agreed.
    pub in_force: &'a InForce,
    /// Who looks.
    pub agents: &'a [AgentRow],
    /// What was proposed and decided.
    pub exclusions: &'a [ExclusionFile],
}

impl Ground<'_> {
    /// The checks a service ever named, with the hold to fold them under.
    pub fn checks_of(&self, service: &str) -> BTreeMap<CheckNo, Millis> {
        let InForce { agreement, numbers } = self.in_force;
        let folded = agreement.checks_to_fold(numbers);
        let named = agreement.checks_of(service);
        let held =
            |def: &peil_proto::plan::CheckDef| hold(Millis(def.interval_ms.into()), Millis(def.timeout_ms.into()));
        folded.iter().filter(|(_, def)| named.contains(&def.name)).map(|(no, def)| (*no, held(def))).collect()
    }

    /// What the vantages of the check `name` say by `tracks`, those retired marked as such.
    pub fn testimony(
        &self,
        name: &str,
        tracks: &BTreeMap<(CheckNo, AgentId), Track>,
        now: UtcTime,
    ) -> BTreeMap<String, Testimony> {
        let InForce { agreement, numbers } = self.in_force;
        let (Some(no), Some(check)) = (numbers.get(name), agreement.checks_known_at(now).remove(name)) else {
            return BTreeMap::new();
        };
        let of_check = tracks.range((*no, AgentId([0; 16]))..=(*no, AgentId([255; 16])));
        let said = of_check.map(|((_, agent), track)| {
            let mut track = track.clone();
            let row = self.agents.iter().find(|row| row.agent == *agent);
            let revoked = |row: &AgentRow| row.revoked_at.is_some_and(|at| at <= now);
            if row.is_none_or(|row| revoked(row) || !check.is_for(row.agent, &row.hostname, &row.group, &row.labels)) {
                track.retire();
            }
            (agent.to_string(), Testimony::Track(track))
        });
        said.collect()
    }

    /// The bundle of `service` in `month`, as it was known at `known_at`, by `seen`; `None` when nothing was agreed.
    pub fn bundle(&self, service: &str, month: Month, known_at: UtcTime, seen: &Seen) -> Option<Bundle> {
        let agreement = &self.in_force.agreement;
        let of_service = self.exclusions.iter().filter(|file| file.proposal.service == service).cloned().collect();
        let testimony = |check: &str| self.testimony(check, &seen.tracks, known_at);
        let dossier = agreement.dossier(service, testimony, of_service)?;
        let mut dated = dossier.as_known_at(month, known_at)?;
        let span = Span::new(dated.chapters.first()?.span.from, dated.chapters.last()?.span.to);
        // Exclusions elsewhere say nothing about this month.
        dated.exclusions.retain(|exclusion| !exclusion.span.clip(span).is_empty());
        let versions = agreement.versions_in(service, span, known_at);
        Some(Bundle::new(service, known_at, dated, versions))
    }
}

/// One service's month from the store: its bundle and the blocks it came out of; `None` when nothing was agreed.
///
/// # Errors
/// When the store cannot be read.
pub async fn month(
    store: &Store,
    in_force: &InForce,
    service: &str,
    month: Month,
    known_at: UtcTime,
) -> Result<Option<(Bundle, BlocksSeen)>, StoreError> {
    let Some(agreed) = in_force.agreement.service_at(service, known_at) else { return Ok(None) };
    let agents = store.agents().await?;
    let exclusions = crate::decisions::exclusions(store, UtcTime(i64::MIN)).await?;
    let ground = Ground { in_force, agents: &agents, exclusions: &exclusions };
    let evidence = evidence_of(month, &agreed.terms.timezone);
    let sight = Sight { evidence, known_at, through: store.judged_through().await? };
    let seen = tracks(store, &ground.checks_of(service), &sight).await?;
    Ok(ground.bundle(service, month, known_at, &seen).map(|bundle| (bundle, seen.blocks)))
}

#[cfg(test)]
mod tests;
