//! The command line: what can be asked, and how the answer is printed.
//!
//! Commands beside `run` open the same store as the running collector; SQLite lets both write, and what
//! they change is in force within five seconds. Exit status: 0 done, 1 failed, 2 unusable input.

mod agreement;
mod ca;
mod operate;
mod rebuild;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use peil_proto::ids::AgentId;
use peil_proto::settings::Refused;
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::token::Token;
use peil_proto::units::Millis;
use tokio_util::sync::CancellationToken;

use crate::access::{Access, AccessStore, PasswordCost, Role, first_run_password};
use crate::apply::{ApplyError, Missing};
use crate::config::{Config, DEFAULT_PATH};
use crate::evaluate::Form;
use crate::store::Store;
use crate::store::access::UserRow;
use crate::store::audit::AuditVerdict;
use crate::store::tokens::{NewToken, TokenRow};
use crate::{app, evaluate, manual, rotation};

/// Judges what agents saw against the contract: availability, breaches, patches, energy, alerts, pages.
#[derive(Parser)]
#[command(
    name = "peil-collector",
    version,
    after_help = "\
First steps on a new machine:
  peil-collector validate --config collector.toml     all mistakes of a file in one answer
  peil-collector run --config collector.toml          start; the first run shows the admin password once
  peil-collector token create --config …              a one-use token for one host
  peil-agent enroll --config agent.toml --token …     on that host

Figures can be recomputed anywhere, without a store:
  peil-collector sla evaluate month.json"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the collector until SIGTERM or Ctrl-C
    Run(ConfigArg),
    /// Check a settings file and tell every mistake with its line
    Validate(ConfigArg),
    /// Figures of the contract
    #[command(subcommand)]
    Sla(Sla),
    /// Bring contracts, services and checks from files into force: what differs becomes a new version
    Apply {
        #[command(flatten)]
        config: ConfigArg,
        /// Directory with *.toml files
        dir: PathBuf,
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
        /// End what was applied before and no file has any more, now
        #[arg(long, requires = "reason")]
        prune: bool,
        /// Why it ends
        #[arg(long, requires = "prune", value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Print what was applied, as a file that `apply` takes
    Export(ConfigArg),
    /// Time left out of the figures: propose, approve, close, list
    #[command(subcommand)]
    Exclusion(agreement::ExclusionCommand),
    /// Months that are over: list, seal, supersede, hand out
    #[command(subcommand)]
    Month(agreement::MonthCommand),
    /// One-use tokens with which hosts enrol
    #[command(subcommand)]
    Token(TokenCommand),
    /// Enrolled agents
    #[command(subcommand)]
    Agent(AgentCommand),
    /// The authority that agents trust: show, replace, retire
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// People who may sign in
    #[command(subcommand)]
    User(UserCommand),
    /// Bearer tokens for programs that use the API
    #[command(subcommand)]
    ApiToken(ApiTokenCommand),
    /// The log of what people did
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Derive times and states again from the stored results, and tell every stored value that differs
    Rebuild {
        #[command(flatten)]
        config: ConfigArg,
        /// Overwrite what differs
        #[arg(long)]
        write: bool,
    },
    /// Write man pages and shell completions, for packages
    #[command(hide = true)]
    Generate {
        /// Where they go
        dir: PathBuf,
    },
    #[command(flatten)]
    Operate(operate::Operate),
}

