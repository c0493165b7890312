//! Takes due checks, holds permits and deadlines, and stamps what came of each into a sample.
//!
//! Every due tick leaves exactly one record under its own time: the probe's outcome, or `not_run` with its
//! reason (the previous run still going, no free slot before the deadline, policy, shutdown), or a place in a Gap
//! that names the check. A probe that panics leaves `local_resource`: it says nothing about the target. At most
//! `policy.in_flight_max` probes run at once; the wait for a slot is the sample's `delay`, kept apart
//! from the phases, so a busy agent never measures itself.
//!
//! A first failure is looked at again soon ([`confirm`]); a failure that could be our own network's is checked against
//! reference targets ([`Vantage`]); when probes hold each other up, the less important ones run less often ([`load`]). What
//! was seen last survives a restart ([`memory`]).
//!
//! A failure, and any change of outcome, is urgent: it is synced and sent at once, with a
//! [`ProbeDetail`] when the outcome or the certificate changed. Routine successes wait for their batch.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::plan::Plan;
use peil_proto::record::{Certificate, Gap, ProbeDetail, Record};
use peil_proto::sample::{FailureKind, GapReason, NotRun, Outcome, Phases, Sample, State};
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;
use tokio::sync::{Semaphore, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::config::{Policy, Probing};
use crate::host;
use crate::probe::{self, Observation, ProbeContext};
use crate::recorder::Recorder;
use crate::schedule::{Due, Now, Schedule, TakeDue};
use crate::status::Board;
use crate::vantage::Vantage;

pub use confirm::Confirm;

use confirm::Confirmations;
use load::{Load, is_tainted};
use memory::Seen;

mod confirm;
mod load;
mod memory;

/// A start later than this after the tick counts as late in the vitals.
const LATE: Millis = Millis::SECOND;
/// Probes that end within this time of a stop still count; the rest are marked. Shorter than the shortest grace time.
const STOP_PATIENCE: Duration = Duration::from_millis(500);

/// How often what was seen is written down.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// Facts that do not change are told once a day all the same, so that nobody has to look further back.
pub const TELL_AGAIN: Duration = Duration::from_secs(86_400);

/// Ticks since the last vitals.
#[derive(Debug, Default)]
pub struct Tally {
    /// Ticks due.
    pub due: AtomicU32,
    /// Of those, started more than a second late.
    pub late: AtomicU32,
    /// Of those, not run.
    pub not_run: AtomicU32,
    /// Of those, waited for more than a tenth of their interval.
    pub tainted: AtomicU32,
    /// Only one of this many ticks runs; not reset.
    pub stretch: AtomicU32,
    /// Last results and next runs, for `peil-agent status`; not reset.
    pub board: Board,
}

/// What one probe task hands back.
struct Done {
    due: Due,
    sample: Sample,
    observation: Option<Observation>,
}

/// A tick whose probe is under way.
#[derive(Clone)]
struct InFlight {
    task: Id,
    due: Due,
}

/// The task that probes. One per agent.
pub struct Runner {
    agent: AgentId,
    policy: Policy,
    context: Arc<ProbeContext>,
    permits: Arc<Semaphore>,
    recorder: Recorder,
    clock: WallClock,
    tally: Arc<Tally>,
    started: Instant,
    in_flight: HashMap<CheckNo, InFlight>,
    seen: HashMap<CheckNo, Seen>,
    probes: JoinSet<Done>,
    probing: Probing,
    vantage: Arc<Vantage>,
    confirmations: Confirmations,
    load: Load,
    state_dir: PathBuf,
}

impl Runner {
    /// A runner that probes by `policy` and hands samples to `recorder`. What it saw last is kept in `state_dir`.
    pub fn new(
        agent: AgentId,
        (policy, probing): (Policy, Probing),
        recorder: Recorder,
        clock: WallClock,
        tally: Arc<Tally>,
        state_dir: PathBuf,
    ) -> Self {
        let context = Arc::new(policy.probe_context(clock.clone()));
        let permits = Arc::new(Semaphore::new(policy.in_flight_max));
        Self {
            agent,
            policy,
            context,
            permits,
            recorder,
            clock,
            tally,
            started: Instant::now(),
            in_flight: HashMap::new(),
            seen: HashMap::new(),
            probes: JoinSet::new(),
            vantage: Arc::new(Vantage::new(probing.references.clone())),
            confirmations: Confirmations::new(probing.confirm),
            load: Load::default(),
            probing,
            state_dir,
        }
    }

    /// Runs until `stop`: probes what is due, follows new plans, and at the end marks what was in flight.
    pub async fn run(mut self, mut plans: watch::Receiver<Arc<Plan>>, stop: CancellationToken) {
        let mut plan = plans.borrow_and_update().clone();
        let mut schedule = Schedule::new(self.agent, &plan, self.now());
        self.remember(&plan, &mut schedule);
        let mut keep = tokio::time::interval(KEEP_EVERY);
        keep.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let wakes = [schedule.next_wake(), self.confirmations.next_wake()];
            let wake = wakes.into_iter().flatten().min().map(|mono| self.started + mono.to_duration());
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = plans.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    plan = plans.borrow_and_update().clone();
                    let taken = schedule.replace(&plan, self.now());
                    self.take(taken).await;
                    self.seen.retain(|no, _| plan.checks.iter().any(|check| check.no == *no));
                    self.remember(&plan, &mut schedule);
                    info!(version = plan.version, checks = plan.checks.len(), "plan in force");
                }
                Some(joined) = self.probes.join_next() => self.joined(joined).await,
                () = sleep_until(wake) => {
                    let now = self.now();
                    let taken = schedule.take_due(now);
                    self.take(taken).await;
                    self.confirm(now.mono);
                }
                _ = keep.tick() => memory::save(&self.state_dir, &plan, &self.seen),
            }
        }
        self.stop(schedule, &plan).await;
    }

    /// Takes up what an earlier run saw of checks this one has not seen yet.
    fn remember(&mut self, plan: &Plan, schedule: &mut Schedule) {
        self.tally.board.plan(plan);
        for (no, next) in schedule.upcoming() {
            self.tally.board.next(no, next);
        }
        for (no, seen) in memory::load(&self.state_dir, plan) {
            if let Some(label) = seen.label {
                schedule.resume(no, label);
            }
            self.seen.entry(no).or_insert(seen);
        }
    }

    /// Further attempts at failures that are new. They are no ticks: one that cannot run now is left out.
    fn confirm(&mut self, mono: Millis) {
        for due in self.confirmations.take_due(mono) {
            if !self.in_flight.contains_key(&due.check.no) {
                self.start(due);
            }
        }
    }

    fn now(&self) -> Now {
        Now { wall: self.clock.now(), mono: Millis::from(self.started.elapsed()), suspended: host::suspended() }
    }

    async fn take(&mut self, taken: TakeDue) {
        self.tell_missed(&taken).await;
        for due in taken.due {
            self.tally.due.fetch_add(1, Ordering::Relaxed);
            let no = due.check.no;
            self.confirmations.tick(no);
            self.seen.entry(no).or_default().label = Some(due.scheduled_at);
            self.tally.board.next(no, due.scheduled_at.plus(Millis(due.check.interval_ms.into())));
            if self.in_flight.contains_key(&no) {
                self.not_run(no, due.scheduled_at, NotRun::Overrun).await;
            } else if !self.policy.allows(&due.check) {
                self.not_run(no, due.scheduled_at, NotRun::Policy).await;
            } else if !self.runs_now(&due) {
                self.not_run(no, due.scheduled_at, NotRun::Overload).await;
            } else {
                self.start(due);
            }
        }
    }

    /// False for a tick that is left out because the agent is overloaded.
    fn runs_now(&self, due: &Due) -> bool {
        self.load.runs(due.scheduled_at.0, due.check.interval_ms)
            || self.probing.always.iter().any(|name| *name == due.check.name)
    }

    async fn tell_missed(&self, taken: &TakeDue) {
        for missed in &taken.missed {
            let reason = if missed.reason == NotRun::Suspended { GapReason::Suspended } else { GapReason::Stalled };
            let gap = Gap { check: Some(missed.check.no), ..Gap::new(missed.from, missed.to, reason) };
            self.recorder.record(&Record::Gap(gap), true).await;
        }
    }

    fn start(&mut self, due: Due) {
        let check = due.check.clone();
        let (no, kept) = (check.no, due.clone());
        let vantage = self.vantage.clone();
        let tick = self.started + due.mono_due.to_duration();
        let (permits, context, tally) = (self.permits.clone(), self.context.clone(), self.tally.clone());
        let task = self.probes.spawn(async move {
            let patience = Duration::from_millis(check.timeout_ms.into());
            let permit = tokio::time::timeout_at(tick + patience, permits.acquire()).await;
            let delay = Millis::from(Instant::now().saturating_duration_since(tick));
            let mut sample = Sample {
                check: check.no,
                scheduled_at: due.scheduled_at,
                delay,
                outcome: Outcome::NotRun(NotRun::Overload),
                phases: Phases::default(),
            };
            let Ok(Ok(_permit)) = permit else {
                return Done { due, sample, observation: None };
            };
            if delay > LATE {
                tally.late.fetch_add(1, Ordering::Relaxed);
            }
            let observation = probe::run(&check, &context).await;
            sample.outcome = vantage.judge(observation.outcome).await;
            sample.phases = observation.phases;
            Done { due, sample, observation: Some(observation) }
        });
        self.in_flight.insert(no, InFlight { task: task.id(), due: kept });
    }

    async fn joined(&mut self, joined: Result<Done, JoinError>) {
        match joined {
            Ok(done) => self.finish(done).await,
            Err(failed) => self.failed(&failed).await,
        }
    }

    /// A probe that panicked is a fault of ours: its tick is told, and the check goes on at its next one.
    async fn failed(&mut self, failed: &JoinError) {
        let found = self.in_flight.iter().find(|(_, probe)| probe.task == failed.id());
        let Some((check, probe)) = found.map(|(check, probe)| (*check, probe.clone())) else { return };
        error!(%check, %failed, "a probe failed within the agent; its tick is unknown");
        let outcome = Outcome::Failed { kind: FailureKind::LocalResource, code: 0 };
        let (scheduled_at, delay, phases) = (probe.due.scheduled_at, Millis::ZERO, Phases::default());
        let sample = Sample { check, scheduled_at, delay, outcome, phases };
        self.finish(Done { due: probe.due, sample, observation: None }).await;
    }

    async fn finish(&mut self, done: Done) {
        let check = done.sample.check;
        self.in_flight.remove(&check);
        if matches!(done.sample.outcome, Outcome::NotRun(_)) {
            self.tally.not_run.fetch_add(1, Ordering::Relaxed);
        }
        self.weigh(&done);
        let now = self.clock.now();
        let seen = self.seen.entry(check).or_default();
        let certificate = done.observation.as_ref().and_then(certificate_of);
        let fingerprint = certificate.as_ref().map(|certificate| certificate.sha256);
        let outcome_changed = seen.outcome != Some(done.sample.outcome);
        let state_before = seen.outcome.map(Outcome::state);
        let certificate_changed = fingerprint.is_some() && fingerprint != seen.certificate;
        seen.outcome = Some(done.sample.outcome);
        seen.certificate = fingerprint.or(seen.certificate);
        let told_long_ago = seen.told.is_none_or(|at| now.since(at).to_duration() >= TELL_AGAIN);
        let tell = outcome_changed || certificate_changed || told_long_ago;
        if tell {
            seen.told = Some(now);
        }
        self.confirmations.told(&done.due, state_before, done.sample.outcome.state());
        let urgent = outcome_changed || done.sample.outcome.state() != State::Up;
        debug!(%check, outcome = %done.sample.outcome.word(), delay_ms = %done.sample.delay, "probed");
        if let Some(observation) = done.observation.filter(|_| tell) {
            let detail = ProbeDetail {
                check,
                scheduled_at: done.sample.scheduled_at,
                peer: last_peer(&observation),
                text: in_words(&observation, done.sample.outcome),
                certificate,
            };
            self.recorder.record(&Record::Detail(detail), false).await;
        }
        self.tally.board.told(&done.sample);
        self.recorder.record(&Record::Sample(done.sample), urgent).await;
    }

    /// Counts what the tick says about the load of this host.
    fn weigh(&mut self, done: &Done) {
        let tainted = is_tainted(done.sample.delay, done.due.check.interval_ms);
        let strained = tainted || done.sample.outcome == Outcome::NotRun(NotRun::Overload);
        self.tally.tainted.fetch_add(u32::from(tainted), Ordering::Relaxed);
        if let Some(stretch) = self.load.count(self.now().mono, strained) {
            self.tally.stretch.store(stretch, Ordering::Relaxed);
            if stretch > 1 {
                warn!(
                    stretch,
                    "probes of this host hold each other up: only one of this many ticks of checks that are not in [probing] always runs"
                );
            } else {
                info!("every tick runs again");
            }
        }
    }

    async fn not_run(&mut self, check: CheckNo, scheduled_at: UtcTime, why: NotRun) {
        self.tally.not_run.fetch_add(1, Ordering::Relaxed);
        let seen = self.seen.entry(check).or_default();
        let outcome = Outcome::NotRun(why);
        let changed = seen.outcome.replace(outcome) != Some(outcome);
        let sample = Sample { check, scheduled_at, delay: Millis::ZERO, outcome, phases: Phases::default() };
        self.tally.board.told(&sample);
        self.recorder.record(&Record::Sample(sample), changed).await;
    }

    /// Marks what cannot be finished, and the ticks that came due meanwhile: nothing is forgotten.
    async fn stop(mut self, mut schedule: Schedule, plan: &Plan) {
        let deadline = Instant::now() + STOP_PATIENCE;
        while let Ok(Some(joined)) = tokio::time::timeout_at(deadline, self.probes.join_next()).await {
            self.joined(joined).await;
        }
        self.probes.abort_all();
        for (check, probe) in std::mem::take(&mut self.in_flight) {
            self.not_run(check, probe.due.scheduled_at, NotRun::Shutdown).await;
        }
        let taken = schedule.take_due(self.now());
        self.tell_missed(&taken).await;
        for due in taken.due {
            self.tally.due.fetch_add(1, Ordering::Relaxed);
            self.not_run(due.check.no, due.scheduled_at, NotRun::Shutdown).await;
        }
        memory::save(&self.state_dir, plan, &self.seen);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn last_peer(observation: &Observation) -> String {
    observation.detail.hops.iter().rev().find_map(|hop| hop.peer).map(probe::peer_text).unwrap_or_default()
}

fn certificate_of(observation: &Observation) -> Option<Certificate> {
    let facts = observation.detail.hops.iter().rev().find_map(|hop| hop.tls.as_ref())?;
    let leaf = facts.certificates().into_iter().next()?;
    let read = leaf.facts?;
    let sha256 = data_encoding::HEXLOWER.decode(leaf.sha256.as_bytes()).ok()?.try_into().ok()?;
    Some(Certificate {
        subject: read.subject,
        issuer: read.issuer,
        not_before: read.not_before,
        not_after: read.not_after,
        sha256,
    })
}

fn in_words(observation: &Observation, outcome: Outcome) -> String {
    if outcome == (Outcome::Failed { kind: FailureKind::VantageDown, code: 0 }) {
        return format!(
            "no reference target answers, this host's own network is down; the probe itself: {}",
            as_probed(observation)
        );
    }
    as_probed(observation)
}

fn as_probed(observation: &Observation) -> String {
    match &observation.detail.failure {
        Some(failure) => match failure.phase {
            Some(phase) => format!("{} during {}: {}", failure.kind, phase.name(), failure.text),
            None => format!("{}: {}", failure.kind, failure.text),
        },
        None => format!("answered by {}", last_peer(observation)),
    }
}

#[cfg(test)]
mod tests;
