//! The only place that spawns: builds the parts, owns the channels, starts and stops in order.
//!
//! Start: state directory → spool (always starts) → identity → last plan → tasks. Stop: probes first, so
//! that what was in flight is recorded; then patch, energy and vitals; then the uplink, which hands
//! over what is durable; the spool thread last, when nobody can add to it any more.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use peil_proto::plan::Plan;
use peil_proto::record::{Gap, HostFacts, Record, Vitals};
use peil_proto::sample::GapReason;
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::identity::Identity;
use crate::local_checks::{LocalChecks, Told};
use crate::recorder::{Chain, Ledger, Recorder};
use crate::runner::{Runner, TELL_AGAIN, Tally};
use crate::spool::Spool;
use crate::status::Teller;
use crate::uplink::Link;
use crate::uplink::session::Uplink;
use crate::{energy, enrol, host, patch, plan_file, systemd};

/// How often the agent tells about itself.
const VITALS_EVERY: Duration = Duration::from_secs(60);
/// Missing time after a restart is told when it is longer than this.
const STOPPED_MIN: Millis = Millis(2_000);

/// Runs the agent until `stop`.
///
/// # Errors
/// When it cannot start: no identity, no state directory.
pub async fn run(config: Config, clock: WallClock, stop: CancellationToken) -> anyhow::Result<()> {
    let state_dir = &config.state_dir;
    std::fs::create_dir_all(state_dir)
        .with_context(|| format!("cannot make the state directory {}", state_dir.display()))?;
    let identity = Identity::load(&enrol::directory(state_dir))?;
    let root = Path::new("/");
    let (spool, recovery) = Spool::open(&state_dir.join("spool"), &host::machine_id(root), config.spool)?;
    info!(agent = %identity.agent(), epoch = %spool.epoch(), unacked = spool.last().0 - spool.acked().0, ?recovery, "spool open");
    let ledger = Ledger::open(state_dir.join("gaps"), config.spool_age_max);
    let (recorder, spool_thread) = Recorder::start(spool, clock.clone(), ledger)?;
    let facts = host::facts(root);
    tell_of_stop(&recorder, state_dir, clock.now()).await;

    let plan = plan_file::load(state_dir).unwrap_or_default();
    info!(version = plan.version, checks = plan.checks.len(), "last plan");
    let (plans, plan_changes) = watch::channel(Arc::new(plan));
    let plans = Arc::new(plans);
    let tally = Arc::new(Tally::default());

    let board = tally.board.clone();
    let teller = Teller {
        board: board.clone(),
        recorder: recorder.clone(),
        agent: identity.agent(),
        collector: config.collector.clone(),
        started: clock.now(),
        clock: clock.clone(),
        state_dir: state_dir.clone(),
    };

    let (probing, telling) = (CancellationToken::new(), CancellationToken::new());
    let (probers, tellers, uplinks) = (TaskTracker::new(), TaskTracker::new(), TaskTracker::new());
    let rules = (config.policy.clone(), config.probing.clone());
    let runner =
        Runner::new(identity.agent(), rules, recorder.clone(), clock.clone(), tally.clone(), state_dir.clone());
    probers.spawn(runner.run(plan_changes, probing.clone()));
    if config.patch.enabled {
        tellers.spawn(tell_patch_level(config.patch.clone(), recorder.clone(), clock.clone(), telling.clone()));
    }
    if config.energy.enabled {
        tellers.spawn(tell_energy(config.clone(), recorder.clone(), clock.clone(), telling.clone()));
    }
    let vitals = TellVitals {
        recorder: recorder.clone(),
        tally,
        plans: plans.clone(),
        clock: clock.clone(),
        state_dir: state_dir.clone(),
        facts: facts.clone(),
    };
    tellers.spawn(vitals.run(telling.clone()));
    tellers.spawn(teller.run(telling.clone()));
    if let Some(every) = systemd::watchdog_every() {
        tellers.spawn(feed_watchdog(every, telling.clone()));
    }
    let session = Uplink {
        recorder: recorder.clone(),
        plans,
        state_dir: state_dir.clone(),
        hostname: facts.hostname,
        labels: config.labels.clone(),
        local: Told::default(),
        trusted: identity.trusted(),
        renew: Arc::new(watch::channel(None).0),
        run: getrandom::u64().map_err(|error| anyhow::anyhow!("no randomness: {error}"))?,
        batch_every: config.batch_every,
        clock: clock.clone(),
        board: board.clone(),
    };
    let identity_dir = enrol::directory(state_dir);
    let link = Link {
        uplink: session,
        collector: config.collector.clone(),
        identity,
        identity_dir,
        clock: clock.clone(),
        local: LocalChecks { directory: config.local_checks.clone(), state_dir: state_dir.clone() },
        wish_heard: None,
    };
    let handing_over = CancellationToken::new();
    uplinks.spawn(link.run(handing_over.clone()));

    systemd::notify("READY=1");
    stop.cancelled().await;
    info!("stopping");
    systemd::notify("STOPPING=1");
    // From here on nothing comes due; handing over takes a while longer.
    let probed_until = clock.now();
    probing.cancel();
    finish(&probers, config.grace, "probes").await;
    telling.cancel();
    finish(&tellers, config.grace, "patch, energy and vitals").await;
    recorder.sync().await;
    handing_over.cancel();
    finish(&uplinks, config.grace, "uplink").await;
    note_alive(state_dir, probed_until);
    drop(recorder);
    if tokio::time::timeout(config.grace.to_duration(), spool_thread.join()).await.is_err() {
        warn!("the spool did not close in time; what is synced is safe");
    }
    Ok(())
}

