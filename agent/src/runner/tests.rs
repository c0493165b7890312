//! Real sockets on loopback. Whatever happens, each tick of a check is told once, under its own time.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use peil_proto::ids::Seq;
use peil_proto::plan::{CheckDef, CheckKind, Http, Tcp};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::probe::Local;
use crate::recorder::SpoolThread;
use crate::spool::{Limits, Spool};

const INTERVAL_MS: u32 = 50;

fn check(no: u32, kind: CheckKind, timeout_ms: u32) -> CheckDef {
    CheckDef { no: CheckNo(no), name: format!("check-{no}"), interval_ms: INTERVAL_MS, timeout_ms, kind }
}

fn tcp(no: u32, to: SocketAddr) -> CheckDef {
    check(no, CheckKind::Tcp(Tcp { address: to.to_string(), ..Tcp::default() }), 40)
}

/// A check of a server that accepts and then says nothing.
fn hanging(no: u32, to: SocketAddr, timeout_ms: u32) -> CheckDef {
    let url = format!("http://{to}/");
    check(no, CheckKind::Http(Http { url, ..Http::default() }), timeout_ms)
}

fn policy() -> Policy {
    let kinds = ["http", "tcp"].map(str::to_owned).to_vec();
    Policy { kinds, interval_min: Millis(1), networks: Vec::new(), in_flight_max: 64, local: Local::default() }
}

/// Accepts for ever and keeps every connection open and silent; tells of each.
async fn silent_server(tasks: &mut JoinSet<()>) -> (SocketAddr, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (accepted, seen) = mpsc::channel(1_000);
    tasks.spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
            let _ = accepted.try_send(());
        }
    });
    (address, seen)
}

struct Agent {
    recorder: Recorder,
    thread: SpoolThread,
    plans: watch::Sender<Arc<Plan>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    runners: JoinSet<()>,
    _dir: TempDir,
}

impl Agent {
    fn new(policy: Policy, checks: Vec<CheckDef>) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        Self::at_home(home.path(), (policy, Probing::default()), checks)
    }

    /// An agent that keeps what it saw in `home`.
    fn at_home(home: &std::path::Path, rules: (Policy, Probing), checks: Vec<CheckDef>) -> Self {
        let (recorder, thread, dir) = recorder();
        let (plans, changes) = watch::channel(Arc::new(Plan { version: 1, checks }));
        let stop = CancellationToken::new();
        let tally = Arc::new(Tally::default());
        let home = home.to_owned();
        let runner = Runner::new(AgentId([1; 16]), rules, recorder.clone(), WallClock::System, tally, home);
        let mut runners = JoinSet::new();
        runners.spawn(runner.run(changes, stop.clone()));
        Self { recorder, thread, plans, stop, tasks: JoinSet::new(), runners, _dir: dir }
    }

    /// Waits until `enough` says that what was recorded is enough.
    async fn until(&self, enough: impl Fn(&[Record]) -> bool) {
        let mut state = self.recorder.state();
        loop {
            state.borrow_and_update();
            self.recorder.sync().await;
            if enough(&records(&self.recorder).await) {
                return;
            }
            state.changed().await.expect("the spool is there");
        }
    }

    /// Stops and returns everything that was recorded.
    async fn stop(mut self) -> Vec<Record> {
        self.stop.cancel();
        self.runners.join_next().await.expect("a runner").expect("an orderly end");
        self.recorder.sync().await;
        let all = records(&self.recorder).await;
        drop(self.recorder);
        self.thread.join().await;
        self.tasks.shutdown().await;
        all
    }
}

fn recorder() -> (Recorder, SpoolThread, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let limits = Limits { keep_free_bytes: 0, ..Limits::default() };
    let (spool, _) = Spool::open(dir.path(), "machine", limits).expect("opens");
    let (recorder, thread) =
        Recorder::start(spool, WallClock::System, crate::recorder::Ledger::open(dir.path().join("gaps"), Millis::DAY))
            .expect("starts");
    (recorder, thread, dir)
}

async fn records(recorder: &Recorder) -> Vec<Record> {
    let read = recorder.read_after(Seq(0), 100_000, 16 << 20).await;
    let records = read.iter().map(|(_, bytes)| peil_proto::convert::from_spool(bytes).expect("a record"));
    records.map(|record| record.expect("a known kind")).collect()
}

/// The outcomes of a check by tick; a tick that is told twice is a failure of the test.
fn outcomes(records: &[Record], no: u32) -> BTreeMap<i64, Outcome> {
    let mut told = BTreeMap::new();
    for record in records {
        if let Record::Sample(sample) = record
            && sample.check == CheckNo(no)
        {
            let before = told.insert(sample.scheduled_at.0, sample.outcome);
            assert_eq!(before, None, "the tick at {} is told twice", sample.scheduled_at);
        }
    }
    told
}

