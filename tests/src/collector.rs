//! A real `peil-collector`: its directory, its ports, its process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::api::Api;
use crate::directory::Directory;
use crate::eventually;
use crate::http;
use crate::port::Port;
use crate::process::Process;
use crate::programs::{self, Answer};

/// Runs until dropped; survives being stopped, killed and started again.
pub struct Collector {
    directory: Directory,
    config: PathBuf,
    agents: Port,
    web: Port,
    process: Option<Process>,
    password: String,
    api: Api,
    environment: Vec<(&'static str, OsString)>,
}

impl Collector {
    /// Starts one. `settings` is what stands in `collector.toml` beside its directory and addresses.
    ///
    /// # Errors
    /// When it does not start, with what it said.
    pub async fn start(settings: &str) -> anyhow::Result<Self> {
        Self::start_at("", settings).await
    }

    /// Starts the first collector of a store on a server; `head` are the lines of its settings that say where it is.
    ///
    /// # Errors
    /// As [`Collector::start`].
    pub async fn start_at(head: &str, settings: &str) -> anyhow::Result<Self> {
        let mut collector = Self::prepare(head, settings)?;
        collector.run().await?;
        let out = collector.process.as_ref().map(Process::out).unwrap_or_default();
        let line =
            out.iter().find(|line| line.contains("with the password")).context("no password at the first run")?;
        collector.password = line.split_whitespace().last().unwrap_or_default().to_owned();
        let token = collector.command(&["api-token", "create", "--label", "test"])?.good()?;
        collector.use_token(token.trim())?;
        Ok(collector)
    }

    /// Starts another collector on the same server, with the authority of the first one and settings of its own file.
    ///
    /// # Errors
    /// As [`Collector::start`].
    pub async fn join(first: &Self, head: &str, settings: &str) -> anyhow::Result<Self> {
        let mut collector = Self::prepare(head, settings)?;
        std::fs::create_dir_all(collector.pki())?;
        for file in ["ca.pem", "ca.key"] {
            std::fs::copy(first.pki().join(file), collector.pki().join(file)).context("the authority")?;
        }
        collector.run().await?;
        collector.use_token(first.api.token())?;
        Ok(collector)
    }

    fn prepare(head: &str, settings: &str) -> anyhow::Result<Self> {
        let directory = Directory::new("collector")?;
        let (agents, web) = (Port::reserve()?, Port::reserve()?);
        let head = format!(
            "data_dir = {:?}\n{head}\n[listen]\nagents = \"{}\"\nweb = \"{}\"\n",
            directory.path().join("data"),
            agents.address(),
            web.address()
        );
        let config = directory.write("collector.toml", &format!("{head}{settings}"))?;
        let nobody = Api::new(http::client(None)?, format!("https://{}", web.address()), String::new());
        Ok(Self {
            directory,
            config,
            agents,
            web,
            process: None,
            password: String::new(),
            api: nobody,
            environment: Vec::new(),
        })
    }

    fn use_token(&mut self, token: &str) -> anyhow::Result<()> {
        let client = http::client(Some(&self.authority()))?;
        self.api = Api::new(client, format!("https://{}", self.web.address()), token.to_owned());
        Ok(())
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        ensure!(self.process.is_none(), "the collector runs already");
        let config = self.config.to_string_lossy();
        let (program, args) = (programs::collector()?, ["run", "--config", &config]);
        let mut process = Process::start_in("collector", &program, &args, &self.environment)?;
        let listening = format!("listening agents={} web={}", self.agents.address(), self.web.address());
        eventually("the collector listens", async || match process.check_running() {
            Ok(()) => process.out().into_iter().find(|line| *line == listening).map(|_| Ok(())).context("not yet"),
            ended => Ok(ended),
        })
        .await??;
        self.process = Some(process);
        Ok(())
    }

    /// From the next start on it finds these variables in its environment; its other commands do not.
    pub fn set_environment(&mut self, environment: Vec<(&'static str, OsString)>) {
        self.environment = environment;
    }

    /// Starts it again after [`Collector::stop`] or [`Collector::kill9`].
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.run().await
    }

    /// Starts it and kills it after a moment, whether it listens by then or not.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_and_kill9_after(&mut self, life: Duration) -> anyhow::Result<()> {
        ensure!(self.process.is_none(), "the collector runs already");
        let config = self.config.to_string_lossy();
        let (program, args) = (programs::collector()?, ["run", "--config", &config]);
        let mut process = Process::start_in("collector", &program, &args, &self.environment)?;
        // The moment is the experiment.
        tokio::time::sleep(life).await;
        process.kill9()
    }

    /// SIGTERM; it must end with status 0.
    ///
    /// # Errors
    /// When it does not.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the collector does not run")?.stop().await.map(|_| ())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When there is nothing to kill.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.process.take().context("the collector does not run")?.kill9()
    }

    /// Runs one of the other commands on the same settings.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn command(&self, args: &[&str]) -> anyhow::Result<Answer> {
        let config = self.config.to_string_lossy();
        programs::run(&programs::collector()?, args.iter().copied().chain(["--config", &config]))
    }

    /// A fresh enrolment token.
    ///
    /// # Errors
    /// When none is made.
    pub fn token(&self) -> anyhow::Result<String> {
        Ok(self.command(&["token", "create"])?.good()?.trim().to_owned())
    }

    /// As programs see it.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The admin's password, shown at the first run.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Where agents connect.
    pub fn address(&self) -> std::net::SocketAddr {
        self.agents.address()
    }

    /// SIGSTOP: it stands still, and knows nothing of it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.process.as_ref().context("the collector does not run")?.signal(rustix::process::Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.process.as_ref().context("the collector does not run")?.signal(rustix::process::Signal::CONT)
    }

    /// `https://localhost:port` for agents.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.agents.address().port())
    }

    /// Directory of its keys.
    pub fn pki(&self) -> PathBuf {
        self.directory.path().join("data/pki")
    }

    /// Certificate of its authority, PEM.
    pub fn authority(&self) -> PathBuf {
        self.pki().join("ca.pem")
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The store's file.
    pub fn database(&self) -> PathBuf {
        self.directory.path().join("data/peil.db")
    }

    /// What it logged since it was started last.
    pub fn log(&self) -> Vec<String> {
        self.process.as_ref().map(Process::err).unwrap_or_default()
    }

    /// Its settings file.
    pub fn config(&self) -> &Path {
        &self.config
    }
}
