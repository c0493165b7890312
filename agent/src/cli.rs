//! The command line: what can be asked, and how the answer is printed.
//!
//! Exit status: 0 done (for `probe`: up), 1 failed (for `probe`: down), 2 unusable input.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use peil_proto::settings::Refused;
use peil_proto::time::WallClock;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, DEFAULT_PATH};
use crate::energy::command::EnergyCommand;
use crate::identity::Identity;
use crate::probe::heartbeat::{self, Verdict};
use crate::probe::trace::{self, ProbeArgs};
use crate::spool_command::SpoolCommand;
use crate::{app, check, enrol, host, manual, patch, status};

/// Name look-ups cannot be called back; a stopping agent does not wait for them longer than this.
const LOOKUPS_MAX: Duration = Duration::from_secs(1);

/// Watches endpoints, patch level and energy from this host, and delivers every result to a collector.
#[derive(Parser)]
#[command(
    name = "peil-agent",
    version,
    after_help = "\
First steps on a new host:
  peil-agent enroll --config agent.toml --token peil1.…   one-use token from `peil-collector token create`
  peil-agent run --config agent.toml                      probes what the collector asks for, within [policy]

Without a collector, at any time:
  peil-agent probe https://example.org --trace            one run: phases, address, certificate chain
  peil-agent patch scan                                   which security fixes this host lacks
  peil-agent energy doctor                                what can be measured here, and how"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent until SIGTERM or Ctrl-C
    Run(ConfigArg),
    /// Enrol this host with a one-use token
    #[command(alias = "enrol")]
    Enroll {
        #[command(flatten)]
        config: ConfigArg,
        /// The token; better in a file or on standard input, where other users cannot see it
        #[arg(long, conflicts_with = "token_file", required_unless_present = "token_file")]
        token: Option<String>,
        /// File that holds the token (`-` is standard input)
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// Replace the identity this host has
        #[arg(long)]
        again: bool,
        /// Do nothing, successfully, when this host has an identity; the token is not read then
        #[arg(long, conflicts_with = "again")]
        if_needed: bool,
    },
    /// What the agent that runs on this host is doing: next runs, last results, spool, connection
    Status {
        #[command(flatten)]
        config: ConfigArg,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Would the agent work here: settings, rights, DNS, clock, collector, spool; with a remedy for each finding
    Check {
        #[command(flatten)]
        config: ConfigArg,
        /// Print one JSON list instead of text
        #[arg(long)]
        json: bool,
    },
    /// Check a settings file and tell every mistake with its line
    Validate(ConfigArg),
    /// Probe a target once and tell what came of it
    Probe(ProbeArgs),
    /// Report how a job on this host went, for a check of kind heartbeat
    Report {
        /// Name that the check has as its report
        name: String,
        /// How it went
        verdict: Verdict,
        /// A line for people
        #[arg(long, value_name = "TEXT", default_value = "")]
        text: String,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// The patch level of this host, or of an image or chroot
    #[command(subcommand)]
    Patch(PatchCommand),
    /// Energy: what can be measured here, and how figures come about
    #[command(subcommand)]
    Energy(EnergyCommand),
    /// The records on disk that the collector does not have yet
    #[command(subcommand)]
    Spool(SpoolCommand),
    /// Write man pages and shell completions, for packages
    #[command(hide = true)]
    Generate {
        /// Where they go
        dir: PathBuf,
    },
}

#[derive(Args)]
struct ConfigArg {
    /// Settings file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

#[derive(Subcommand)]
enum PatchCommand {
    /// Which security fixes are missing, from the package manager's files alone
    Scan {
        /// The system to read
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
}

/// Does what was asked.
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Probe(args) => return trace::main(&args),
        Command::Patch(PatchCommand::Scan { root, json }) => return patch::command(&root, json),
        Command::Energy(command) => return command.run(),
        Command::Check { config, json } => return check::command(&config.config, json),
        Command::Spool(command) => return command.run(),
        Command::Validate(arg) => Config::load(&arg.config).map_err(Into::into).and_then(|config| {
            say(&format!(
                "{} is good: collector {}, state in {}",
                arg.config.display(),
                config.collector,
                config.state_dir.display()
            ))
        }),
        Command::Generate { dir } => {
            manual::generate(&dir).with_context(|| format!("cannot write below {}", dir.display()))
        }
        Command::Status { config, json } => {
            Config::load(&config.config).map_err(Into::into).and_then(|config| status::command(&config.state_dir, json))
        }
        Command::Report { name, verdict, text, config } => {
            Config::load(&config.config).map_err(Into::into).and_then(|config| {
                let dir = &config.policy.local.reports_dir;
                heartbeat::report(dir, &name, verdict, &text, WallClock::System.now())
                    .with_context(|| format!("cannot report {name:?} in {}", dir.display()))
            })
        }
        Command::Enroll { config, if_needed: true, .. } if is_enrolled(&config) => say("this host is enrolled already"),
        Command::Enroll { config, token, token_file, again, .. } => enrol_host(&config, token, token_file, again),
        Command::Run(arg) => run_agent(&arg),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let refused = error.downcast_ref::<Refused>().is_some();
            let _ = writeln!(std::io::stderr(), "peil-agent: {}", app::report(&error));
            ExitCode::from(if refused { 2 } else { 1 })
        }
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot print")
}

/// Whether there is an identity that can be read, expired or not.
fn is_enrolled(arg: &ConfigArg) -> bool {
    Config::load(&arg.config).is_ok_and(|config| Identity::load(&enrol::directory(&config.state_dir)).is_ok())
}

fn enrol_host(arg: &ConfigArg, token: Option<String>, token_file: Option<PathBuf>, again: bool) -> anyhow::Result<()> {
    let config = Config::load(&arg.config)?;
    let token = match (token, token_file) {
        (Some(token), _) => token,
        (None, Some(file)) if file.as_os_str() == "-" => {
            std::io::read_to_string(std::io::stdin()).context("cannot read the token")?
        }
        (None, Some(file)) => {
            std::fs::read_to_string(&file).with_context(|| format!("cannot read the token from {}", file.display()))?
        }
        (None, None) => anyhow::bail!("give a token with --token or --token-file"),
    };
    let hostname = host::facts(std::path::Path::new("/")).hostname;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let identity = runtime.block_on(enrol::enrol(
        &config.collector,
        &token,
        &hostname,
        &config.state_dir,
        again,
        &WallClock::System,
    ))?;
    say(&format!(
        "{hostname} is enrolled as {}; its certificate is renewed from {}",
        identity.agent(),
        identity.renew_at()
    ))
}

fn run_agent(arg: &ConfigArg) -> anyhow::Result<()> {
    let config = Config::load(&arg.config)?;
    start_log();
    // One thread is enough for a thousand checks a minute, and costs a host the least.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let stop = CancellationToken::new();
    let outcome = runtime.block_on(async {
        let stopper = stop.clone();
        let mut signals = tokio::task::JoinSet::new();
        signals.spawn(async move {
            wait_for_signal().await;
            stopper.cancel();
        });
        app::run(config, WallClock::System, stop).await
    });
    runtime.shutdown_timeout(LOOKUPS_MAX);
    outcome
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    // SIGTERM is what systemd sends, SIGINT what a person types.
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut term), Ok(mut int)) => tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        },
        _ => std::future::pending().await,
    }
}

/// Under systemd the journal gets fields (`CHECK=`, `VERSION=`, …) beside the message; a person gets lines, a log collector
/// that asks for it gets JSON.
fn start_log() {
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    let filter = EnvFilter::try_from_env("PEIL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let as_json = std::env::var_os("PEIL_LOG_JSON").is_some();
    let journal = std::env::var_os("JOURNAL_STREAM").filter(|_| !as_json).and_then(|_| tracing_journald::layer().ok());
    if let Some(journal) = journal {
        let journal = journal.with_field_prefix(None).with_syslog_identifier("peil-agent".to_owned());
        return tracing_subscriber::registry().with(filter).with(journal).init();
    }
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if as_json {
        log.json().init();
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).init();
    }
}
