//! Debian's Alertmanager, as on-call runs it.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::directory::Directory;
use crate::port::Port;
use crate::process::Process;
use crate::{eventually, http};

const PROGRAM: &str = "/usr/bin/prometheus-alertmanager";
const SETTINGS: &str = "route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n";

/// Runs until dropped.
pub struct Alertmanager {
    port: Port,
    client: reqwest::Client,
    _directory: Directory,
    _process: Process,
}

impl Alertmanager {
    /// Starts one without cluster, in a directory of its own.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let program = Path::new(PROGRAM);
        ensure!(program.exists(), "{PROGRAM} is missing: apt-get install prometheus-alertmanager (tests/run does)");
        let (directory, port) = (Directory::new("alertmanager")?, Port::reserve()?);
        let config = directory.write("alertmanager.yml", SETTINGS)?;
        let args = [
            format!("--config.file={}", config.display()),
            format!("--storage.path={}", directory.path().join("data").display()),
            format!("--web.listen-address={}", port.address()),
            "--cluster.listen-address=".to_owned(),
        ];
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let mut process = Process::start("alertmanager", program, &args)?;
        let client = http::client(None)?;
        let ready = format!("http://{}/-/ready", port.address());
        eventually("Alertmanager is ready", async || match process.check_running() {
            Ok(()) => Ok(client.get(&ready).send().await?.error_for_status().map(|_| Ok(()))?),
            ended => Ok(ended),
        })
        .await??;
        Ok(Self { port, client, _directory: directory, _process: process })
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// The active alert with this `peil_key`.
    ///
    /// # Errors
    /// When it does not answer, or lists none.
    pub async fn active(&self, key: &str) -> anyhow::Result<Value> {
        let url = format!("{}/api/v2/alerts?active=true", self.url());
        let answer = self.client.get(url).send().await?.error_for_status()?;
        let alerts: Vec<Value> = answer.json().await?;
        let found = alerts.iter().find(|alert| alert["labels"]["peil_key"] == key);
        found.cloned().with_context(|| format!("{key} is not among {alerts:#?}"))
    }
}