#[derive(Args)]
struct ConfigArg {
    /// Settings file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Sla {
    /// Compute the figure of a month from a file and print it as JSON (`-` reads standard input)
    Evaluate {
        /// Input as described in the formats document: month, contract, service, checks, exclusions
        file: PathBuf,
        /// Print every interval of the month with its bucket and its cause, as CSV
        #[arg(long, conflicts_with = "explain")]
        csv: bool,
        /// Print the whole account: the sum, each exclusion and outage, the division, the verdict, the budget
        #[arg(long)]
        explain: bool,
        /// Evaluate under other clauses too and print both figures and what differs; OTHER holds only the
        /// keys that change, under `contract` and `exclusions`
        #[arg(long, value_name = "OTHER", conflicts_with_all = ["csv", "explain"])]
        what_if: Option<PathBuf>,
    },
    /// Tell from a file what the month so far says about its end: budget, burn, exhaustion, best reachable
    Forecast {
        /// Input as for `evaluate`
        file: PathBuf,
        /// The moment to look from, such as 2026-04-15T12:00:00+02:00
        #[arg(long, value_name = "TIME", value_parser = UtcTime::parse)]
        at: UtcTime,
    },
    /// Recompute a sealed report from the data it was made of, and say whether it is equal or where it differs;
    /// exit status 0 equal, 3 different
    Verify {
        /// The report
        report: PathBuf,
        /// The bundle that belongs to it
        #[arg(long, value_name = "BUNDLE")]
        data: PathBuf,
    },
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a token and print it; it works once
    Create {
        #[command(flatten)]
        config: ConfigArg,
        /// What it is for; shown in lists and in the audit log
        #[arg(long, default_value = "")]
        label: String,
        /// Group the host will belong to; checks can name groups
        #[arg(long, default_value = "")]
        group: String,
        /// Minutes until it expires
        #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(i64).range(1..=10_080))]
        minutes: i64,
    },
    /// All tokens ever made, without their secrets
    List(ConfigArg),
    /// Withdraw a token that was not used yet
    Revoke {
        #[command(flatten)]
        config: ConfigArg,
        /// Its id, from `token list`; the beginning is enough when it is the only one
        id: String,
    },
}

#[derive(Subcommand)]
enum AgentCommand {
    /// All agents with their last contact
    List(ConfigArg),
    /// End the alert about an agent that runs from a copy of its state, once that was seen to
    Accept {
        #[command(flatten)]
        config: ConfigArg,
        /// Its 32 hex digits, from `agent list`
        agent: String,
    },
    /// Refuse an agent from now on
    Revoke {
        #[command(flatten)]
        config: ConfigArg,
        /// Its 32 hex digits, from `agent list`
        agent: String,
    },
}

#[derive(Subcommand)]
enum UserCommand {
    /// Let somebody sign in; prints a random password, once
    Add {
        #[command(flatten)]
        config: ConfigArg,
        /// Name to sign in with, and in the audit log
        #[arg(value_parser = user_name)]
        name: String,
        /// viewer reads; editor changes the agreement and proposes; approver proposes and decides (exclusions, months);
        /// admin may do everything
        #[arg(long, default_value = "viewer", value_parser = role)]
        role: Role,
    },
    /// Everybody who can sign in
    List(ConfigArg),
    /// Somebody can sign in no more; all sessions end
    Remove {
        #[command(flatten)]
        config: ConfigArg,
        /// Who
        name: String,
    },
    /// Set a new random password and print it; all sessions end
    Password {
        #[command(flatten)]
        config: ConfigArg,
        /// Whose
        #[arg(default_value = app::ADMIN)]
        name: String,
    },
}

#[derive(Subcommand)]
enum ApiTokenCommand {
    /// Make a token and print it; it is shown once
    Create {
        #[command(flatten)]
        config: ConfigArg,
        /// What it is for
        #[arg(long)]
        label: String,
        /// viewer, editor, approver or admin, as for `user add`
        #[arg(long, default_value = "viewer", value_parser = role)]
        role: Role,
        /// Days until it expires
        #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(i64).range(1..=366))]
        days: i64,
    },
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Check the hash chain from the first entry to the last
    Verify(ConfigArg),
    /// The newest entries
    Tail {
        #[command(flatten)]
        config: ConfigArg,
        /// How many
        #[arg(long, default_value_t = 20)]
        entries: u32,
    },
}

/// Does what was asked.
pub fn run(cli: Cli) -> ExitCode {
    if let Command::Sla(command) = &cli.command {
        return sla(command);
    }
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let refused = error.downcast_ref::<Refused>().is_some()
                || matches!(error.downcast_ref::<ApplyError>(), Some(ApplyError::Refused(_)));
            let _ = writeln!(std::io::stderr(), "peil-collector: {}", crate::chain(error.as_ref()));
            ExitCode::from(if refused { 2 } else { 1 })
        }
    }
}

