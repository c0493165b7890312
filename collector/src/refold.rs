//! A month from nothing but what is stored: blocks, versions, exclusions.
//!
//! What is sealed, handed to a client and compared at night is made here, never from live state. [`tracks`] reads the
//! blocks of a period once and folds the samples of the checks asked for; [`month`] makes a service's bundle of it.
//!
//! Rules about evidence, so that the same month gives the same digests whenever it is made:
//! - samples due from the first instant of the month before until a day after its end ([`evidence_of`]). Later ones
//!   change nothing about it, and an outage that began before is known as far as it was still seen.
//! - blocks that had arrived at `known_at`, and of those what the collector had judged. Days that were compacted no
//!   longer say when their records arrived: all of them count as known. What was sealed before is kept with its data.
//! - a vantage that is revoked or does not run the check any more is retired, as in the live figure.
//!
//! Limits: one track per (check, vantage) in memory, and the samples of those with late ones.

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::block::day::DayBlock;
use peil_proto::block::{self, Item};
use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use ring::digest::{Context, SHA256};

use crate::agreement::InForce;
use crate::contract::approval::ExclusionFile;
use crate::contract::calendar::Month;
use crate::contract::dossier::Testimony;
use crate::contract::hold;
use crate::contract::sealing::Digest;
use crate::contract::span::Span;
use crate::contract::track::{Pushed, Track};
use crate::evaluate::bundle::Bundle;
use crate::evaluate::sealed::BlocksSeen;
use crate::job::history::{self, Whole};
use crate::store::agents::AgentRow;
use crate::store::blocks::{BlockLimit, Through};
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
    /// The blocks with something about these checks.
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
    let (mut sum, mut count) = (Context::new(&SHA256), 0);
    each_block(store, sight, |agent, bytes, samples| {
        let mut spoke = false;
        for (check, at, state) in samples {
            let Some(hold) = checks.get(&check) else { continue };
            spoke = true;
            let key = (check, agent);
            if bytes.is_none() {
                sum.update(&at.0.to_be_bytes());
            }
            if tracks.entry(key).or_insert_with(|| Track::new(*hold)).push(at, state) == Pushed::Late {
                late.insert(key);
            }
        }
        if spoke {
            count += 1;
            sum.update(bytes.unwrap_or_default());
        }
    })
    .await?;
    if !late.is_empty() {
        let mut samples: BTreeMap<(CheckNo, AgentId), Vec<(UtcTime, State)>> = BTreeMap::new();
        each_block(store, sight, |agent, _, seen| {
            for (check, at, state) in seen.filter(|(check, _, _)| late.contains(&(*check, agent))) {
                samples.entry((check, agent)).or_default().push((at, state));
            }
        })
        .await?;
        for (key, samples) in samples {
            let hold = checks.get(&key.0).copied().unwrap_or_default();
            tracks.insert(key, Track::of_samples(hold, &samples));
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(sum.finish().as_ref());
    Ok(Seen { tracks, blocks: BlocksSeen { count, digest: Digest(digest) } })
}

/// Every compacted day and every block in sight with its samples that are evidence; a block with its bytes.
async fn each_block(
    store: &Store,
    sight: &Sight,
    mut visit: impl FnMut(AgentId, Option<&[u8]>, &mut dyn Iterator<Item = (CheckNo, UtcTime, State)>),
) -> Result<(), StoreError> {
    let Sight { evidence, known_at, through } = sight;
    history::each_day(store, evidence.from.day(), |agent, day| {
        if let DayBlock::Check(day) = day {
            let samples = day.samples.iter().map(|s| (s.check, s.scheduled_at, s.outcome.state()));
            visit(agent, None, &mut samples.filter(|(_, at, _)| evidence.from <= *at && *at < evidence.to));
        }
    })
    .await?;
    let mut at = Through::default();
    while !at.covers_all(through) {
        let page = store.blocks_reaching(evidence.from, at.clone(), BlockLimit::default()).await?;
        if page.is_empty() {
            return Ok(());
        }
        for stored in &page {
            at.pass(stored.id);
        }
        for stored in page.iter().filter(|block| through.covers(block.id) && block.received_at <= *known_at) {
            if stored.from >= evidence.to {
                continue;
            }
            let Ok(decoded) = block::decode(&stored.bytes) else { continue };
            let skip = usize::try_from(stored.skip).unwrap_or(usize::MAX);
            let samples = decoded.items.iter().skip(skip).filter_map(|item| match item {
                Item::Sample(sample) => Some((sample.check, sample.scheduled_at, sample.outcome.state())),
                Item::Other(_) => None,
            });
            let mut due = samples.filter(|(_, at, _)| evidence.from <= *at && *at < evidence.to);
            visit(stored.agent, Some(&stored.bytes), &mut due);
        }
    }
    Ok(())
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
        let (Some(no), Some(check)) = (numbers.get(name), agreement.checks_at(now).remove(name)) else {
            return BTreeMap::new();
        };
        let of_check = tracks.range((*no, AgentId([0; 16]))..=(*no, AgentId([255; 16])));
        let said = of_check.map(|((_, agent), track)| {
            let mut track = track.clone();
            let row = self.agents.iter().find(|row| row.agent == *agent);
            let revoked = |row: &AgentRow| row.revoked_at.is_some_and(|at| at <= now);
            if row.is_none_or(|row| revoked(row) || !check.is_for(&row.hostname, &row.group, &row.labels)) {
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
