//! What a running agent tells about itself on this host: a socket in the state directory that answers every connection with
//! one JSON object and hangs up. It reads nothing, so nobody can ask for anything.
//!
//! Who may look: root and the group of the agent (the socket's mode is 0660). What is told has no secrets, but names
//! what is watched. One connection at a time, each [`ANSWER_MAX`] at most.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::plan::Plan;
use peil_proto::sample::Sample;
use peil_proto::time::{UtcTime, WallClock};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::host;
use crate::recorder::Recorder;

/// Time one reader has.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Bytes a reader takes from whoever answers.
const BYTES_MAX: u64 = 16 << 20;

/// Where the socket is.
pub fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("status.sock")
}

/// What runs write and the socket reads. The lock is short and never held across an await.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    plan_version: u64,
    checks: BTreeMap<CheckNo, Row>,
    connected_since: Option<UtcTime>,
    clock_ahead_ms: Option<i64>,
    trouble: Option<String>,
}

#[derive(Debug)]
struct Row {
    name: String,
    kind: String,
    next: Option<UtcTime>,
    last: Option<Sample>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another plan is in force.
    pub fn plan(&self, plan: &Plan) {
        let mut inner = self.lock();
        let mut old = std::mem::take(&mut inner.checks);
        inner.plan_version = plan.version;
        inner.checks = plan
            .checks
            .iter()
            .map(|check| {
                let before = old.remove(&check.no).filter(|row| row.name == check.name);
                let (next, last) = before.map_or((None, None), |row| (row.next, row.last));
                (check.no, Row { name: check.name.clone(), kind: check.kind.name().to_owned(), next, last })
            })
            .collect();
    }

    /// A check runs next at this time.
    pub fn next(&self, check: CheckNo, at: UtcTime) {
        if let Some(row) = self.lock().checks.get_mut(&check) {
            row.next = Some(at);
        }
    }

    /// What came of a tick.
    pub fn told(&self, sample: &Sample) {
        if let Some(row) = self.lock().checks.get_mut(&sample.check) {
            row.last = Some(*sample);
        }
    }

    /// The collector has welcomed us.
    pub fn connected(&self, at: UtcTime, clock_ahead_ms: i64) {
        let mut inner = self.lock();
        (inner.connected_since, inner.clock_ahead_ms, inner.trouble) = (Some(at), Some(clock_ahead_ms), None);
    }

    /// There is no connection, and why.
    pub fn disconnected(&self, why: &str) {
        let mut inner = self.lock();
        (inner.connected_since, inner.trouble) = (None, Some(why.to_owned()));
    }

