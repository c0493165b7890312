//! Every mistake of a settings file in one answer, each with its line; and help that names the first step.

use std::path::Path;

use anyhow::{Context as _, ensure};
use peil_tests::programs::{self, Answer};

const BAD_COLLECTOR: &str = r#"[listen]
web = "everywhere"

[[contract]]
name = "office"
target = "101"

[[check]]
name = "front"
kind = "http"
url = "http://127.0.0.1/"
intervall_s = 15

[[service]]
name = "shop"
contract = "office"
expression = { all = ["front", "back"] }
"#;

const ABOUT_COLLECTOR: &str = r#"peil-collector: 4 mistakes in FILE:
  listen.web is "everywhere"; it must be an address and port such as "0.0.0.0:7443" at line 2
  contract[0].target is "101", which must lie between 0 and 100 at line 6
  unknown key "check[0].intervall_s" at line 12 (did you mean "check[0].interval_s"?)
  service[0].expression.all[1] names the check "back", which is not defined at line 17
"#;

const BAD_AGENT: &str = r#"collector = "http://peil.example.org:7443"
batch_s = 900

[policy]
kinds = ["http", "tpc"]

[spoool]
bytes_max_mib = 64
"#;

const ABOUT_AGENT: &str = r#"peil-agent: 4 mistakes in FILE:
  collector is "http://peil.example.org:7443"; it must be "https://host:port" of the collector's agent listener at line 1
  batch_s is 900; it must lie between 1 and 60 at line 2
  policy.kinds[1] is "tpc"; it must be "http" or "tls" or "tcp" or "udp" or "dns" or "icmp" or "ntp" or "grpc" or "websocket" or "postgres" or "mysql" or "redis" or "unit" or "process" or "listen" or "file" or "mount" or "cpu" or "memory" or "pressure" or "exec" or "heartbeat" at line 5
  unknown key "spoool" at line 7 (did you mean "spool"?)
"#;

fn run(program: &Path, args: &[&str]) -> anyhow::Result<Answer> {
    programs::run(program, args)
}

#[test]
fn every_command_that_reads_settings_answers_with_all_mistakes_at_once() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (collector, agent) = (programs::collector()?, programs::agent()?);
    let cases: [(&Path, &str, &str, &[&[&str]]); 2] = [
        (
            &collector,
            BAD_COLLECTOR,
            ABOUT_COLLECTOR,
            &[&["validate"], &["run"], &["token", "create"], &["agent", "list"]],
        ),
        (&agent, BAD_AGENT, ABOUT_AGENT, &[&["validate"], &["run"], &["enroll", "--token", "any"]]),
    ];
    for (program, settings, about, commands) in cases {
        let file = directory.path().join("settings.toml");
        std::fs::write(&file, settings)?;
        let file = file.to_str().context("a path in UTF-8")?;
        for command in commands {
            let answer = run(program, &[command, &["--config", file][..]].concat())?;
            let expected = Answer { status: Some(2), out: String::new(), err: about.replace("FILE", file) };
            ensure!(answer == expected, "{command:?} answered {}\ninstead of {}", answer.err, expected.err);
        }
    }
    Ok(())
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_named() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let absent = directory.path().join("absent.toml");
    let broken = directory.path().join("broken.toml");
    std::fs::write(&broken, "data_dir = \"/tmp\"\n[listen\n")?;
    for program in [programs::collector()?, programs::agent()?] {
        for (file, words) in [(&absent, "cannot be read: No such file"), (&broken, "at line 2")] {
            let file = file.to_str().context("a path in UTF-8")?;
            let answer = run(&program, &["validate", "--config", file])?;
            ensure!(answer.status == Some(2), "{answer:?}");
            ensure!(answer.err.contains(file) && answer.err.contains(words), "{answer:?}");
        }
    }
    Ok(())
}

#[test]
fn settings_as_quickstart_writes_them_are_good() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/quickstart");
    let place = directory.path().to_str().context("a path in UTF-8")?;
    let written = run(Path::new(script), &["--dir", place, "--only-settings"])?;
    written.good()?;
    for (program, name) in [(programs::collector()?, "collector.toml"), (programs::agent()?, "agent.toml")] {
        let file = directory.path().join(name);
        let answer = run(&program, &["validate", "--config", file.to_str().context("a path in UTF-8")?])?;
        let said = answer.good()?;
        ensure!(said.contains(&format!("{name} is good")), "{said}");
    }
    Ok(())
}

#[test]
fn help_of_every_command_is_there_and_names_the_first_steps() -> anyhow::Result<()> {
    let cases: [(_, &[&str], &[&str]); 2] = [
        (
            programs::collector()?,
            &["peil-collector validate", "peil-collector run", "token create", "peil-agent enroll", "sla evaluate"],
            &[
                "run",
                "validate",
                "sla",
                "sla evaluate",
                "token",
                "token create",
                "token list",
                "agent",
                "agent list",
                "agent revoke",
                "user",
                "user password",
                "api-token",
                "api-token create",
                "audit",
                "audit verify",
                "audit tail",
            ],
        ),
        (
            programs::agent()?,
            &["peil-agent enroll", "peil-agent run", "peil-agent probe", "patch scan", "energy doctor"],
            &["run", "enroll", "validate", "probe", "patch", "patch scan", "energy", "energy replay", "energy doctor"],
        ),
    ];
    for (program, steps, commands) in cases {
        let help = run(&program, &["--help"])?.good()?;
        let (_, first) = help.split_once("First steps").context("no first steps")?;
        for step in steps {
            ensure!(first.contains(step), "{step:?} is not among the first steps:\n{first}");
        }
        for command in commands {
            let args: Vec<_> = command.split(' ').chain(["--help"]).collect();
            let help = run(&program, &args)?.good()?;
            ensure!(help.contains("Usage:"), "{command}: {help}");
        }
        let answer = run(&program, &["no-such-command"])?;
        ensure!(answer.status == Some(2) && answer.err.contains("no-such-command"), "{answer:?}");
    }
    Ok(())
}