async fn feed_watchdog(every: Duration, stop: CancellationToken) {
    let mut ticks = interval(every);
    loop {
        tokio::select! {
            _ = ticks.tick() => drop(systemd::notify("WATCHDOG=1")),
            () = stop.cancelled() => return,
        }
    }
}

async fn finish(tasks: &TaskTracker, grace: Millis, what: &str) {
    tasks.close();
    if tokio::time::timeout(grace.to_duration(), tasks.wait()).await.is_err() {
        warn!(what, "did not stop within the grace time");
    }
}

/// The moment until which this agent is known to have probed, so that the next start can tell how long nobody looked.
const ALIVE: &str = "alive";

fn note_alive(state_dir: &Path, now: UtcTime) {
    let beside = state_dir.join("alive.new");
    let written =
        std::fs::write(&beside, now.0.to_string()).and_then(|()| std::fs::rename(&beside, state_dir.join(ALIVE)));
    if let Err(error) = written {
        warn!(%error, "cannot note that the agent is alive");
    }
}

async fn tell_of_stop(recorder: &Recorder, state_dir: &Path, now: UtcTime) {
    let last =
        std::fs::read_to_string(state_dir.join(ALIVE)).ok().and_then(|text| text.trim().parse().ok()).map(UtcTime);
    if let Some(from) = last.filter(|from| now.since(*from) > STOPPED_MIN) {
        let gap = Gap::new(from, now, GapReason::AgentStopped);
        recorder.record(&Record::Gap(gap), true).await;
    }
}

/// Scans when the files changed, and at least once a day so that silence is not taken for health.
async fn tell_patch_level(
    settings: crate::config::Patch,
    recorder: Recorder,
    clock: WallClock,
    stop: CancellationToken,
) {
    let mut ticks = interval(settings.every.to_duration());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last: Option<(Option<u64>, UtcTime)> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let (root, now) = (settings.root.clone(), clock.now());
        let before = last;
        let scanned = tokio::task::spawn_blocking(move || {
            let fingerprint = patch::fingerprint(&root);
            let unchanged =
                before.is_some_and(|(seen, at)| seen.is_some() && seen == fingerprint && now.since(at) < Millis::DAY);
            (!unchanged).then(|| (patch::scan(&root, now).to_record(now), fingerprint))
        });
        let scanned = scanned.await.unwrap_or_else(|failed| {
            error!(%failed, "the scan of the patch level failed within the agent; the level will show as stale");
            None
        });
        if let Some((report, fingerprint)) = scanned {
            info!(
                installed = report.installed,
                pending = report.pending,
                findings = report.findings.len(),
                errors = report.errors.len(),
                "patch level read"
            );
            recorder.record(&Record::Patch(report), true).await;
            last = Some((fingerprint, now));
        }
    }
}

async fn tell_energy(config: Config, recorder: Recorder, clock: WallClock, stop: CancellationToken) {
    let clocks = energy::Clocks { wall: clock };
    let mut meter = energy::Meter::new(&config.energy, &config.state_dir.join("energy.state"));
    let mut told_at = clocks.now().mono_ms;
    loop {
        let now = clocks.now();
        let stopping = stop.is_cancelled();
        meter.tick(now);
        if stopping || now.mono_ms.saturating_sub(told_at) >= config.energy.report.0.unsigned_abs() {
            told_at = now.mono_ms;
            for reading in meter.take_readings() {
                recorder.record(&Record::Energy(reading.to_record()), false).await;
            }
        }
        if stopping {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(meter.sample_every().to_duration()) => {}
            () = stop.cancelled() => {}
        }
    }
}

struct TellVitals {
    recorder: Recorder,
    tally: Arc<Tally>,
    plans: Arc<watch::Sender<Arc<Plan>>>,
    clock: WallClock,
    state_dir: std::path::PathBuf,
    facts: HostFacts,
}

impl TellVitals {
    async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(VITALS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut alive = interval(Duration::from_secs(5));
        alive.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The first tick of an interval comes at once: facts are told at start and then once a day.
        let mut facts = interval(TELL_AGAIN);
        let mut cpu = Duration::ZERO;
        loop {
            tokio::select! {
                _ = facts.tick() => self.recorder.record(&Record::Facts(self.facts.clone()), false).await,
                _ = ticks.tick() => self.recorder.record(&Record::Vitals(self.vitals(&mut cpu)), false).await,
                _ = alive.tick() => note_alive(&self.state_dir, self.clock.now()),
                () = stop.cancelled() => return,
            }
        }
    }

    fn vitals(&self, cpu: &mut Duration) -> Vitals {
        let spool = *self.recorder.state().borrow();
        Vitals {
            at: self.clock.now(),
            rss_bytes: host::rss_bytes(),
            cpu: host::cpu_since(cpu),
            spool_records: spool.durable.0.saturating_sub(spool.acked.0),
            spool_bytes: spool.bytes,
            ticks_due: self.tally.due.swap(0, Ordering::Relaxed),
            ticks_late: self.tally.late.swap(0, Ordering::Relaxed),
            ticks_not_run: self.tally.not_run.swap(0, Ordering::Relaxed),
            spool_degraded: spool.degraded,
            plan_version: self.plans.borrow().version,
            ticks_tainted: self.tally.tainted.swap(0, Ordering::Relaxed),
            stretch: self.tally.stretch.load(Ordering::Relaxed),
        }
    }
}

/// Errors at the edge are told once, with their causes.
pub fn report(error: &anyhow::Error) -> String {
    Chain(error.as_ref()).to_string()
}
