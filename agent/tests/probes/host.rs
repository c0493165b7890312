//! Checks of this host: units, processes, ports, files, room, thresholds, commands and reports.
//!
//! What the kernel tells is tried on the real one; where a figure must be known beforehand, on files like its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use peil_agent::probe::heartbeat::{Verdict, report};
use peil_agent::probe::{AddressPolicy, Local, Observation, Phase, ProbeContext, run};
use peil_proto::plan::{
    CheckKind, Cpu, Exec, File, Heartbeat, Listen, Memory, Mount, Pattern, Pressure, Process, Unit, Warning,
};
use peil_proto::sample::{FailureKind, Outcome, State};
use peil_proto::time::{UtcTime, WallClock};

use crate::target::{Target, closed_port};
use crate::{PATIENT_MS, SHORT_MS, check, failure, probe};

/// A host whose places are below one directory.
struct Host {
    dir: tempfile::TempDir,
    clock: WallClock,
}

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), clock: WallClock::System }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("below")).expect("makes");
        std::fs::write(path, text).expect("writes");
    }

    fn context(&self) -> ProbeContext {
        let local = Local {
            commands_file: self.path("commands.toml"),
            reports_dir: self.path("reports"),
            proc_dir: self.path("proc"),
            systemctl: self.path("systemctl"),
            ..Local::default()
        };
        ProbeContext::on_host(self.clock.clone(), AddressPolicy::default(), local)
    }

    async fn sees(&self, kind: CheckKind) -> Observation {
        run(&check(kind, PATIENT_MS), &self.context()).await
    }
}

fn fact<'a>(seen: &'a Observation, name: &str) -> Option<&'a str> {
    seen.detail.facts.iter().find(|fact| fact.name == name).map(|fact| fact.value.as_str())
}

