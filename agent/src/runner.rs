//! Takes due checks, holds permits and deadlines, and stamps what came of each into a sample.
//!
//! Every due tick leaves exactly one record: the probe's outcome, or `not_run` with its reason (the
//! previous run still going, no free slot before the deadline, policy, shutdown). At most
//! `policy.in_flight_max` probes run at once; the wait for a slot is the sample's `delay`, kept apart
//! from the phases, so a busy agent never measures itself.
//!
//! A failure, and any change of outcome, is urgent: it is synced and sent at once, with a
//! [`ProbeDetail`] when the outcome or the certificate changed. Routine successes wait for their batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::plan::{CheckDef, Plan};
use peil_proto::record::{Certificate, Gap, ProbeDetail, Record};
use peil_proto::sample::{GapReason, NotRun, Outcome, Phases, Sample, State};
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::config::Policy;
use crate::host;
use crate::probe::{self, Observation, ProbeContext};
use crate::recorder::Recorder;
use crate::schedule::{Due, Now, Schedule, TakeDue};

/// A start later than this after the tick counts as late in the vitals.
const LATE: Millis = Millis::SECOND;

/// Ticks since the last vitals.
#[derive(Debug, Default)]
pub struct Tally {
    /// Ticks due.
    pub due: AtomicU32,
    /// Of those, started more than a second late.
    pub late: AtomicU32,
    /// Of those, not run.
    pub not_run: AtomicU32,
}

/// What one probe task hands back.
struct Done {
    sample: Sample,
    observation: Option<Observation>,
}

/// What was last seen of a check, to know a change.
#[derive(Default)]
struct Seen {
    outcome: Option<Outcome>,
    certificate: Option<[u8; 32]>,
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
    /// Checks being probed, with the tick they are probed for.
    in_flight: HashMap<CheckNo, UtcTime>,
    seen: HashMap<CheckNo, Seen>,
    probes: JoinSet<Done>,
}

