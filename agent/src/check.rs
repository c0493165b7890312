//! `peil-agent check`: would the agent work on this host, and if not, what is to be done.
//!
//! Everything is tried the way the agent itself does it, as the user who asks: run it as the agent's user. Nothing is changed, and
//! the running agent is not disturbed: no stream is opened beside its own. Every finding that is not good has a remedy.
//!
//! Exit status: 0 nothing bad (there may be warnings), 1 something is bad, 2 the settings cannot be used.

mod collector;
mod local;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use peil_proto::time::WallClock;
use serde::Serialize;

use crate::config::Config;
use crate::status;

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// As it should be.
    Good,
    /// It works, with less than there could be.
    Warning,
    /// The agent cannot do its work.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which: `configuration`, `identity`, `dns`, …
    pub what: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// What was found, in words.
    pub found: String,
    /// What to do about it; nothing when it is good.
    pub remedy: Option<String>,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, standing: Standing::Good, found: found.into(), remedy: None }
    }

    fn warning(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, standing: Standing::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn bad(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, standing: Standing::Bad, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Looks at everything and prints what was found.
pub fn command(config_path: &Path, as_json: bool) -> ExitCode {
    let (findings, usable) = match Config::load(config_path) {
        Err(refused) => {
            let found = Finding::bad(
                "configuration",
                refused.to_string(),
                "correct the file; every mistake is listed with its line",
            );
            (vec![found], false)
        }
        Ok(config) => (look(&config, config_path), true),
    };
    let worst = findings.iter().map(|finding| finding.standing).max();
    if let Err(error) = print(&findings, as_json, &mut io::stdout().lock()) {
        eprintln!("cannot print: {error}");
        return ExitCode::FAILURE;
    }
    match (usable, worst) {
        (false, _) => ExitCode::from(2),
        (true, Some(Standing::Bad)) => ExitCode::FAILURE,
        (true, _) => ExitCode::SUCCESS,
    }
}

fn look(config: &Config, config_path: &Path) -> Vec<Finding> {
    let running = status::ask(&config.state_dir).ok();
    let root = Path::new("/");
    let mut findings = vec![
        Finding::good("configuration", format!("{} is good", config_path.display())),
        local::state_dir(&config.state_dir),
        local::agent(running.as_ref()),
        local::descriptors(config.policy.in_flight_max),
        local::ping(root),
        local::packages(root, config),
        local::counters(config),
        local::spool(config),
    ];
    findings.extend(collector::look(config, running.as_ref(), &WallClock::System));
    findings
}

fn print(findings: &[Finding], as_json: bool, out: &mut impl Write) -> io::Result<()> {
    if as_json {
        let text = serde_json::to_string(findings).map_err(io::Error::other)?;
        return writeln!(out, "{text}");
    }
    for finding in findings {
        let mark = match finding.standing {
            Standing::Good => "good   ",
            Standing::Warning => "WARNING",
            Standing::Bad => "BAD    ",
        };
        writeln!(
            out,
            "{mark}  {:<14} {}",
            finding.what,
            finding.found.trim_end().replace('\n', "\n                         ")
        )?;
        if let Some(remedy) = &finding.remedy {
            writeln!(out, "                         -> {remedy}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_good_has_a_remedy_and_json_says_the_same() {
        let findings =
            [Finding::good("a", "fine"), Finding::warning("b", "so so", "do this"), Finding::bad("c", "no", "do that")];
        let mut text = Vec::new();
        print(&findings, false, &mut text).expect("printed");
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains("WARNING  b") && text.contains("-> do that"), "{text}");
        let mut json = Vec::new();
        print(&findings, true, &mut json).expect("printed");
        let told: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!((&told[0]["remedy"], &told[1]["standing"]), (&serde_json::Value::Null, &"warning".into()));
    }

    #[test]
    fn a_host_that_is_not_enrolled_is_bad_and_says_how_to_enrol() {
        let home = tempfile::tempdir().expect("directory");
        let text = format!("collector = 'https://127.0.0.1:1'\nstate_dir = '{}'\n", home.path().display());
        let config = Config::parse("agent.toml", &text).expect("valid");
        let findings = look(&config, Path::new("agent.toml"));
        let of = |what| findings.iter().find(|finding| finding.what == what).expect("looked at");
        assert_eq!(of("identity").standing, Standing::Bad);
        assert!(of("identity").found.contains("peil-agent enroll"), "{:?}", of("identity"));
        assert_eq!((of("state").standing, of("dns").standing), (Standing::Good, Standing::Good));
        for finding in &findings {
            assert_eq!(finding.remedy.is_none(), finding.standing == Standing::Good, "{finding:?}");
        }
    }
}
