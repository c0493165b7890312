//! Live state to snapshot: every service judged to date, every host described.
//!
//! The figure is `contract::evaluate_to_date` and nothing else: this file only carries values between
//! rooms. Runs every second, because time passes; cost follows the number of changes in the month, not of samples.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::tz::TimeZone;
use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::sample::State;
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::{Microjoules, Millis};
use tokio::sync::watch;

use crate::agreement::InForce;
use crate::config::{Agents, Check, PatchPolicy};
use crate::contract::approval::{ExclusionFile, overrun};
use crate::contract::calendar::Month;
use crate::contract::dossier::Testimony;
use crate::contract::figure::Figure;
use crate::contract::forecast::{BurnTier, Exhaustion, Forecast};
use crate::contract::outage::Standing;
use crate::contract::patch::OpenFinding;
use crate::contract::span::Span;
use crate::contract::terms::{Terms, UnknownClause};
use crate::contract::track::Track;
use crate::contract::{self, Dated, ToDate};
use crate::decisions;
use crate::evaluate::{output, written};
use crate::job::lead::Leading;
use crate::job::month::MonthsTold;
use crate::job::progress::Progress;
use crate::live::{Host, Live, Vantage};
use crate::presence::{Contact, Presence};
use crate::snapshot::{
    BurnTierView, CheckView, CopiedView, EnergyHourView, EnergyView, ExclusionView, FindingView, ForecastView,
    HostView, LossView, Notice, OutageView, PatchState, PatchView, ServiceView, Snapshot, TimesView, VantageView,
    VerifiedView,
};
use crate::store::agents::{AgentRow, Copied};
use crate::store::blocks::StreamTotals;
use crate::store::blocks::lost::LostRange;
use crate::store::{Store, StoreError};

/// Hours of energy shown.
const HOURS_SHOWN: usize = 24;
/// Losses shown, over all hosts; older ones stay in the store.
const LOSSES_MAX: u32 = 200;
/// Unknown time is not called lost for good while an agent heard within this time is away: its spool brings it.
const AWAITED_MAX: Millis = Millis::DAY;
/// Exclusions that ended longer ago have no part in a running month.
const EXCLUSIONS_BACK: Millis = Millis(32 * Millis::DAY.0);
/// An agent tells about itself every minute; connected and quiet for longer than this it is as good as gone.
const QUIET_WHILE_CONNECTED_MAX: Millis = Millis(5 * Millis::MINUTE.0);

/// The job.
pub struct Measure {
    /// Agents and their totals.
    pub store: Store,
    /// Wall clock.
    pub clock: WallClock,
    /// What is judged.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// Figures found to differ.
    pub notices: Notices,
    /// Who is here.
    pub presence: Presence,
    /// When silence is an alert.
    pub agents: Agents,
    /// The patch policy.
    pub patch: PatchPolicy,
    /// Which collectors are here.
    pub leading: Leading,
    /// What the jobs that derive and verify tell.
    pub progress: watch::Receiver<Progress>,
    /// When this collector began to listen: nobody was silent before that.
    pub listening_since: UtcTime,
}

/// What other jobs found out about figures, for the snapshot.
#[derive(Clone)]
pub struct Notices {
    /// Months that are over.
    pub months: watch::Receiver<Arc<MonthsTold>>,
    /// From the comparison at night.
    pub rechecked: watch::Receiver<Arc<Vec<Notice>>>,
}

impl Notices {
    fn all(&self) -> Vec<Notice> {
        let mut all = self.months.borrow().notices.clone();
        all.extend(self.rechecked.borrow().iter().cloned());
        all
    }
}

/// What all services of one snapshot share.
struct Scene<'l> {
    now: UtcTime,
    /// Somebody who was here a short while ago is not: what counts as unknown now may still become known.
    records_awaited: bool,
    live: &'l Live,
    in_force: &'l InForce,
    progress: Progress,
    checks: BTreeMap<String, (CheckNo, Check)>,
    exclusions: &'l [ExclusionFile],
    agents: BTreeMap<AgentId, &'l AgentRow>,
}

