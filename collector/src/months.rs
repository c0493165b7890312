//! Months that are over: drafts, sealing, superseding, and handing out what was sealed.
//!
//! The rules are in `contract/sealing.rs`, the evidence in [`crate::refold`]; here they meet the store. One place for
//! command line, API, pages and the job that drafts. What is sealed is made from the store at that moment and kept
//! with its data, so that it can be handed out when the blocks are long gone.

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use serde_json::Value;

use crate::agreement::InForce;
use crate::config::SealDay;
use crate::contract::calendar::Month;
use crate::contract::sealing::{Correction, Digest, Edition, MonthLife, Objection, Seal, Stage, due};
use crate::contract::workday::WorkingDays;
use crate::evaluate::bundle::Bundle;
use crate::evaluate::canonical::canonical;
use crate::evaluate::sealed::{BlocksSeen, Findings, document};
use crate::refold;
use crate::store::exclusions::Added;
use crate::store::months::{EditionRow, EditionTexts, MonthFigureRow};
use crate::store::{Store, StoreError};

/// Why a month was not sealed.
#[derive(Debug, thiserror::Error)]
pub enum MonthError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such service, or it was not agreed yet.
    #[error("there is no service {0:?}, or nothing was agreed about it yet")]
    NoService(String),
    /// There is no such edition.
    #[error("{service:?} has no edition {version} of {month}")]
    NoEdition {
        /// Whose.
        service: String,
        /// Which month.
        month: Month,
        /// Which edition.
        version: u32,
    },
    /// The rules say no.
    #[error("{service:?} {month}: {objection}")]
    Objected {
        /// Whose.
        service: String,
        /// Which month.
        month: Month,
        /// Why.
        #[source]
        objection: Objection,
    },
    /// Somebody else sealed it at the same time.
    #[error("somebody else sealed {service:?} {month} at the same time; look at it again")]
    Overtaken {
        /// Whose.
        service: String,
        /// Which month.
        month: Month,
    },
}

/// One service's month as lists show it.
#[derive(Debug, Clone)]
pub struct MonthState {
    /// Whose.
    pub service: String,
    /// Which month.
    pub month: String,
    /// Where it stands.
    pub stage: Stage,
    /// The figure of the newest edition, or of the draft.
    pub figure: Value,
    /// Sealed editions, in order.
    pub editions: Vec<EditionRow>,
    /// What it is made from now differs from the newest edition: there is something to correct.
    pub differs: bool,
}

/// The life of `service`'s `month`: when it ends, when it seals itself, what was sealed.
fn life(
    in_force: &InForce,
    seal_day: Option<SealDay>,
    service: &str,
    month: Month,
    editions: &[EditionRow],
    now: UtcTime,
) -> Option<MonthLife> {
    let agreed = in_force.agreement.service_at(service, now)?;
    let zone = &agreed.terms.timezone;
    let calendar = WorkingDays { holidays: agreed.terms.holidays.clone(), ..WorkingDays::MONDAY_TO_FRIDAY };
    let of_month = editions.iter().filter(|row| row.service == service && row.month == month.to_string());
    Some(MonthLife {
        ends: month.span(zone).to,
        due: seal_day.and_then(|SealDay(day)| due(month, day, &calendar, zone)),
        editions: of_month.map(edition_of).collect(),
    })
}

/// Whether the agreed day of `month` is over.
pub fn is_due(in_force: &InForce, seal_day: Option<SealDay>, service: &str, month: Month, now: UtcTime) -> bool {
    let life = life(in_force, seal_day, service, month, &[], now);
    life.and_then(|life| life.due).is_some_and(|due| due <= now)
}

fn edition_of(row: &EditionRow) -> Edition {
    let approver = row.sealed_by.clone().unwrap_or_default();
    let (reason, author) = (row.reason.clone(), row.author.clone());
    Edition {
        version: row.version,
        at: row.sealed_at,
        seal: row.sealed_by.clone().map_or(Seal::AgreedDay, Seal::Person),
        correction: (row.version > 1).then_some(Correction { reason, author, approver }),
        inputs: Digest(row.inputs),
    }
}

/// What is asked of a month.
#[derive(Debug, Clone)]
pub enum Wish {
    /// Its first edition, by this person.
    Seal(String),
    /// Its first edition, because the agreed day is over.
    SealItself,
    /// Its next edition.
    Supersede(Correction),
}