/// These need neither settings nor a store, so they also run where nothing else does.
fn sla(command: &Sla) -> ExitCode {
    match command {
        Sla::Evaluate { file, what_if: Some(other), .. } => evaluate::what_if_command(file, other),
        Sla::Evaluate { file, csv: true, .. } => evaluate::command(file, Form::Csv),
        Sla::Evaluate { file, explain: true, .. } => evaluate::command(file, Form::Explain),
        Sla::Evaluate { file, .. } => evaluate::command(file, Form::Json),
        Sla::Forecast { file, at } => evaluate::forecast_command(file, *at),
        Sla::Verify { report, data } => evaluate::verify::command(report, data),
    }
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let clock = WallClock::System;
    match command {
        Command::Run(arg) => runtime.block_on(run_collector(Config::load(&arg.config)?, clock)),
        Command::Validate(arg) => {
            let config = Config::load(&arg.config)?;
            say(&format!(
                "{} is good: {} services, {} checks, {} channels",
                arg.config.display(),
                config.services.len(),
                config.checks.len(),
                config.channels.len()
            ))
        }
        Command::Sla(_) => Ok(()),
        // Clap takes a reason with --prune only.
        Command::Apply { config, dir, dry_run, prune: _, reason } => {
            let missing = reason.map_or(Missing::GoOn, |reason| Missing::End { reason });
            runtime.block_on(agreement::apply_dir(&config.config, &dir, dry_run, &missing, clock.now()))
        }
        Command::Export(arg) => runtime.block_on(agreement::export(&arg.config, clock.now())),
        Command::Exclusion(command) => runtime.block_on(agreement::exclusion(command, clock.now())),
        Command::Month(command) => runtime.block_on(agreement::month_command(command, clock.now())),
        Command::Generate { dir } => {
            manual::generate(&dir).with_context(|| format!("cannot write below {}", dir.display()))
        }
        Command::Token(command) => runtime.block_on(token(command, &clock)),
        Command::Agent(command) => runtime.block_on(agent(command, &clock)),
        Command::Ca(command) => runtime.block_on(ca::run(command, clock.now())),
        Command::User(command) => runtime.block_on(user(command, clock)),
        Command::ApiToken(ApiTokenCommand::Create { config, label, role, days }) => {
            runtime.block_on(api_token(&config.config, label, role, days, clock))
        }
        Command::Audit(command) => runtime.block_on(audit(command)),
        Command::Rebuild { config, write } => runtime.block_on(async {
            let (config, store) = open(&config.config)?;
            rebuild::rebuild(&config, store, clock.now(), write).await
        }),
        Command::Operate(command) => operate::run(command, &clock),
    }
}

/// Output of commands; a closed pipe is not a failure of ours.
fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot print")
}

async fn run_collector(config: Config, clock: WallClock) -> anyhow::Result<()> {
    log_to_stderr();
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    let mut signals = tokio::task::JoinSet::new();
    signals.spawn(async move {
        wait_for_signal().await;
        stopper.cancel();
    });
    app::run(config, clock, stop, |open| {
        // For whoever started us and asked for port 0: one line, easy to read by a script.
        let _ = writeln!(std::io::stdout(), "listening agents={} web={}", open.agents, open.web);
    })
    .await
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

fn log_to_stderr() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("PEIL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A person gets lines, a log collector gets JSON.
    if std::env::var_os("PEIL_LOG_JSON").is_some() {
        log.json().init();
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).init();
    }
}

fn role(word: &str) -> Result<Role, String> {
    Role::from_word(word).ok_or_else(|| "it is viewer, editor, approver or admin".to_owned())
}

/// A name that reads well in a log and in a path.
fn user_name(name: &str) -> Result<String, String> {
    let good = |c: char| c.is_alphanumeric() || "._-@".contains(c);
    let fits = (1..=64).contains(&name.chars().count()) && name.chars().all(good);
    fits.then(|| name.to_owned()).ok_or_else(|| "it has 1 to 64 letters, digits, '.', '_', '-' or '@'".to_owned())
}

/// Who did it, for the audit log.
fn operator() -> String {
    let name = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "unknown".to_owned());
    format!("{name} (command line)")
}