impl Scene<'_> {
    fn host(&self, agent: AgentId) -> &str {
        self.agents.get(&agent).map_or("", |row| &row.hostname)
    }

    /// Whether this agent is to look at the check no longer: it was revoked, or the check is for others now.
    fn is_retired(&self, agent: AgentId, check: &Check) -> bool {
        self.agents
            .get(&agent)
            .is_none_or(|row| row.revoked_at.is_some() || !check.is_for(agent, &row.hostname, &row.group, &row.labels))
    }

    /// Everything known about `month` of one service, in chapters.
    fn month(&self, service: &str, month: Month) -> Option<Dated> {
        let of_service = self.exclusions.iter().filter(|file| file.proposal.service == service).cloned().collect();
        let dossier = self.in_force.agreement.dossier(service, |check| self.testimony(check), of_service)?;
        dossier.as_known_at(month, self.now)
    }

    /// What the vantages of the check `name` say.
    fn testimony(&self, name: &str) -> BTreeMap<String, Testimony> {
        let Some((no, check)) = self.checks.get(name) else { return BTreeMap::new() };
        let vantages = self.live.vantages_of(*no);
        vantages.map(|(agent, seen)| (agent.to_string(), Testimony::Track(self.track(agent, check, seen)))).collect()
    }

    /// What the vantage saw. One that is retired has no vote after its last sample: a DOWN that nobody can ever see
    /// end would outvote everybody who still looks. The time after it is unknown, which the contract counts.
    fn track(&self, agent: AgentId, check: &Check, vantage: &Vantage) -> Track {
        let mut track = vantage.track.clone();
        if self.is_retired(agent, check) {
            track.retire();
        }
        track
    }
}