/// Fails unless the ticks of the check follow each other without a hole; a busy machine may have put some of
/// them into a gap.
fn assert_no_hole(records: &[Record], no: u32) {
    let mut ticks: Vec<i64> = outcomes(records, no).into_keys().collect();
    for record in records {
        if let Record::Gap(gap) = record
            && gap.check == Some(CheckNo(no))
        {
            ticks.extend((gap.from.0..=gap.to.0).step_by(INTERVAL_MS as usize));
        }
    }
    ticks.sort_unstable();
    let steps: Vec<i64> = ticks.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.iter().all(|step| *step == i64::from(INTERVAL_MS)), "{steps:?}");
}

fn samples(records: &[Record], no: u32, outcome: Outcome) -> usize {
    outcomes(records, no).values().filter(|told| **told == outcome).count()
}

const OVERRUN: Outcome = Outcome::NotRun(NotRun::Overrun);
const OVERLOAD: Outcome = Outcome::NotRun(NotRun::Overload);
const SHUTDOWN: Outcome = Outcome::NotRun(NotRun::Shutdown);

#[tokio::test]
async fn an_answer_is_up_with_its_detail_and_a_closed_port_is_down() {
    let mut tasks = JoinSet::new();
    let (open, _seen) = silent_server(&mut tasks).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let agent = Agent::new(policy(), vec![tcp(1, open), tcp(2, closed)]);
    agent.until(|all| samples(all, 1, Outcome::Up { code: 0 }) >= 2 && outcomes(all, 2).len() >= 2).await;
    let all = agent.stop().await;
    let refused = Outcome::Failed { kind: FailureKind::Refused, code: 0 };
    assert!(samples(&all, 2, refused) >= 1, "{:?}", outcomes(&all, 2));
    let detailed = all.iter().any(|record| matches!(record, Record::Detail(detail) if detail.check == CheckNo(2)));
    assert!(detailed, "a first outcome says what is behind it");
    assert_no_hole(&all, 1);
    assert_no_hole(&all, 2);
}

#[tokio::test]
async fn a_probe_that_runs_over_its_next_ticks_leaves_one_record_for_each_of_them() {
    let mut tasks = JoinSet::new();
    let (address, mut seen) = silent_server(&mut tasks).await;
    let agent = Agent::new(policy(), vec![hanging(1, address, 600_000)]);
    seen.recv().await.expect("a connection");
    agent.until(|all| samples(all, 1, OVERRUN) >= 3).await;
    let all = agent.stop().await;
    let told = outcomes(&all, 1);
    let (_, first) = told.iter().next().expect("a tick");
    assert_eq!(*first, SHUTDOWN, "the probe under way is marked at its own tick, not at the time of the stop");
    assert_no_hole(&all, 1);
}

#[tokio::test]
async fn f20_without_a_free_slot_before_its_deadline_a_tick_is_overload() {
    let mut tasks = JoinSet::new();
    let (address, mut seen) = silent_server(&mut tasks).await;
    let agent = Agent::new(Policy { in_flight_max: 1, ..policy() }, vec![hanging(1, address, 600_000)]);
    seen.recv().await.expect("the slot is taken");
    let checks = vec![hanging(1, address, 600_000), tcp(2, address)];
    agent.plans.send_replace(Arc::new(Plan { version: 2, checks }));
    agent.until(|all| samples(all, 2, OVERLOAD) >= 3).await;
    let all = agent.stop().await;
    assert_eq!(samples(&all, 2, Outcome::Up { code: 0 }), 0);
    assert_no_hole(&all, 1);
    assert_no_hole(&all, 2);
}

#[tokio::test]
async fn f26_what_the_local_policy_forbids_never_leaves_this_host() {
    let mut tasks = JoinSet::new();
    let (address, mut seen) = silent_server(&mut tasks).await;
    let kinds = vec!["http".to_owned()];
    let agent = Agent::new(Policy { kinds, ..policy() }, vec![tcp(1, address)]);
    agent.until(|all| samples(all, 1, Outcome::NotRun(NotRun::Policy)) >= 3).await;
    let all = agent.stop().await;
    assert_eq!(samples(&all, 1, Outcome::Up { code: 0 }), 0);
    assert!(seen.try_recv().is_err(), "nobody was called");
    assert_no_hole(&all, 1);
}

#[tokio::test]
async fn a_check_that_leaves_the_plan_while_its_probe_runs_is_told_to_the_end() {
    let mut tasks = JoinSet::new();
    let (address, mut seen) = silent_server(&mut tasks).await;
    let agent = Agent::new(policy(), vec![hanging(1, address, 600_000)]);
    seen.recv().await.expect("a connection");
    agent.plans.send_replace(Arc::new(Plan { version: 2, checks: vec![tcp(2, address)] }));
    agent.until(|all| samples(all, 2, Outcome::Up { code: 0 }) >= 1).await;
    let all = agent.stop().await;
    assert_eq!(samples(&all, 1, SHUTDOWN), 1);
    assert_no_hole(&all, 1);
    assert_no_hole(&all, 2);
}

