//! A program that runs beside the test and ends with it.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

/// Killed when dropped.
pub struct Process {
    name: &'static str,
    child: Child,
    said: Said,
    readers: Vec<JoinHandle<()>>,
}

/// Lines of both outputs, as they come.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    out: Vec<String>,
    err: Vec<String>,
}

impl Process {
    /// Starts `program`; `name` stands before its lines in the log of the test.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &'static str, program: &Path, args: &[&str]) -> anyhow::Result<Self> {
        Self::start_in(name, program, args, &[])
    }

    /// The same, with these further variables in its environment.
    pub(crate) fn start_in(
        name: &'static str,
        program: &Path,
        args: &[&str],
        environment: &[(&'static str, OsString)],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let said = Said::default();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (heard_out, heard_err) = (said.clone(), said.clone());
        // Threads inherit the capture of the test's output, so the lines appear with a test that fails.
        let readers = vec![
            std::thread::spawn(move || follow(name, out, |line| heard_out.add(|said| &mut said.out, line))),
            std::thread::spawn(move || follow(name, err, |line| heard_err.add(|said| &mut said.err, line))),
        ];
        Ok(Self { name, child, said, readers })
    }

    /// Lines of standard output so far.
    pub fn out(&self) -> Vec<String> {
        self.said.read(|said| said.out.clone())
    }

    /// Lines of standard error so far.
    pub fn err(&self) -> Vec<String> {
        self.said.read(|said| said.err.clone())
    }

    /// Fails when the program has ended.
    ///
    /// # Errors
    /// With its last words.
    pub fn check_running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}): {}", self.name, self.err().join("\n")),
        }
    }

    /// SIGKILL: no goodbye, no flush.
    ///
    /// # Errors
    /// When there is nothing to kill.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait()?;
        self.read_up();
        Ok(())
    }

    /// Any signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// SIGTERM, and the program must end well.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Vec<String>> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)
            .with_context(|| format!("cannot stop {}", self.name))?;
        let name = self.name;
        let child = &mut self.child;
        let status = eventually(&format!("{name} has stopped after SIGTERM"), async || {
            child.try_wait()?.context("it is still running")
        })
        .await?;
        self.read_up();
        ensure!(status.success(), "{name} ended with {status} after SIGTERM");
        Ok(self.err())
    }

    /// After the end: the last lines are read, too.
    fn read_up(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is fine; anything else would be told by the next test that misses its port.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.read_up();
    }
}

impl Said {
    fn add(&self, part: impl FnOnce(&mut Lines) -> &mut Vec<String>, line: String) {
        part(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)).push(line);
    }

    fn read<T>(&self, look: impl FnOnce(&Lines) -> T) -> T {
        look(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn follow(name: &str, from: Option<impl Read>, hear: impl Fn(String)) {
    let Some(from) = from else { return };
    for line in BufReader::new(from).lines() {
        let Ok(line) = line else { return };
        eprintln!("[{name}] {line}");
        hear(line);
    }
}