impl Measure {
    /// The snapshot of this moment, alerts not yet filled in.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn activate(&self, live: &Live) -> Result<Snapshot, StoreError> {
        let now = self.clock.now();
        let agents = self.store.agents().await?;
        let totals = self.store.totals_by_agent().await?;
        let mut losses = self.losses().await?;
        let contacts = self.contacts().await?;
        let in_force = Arc::clone(&self.in_force.borrow());
        let exclusions = decisions::exclusions(&self.store, now.plus(Millis(-EXCLUSIONS_BACK.0))).await?;
        let scene = Scene {
            now,
            records_awaited: self.awaits_records(&agents, &contacts, now),
            live,
            progress: self.progress.borrow().clone(),
            checks: in_force.numbered_checks_at(now),
            in_force: &in_force,
            exclusions: &exclusions,
            agents: agents.iter().map(|row| (row.agent, row)).collect(),
        };
        let names = in_force.agreement.service_names();
        let (services, exclusions) = views(&scene, names);
        let mut hosts: Vec<_> = agents
            .iter()
            .map(|row| {
                let contact = contacts.get(&row.agent).cloned().unwrap_or_default();
                let totals = totals.get(&row.agent).copied().unwrap_or_default();
                let losses = losses.remove(&row.agent).unwrap_or_default();
                let own = scene.checks.values().filter(|(_, check)| check.local_to() == Some(row.agent));
                let local_checks = own.map(|(no, check)| check_view(&scene, *no, check)).collect();
                HostView { losses, local_checks, ..self.host_view(row, contact, totals, live.host(row.agent), now) }
            })
            .collect();
        hosts.sort_by(|a: &HostView, b| a.host.cmp(&b.host).then(a.agent.cmp(&b.agent)));
        let months = self.notices.months.borrow().listed.clone();
        let (notices, verified) = (self.notices.all(), self.verified());
        let (alerts, store_full) = (Vec::new(), self.store.health().reserve_bytes == Some(0));
        Ok(Snapshot { at: now, services, hosts, alerts, notices, exclusions, months, verified, store_full })
    }

    fn verified(&self) -> Option<VerifiedView> {
        let last = self.progress.borrow().verified.clone()?;
        Some(VerifiedView { at: last.at, days: last.days, differences: last.differences, first: last.first })
    }

    /// What was found missing last, by agent.
    async fn losses(&self) -> Result<BTreeMap<AgentId, Vec<LossView>>, StoreError> {
        let mut losses: BTreeMap<AgentId, Vec<LossView>> = BTreeMap::new();
        for LostRange { agent, lost, from, to, reason, .. } in self.store.lost_ranges(LOSSES_MAX).await? {
            let (word, explanation) = (reason.word().to_owned(), reason.sentence().to_owned());
            losses.entry(agent).or_default().push(LossView { from, to, records: lost, reason: word, explanation });
        }
        Ok(losses)
    }

    /// Who is connected, here or to another collector that is here.
    async fn contacts(&self) -> Result<HashMap<AgentId, Contact>, StoreError> {
        let mut contacts = self.presence.contacts();
        if self.store.is_shared() {
            let here = self.leading.borrow().here.clone();
            for agent in self.store.connected_to(here).await? {
                contacts.entry(agent).or_default().connected = true;
            }
        }
        Ok(contacts)
    }

    /// Whether records are on their way: after a restart until agents had time to come back, and while the spool of an
    /// agent that was heard within [`AWAITED_MAX`] is out of reach.
    fn awaits_records(&self, agents: &[AgentRow], contacts: &HashMap<AgentId, Contact>, now: UtcTime) -> bool {
        let missing = |row: &AgentRow| {
            let contact = contacts.get(&row.agent);
            let heard = contact.map(|contact| contact.last).max(row.last_contact);
            row.revoked_at.is_none()
                && contact.is_none_or(|contact| !contact.connected)
                && heard.is_some_and(|at| now.since(at) <= AWAITED_MAX)
        };
        now.since(self.listening_since) < self.agents.silent_after || agents.iter().any(missing)
    }

    fn host_view(
        &self,
        row: &AgentRow,
        contact: Contact,
        totals: StreamTotals,
        host: Option<&Host>,
        now: UtcTime,
    ) -> HostView {
        let nothing = Host::default();
        let host = host.unwrap_or(&nothing);
        let heard = Some(contact.last).filter(|at| at.0 > 0).max(row.last_contact);
        let quiet_since = heard.unwrap_or(row.enrolled_at).max(self.listening_since);
        let patience = match contact.connected {
            true => self.agents.silent_after.max(QUIET_WHILE_CONNECTED_MAX),
            false => self.agents.silent_after,
        };
        let facts = host.facts.clone().unwrap_or_default();
        let vitals = host.vitals.clone().unwrap_or_default();
        HostView {
            agent: row.agent,
            host: row.hostname.clone(),
            labels: row.labels.clone(),
            os: facts.os,
            agent_version: facts.agent_version,
            connected: contact.connected,
            silent: row.revoked_at.is_none() && now.since(quiet_since) > patience,
            revoked: row.revoked_at.is_some(),
            last_contact: heard,
            records: totals.records,
            records_lost: totals.lost,
            losses: Vec::new(),
            backlog: vitals.spool_records,
            copied: copied_view(row, now),
            plan_refused: contact.plan_refused,
            local_checks: Vec::new(),
            local_problems: contact.local_problems,
            rss_bytes: vitals.rss_bytes,
            patch: patch_view(host, self.patch, now),
            energy: energy_view(host, now),
        }
    }
}

/// A copy is told for so long after it was seen last; two hosts with one identity show again with every connection.
const COPIED_SHOWN: Millis = Millis::DAY;

fn copied_view(row: &AgentRow, now: UtcTime) -> Option<CopiedView> {
    let (at, how) = row.copied.filter(|(at, _)| now.since(*at) <= COPIED_SHOWN)?;
    let explanation = match how {
        Copied::Twin => "two hosts use its identity at once: one was cloned from the other",
        Copied::Rewound => {
            "it came back without knowing what it had sent: its state directory was put back from an older copy, or it is a clone"
        }
    };
    Some(CopiedView { at, how: how.word().to_owned(), explanation: explanation.to_owned() })
}