fn open(config: &Path) -> anyhow::Result<(Config, Store)> {
    let config = Config::load(config)?;
    anyhow::ensure!(
        config.data_dir.is_dir(),
        "{} does not exist; start the collector first",
        config.data_dir.display()
    );
    let store = Store::connect(&config.store)?;
    Ok((config, store))
}

async fn token(command: TokenCommand, clock: &WallClock) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create { config, label, group, minutes } => {
            let (config, store) = open(&config.config)?;
            let now = clock.now();
            let authorities = rotation::open(&store, &config.data_dir.join("pki"), now).await?;
            let mut random = [0; 20];
            getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
            let token = Token::make(random, authorities.in_force().fingerprint());
            let expires_at = now.plus(Millis(minutes * Millis::MINUTE.0));
            let new = NewToken { hash: token.secret_hash(), label, group, created_at: now, expires_at };
            store.create_token(new, &operator()).await?;
            store.close().await;
            say(&token.reveal())
        }
        TokenCommand::List(arg) => {
            let (_, store) = open(&arg.config)?;
            for row in store.tokens().await? {
                let standing = match (row.used, row.revoked_at) {
                    (Some((at, agent)), _) => format!("used {at} by {agent}"),
                    (None, Some(at)) => format!("revoked {at}"),
                    (None, None) if row.expires_at < clock.now() => format!("expired {}", row.expires_at),
                    (None, None) => format!("good until {}", row.expires_at),
                };
                let id = token_id(&row.hash);
                say(&format!("{id}  {}  {standing}  group {:?}  {}", row.created_at, row.group, row.label))?;
            }
            store.close().await;
            Ok(())
        }
        TokenCommand::Revoke { config, id } => {
            let (_, store) = open(&config.config)?;
            let tokens = store.tokens().await?;
            let row = the_token(&tokens, &id)?;
            anyhow::ensure!(
                row.used.is_none(),
                "{} was used already; `agent revoke` ends the agent that has it",
                token_id(&row.hash)
            );
            store.revoke_token(row.hash, clock.now(), &operator()).await?;
            store.close().await;
            say(&format!("{} cannot be used any more", token_id(&row.hash)))
        }
    }
}

/// How people call a token: the beginning of its hash, which gives nothing away.
fn token_id(hash: &[u8; 32]) -> String {
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The one token whose id begins so.
fn the_token<'t>(tokens: &'t [TokenRow], id: &str) -> anyhow::Result<&'t TokenRow> {
    let mut found = tokens.iter().filter(|row| !id.is_empty() && token_id(&row.hash).starts_with(id));
    let first = found.next().with_context(|| format!("no token {id:?}; `token list` shows them"))?;
    anyhow::ensure!(found.next().is_none(), "{id:?} is the beginning of several tokens; give more of it");
    Ok(first)
}

async fn agent(command: AgentCommand, clock: &WallClock) -> anyhow::Result<()> {
    match command {
        AgentCommand::List(arg) => {
            let (_, store) = open(&arg.config)?;
            for row in store.agents().await? {
                let contact = row.last_contact.map_or("never heard".to_owned(), |at| format!("last heard {at}"));
                let standing = row.revoked_at.map_or(contact, |at| format!("revoked {at}"));
                let labels = if row.labels.is_empty() { String::new() } else { format!("  {}", row.labels) };
                say(&format!(
                    "{}  {}  {standing}  certificate until {}{labels}",
                    row.agent, row.hostname, row.cert_not_after
                ))?;
            }
            store.close().await;
            Ok(())
        }
        AgentCommand::Accept { config, agent } => {
            let (id, store) = the_agent(&config, &agent).await?;
            store.accept_copied(id, clock.now(), &operator()).await?;
            store.close().await;
            say(&format!("{id} is as it should be; the alert ends within seconds, and comes back if it shows again"))
        }
        AgentCommand::Revoke { config, agent } => {
            let (id, store) = the_agent(&config, &agent).await?;
            store.revoke(id, clock.now(), &operator()).await?;
            store.close().await;
            say(&format!("{id} is revoked; a running collector ends its stream within five seconds"))
        }
    }
}

