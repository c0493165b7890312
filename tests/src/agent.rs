//! A real `peil-agent`: its state, its process.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::collector::Collector;
use crate::directory::Directory;
use crate::eventually;
use crate::process::Process;
use crate::programs::{self, Answer};

/// Settings of an agent that tells nothing but its checks.
pub const ONLY_CHECKS: &str = "[patch]\nenabled = false\n[energy]\nenabled = false\n";

/// Enrolled on this host; runs when started, ends when dropped.
pub struct Agent {
    directory: Directory,
    config: PathBuf,
    id: String,
    process: Option<Process>,
    /// Lines of runs that are over.
    logged: Vec<String>,
}

impl Agent {
    /// An agent that is not enrolled yet. `settings` is what stands in `agent.toml` beside the collector and the state.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn prepare(collector: &Collector, settings: &str) -> anyhow::Result<Self> {
        let directory = Directory::new("agent")?;
        let state = directory.path().join("state");
        let head = format!("collector = \"{}\"\nstate_dir = {state:?}\nbatch_s = 1\n", collector.url());
        let config = directory.write("agent.toml", &format!("{head}{settings}"))?;
        Ok(Self { directory, config, id: String::new(), process: None, logged: Vec::new() })
    }

    /// An agent enrolled with a fresh token, not yet running.
    ///
    /// # Errors
    /// When it is refused.
    pub fn enrol(collector: &Collector, settings: &str) -> anyhow::Result<Self> {
        let mut agent = Self::prepare(collector, settings)?;
        agent.enrol_with(&collector.token()?)?.good()?;
        let known = collector.command(&["agent", "list"])?.good()?;
        let mine = agent.id_on_disk()?;
        ensure!(known.contains(&mine), "the collector does not know {mine}:\n{known}");
        agent.id = mine;
        Ok(agent)
    }

    /// An agent enrolled and running.
    ///
    /// # Errors
    /// When it is refused or does not start.
    pub fn start(collector: &Collector, settings: &str) -> anyhow::Result<Self> {
        let mut agent = Self::enrol(collector, settings)?;
        agent.run()?;
        Ok(agent)
    }

    /// `peil-agent enroll` with any text for a token.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn enrol_with(&self, token: &str) -> anyhow::Result<Answer> {
        let config = self.config.to_string_lossy();
        programs::run(&programs::agent()?, ["enroll", "--config", &config, "--token", token])
    }

    fn id_on_disk(&self) -> anyhow::Result<String> {
        let identity = peil_agent::identity::Identity::load(&self.identity())?;
        Ok(identity.agent().to_string())
    }

    /// Starts the process.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn run(&mut self) -> anyhow::Result<()> {
        ensure!(self.process.is_none(), "the agent runs already");
        let config = self.config.to_string_lossy();
        self.process = Some(Process::start("agent", &programs::agent()?, &["run", "--config", &config])?);
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When there is nothing to kill.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("the agent does not run")?;
        process.kill9()?;
        self.logged.extend(process.err());
        Ok(())
    }

    /// SIGTERM; it must end with status 0.
    ///
    /// # Errors
    /// When it does not.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let log = self.process.take().context("the agent does not run")?.stop().await?;
        self.logged.extend(log);
        Ok(())
    }

    /// Everything it logged, in this run and earlier ones.
    pub fn log(&self) -> Vec<String> {
        let now = self.process.as_ref().map(Process::err).unwrap_or_default();
        self.logged.iter().cloned().chain(now).collect()
    }

    /// Waits until a line it logged since it was started last has `text` in it; gives the line.
    ///
    /// # Errors
    /// When none comes.
    pub async fn says(&self, text: &str) -> anyhow::Result<String> {
        eventually(&format!("the agent logs {text:?}"), async || {
            let log = self.process.as_ref().map(Process::err).unwrap_or_default();
            log.iter().find(|line| line.contains(text)).cloned().with_context(|| format!("only:\n{}", log.join("\n")))
        })
        .await
    }

    /// 32 hex digits; empty before it is enrolled.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Spool, identity, last plan.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Key and certificate in force lie in `current/` below.
    pub fn identity(&self) -> PathBuf {
        self.state().join("identity")
    }

    /// Its settings file.
    pub fn config(&self) -> &Path {
        &self.config
    }
}