/// Services in order, and what becomes of each exclusion.
fn views<'n>(scene: &Scene<'_>, names: impl Iterator<Item = &'n str>) -> (Vec<ServiceView>, Vec<ExclusionView>) {
    let (mut services, mut rows, mut outages) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for name in names {
        let Some((view, figure)) = service_view(scene, name) else { continue };
        rows.extend(figure.exclusions.into_iter().map(|row| (row.id.clone(), row)));
        outages.insert(name.to_owned(), figure.outages);
        services.push(view);
    }
    let view = |file: &ExclusionFile| {
        let exclusion = file.as_known_at(scene.now)?;
        let row = rows.get(&exclusion.id);
        let of_service = outages.get(&file.proposal.service).map(Vec::as_slice).unwrap_or_default();
        Some(ExclusionView {
            service: file.proposal.service.clone(),
            kind: written::kind(exclusion.kind).to_owned(),
            from: exclusion.span.from,
            to: exclusion.span.to,
            reason: file.proposal.reason.clone(),
            progress: file.progress().word().to_owned(),
            proposed_by: file.proposed_by.clone(),
            decided_by: file.acts.first().map(|act| act.by.clone()).unwrap_or_default(),
            counted_ms: row.map(|row| row.counted_ms),
            refused: row.and_then(|row| row.refused).map(|why| why.word().to_owned()),
            overrun_ms: overrun(&exclusion, of_service).map(Span::length),
            id: exclusion.id,
        })
    };
    let exclusions = scene.exclusions.iter().filter_map(view).collect();
    (services, exclusions)
}

/// `None` before the first version of the service and of its contract, and when the month in which one ended is over.
fn service_view(scene: &Scene<'_>, name: &str) -> Option<(ServiceView, Figure)> {
    let now = scene.now;
    let service = scene.in_force.agreement.service_at(name, now)?;
    let month = Month::of(now, &service.terms.timezone);
    let first = month.first(&service.terms.timezone);
    if scene.in_force.agreement.ended_at(name, now).is_some_and(|end| end <= first) {
        return None;
    }
    let used: BTreeMap<String, &(CheckNo, Check)> = service
        .expression
        .names()
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), scene.checks.get(name)?)))
        .collect();
    let dated = scene.month(name, month)?;
    let (to_date, forecast) = contract::evaluate_and_forecast(&dated, now);
    let forecast = forecast_view(&dated, &forecast, scene);
    let ToDate { figure, budget_ms, budget_left_ms, breach_certain, state_now, because, .. } = to_date;
    let outages: Vec<_> = figure
        .outages
        .iter()
        .rev()
        .filter(|outage| outage.standing == Standing::Confirmed)
        .map(|outage| OutageView {
            from: outage.span.from,
            to: (outage.span.to < now || state_now != State::Down).then_some(outage.span.to),
            counted_ms: outage.counted_ms,
            because: outage.because.clone(),
        })
        .collect();
    let since = match state_now {
        State::Down => outages.first().filter(|outage| outage.to.is_none()).map(|outage| outage.from),
        State::Up => outages.first().and_then(|outage| outage.to),
        State::Unknown => None,
    };
    let percent = |percent: Option<contract::percent::Percent>| percent.map(|percent| percent.to_string());
    let view = ServiceView {
        name: name.to_owned(),
        state: state_now,
        since,
        because,
        in_window: is_agreed(&service.terms, now),
        month: month.to_string(),
        timezone: service.timezone.clone(),
        target: service.target.clone(),
        official: percent(figure.official),
        worst: percent(figure.worst),
        best: percent(figure.best),
        known: percent(figure.known),
        verdict: figure.verdict.word().to_owned(),
        breach_certain: breach_certain && (figure.down_ms > budget_ms || !scene.records_awaited),
        budget_ms,
        budget_left_ms,
        counted_down_ms: figure.counted_down_ms,
        unknown_ms: figure.unknown_ms,
        forecast,
        figure: output::to_value(&figure, &service.terms.timezone),
        outages,
        checks: used.values().map(|(no, check)| check_view(scene, *no, check)).collect(),
    };
    Some((view, figure))
}