#[tokio::test]
async fn processes_are_counted_by_program_and_command_line() {
    let mark = format!("31{}", std::process::id());
    let mut children: Vec<_> =
        (0..2).map(|_| std::process::Command::new("sleep").arg(&mark).spawn().expect("starts")).collect();
    let of =
        |matches: &str| Process { process: "sleep".into(), matches: Some(Pattern::new(matches)), ..Process::default() };
    let pattern = format!("^sleep {mark}$");
    let seen =
        probe(CheckKind::Process(Process { count_min: 2, count_max: Some(2), ..of(&pattern) }), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    let more = Process { count_min: 3, ..of(&pattern) };
    assert_eq!(failure(&probe(CheckKind::Process(more), PATIENT_MS).await), (FailureKind::Content, None));
    let fewer = Process { count_max: Some(1), ..of(&pattern) };
    assert_eq!(failure(&probe(CheckKind::Process(fewer), PATIENT_MS).await).0, FailureKind::Content);
    for child in &mut children {
        child.kill().expect("ends");
        child.wait().expect("ended");
    }
    assert_eq!(failure(&probe(CheckKind::Process(of(&pattern)), PATIENT_MS).await).0, FailureKind::Content);
    let nowhere = Host::new().sees(CheckKind::Process(of(&pattern))).await;
    assert_eq!(nowhere.outcome.state(), State::Unknown, "a host without /proc cannot tell");
}

#[tokio::test]
async fn a_listening_port_is_seen_without_being_connected_to() {
    let target = Target::silent().await;
    let (address, port) = (target.address, target.address.port());
    for socket in [format!("tcp/{port}"), format!("tcp/{address}")] {
        assert_eq!(probe(CheckKind::Listen(Listen { socket }), PATIENT_MS).await.outcome, Outcome::Up { code: 0 });
    }
    assert_eq!(target.visits(), 0);
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let socket = format!("udp/{}", udp.local_addr().expect("an address"));
    assert_eq!(probe(CheckKind::Listen(Listen { socket }), PATIENT_MS).await.outcome.state(), State::Up);
    for socket in [format!("tcp/127.0.0.9:{port}"), format!("tcp/{}", closed_port().await)] {
        let seen = probe(CheckKind::Listen(Listen { socket }), PATIENT_MS).await;
        assert_eq!((failure(&seen).0, seen.outcome.state()), (FailureKind::Refused, State::Down));
    }
}

#[tokio::test]
async fn a_file_has_an_age_and_a_size_or_must_not_be_there() {
    let mut host = Host::new();
    host.write("dump", "12345");
    let changed = std::fs::metadata(host.path("dump")).and_then(|meta| meta.modified()).expect("a time");
    let since = changed.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    host.clock = WallClock::manual(UtcTime(i64::try_from(since.as_millis()).expect("fits") + 100_000));
    let file = |name: &str| File { path: host.path(name).display().to_string(), ..File::default() };
    for (check, expected) in [
        (File { age_max_s: Some(100), size_min: Some(5), size_max: Some(5), ..file("dump") }, None),
        (File { age_max_s: Some(99), ..file("dump") }, Some(FailureKind::Content)),
        (File { size_min: Some(6), ..file("dump") }, Some(FailureKind::Content)),
        (File { size_max: Some(4), ..file("dump") }, Some(FailureKind::Content)),
        (file("gone"), Some(FailureKind::NoSuchName)),
        (File { absent: true, ..file("gone") }, None),
        (File { absent: true, ..file("dump") }, Some(FailureKind::Content)),
    ] {
        let seen = host.sees(CheckKind::File(check.clone())).await;
        assert_eq!(seen.detail.failure.map(|failure| failure.kind), expected, "{check:?}");
    }
}

#[tokio::test]
async fn a_mount_has_room_and_what_is_not_mounted_is_told_apart_from_what_is_not_there() {
    let root = Mount { mount: "/".into(), used_max: 100, inodes_max: 100, ..Mount::default() };
    let seen = probe(CheckKind::Mount(root.clone()), PATIENT_MS).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    assert!(fact(&seen, "used").is_some_and(|used| used.ends_with(" %")));
    let greedy = Mount { free_min_mib: Some(1 << 30), ..root.clone() };
    assert_eq!(failure(&probe(CheckKind::Mount(greedy), PATIENT_MS).await), (FailureKind::Content, None));
    let dir = tempfile::tempdir().expect("a directory");
    let here = Mount { mount: dir.path().display().to_string(), ..root.clone() };
    assert_eq!(failure(&probe(CheckKind::Mount(here), PATIENT_MS).await).0, FailureKind::Content);
    let gone = Mount { mount: dir.path().join("gone").display().to_string(), ..root };
    assert_eq!(failure(&probe(CheckKind::Mount(gone), PATIENT_MS).await).0, FailureKind::NoSuchName);
}

#[tokio::test]
async fn a_threshold_stays_exceeded_until_it_is_well_below() {
    let host = Host::new();
    let ctx = host.context();
    let memory = check(CheckKind::Memory(Memory { of: "memory".into(), max: 90, hysteresis: 5 }), PATIENT_MS);
    for (available, state) in
        [(100, State::Up), (99, State::Down), (140, State::Down), (150, State::Up), (110, State::Up)]
    {
        host.write("proc/meminfo", &format!("MemTotal: 1000 kB\nMemAvailable: {available} kB\n"));
        let seen = run(&memory, &ctx).await;
        assert_eq!(seen.outcome.state(), state, "{available}: {seen:?}");
    }
    let pressure = check(CheckKind::Pressure(Pressure { of: "io".into(), ..Pressure::default() }), PATIENT_MS);
    let seen = run(&pressure, &ctx).await;
    assert_eq!((failure(&seen).0, seen.outcome.state()), (FailureKind::LocalResource, State::Unknown));
    host.write("proc/pressure/io", "some avg10=0.00 avg60=50.01 avg300=0.00 total=1\n");
    assert_eq!(failure(&run(&pressure, &ctx).await).0, FailureKind::Content);
}

#[tokio::test]
async fn the_processors_are_looked_at_twice() {
    let host = Host::new();
    host.write("proc/stat", "cpu  10 0 10 10 0 0 0 0\n");
    let busy = Cpu { of: "busy".into(), max: 1, hysteresis: 0 };
    let seen = host.sees(CheckKind::Cpu(busy.clone())).await;
    assert_eq!(fact(&seen, "busy"), Some("0.00 %"), "nothing happened between the two: {seen:?}");
    let short = run(&check(CheckKind::Cpu(busy), 10), &host.context()).await;
    assert_eq!(short.outcome.state(), State::Unknown, "no time for a second look");
}

#[tokio::test]
async fn the_real_kernel_tells_about_memory_and_processors() {
    for of in ["memory", "swap"] {
        let kind = CheckKind::Memory(Memory { of: of.into(), max: 100, hysteresis: 0 });
        assert_eq!(probe(kind, PATIENT_MS).await.outcome, Outcome::Up { code: 0 }, "{of}");
    }
    let kind = CheckKind::Cpu(Cpu { of: "busy".into(), max: 100, hysteresis: 0 });
    assert_eq!(probe(kind, PATIENT_MS).await.outcome, Outcome::Up { code: 0 });
}

/// A program in the place of systemctl.
fn stand_in(host: &Host, script: &str) {
    host.write("systemctl", &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(host.path("systemctl"), std::fs::Permissions::from_mode(0o755)).expect("changes");
}

#[tokio::test]
async fn the_state_of_a_unit_is_what_systemd_says_and_its_silence_is_not_the_units() {
    let unit = Unit { unit: "nginx.service".into(), ..Unit::default() };
    let host = Host::new();
    for (script, expected) in [
        ("echo LoadState=loaded; echo ActiveState=active; echo SubState=running; echo NRestarts=0", None),
        ("echo LoadState=loaded; echo ActiveState=failed; echo SubState=failed", Some(FailureKind::Status)),
        ("echo LoadState=not-found; echo ActiveState=inactive", Some(FailureKind::NoSuchName)),
        ("echo 'System has not been booted with systemd'; exit 1", Some(FailureKind::LocalResource)),
        ("[ \"$4\" = nginx.service ] || exit 1; echo LoadState=loaded; echo ActiveState=active", None),
    ] {
        stand_in(&host, script);
        let seen = host.sees(CheckKind::Unit(unit.clone())).await;
        assert_eq!(seen.detail.failure.as_ref().map(|failure| failure.kind), expected, "{script}: {seen:?}");
    }
    stand_in(&host, "sleep 1000");
    let seen = run(&check(CheckKind::Unit(unit.clone()), SHORT_MS), &host.context()).await;
    assert_eq!(seen.outcome.state(), State::Unknown);
    // The real one: either there is no such unit, or no systemd to ask.
    let none = Unit { unit: "peil-test-none.service".into(), ..unit };
    let kind = failure(&probe(CheckKind::Unit(none), PATIENT_MS).await).0;
    assert!(matches!(kind, FailureKind::NoSuchName | FailureKind::LocalResource), "{kind}");
}

/// Commands by name, each a shell script.
fn allow(host: &Host, commands: &[(&str, &str)]) {
    let tables =
        commands.iter().map(|(name, script)| format!("[command.{name}]\nargv = ['/bin/sh', '-c', '''{script}''']\n"));
    host.write("commands.toml", &tables.collect::<String>());
    std::fs::set_permissions(host.path("commands.toml"), std::fs::Permissions::from_mode(0o644)).expect("changes");
}

fn exec(command: &str) -> CheckKind {
    CheckKind::Exec(Exec { command: command.into(), ..Exec::default() })
}

/// Whether this test may make files of root. Without that right `exec` must refuse every file, which is then tested.
fn is_root(host: &Host) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(host.dir.path()).expect("is there").uid() == 0
}

#[tokio::test]
async fn a_command_answers_as_a_plug_in_does() {
    let host = Host::new();
    allow(
        &host,
        &[
            ("fine", "echo 'OK - 3 disks | disks=3;2:;1: temp=41.5C'"),
            ("warn", "echo WARNING; exit 1"),
            ("bad", "echo 'CRITICAL - degraded'; exit 2"),
            ("lost", "echo UNKNOWN; exit 3"),
            ("odd", "exit 77"),
            ("killed", "kill -9 $$"),
        ],
    );
    if !is_root(&host) {
        assert_eq!(failure(&host.sees(exec("fine")).await).0, FailureKind::Permission);
        return;
    }
    let seen = host.sees(exec("fine")).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    assert_eq!(
        (fact(&seen, "output"), fact(&seen, "disks"), fact(&seen, "temp")),
        (Some("OK - 3 disks"), Some("3"), Some("41.5C"))
    );
    assert_eq!(host.sees(exec("warn")).await.outcome.state(), State::Up);
    let strict = CheckKind::Exec(Exec { command: "warn".into(), warning: Warning::Down });
    assert_eq!(host.sees(strict).await.outcome, Outcome::Failed { kind: FailureKind::Status, code: 1 });
    let seen = host.sees(exec("bad")).await;
    assert_eq!(seen.outcome, Outcome::Failed { kind: FailureKind::Status, code: 2 });
    assert_eq!(seen.detail.failure.map(|failure| failure.text), Some("CRITICAL - degraded".to_owned()));
    for unknown in ["lost", "odd", "killed", "not-allowed"] {
        assert_eq!(host.sees(exec(unknown)).await.outcome.state(), State::Unknown, "{unknown}");
    }
}

/// Whether the process is gone, or only waits for its parent to notice.
fn is_gone(pid: &str) -> bool {
    match std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")) {
        Err(_) => true,
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])),
    }
}