#[tokio::test]
async fn a_probe_that_panics_leaves_its_record_and_frees_its_check() {
    let (recorder, thread, dir) = recorder();
    let tally = Arc::new(Tally::default());
    let rules = (policy(), Probing::default());
    let home = dir.path().to_owned();
    let mut runner = Runner::new(AgentId([1; 16]), rules, recorder.clone(), WallClock::System, tally, home);
    let task = runner.probes.spawn(async { panic!("a fault in a probe, made by the test") });
    let check = Arc::new(tcp(1, "127.0.0.1:1".parse().expect("an address")));
    let due = Due { check, scheduled_at: UtcTime(1_000), mono_due: Millis(0) };
    runner.in_flight.insert(CheckNo(1), InFlight { task: task.id(), due });
    let joined = runner.probes.join_next().await.expect("a task");
    runner.joined(joined).await;
    assert!(runner.in_flight.is_empty());
    recorder.sync().await;
    let told = outcomes(&records(&recorder).await, 1);
    let ours = Outcome::Failed { kind: FailureKind::LocalResource, code: 0 };
    assert_eq!(told, BTreeMap::from([(1_000, ours)]));
    assert_eq!(ours.state(), State::Unknown);
    drop((runner, recorder));
    thread.join().await;
}

fn refused() -> Outcome {
    Outcome::Failed { kind: FailureKind::Refused, code: 0 }
}

async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address")
}

#[tokio::test]
async fn a_first_failure_is_confirmed_between_two_ticks_and_the_outage_still_starts_at_the_tick() {
    let home = tempfile::tempdir().expect("a directory");
    let probing = Probing { confirm: Confirm { attempts: 2, every: Millis(40) }, ..Probing::default() };
    let check = CheckDef { interval_ms: 400, timeout_ms: 30, ..tcp(1, closed_port().await) };
    let agent = Agent::at_home(home.path(), (policy(), probing), vec![check]);
    agent.until(|all| outcomes(all, 1).len() >= 4).await;
    let all = agent.stop().await;
    let told = outcomes(&all, 1);
    assert!(told.values().all(|outcome| *outcome == refused() || *outcome == SHUTDOWN), "{told:?}");
    let labels: Vec<i64> = told.into_keys().collect();
    assert_eq!([labels[1] - labels[0], labels[2] - labels[0]], [40, 80], "{labels:?}");
    assert_eq!((labels[3] - labels[0]) % 400, 0, "the rhythm is untouched: {labels:?}");
}

#[tokio::test]
async fn a_restart_is_no_change_of_what_was_seen_before_it() {
    let home = tempfile::tempdir().expect("a directory");
    let address = closed_port().await;
    let mut details = Vec::new();
    for _ in 0..2 {
        let rules = (policy(), Probing::default());
        let agent = Agent::at_home(home.path(), rules, vec![tcp(1, address)]);
        agent.until(|all| samples(all, 1, refused()) >= 2).await;
        // Shutdown in the middle of a probe is itself an outcome, and then the next is a change.
        let all = agent.stop().await;
        let told = outcomes(&all, 1).into_values().next_back();
        details.push((all.iter().filter(|record| matches!(record, Record::Detail(_))).count(), told));
    }
    assert!(details[0].0 >= 1);
    assert_eq!(details[1].0, usize::from(details[0].1 == Some(SHUTDOWN)), "{details:?}");
}

#[tokio::test]
async fn f35_when_no_reference_answers_a_failure_is_ours_and_says_so() {
    let home = tempfile::tempdir().expect("a directory");
    // Nothing can be sent to a multicast address over TCP.
    let nowhere: SocketAddr = "224.0.0.1:9".parse().expect("an address");
    let probing = Probing { references: vec![nowhere], ..Probing::default() };
    let agent = Agent::at_home(home.path(), (policy(), probing), vec![tcp(1, nowhere), tcp(2, closed_port().await)]);
    let ours = Outcome::Failed { kind: FailureKind::VantageDown, code: 0 };
    agent.until(|all| samples(all, 1, ours) >= 2 && samples(all, 2, refused()) >= 2).await;
    let all = agent.stop().await;
    assert_eq!(ours.state(), State::Unknown);
    let says = |record: &Record| matches!(record, Record::Detail(detail) if detail.check == CheckNo(1) && detail.text.contains("own network is down"));
    assert!(all.iter().any(says), "{all:?}");
}