/// Decimals of rates and percentages that people look at.
const PLACES: usize = 6;

/// While records are on their way, unknown time fires no tier: it may become known.
fn forecast_view(dated: &Dated, forecast: &Forecast, scene: &Scene<'_>) -> ForecastView {
    let fires = forecast.tiers.map(|tier| tier.fires);
    let certain = match fires.contains(&true) && scene.records_awaited {
        true => {
            let mut known = dated.clone();
            known.chapters.iter_mut().for_each(|chapter| chapter.terms.unknown = UnknownClause::Up);
            contract::forecast(&known, scene.now).tiers.map(|tier| tier.fires)
        }
        false => fires,
    };
    let (exhausted, exhausted_at) = match forecast.exhausted {
        Exhaustion::Past(at) => ("past", Some(at)),
        Exhaustion::Ahead(at) => ("ahead", Some(at)),
        Exhaustion::Lasts => ("lasts", None),
    };
    let tier = |(tier, fires): (&BurnTier, bool)| BurnTierView {
        window_ms: tier.long.window_ms,
        lost_ms: tier.long.lost_ms,
        threshold: format!("{}.{}", tier.threshold_tenths / 10, tier.threshold_tenths % 10),
        fires,
    };
    ForecastView {
        burn: forecast.burn.map(|burn| burn.decimal(PLACES)),
        exhausted: exhausted.to_owned(),
        exhausted_at,
        projected: forecast.projected.map(|projected| projected.percent(PLACES)),
        best: forecast.best.map(|best| best.percent(PLACES)),
        elapsed_ms: forecast.elapsed_ms,
        tiers: forecast.tiers.iter().zip(certain).map(tier).collect(),
    }
}

/// Whether the service is agreed to be up at this moment.
fn is_agreed(terms: &Terms, now: UtcTime) -> bool {
    let instant = Span::new(now, now.plus(Millis(1))).clip(terms.coverage.span());
    let starts = |day| terms.holidays.as_ref().is_none_or(|holidays| !holidays.include(day));
    !instant.is_empty() && !terms.window.spans(&terms.timezone, instant, starts).is_empty()
}

fn check_view(scene: &Scene<'_>, no: CheckNo, check: &Check) -> CheckView {
    let hold = contract::hold(Millis(check.def.interval_ms.into()), Millis(check.def.timeout_ms.into()));
    let vantage = |(agent, vantage): (AgentId, &Vantage)| VantageView {
        agent,
        host: scene.host(agent).to_owned(),
        state: if scene.is_retired(agent, check) { State::Unknown } else { state_now(vantage, hold, scene.now) },
        last_at: vantage.last.map(|sample| sample.scheduled_at),
        outcome: vantage.last.map(|sample| sample.outcome.word()).unwrap_or_default(),
        phases_us: vantage
            .last
            .map(|sample| sample.phases.to_array().map(|phase| phase.map(|phase| phase.0)))
            .unwrap_or_default(),
        detail: vantage.detail.as_ref().map(|detail| detail.text.clone()).unwrap_or_default(),
        cert_not_after: vantage.cert_not_after,
    };
    CheckView {
        name: check.def.name.clone(),
        kind: check.def.kind.name().to_owned(),
        target: check.def.kind.target().to_owned(),
        interval_ms: Millis(check.def.interval_ms.into()),
        vantages: scene.live.vantages_of(no).map(vantage).collect(),
        times: scene.progress.times.get(&no).map(|times| TimesView {
            count: times.count,
            p50_us: times.p50_us,
            p95_us: times.p95_us,
            p99_us: times.p99_us,
        }),
    }
}

/// A sample holds for its time; a DOWN holds until somebody sees it up.
fn state_now(vantage: &Vantage, hold: Millis, now: UtcTime) -> State {
    match vantage.track.newest() {
        Some((_, State::Down)) => State::Down,
        Some((at, state)) if now.since(at) <= hold => state,
        _ => State::Unknown,
    }
}