impl Runner {
    /// A runner that probes by `policy` and hands samples to `recorder`.
    pub fn new(agent: AgentId, policy: Policy, recorder: Recorder, clock: WallClock, tally: Arc<Tally>) -> Self {
        let context = Arc::new(ProbeContext::new(clock.clone(), policy.addresses()));
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
        }
    }

    /// Runs until `stop`: probes what is due, follows new plans, and at the end marks what was in flight.
    pub async fn run(mut self, mut plans: watch::Receiver<Arc<Plan>>, stop: CancellationToken) {
        let mut plan = plans.borrow_and_update().clone();
        let mut schedule = Schedule::new(self.agent, &plan, self.now());
        let mut checks = by_number(&plan);
        loop {
            let wake = schedule.next_wake().map(|mono| self.started + mono.to_duration());
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = plans.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    plan = plans.borrow_and_update().clone();
                    let taken = schedule.replace(&plan, self.now());
                    self.take(taken, &checks).await;
                    checks = by_number(&plan);
                    self.seen.retain(|no, _| checks.contains_key(no));
                    info!(version = plan.version, checks = plan.checks.len(), "plan in force");
                }
                Some(done) = self.probes.join_next() => {
                    if let Ok(done) = done {
                        self.finish(done).await;
                    }
                }
                () = sleep_until(wake) => self.start_due(&mut schedule, &checks).await,
            }
        }
        self.stop().await;
    }

    fn now(&self) -> Now {
        Now { wall: self.clock.now(), mono: Millis::from(self.started.elapsed()), suspended: host::suspended() }
    }

    async fn start_due(&mut self, schedule: &mut Schedule, checks: &HashMap<CheckNo, Arc<CheckDef>>) {
        let taken = schedule.take_due(self.now());
        self.take(taken, checks).await;
    }

    async fn take(&mut self, taken: TakeDue, checks: &HashMap<CheckNo, Arc<CheckDef>>) {
        for missed in taken.missed {
            let reason = if missed.reason == NotRun::Suspended { GapReason::Suspended } else { GapReason::Stalled };
            let gap = Gap { from: missed.from, to: missed.to, reason, check: Some(missed.check.no), records_lost: 0 };
            self.recorder.record(&Record::Gap(gap), true).await;
        }
        for due in taken.due {
            self.tally.due.fetch_add(1, Ordering::Relaxed);
            let no = due.check.no;
            if !checks.contains_key(&no) {
                continue;
            }
            if self.in_flight.contains_key(&no) {
                self.not_run(no, due.scheduled_at, NotRun::Overrun).await;
            } else if !self.policy.allows(&due.check) {
                self.not_run(no, due.scheduled_at, NotRun::Policy).await;
            } else {
                self.start(due);
            }
        }
    }

    fn start(&mut self, due: Due) {
        let check = due.check.clone();
        self.in_flight.insert(check.no, due.scheduled_at);
        let tick = self.started + due.mono_due.to_duration();
        let (permits, context, tally) = (self.permits.clone(), self.context.clone(), self.tally.clone());
        self.probes.spawn(async move {
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
                return Done { sample, observation: None };
            };
            if delay > LATE {
                tally.late.fetch_add(1, Ordering::Relaxed);
            }
            let observation = probe::run(&check, &context).await;
            sample.outcome = observation.outcome;
            sample.phases = observation.phases;
            Done { sample, observation: Some(observation) }
        });
    }

    async fn finish(&mut self, done: Done) {
        let check = done.sample.check;
        self.in_flight.remove(&check);
        if matches!(done.sample.outcome, Outcome::NotRun(_)) {
            self.tally.not_run.fetch_add(1, Ordering::Relaxed);
        }
        let seen = self.seen.entry(check).or_default();
        let certificate = done.observation.as_ref().and_then(certificate_of);
        let fingerprint = certificate.as_ref().map(|certificate| certificate.sha256);
        let outcome_changed = seen.outcome != Some(done.sample.outcome);
        let certificate_changed = fingerprint.is_some() && fingerprint != seen.certificate;
        seen.outcome = Some(done.sample.outcome);
        seen.certificate = fingerprint.or(seen.certificate);
        let urgent = outcome_changed || done.sample.outcome.state() != State::Up;
        debug!(%check, outcome = %done.sample.outcome.word(), delay_ms = %done.sample.delay, "probed");
        if let Some(observation) = done.observation.filter(|_| outcome_changed || certificate_changed) {
            let detail = ProbeDetail {
                check,
                scheduled_at: done.sample.scheduled_at,
                peer: last_peer(&observation),
                text: in_words(&observation),
                certificate,
            };
            self.recorder.record(&Record::Detail(detail), false).await;
        }
        self.recorder.record(&Record::Sample(done.sample), urgent).await;
    }

    async fn not_run(&mut self, check: CheckNo, scheduled_at: UtcTime, why: NotRun) {
        self.tally.not_run.fetch_add(1, Ordering::Relaxed);
        let seen = self.seen.entry(check).or_default();
        let outcome = Outcome::NotRun(why);
        let changed = seen.outcome.replace(outcome) != Some(outcome);
        let sample = Sample { check, scheduled_at, delay: Millis::ZERO, outcome, phases: Phases::default() };
        self.recorder.record(&Record::Sample(sample), changed).await;
    }

    /// Probes that finish within a second still count; the rest are marked, not forgotten.
    async fn stop(mut self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        while let Ok(Some(joined)) = tokio::time::timeout_at(deadline, self.probes.join_next()).await {
            if let Ok(done) = joined {
                self.finish(done).await;
            }
        }
        self.probes.abort_all();
        for (check, scheduled_at) in std::mem::take(&mut self.in_flight) {
            self.not_run(check, scheduled_at, NotRun::Shutdown).await;
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn by_number(plan: &Plan) -> HashMap<CheckNo, Arc<CheckDef>> {
    plan.checks.iter().map(|check| (check.no, Arc::new(check.clone()))).collect()
}

fn last_peer(observation: &Observation) -> String {
    observation.detail.hops.iter().rev().find_map(|hop| hop.peer).map(|peer| peer.to_string()).unwrap_or_default()
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

fn in_words(observation: &Observation) -> String {
    match &observation.detail.failure {
        Some(failure) => match failure.phase {
            Some(phase) => format!("{} during {}: {}", failure.kind, phase.name(), failure.text),
            None => format!("{}: {}", failure.kind, failure.text),
        },
        None => "up".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::Config;
    use crate::spool::{Limits, Spool};
    use peil_proto::block::Item;
    use peil_proto::convert;
    use peil_proto::ids::Seq;
    use peil_proto::plan::CheckKind;

    #[tokio::test]
    async fn a_probe_cut_off_by_the_end_leaves_its_own_tick() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let kind = CheckKind::Http {
            url: format!("http://{}/", silent.local_addr().unwrap()),
            status: Vec::new(),
            contains: None,
            ca_file: None,
            cert_days_min: None,
        };
        let check = CheckDef { no: CheckNo(3), name: "slow".into(), interval_ms: 1_000, timeout_ms: 60_000, kind };
        let plan = Arc::new(Plan { version: 1, checks: vec![check] });
        let policy = Config::parse("c", "collector = 'https://localhost:1'").unwrap().policy;

        let dir = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(dir.path(), "machine", Limits::default()).unwrap();
        let (recorder, spool_thread) = Recorder::start(spool, WallClock::System).unwrap();
        let (_plans, plans) = watch::channel(plan);
        let runner =
            Runner::new(AgentId([1; 16]), policy, recorder.clone(), WallClock::System, Arc::new(Tally::default()));
        let stop = CancellationToken::new();
        let stopper = stop.clone();
        let called = tokio::task::spawn_blocking(move || {
            // Held open, so that the probe waits for an answer that never comes.
            let connection = silent.accept().unwrap();
            let at = WallClock::System.now();
            stopper.cancel();
            (connection, at)
        });
        runner.run(plans, stop).await;
        let (_connection, called_at) = called.await.unwrap();

        recorder.sync().await;
        let records = recorder.read_after(Seq(0), 1_000, 1 << 20).await;
        let samples: Vec<_> = records
            .iter()
            .filter_map(|(_, record)| match convert::to_item(record) {
                Ok(Item::Sample(sample)) => Some((sample.outcome, sample.scheduled_at)),
                _ => None,
            })
            .collect();
        let [(Outcome::NotRun(NotRun::Shutdown), scheduled_at)] = samples[..] else { panic!("{samples:?}") };
        assert!(scheduled_at <= called_at, "the tick of {called_at} is told as one of {scheduled_at}");
        drop(recorder);
        spool_thread.join().await;
    }
}