/// The agent with this id, which must be known, and the store it is known to.
async fn the_agent(config: &ConfigArg, agent: &str) -> anyhow::Result<(AgentId, Store)> {
    let id = AgentId::parse(agent).with_context(|| format!("{agent:?} is not an agent id; `agent list` shows them"))?;
    let (_, store) = open(&config.config)?;
    anyhow::ensure!(store.agents().await?.iter().any(|row| row.agent == id), "no agent {id}; `agent list` shows them");
    Ok((id, store))
}

async fn user(command: UserCommand, clock: WallClock) -> anyhow::Result<()> {
    let (UserCommand::Add { config, .. }
    | UserCommand::List(config)
    | UserCommand::Remove { config, .. }
    | UserCommand::Password { config, .. }) = &command;
    let (_, store) = open(&config.config)?;
    let access = Access::new(AccessStore::Store(store.clone()), clock.clone(), PasswordCost::STANDARD)?;
    let said = match command {
        UserCommand::Add { name, role, .. } => {
            anyhow::ensure!(!access.has_user(&name).await?, "{name} can sign in already; `user password` sets another");
            new_password(&access, &name, role).await?
        }
        UserCommand::List(_) => {
            let row = |user: &UserRow| format!("{}  {}  since {}", user.name, user.role, user.changed_at);
            store.users().await?.iter().map(row).collect::<Vec<_>>().join("\n")
        }
        UserCommand::Remove { name, .. } => {
            anyhow::ensure!(
                name != app::ADMIN,
                "{name} is made anew at every start; `user password` locks out who had it"
            );
            store.remove_user(&name, clock.now(), &operator()).await?;
            format!("{name} cannot sign in any more")
        }
        UserCommand::Password { name, .. } => {
            let role = access.role_of(&name).await?;
            let role = role.with_context(|| format!("there is no user {name:?}; `user add` makes one"))?;
            new_password(&access, &name, role).await?
        }
    };
    store.close().await;
    say(&said)
}

async fn new_password(access: &Access, name: &str, role: Role) -> anyhow::Result<String> {
    let password = first_run_password()?;
    access.set_password(name, role, &password).await?;
    Ok(format!("{name} ({}) now signs in with  {password}", role.word()))
}

async fn api_token(config: &Path, label: String, role: Role, days: i64, clock: WallClock) -> anyhow::Result<()> {
    let (_, store) = open(config)?;
    let expires_at = clock.now().plus(Millis(days * Millis::DAY.0));
    let access = Access::new(AccessStore::Store(store.clone()), clock, PasswordCost::STANDARD)?;
    let token = access.issue_api_token(&label, role, Some(expires_at)).await?;
    store.close().await;
    say(&token)
}

async fn audit(command: AuditCommand) -> anyhow::Result<()> {
    match command {
        AuditCommand::Verify(arg) => {
            let (_, store) = open(&arg.config)?;
            let verdict = store.audit_verify().await?;
            store.close().await;
            match verdict {
                AuditVerdict::Whole { entries, .. } => say(&format!("the chain of {entries} entries is whole")),
                AuditVerdict::Broken { seq, fault } => anyhow::bail!("the chain is broken at entry {seq}: {fault:?}"),
            }
        }
        AuditCommand::Tail { config, entries } => {
            let (_, store) = open(&config.config)?;
            for entry in store.audit_tail(entries).await? {
                say(&format!("{} {} {} {} {}", entry.seq, entry.at, entry.who, entry.what, entry.detail))?;
            }
            store.close().await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(first: u8) -> TokenRow {
        let mut hash = [0; 32];
        hash[0] = first;
        TokenRow {
            hash,
            label: String::new(),
            group: String::new(),
            created_at: UtcTime(0),
            created_by: String::new(),
            expires_at: UtcTime(1),
            used: None,
            revoked_at: None,
        }
    }

    #[test]
    fn a_token_is_found_by_the_beginning_of_its_id_when_there_is_one_such() {
        let tokens = [row(0xab), row(0xac)];
        assert_eq!(the_token(&tokens, "ab").expect("one").hash[0], 0xab);
        assert_eq!(the_token(&tokens, "ac00000000000000").expect("whole").hash[0], 0xac);
        for (id, why) in [("a", "several"), ("ff", "no token"), ("", "no token")] {
            assert!(the_token(&tokens, id).expect_err("refused").to_string().contains(why), "{id}");
        }
    }
}