/// A month made from the store, ready to be sealed.
#[derive(Debug)]
pub struct Made {
    /// With all it is made of.
    pub bundle: Bundle,
    /// The figure, and the digests.
    pub findings: Findings,
    /// Where the evidence came from.
    pub blocks: BlocksSeen,
}

impl Made {
    /// The figure of a bundle; a draft tells no quality, so nobody asks for its clock error.
    pub fn of(bundle: Bundle, blocks: BlocksSeen, clock_error: Option<Millis>) -> Self {
        let findings = Findings::of(&bundle, clock_error);
        Self { bundle, findings, blocks }
    }

    /// As the figure of a draft.
    pub fn draft(&self, computed_at: UtcTime) -> MonthFigureRow {
        MonthFigureRow {
            service: self.bundle.service.clone(),
            month: self.bundle.dated.month.to_string(),
            computed_at,
            inputs: self.findings.inputs.digest().0,
            figure: canonical(&self.findings.figure),
        }
    }
}

/// Makes the draft of `service`'s `month`, which is over: from then on it is followed like those that were drafted by
/// themselves. For a month before the first agent was enrolled, whose records came later.
///
/// # Errors
/// [`MonthError::NoService`], [`MonthError::Objected`] while the month runs, [`MonthError::Store`].
pub async fn draft(
    store: &Store,
    in_force: &InForce,
    (service, month): (&str, Month),
    now: UtcTime,
) -> Result<(), MonthError> {
    let life = life(in_force, None, service, month, &[], now);
    let life = life.ok_or_else(|| MonthError::NoService(service.to_owned()))?;
    if life.stage(now) == Stage::Open {
        let (service, objection) = (service.to_owned(), Objection::NotOver(life.ends));
        return Err(MonthError::Objected { service, month, objection });
    }
    let made = refold::month(store, in_force, service, month, now).await?;
    let (bundle, blocks) = made.ok_or_else(|| MonthError::NoService(service.to_owned()))?;
    Ok(store.put_month_figures(vec![Made::of(bundle, blocks, None).draft(now)]).await?)
}

/// Seals or supersedes `service`'s `month` as it is known now.
///
/// # Errors
/// [`MonthError`]; nothing was written then.
pub async fn fulfil(
    store: &Store,
    in_force: &InForce,
    seal_day: Option<SealDay>,
    (service, month): (&str, Month),
    wish: Wish,
    now: UtcTime,
) -> Result<Edition, MonthError> {
    let made = refold::month(store, in_force, service, month, now).await?;
    let (bundle, blocks) = made.ok_or_else(|| MonthError::NoService(service.to_owned()))?;
    let clock_error = clock_error(store, &bundle).await?;
    seal_made(store, in_force, seal_day, &Made::of(bundle, blocks, clock_error), wish, now).await
}

/// The largest clock error measured of any vantage whose evidence is in `bundle`, while that evidence was made; `None`
/// when nobody measured one, as of records that came from before the collector knew the agent.
async fn clock_error(store: &Store, bundle: &Bundle) -> Result<Option<Millis>, StoreError> {
    let Some(first) = bundle.dated.chapters.first() else { return Ok(None) };
    let evidence = refold::evidence_of(bundle.dated.month, &first.terms.timezone);
    let errors = store.clock_errors(evidence.from.day(), evidence.to.day()).await?;
    let checks = bundle.dated.chapters.iter().flat_map(|chapter| chapter.checks.values());
    let vantages: BTreeSet<&String> = checks.flat_map(|check| check.vantages.keys()).collect();
    Ok(errors.into_iter().filter(|(agent, _)| vantages.contains(&agent.to_string())).map(|(_, error)| error).max())
}