    fn to_json(&self) -> Value {
        let inner = self.lock();
        let last = |sample: &Sample| {
            json!({
                "at": sample.scheduled_at.to_string(), "outcome": sample.outcome.word(),
                "state": sample.outcome.state().word(), "delay_ms": sample.delay.0, "took_us": sample.phases.total().0,
            })
        };
        let row = |(no, row): (&CheckNo, &Row)| {
            json!({
                "no": no.0, "name": row.name, "kind": row.kind, "next": row.next.map(|at| at.to_string()),
                "last": row.last.as_ref().map(last),
            })
        };
        json!({
            "connected_since": inner.connected_since.map(|at| at.to_string()), "trouble": inner.trouble,
            "clock_ahead_ms": inner.clock_ahead_ms, "plan_version": inner.plan_version,
            "checks": inner.checks.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

/// The task that answers.
pub struct Teller {
    /// What the parts of the agent wrote down.
    pub board: Board,
    /// State of the spool.
    pub recorder: Recorder,
    /// Who we are.
    pub agent: AgentId,
    /// Where the collector is.
    pub collector: String,
    /// When this process started.
    pub started: UtcTime,
    /// Wall clock.
    pub clock: WallClock,
    /// Where the socket goes.
    pub state_dir: PathBuf,
}

impl Teller {
    /// Answers until `stop`. Without a socket the agent does its work all the same.
    pub async fn run(self, stop: CancellationToken) {
        let path = socket(&self.state_dir);
        let listener = match bind(&path) {
            Ok(listener) => listener,
            Err(error) => {
                warn!(%error, path = %path.display(), "no socket for `peil-agent status`");
                return;
            }
        };
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((mut stream, _)) => {
                    let text = self.to_json().to_string();
                    // A reader that goes away or does not read is no trouble of ours.
                    let _ = tokio::time::timeout(ANSWER_MAX, stream.write_all(text.as_bytes())).await;
                }
                // Out of descriptors: the next look is as good.
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
        let _ = std::fs::remove_file(path);
    }

    fn to_json(&self) -> Value {
        let spool = *self.recorder.state().borrow();
        let now = self.clock.now();
        let cpu = host::cpu_time();
        let mut told = self.board.to_json();
        told["agent"] = json!(self.agent.to_string());
        told["version"] = json!(env!("CARGO_PKG_VERSION"));
        told["pid"] = json!(std::process::id());
        told["collector"] = json!(self.collector);
        told["now"] = json!(now.to_string());
        told["running_since"] = json!(self.started.to_string());
        told["rss_bytes"] = json!(host::rss_bytes());
        told["cpu_ms"] = json!(u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX));
        told["spool"] = json!({
            "epoch": spool.epoch.to_string(), "durable": spool.durable.0, "acked": spool.acked.0,
            "records": spool.durable.0.saturating_sub(spool.acked.0), "bytes": spool.bytes, "degraded": spool.degraded,
        });
        told
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        // Left by a run that was killed: the spool's lock says that we are the only one.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Asks the agent that runs on this host.
///
/// # Errors
/// When none runs, or this user may not ask.
pub fn ask(state_dir: &Path) -> anyhow::Result<Value> {
    let path = socket(state_dir);
    let stream = std::os::unix::net::UnixStream::connect(&path).with_context(|| {
        format!("no agent answers at {}: is it running, and are you root or in its group?", path.display())
    })?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let mut text = String::new();
    stream.take(BYTES_MAX).read_to_string(&mut text).context("the agent does not answer")?;
    serde_json::from_str(&text).context("the agent's answer cannot be read")
}

/// `peil-agent status`: the answer as a page of text, or as it came.
///
/// # Errors
/// As [`ask`], or when it cannot be printed.
pub fn command(state_dir: &Path, as_json: bool) -> anyhow::Result<()> {
    let told = ask(state_dir)?;
    let mut out = io::stdout().lock();
    if as_json {
        return writeln!(out, "{told}").context("cannot print");
    }
    out.write_all(page(&told).as_bytes()).context("cannot print")
}

fn page(told: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let link = match told["connected_since"].as_str() {
        Some(since) => format!("connected since {since}"),
        None => format!("not connected: {}", told["trouble"].as_str().unwrap_or("not tried yet")),
    };
    let spool = &told["spool"];
    let degraded = if spool["degraded"] == json!(true) { "; THE DISK REFUSES, records are held in memory" } else { "" };
    let mut page = format!(
        "agent {} {}, process {}, running since {}\ncollector {}: {link}\nspool: {} records ({} bytes) wait, acked through {}, epoch {}{degraded}\nmemory {} KiB, CPU {} ms; plan {}, {} checks\n\n",
        text(&told["agent"]),
        text(&told["version"]),
        told["pid"],
        text(&told["running_since"]),
        text(&told["collector"]),
        spool["records"],
        spool["bytes"],
        spool["acked"],
        text(&spool["epoch"]),
        told["rss_bytes"].as_u64().unwrap_or(0) >> 10,
        told["cpu_ms"],
        told["plan_version"],
        told["checks"].as_array().map_or(0, Vec::len),
    );
    for check in told["checks"].as_array().into_iter().flatten() {
        let last = match &check["last"] {
            Value::Null => "not run yet".to_owned(),
            last => format!("{:<8} {} at {}", text(&last["state"]), text(&last["outcome"]), text(&last["at"])),
        };
        let next = check["next"].as_str().map_or(String::new(), |next| format!("; next {next}"));
        page.push_str(&format!("{:<24} {:<10} {last}{next}\n", text(&check["name"]), text(&check["kind"])));
    }
    page
}

#[cfg(test)]
mod tests {
    use peil_proto::plan::{CheckDef, CheckKind};
    use peil_proto::sample::{FailureKind, Outcome, Phases};
    use peil_proto::units::Millis;

    use super::*;
    use crate::recorder::Ledger;
    use crate::spool::{Limits, Spool};

    fn plan(names: &[&str]) -> Plan {
        let check = |(no, name): (u32, &&str)| CheckDef {
            no: CheckNo(no),
            name: (*name).to_owned(),
            interval_ms: 60_000,
            timeout_ms: 1_000,
            kind: CheckKind::Tcp(peil_proto::plan::Tcp { address: "h:1".into(), ..peil_proto::plan::Tcp::default() }),
        };
        Plan { version: 3, checks: (1..).zip(names).map(check).collect() }
    }

    #[tokio::test]
    async fn whoever_may_connect_is_told_everything_and_a_socket_left_behind_is_no_obstacle() {
        let home = tempfile::tempdir().expect("directory");
        std::fs::write(socket(home.path()), "left behind").expect("written");
        let (spool, _) = Spool::open(&home.path().join("spool"), "m", Limits::default()).expect("opens");
        let ledger = Ledger::open(home.path().join("gaps"), Millis::DAY);
        let (recorder, thread) = Recorder::start(spool, WallClock::System, ledger).expect("starts");
        let board = Board::default();
        board.plan(&plan(&["web", "db"]));
        board.next(CheckNo(1), UtcTime(60_000));
        let outcome = Outcome::Failed { kind: FailureKind::Refused, code: 0 };
        board.told(&Sample {
            check: CheckNo(1),
            scheduled_at: UtcTime(0),
            delay: Millis(2),
            outcome,
            phases: Phases::default(),
        });
        board.connected(UtcTime(5), -7);
        let teller = Teller {
            board: board.clone(),
            recorder: recorder.clone(),
            agent: AgentId([1; 16]),
            collector: "https://peil.example.org:7443".into(),
            started: UtcTime(0),
            clock: WallClock::manual(UtcTime(0)),
            state_dir: home.path().to_owned(),
        };
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(teller.run(stop.clone()));
        let place = home.path().to_owned();
        let told = loop {
            let place = place.clone();
            let asked = tokio::task::spawn_blocking(move || ask(&place)).await.expect("no panic");
            if let Ok(told) = asked {
                break told;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(
            (&told["checks"][0]["last"]["outcome"], &told["checks"][1]["last"]),
            (&json!("refused"), &Value::Null)
        );
        assert_eq!((&told["clock_ahead_ms"], &told["spool"]["records"]), (&json!(-7), &json!(0)));
        let mode = std::fs::metadata(socket(home.path())).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let text = page(&told);
        assert!(text.contains("web") && text.contains("down     refused") && text.contains("not run yet"), "{text}");
        stop.cancel();
        tasks.join_next().await.expect("a task").expect("ended");
        assert!(ask(home.path()).expect_err("gone").to_string().contains("is it running"));
        drop(recorder);
        thread.join().await;
    }

    #[test]
    fn a_new_plan_keeps_what_is_known_of_checks_that_stay() {
        let board = Board::default();
        board.plan(&plan(&["web", "db"]));
        board.next(CheckNo(1), UtcTime(1));
        board.next(CheckNo(2), UtcTime(2));
        board.plan(&plan(&["web", "mail"]));
        let told = board.to_json();
        assert!(told["checks"][0]["next"].is_string() && told["checks"][1]["next"].is_null(), "{told}");
        board.disconnected("refused");
        assert_eq!(board.to_json()["trouble"], json!("refused"));
    }
}