fn patch_view(host: &Host, policy: PatchPolicy, now: UtcTime) -> PatchView {
    let Some(report) = &host.patch else { return PatchView::default() };
    let stale = now.since(report.scanned_at) > policy.stale_after;
    let mut errors: Vec<_> = report
        .errors
        .iter()
        .map(|error| format!("{}: {} {}", error.kind, error.file, error.detail).trim().to_owned())
        .collect();
    if stale {
        errors.push(format!("stale: the last scan was at {}", report.scanned_at));
    }
    let mut findings: Vec<_> = host
        .findings
        .iter()
        .map(|(key, finding)| finding_view(key.package.clone(), key.arch.clone(), finding, policy.term, now))
        .collect();
    findings.sort_by(|a, b| a.due_at.cmp(&b.due_at).then_with(|| a.package.cmp(&b.package)));
    let state = if findings.iter().any(|finding| finding.overdue) {
        PatchState::Overdue
    } else if stale || !report.known {
        PatchState::Unknown
    } else if findings.is_empty() {
        PatchState::Ok
    } else {
        PatchState::Due
    };
    PatchView {
        state,
        scanned_at: Some(report.scanned_at),
        installed: report.installed,
        pending: report.pending,
        findings,
        reboot_required: report.reboot_required,
        errors,
    }
}

fn finding_view(package: String, arch: String, finding: &OpenFinding, term: Millis, now: UtcTime) -> FindingView {
    let state = serde_json::to_value(finding.state).ok().and_then(|word| word.as_str().map(str::to_owned));
    FindingView {
        source: finding.source.clone(),
        package,
        arch,
        installed: finding.installed.clone(),
        security_version: finding.security_version.clone(),
        state: state.unwrap_or_default(),
        first_seen: finding.first_seen,
        due_at: finding.due_at(term),
        overdue: finding.is_overdue(term, now),
    }
}

fn energy_view(host: &Host, now: UtcTime) -> EnergyView {
    let Some(reading) = &host.reading else { return EnergyView::default() };
    let month_start = Month::of(now, &TimeZone::UTC).first(&TimeZone::UTC);
    let mut view = EnergyView {
        method: reading.method.word().to_owned(),
        boundary: reading.boundary.word().to_owned(),
        covers: reading.covers.clone(),
        detail: reading.detail.clone(),
        power_mw: power_mw(reading.energy, reading.end.since(reading.start)),
        ..EnergyView::default()
    };
    let mut hours: BTreeMap<UtcTime, EnergyHourView> = BTreeMap::new();
    for ((hour, _), energy) in host.hours.range((month_start.min(now.plus(Millis(-Millis::DAY.0))), String::new())..) {
        let covered_s = energy.covered.0.max(0).unsigned_abs() / 1_000;
        if *hour >= month_start {
            view.month_uj = view.month_uj.saturating_add(energy.energy);
            view.month_low_uj = view.month_low_uj.saturating_add(energy.low);
            view.month_high_uj = view.month_high_uj.saturating_add(energy.high);
            view.month_covered_s += covered_s;
        }
        let zero = Microjoules::ZERO;
        let shown = hours.entry(*hour).or_insert(EnergyHourView {
            hour: *hour,
            energy_uj: zero,
            low_uj: zero,
            high_uj: zero,
            covered_s: 0,
        });
        shown.energy_uj = shown.energy_uj.saturating_add(energy.energy);
        shown.low_uj = shown.low_uj.saturating_add(energy.low);
        shown.high_uj = shown.high_uj.saturating_add(energy.high);
        shown.covered_s += covered_s;
    }
    let surplus = hours.len().saturating_sub(HOURS_SHOWN);
    view.hours = hours.into_values().skip(surplus).collect();
    view
}

/// Mean power: µJ per ms is mW.
fn power_mw(energy: Microjoules, span: Millis) -> Option<u64> {
    u64::try_from(span.0).ok().filter(|ms| *ms > 0).map(|ms| energy.0 / ms)
}

#[cfg(test)]
mod tests;