/// As [`fulfil`], of a month that was made already.
///
/// # Errors
/// [`MonthError`]; nothing was written then.
pub async fn seal_made(
    store: &Store,
    in_force: &InForce,
    seal_day: Option<SealDay>,
    made: &Made,
    wish: Wish,
    now: UtcTime,
) -> Result<Edition, MonthError> {
    let Made { bundle, findings, blocks } = made;
    let (service, month) = (bundle.service.clone(), bundle.dated.month);
    let editions = store.editions().await?;
    let life = life(in_force, seal_day, &service, month, &editions, now);
    let life = life.ok_or_else(|| MonthError::NoService(service.clone()))?;
    let inputs = findings.inputs.digest();
    let who = match &wish {
        Wish::Seal(person) => person.clone(),
        Wish::SealItself => "the agreed day".to_owned(),
        Wish::Supersede(correction) => correction.approver.clone(),
    };
    let edition = match wish {
        Wish::Seal(person) => life.seal(&person, now, inputs),
        Wish::SealItself => life.seal_itself(now, inputs),
        Wish::Supersede(correction) => life.supersede(correction, now, inputs),
    };
    let edition = edition.map_err(|objection| MonthError::Objected { service: service.clone(), month, objection })?;
    let before = match edition.version.checked_sub(1).filter(|version| *version > 0) {
        Some(version) => figure_of(store.edition_texts(&service, &month.to_string(), version).await?),
        None => None,
    };
    let document = document(bundle, findings, &edition, before.as_ref(), Some(*blocks));
    let texts = EditionTexts { document, data: bundle.to_text() };
    match store.add_edition(row_of(&service, month, &edition), texts, &who).await? {
        Added::Done => Ok(edition),
        Added::Overtaken => Err(MonthError::Overtaken { service, month }),
    }
}

fn figure_of(texts: Option<EditionTexts>) -> Option<Value> {
    let document: Value = serde_json::from_str(&texts?.document).ok()?;
    document.get("figure").cloned()
}

fn row_of(service: &str, month: Month, edition: &Edition) -> EditionRow {
    let correction = edition.correction.clone();
    EditionRow {
        service: service.to_owned(),
        month: month.to_string(),
        version: edition.version,
        sealed_at: edition.at,
        sealed_by: match &edition.seal {
            Seal::Person(name) => Some(name.clone()),
            Seal::AgreedDay => None,
        },
        reason: correction.as_ref().map(|asked| asked.reason.clone()).unwrap_or_default(),
        author: correction.map(|asked| asked.author).unwrap_or_default(),
        inputs: edition.inputs.0,
    }
}

/// Every month that is over, as far as it was drafted or sealed: newest first, then by service.
///
/// # Errors
/// When the store cannot be read.
pub async fn list(store: &Store) -> Result<Vec<MonthState>, StoreError> {
    let mut months: BTreeMap<(String, String), MonthState> = BTreeMap::new();
    let drafts = store.month_figures().await?;
    for row in store.editions().await? {
        let key = (row.month.clone(), row.service.clone());
        let state = months.entry(key).or_insert_with(|| MonthState {
            service: row.service.clone(),
            month: row.month.clone(),
            stage: Stage::Draft,
            figure: Value::Null,
            editions: Vec::new(),
            differs: false,
        });
        state.stage = Stage::Sealed(row.version);
        state.editions.push(row);
    }
    for draft in drafts {
        let figure = serde_json::from_str(&draft.figure).unwrap_or_default();
        let key = (draft.month.clone(), draft.service.clone());
        let (service, month) = (draft.service.clone(), draft.month.clone());
        let state = months.entry(key).or_insert_with(|| MonthState {
            service,
            month,
            stage: Stage::Draft,
            figure: Value::Null,
            editions: Vec::new(),
            differs: false,
        });
        state.differs = state.editions.last().is_some_and(|edition| edition.inputs != draft.inputs);
        state.figure = figure;
    }
    let mut states: Vec<_> = months.into_values().collect();
    for state in states.iter_mut().filter(|state| !state.editions.is_empty()) {
        // What was sealed is told, not what is known now.
        let version = state.editions.last().map_or(1, |edition| edition.version);
        if let Some(figure) = figure_of(store.edition_texts(&state.service, &state.month, version).await?) {
            state.figure = figure;
        }
    }
    states.sort_by(|a, b| b.month.cmp(&a.month).then_with(|| a.service.cmp(&b.service)));
    Ok(states)
}

/// The report and the bundle of an edition; of the newest without `version`.
///
/// # Errors
/// [`MonthError::NoEdition`], [`MonthError::Store`].
pub async fn texts(
    store: &Store,
    service: &str,
    month: Month,
    version: Option<u32>,
) -> Result<(u32, EditionTexts), MonthError> {
    let newest =
        store.editions().await?.into_iter().filter(|row| row.service == service && row.month == month.to_string());
    let version = version.or(newest.map(|row| row.version).max()).unwrap_or(1);
    let found = store.edition_texts(service, &month.to_string(), version).await?;
    let texts = found.ok_or_else(|| MonthError::NoEdition { service: service.to_owned(), month, version })?;
    Ok((version, texts))
}