async fn eventually_gone(file: &Path) {
    let pid = std::fs::read_to_string(file).expect("told its number");
    while !is_gone(pid.trim()) {
        tokio::task::yield_now().await;
    }
}

/// F24: a command that hangs, forks, ignores what it is told, and prints without end.
#[tokio::test]
async fn f24_a_command_leaves_nothing_behind_whatever_it_does() {
    let host = Host::new();
    let pid = host.path("pid").display().to_string();
    let hangs = format!("trap '' TERM HUP; sleep 1000 & echo $! > {pid}; wait");
    let holds = format!("sleep 1000 & echo $! > {pid}; echo OK");
    allow(
        &host,
        &[
            ("hangs", &hangs),
            ("holds", &holds),
            ("floods", "yes"),
            ("prints", "head -c 100000000 /dev/zero"),
            ("env", "echo \"$HOME:$PWD\"; cat"),
        ],
    );
    if !is_root(&host) {
        assert_eq!(failure(&host.sees(exec("hangs")).await).0, FailureKind::Permission);
        return;
    }
    let ctx = host.context();
    let seen = run(&check(exec("hangs"), SHORT_MS), &ctx).await;
    assert_eq!(failure(&seen), (FailureKind::Timeout, Some(Phase::FirstByte)));
    eventually_gone(&host.path("pid")).await;
    assert_eq!(
        host.sees(exec("holds")).await.outcome,
        Outcome::Up { code: 0 },
        "a child with the pipe is not waited for"
    );
    eventually_gone(&host.path("pid")).await;
    assert_eq!(failure(&run(&check(exec("floods"), SHORT_MS), &ctx).await).0, FailureKind::Timeout);
    let seen = host.sees(exec("prints")).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 });
    assert!(fact(&seen, "output").is_some_and(|output| output.len() < 8_000));
    assert_eq!(fact(&host.sees(exec("env")).await, "output"), Some(":/"), "no home, no input");
    // A probe that is dropped takes its command along.
    std::fs::remove_file(host.path("pid")).expect("is there");
    let def = check(exec("hangs"), PATIENT_MS);
    {
        let running = run(&def, &ctx);
        tokio::pin!(running);
        while !std::fs::read_to_string(host.path("pid")).is_ok_and(|text| text.ends_with('\n')) {
            tokio::select! {
                biased;
                _ = &mut running => panic!("ended by itself"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
    eventually_gone(&host.path("pid")).await;
}

#[tokio::test]
async fn a_report_holds_for_its_time_and_silence_is_a_failure() {
    let mut host = Host::new();
    let now = UtcTime::parse("2026-11-25T12:00:00Z").expect("a time");
    host.clock = WallClock::manual(now);
    let check_ = Heartbeat { report: "backup".into(), within_s: 60 };
    let kind = || CheckKind::Heartbeat(check_.clone());
    let seen = host.sees(kind()).await;
    assert_eq!((failure(&seen).0, seen.outcome.state()), (FailureKind::Timeout, State::Down), "never reported");
    let dir = host.path("reports");
    report(&dir, "backup", Verdict::Ok, "3 GB\n\u{1b}[2J", now).expect("reports");
    let seen = host.sees(kind()).await;
    assert_eq!(seen.outcome, Outcome::Up { code: 0 }, "{seen:?}");
    assert!(fact(&seen, "text").is_some_and(|text| text.starts_with("3 GB") && !text.contains('\u{1b}')));
    host.clock = WallClock::manual(UtcTime(now.0 + 61_000));
    assert_eq!(failure(&host.sees(kind()).await).0, FailureKind::Timeout, "too old");
    report(&dir, "backup", Verdict::Fail, "disk full", UtcTime(now.0 + 61_000)).expect("reports");
    let seen = host.sees(kind()).await;
    assert_eq!(failure(&seen).0, FailureKind::Status);
    assert!(seen.detail.failure.is_some_and(|failure| failure.text.ends_with("disk full")));
    assert_eq!(std::fs::read_dir(&dir).expect("is there").count(), 1, "nothing is left beside it");
    report(&dir, "../x", Verdict::Ok, "", now).expect_err("not a name");
}

#[tokio::test]
async fn a_report_that_is_a_link_a_pipe_or_nonsense_is_not_believed() {
    let host = Host::new();
    host.write("secret", "ok 99999999999999\nroot:hash");
    host.write("reports/nonsense", "ok yesterday\n");
    std::os::unix::fs::symlink(host.path("secret"), host.path("reports/link")).expect("links");
    std::fs::create_dir(host.path("reports/dir")).expect("makes");
    for name in ["link", "nonsense", "dir"] {
        let seen = host.sees(CheckKind::Heartbeat(Heartbeat { report: name.into(), within_s: 60 })).await;
        assert_eq!(seen.outcome.state(), State::Unknown, "{name}: {seen:?}");
        assert!(!format!("{seen:?}").contains("root:hash"));
    }
}
